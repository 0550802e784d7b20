//! Listeners: each with the identity of what it fronts.

use std::num::NonZeroUsize;
use std::sync::Arc;

use sidegate_identity::SpiffeId;
use sidegate_identity::attestation::{host_selectors, listener_selectors};
use sidegate_identity::clock::Clock;
use sidegate_identity::entry::Entry;
use sidegate_identity::selector::Selector;
use sidegate_identity::svid::Identities;
use sidegate_identity::tls::{Presented, ServerTls, TlsServer};
use sidegate_policy::Workload;
use sidegate_proxy::upstream::{AddressCheck, Upstream};
use sidegate_proxy::{BoundListener, ListenerConfig, NextListener, Outbound, Protocol, Route};
use tokio::sync::watch;

use super::ListenerStatus;
use super::components::{Components, Loaded};
use super::descriptors::{self, Descriptors};
use super::spire::Need;
use crate::config::{
    Config, ConfigSource, Key, Listen, Listener, ListenerTls, Mesh, Target, Timeouts,
};
use crate::failure::Failure;
use crate::systemd::Inherited;

/// What listeners are made with.
pub(super) struct Parts<'a> {
    pub(super) workers: NonZeroUsize,
    pub(super) components: &'a Components,
    pub(super) identities: &'a watch::Receiver<Arc<Identities>>,
    pub(super) inherited: &'a Inherited,
    pub(super) clock: &'a Arc<dyn Clock>,
    /// How many file descriptors there may be.
    pub(super) descriptors: u64,
}

/// A listener that serves, or is about to, and what it was made of.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) status: ListenerStatus,
    /// None where it speaks no TLS.
    pub(super) tls: Option<TlsServer>,
    /// As it is configured.
    written: Listener,
    /// Its own identity, and those of server names; none without TLS.
    presented: Vec<Presented>,
    /// Those that requests go to.
    components: Vec<Arc<Loaded>>,
}

/// Listeners that are made and do not serve yet.
pub(super) struct Made {
    pub(super) next: Vec<NextListener>,
    pub(super) served: Vec<Served>,
    pub(super) descriptors: Descriptors,
}

/// Makes all listeners, with the identities that `entries` give them. Those of `before` that are not
/// to change stay as they are, and one that changes keeps its sockets. Nothing is accepted yet.
pub(super) fn make(
    config: &Config,
    source: Option<&ConfigSource>,
    parts: &Parts<'_>,
    entries: &[Arc<Entry>],
    before: &[Served],
) -> Result<Made, Failure> {
    let mut fitted = config.listeners.clone();
    let descriptors = descriptors::fit(&mut fitted, parts.descriptors);
    let mut made = Made {
        next: Vec::new(),
        served: Vec::new(),
        descriptors,
    };
    for (index, (written, fitted)) in config.listeners.iter().zip(&fitted).enumerate() {
        let refused = |key: &str, code, error: &dyn std::error::Error| {
            super::refused(source, &place(config, index).child(key), code, error)
        };
        let selectors = selectors(written, parts.components)?;
        let presented = presented(written, &selectors, entries).map_err(|(place, error)| {
            let key = match place {
                None => self::place(config, index).child("name"),
                Some(place) => {
                    let sni = Key::listener(index).child("sni").item(place);
                    sni.child("spiffe_id")
                }
            };
            super::refused(source, &key, error.code(), &error)
        })?;
        let components = written.components();
        let components = components.map(|name| component(name, parts.components).map(Arc::clone));
        let components: Vec<_> = components.collect::<Result<_, _>>()?;
        let is_same = |it: &&Served| it.is(written, &presented, &components);
        if let Some(same) = before.iter().find(is_same) {
            made.next
                .push(NextListener::Unchanged(written.name.clone()));
            made.served.push(same.clone());
            continue;
        }
        let tls = tls(written, &presented, parts.identities)?;
        let own = presented.first();
        let mesh = Mesh {
            presented: own.cloned(),
            identities: parts.identities.clone(),
            clock: Arc::clone(parts.clock),
            addresses: match &written.outbound {
                Some(outbound) => outbound.addresses.clone(),
                None => AddressCheck::Any,
            },
            is_outbound: written.outbound.is_some(),
        };
        let outbound = written.outbound.as_ref().map(|_| Outbound {
            workload: Arc::new(workload(own, &selectors)),
        });
        let config = ListenerConfig {
            name: written.name.clone(),
            tls: tls.clone(),
            protocol: written.protocol,
            routes: routes(written, parts.components, &mesh)?,
            timeouts: written.timeouts,
            body_limits: written.body_limits,
            limits: fitted.limits,
            paths: written.paths,
            forwarding: written.forwarding.clone(),
            context_extensions: written.context_extensions.clone(),
            outbound,
        };
        let address;
        let listens_there = |it: &&Served| it.listens_for(written);
        made.next.push(match before.iter().find(listens_there) {
            Some(kept) => {
                address = kept.status.address;
                NextListener::Changed(kept.status.name.clone(), config)
            }
            None => {
                let bound = match &written.listen {
                    Listen::Address(address) => BoundListener::bind(*address, parts.workers)
                        .map_err(|error| refused("listen", error.code(), &error))?,
                    Listen::Systemd(name) => parts
                        .inherited
                        .socket(name, parts.workers)
                        .map_err(|error| refused("listen", error.code(), &error))?,
                };
                address = bound.address();
                NextListener::New(bound, config)
            }
        });
        let status = ListenerStatus {
            name: written.name.clone(),
            address,
            spiffe_id: tls.as_ref().map(|tls| tls.own().spiffe_id().to_string()),
            is_tcp: written.protocol == Protocol::Tcp && written.outbound.is_none(),
        };
        made.served.push(Served {
            status,
            tls,
            written: written.clone(),
            presented,
            components,
        });
    }
    Ok(made)
}

/// Tells of sockets that systemd passed in vain.
pub(super) fn warn_unused(inherited: &Inherited, served: &[Served]) {
    let used = served.iter().filter_map(|it| match &it.written.listen {
        Listen::Systemd(name) => Some(name.as_str()),
        Listen::Address(_) => None,
    });
    inherited.warn_unused(used);
}

impl Served {
    /// Whether it is what it should be.
    fn is(&self, written: &Listener, presented: &[Presented], components: &[Arc<Loaded>]) -> bool {
        let are_same = self.components.iter().zip(components);
        self.written == *written
            && self.presented == presented
            && self.components.len() == components.len()
            && are_same
                .into_iter()
                .all(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// Whether it is the very same.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.is(&other.written, &other.presented, &other.components)
    }

    /// What to tell of it, once for each of its identities, its own first; once where it has none.
    pub(super) fn shown(&self) -> Vec<(ListenerStatus, Option<Arc<ServerTls>>)> {
        let Some(tls) = &self.tls else {
            return vec![(self.status.clone(), None)];
        };
        let shown = tls.all().map(|tls| {
            let status = ListenerStatus {
                spiffe_id: Some(tls.spiffe_id().to_string()),
                ..self.status.clone()
            };
            (status, Some(Arc::clone(tls)))
        });
        shown.collect()
    }

    /// Whether its sockets are those of a listener that is configured so.
    fn listens_for(&self, written: &Listener) -> bool {
        let is_anybodys = match &written.listen {
            // Any port would do, but this one is known by now.
            Listen::Address(address) => address.port() != 0,
            Listen::Systemd(_) => true,
        };
        self.written.listen == written.listen && (is_anybodys || self.written.name == written.name)
    }
}

/// The names of those that take TCP.
pub(super) fn tcp(served: &[Served]) -> Vec<String> {
    let tcp = served.iter().filter(|it| it.status.is_tcp);
    tcp.map(|it| it.status.name.clone()).collect()
}

/// Who needs an identity when everything starts.
pub(super) fn needs(config: &Config, components: &Components) -> Result<Vec<Need>, Failure> {
    let mut needs = Vec::new();
    for listener in &config.listeners {
        let selectors = selectors(listener, components)?;
        needs.extend(wanted(listener).map(|(_, wanted)| Need {
            who: format!("the listener `{}`", listener.name),
            wanted: wanted.cloned(),
            selectors: selectors.clone(),
        }));
    }
    if config.admin.clients.is_some() {
        needs.push(Need {
            who: "the host, which `admin.clients` needs,".to_owned(),
            wanted: None,
            selectors: host_selectors(),
        });
    }
    Ok(needs)
}

/// The identities that a listener shows: its own, then those of server names; none without TLS. With an
/// error there is the place of the server names that have none.
fn presented(
    listener: &Listener,
    selectors: &[Selector],
    entries: &[Arc<Entry>],
) -> Result<Vec<Presented>, (Option<usize>, NoIdentity)> {
    let all = wanted(listener);
    all.map(|(place, wanted)| {
        let entry = identity(listener, wanted, selectors, entries.iter());
        let entry = entry.map_err(|error| (place, error))?;
        Ok(Presented {
            spiffe_id: entry.spiffe_id().clone(),
            selectors: selectors.into(),
        })
    })
    .collect()
}

/// The identities that a listener asks for, where it asks for a certain one: its own, then those of
/// server names with their places; none without TLS.
fn wanted(listener: &Listener) -> impl Iterator<Item = (Option<usize>, Option<&SpiffeId>)> {
    let named = listener.sni.iter().enumerate();
    let named = named.map(|(place, sni)| (Some(place), Some(&sni.spiffe_id)));
    let all = [(None, listener.spiffe_id.as_ref())]
        .into_iter()
        .chain(named);
    all.filter(|_| listener.tls != ListenerTls::Off)
}

/// Where a listener stands in the file.
pub(super) fn place(config: &Config, index: usize) -> Key {
    let mut listeners = config.listeners.iter();
    let first = listeners.position(|it| it.outbound.is_some());
    match first.and_then(|first| index.checked_sub(first)) {
        Some(index) => Key::egress(index),
        None => Key::listener(index),
    }
}

/// The app whose requests an outbound listener takes.
fn workload(presented: Option<&Presented>, selectors: &[Selector]) -> Workload {
    let selectors = selectors.iter();
    Workload {
        principal: presented.map(|presented| presented.spiffe_id.to_string()),
        selectors: selectors.map(ToString::to_string).collect(),
    }
}

/// A listener's side of TLS, with each of its identities; none where it speaks no TLS.
fn tls(
    listener: &Listener,
    presented: &[Presented],
    identities: &watch::Receiver<Arc<Identities>>,
) -> Result<Option<TlsServer>, Failure> {
    let ListenerTls::On(mode) = listener.tls else {
        return Ok(None);
    };
    let server = |presented: &Presented| {
        let alpn = listener.protocol.alpn();
        ServerTls::for_prepared(presented.clone(), identities.clone(), mode, alpn)
            .map_err(|error| Failure::new("SG0042", &error))
    };
    let (own, named) = presented.split_first().ok_or_else(no_identity)?;
    let mut tls = TlsServer::new(server(own)?);
    for (sni, presented) in listener.sni.iter().zip(named) {
        tls = tls.with_names(sni.server_names.iter().cloned(), server(presented)?);
    }
    Ok(Some(tls))
}

fn no_identity() -> Failure {
    Failure::message("SG0042", "a listener has no identity".to_owned())
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
fn selectors(listener: &Listener, components: &Components) -> Result<Vec<Selector>, Failure> {
    match &listener.target {
        Some(Target::Component(name)) => Ok(component(name, components)?.selectors.clone()),
        Some(Target::Upstream(_)) | None => Ok(listener_selectors(&listener.name)),
    }
}

/// The listener's routes, and last the one for all other requests.
fn routes(
    listener: &Listener,
    components: &Components,
    mesh: &Mesh,
) -> Result<Vec<Route>, Failure> {
    let Timeouts {
        request, connect, ..
    } = listener.timeouts;
    let upstream = |target: &Target| -> Result<Upstream, Failure> {
        Ok(match target {
            Target::Upstream(server) => server
                .upstream(connect, mesh)
                .map_err(|error| Failure::new("SG0042", &error))?,
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

fn component<'a>(name: &str, components: &'a Components) -> Result<&'a Arc<Loaded>, Failure> {
    let missing = || Failure::message("SG0030", format!("there is no component `{name}`"));
    components.get(name).ok_or_else(missing)
}

/// The identity that the entries give what stands behind a listener: the one wanted, or else the
/// first.
pub(super) fn identity<'a>(
    listener: &Listener,
    wanted: Option<&SpiffeId>,
    selectors: &[Selector],
    entries: impl Iterator<Item = &'a Arc<Entry>>,
) -> Result<Arc<Entry>, NoIdentity> {
    let selector = selectors.first().map(ToString::to_string);
    let selector = selector.unwrap_or_default();
    let listener_name = listener.name.clone();
    let mut entitled = entries.filter(|entry| entry.matches(selectors));
    match wanted {
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
