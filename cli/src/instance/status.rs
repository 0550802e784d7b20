//! What a running instance tells of itself when it is asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use nix::unistd::geteuid;
use sidegate_identity::authority::{BACKDATE, BroughtFiles};
use sidegate_identity::clock::Clock;
use sidegate_identity::registry::Origin;
use sidegate_identity::svid::Issued;
use sidegate_policy::Policy;
use sidegate_policy::explain::EngineUse;

use super::health::Health;
use super::reload::Outcome;
use super::{Descriptors, PolicyManager, Source};
use crate::admin::{
    ComponentStatus, EngineFacts, EntryCounts, ListenerFacts, PolicyFacts, Status, SvidStatus,
};
use crate::config::Config;

/// Where the facts come from: the parts that run, and what they were started with.
pub(super) struct Facts {
    pub(super) source: Source,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) health: Arc<Health>,
    pub(super) brought: Option<BroughtFiles>,
    pub(super) policy: Arc<PolicyManager>,
    pub(super) changing: Arc<Mutex<Changing>>,
    pub(super) workload_socket: Option<String>,
    pub(super) admin: SocketAddr,
    pub(super) admin_tls: bool,
    pub(super) reload: Arc<Outcome>,
}

/// What another configuration changes of them.
#[derive(Debug, Clone)]
pub(super) struct Changing {
    pub(super) components: Vec<ComponentStatus>,
    pub(super) descriptors: Descriptors,
}

impl Facts {
    /// The facts of this moment.
    pub(super) fn status(&self) -> Status {
        let identities = Arc::clone(&self.source.watch().borrow());
        let entries = self.source.entries();
        let count = |origin| entries.iter().filter(|it| it.origin == origin).count();
        let listeners = self.health.listeners();
        let changing = self.changing.lock();
        let Changing {
            components,
            descriptors,
        } = changing.unwrap_or_else(PoisonError::into_inner).clone();
        Status {
            schema: Status::SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uid: geteuid().as_raw(),
            now: seconds(self.clock.now()),
            trust_domain: (!self.source.is_off()).then(|| identities.trust_domain.to_string()),
            missing: self.health.missing(),
            failing: self.source.failing(),
            source: self.source.status(),
            agent: self.source.agent(),
            generation: identities.generation,
            entries: EntryCounts {
                configuration: count(Origin::Configuration),
                runtime: count(Origin::Runtime),
                spire_server: count(Origin::SpireServer),
            },
            svids: identities.issued().iter().map(svid).collect(),
            authorities: self.source.authorities(),
            brought: self
                .brought
                .as_ref()
                .map(|files| files.certificate.display().to_string()),
            workload_socket: self.workload_socket.clone(),
            admin: self.admin,
            admin_tls: self.admin_tls,
            policy: self.policy.facts(),
            listeners: listeners
                .iter()
                .map(|(listener, tls)| ListenerFacts {
                    listener: listener.clone(),
                    has_svid: tls.as_ref().is_some_and(|tls| tls.has_svid()),
                })
                .collect(),
            components,
            descriptors: Some(descriptors),
            reload: self.reload.facts(),
        }
    }
}

/// What to tell of a policy that has just been loaded.
pub(super) fn policy(path: Option<String>, policy: &Policy) -> PolicyFacts {
    let status = policy.status();
    let engine = EngineUse::from(policy.engine());
    PolicyFacts {
        path,
        entrypoint: status.entrypoint.clone(),
        connect: status.connect,
        egress: status.egress,
        engine: Some(EngineFacts {
            name: engine.name.to_owned(),
            because: engine.because,
        }),
        generation: status.generation,
        modules: status.modules,
        tests: status.tests,
        since: 0,
        sources_of: None,
        is_rolled_back: false,
        previous: None,
        refused: None,
        denials: None,
        is_promoted: false,
        shadow: None,
        bundles: Vec::new(),
        decision_log: None,
    }
}

/// Where the policy comes from; `None` is the stock policy.
pub(super) fn policy_origin(config: &Config) -> Option<String> {
    let policy = &config.policy;
    let names: Vec<&str> = policy.bundles.iter().map(|it| it.name.as_str()).collect();
    match (&policy.path, names.as_slice()) {
        (Some(path), _) => Some(path.display().to_string()),
        (None, []) => None,
        (None, [name]) => Some(format!("bundle {name}")),
        (None, names) => Some(format!("bundles {}", names.join(", "))),
    }
}

/// An SVID counts from a little before it is issued.
fn svid(issued: &Issued) -> SvidStatus {
    let validity = issued.svid.validity();
    SvidStatus {
        spiffe_id: issued.svid.id().to_string(),
        issued_at: seconds(validity.not_before + BACKDATE),
        not_after: seconds(validity.not_after),
    }
}

pub(super) fn seconds(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.unwrap_or_default().as_secs()
}
