//! From the raw configuration to the typed one, collecting every problem on the way.

mod bundles;
mod decision_log;
mod egress;
mod heads;
mod limits;
mod log;
mod off;
mod protocol;
mod routes;
mod shadow;
mod source;
mod spire;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::codes;
use super::cross;
use super::diagnostic::Diagnostic;
use super::document::KeyMap;
use super::key::Key;
use super::model::{
    Admin, BodyLimits, BroughtFiles, Component, Config, Embedded, Entry, Identity, Listener,
    ListenerTls, Notify, Policy, Proxy, SvidFile, Timeouts, WorkloadApi,
};
use super::raw::{
    RawAdmin, RawComponent, RawConfig, RawEmbedded, RawEntry, RawIdentity, RawListener, RawPolicy,
    RawProxy, RawRequestBody, RawSvidFile, RawTimeouts, RawWorkloadApi,
};
use super::values::{self, AT_LEAST_A_NANOSECOND, LONGEST, Problem};
use crate::table::Table;
use egress::{Behind, RawTarget};

/// The lowering of one file: reads values, keeps problems.
pub(super) struct Lowering<'a> {
    keys: &'a KeyMap,
    /// The folder of the file: relative paths start here.
    base: &'a Path,
    /// Whether the source is `none`.
    is_off: bool,
    problems: Vec<Diagnostic>,
}

/// `problems` are those that reading found; the typed configuration exists only without any.
pub(super) fn lower(
    mut raw: RawConfig,
    keys: &KeyMap,
    base: &Path,
    problems: Vec<Diagnostic>,
) -> Result<Config, Vec<Diagnostic>> {
    let mut lowering = Lowering {
        keys,
        base,
        is_off: false,
        problems,
    };
    lowering.turn_off(&mut raw);
    cross::check(&raw, &mut lowering);
    let config = lowering.config(raw);
    match config {
        Some(config) if lowering.problems.is_empty() => Ok(config),
        _ => Err(lowering.problems),
    }
}

impl Lowering<'_> {
    /// `None` only where a problem was reported.
    fn config(&mut self, raw: RawConfig) -> Option<Config> {
        let identity = self.identity(raw.identity);
        let workload_api = match self.is_off {
            true => Some(None),
            false => self.workload_api(raw.workload_api).map(Some),
        };
        let admin = self.admin(raw.admin.unwrap_or_default().0);
        let policy = self.policy(raw.policy);
        let proxy = self.proxy(raw.proxy.unwrap_or_default().0);
        let components = self.each(raw.component, Key::component, Self::component);
        let mut listeners = self.each(raw.listener, Key::listener, Self::listener);
        listeners.extend(self.each(raw.egress, Key::egress, Self::egress));
        let svid_files = self.each(raw.svid_file, Key::svid_file, Self::svid_file);
        let log = self.log(raw.log.unwrap_or_default().0);
        let decision_log = raw.decision_log.and_then(|raw| self.decision_log(raw.0));
        Some(Config {
            identity: identity?,
            workload_api: workload_api?,
            admin,
            policy,
            proxy,
            components,
            listeners,
            svid_files,
            log,
            decision_log,
        })
    }

    fn identity(&mut self, raw: Option<Table<RawIdentity>>) -> Option<Identity> {
        let at = Key::of("identity");
        let mut raw = self.section(raw, &at, "with `trust_domain` and `state`")?;
        let source = self.source(&at, &mut raw);
        let base = self.base;
        let trust_domain = match self.is_off {
            true => Some(None),
            false => {
                let key = at.child("trust_domain");
                let required = self.required(raw.trust_domain, key, values::trust_domain);
                required.map(Some)
            }
        };
        let state = self.required(raw.state, at.child("state"), values::path(base));
        let svid_ttl = self.optional(
            raw.svid_ttl,
            at.child("svid_ttl"),
            values::lifetime(Identity::TTL_RANGE),
        );
        let embedded = self.embedded(&at.child("embedded"), raw.embedded);
        let entries = self.each(raw.entry, Key::entry, Self::entry);
        Some(Identity {
            trust_domain: trust_domain?,
            source: source?,
            state: state?,
            svid_ttl: svid_ttl.unwrap_or(Identity::DEFAULT_SVID_TTL),
            embedded,
            entries,
        })
    }

    fn embedded(&mut self, at: &Key, raw: Option<Table<RawEmbedded>>) -> Embedded {
        let default = Embedded::default();
        let Some(Table(raw)) = raw else {
            return default;
        };
        let base = self.base;
        if raw.root_ttl.is_some() && raw.certificate.is_some() {
            let title = "`identity.embedded.root_ttl` with a certificate that is brought along";
            let key = at.child("root_ttl");
            let problem = Diagnostic::new(codes::NO_EFFECT, title, self.keys.value(&key))
                .label("has no effect")
                .related(self.keys.value(&at.child("certificate")), "brought here")
                .help("it is the lifetime of a root that is made here: remove one of the two");
            self.report(problem);
        }
        let root_ttl = self.optional(
            raw.root_ttl,
            at.child("root_ttl"),
            values::lifetime(Embedded::ROOT_TTL_RANGE),
        );
        let is_brought = raw.certificate.is_some() || raw.key.is_some() || raw.bundle.is_some();
        let mut brought = None;
        if is_brought {
            let certificate =
                self.required(raw.certificate, at.child("certificate"), values::path(base));
            let key = self.required(raw.key, at.child("key"), values::path(base));
            let bundle = self.optional(raw.bundle, at.child("bundle"), values::path(base));
            brought = certificate.zip(key).map(|(certificate, key)| BroughtFiles {
                certificate,
                key,
                bundle,
            });
        }
        Embedded {
            root_ttl: root_ttl.unwrap_or(default.root_ttl),
            brought,
        }
    }

    fn entry(&mut self, at: &Key, raw: RawEntry) -> Option<Entry> {
        let spiffe_id = self.required(raw.spiffe_id, at.child("spiffe_id"), values::spiffe_id);
        let selectors = self.present(raw.selectors, &at.child("selectors"));
        let dns_names = raw
            .dns_names
            .iter()
            .enumerate()
            .filter_map(|(index, name)| {
                let key = at.child("dns_names").item(index);
                self.parsed(name.as_str(), &key, values::dns_name)
            });
        let dns_names = dns_names.collect();
        let [x509_svid_ttl, jwt_svid_ttl] = [
            (raw.x509_svid_ttl, "x509_svid_ttl", Identity::TTL_RANGE),
            (raw.jwt_svid_ttl, "jwt_svid_ttl", Identity::JWT_TTL_RANGE),
        ]
        .map(|(ttl, name, range)| self.optional(ttl, at.child(name), values::lifetime(range)));
        Some(Entry {
            spiffe_id: spiffe_id?,
            selectors: selectors?,
            dns_names,
            audiences: raw.audiences,
            federates_with: raw.federates_with,
            x509_svid_ttl,
            jwt_svid_ttl,
            hint: raw.hint,
        })
    }

    fn workload_api(&mut self, raw: Option<Table<RawWorkloadApi>>) -> Option<WorkloadApi> {
        let at = Key::of("workload_api");
        let raw = self.section(raw, &at, "with `socket`")?;
        let base = self.base;
        Some(WorkloadApi {
            socket: self.required(raw.socket, at.child("socket"), values::socket(base))?,
        })
    }

    fn admin(&mut self, raw: RawAdmin) -> Admin {
        let at = Key::of("admin");
        let default = Admin::default();
        let clients = raw.clients.map(|clients| {
            let clients = clients.iter().enumerate().filter_map(|(index, id)| {
                let key = at.child("clients").item(index);
                self.parsed(id.as_str(), &key, values::spiffe_id)
            });
            clients.collect()
        });
        Admin {
            clients,
            listen: self
                .optional(raw.listen, at.child("listen"), values::address)
                .unwrap_or(default.listen),
        }
    }

    fn policy(&mut self, raw: Option<Table<RawPolicy>>) -> Policy {
        let at = Key::of("policy");
        let default = Policy::default();
        let Some(Table(raw)) = raw else {
            return default;
        };
        let base = self.base;
        let longest = Duration::from_secs(5);
        let shadow_key = at.child("shadow");
        // Both are sections of their own: with a shadow alone, the stock policy decides.
        let needs_no_path = !raw.bundle.is_empty()
            || raw.shadow.is_some()
            || self.is_faulty(&at.child("bundle"))
            || self.is_faulty(&shadow_key);
        let shadow = raw.shadow.and_then(|raw| self.shadow(&shadow_key, raw.0));
        Policy {
            path: match needs_no_path {
                true => self.optional(raw.path, at.child("path"), values::path(base)),
                false => self.required(raw.path, at.child("path"), values::path(base)),
            },
            bundles: self.each(raw.bundle, Key::bundle, Self::bundle),
            entrypoint: self
                .optional(raw.entrypoint, at.child("entrypoint"), values::entrypoint)
                .unwrap_or(default.entrypoint),
            timeout: self
                .optional(
                    raw.timeout,
                    at.child("timeout"),
                    values::duration(*AT_LEAST_A_NANOSECOND.start()..=longest),
                )
                .unwrap_or(default.timeout),
            shadow,
        }
    }

    fn proxy(&mut self, raw: RawProxy) -> Proxy {
        let at = Key::of("proxy");
        Proxy {
            workers: self.optional(raw.workers, at.child("workers"), values::integer(1..=256)),
            drain_timeout: self
                .optional(
                    raw.drain_timeout,
                    at.child("drain_timeout"),
                    values::duration(Duration::ZERO..=LONGEST),
                )
                .unwrap_or(Proxy::default().drain_timeout),
        }
    }

    fn component(&mut self, at: &Key, raw: RawComponent) -> Option<Component> {
        let base = self.base;
        let name = self.required(raw.name, at.child("name"), values::name);
        let path = self.required(raw.path, at.child("path"), values::path(base));
        let namespace = self.optional(raw.namespace, at.child("namespace"), values::name);
        let memory_limit = self.optional(
            raw.memory_limit,
            at.child("memory_limit"),
            values::size(Component::MEMORY_LIMIT_RANGE),
        );
        let max_concurrency = self.optional(
            raw.max_concurrency,
            at.child("max_concurrency"),
            values::integer(1..=Component::MAX_CONCURRENCY_LIMIT),
        );
        let request_deadline = self.optional(
            raw.request_deadline,
            at.child("request_deadline"),
            values::duration(AT_LEAST_A_NANOSECOND),
        );
        Some(Component {
            name: name?,
            path: path?,
            namespace: namespace.unwrap_or_else(|| Component::DEFAULT_NAMESPACE.to_owned()),
            memory_limit: memory_limit.unwrap_or(Component::DEFAULT_MEMORY_LIMIT),
            max_concurrency: max_concurrency.unwrap_or(Component::DEFAULT_MAX_CONCURRENCY),
            request_deadline: request_deadline.unwrap_or(Component::DEFAULT_REQUEST_DEADLINE),
        })
    }

    fn listener(&mut self, at: &Key, mut raw: RawListener) -> Option<Listener> {
        let protocol = self.protocol(at, &raw);
        let tls = self.tls(at, &mut raw);
        let behind = Behind {
            outbound: None,
            has_identity: tls != ListenerTls::Off,
        };
        let sni = self.sni(at, std::mem::take(&mut raw.sni));
        let name = self.required(raw.name, at.child("name"), values::name);
        let listen = self.required(raw.listen, at.child("listen"), values::listen);
        let paths = self.paths(&at.child("path"), raw.path.unwrap_or_default().0);
        let routes = self.routes(at, raw.route, paths, behind);
        let is_optional = !routes.is_empty() || self.is_faulty(&at.child("route"));
        let target = RawTarget {
            component: raw.component,
            upstream: raw.upstream,
            expected_spiffe_ids: raw.expected_spiffe_ids,
            expected_trust_domain: raw.expected_trust_domain,
            behind,
        };
        let target = self.target(at, target, is_optional);
        let spiffe_id = self.optional(raw.spiffe_id, at.child("spiffe_id"), values::spiffe_id);
        self.behind_protocol(at, protocol, target.as_ref().and_then(Option::as_ref));
        let timeouts = self.timeouts(&at.child("timeouts"), raw.timeouts.unwrap_or_default().0);
        let body_limits = self.body_limits(
            &at.child("request_body"),
            raw.request_body.unwrap_or_default().0,
        );
        let has_own_cap = raw
            .limits
            .as_ref()
            .is_some_and(|raw| raw.0.max_connections.is_some());
        let limits = self.limits(at, raw.limits, raw.http2);
        let forwarding = self.forwarding(at, raw.forward_client_cert, &raw.trusted_hops);
        let context_extensions = self.context_extensions(
            &at.child("context_extensions"),
            raw.context_extensions.unwrap_or_default().0,
        );
        Some(Listener {
            name: name?,
            listen: listen?,
            target: target?,
            routes,
            spiffe_id,
            tls,
            protocol: protocol.unwrap_or_default(),
            sni,
            timeouts,
            body_limits,
            limits,
            has_own_cap,
            paths: paths?,
            forwarding: forwarding?,
            context_extensions,
            outbound: None,
        })
    }

    fn body_limits(&mut self, at: &Key, raw: RawRequestBody) -> BodyLimits {
        let default = BodyLimits::default();
        let max_request_bytes = self.optional(
            raw.max_request_bytes,
            at.child("max_request_bytes"),
            values::size(Listener::MAX_REQUEST_BYTES_RANGE),
        );
        BodyLimits {
            max_request_bytes: max_request_bytes.map_or(default.max_request_bytes, |bytes| {
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }),
            allow_partial_message: raw
                .allow_partial_message
                .unwrap_or(default.allow_partial_message),
            pack_as_bytes: raw.pack_as_bytes.unwrap_or(default.pack_as_bytes),
        }
    }

    fn context_extensions(
        &mut self,
        at: &Key,
        raw: BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        if raw.contains_key("listener") {
            let key = at.child("listener");
            let problem = Diagnostic::new(
                codes::DUPLICATE_NAME,
                "a context extension named `listener`",
                self.keys.value(&key),
            )
            .label("Sidegate writes the listener's name there")
            .help("give it another name");
            self.report(problem);
        }
        raw
    }

    fn timeouts(&mut self, at: &Key, raw: RawTimeouts) -> Timeouts {
        let default = Timeouts::default();
        let mut timeout = |value, name, default| {
            let range = values::duration(AT_LEAST_A_NANOSECOND);
            self.optional(value, at.child(name), range)
                .unwrap_or(default)
        };
        Timeouts {
            header_read: timeout(raw.header_read, "header_read", default.header_read),
            idle: timeout(raw.idle, "idle", default.idle),
            stream_idle: timeout(raw.stream_idle, "stream_idle", default.stream_idle),
            body_read: timeout(raw.body_read, "body_read", default.body_read),
            request: timeout(raw.request, "request", default.request),
            connect: timeout(raw.connect, "connect", default.connect),
        }
    }

    fn svid_file(&mut self, at: &Key, raw: RawSvidFile) -> Option<SvidFile> {
        let base = self.base;
        let spiffe_id = self.required(raw.spiffe_id, at.child("spiffe_id"), values::spiffe_id);
        let directory = self.required(raw.directory, at.child("directory"), values::path(base));
        // Each needs the other.
        let mut signal = None;
        if raw.pid_file.is_some() || raw.signal.is_some() {
            let pid_file = self.required(raw.pid_file, at.child("pid_file"), values::path(base));
            let kind = self.required(raw.signal, at.child("signal"), values::signal);
            signal = pid_file.zip(kind);
        }
        let command = self.optional(raw.command, at.child("command"), values::command);
        Some(SvidFile {
            spiffe_id: spiffe_id?,
            directory: directory?,
            notify: Notify {
                signal,
                command: command.unwrap_or_default(),
            },
        })
    }
}

impl Lowering<'_> {
    pub(super) fn report(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    pub(super) fn keys(&self) -> &KeyMap {
        self.keys
    }

    pub(super) fn is_faulty(&self, key: &Key) -> bool {
        self.keys.is_faulty(key)
    }

    /// Whether there are no identities.
    pub(super) fn is_off(&self) -> bool {
        self.is_off
    }

    pub(super) fn base(&self) -> &Path {
        self.base
    }

    /// Lowers the tables of an array, each with its key; what cannot be lowered was reported.
    fn each<R, T>(
        &mut self,
        raw: Vec<Table<R>>,
        key: impl Fn(usize) -> Key,
        lower: impl Fn(&mut Self, &Key, R) -> Option<T>,
    ) -> Vec<T> {
        let numbered = raw.into_iter().enumerate();
        numbered
            .filter_map(|(index, Table(raw))| lower(self, &key(index), raw))
            .collect()
    }

    fn section<R>(&mut self, raw: Option<Table<R>>, key: &Key, content: &str) -> Option<R> {
        if raw.is_none() && !self.is_faulty(key) {
            let problem = Diagnostic::new(
                codes::MISSING,
                format!("the section `[{key}]` is missing"),
                None,
            );
            self.report(problem.help(format!("add `[{key}]` {content}")));
        }
        raw.map(|Table(raw)| raw)
    }

    fn required<I: Borrow<B>, B: ?Sized, T>(
        &mut self,
        value: Option<I>,
        key: Key,
        parse: impl FnOnce(&B) -> Result<T, Problem>,
    ) -> Option<T> {
        let value = self.present(value, &key)?;
        self.parsed(value.borrow(), &key, parse)
    }

    fn optional<I: Borrow<B>, B: ?Sized, T>(
        &mut self,
        value: Option<I>,
        key: Key,
        parse: impl FnOnce(&B) -> Result<T, Problem>,
    ) -> Option<T> {
        self.parsed(value?.borrow(), &key, parse)
    }

    fn present<I>(&mut self, value: Option<I>, key: &Key) -> Option<I> {
        if value.is_none() && !self.is_faulty(key) {
            let table = key.parent().unwrap_or_default();
            let problem = Diagnostic::new(
                codes::MISSING,
                format!("`{key}` is missing"),
                self.keys.value(&table),
            );
            self.report(problem.label("required in this section"));
        }
        value
    }

    fn parsed<B: ?Sized, T>(
        &mut self,
        value: &B,
        key: &Key,
        parse: impl FnOnce(&B) -> Result<T, Problem>,
    ) -> Option<T> {
        if self.is_faulty(key) {
            return None;
        }
        parse(value)
            .map_err(|problem| {
                let title = format!("`{key}` {}", problem.phrase);
                let mut diagnostic =
                    Diagnostic::new(problem.code, title, self.keys.value(key)).label(problem.label);
                diagnostic.help = problem.help;
                self.report(diagnostic);
            })
            .ok()
    }
}
