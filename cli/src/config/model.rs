//! The typed configuration: plain data, checked, with every default filled in.
//!
//! Nothing here knows TOML. `sidegate up` builds the same [`Config`] in code.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Uri};
pub(crate) use sidegate_identity::authority::BroughtFiles;
use sidegate_identity::entry;
pub(crate) use sidegate_identity::received::SvidFiles;
use sidegate_identity::spire::{AudienceRule, NodeAttestation};
pub(crate) use sidegate_identity::svid_file::Notify;
pub(crate) use sidegate_identity::tls::TlsMode;
use sidegate_policy::bundle::{Polling, SignatureAlgorithm};
pub(crate) use sidegate_policy::decision_log::{FileOptions, UploadOptions};
pub(crate) use sidegate_policy::shadow::Sample;
pub(crate) use sidegate_proxy::upstream::AddressCheck;
pub(crate) use sidegate_proxy::{
    BodyLimits, Forwarding, Http2Limits, Limits, LineFormat, PathRules, Protocol, RequestRate,
    RouteMatch, Timeouts,
};
use spiffe::{SpiffeId, TrustDomain};

pub(crate) use super::upstream::UpstreamServer;

/// Everything that `sidegate run` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) identity: Identity,
    /// There with every source but `none`.
    pub(crate) workload_api: Option<WorkloadApi>,
    pub(crate) admin: Admin,
    pub(crate) policy: Policy,
    pub(crate) proxy: Proxy,
    /// In file order; names are unique.
    pub(crate) components: Vec<Component>,
    /// In file order, those of `[[egress]]` last; names and non-zero addresses are unique.
    pub(crate) listeners: Vec<Listener>,
    /// In file order; directories are unique.
    pub(crate) svid_files: Vec<SvidFile>,
    pub(crate) log: Log,
    /// Without it, decisions are not logged.
    pub(crate) decision_log: Option<DecisionLog>,
}

/// `[identity]`: who issues, for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// There with every source but `none`.
    pub(crate) trust_domain: Option<TrustDomain>,
    pub(crate) source: IdentitySource,
    /// The state directory, where the embedded CA lives.
    pub(crate) state: PathBuf,
    /// The lifetime of SVIDs whose entry names none.
    pub(crate) svid_ttl: Duration,
    pub(crate) embedded: Embedded,
    /// In file order.
    pub(crate) entries: Vec<Entry>,
}

/// `[identity.embedded]`: the CA of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Embedded {
    /// The lifetime of a root certificate that is made here.
    pub(crate) root_ttl: Duration,
    /// An authority that the user brings; none is made then.
    pub(crate) brought: Option<BroughtFiles>,
}

/// Where SVIDs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IdentitySource {
    /// Nowhere: there are no identities.
    None,
    /// A CA in the state directory.
    Embedded,
    /// `[identity.files]`: PEM files that somebody else keeps.
    Files(SvidFiles),
    /// `[identity.workload_api]`: another's Workload API. Without an address it is the one that the
    /// environment names.
    WorkloadApi(Option<String>),
    /// `[identity.spire_server]`: a SPIRE server, whose agent this is.
    SpireServer(Box<SpireServer>),
}

/// `[identity.spire_server]`, with `[[identity.audience_rule]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpireServer {
    /// Host and port.
    pub(crate) address: String,
    pub(crate) trust_bundle: TrustBundle,
    pub(crate) attestation: NodeAttestation,
    pub(crate) sync_interval: Duration,
    /// In file order.
    pub(crate) audience_rules: Vec<AudienceRule>,
}

/// What a SPIRE server is verified by at first contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TrustBundle {
    File(PathBuf),
    /// What a URL returns. With `https` its server's certificate leads to the roots of a file.
    Url {
        url: Uri,
        ca_file: Option<PathBuf>,
    },
    /// Whoever answers is believed.
    Insecure,
}

/// `[[identity.entry]]`: a registration entry, as written.
///
/// Only the form is checked here; whether the selectors are known and sufficient and the ID is
/// allowed is the identity room's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) spiffe_id: SpiffeId,
    /// `type:value` strings, unchecked.
    pub(crate) selectors: Vec<String>,
    pub(crate) dns_names: Vec<String>,
    pub(crate) x509_svid_ttl: Option<Duration>,
    pub(crate) jwt_svid_ttl: Option<Duration>,
    pub(crate) hint: Option<String>,
    /// Audiences of the JWT-SVIDs that the workload may ask for.
    pub(crate) audiences: Vec<String>,
    /// Foreign trust domains whose bundles the workload gets, unchecked.
    pub(crate) federates_with: Vec<String>,
}

/// `[workload_api]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkloadApi {
    /// At most [`WorkloadApi::SOCKET_PATH_MAX`] bytes.
    pub(crate) socket: PathBuf,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admin {
    pub(crate) listen: SocketAddr,
    /// Who may ask, by mutual TLS; without it, everybody who can connect.
    pub(crate) clients: Option<Vec<SpiffeId>>,
}

/// `[policy]`: which Rego decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// A Rego file or a directory of them; `None` is the stock policy, or the bundles.
    pub(crate) path: Option<PathBuf>,
    /// In file order; names are unique. None where there is a path.
    pub(crate) bundles: Vec<PolicyBundle>,
    /// The rule that decides, as `package/path/rule` below `data`.
    pub(crate) entrypoint: String,
    /// How long one decision may take before it counts as a denial.
    pub(crate) timeout: Duration,
    /// What may be the next policy.
    pub(crate) shadow: Option<PolicyShadow>,
}

/// `[policy.shadow]`: a candidate that is compared with the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyShadow {
    /// A Rego file, a directory of them, or the tarball of a bundle.
    pub(crate) path: PathBuf,
    /// The share of requests that are compared.
    pub(crate) sample: Sample,
}

/// `[[policy.bundle]]`: an OPA bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyBundle {
    pub(crate) name: String,
    pub(crate) origin: BundleOrigin,
    /// Without it, the bundle must not be signed.
    pub(crate) verification: Option<BundleVerification>,
}

/// Where a bundle comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BundleOrigin {
    /// A directory, or a gzip tarball.
    Path(PathBuf),
    /// A server.
    Server(BundleServer),
}

/// A server with a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BundleServer {
    /// `http` or `https`, with a host.
    pub(crate) url: Uri,
    /// A file with the bearer token to show.
    pub(crate) token_file: Option<PathBuf>,
    /// PEM: whom to trust; there with `https` only.
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) polling: Polling,
    /// Whether the last good bundle is kept in the state directory.
    pub(crate) persist: bool,
}

/// How a bundle must be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BundleVerification {
    /// A file with a public key, a certificate or a secret.
    pub(crate) key: PathBuf,
    pub(crate) algorithm: SignatureAlgorithm,
    /// What the signature may call its key.
    pub(crate) key_id: Option<String>,
    pub(crate) scope: String,
    /// Patterns of files that need not be signed.
    pub(crate) exclude: Vec<String>,
}

/// `[proxy]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// Worker threads; `None` is one for each CPU.
    pub(crate) workers: Option<usize>,
    /// How long running requests may finish after a stop was asked for.
    pub(crate) drain_timeout: Duration,
}

/// `[[component]]`: a WebAssembly component to host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Component {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) namespace: String,
    /// Bytes of linear memory of one instance.
    pub(crate) memory_limit: u64,
    /// Requests served at the same time.
    pub(crate) max_concurrency: usize,
    pub(crate) request_deadline: Duration,
}

/// `[[listener]]`: a socket that takes connections, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) listen: Listen,
    /// Where requests go that are for no route; without it they are for nobody.
    pub(crate) target: Option<Target>,
    /// In file order. There is one at least, or a target.
    pub(crate) routes: Vec<Route>,
    /// Which of several identities of the target the listener presents.
    pub(crate) spiffe_id: Option<SpiffeId>,
    pub(crate) tls: ListenerTls,
    /// With TCP, the target is such a server, and there are no routes.
    pub(crate) protocol: Protocol,
    /// In file order; no server name is there twice.
    pub(crate) sni: Vec<Sni>,
    pub(crate) timeouts: Timeouts,
    /// `[listener.request_body]`.
    pub(crate) body_limits: BodyLimits,
    /// `[listener.limits]` and `[listener.http2]`.
    pub(crate) limits: Limits,
    /// Whether `limits.max_connections` was set. Else it makes way where descriptors are few.
    pub(crate) has_own_cap: bool,
    /// `[listener.path]`.
    pub(crate) paths: PathRules,
    /// `[listener.forward_client_cert]` and `trusted_hops`.
    pub(crate) forwarding: Forwarding,
    /// What the policy is told of the listener, without its name.
    pub(crate) context_extensions: BTreeMap<String, String>,
    /// Where it is one of `[[egress]]`, for a local app's own requests.
    pub(crate) outbound: Option<Outbound>,
}

/// What `[[egress]]` has and no other listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outbound {
    /// Where names may lead.
    pub(crate) addresses: AddressCheck,
}

/// Whether a listener speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenerTls {
    /// Plaintext: neither it nor its clients have an identity there. One of `[[egress]]` shows none in
    /// any case; this one has none.
    Off,
    /// TLS, and what clients must show.
    On(TlsMode),
}

/// Where a listener's sockets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// They are bound to this address.
    Address(SocketAddr),
    /// systemd passes one under this name.
    Systemd(String),
}

/// `[[listener.sni]]`: the identity of those who ask for some server names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sni {
    /// In lower case: `a.example`, or `*.a.example` for all below it. One at least.
    pub(crate) server_names: Vec<String>,
    pub(crate) spiffe_id: SpiffeId,
}

/// `[[listener.route]]`: where some of a listener's requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// Unlike that of all other routes of the listener.
    pub(crate) name: String,
    pub(crate) matches: RouteMatch,
    pub(crate) target: Target,
    /// Without it, the listener's counts.
    pub(crate) request_timeout: Option<Duration>,
    /// What the policy is told of the route, before what it is told of the listener.
    pub(crate) context_extensions: BTreeMap<String, String>,
}

impl Route {
    /// The name of one that was given none, by its place from 0.
    pub(crate) fn unnamed(index: usize) -> String {
        format!("route-{}", index.saturating_add(1))
    }
}

/// What is behind a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The component of this name.
    Component(String),
    /// A server.
    Upstream(UpstreamServer),
}

/// `[[svid_file]]`: an identity kept fresh as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SvidFile {
    pub(crate) spiffe_id: SpiffeId,
    /// Holds `svid.pem`, `key.pem`, `bundle.pem` and `bundle_map.json`.
    pub(crate) directory: PathBuf,
    /// Who is told of new files.
    pub(crate) notify: Notify,
}

/// `[log]`: diagnostics on standard error, and where the access log's lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    /// Directives of a `tracing` filter, such as `info,sidegate_proxy=debug`.
    pub(crate) level: String,
    pub(crate) format: LogFormat,
    pub(crate) access: AccessLogOutput,
    pub(crate) access_format: LineFormat,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AccessLogOutput {
    Stdout,
    Stderr,
    /// Opened again on SIGHUP.
    File(PathBuf),
}

/// The kinds of [`AccessLogOutput`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessLogKind {
    Stdout,
    Stderr,
    File,
}

/// How diagnostics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[decision_log]`: what was decided and on what grounds, in OPA's format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecisionLog {
    pub(crate) output: DecisionLogOutput,
    pub(crate) max_decisions_per_second: Option<u32>,
    pub(crate) credentials: Credentials,
    /// Headers that are erased besides.
    pub(crate) mask_headers: Vec<HeaderName>,
    /// Of every event, besides `id` and `version`.
    pub(crate) labels: BTreeMap<String, String>,
}

/// Where the decision log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DecisionLogOutput {
    Stdout,
    File(FileOptions),
    Http(Receiver),
}

/// A receiver of OPA's decision log API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receiver {
    /// `http` or `https`, host, port if any, and the whole path.
    pub(crate) uri: Uri,
    /// A file with a bearer token.
    pub(crate) token_file: Option<PathBuf>,
    /// PEM: what signs the receiver's certificate. There with `https`.
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) upload: UploadOptions,
}

/// What becomes of the values of headers that are credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credentials {
    Erased,
    LoggedInPlainText,
}

/// The kinds of [`DecisionLogOutput`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecisionLogKind {
    Stdout,
    File,
    Http,
}

impl DecisionLog {
    pub(crate) const DEFAULT_MAX_SIZE: u64 = 100 << 20;
    pub(crate) const MAX_SIZE_RANGE: RangeInclusive<u64> = 4 << 10..=1 << 40;
    pub(crate) const DEFAULT_KEEP: usize = 5;
    pub(crate) const MOST_KEPT: i64 = 1000;
    pub(crate) const DEFAULT_RESOURCE: &'static str = "/logs";
    /// OPA's.
    pub(crate) const DEFAULT_UPLOAD_SIZE_LIMIT: u64 = 32 << 10;
    pub(crate) const UPLOAD_SIZE_LIMIT_RANGE: RangeInclusive<u64> = 1 << 10..=64 << 20;
    pub(crate) const DEFAULT_MIN_DELAY: Duration = Duration::from_secs(1);
    pub(crate) const DEFAULT_MAX_DELAY: Duration = Duration::from_secs(10);
    pub(crate) const DELAY_RANGE: RangeInclusive<Duration> =
        Duration::from_millis(1)..=Duration::from_secs(60 * 60);
    pub(crate) const DEFAULT_BUFFER_SIZE: u64 = 64 << 20;
    pub(crate) const BUFFER_SIZE_RANGE: RangeInclusive<u64> = 64 << 10..=16 << 30;
}

impl Identity {
    pub(crate) const DEFAULT_SVID_TTL: Duration = Duration::from_secs(60 * 60);
    /// What an SVID may live, by default or by its entry.
    pub(crate) const TTL_RANGE: RangeInclusive<Duration> = entry::TTL_RANGE;
    /// What a JWT-SVID may live, by its entry.
    pub(crate) const JWT_TTL_RANGE: RangeInclusive<Duration> = entry::JWT_TTL_RANGE;
}

impl Embedded {
    /// What a root may live. Its successor is published at half of it.
    pub(crate) const ROOT_TTL_RANGE: RangeInclusive<Duration> =
        Duration::from_secs(60)..=Duration::from_secs(3650 * 24 * 60 * 60);
}

impl Default for ListenerTls {
    fn default() -> Self {
        Self::On(TlsMode::default())
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Self {
            root_ttl: Duration::from_secs(365 * 24 * 60 * 60),
            brought: None,
        }
    }
}

impl WorkloadApi {
    /// The longest path of a Unix socket in bytes: `sun_path` is 108 with the closing NUL.
    pub(crate) const SOCKET_PATH_MAX: usize = 107;
}

impl Listen {
    /// What stands before the name of a socket that systemd passes.
    pub(crate) const SYSTEMD: &str = "systemd:";
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Systemd(name) => write!(formatter, "{}{name}", Self::SYSTEMD),
        }
    }
}

impl Listener {
    /// The components that its requests may go to.
    pub(crate) fn components(&self) -> impl Iterator<Item = &str> {
        let routes = self.routes.iter().map(|route| &route.target);
        routes
            .chain(&self.target)
            .filter_map(|target| match target {
                Target::Component(name) => Some(name.as_str()),
                Target::Upstream(_) => None,
            })
    }

    /// What the policy may see of a request's body: at most what OPA's Envoy plugin takes.
    pub(crate) const MAX_REQUEST_BYTES_RANGE: RangeInclusive<u64> = 1..=4 << 20;
}

impl Component {
    pub(crate) const DEFAULT_NAMESPACE: &'static str = "default";
    pub(crate) const DEFAULT_MEMORY_LIMIT: u64 = 64 << 20;
    /// From one page of WebAssembly's linear memory to all that 32 bits can address.
    pub(crate) const MEMORY_LIMIT_RANGE: RangeInclusive<u64> = 64 << 10..=4 << 30;
    pub(crate) const DEFAULT_MAX_CONCURRENCY: usize = 100;
    pub(crate) const MAX_CONCURRENCY_LIMIT: i64 = 100_000;
    pub(crate) const DEFAULT_REQUEST_DEADLINE: Duration = Duration::from_secs(10);
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 15900)),
            clients: None,
        }
    }
}

impl Default for Policy {
    /// The stock policy.
    fn default() -> Self {
        Self {
            path: None,
            bundles: Vec::new(),
            entrypoint: "envoy/authz/allow".to_owned(),
            timeout: Duration::from_millis(50),
            shadow: None,
        }
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            workers: None,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
            access: AccessLogOutput::Stdout,
            access_format: LineFormat::Json,
        }
    }
}
