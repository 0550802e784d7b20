//! The identity plane, put together.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use sidegate_identity::TrustDomain;
use sidegate_identity::attestation::{UnixAttestor, host_selectors};
use sidegate_identity::authority::{EmbeddedAuthority, Lifetimes};
use sidegate_identity::clock::Clock;
use sidegate_identity::embedded::EmbeddedSource;
use sidegate_identity::entry::{Entry, EntryRequest};
use sidegate_identity::federation::FederatedBundles;
use sidegate_identity::jwt::JwtAuthority;
use sidegate_identity::metrics::IdentityMetrics;
use sidegate_identity::received::{ReceivedError, ReceivedSource};
use sidegate_identity::registry::EntryRegistry;
use sidegate_identity::svid_file::{SvidFile, Written};

use super::Source;
use super::source::{Off, Origin, origin};
use super::spire::{self, Need};
use super::state::StateDirectory;
use crate::config::{self, Config, ConfigSource, Key};
use crate::failure::{Failure, chain};

/// How long an agent may take to start, and to learn of the entry for this process.
const PATIENCE: Duration = Duration::from_secs(10);

/// The source of identities and what goes with it.
pub(super) struct IdentityPlane {
    pub(super) source: Source,
    pub(super) attestor: UnixAttestor,
    pub(super) metrics: IdentityMetrics,
}

/// Checks the entries; all that is wrong is shown at once.
pub(super) fn entries(
    config: &Config,
    source: Option<&ConfigSource>,
) -> Result<Vec<Entry>, Failure> {
    // Without one there are no entries either.
    let Some(trust_domain) = &config.identity.trust_domain else {
        return Ok(Vec::new());
    };
    let requests = config.identity.entries.iter().map(|entry| EntryRequest {
        spiffe_id: entry.spiffe_id.to_string(),
        selectors: entry.selectors.clone(),
        dns_names: entry.dns_names.clone(),
        x509_svid_ttl: entry.x509_svid_ttl,
        jwt_svid_ttl: entry.jwt_svid_ttl,
        hint: entry.hint.clone().unwrap_or_default(),
        audiences: entry.audiences.clone(),
        federates_with: entry.federates_with.clone(),
    });
    Entry::check_all(requests, trust_domain).map_err(|errors| match source {
        Some(source) => {
            let problems = errors.iter().map(|(index, error)| {
                let problem = source.diagnostic(&Key::entry(*index), error.code(), chain(error));
                match error.hint() {
                    Some(hint) => problem.help(hint),
                    None => problem,
                }
            });
            Failure::Config(source.diagnostics(problems.collect()))
        }
        None => match errors.first() {
            Some((_, error)) => Failure::new(error.code(), error),
            None => Failure::message("SG0100", "the entries are refused"),
        },
    })
}

/// The entries of the configuration, and those in the state directory that were made at run time.
pub(super) fn entry_registry(
    state: &Path,
    trust_domain: &TrustDomain,
    configured: Vec<Entry>,
    now: SystemTime,
) -> Result<EntryRegistry, Failure> {
    let path = state.join("entries.json");
    EntryRegistry::open(path, trust_domain.clone(), configured, now).map_err(|error| {
        let failure = Failure::new(error.code(), &error);
        match error.hint() {
            Some(hint) => failure.help(hint),
            None => failure,
        }
    })
}

/// A source that mints nothing does not give what is needed.
pub(super) fn not_received(error: &ReceivedError) -> Failure {
    let failure = Failure::new(error.code(), error);
    match error.hint() {
        Some(hint) => failure.help(hint),
        None => failure,
    }
}

/// The foreign bundles in the state directory.
pub(super) fn federated(
    state: &Path,
    trust_domain: &TrustDomain,
) -> Result<FederatedBundles, Failure> {
    let path = state.join("bundles.json");
    FederatedBundles::open(path, trust_domain.clone())
        .map_err(|error| Failure::new(error.code(), &error))
}

/// The entry by which the host has an identity of its own.
pub(super) fn host_entry<'a>(
    mut entries: impl Iterator<Item = &'a Arc<Entry>>,
) -> Result<Arc<Entry>, Failure> {
    let selectors = host_selectors();
    let entry = entries.find(|entry| entry.matches(&selectors));
    entry.map(Arc::clone).ok_or_else(|| {
        let text = "no entry gives the host an identity, which `admin.clients` needs";
        Failure::message("SG0042", text).help("add an entry with the selector `host:self`")
    })
}

impl IdentityPlane {
    /// Opens the CA and mints the first SVIDs, or takes the first of those whom others mint.
    pub(super) async fn open(
        config: &Config,
        entries: Vec<Entry>,
        needs: &[Need],
        state: &StateDirectory,
        clock: &Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Self, Failure> {
        let Some(trust_domain) = &config.identity.trust_domain else {
            return Self::off();
        };
        let metrics = IdentityMetrics::register(registry);
        let attestor = UnixAttestor::new(metrics.clone());
        let source = match origin(config)? {
            Origin::Off => return Self::off(),
            Origin::Embedded => {
                let source = embedded(config, trust_domain, entries, state, clock, &metrics)?;
                Source::Embedded(Arc::new(source))
            }
            Origin::Received(origin) => {
                let (trust_domain, clock) = (trust_domain.clone(), Arc::clone(clock));
                let source =
                    ReceivedSource::new(origin, trust_domain, entries, clock, metrics.clone());
                let source = Arc::new(source);
                let first = source.first(PATIENCE).await;
                first.map_err(|error| not_received(&error))?;
                Source::Received(source)
            }
            Origin::SpireServer(server) => {
                let (clock, metrics) = (Arc::clone(clock), metrics.clone());
                let agent = spire::agent(server, trust_domain, state.path(), clock, metrics)?;
                spire::first(&agent, needs).await?;
                Source::Spire(Arc::new(agent))
            }
        };
        source.tell();
        Ok(Self {
            source,
            attestor,
            metrics,
        })
    }

    /// Without identities there is nothing to count either.
    fn off() -> Result<Self, Failure> {
        let source = Source::Off(Arc::new(Off::new()?));
        source.tell();
        let metrics = IdentityMetrics::default();
        Ok(Self {
            source,
            attestor: UnixAttestor::new(metrics.clone()),
            metrics,
        })
    }

    /// Writes the SVID files for the first time.
    pub(super) fn write_files(
        &self,
        files: &[config::SvidFile],
    ) -> Result<Vec<(SvidFile, Written)>, Failure> {
        let identities = Arc::clone(&self.source.watch().borrow());
        files
            .iter()
            .map(|file| {
                let file = SvidFile {
                    spiffe_id: file.spiffe_id.clone(),
                    directory: file.directory.clone(),
                    notify: file.notify.clone(),
                };
                let written = file.write(&identities);
                let written = written.map_err(|error| Failure::new(error.code(), &error))?;
                Ok((file, written))
            })
            .collect()
    }
}

/// A CA of our own, with the first SVID of each entry.
fn embedded(
    config: &Config,
    trust_domain: &TrustDomain,
    entries: Vec<Entry>,
    state: &StateDirectory,
    clock: &Arc<dyn Clock>,
    metrics: &IdentityMetrics,
) -> Result<EmbeddedSource, Failure> {
    let now = clock.now();
    let lifetimes = Lifetimes {
        root: config.identity.embedded.root_ttl,
        svid: config.identity.svid_ttl,
    };
    let authority = match &config.identity.embedded.brought {
        Some(files) => EmbeddedAuthority::brought(files, trust_domain.clone(), lifetimes, now),
        None => {
            let path = state.path().join("authority.pem");
            EmbeddedAuthority::open(path, trust_domain.clone(), lifetimes, now)
        }
    }
    .map_err(|error| Failure::new(error.code(), &error))?;
    let jwt_authority = JwtAuthority::open(
        state.path().join("jwt_keys.json"),
        trust_domain.clone(),
        now,
    )
    .map_err(|error| Failure::new(error.code(), &error))?;
    let entries = entry_registry(state.path(), trust_domain, entries, now)?;
    let federated = federated(state.path(), trust_domain)?;
    EmbeddedSource::new(
        authority,
        jwt_authority,
        entries,
        federated,
        Arc::clone(clock),
        metrics.clone(),
    )
    .map_err(|error| Failure::new(error.code(), &error))
}
