//! What the text of a single value may be.
//!
//! Each function takes the value as written and gives the typed one, or a [`Problem`] that does
//! not yet know where it stands.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use http::uri::PathAndQuery;
use http::{HeaderName, Uri};
use nix::sys::signal::Signal;
use sidegate_identity::received::SourceKind;
use sidegate_policy::bundle::SignatureAlgorithm;
use sidegate_proxy::upstream::{BadNetwork, Network};
use spiffe::{SpiffeId, TrustDomain};
use tracing_subscriber::EnvFilter;

use super::codes;
use super::diagnostic::did_you_mean;
use super::model::{
    AccessLogKind, Credentials, DecisionLogKind, Identity, LineFormat, Listen, ListenerTls,
    LogFormat, Protocol, Sample, TlsMode, WorkloadApi,
};

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: &'static str,
    /// Follows the name of the key: "is not a duration".
    pub(super) phrase: &'static str,
    pub(super) label: String,
    pub(super) help: Option<String>,
}

/// Beyond any use, and small enough to be added to any instant.
pub(super) const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The decision log cannot go where it is said to go.
pub(super) const BAD_RECEIVER: &str = "SG0260";

pub(super) const AT_LEAST_A_NANOSECOND: RangeInclusive<Duration> =
    Duration::from_nanos(1)..=LONGEST;

impl Problem {
    pub(super) fn new(code: &'static str, phrase: &'static str, label: impl Into<String>) -> Self {
        Self {
            code,
            phrase,
            label: label.into(),
            help: None,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// For the command line, which shows the value itself.
    pub(super) fn in_a_line(self) -> String {
        match self.help {
            Some(help) => format!("{}; {help}", self.label),
            None => self.label,
        }
    }
}

pub(super) fn text(text: &str) -> Result<String, Problem> {
    Ok(text.to_owned())
}

pub(super) fn duration(
    allowed: RangeInclusive<Duration>,
) -> impl FnOnce(&str) -> Result<Duration, Problem> {
    move |text| {
        let duration = humantime::parse_duration(text).map_err(|error| {
            Problem::new(codes::BAD_DURATION, "is not a duration", error.to_string())
                .help("a duration is a number and a unit, such as \"500ms\", \"10s\" or \"1h 30m\"")
        })?;
        if allowed.contains(&duration) {
            return Ok(duration);
        }
        Err(if duration < *allowed.start() {
            let least = humantime::format_duration(*allowed.start());
            out_of_range(match allowed.start().as_nanos() {
                1 => "must be greater than zero".to_owned(),
                _ => format!("must be at least {least}"),
            })
        } else {
            let most = humantime::format_duration(*allowed.end());
            out_of_range(format!("must be at most {most}"))
        })
    }
}

/// How long what is signed counts: certificates and tokens know whole seconds only.
pub(super) fn lifetime(
    allowed: RangeInclusive<Duration>,
) -> impl FnOnce(&str) -> Result<Duration, Problem> {
    move |text| {
        let lifetime = duration(allowed)(text)?;
        match lifetime.subsec_nanos() {
            0 => Ok(lifetime),
            _ => Err(Problem::new(
                codes::BAD_DURATION,
                "has a fraction of a second",
                "must be whole seconds",
            )),
        }
    }
}

/// Directives of a log filter, by the same rule as in a file.
pub(crate) fn directives(text: &str) -> Result<String, String> {
    log_level(text).map_err(Problem::in_a_line)
}

/// The lifetime of SVIDs on the command line, by the same rule as in a file.
pub(crate) fn svid_ttl(text: &str) -> Result<Duration, String> {
    lifetime(Identity::TTL_RANGE)(text).map_err(Problem::in_a_line)
}

/// The lifetime of JWT-SVIDs, as a command line has it.
pub(crate) fn jwt_svid_ttl(text: &str) -> Result<Duration, String> {
    lifetime(Identity::JWT_TTL_RANGE)(text).map_err(Problem::in_a_line)
}

pub(super) fn integer(allowed: RangeInclusive<i64>) -> impl FnOnce(&i64) -> Result<usize, Problem> {
    move |number| {
        let refused = || {
            out_of_range(format!(
                "must be from {} to {}",
                allowed.start(),
                allowed.end()
            ))
        };
        if !allowed.contains(number) {
            return Err(refused());
        }
        usize::try_from(*number).map_err(|_| refused())
    }
}

/// A number that is not zero; zero must not be allowed.
pub(super) fn non_zero(
    allowed: RangeInclusive<i64>,
) -> impl FnOnce(&i64) -> Result<NonZeroU32, Problem> {
    move |number| {
        let most = *allowed.end();
        let checked = integer(allowed)(number)?;
        let narrow = u32::try_from(checked).ok().and_then(NonZeroU32::new);
        narrow.ok_or_else(|| out_of_range(format!("must be from 1 to {most}")))
    }
}

/// A share of requests.
pub(super) fn sample(share: &f64) -> Result<Sample, Problem> {
    Sample::new(*share).ok_or_else(|| out_of_range("must be from 0 to 1".to_owned()))
}

/// Bytes.
pub(super) fn size(allowed: RangeInclusive<u64>) -> impl FnOnce(&str) -> Result<u64, Problem> {
    move |text| {
        let size = text.parse::<ByteSize>().map_err(|_| {
            Problem::new(
                codes::BAD_SIZE,
                "is not a size",
                "expected a number and a unit",
            )
            .help("a size is written like \"64MiB\", \"512KiB\" or \"1GiB\"")
        })?;
        if allowed.contains(&size.as_u64()) {
            return Ok(size.as_u64());
        }
        Err(out_of_range(format!(
            "must be from {} to {}",
            ByteSize(*allowed.start()),
            ByteSize(*allowed.end())
        )))
    }
}

pub(super) fn path(base: &Path) -> impl FnOnce(&str) -> Result<PathBuf, Problem> + use<'_> {
    move |text| {
        let refused = |label| Problem::new(codes::BAD_PATH, "is not a path", label);
        if text.is_empty() {
            return Err(refused("is empty"));
        }
        if text.contains('\0') {
            return Err(refused("holds a NUL byte"));
        }
        Ok(base.join(text))
    }
}

pub(super) fn socket(base: &Path) -> impl FnOnce(&str) -> Result<PathBuf, Problem> + use<'_> {
    move |text| {
        let path = path(base)(text)?;
        let length = path.as_os_str().len();
        if length <= WorkloadApi::SOCKET_PATH_MAX {
            return Ok(path);
        }
        Err(Problem::new(
            codes::SOCKET_PATH_TOO_LONG,
            "is too long for a Unix socket",
            format!(
                "{length} bytes with the folder of this file, {} are allowed",
                WorkloadApi::SOCKET_PATH_MAX
            ),
        )
        .help("use a shorter absolute path, such as \"/run/sidegate/workload.sock\""))
    }
}

pub(super) fn trust_domain(text: &str) -> Result<TrustDomain, Problem> {
    let refused = |label| Problem::new(codes::BAD_TRUST_DOMAIN, "is not a trust domain", label);
    let trust_domain = TrustDomain::new(text).map_err(|error| refused(error.to_string()))?;
    if trust_domain.as_str() != text {
        return Err(refused("expected the bare name in lower case".to_owned())
            .help(format!("write \"{trust_domain}\"")));
    }
    Ok(trust_domain)
}

pub(super) fn spiffe_id(text: &str) -> Result<SpiffeId, Problem> {
    let refused = |label| Problem::new(codes::BAD_SPIFFE_ID, "is not a SPIFFE ID", label);
    let id = SpiffeId::new(text).map_err(|error| {
        refused(error.to_string())
            .help("a SPIFFE ID is written like \"spiffe://sidegate.local/web\"")
    })?;
    if id.to_string() != text {
        return Err(
            refused("expected the scheme and trust domain in lower case".to_owned())
                .help(format!("write \"{id}\"")),
        );
    }
    if id.path().is_empty() {
        return Err(refused("the path is empty".to_owned()).help(format!(
            "\"{id}\" is the trust domain itself; a workload's ID goes on, like \"{id}/web\""
        )));
    }
    Ok(id)
}

/// A SPIFFE ID, or that of a trust domain, which stands for all its workloads.
pub(super) fn trusted_hop(text: &str) -> Result<SpiffeId, Problem> {
    match SpiffeId::new(text) {
        Ok(id) if id.path().is_empty() && id.to_string() == text => Ok(id),
        _ => spiffe_id(text),
    }
}

pub(super) fn source(text: &str) -> Result<SourceKind, Problem> {
    let known = [
        ("none", SourceKind::None),
        ("embedded", SourceKind::Embedded),
        ("files", SourceKind::Files),
        ("workload-api", SourceKind::WorkloadApi),
        ("spire-server", SourceKind::SpireServer),
    ];
    one_of(text, &known)
}

/// The address of a Workload API, as `SPIFFE_ENDPOINT_SOCKET` takes it.
pub(super) fn endpoint(text: &str) -> Result<String, Problem> {
    match spiffe::transport::Endpoint::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Problem::new(
            codes::BAD_ENDPOINT,
            "is not the address of a Workload API",
            error.to_string(),
        )
        .help("such as \"unix:///run/spire/sockets/agent.sock\"")),
    }
}

pub(super) fn signal(text: &str) -> Result<Signal, Problem> {
    let known = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
    ];
    one_of(text, &known.map(|signal| (signal.as_str(), signal)))
}

/// A program and its arguments.
pub(super) fn command(words: &[String]) -> Result<Vec<String>, Problem> {
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words.to_vec()),
        _ => Err(Problem::new(
            codes::BAD_PATH,
            "names no program",
            "expected a program and its arguments",
        )),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, Problem> {
    one_of(
        text,
        &[("text", LogFormat::Text), ("json", LogFormat::Json)],
    )
}

pub(super) fn access_log_kind(text: &str) -> Result<AccessLogKind, Problem> {
    one_of(
        text,
        &[
            ("stdout", AccessLogKind::Stdout),
            ("stderr", AccessLogKind::Stderr),
            ("file", AccessLogKind::File),
        ],
    )
}

pub(super) fn outbound_protocol(text: &str) -> Result<Protocol, Problem> {
    one_of(text, &[("http", Protocol::Auto), ("tcp", Protocol::Tcp)])
}

/// An address that only this machine can reach.
pub(super) fn loopback(text: &str) -> Result<SocketAddr, Problem> {
    let address = address(text)?;
    match address.ip().to_canonical().is_loopback() {
        true => Ok(address),
        false => Err(Problem::new(
            codes::NOT_LOOPBACK,
            "is not loopback",
            "others than local apps could connect, and would have the app's identity",
        )
        .help(format!("write \"127.0.0.1:{}\"", address.port()))),
    }
}

pub(super) fn network(text: &str) -> Result<Network, Problem> {
    text.parse().map_err(|error: BadNetwork| {
        Problem::new(codes::EGRESS, "is not a network", error.to_string())
            .help("write it like \"10.0.0.0/8\", \"127.0.0.1\" or \"fd00::/8\"")
    })
}

pub(super) fn listener_tls(text: &str) -> Result<ListenerTls, Problem> {
    one_of(
        text,
        &[
            ("mutual", ListenerTls::On(TlsMode::Mutual)),
            ("permissive", ListenerTls::On(TlsMode::Permissive)),
            ("server-only", ListenerTls::On(TlsMode::ServerOnly)),
            ("off", ListenerTls::Off),
        ],
    )
}

pub(super) fn protocol(text: &str) -> Result<Protocol, Problem> {
    one_of(
        text,
        &[
            ("auto", Protocol::Auto),
            ("http1", Protocol::Http1),
            ("http2", Protocol::Http2),
            ("tcp", Protocol::Tcp),
        ],
    )
}

/// A name that clients ask for, or a wildcard for those below one, in lower case.
pub(super) fn server_name(text: &str) -> Result<String, Problem> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if is_host_name(name) {
        return Ok(text.to_ascii_lowercase());
    }
    let problem = Problem::new(
        codes::SERVER_NAMES,
        "is not a server name",
        "no client asks for it",
    );
    Err(problem.help("write it like \"a.example.org\", or \"*.example.org\" for all below it"))
}

pub(super) fn line_format(text: &str) -> Result<LineFormat, Problem> {
    one_of(
        text,
        &[("json", LineFormat::Json), ("text", LineFormat::Text)],
    )
}

pub(super) fn decision_log_kind(text: &str) -> Result<DecisionLogKind, Problem> {
    one_of(
        text,
        &[
            ("stdout", DecisionLogKind::Stdout),
            ("file", DecisionLogKind::File),
            ("http", DecisionLogKind::Http),
        ],
    )
}

pub(super) fn credentials(text: &str) -> Result<Credentials, Problem> {
    one_of(
        text,
        &[
            ("erased", Credentials::Erased),
            ("logged_in_plain_text", Credentials::LoggedInPlainText),
        ],
    )
}

pub(super) fn header_name(text: &str) -> Result<HeaderName, Problem> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        Problem::new(
            codes::BAD_NAME,
            "is not the name of a header",
            "expected letters, digits and `-`",
        )
    })
}

/// Where the decision log goes: `http` or `https`, host, and a path if any.
pub(super) fn receiver(text: &str) -> Result<Uri, Problem> {
    let refused = |label: &str| {
        Problem::new(BAD_RECEIVER, "is not the address of a receiver", label)
            .help("a receiver is written like \"https://logs.example:8443\"")
    };
    let uri: Uri = text.parse().map_err(|_| refused("is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(refused("must begin with `http://` or `https://`"));
    }
    let authority = uri.authority().ok_or_else(|| refused("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(refused("must not hold a user"));
    }
    if text.contains(['?', '#']) {
        return Err(refused("must not hold a query"));
    }
    let port = authority
        .as_str()
        .strip_prefix(authority.host())
        .unwrap_or("");
    let has_port = match port.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().is_ok_and(|port| port != 0),
        None => port.is_empty(),
    };
    if !has_port {
        return Err(refused("must name a port from 1 to 65535, or none"));
    }
    if is_host(authority.host()) {
        Ok(uri)
    } else {
        Err(refused("the host is neither an IP address nor a name"))
    }
}

/// The path of the decision log below its receiver.
pub(super) fn resource(text: &str) -> Result<String, Problem> {
    let path = format!("/{}", text.trim_start_matches('/'));
    match path.parse::<PathAndQuery>() {
        Ok(path) if path.query().is_none() && !text.contains('#') => Ok(text.to_owned()),
        _ => Err(Problem::new(
            codes::BAD_PATH,
            "is not the path of a resource",
            "expected names joined by `/`",
        )),
    }
}

/// Whether a URL stays on this machine.
pub(super) fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or("");
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A filter that `tracing` reads, where every word without `=` is a level: `tracing` would take
/// "warning" for the name of a module, and everything else would be silent.
pub(super) fn log_level(text: &str) -> Result<String, Problem> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let refused = |label| {
        Problem::new(codes::BAD_LOG_LEVEL, "is not a log filter", label).help(format!(
            "a filter is a level ({}), or a list such as \"info,sidegate_proxy=debug\"",
            LEVELS.join(", ")
        ))
    };
    if text.trim().is_empty() {
        return Err(refused("is empty".to_owned()));
    }
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| refused(error.to_string()))?;
    let words = text
        .split(',')
        .map(str::trim)
        .filter(|_| !text.contains('['));
    for word in words.filter(|word| !word.contains('=')) {
        if !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) {
            return Err(refused(format!("`{word}` is not a level")));
        }
    }
    Ok(text.to_owned())
}

/// Where a bundle is fetched.
pub(super) fn bundle_url(text: &str) -> Result<Uri, Problem> {
    url_of_bundle(text).map_err(|label| {
        Problem::new(codes::BUNDLE_URL, "is not the URL of a bundle", label)
            .help("write it like \"https://bundles.example/bundles/authz.tar.gz\"")
    })
}

/// A URL, or why it is none that a bundle could have.
pub(super) fn url_of_bundle(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("must begin with `https://` or `http://`");
    }
    if text.contains('#') {
        return Err("must not have a fragment");
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => Err("must not hold a user"),
        Some(authority) if is_host(authority.host()) => Ok(uri),
        _ => Err("the host is neither an IP address nor a name"),
    }
}

/// How often a bundle is asked for: the limits keep a slip of the pen from becoming an attack, or
/// a policy from growing old unseen.
pub(super) fn poll(text: &str) -> Result<Duration, Problem> {
    duration(Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60))(text)
}

/// How long a server may wait: what is in between ends idle connections after some minutes.
pub(super) fn long_poll(text: &str) -> Result<Duration, Problem> {
    let range = Duration::from_secs(1)..=Duration::from_secs(10 * 60);
    lifetime(range)(text)
}

pub(super) fn signature_algorithm(text: &str) -> Result<SignatureAlgorithm, Problem> {
    one_of(text, &SignatureAlgorithm::ALL.map(|it| (it.name(), it)))
}

/// A label such as `hello-1`.
pub(super) fn name(text: &str) -> Result<String, Problem> {
    let refused = |label| {
        Err(Problem::new(codes::BAD_NAME, "is not a name", label)
            .help("a name is 1 to 63 characters of a-z, 0-9 and `-`"))
    };
    let allowed = |letter: char| matches!(letter, 'a'..='z' | '0'..='9' | '-');
    match text.chars().find(|letter| !allowed(*letter)) {
        Some(letter) => refused(format!("`{letter}` is not allowed")),
        None if text.is_empty() => refused("is empty".to_owned()),
        None if text.len() > 63 => refused(format!("{} characters", text.len())),
        None => Ok(text.to_owned()),
    }
}

pub(super) fn dns_name(text: &str) -> Result<String, Problem> {
    if is_host_name(text) {
        return Ok(text.to_owned());
    }
    Err(Problem::new(
        codes::BAD_DNS_NAME,
        "is not a DNS name",
        "expected labels of letters, digits and `-`, joined by dots",
    ))
}

pub(super) fn address(text: &str) -> Result<SocketAddr, Problem> {
    text.parse().map_err(|_| {
        let refused = Problem::new(
            codes::BAD_ADDRESS,
            "is not an address to listen on",
            "expected an IP address and a port",
        );
        match text.strip_prefix("localhost:") {
            Some(port) => refused.help(format!("write \"127.0.0.1:{port}\"")),
            None => refused.help("write it like \"127.0.0.1:8443\" or \"[::]:8443\""),
        }
    })
}

/// An address, or a socket of systemd's. Its name is as FileDescriptorName= takes it
/// (systemd.socket(5)).
pub(super) fn listen(text: &str) -> Result<Listen, Problem> {
    let Some(name) = text.strip_prefix(Listen::SYSTEMD) else {
        return address(text).map(Listen::Address);
    };
    let is_name = (1..=255).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte != b':' && (byte == b' ' || byte.is_ascii_graphic()));
    if is_name {
        return Ok(Listen::Systemd(name.to_owned()));
    }
    Err(Problem::new(
        codes::BAD_SYSTEMD_NAME,
        "names no socket of systemd's",
        "expected 1 to 255 printable ASCII characters without `:`",
    )
    .help("it is the `FileDescriptorName=` of the socket unit"))
}

pub(super) fn entrypoint(text: &str) -> Result<String, Problem> {
    let is_segment = |segment: &str| {
        !segment.is_empty()
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    if text.split('/').all(is_segment) && !text.starts_with("data/") {
        return Ok(text.to_owned());
    }
    let refused = Problem::new(
        codes::BAD_ENTRYPOINT,
        "is not the path of a rule",
        "expected names joined by `/`",
    );
    let bare = text.trim_matches('/').replace('.', "/");
    let bare = bare.strip_prefix("data/").unwrap_or(&bare);
    Err(if bare != text && bare.split('/').all(is_segment) {
        refused.help(format!("write \"{bare}\""))
    } else {
        refused.help("the rule `allow` of package `envoy.authz` is \"envoy/authz/allow\"")
    })
}

pub(super) fn one_of<T: Copy>(text: &str, known: &[(&str, T)]) -> Result<T, Problem> {
    if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    let problem = Problem::new(
        codes::UNKNOWN_VALUE,
        "has a value that is not known",
        format!("known: \"{}\"", words.join("\", \"")),
    );
    Err(match did_you_mean(text, words) {
        Some(word) => problem.help(format!("did you mean \"{word}\"?")),
        None => problem,
    })
}

fn out_of_range(label: String) -> Problem {
    Problem::new(codes::OUT_OF_RANGE, "is out of range", label)
}

pub(super) fn is_host(host: &str) -> bool {
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match bracketed {
        Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
        None => matches!(host.parse(), Ok(IpAddr::V4(_))) || is_host_name(host),
    }
}

/// Labels as in RFC 1123 section 2.1. A name whose last label is all digits would be an IPv4
/// address gone wrong.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let last = text.rsplit('.').next().unwrap_or("");
    text.len() <= 253
        && text.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}
