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
use sidegate_proxy::upstream::http1::Http1Upstream;
use sidegate_proxy::{BoundListener, ListenerConfig};
use tokio::sync::watch;

use super::ListenerStatus;
use super::components::Loaded;
use crate::config::{Config, ConfigSource, Key, Listener, Target};
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
            let fronted = Fronted::of(listener, components)?;
            let entry = {
                let generation = identities.borrow();
                let entries = generation.issued().iter().map(|issued| &issued.entry);
                identity(listener, &fronted.selectors, entries).map_err(|error| {
                    let key = Key::listener(index).child("name");
                    super::refused(source, &key, error.code(), &error)
                })?
            };
            let presented = Presented {
                spiffe_id: entry.spiffe_id().clone(),
                selectors: fronted.selectors.into(),
            };
            let tls = ServerTls::new(presented, identities.clone(), &["h2", "http/1.1"])
                .map_err(|error| Failure::new("SG0042", &error))?;
            let bound = BoundListener::bind(listener.listen, workers).map_err(|error| {
                let key = Key::listener(index).child("listen");
                super::refused(source, &key, error.code(), &error)
            })?;
            Ok(ListenerConfig {
                name: listener.name.clone(),
                bound,
                tls,
                upstream: fronted.upstream,
                timeouts: listener.timeouts,
                body_limits: listener.body_limits,
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

/// What stands behind a listener, and what is known about it.
struct Fronted {
    selectors: Vec<Selector>,
    upstream: Upstream,
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

impl Fronted {
    fn of(listener: &Listener, components: &BTreeMap<String, Loaded>) -> Result<Self, Failure> {
        match &listener.target {
            Target::Upstream(authority) => Ok(Self {
                selectors: listener_selectors(&listener.name),
                upstream: Upstream::Http1(Http1Upstream::new(
                    authority.clone(),
                    listener.timeouts.connect,
                )),
            }),
            Target::Component(name) => {
                let component = components.get(name).ok_or_else(|| {
                    Failure::message("SG0030", format!("there is no component `{name}`"))
                })?;
                Ok(Self {
                    selectors: component.selectors.clone(),
                    upstream: Upstream::Service(component.upstream()),
                })
            }
        }
    }
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
