//! What the server that the tests play knows, and what it does wrong when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prost::Message;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tonic::{Code, Status};

use super::TestClock;
use super::authority::{Authority, spiffe_id};
use crate::clock::{Clock, seconds};
use crate::spire::error::RpcStatus;
use crate::spire::proto::types;
use crate::spire::proto::types::permission_denied_details::Reason;
use crate::tls::PeerIdentity;

pub(super) const TRUST_DOMAIN: &str = "one.test";

pub(super) struct World {
    pub(super) clock: Arc<TestClock>,
    pub(super) authorities: Vec<Authority>,
    /// Which of them signs.
    pub(super) signing: usize,
    pub(super) jwt_key: KeyPair,
    pub(super) jwt_key_id: String,
    pub(super) sequence: u64,
    pub(super) tokens: BTreeSet<String>,
    /// By their SPIFFE IDs.
    pub(super) agents: BTreeMap<String, Node>,
    pub(super) entries: Vec<types::Entry>,
    pub(super) federated: BTreeMap<String, types::Bundle>,
    /// Lists that are longer come as revisions first.
    pub(super) page_size: usize,
    pub(super) agent_life: Duration,
    pub(super) svid_life: Duration,
    /// More SVIDs at once are refused.
    pub(super) largest_batch: usize,
    pub(super) fault: Fault,
    /// The server says that nodes are to be attested anew.
    pub(super) is_reattestable: bool,
    /// A renewed agent SVID is unknown when it is first used.
    pub(super) forgets_renewed: bool,
    /// Every call, in order.
    pub(super) calls: Vec<&'static str>,
    /// The ids of each `SyncAuthorizedEntries` request after the first.
    pub(super) asked: Vec<Vec<String>>,
    /// How many SVIDs were asked for at once.
    pub(super) batches: Vec<usize>,
    /// Every agent's request.
    pub(super) requests: Vec<Vec<u8>>,
    pub(super) connections: usize,
    /// Calls of `GetFederatedBundle` that are under way, and the most that were.
    pub(super) federated_now: usize,
    pub(super) federated_most: usize,
    pub(super) posted: Vec<(i64, String)>,
}

/// An attested node.
pub(super) struct Node {
    pub(super) active: CertificateDer<'static>,
    /// Becomes the active one when it is first used.
    pub(super) renewed: Option<CertificateDer<'static>>,
    pub(super) is_banned: bool,
    pub(super) must_reattest: bool,
}

/// What the server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// It answers nothing.
    Down,
    /// It does not know `SyncAuthorizedEntries`.
    Old,
    CutSync,
    TwiceTheSameEntry,
    NotWhatWasAskedFor,
    NotAllThatWasAskedFor,
    HugeEntries,
    OtherKey,
    OtherId,
    OtherAuthority,
    Expired,
    NoCertificate,
    Damaged,
    FewerSvids,
    RefusedSvids,
    ForeignBundle,
    EmptyBundle,
    DamagedBundle,
    OtherToken,
    /// No SVID is ever signed.
    Hangs,
    /// Foreign bundles cannot be had.
    NoForeign,
    /// What comes over new connections is no HTTP/2.
    Garbage,
}

impl World {
    pub(super) fn new(clock: Arc<TestClock>) -> Self {
        let now = clock.now();
        Self {
            authorities: vec![Authority::new(TRUST_DOMAIN, now)],
            signing: 0,
            is_reattestable: false,
            jwt_key: KeyPair::generate().unwrap(),
            jwt_key_id: "jwt-1".to_owned(),
            sequence: 1,
            clock,
            tokens: BTreeSet::from(["token".to_owned()]),
            agents: BTreeMap::new(),
            entries: Vec::new(),
            federated: BTreeMap::new(),
            page_size: 500,
            agent_life: Duration::from_secs(3600),
            svid_life: Duration::from_secs(3600),
            largest_batch: usize::MAX,
            fault: Fault::None,
            forgets_renewed: false,
            calls: Vec::new(),
            asked: Vec::new(),
            batches: Vec::new(),
            requests: Vec::new(),
            connections: 0,
            federated_now: 0,
            federated_most: 0,
            posted: Vec::new(),
        }
    }

    pub(super) fn signer(&self) -> &Authority {
        &self.authorities[self.signing]
    }

    pub(super) fn count(&self, method: &str) -> usize {
        self.calls.iter().filter(|call| **call == method).count()
    }

    /// An entry for a user of this number.
    pub(super) fn add(&mut self, name: &str, uid: usize) -> &mut types::Entry {
        self.entries.push(types::Entry {
            id: format!("entry-{name}"),
            spiffe_id: Some(spiffe_id(&format!("spiffe://{TRUST_DOMAIN}/{name}"))),
            selectors: vec![selector("unix", &format!("uid:{uid}"))],
            revision_number: 1,
            created_at: 1000,
            ..types::Entry::default()
        });
        self.entries.last_mut().unwrap()
    }

    /// Publishes another root. It signs later.
    pub(super) fn prepare(&mut self) {
        let authority = Authority::new(TRUST_DOMAIN, self.clock.now());
        self.authorities.push(authority);
        self.sequence += 1;
    }

    /// The root that was published last signs from now on; the old ones stay, tainted or not.
    pub(super) fn activate(&mut self, taints: bool) {
        self.signing = self.authorities.len() - 1;
        let old = self.authorities.iter_mut().take(self.signing);
        old.for_each(|authority| authority.is_tainted = taints);
        self.sequence += 1;
    }

    pub(super) fn attest(&mut self, id: &str, request: &[u8]) -> types::X509svid {
        self.requests.push(request.to_vec());
        let svid = self.svid(id, request, self.agent_life);
        let node = Node {
            active: svid.cert_chain[0].clone().into(),
            renewed: None,
            is_banned: false,
            must_reattest: false,
        };
        self.agents.insert(id.to_owned(), node);
        svid
    }

    /// Who calls, if the agent's SVID is the active one.
    pub(super) fn caller(
        &mut self,
        shown: Option<&CertificateDer<'static>>,
    ) -> Result<&mut Node, Status> {
        let shown = shown.ok_or_else(|| Status::unauthenticated("no certificate"))?;
        let peer = PeerIdentity::from_leaf(shown).unwrap();
        let now = self.clock.now();
        let node = self.agents.get_mut(&peer.spiffe_id.to_string());
        let Some(node) = node else {
            return Err(denied(Reason::AgentNotAttested));
        };
        if node.is_banned {
            return Err(denied(Reason::AgentBanned));
        }
        if peer.validity.not_after <= now {
            return Err(denied(Reason::AgentExpired));
        }
        if node.renewed.as_ref() == Some(shown) {
            node.active = node.renewed.take().unwrap();
        }
        match node.active == *shown {
            true => Ok(node),
            false => Err(denied(Reason::AgentNotActive)),
        }
    }

    /// An SVID, as it should be or not.
    pub(super) fn svid(&self, id: &str, request: &[u8], life: Duration) -> types::X509svid {
        let now = self.clock.now();
        let right = self.signer().svid(id, request, now, life);
        let other = KeyPair::generate().unwrap();
        let mut spoiled = right.clone();
        match self.fault {
            Fault::OtherKey => {
                let leaf = self.signer().leaf(id, &other, now, life);
                spoiled.cert_chain = vec![leaf.to_vec()];
            }
            Fault::OtherId => {
                let id = format!("spiffe://{TRUST_DOMAIN}/other");
                return self.signer().svid(&id, request, now, life);
            }
            Fault::OtherAuthority => {
                return Authority::new(TRUST_DOMAIN, now).svid(id, request, now, life);
            }
            Fault::Expired => {
                let then = now - Duration::from_secs(3600);
                let life = Duration::from_secs(60);
                return self.signer().svid(id, request, then, life);
            }
            Fault::NoCertificate => spoiled.cert_chain.clear(),
            Fault::Damaged => spoiled.cert_chain[0].truncate(100),
            _ => {}
        }
        spoiled
    }

    pub(super) fn bundle(&self) -> types::Bundle {
        let mut bundle = types::Bundle {
            trust_domain: TRUST_DOMAIN.to_owned(),
            x509_authorities: self
                .authorities
                .iter()
                .map(Authority::certificate)
                .collect(),
            jwt_authorities: vec![types::JwtKey {
                public_key: self.jwt_key.subject_public_key_info(),
                key_id: self.jwt_key_id.clone(),
                expires_at: 0,
                tainted: false,
            }],
            refresh_hint: 300,
            sequence_number: self.sequence,
        };
        match self.fault {
            Fault::ForeignBundle => bundle.trust_domain = "two.test".to_owned(),
            Fault::EmptyBundle => bundle.x509_authorities.clear(),
            Fault::DamagedBundle => bundle.jwt_authorities[0].public_key.truncate(20),
            _ => {}
        }
        bundle
    }

    pub(super) fn token(&self, id: &str, audience: &[String]) -> types::Jwtsvid {
        let now = seconds(self.clock.now());
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.jwt_key_id.clone());
        let audience = match self.fault {
            Fault::OtherToken => json!(["somebody else"]),
            _ => json!(audience),
        };
        let claims = json!({"sub": id, "aud": audience, "iat": now, "exp": now + 300});
        let key = EncodingKey::from_ec_der(&self.jwt_key.serialize_der());
        types::Jwtsvid {
            token: jsonwebtoken::encode(&header, &claims, &key).unwrap(),
            id: Some(spiffe_id(id)),
            issued_at: i64::try_from(now).unwrap(),
            expires_at: i64::try_from(now + 300).unwrap(),
        }
    }
}

pub(super) fn selector(kind: &str, value: &str) -> types::Selector {
    types::Selector {
        r#type: kind.to_owned(),
        value: value.to_owned(),
    }
}

pub(super) fn denied(reason: Reason) -> Status {
    let details = types::PermissionDeniedDetails {
        reason: reason.into(),
    };
    let status = RpcStatus {
        code: Code::PermissionDenied.into(),
        message: "denied".to_owned(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/spire.api.types.PermissionDeniedDetails".to_owned(),
            value: details.encode_to_vec(),
        }],
    };
    let details = status.encode_to_vec().into();
    Status::with_details(Code::PermissionDenied, "denied", details)
}
