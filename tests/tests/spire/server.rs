//! What an operator of a SPIRE server does, whichever server it is.

use std::time::Duration;

use super::gate::TRUST_DOMAIN;

/// A running SPIRE server of `sidegate.local`, listening on the loopback interface.
pub(super) trait SpireServer: Sized {
    /// Starts one, or says that the test is skipped where there is none to be had.
    fn start(test: &str, options: &Options) -> Option<Self>;

    /// `host:port` of the agents' API, the same for as long as it lives.
    fn address(&self) -> &str;

    /// The X.509 authorities of the trust domain, PEM.
    fn bundle_pem(&self) -> String;

    /// The bundle in SPIFFE's own format.
    fn bundle_json(&self) -> String;

    /// A join token. An agent that shows it is also known as this SPIFFE ID, where there is one.
    fn join_token(&self, alias: Option<&str>) -> String;

    /// Makes a registration entry and gives its id.
    fn create(&self, entry: &Entry) -> String;

    /// Makes many at once.
    fn create_many(&self, entries: &[Entry]) {
        for entry in entries {
            self.create(entry);
        }
    }

    /// Gives an entry other contents.
    fn update(&self, id: &str, entry: &Entry);

    fn delete(&self, id: &str);

    /// The SPIFFE IDs of the agents that have attested and are not banned.
    fn agents(&self) -> Vec<String>;

    fn ban(&self, agent: &str);

    /// Deletes an agent, which may come back by attestation.
    fn evict(&self, agent: &str);

    /// Prepares an authority and activates it.
    fn rotate(&self, kind: Kind);

    /// Taints the authority that was active before.
    fn taint(&self, kind: Kind);

    /// Revokes the authority that is tainted.
    fn revoke(&self, kind: Kind);

    /// The bundle of another trust domain, PEM.
    fn set_bundle(&self, trust_domain: &str, pem: &str);

    fn stop(&mut self);

    /// Starts it again where it was.
    fn start_again(&mut self);

    /// Drops everything that it knows, so that another one starts in its place. It is stopped.
    fn forget(&mut self);
}

/// How a server is set up.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// How long an agent's own SVID lives.
    pub(super) agent_ttl: Duration,
    /// How long SVIDs live whose entry says nothing else.
    pub(super) svid_ttl: Duration,
    /// The authority whose certificates may attest by `x509pop`, PEM.
    pub(super) attestors: Option<String>,
}

/// What an authority signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    X509,
    Jwt,
}

/// A registration entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub(super) spiffe_id: String,
    pub(super) parent: String,
    pub(super) selectors: Vec<String>,
    pub(super) svid_ttl: Option<Duration>,
    pub(super) dns_names: Vec<String>,
    pub(super) federates_with: Vec<String>,
    pub(super) hint: String,
    pub(super) store_svid: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            agent_ttl: Duration::from_hours(1),
            svid_ttl: Duration::from_hours(1),
            attestors: None,
        }
    }
}

impl Options {
    /// Everything lives for so long only.
    pub(super) fn short(seconds: u64) -> Self {
        let ttl = Duration::from_secs(seconds);
        Self {
            agent_ttl: ttl,
            svid_ttl: ttl,
            ..Self::default()
        }
    }
}

impl Entry {
    /// An entry below an agent, for a path of the trust domain. Its SVIDs are good for `localhost`.
    pub(super) fn new(parent: &str, path: &str, selectors: &[&str]) -> Self {
        Self {
            spiffe_id: id(path),
            parent: parent.to_owned(),
            selectors: selectors.iter().map(|&text| text.to_owned()).collect(),
            dns_names: vec!["localhost".to_owned()],
            ..Self::default()
        }
    }
}

/// A SPIFFE ID of the trust domain.
pub(super) fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

/// The SPIFFE ID that an agent gets by a join token.
pub(super) fn joined(token: &str) -> String {
    id(&format!("/spire/agent/join_token/{token}"))
}
