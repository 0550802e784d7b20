//! Components, loaded and turned into upstreams.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use http::Request;
use http_body_util::BodyExt;
use sidegate_host::{Component, Host, HostConfig, HostMetrics, InvokeError, digest};
use sidegate_identity::attestation::ComponentFacts;
use sidegate_identity::selector::Selector;
use sidegate_proxy::RequestBody;
use sidegate_proxy::upstream::{ServiceFailure, UpstreamService};
use tower::{ServiceExt, service_fn};

use crate::admin::ComponentStatus;
use crate::config::{self, Config, ConfigSource, Key};
use crate::failure::Failure;

/// Components that are ready to serve, by name.
pub(super) type Components = BTreeMap<String, Arc<Loaded>>;

/// A component that is ready to serve.
pub(super) struct Loaded {
    /// What it was loaded by.
    config: config::Component,
    /// What was found out about it.
    pub(super) selectors: Vec<Selector>,
    component: Component,
}

/// Loads all components. One that was loaded before from the same file, by the same configuration,
/// is that one.
pub(super) fn load(
    config: &Config,
    source: Option<&ConfigSource>,
    metrics: &HostMetrics,
    before: &Components,
) -> Result<Components, Failure> {
    let components = config.components.iter().enumerate();
    components
        .map(|(index, component)| {
            let loaded = match kept(component, before) {
                Some(kept) => kept,
                None => Arc::new(load_at(index, component, source, metrics)?),
            };
            Ok((component.name.clone(), loaded))
        })
        .collect()
}

/// Loads one component after another, with their names.
pub(super) fn load_each(
    config: &Config,
    source: Option<&ConfigSource>,
    metrics: HostMetrics,
) -> impl Iterator<Item = (String, Result<Loaded, Failure>)> {
    let components = config.components.iter().enumerate();
    components.map(move |(index, component)| {
        let loaded = load_at(index, component, source, &metrics);
        (component.name.clone(), loaded)
    })
}

fn kept(component: &config::Component, before: &Components) -> Option<Arc<Loaded>> {
    let known = before.get(&component.name)?;
    let is_kept = known.config == *component
        && component_digest(&component.path).is_ok_and(|digest| digest == known.digest());
    is_kept.then(|| Arc::clone(known))
}

fn load_at(
    index: usize,
    component: &config::Component,
    source: Option<&ConfigSource>,
    metrics: &HostMetrics,
) -> Result<Loaded, Failure> {
    load_one(component, metrics).map_err(|(code, error)| {
        let key = Key::component(index).child("path");
        super::refused(source, &key, code, error.as_ref())
    })
}

/// `sha256:<hex>` of a component's file.
pub(crate) fn component_digest(path: &Path) -> Result<String, Failure> {
    read(path)
        .map(|bytes| digest(&bytes))
        .map_err(|(code, error)| Failure::new(code, error.as_ref()))
}

/// What to tell of loaded components.
pub(super) fn status(components: &Components) -> Vec<ComponentStatus> {
    let components = components.iter();
    components
        .map(|(name, loaded)| ComponentStatus {
            name: name.clone(),
            digest: loaded.digest().to_owned(),
        })
        .collect()
}

type Refusal = (&'static str, Box<dyn std::error::Error>);

#[derive(Debug, thiserror::Error)]
#[error("the component {path} cannot be used")]
struct Unusable {
    path: String,
    source: Box<dyn std::error::Error>,
}

impl Unusable {
    fn refusal(
        code: &'static str,
        path: &Path,
        source: impl Into<Box<dyn std::error::Error>>,
    ) -> Refusal {
        let path = path.display().to_string();
        let source = source.into();
        (code, Box::new(Self { path, source }))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    std::fs::read(path).map_err(|error| Unusable::refusal("SG0041", path, error))
}

fn load_one(config: &config::Component, metrics: &HostMetrics) -> Result<Loaded, Refusal> {
    let bytes = read(&config.path)?;
    let default = HostConfig::default();
    let limits = HostConfig {
        memory_limit: usize::try_from(config.memory_limit).unwrap_or(usize::MAX),
        max_concurrency: config.max_concurrency,
        request_deadline: config.request_deadline,
        total_deadline: default.total_deadline.max(config.request_deadline),
        ..default
    };
    let host = Host::new(limits, metrics.clone())
        .map_err(|error| Unusable::refusal(error.code(), &config.path, error))?;
    let component = host
        .load(&config.name, &bytes)
        .map_err(|error| Unusable::refusal(error.code(), &config.path, error))?;
    let facts = ComponentFacts {
        digest: component.digest().to_owned(),
        name: config.name.clone(),
        namespace: Some(config.namespace.clone()),
    };
    Ok(Loaded {
        config: config.clone(),
        selectors: facts.selectors(),
        component,
    })
}

impl Loaded {
    /// `sha256:<hex>` of its file.
    pub(super) fn digest(&self) -> &str {
        self.component.digest()
    }

    /// The component as the proxy calls it.
    pub(super) fn upstream(&self) -> UpstreamService {
        let service = self.component.service();
        UpstreamService::new(service_fn(move |request: Request<RequestBody>| {
            let answer = service.clone().oneshot(request);
            async {
                let response = answer.await.map_err(failure)?;
                Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
            }
        }))
    }
}

fn failure(error: InvokeError) -> ServiceFailure {
    ServiceFailure {
        status: error.status(),
        label: error.label(),
        code: error.code(),
        // The host has logged the details.
        message: error.to_string(),
    }
}
