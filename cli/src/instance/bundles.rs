//! Bundles: from what the configuration says to the first policy, and to what looks for newer ones.

mod set;
mod source;
mod status;

use std::path::Path;
use std::sync::Arc;

use sidegate_identity::clock::Clock;
use sidegate_policy::bundle::{BundleError, Limits, Verification, VerificationKey};
use sidegate_policy::{Policy, PolicyError, PolicySources};
use tracing::warn;

pub(super) use set::{BundleSources, Update};
use source::{BundleConfig, BundleOrigin};
pub(crate) use status::{BundleHandle, BundleStatus, illustrate};

use super::refused;
use crate::config::{self, BundleServer, Config, ConfigSource, Key, PolicyBundle};
use crate::failure::Failure;
use crate::transport::HttpFetch;

/// Below the state directory, with a folder for each bundle.
const FOLDER: &str = "bundles";
const FILE: &str = "bundle.tar.gz";

/// Reads the bundles of a configuration and looks for newer ones from then on.
pub(super) async fn start(
    config: &Config,
    source: Option<&ConfigSource>,
    state: &Path,
    clock: &Arc<dyn Clock>,
    load: impl FnMut(PolicySources) -> Result<Policy, PolicyError>,
) -> Result<(BundleSources, Policy), Failure> {
    let bundles = bundles(config, source, state)?;
    let clock = Arc::clone(clock);
    let clock = Arc::new(move || clock.now());
    let started = BundleSources::start(bundles, Limits::default(), clock, load).await;
    started.map_err(|error| failure(config, source, &error))
}

/// Reads the bundles as [`start`] would, and changes nothing.
pub(super) async fn examine(
    config: &Config,
    source: Option<&ConfigSource>,
    load: impl FnMut(PolicySources) -> Result<Policy, PolicyError>,
) -> Result<Policy, Failure> {
    let bundles = bundles(config, source, &config.identity.state)?;
    let examined = BundleSources::examine(bundles, Limits::default(), load).await;
    examined.map_err(|error| failure(config, source, &error))
}

fn bundles(
    config: &Config,
    source: Option<&ConfigSource>,
    state: &Path,
) -> Result<Vec<BundleConfig>, Failure> {
    let bundles = config.policy.bundles.iter().enumerate();
    bundles
        .map(|(index, bundle)| {
            let origin = match &bundle.origin {
                config::BundleOrigin::Path(path) => BundleOrigin::Path(path.clone()),
                config::BundleOrigin::Server(server) => {
                    let keep = state.join(FOLDER).join(&bundle.name).join(FILE);
                    BundleOrigin::Server {
                        fetch: Arc::new(fetch(server, source, &Key::bundle(index))?),
                        polling: server.polling,
                        keep: Some(keep).filter(|_| server.persist),
                    }
                }
            };
            Ok(BundleConfig {
                name: bundle.name.clone(),
                origin,
                verification: verification(bundle, source, &Key::bundle(index))?,
            })
        })
        .collect()
}

fn fetch(
    server: &BundleServer,
    source: Option<&ConfigSource>,
    at: &Key,
) -> Result<HttpFetch, Failure> {
    let (ca_file, token_file) = (server.ca_file.as_deref(), server.token_file.clone());
    HttpFetch::new(server.url.clone(), ca_file, token_file)
        .map_err(|error| refused(source, &at.child("url"), "SG0249", &error))
}

fn verification(
    bundle: &PolicyBundle,
    source: Option<&ConfigSource>,
    at: &Key,
) -> Result<Option<Verification>, Failure> {
    let Some(configured) = &bundle.verification else {
        if let config::BundleOrigin::Server(server) = &bundle.origin
            && server.ca_file.is_none()
        {
            warn!(
                bundle = bundle.name,
                "the bundle is neither signed nor fetched over TLS: whoever is on the way to its \
                 server decides what is allowed"
            );
        }
        return Ok(None);
    };
    let key = at.child("verification_key");
    let unusable = |error: BundleError| refused(source, &key, error.code(), &error);
    let content = std::fs::read(&configured.key).map_err(|source| {
        let path = configured.key.display();
        unusable(BundleError::Key {
            problem: format!("{path}: {source}"),
        })
    })?;
    let verification = VerificationKey::new(configured.algorithm, &content).map_err(unusable)?;
    let verification = Verification::new(verification)
        .key_id(configured.key_id.clone())
        .scope(configured.scope.clone())
        .exclude(&configured.exclude);
    verification.map(Some).map_err(unusable)
}

/// An error about one bundle is shown there, any other where the bundles begin.
fn failure(config: &Config, source: Option<&ConfigSource>, error: &BundleError) -> Failure {
    let mut names = config.policy.bundles.iter().map(|bundle| &bundle.name);
    let index = match error {
        BundleError::Named { name, .. } => names.position(|known| known == name),
        BundleError::Overlap { second, .. } => names.position(|known| known == second),
        _ => None,
    };
    let key = Key::bundle(index.unwrap_or(0)).child("name");
    refused(source, &key, error.code(), error)
}
