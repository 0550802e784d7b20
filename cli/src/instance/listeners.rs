//! Listeners: each with the identity of what it fronts.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use sidegate_identity::SpiffeId;
use sidegate_identity::attestation::listener_selectors;
use sidegate_identity::entry::Entry;
use sidegate_identity::selector::Selector;
use sidegate_identity::svid::Identities;
use sidegate_identity::tls::{Presented, ServerTls};
use sidegate_proxy::upstream::Upstream;
use sidegate_proxy::{BoundListener, ListenerConfig, Route};
use tokio::sync::watch;

use super::ListenerStatus;
use super::components::Loaded;
use crate::config::{Config, ConfigSource, Key, Listener, Target, Timeouts};
use crate::failure::Failure;

/// Binds all listeners. Nothing is accepted yet.
pub(super) fn bind(
    config: &Config,
    source: Option<&ConfigSource>,
    workers: NonZeroUsize,
    components: &BTreeMap<String, Loaded>,
    identities: &watch::Receiver<Arc<Identities>>,
) -> Result<Vec<ListenerConfig>, Failure> {
    let listeners = config.listeners.iter().enumerate();
    listeners
        .map(|(index, listener)| {
            let selectors = selectors(listener, components)?;
            let entry = {
                let generation = identities.borrow();
                let entries = generation.issued().iter().map(|issued| &issued.entry);
                identity(listener, &selectors, entries).map_err(|error| {
                    let key = Key::listener(index).child("name");
                    super::refused(source, &key, error.code(), &error)
                })?
            };
            let presented = Presented {
                spiffe_id: entry.spiffe_id().clone(),
                selectors: selectors.into(),
            };
            let tls = ServerTls::new(
                presented,
                identities.clone(),
                listener.tls,
                &["h2", "http/1.1"],
            )
            .map_err(|error| Failure::new("SG0042", &error))?;
            let bound = BoundListener::bind(listener.listen, workers).map_err(|error| {
                let key = Key::listener(index).child("listen");
                super::refused(source, &key, error.code(), &error)
            })?;
            Ok(ListenerConfig {
                name: listener.name.clone(),
                bound,
                tls,
                routes: routes(listener, components)?,
                timeouts: listener.timeouts,
                body_limits: listener.body_limits,
                limits: listener.limits,
                paths: listener.paths,
                forwarding: listener.forwarding.clone(),
                context_extensions: listener.context_extensions.clone(),
            })
        })
        .collect()
}

/// What to tell of a bound listener.
pub(super) fn status(listener: &ListenerConfig) -> ListenerStatus {
    ListenerStatus {
        name: listener.name.clone(),
        address: listener.bound.address(),
        spiffe_id: listener.tls.spiffe_id().to_string(),
    }
}

/// Why a listener has no identity.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoIdentity {
    #[error(
        "no entry gives the listener `{listener}` an identity: it needs the selector `{selector}`"
    )]
    NoEntry { listener: String, selector: String },
    #[error(
        "the listener `{listener}` is not entitled to `{wanted}`: an entry for it needs the selector `{selector}`"
    )]
    NotEntitled {
        listener: String,
        wanted: SpiffeId,
        selector: String,
    },
}

impl NoIdentity {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NoEntry { .. } => "SG0042",
            Self::NotEntitled { .. } => "SG0043",
        }
    }
}

/// What is known of what a listener fronts: of all that is behind its routes, nothing.
fn selectors(
    listener: &Listener,
    components: &BTreeMap<String, Loaded>,
) -> Result<Vec<Selector>, Failure> {
    match &listener.target {
        Some(Target::Component(name)) => Ok(component(name, components)?.selectors.clone()),
        Some(Target::Upstream(_)) | None => Ok(listener_selectors(&listener.name)),
    }
}

/// The listener's routes, and last the one for all other requests.
fn routes(
    listener: &Listener,
    components: &BTreeMap<String, Loaded>,
) -> Result<Vec<Route>, Failure> {
    let Timeouts {
        request, connect, ..
    } = listener.timeouts;
    let upstream = |target: &Target| -> Result<Upstream, Failure> {
        Ok(match target {
            Target::Upstream(server) => server.upstream(connect),
            Target::Component(name) => Upstream::Service {
                name: name.as_str().into(),
                service: component(name, components)?.upstream(),
            },
        })
    };
    let routes = listener.routes.iter().map(|route| {
        Ok(Route {
            name: route.name.as_str().into(),
            matches: route.matches.clone(),
            upstream: upstream(&route.target)?,
            request_timeout: route.request_timeout.unwrap_or(request),
            context_extensions: route.context_extensions.clone(),
        })
    });
    let any = listener.target.iter();
    let any = any.map(|target| Ok(Route::any(upstream(target)?, request)));
    routes.chain(any).collect()
}

fn component<'a>(
    name: &str,
    components: &'a BTreeMap<String, Loaded>,
) -> Result<&'a Loaded, Failure> {
    let missing = || Failure::message("SG0030", format!("there is no component `{name}`"));
    components.get(name).ok_or_else(missing)
}

/// The identity that the entries give what stands behind a listener: the one asked for, or else the
/// first.
pub(super) fn identity<'a>(
    listener: &Listener,
    selectors: &[Selector],
    entries: impl Iterator<Item = &'a Arc<Entry>>,
) -> Result<Arc<Entry>, NoIdentity> {
    let selector = selectors.first().map(ToString::to_string);
    let selector = selector.unwrap_or_default();
    let listener_name = listener.name.clone();
    let mut entitled = entries.filter(|entry| entry.matches(selectors));
    match &listener.spiffe_id {
        Some(wanted) => entitled
            .find(|entry| entry.spiffe_id() == wanted)
            .map(Arc::clone)
            .ok_or_else(|| NoIdentity::NotEntitled {
                listener: listener_name,
                wanted: wanted.clone(),
                selector,
            }),
        None => entitled.next().map(Arc::clone).ok_or(NoIdentity::NoEntry {
            listener: listener_name,
            selector,
        }),
    }
}
