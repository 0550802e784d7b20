//! The source of identities, whichever it is.

mod off;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sidegate_identity::TrustDomain;
use sidegate_identity::embedded::{Authorities, EmbeddedError, EmbeddedSource};
use sidegate_identity::entry::Entry;
use sidegate_identity::received::{self, ReceivedError, ReceivedSource, SourceKind, SourceStatus};
use sidegate_identity::registry::Registration;
use sidegate_identity::source::{Issuer, SvidSource};
use sidegate_identity::spiffe_bundle::SpiffeBundle;
use sidegate_identity::spire::{AgentStatus, SpireAgent};
use sidegate_identity::svid::Identities;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::{Config, IdentitySource, SpireServer};
use crate::failure::Failure;
pub(crate) use off::{NoIdentities, Off};

/// The variable that names the Workload API of this machine, for all that is SPIFFE.
const ENDPOINT_SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Where SVIDs and bundles come from.
#[derive(Clone)]
pub(crate) enum Source {
    /// There are no identities.
    Off(Arc<Off>),
    /// A CA of our own, which mints.
    Embedded(Arc<EmbeddedSource>),
    /// What others mint.
    Received(Arc<ReceivedSource>),
    /// A SPIRE server, which mints for those of its entries that it lets us have.
    Spire(Arc<SpireAgent>),
}

/// Where SVIDs come from, as the configuration and the environment say.
pub(super) enum Origin<'a> {
    Off,
    Embedded,
    Received(received::Origin),
    SpireServer(&'a SpireServer),
}

/// Where SVIDs come from.
pub(super) fn origin(config: &Config) -> Result<Origin<'_>, Failure> {
    let configured = match &config.identity.source {
        IdentitySource::None => return Ok(Origin::Off),
        IdentitySource::Embedded => return Ok(Origin::Embedded),
        IdentitySource::SpireServer(server) => return Ok(Origin::SpireServer(server)),
        IdentitySource::Files(files) => {
            return Ok(Origin::Received(received::Origin::Files(files.clone())));
        }
        IdentitySource::WorkloadApi(socket) => socket.clone(),
    };
    let Some(socket) = configured.or_else(endpoint_socket) else {
        let text =
            format!("the source `workload-api` has no socket to ask, nor has {ENDPOINT_SOCKET}");
        let failure = Failure::message("SG0086", text);
        return Err(failure.help("set `socket` in `[identity.workload_api]`"));
    };
    let own = config.workload_api.as_ref();
    let own = own.and_then(|own| std::path::absolute(&own.socket).ok());
    let path = socket.strip_prefix("unix:").unwrap_or_default();
    let path = Path::new("/").join(path.trim_start_matches('/'));
    if own.is_some_and(|own| own == path) {
        let text = format!("the source `workload-api` would ask itself at {socket}");
        let failure = Failure::message("SG0084", text);
        return Err(
            failure.help("`workload_api.socket` is what this instance serves: name another")
        );
    }
    Ok(Origin::Received(received::Origin::WorkloadApi(socket)))
}

impl Source {
    /// The newest generation, and each that follows.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Identities>> {
        match self {
            Self::Off(source) => source.watch(),
            Self::Embedded(source) => source.watch(),
            Self::Received(source) => source.watch(),
            Self::Spire(agent) => agent.watch(),
        }
    }

    /// All entries, in the order in which they count.
    pub(crate) fn entries(&self) -> Vec<Registration> {
        match self {
            Self::Off(_) => Vec::new(),
            Self::Embedded(source) => source.entries(),
            Self::Received(source) => source.entries(),
            Self::Spire(agent) => agent.entries(),
        }
    }

    /// Whether there are no identities.
    pub(crate) fn is_off(&self) -> bool {
        matches!(self, Self::Off(_))
    }

    /// What is not well, in lines for people.
    pub(crate) fn failing(&self) -> Vec<String> {
        match self {
            Self::Off(_) => Vec::new(),
            Self::Embedded(source) => source.failing(),
            Self::Received(source) => source.status().failing().into_iter().collect(),
            Self::Spire(agent) => agent.failing(),
        }
    }

    /// How it fares. What the CA of our own cannot do is among what is failing.
    pub(crate) fn status(&self) -> SourceStatus {
        match self {
            Self::Off(_) => SourceStatus {
                kind: SourceKind::None,
                ..SourceStatus::default()
            },
            Self::Embedded(_) => SourceStatus::default(),
            Self::Received(source) => source.status(),
            Self::Spire(agent) => agent.source_status(),
        }
    }

    /// How the agent of a SPIRE server fares; none without one.
    pub(crate) fn agent(&self) -> Option<AgentStatus> {
        match self {
            Self::Spire(agent) => Some(agent.status()),
            Self::Off(_) | Self::Embedded(_) | Self::Received(_) => None,
        }
    }

    /// The authorities; none where others mint.
    pub(crate) fn authorities(&self) -> Authorities {
        match self {
            Self::Embedded(source) => source.authorities(),
            Self::Off(_) | Self::Received(_) | Self::Spire(_) => Authorities {
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
            Self::Off(_) => Ok(BTreeMap::new()),
            Self::Embedded(source) => source.spiffe_bundles(),
            Self::Received(_) | Self::Spire(_) => Ok(self.watch().borrow().spiffe_bundles()?),
        }
    }

    /// What mints, where anything does.
    pub(crate) fn issuer(&self) -> Option<Arc<dyn Issuer>> {
        match self {
            Self::Off(_) => None,
            Self::Embedded(source) => Some(Arc::<EmbeddedSource>::clone(source)),
            Self::Spire(agent) => Some(Arc::<SpireAgent>::clone(agent)),
            Self::Received(_) => None,
        }
    }

    /// The CA of our own, for what only a source that mints can do: this.
    pub(crate) fn minting(
        &self,
        what: &'static str,
    ) -> Result<&Arc<EmbeddedSource>, ReceivedError> {
        match self {
            Self::Off(_) => Err(ReceivedError::CannotMint {
                kind: SourceKind::None,
                what,
            }),
            Self::Embedded(source) => Ok(source),
            Self::Received(_) | Self::Spire(_) => Err(ReceivedError::CannotMint {
                kind: self.status().kind,
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
            // None of them is configured.
            Self::Off(_) => Ok(prepare(&[])?()),
            Self::Embedded(source) => source.replace_configured(configured, prepare),
            Self::Received(source) => source.replace_configured(configured, prepare),
            // There are none in the configuration; those of the server come by themselves.
            Self::Spire(agent) => {
                let entries = agent.entries().into_iter().map(|known| known.entry);
                let entries: Vec<_> = entries.collect();
                prepare(&entries).map(|put| put())
            }
        }
    }

    /// Keeps SVIDs and bundles fresh until told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        match self {
            Self::Off(_) => stop.cancelled().await,
            Self::Embedded(source) => source.run(stop).await,
            Self::Received(source) => source.run(stop).await,
            Self::Spire(agent) => agent.run(stop).await,
        }
    }

    /// Tells once what can be had of it and what cannot.
    pub(crate) fn tell(&self) {
        let kind = self.status().kind;
        match self {
            Self::Off(source) => source.tell(),
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
            Self::Spire(agent) => {
                let AgentStatus {
                    agent_id, served, ..
                } = agent.status();
                info!(
                    source = %kind,
                    agent_id,
                    served,
                    "identities are minted by the SPIRE server, whose agent this is: X.509-SVIDs and \
                     JWT-SVIDs for the entries that are made there"
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
