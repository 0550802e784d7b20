//! What a running instance tells of itself. Nothing in it is secret.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sidegate_identity::embedded::Authorities;
use sidegate_identity::received::SourceStatus;
use sidegate_identity::spire::AgentStatus;

use crate::check::counted;
use crate::instance::{BundleStatus, Descriptors, ListenerStatus};

/// The document of `GET /v1/status`. Moments are seconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    /// [`Status::SCHEMA`]; another number may mean anything.
    pub(crate) schema: u64,
    pub(crate) version: String,
    pub(crate) pid: u32,
    /// The user that it runs as.
    pub(crate) uid: u32,
    /// The instance's time of day.
    pub(crate) now: u64,
    /// None without identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trust_domain: Option<String>,
    /// What keeps traffic away, as `/readyz` says it; nothing when ready.
    pub(crate) missing: Vec<String>,
    /// What is not well, and does not keep traffic away yet.
    pub(crate) failing: Vec<String>,
    /// Where identities come from, and how that fares.
    #[serde(default)]
    pub(crate) source: SourceStatus,
    /// How the agent of a SPIRE server fares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<AgentStatus>,
    /// Grows with each change of SVIDs and bundles.
    pub(crate) generation: u64,
    pub(crate) entries: EntryCounts,
    /// Those in use, in the order of the entries.
    pub(crate) svids: Vec<SvidStatus>,
    pub(crate) authorities: Authorities,
    /// The certificate of an authority that was brought along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) brought: Option<String>,
    /// The Workload API's address, as `SPIFFE_ENDPOINT_SOCKET` takes it; none without identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workload_socket: Option<String>,
    /// Where `/readyz` is.
    pub(crate) admin: SocketAddr,
    /// Whether it asks for mutual TLS.
    #[serde(default)]
    pub(crate) admin_tls: bool,
    pub(crate) policy: PolicyFacts,
    pub(crate) listeners: Vec<ListenerFacts>,
    pub(crate) components: Vec<ComponentStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) descriptors: Option<Descriptors>,
    /// What came of the last SIGHUP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reload: Option<ReloadFacts>,
}

/// What came of reading the configuration file again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReloadFacts {
    pub(crate) at: u64,
    pub(crate) file: String,
    /// The problems of the file, each at its place; nothing was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    /// Why the access log could not be opened again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) access_log: Option<String>,
    /// Keys whose new values count after a restart.
    #[serde(default)]
    pub(crate) restart: Vec<String>,
}

/// How many entries there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryCounts {
    pub(crate) configuration: usize,
    pub(crate) runtime: usize,
    #[serde(default)]
    pub(crate) spire_server: usize,
}

/// An X.509-SVID that is in use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SvidStatus {
    pub(crate) spiffe_id: String,
    pub(crate) issued_at: u64,
    pub(crate) not_after: u64,
}

/// The policy that decides.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PolicyFacts {
    /// Without one it is the stock policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    pub(crate) entrypoint: String,
    /// Whether it decides on connections too.
    #[serde(default)]
    pub(crate) connect: bool,
    /// Whether it says something about what apps send, where there are outbound listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) egress: Option<bool>,
    /// What evaluates it for requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) engine: Option<EngineFacts>,
    pub(crate) generation: u64,
    pub(crate) modules: usize,
    pub(crate) tests: usize,
    /// When it was put into service.
    #[serde(default)]
    pub(crate) since: u64,
    /// The generation that had the same sources, where an operator went back or forward to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sources_of: Option<u64>,
    /// An operator went back from newer sources.
    #[serde(default)]
    pub(crate) is_rolled_back: bool,
    /// The generation that a rollback would return to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous: Option<u64>,
    /// Newer sources that are no policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<RefusedSources>,
    /// A rise of denials that came with the last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) denials: Option<DenialJump>,
    /// Its sources are those of the candidate that was promoted: the next start loads others.
    #[serde(default)]
    pub(crate) is_promoted: bool,
    /// The candidate for the next policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shadow: Option<ShadowFacts>,
    /// Where the policy comes from bundles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) bundles: Vec<BundleStatus>,
    /// Where what it decides is logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) decision_log: Option<DecisionLogFacts>,
}

/// How the decision log fares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DecisionLogFacts {
    /// Events that were written, or accepted by the receiver.
    pub(crate) written: u64,
    /// Events that wait for the receiver.
    pub(crate) waiting: u64,
    /// Why the last attempt to write or upload failed; `None` where it went well.
    pub(crate) error: Option<String>,
    /// Events that were lost in the last minutes.
    pub(crate) lost: u64,
    /// Why they were.
    pub(crate) lost_because: Option<String>,
}

/// What evaluates a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EngineFacts {
    /// `machine` or `interpreter`.
    pub(crate) name: String,
    /// Why it is not the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) because: Option<String>,
}

/// What came of a promotion.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Promotion {
    /// Not where the candidate's sources decided already.
    pub(crate) is_changed: bool,
    #[serde(flatten)]
    pub(crate) policy: PolicyFacts,
}

/// A candidate, and how it compares with the policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShadowFacts {
    pub(crate) path: String,
    /// The share of requests that are compared.
    pub(crate) sample: f64,
    pub(crate) modules: usize,
    pub(crate) tests: usize,
    /// When it was loaded.
    pub(crate) since: u64,
    /// The generation whose decisions were compared; 0 for none yet.
    pub(crate) generation: u64,
    /// How many were: the sum of all below but the last.
    pub(crate) compared: u64,
    pub(crate) same: u64,
    pub(crate) allowed_to_denied: u64,
    pub(crate) denied_to_allowed: u64,
    pub(crate) edits: u64,
    pub(crate) error: u64,
    pub(crate) dropped: u64,
    /// Newer sources of it that are no policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<RefusedSources>,
}

/// Sources that did not become a policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RefusedSources {
    pub(crate) at: u64,
    /// The stable diagnostic code.
    pub(crate) code: String,
    pub(crate) message: String,
}

/// Denied requests as shares of all that were decided, before a change of the policy and after it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct DenialJump {
    pub(crate) before: f64,
    pub(crate) after: f64,
}

/// A listener, and whether it still has an identity to show.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ListenerFacts {
    #[serde(flatten)]
    pub(crate) listener: ListenerStatus,
    pub(crate) has_svid: bool,
}

/// A component that is loaded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ComponentStatus {
    pub(crate) name: String,
    pub(crate) digest: String,
}

impl PolicyFacts {
    /// In a line, for people.
    pub(crate) fn summary(&self) -> String {
        format!("{}, {}, {}", self.origin(), self.entrypoint, self.content())
    }

    /// Where it comes from, for people.
    pub(crate) fn origin(&self) -> &str {
        self.path.as_deref().unwrap_or("the stock policy")
    }

    /// What is in it, for people.
    pub(crate) fn content(&self) -> String {
        let tests = counted(self.tests, "test");
        format!("{}, {tests} passed", counted(self.modules, "module"))
    }
}

impl EngineFacts {
    /// In a line, for people.
    pub(crate) fn summary(&self) -> String {
        match &self.because {
            None => self.name.clone(),
            Some(because) => format!("{}: {because}", self.name),
        }
    }
}

impl DecisionLogFacts {
    /// In a line, for people.
    pub(crate) fn summary(&self) -> String {
        match self.waiting {
            0 => format!("{} logged", self.written),
            waiting => format!("{} logged, {waiting} wait for the receiver", self.written),
        }
    }

    /// That events are lost: the code, and why.
    pub(crate) fn loss(&self) -> Option<(&'static str, String)> {
        let because = self.lost_because.as_deref().unwrap_or("the log says why");
        let lost = self.lost;
        (lost > 0).then(|| {
            let told = format!("{lost} were lost in the last minutes: {because}");
            ("SG0269", told)
        })
    }

    /// That events wait, because the last attempt failed: the code, and why.
    pub(crate) fn delay(&self) -> Option<(&'static str, String)> {
        let error = self.error.clone().filter(|_| self.waiting > 0);
        error.map(|error| ("SG0263", error))
    }
}

impl ShadowFacts {
    /// In a line, for people.
    pub(crate) fn summary(&self) -> String {
        let tests = counted(self.tests, "test");
        let mut text = format!(
            "{}, {}, {tests} passed",
            self.path,
            counted(self.modules, "module")
        );
        if self.sample < 1.0 {
            text.push_str(&format!(", asked about {} of the requests", self.sample));
        }
        text
    }

    /// How it compares, in a line, for people.
    pub(crate) fn comparison(&self) -> String {
        let kinds = [
            (self.allowed_to_denied, "allowed to denied"),
            (self.denied_to_allowed, "denied to allowed"),
            (self.edits, "other edits"),
            (self.error, "without an answer"),
        ];
        let differing = self.compared.saturating_sub(self.same);
        let mut text = match self.compared {
            0 => "nothing compared yet".to_owned(),
            compared => format!(
                "{compared} compared with generation {}, {differing} differ",
                self.generation
            ),
        };
        let kinds = kinds.iter().filter(|(count, _)| *count > 0);
        let kinds: Vec<String> = kinds
            .map(|(count, kind)| format!("{count} {kind}"))
            .collect();
        if !kinds.is_empty() {
            text.push_str(&format!(" ({})", kinds.join(", ")));
        }
        if self.dropped > 0 {
            text.push_str(&format!(", {} not compared for want of time", self.dropped));
        }
        text
    }
}

impl DenialJump {
    /// In a line, for people.
    pub(crate) fn summary(self) -> String {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        format!(
            "{} of the requests are denied, and {} were before the policy changed",
            percent(self.after),
            percent(self.before)
        )
    }
}

impl Status {
    pub(crate) const SCHEMA: u64 = 1;
}
