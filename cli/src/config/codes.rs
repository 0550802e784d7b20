//! The stable codes of configuration problems, SG0010 to SG0049, SG0061 to SG0069, SG0083 to SG0089, those about bundles, and SG0189.
//!
//! A code is never given a second meaning: a retired one stays unused.

/// The configuration file cannot be read.
pub(crate) const UNREADABLE: &str = "SG0010";
/// The configuration file was read and is refused; each problem carries its own code.
pub(crate) const INVALID: &str = "SG0011";
/// The text is not TOML.
pub(crate) const SYNTAX: &str = "SG0012";
/// A key or section that Sidegate does not know.
pub(crate) const UNKNOWN_KEY: &str = "SG0013";
/// A value of another type than the key takes.
pub(crate) const WRONG_TYPE: &str = "SG0014";
/// A required key or section is not there.
pub(crate) const MISSING: &str = "SG0015";
/// The same key or section is written twice.
pub(crate) const DUPLICATE_KEY: &str = "SG0016";
/// A duration that cannot be read.
pub(crate) const BAD_DURATION: &str = "SG0017";
/// A size in bytes that cannot be read.
pub(crate) const BAD_SIZE: &str = "SG0018";
/// A number, duration or size outside the allowed range.
pub(crate) const OUT_OF_RANGE: &str = "SG0019";
/// A trust domain that the SPIFFE specification does not allow.
pub(crate) const BAD_TRUST_DOMAIN: &str = "SG0020";
/// A SPIFFE ID that the SPIFFE specification does not allow for a workload.
pub(crate) const BAD_SPIFFE_ID: &str = "SG0021";
/// A word that is not among those the key takes.
pub(crate) const UNKNOWN_VALUE: &str = "SG0022";
/// A listening address that is not an IP address and a port.
pub(crate) const BAD_ADDRESS: &str = "SG0023";
/// An upstream that is not `http://host:port`.
pub(crate) const BAD_UPSTREAM: &str = "SG0024";
/// A listener with both or neither of `component` and `upstream`.
pub(crate) const LISTENER_TARGET: &str = "SG0025";
/// A name with characters outside `a-z`, `0-9` and `-`, or of a wrong length.
pub(crate) const BAD_NAME: &str = "SG0026";
/// A name used by two components, listeners or bundles, or by Sidegate itself.
pub(crate) const DUPLICATE_NAME: &str = "SG0027";
/// Two sockets would listen on the same address.
pub(crate) const DUPLICATE_ADDRESS: &str = "SG0028";
/// A directory for SVID files that is used twice or is the state directory.
pub(crate) const DUPLICATE_DIRECTORY: &str = "SG0029";
/// A listener names a component that is not configured.
pub(crate) const UNKNOWN_COMPONENT: &str = "SG0030";
/// A SPIFFE ID that no registration entry gives out.
pub(crate) const UNKNOWN_IDENTITY: &str = "SG0031";
/// The path of a Unix socket is longer than the operating system allows.
pub(crate) const SOCKET_PATH_TOO_LONG: &str = "SG0033";
/// A path that is empty or cannot be a path.
pub(crate) const BAD_PATH: &str = "SG0034";
/// A DNS name that cannot be put into a certificate.
pub(crate) const BAD_DNS_NAME: &str = "SG0035";
/// A policy entrypoint that is not a path of names.
pub(crate) const BAD_ENTRYPOINT: &str = "SG0036";
/// A log filter that cannot be read.
pub(crate) const BAD_LOG_LEVEL: &str = "SG0037";
/// A host, path, method or header that no request has.
pub(crate) const BAD_ROUTE: &str = "SG0061";
/// What clients send is to be forwarded, and there is nobody whom it would be believed from.
pub(crate) const NO_TRUSTED_HOP: &str = "SG0062";
/// The server names of a `[[listener.sni]]`: none, one twice, or one that no client can ask for.
pub(crate) const SERVER_NAMES: &str = "SG0063";
/// A listener's protocol, a route's methods and what is behind them do not fit together.
pub(crate) const PROTOCOL: &str = "SG0064";
/// Who a server must be: not said where it matters, or said where it cannot.
pub(crate) const EXPECTED: &str = "SG0065";
/// An outbound listener that others than local apps could reach.
pub(crate) const NOT_LOOPBACK: &str = "SG0068";
/// An upstream, route or network that does not fit an outbound listener.
pub(crate) const EGRESS: &str = "SG0069";
/// A key that has no effect beside another.
pub(crate) const NO_EFFECT: &str = "SG0039";
/// A name that systemd gives no socket.
pub(crate) const BAD_SYSTEMD_NAME: &str = "SG0066";
/// An entry asks for what only a source that mints can do.
pub(crate) const CANNOT_MINT: &str = "SG0083";
/// Not the address of a Workload API.
pub(crate) const BAD_ENDPOINT: &str = "SG0085";
/// None or several of the keys of a SPIRE server of which exactly one must be there.
pub(crate) const SPIRE_ALTERNATIVES: &str = "SG0090";
/// Entries in the configuration, where the SPIRE server has them.
pub(crate) const SPIRE_ENTRIES: &str = "SG0091";
/// Not the host and port of a server.
pub(crate) const BAD_SERVER: &str = "SG0092";
/// A trust bundle's URL that cannot be asked, or that nobody is trusted for.
pub(crate) const SPIRE_TRUST: &str = "SG0093";
/// Something needs an identity, and there is none.
pub(crate) const NO_IDENTITY: &str = "SG0189";
/// Both a policy's path and bundles.
pub(crate) const PATH_AND_BUNDLES: &str = "SG0246";
/// A bundle with both or neither of `path` and `url`.
pub(crate) const BUNDLE_ORIGIN: &str = "SG0247";
/// A bundle's URL that cannot be asked, or that nobody is trusted for.
pub(crate) const BUNDLE_URL: &str = "SG0248";
