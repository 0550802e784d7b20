//! What the played server knows, and who may ask for what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};

use super::authority::Authorities;
use super::fault::Fault;
use super::messages::{
    Any, Bundle, Entry, PermissionDeniedDetails, PostStatusRequest, RpcStatus, Selector, SpiffeId,
};
use crate::spire::server::{self, Options};
use crate::support::now;
use crate::workload_api::{serial, spiffe_id, validity};

/// Everything behind one lock.
pub(crate) struct State {
    pub(super) options: Options,
    pub(super) authorities: Authorities,
    /// Join tokens that have not been used.
    pub(super) tokens: BTreeSet<String>,
    pub(super) agents: BTreeMap<String, Agent>,
    pub(super) entries: BTreeMap<String, Entry>,
    /// How many entries there have been.
    made: usize,
    pub(super) bundles: BTreeMap<String, Bundle>,
    pub(crate) behaviour: Behaviour,
    pub(crate) seen: Seen,
}

/// An agent that has attested.
#[derive(Debug, Clone, Default)]
pub(super) struct Agent {
    /// Serial numbers of its SVIDs in use and to be used. An agent that is banned has none.
    pub(super) active: Option<String>,
    pub(super) next: Option<String>,
    pub(super) can_reattest: bool,
}

/// How it differs from a new server with a hundred entries.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    pub(crate) faults: BTreeMap<&'static str, Fault>,
    /// Connections are ended after this, gracefully.
    pub(crate) connection_age: Duration,
    /// More entries than this are told by their revisions first.
    pub(crate) page: usize,
    /// More SVIDs than this at once are refused.
    pub(crate) batch: usize,
    /// Whether `SyncAuthorizedEntries` is unknown.
    pub(crate) is_old: bool,
}

/// What agents did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// How often each method was called.
    pub(crate) calls: BTreeMap<String, usize>,
    /// How many SVIDs each call asked for.
    pub(crate) batches: Vec<usize>,
    pub(crate) posted: Vec<PostStatusRequest>,
    /// The agents that attested, in order.
    pub(crate) attested: Vec<String>,
    /// How many connections there were.
    pub(crate) connections: usize,
}

/// Who shows a certificate.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) id: String,
    serial: String,
    expires: time::OffsetDateTime,
}

/// `PermissionDeniedDetails.Reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Expired = 1,
    NotAttested = 2,
    NotActive = 3,
    Banned = 4,
    MustReattest = 5,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            faults: BTreeMap::new(),
            connection_age: Duration::from_mins(3),
            page: 500,
            batch: usize::MAX,
            is_old: false,
        }
    }
}

impl Caller {
    pub(super) fn new(certificate: &[u8]) -> Self {
        Self {
            id: spiffe_id(certificate),
            serial: serial(certificate),
            expires: validity(certificate)[1],
        }
    }
}

impl State {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            authorities: Authorities::new(),
            tokens: BTreeSet::new(),
            agents: BTreeMap::new(),
            entries: BTreeMap::new(),
            made: 0,
            bundles: BTreeMap::new(),
            behaviour: Behaviour::default(),
            seen: Seen::default(),
        }
    }

    /// Whether a caller is an active agent. Its next SVID becomes the active one by being used.
    pub(super) fn authorize(&mut self, caller: Option<&Caller>) -> Result<String, Status> {
        let Some(caller) = caller else {
            return Err(Status::permission_denied("caller is not an agent"));
        };
        let id = &caller.id;
        if now() > caller.expires {
            let text = format!("agent {id:?} SVID is expired");
            return Err(denied(Reason::Expired, &text));
        }
        let Some(agent) = self.agents.get_mut(id) else {
            let text = format!("agent {id:?} is not attested");
            return Err(denied(Reason::NotAttested, &text));
        };
        let Some(active) = agent.active.clone() else {
            return Err(denied(Reason::Banned, &format!("agent {id:?} is banned")));
        };
        if agent.next.as_ref() == Some(&caller.serial) {
            agent.active = agent.next.take();
        } else if active != caller.serial {
            let text = format!(
                "agent {id:?} expected to have serial number {active:?}; has {:?}",
                caller.serial
            );
            return Err(denied(Reason::NotActive, &text));
        }
        Ok(id.clone())
    }

    /// Puts an entry in place and gives its id.
    pub(super) fn register(&mut self, id: Option<&str>, entry: &server::Entry) -> String {
        let (id, revision, created_at) = if let Some(id) = id {
            let known = &self.entries[id];
            (id.to_owned(), known.revision_number + 1, known.created_at)
        } else {
            self.made += 1;
            let id = format!("{:08x}-played", self.made);
            (id, 0, now().unix_timestamp())
        };
        let selectors = entry.selectors.iter().map(|text| {
            let (kind, value) = text.split_once(':').expect("a selector");
            Selector {
                kind: kind.to_owned(),
                value: value.to_owned(),
            }
        });
        let ttl = entry.svid_ttl.unwrap_or_default().as_secs();
        let entry = Entry {
            id: id.clone(),
            spiffe_id: Some(SpiffeId::parse(&entry.spiffe_id)),
            parent_id: Some(SpiffeId::parse(&entry.parent)),
            selectors: selectors.collect(),
            x509_svid_ttl: i32::try_from(ttl).expect("a short time"),
            federates_with: entry.federates_with.clone(),
            dns_names: entry.dns_names.clone(),
            hint: entry.hint.clone(),
            store_svid: entry.store_svid,
            revision_number: revision,
            created_at,
            ..Entry::default()
        };
        self.entries.insert(id.clone(), entry);
        id
    }

    /// The entries below an agent, and below those that it is itself known as.
    pub(super) fn authorized(&self, agent: &str) -> Vec<Entry> {
        let mut parents = vec![SpiffeId::parse(agent)];
        let mut found: Vec<Entry> = Vec::new();
        let mut next = 0;
        while let Some(parent) = parents.get(next).cloned() {
            next += 1;
            for entry in self.entries.values() {
                if entry.parent_id.as_ref() == Some(&parent) {
                    // Only what names an agent has others below it: the search stays short.
                    let is_alias = entry.selectors.iter().any(|it| it.kind == "spiffe_id");
                    let alias = entry.spiffe_id.clone().filter(|_| is_alias);
                    parents.extend(alias.filter(|alias| !parents.contains(alias)));
                    found.push(entry.clone());
                }
            }
        }
        found
    }
}

/// A refusal that says why.
pub(super) fn denied(reason: Reason, text: &str) -> Status {
    let details = PermissionDeniedDetails {
        reason: reason as i32,
    };
    let status = RpcStatus {
        code: Code::PermissionDenied as i32,
        message: text.to_owned(),
        details: vec![Any {
            type_url: "type.googleapis.com/spire.api.types.PermissionDeniedDetails".to_owned(),
            value: details.encode_to_vec(),
        }],
    };
    Status::with_details(Code::PermissionDenied, text, status.encode_to_vec().into())
}
