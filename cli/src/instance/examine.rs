//! Whether a configuration could be started, without starting or changing anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::unistd::geteuid;
use prometheus_client::registry::Registry;
use sidegate_host::HostMetrics;
use sidegate_identity::TrustDomain;
use sidegate_identity::attestation::listener_selectors;
use sidegate_identity::authority::{EmbeddedAuthority, Lifetimes};
use sidegate_identity::clock::{Clock, SystemClock};
use sidegate_identity::embedded::AuthorityKind;
use sidegate_identity::jwt::JwtAuthority;
use sidegate_identity::metrics::IdentityMetrics;
use sidegate_identity::received::{ReceivedError, ReceivedSource, SourceKind};
use sidegate_identity::registry::{self, EntryRegistry};
use sidegate_identity::selector::Selector;
use sidegate_identity::svid_file::SvidFile;
use sidegate_proxy::BoundListener;

use super::components::{Loaded, load_each};
use super::policy::load_candidate;
use super::socket::{BoundSocket, Purpose, short_enough};
use super::source::Origin;
use super::status::{self, seconds};
use super::{
    Found, StateDirectory, access_log_unwritable, decision_log, descriptors, examine_policy,
    health, identity, listeners, refused, source, spire,
};
use crate::admin::{AdminClient, SOCKET, Status};
use crate::check::{
    Category, Check, authority, counted, egress, file_descriptors, kept_authority, off, plaintext,
    stock_policy, tcp_policy,
};
use crate::config::{
    AccessLogOutput, Config, ConfigSource, Identity, IdentitySource, Listen, Listener, ListenerTls,
    Protocol, SpireServer, Target,
};
use crate::failure::Failure;

/// A configuration, and what there is on this machine.
struct Examination<'a> {
    config: &'a Config,
    source: &'a ConfigSource,
    found: Option<Found>,
    /// What the instance tells that uses the state directory now.
    running: Option<Status>,
    now: SystemTime,
}

/// Components by name, loaded or not.
type Components = Vec<(String, Result<Loaded, Failure>)>;

/// Checks everything that [`super::Instance::start`] needs, as the user who asks.
///
/// # Errors
/// An instance uses the state directory, and cannot be asked.
pub(crate) async fn examine(
    config: &Config,
    source: &ConfigSource,
) -> Result<Vec<Category>, Failure> {
    let state = &config.identity.state;
    let owner = geteuid().as_raw();
    let looked = StateDirectory::look(state, owner, config.identity.trust_domain.as_ref());
    let found = looked.as_ref().ok().copied();
    let admin = AdminClient::new(state);
    let running = match found {
        Some(Found::Ours) if admin.is_there() => Some(admin.status().await?),
        _ => None,
    };
    let examination = Examination {
        config,
        source,
        found,
        running,
        now: SystemClock.now(),
    };
    let loaded = load_each(
        config,
        Some(source),
        HostMetrics::register(&mut Registry::default()),
    )
    .collect();
    let (identity, listeners) = match &config.identity.trust_domain {
        None => (vec![off()], examination.listeners(&loaded, None)),
        Some(trust_domain) => {
            let entries = examination.entries(trust_domain);
            let known = entries.as_ref().ok().filter(|_| examination.is_told());
            let listeners = examination.listeners(&loaded, known);
            let source = examination.source(trust_domain).await;
            let identity = examination.identity(trust_domain, entries, source);
            (identity, listeners)
        }
    };
    let categories = [
        Category::new("state", examination.state(looked)),
        Category::new("identity", identity),
        Category::new("workload API", examination.workload_api()),
        Category::new("policy", examination.policy().await),
        Category::new("decision log", examination.decision_log()),
        Category::new("listeners", listeners),
        Category::new("components", components(loaded)),
        Category::new("access log", examination.access_log()),
        Category::new("process", examination.descriptors()),
    ];
    Ok(categories.into_iter().flatten().collect())
}

impl Examination<'_> {
    fn state(&self, looked: Result<Found, Failure>) -> Vec<Check> {
        let state = &self.config.identity.state;
        let note = match (&self.running, self.found) {
            (Some(status), _) => format!(", in use by process {}", status.pid),
            (None, Some(Found::Absent)) => ", will be made".to_owned(),
            (None, _) => String::new(),
        };
        let detail = format!("{}{note}", state.display());
        let mut rows =
            Check::ok("state-directory", "state directory can be used", detail).unless(looked);
        let socket = state.join(SOCKET);
        // Without its directory there is nothing to be said about the socket.
        if self.found.is_some() {
            rows.extend(self.socket(Purpose::Admin, &socket));
        }
        rows
    }

    /// The entries of the configuration, and those that were made at run time.
    fn entries(&self, trust_domain: &TrustDomain) -> Result<EntryRegistry, Failure> {
        let configured = identity::entries(self.config, Some(self.source))?;
        let Identity { state, source, .. } = &self.config.identity;
        if *source != IdentitySource::Embedded {
            let trust_domain = trust_domain.clone();
            return Ok(EntryRegistry::configured(
                trust_domain,
                configured,
                self.now,
            ));
        }
        identity::entry_registry(state, trust_domain, configured, self.now)
    }

    /// What a source that mints nothing gives to whoever checks; none of the CA of our own.
    async fn source(&self, trust_domain: &TrustDomain) -> Vec<Check> {
        let row =
            |detail: String| Check::ok("identity-source", "identity source gives SVIDs", detail);
        let origin = match source::origin(self.config) {
            Ok(Origin::Off | Origin::Embedded) => return Vec::new(),
            Ok(Origin::SpireServer(server)) => {
                return self.spire_server(server, trust_domain).await;
            }
            Ok(Origin::Received(origin)) => origin,
            Err(failure) => return row(String::new()).unless(Err::<(), _>(failure)),
        };
        // What is wrong with them has a row already.
        let entries = identity::entries(self.config, Some(self.source)).unwrap_or_default();
        let trust_domain = trust_domain.clone();
        let (clock, metrics) = (Arc::new(SystemClock), IdentityMetrics::default());
        let source = ReceivedSource::new(origin, trust_domain, entries, clock, metrics);
        let source = Arc::new(source);
        let first = source.first(Duration::ZERO).await;
        let ids = source.ids();
        let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let row = row(format!("{}, {}", source.kind(), ids.join(" ")));
        match first {
            // It knows the process that asks: the one that serves may get something else.
            Err(error @ (ReceivedError::NoIdentity { .. } | ReceivedError::NotHeld { .. }))
                if source.kind() == SourceKind::WorkloadApi =>
            {
                let reason = format!("it says so to who checks: {error}");
                vec![row.warning(error.code(), reason)]
            }
            first => row.unless(first.map_err(|error| identity::not_received(&error))),
        }
    }

    /// Whether the server answers, and what is to be shown to it is there.
    async fn spire_server(&self, server: &SpireServer, trust_domain: &TrustDomain) -> Vec<Check> {
        let row = Check::ok("spire-server", "SPIRE server answers", &server.address);
        let (clock, metrics) = (Arc::new(SystemClock), IdentityMetrics::default());
        let state = &self.config.identity.state;
        let agent = spire::agent(server, trust_domain, state, clock, metrics);
        let examined = match agent {
            Ok(agent) => agent
                .examine()
                .await
                .map_err(|error| spire::not_attested(&error)),
            Err(failure) => Err(failure),
        };
        row.unless(examined)
    }

    /// Those of a SPIRE server are not known before there is an agent.
    fn is_told(&self) -> bool {
        !matches!(self.config.identity.source, IdentitySource::SpireServer(_))
    }

    fn identity(
        &self,
        trust_domain: &TrustDomain,
        entries: Result<EntryRegistry, Failure>,
        source: Vec<Check>,
    ) -> Vec<Check> {
        let count = |origin| {
            let all = entries.as_ref().map(EntryRegistry::all).unwrap_or_default();
            all.iter().filter(|known| known.origin == origin).count()
        };
        let is_told = self.is_told();
        let detail = match is_told {
            true => format!(
                "{} in the configuration, {} made at run time",
                count(registry::Origin::Configuration),
                count(registry::Origin::Runtime)
            ),
            false => "those of the SPIRE server".to_owned(),
        };
        let host = match (&self.config.admin.clients, &entries) {
            (Some(_), Ok(entries)) if is_told => {
                let entries = entries.all().iter().map(|known| &known.entry);
                Some(identity::host_entry(entries))
            }
            _ => None,
        };
        let mut rows = Check::ok("entries", "entries are valid", detail).unless(entries);
        if let Some(host) = host {
            let what = "host has an identity";
            rows.extend(Check::ok("host-identity", what, "for `admin.clients`").unless(host));
        }
        let state = &self.config.identity.state;
        if self.config.identity.source == IdentitySource::Embedded {
            let federated = identity::federated(state, trust_domain);
            let detail = match &federated {
                Ok(federated) => counted(federated.all().len(), "trust domain"),
                Err(_) => String::new(),
            };
            let what = "foreign bundles are valid";
            rows.extend(Check::ok("foreign-bundles", what, detail).unless(federated));
            rows.extend(self.x509_authority(trust_domain));
            rows.extend(self.jwt_authority(trust_domain));
        }
        rows.extend(source);
        for file in &self.config.svid_files {
            let detail = file.directory.display().to_string();
            let row = Check::ok("svid-files", "SVID files can be written", detail);
            let file = SvidFile {
                spiffe_id: file.spiffe_id.clone(),
                directory: file.directory.clone(),
                notify: file.notify.clone(),
            };
            let examined = match self.is_made_with_state(&file.directory) {
                true => Ok(()),
                false => file.examine(),
            };
            rows.extend(row.unless(examined.map_err(|error| Failure::new(error.code(), &error))));
        }
        rows
    }

    fn x509_authority(&self, trust_domain: &TrustDomain) -> Vec<Check> {
        let (identity, now) = (&self.config.identity, seconds(self.now));
        let kind = AuthorityKind::X509;
        let lifetimes = Lifetimes {
            root: identity.embedded.root_ttl,
            svid: identity.svid_ttl,
        };
        let examined = match &identity.embedded.brought {
            Some(files) => {
                let path = files.certificate.display().to_string();
                EmbeddedAuthority::brought(files, trust_domain.clone(), lifetimes, self.now)
                    .map(|brought| authority(kind, &brought.status(), Some(&path), now))
            }
            None => EmbeddedAuthority::examine(&identity.state.join("authority.pem"), trust_domain)
                .map(|all| kept_authority(kind, &all, now)),
        };
        examined.unwrap_or_else(|error| {
            let failed = Failure::new(error.code(), &error);
            Check::authority(kind, "").unless(Err::<(), _>(failed))
        })
    }

    fn jwt_authority(&self, trust_domain: &TrustDomain) -> Vec<Check> {
        let kind = AuthorityKind::Jwt;
        let path = self.config.identity.state.join("jwt_keys.json");
        match JwtAuthority::examine(&path, trust_domain) {
            Ok(all) => kept_authority(kind, &all, seconds(self.now)),
            Err(error) => {
                let failed = Failure::new(error.code(), &error);
                Check::authority(kind, "").unless(Err::<(), _>(failed))
            }
        }
    }

    fn workload_api(&self) -> Vec<Check> {
        let served = self.config.workload_api.as_ref();
        let rows = served.map(|served| self.socket(Purpose::WorkloadApi, &served.socket));
        rows.unwrap_or_default()
    }

    async fn policy(&self) -> Vec<Check> {
        let policy = examine_policy(self.config, self.source).await;
        let detail = match &policy {
            Ok(policy) => status::policy(status::policy_origin(self.config), policy).summary(),
            Err(_) => status::policy_origin(self.config).unwrap_or_default(),
        };
        let decides = policy.as_ref().ok().map(|policy| policy.status().connect);
        let says = policy.as_ref().ok().and_then(|it| it.status().egress);
        let mut rows = Check::ok("policy", "policy can decide", detail).unless(policy);
        rows.extend(egress(says));
        let is_stock = status::policy_origin(self.config).is_none();
        if is_stock && self.config.identity.source == IdentitySource::None {
            rows.push(stock_policy());
        }
        let tcp = self.config.listeners.iter();
        let tcp = tcp.filter(|it| it.protocol == Protocol::Tcp && it.outbound.is_none());
        // Without a policy, that is what has to be mended first.
        let tcp = tcp.filter_map(|listener| Some(tcp_policy(&listener.name, decides?)));
        rows.extend(tcp);
        if let Some(shadow) = &self.config.policy.shadow {
            let candidate = load_candidate(self.config, Some(self.source));
            let detail = match &candidate {
                Ok(Some(candidate)) => candidate.summary(),
                _ => shadow.path.display().to_string(),
            };
            let row = Check::ok("policy-shadow", "candidate can be compared", detail);
            rows.extend(row.unless(candidate));
        }
        rows
    }

    fn decision_log(&self) -> Vec<Check> {
        let examined = decision_log::examine(self.config, self.source);
        let row = |(place, outcome)| {
            Check::ok("decision-log", "decisions can be logged", place).unless(outcome)
        };
        examined.map(row).unwrap_or_default()
    }

    fn access_log(&self) -> Vec<Check> {
        let AccessLogOutput::File(path) = &self.config.log.access else {
            return Vec::new();
        };
        let writable = decision_log::writable(path);
        let writable = writable.map_err(|error| access_log_unwritable(Some(self.source), &error));
        let place = path.display().to_string();
        Check::ok("access-log", "access log can be written", place).unless(writable)
    }

    /// By the limits of whoever asks.
    fn descriptors(&self) -> Vec<Check> {
        let mut listeners = self.config.listeners.clone();
        let limit = descriptors::hard_limit();
        let fitted = limit.map(|limit| descriptors::fit(&mut listeners, limit));
        let row = fitted.ok().and_then(|it| file_descriptors(&it));
        row.into_iter().collect()
    }

    fn listeners(&self, loaded: &Components, entries: Option<&EntryRegistry>) -> Vec<Check> {
        let admin = self.config.admin.listen;
        let is_served = self.running.as_ref().is_some_and(|it| it.admin == admin);
        let bound = health::examine(admin);
        let mut rows = address("admin-address", &admin.to_string(), is_served, bound);
        for (index, listener) in self.config.listeners.iter().enumerate() {
            let Listener { name, listen, .. } = listener;
            let detail = format!("{name}, {listen}");
            rows.extend(self.listen(index, listen, &detail));
            if listener.tls == ListenerTls::Off {
                rows.push(plaintext(name));
                continue;
            }
            // What is missing for this has a row already.
            let (Some(entries), Some(selectors)) = (entries, selectors(listener, loaded)) else {
                continue;
            };
            let key = listeners::place(self.config, index);
            let named = listener.sni.iter().enumerate().map(|(place, sni)| {
                let key = key.child("sni").item(place).child("spiffe_id");
                (Some(&sni.spiffe_id), key)
            });
            let own = [(listener.spiffe_id.as_ref(), key.child("name"))];
            for (wanted, key) in own.into_iter().chain(named) {
                let all = entries.all().iter().map(|known| &known.entry);
                let entry = listeners::identity(listener, wanted, &selectors, all);
                let entry =
                    entry.map_err(|error| refused(Some(self.source), &key, error.code(), &error));
                let id = entry.as_ref().map(|entry| entry.spiffe_id().to_string());
                let detail = format!("{name}, {}", id.unwrap_or_default());
                let row = Check::ok("listener-identity", "listener has an identity", detail);
                rows.extend(row.unless(entry));
            }
        }
        rows
    }

    fn listen(&self, index: usize, listen: &Listen, detail: &str) -> Vec<Check> {
        let id = "listener-address";
        let Listen::Address(listen) = listen else {
            // Only what systemd starts is passed its sockets.
            return vec![Check::ok(id, "address can be listened on", detail)];
        };
        let is_served = self.running.as_ref().is_some_and(|it| {
            let mut listeners = it.listeners.iter();
            listeners.any(|facts| facts.listener.address == *listen)
        });
        let bound = BoundListener::examine(*listen).map_err(|error| {
            let key = listeners::place(self.config, index).child("listen");
            refused(Some(self.source), &key, error.code(), &error)
        });
        address(id, detail, is_served, bound)
    }

    /// Whether the folder that this is in is the state directory, and not there yet.
    fn is_made_with_state(&self, path: &Path) -> bool {
        self.found == Some(Found::Absent) && path.parent() == Some(&self.config.identity.state)
    }

    fn socket(&self, purpose: Purpose, path: &Path) -> Vec<Check> {
        let (id, what) = match purpose {
            Purpose::WorkloadApi => ("workload-socket", "Workload API can be served"),
            Purpose::Admin => ("admin-socket", "admin socket can be served"),
        };
        let examined = if self.is_made_with_state(path) {
            short_enough(path, purpose)
        } else {
            let served = self.running.as_ref().map(|status| {
                let workload_socket = status.workload_socket.as_deref();
                let workload_socket = workload_socket.and_then(|it| it.strip_prefix("unix://"));
                let admin_socket = self.config.identity.state.join(SOCKET);
                [
                    PathBuf::from(workload_socket.unwrap_or_default()),
                    admin_socket,
                ]
            });
            BoundSocket::examine(
                path,
                purpose,
                served.as_ref().map_or(&[], |served| served.as_slice()),
            )
        };
        Check::ok(id, what, path.display().to_string()).unless(examined)
    }
}

/// Whether an address can be listened on, or is where the running instance listens.
fn address(
    id: &'static str,
    detail: &str,
    is_served: bool,
    bound: Result<(), Failure>,
) -> Vec<Check> {
    let what = "address can be listened on";
    if is_served {
        let detail = format!("{detail}, in use by the running instance");
        return vec![Check::ok(id, what, detail)];
    }
    Check::ok(id, what, detail).unless(bound)
}

/// What is known about what a listener fronts; `None` where that could not be loaded.
fn selectors(listener: &Listener, loaded: &Components) -> Option<Vec<Selector>> {
    match &listener.target {
        None | Some(Target::Upstream(_)) => Some(listener_selectors(&listener.name)),
        Some(Target::Component(name)) => {
            let (_, component) = loaded.iter().find(|(known, _)| known == name)?;
            let component = component.as_ref().ok()?;
            Some(component.selectors.clone())
        }
    }
}

fn components(loaded: Components) -> Vec<Check> {
    let rows = loaded.into_iter().flat_map(|(name, loaded)| {
        let digest = loaded.as_ref().map(Loaded::digest).unwrap_or_default();
        let detail = format!("{name}, {digest}");
        Check::ok("component", "component can be loaded", detail).unless(loaded)
    });
    rows.collect()
}
