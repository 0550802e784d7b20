//! The source of identities, whichever it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sidegate_identity::TrustDomain;
use sidegate_identity::embedded::{Authorities, EmbeddedError, EmbeddedSource};
use sidegate_identity::entry::Entry;
use sidegate_identity::received::{Origin, ReceivedError, ReceivedSource, SourceStatus};
use sidegate_identity::registry::Registration;
use sidegate_identity::source::{Issuer, SvidSource};
use sidegate_identity::spiffe_bundle::SpiffeBundle;
use sidegate_identity::svid::Identities;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::{Config, IdentitySource};
use crate::failure::Failure;

/// The variable that names the Workload API of this machine, for all that is SPIFFE.
const ENDPOINT_SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Where SVIDs and bundles come from.
#[derive(Clone)]
pub(crate) enum Source {
    /// A CA of our own, which mints.
    Embedded(Arc<EmbeddedSource>),
    /// What others mint.
    Received(Arc<ReceivedSource>),
}

/// Where a source that mints nothing takes SVIDs from; `None` is the CA of our own.
pub(super) fn origin(config: &Config) -> Result<Option<Origin>, Failure> {
    let configured = match &config.identity.source {
        IdentitySource::Embedded => return Ok(None),
        IdentitySource::Files(files) => return Ok(Some(Origin::Files(files.clone()))),
        IdentitySource::WorkloadApi(socket) => socket.clone(),
    };
    let Some(socket) = configured.or_else(endpoint_socket) else {
        let text =
            format!("the source `workload-api` has no socket to ask, nor has {ENDPOINT_SOCKET}");
        let failure = Failure::message("SG0086", text);
        return Err(failure.help("set `socket` in `[identity.workload_api]`"));
    };
    let own = std::path::absolute(&config.workload_api.socket);
    let path = socket.strip_prefix("unix:").unwrap_or_default();
    let path = Path::new("/").join(path.trim_start_matches('/'));
    if own.is_ok_and(|own| own == path) {
        let text = format!("the source `workload-api` would ask itself at {socket}");
        let failure = Failure::message("SG0084", text);
        return Err(
            failure.help("`workload_api.socket` is what this instance serves: name another")
        );
    }
    Ok(Some(Origin::WorkloadApi(socket)))
}

impl Source {
    /// The newest generation, and each that follows.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Identities>> {
        match self {
            Self::Embedded(source) => source.watch(),
            Self::Received(source) => source.watch(),
        }
    }

    /// All entries, in the order in which they count.
    pub(crate) fn entries(&self) -> Vec<Registration> {
        match self {
            Self::Embedded(source) => source.entries(),
            Self::Received(source) => source.entries(),
        }
    }

    /// What is not well, in lines for people.
    pub(crate) fn failing(&self) -> Vec<String> {
        match self {
            Self::Embedded(source) => source.failing(),
            Self::Received(source) => source.status().failing().into_iter().collect(),
        }
    }

    /// How it fares. What the CA of our own cannot do is among what is failing.
    pub(crate) fn status(&self) -> SourceStatus {
        match self {
            Self::Embedded(_) => SourceStatus::default(),
            Self::Received(source) => source.status(),
        }
    }

    /// The authorities; none where others mint.
    pub(crate) fn authorities(&self) -> Authorities {
        match self {
            Self::Embedded(source) => source.authorities(),
            Self::Received(_) => Authorities {
                x509: Vec::new(),
                jwt: Vec::new(),
            },
        }
    }

    /// The bundles of all trust domains, the own one among them.
    pub(crate) fn spiffe_bundles(
        &self,
    ) -> Result<BTreeMap<TrustDomain, SpiffeBundle>, EmbeddedError> {
        match self {
            Self::Embedded(source) => source.spiffe_bundles(),
            Self::Received(source) => Ok(source.spiffe_bundles()?),
        }
    }

    /// What mints, where anything does.
    pub(crate) fn issuer(&self) -> Option<Arc<dyn Issuer>> {
        match self {
            Self::Embedded(source) => Some(Arc::<EmbeddedSource>::clone(source)),
            Self::Received(_) => None,
        }
    }

    /// The CA of our own, for what only a source that mints can do: this.
    pub(crate) fn minting(
        &self,
        what: &'static str,
    ) -> Result<&Arc<EmbeddedSource>, ReceivedError> {
        match self {
            Self::Embedded(source) => Ok(source),
            Self::Received(source) => Err(ReceivedError::CannotMint {
                kind: source.kind(),
                what,
            }),
        }
    }

    /// Puts other entries of the configuration in the place of those that are there, together with
    /// what uses them.
    pub(crate) fn replace_configured<P, T, E>(
        &self,
        configured: Vec<Entry>,
        prepare: impl FnOnce(&[Arc<Entry>]) -> Result<P, E>,
    ) -> Result<T, E>
    where
        P: FnOnce() -> T,
        E: From<EmbeddedError> + From<ReceivedError>,
    {
        match self {
            Self::Embedded(source) => source.replace_configured(configured, prepare),
            Self::Received(source) => source.replace_configured(configured, prepare),
        }
    }

    /// Keeps SVIDs and bundles fresh until told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        match self {
            Self::Embedded(source) => source.run(stop).await,
            Self::Received(source) => source.run(stop).await,
        }
    }

    /// Tells once what can be had of it and what cannot.
    pub(crate) fn tell(&self) {
        let kind = self.status().kind;
        match self {
            Self::Embedded(_) => info!(
                source = %kind,
                "identities are minted here: X.509-SVIDs and JWT-SVIDs, for entries that may be made \
                 at run time"
            ),
            Self::Received(source) => {
                let ids = source.ids();
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                info!(
                    source = %kind,
                    ids = ids.join(" "),
                    "identities come from outside: these IDs can be given to workloads; no entries at \
                     run time, no JWT-SVIDs, no rotation of authorities"
                );
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the variable is SPIFFE's own default for this"
)]
fn endpoint_socket() -> Option<String> {
    std::env::var(ENDPOINT_SOCKET).ok()
}
