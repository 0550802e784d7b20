//! How the agent becomes one, and stays one.
//!
//! ```text
//!   nothing ── attest ──▶ in use ── half of its life: renew ──▶ in use, and the old one beside it
//!      ▲                    ▲  │                                   │             │
//!      │                    │  └── denied: attest anew, ◀──────────┘ a call       │ denied
//!      └── banned: for good │      if the node can              succeeded         │
//!                           └─────────────────────────────────────────────────────┘
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tracing::{info, warn};

use super::agent::{Held, SpireAgent};
use super::credentials::Credentials;
use super::error::{ATTEST, Denial, Failure, SpireError};
use super::key::{Awaited, NewKey};
use super::messages::{self, Bundle};
use super::node::Evidence;
use super::proto::agent::agent_client::AgentClient;
use super::proto::agent::attest_agent_request::{Params, Step};
use super::proto::agent::attest_agent_response::Step as Answer;
use super::proto::agent::{
    AgentX509svidParams, AttestAgentRequest, PostStatusRequest, RenewAgentRequest,
};
use super::proto::bundle::GetBundleRequest;
use super::proto::bundle::bundle_client::BundleClient;
use super::proto::types::{self, AttestationData};
use super::session::Session;
use super::tls::Trust;
use crate::svid::{X509Bundle, X509Svid};
use crate::tls::verify_chain;

const SECOND: Duration = Duration::from_secs(1);

/// No attestor challenges more often.
const CHALLENGES: usize = 8;

impl SpireAgent {
    /// Makes sure that there are a bundle to verify the server with, and an SVID to show to it, a new
    /// one where the server wants that. Where it fails, an SVID that was there still is.
    pub(super) async fn ensure_attested(&self, held: &mut Held) -> Result<(), SpireError> {
        let now = self.clock.now();
        let trust = match &held.trust {
            Some(trust) => Arc::clone(trust),
            None => {
                let trust = self.first_trust().await?;
                held.trust = Some(Arc::clone(&trust));
                held.forget_foreign(&trust, now);
                trust
            }
        };
        if held.has_counting_svid(now) && !held.must_reattest {
            return Ok(());
        }
        let is_repeatable = self.config.attestation.is_repeatable();
        if held.is_token_spent && !is_repeatable {
            let expired = held.credentials.in_use.as_ref().map(|_| Denial::Expired);
            let reason = held.denial.or(expired).unwrap_or(Denial::NotAttested);
            return Err(SpireError::TokenSpent(reason));
        }
        let evidence = self.config.attestation.evidence()?;
        let key = NewKey::generate()?;
        let session = self.unauthenticated(Trust::Bundle(Arc::clone(&trust)))?;
        let method = ATTEST;
        let answer = session
            .call_once(method, |channel| exchange(channel, &evidence, &key))
            .await;
        let is_decided = answer.as_ref().err().is_none_or(SpireError::is_decision);
        held.is_token_spent |= !is_repeatable && is_decided;
        let (sent, is_reattestable) = answer?;
        held.is_reattestable = is_reattestable;
        let awaited = Awaited::Agent(&self.config.trust_domain);
        let receive =
            |bundle: &X509Bundle| key.receive(sent.clone(), awaited, bundle, self.clock.now());
        let svid = match receive(&trust) {
            Ok(svid) => Ok(svid),
            // It may be of a newer authority than the bundle.
            Err(_) => receive(&self.own_bundle(&session).await?.x509),
        };
        let svid = svid.map_err(|problem| SpireError::Refused { method, problem })?;
        info!(agent_id = %svid.id(), "the SPIRE server has attested this node");
        let credentials = Credentials {
            in_use: Some(Arc::new(svid)),
            fallback: None,
        };
        held.take(credentials, now);
        (held.must_reattest, held.denial, held.is_kept) = (false, None, false);
        // Before anything else: what was shown might not serve again.
        self.keep(held)
    }

    /// Renews the agent's SVID at half of its life. The old one stays, in memory and on disk, until
    /// the server has accepted the new one.
    pub(super) async fn renew_if_due(&self, held: &mut Held) -> Result<(), SpireError> {
        let now = self.clock.now();
        if now < held.renew_at || held.credentials.fallback.is_some() || held.must_reattest {
            return Ok(());
        }
        if held.is_reattestable {
            // The server would only say so.
            held.must_reattest = true;
            return self.ensure_attested(held).await;
        }
        let session = self.session(held)?;
        let key = NewKey::generate()?;
        let request = RenewAgentRequest {
            params: Some(params(&key)),
        };
        let method = "RenewAgent";
        let sent = session
            .call(method, |channel| {
                let request = request.clone();
                async move {
                    let answer = AgentClient::new(channel).renew_agent(request).await?;
                    Ok(answer.into_inner().svid)
                }
            })
            .await?;
        let trust = held.trust.as_deref();
        let trust = trust.ok_or_else(no_trust)?;
        let awaited = Awaited::Agent(&self.config.trust_domain);
        let svid = key.receive(sent, awaited, trust, now);
        let svid = svid.map_err(|problem| SpireError::Refused { method, problem })?;
        let credentials = Credentials {
            in_use: Some(Arc::new(svid)),
            fallback: held.credentials.in_use.clone(),
        };
        // Were it used and then lost, neither would count at the server.
        self.directory.keep(&credentials)?;
        held.take(credentials, now);
        info!("the agent's SVID is renewed");
        Ok(())
    }

    /// Writes what is not written yet.
    pub(super) fn keep(&self, held: &mut Held) -> Result<(), SpireError> {
        if !held.is_kept {
            self.directory.keep(&held.credentials)?;
            held.is_kept = true;
        }
        if let Some(bundle) = held.bundle.as_ref().filter(|_| !held.is_bundle_kept) {
            self.directory.keep_bundle(&bundle.spiffe)?;
            held.is_bundle_kept = true;
        }
        Ok(())
    }

    /// What to do when the server does not take the agent for what it says to be. Returns where it
    /// is worth to go on at once.
    pub(super) fn denied(&self, held: &mut Held, reason: Denial) -> Result<(), SpireError> {
        let now = self.clock.now();
        if reason == Denial::Banned {
            held.is_banned = true;
            held.take(Credentials::default(), now);
            for svid in std::mem::take(&mut held.svids).into_values() {
                self.metrics.withdrawn(svid.issued.svid.id());
            }
            held.session = None;
            self.publish(held);
            self.directory.forget()?;
            return Err(SpireError::Banned);
        }
        if let Some(fallback) = held.credentials.fallback.take() {
            warn!(%reason, "the agent's new SVID is denied; back to the one before");
            let credentials = Credentials {
                in_use: Some(fallback),
                fallback: None,
            };
            held.take(credentials, now);
            // Not at once again: it might end in the same way.
            held.renew_at = now + self.config.sync_interval;
            held.is_kept = false;
            return Ok(());
        }
        held.denial = Some(reason);
        if held.is_token_spent && !self.config.attestation.is_repeatable() {
            return Err(SpireError::TokenSpent(reason));
        }
        warn!(%reason, "the SPIRE server wants this node attested anew");
        match reason {
            // What is there still counts until then.
            Denial::MustReattest => held.must_reattest = true,
            _ => held.take(Credentials::default(), now),
        }
        Ok(())
    }

    /// Tells the server which bundle and which version are here. Old servers do not want to know.
    pub(super) async fn post_status(&self, held: &mut Held, session: &Session) {
        let sequence = held.bundle.as_ref().map(|it| it.sent.sequence_number);
        if held.posted == sequence {
            return;
        }
        let serial = i64::try_from(sequence.unwrap_or_default());
        let request = PostStatusRequest {
            current_bundle_serial: serial.unwrap_or(i64::MAX),
            agent_version: format!("sidegate/{}", env!("CARGO_PKG_VERSION")),
        };
        let posted = session
            .call("PostStatus", |channel| {
                let request = request.clone();
                async move { Ok(AgentClient::new(channel).post_status(request).await?) }
            })
            .await;
        match posted {
            Ok(_) => held.posted = sequence,
            // Old servers do not know it, or do not allow it; and nobody waits for it.
            Err(error) => {
                held.posted = sequence;
                let error = crate::chain(&error);
                tracing::debug!(error, "the agent's status is not posted");
            }
        }
    }

    /// The own trust domain's bundle.
    pub(super) async fn own_bundle(&self, session: &Session) -> Result<Bundle, SpireError> {
        let sent = get_bundle(session).await?;
        self.read_own(sent)
    }

    /// Reads the own trust domain's bundle. Without a root, it would lock this agent out.
    pub(super) fn read_own(&self, sent: types::Bundle) -> Result<Bundle, SpireError> {
        let bundle = messages::bundle(sent, &self.config.trust_domain);
        let bundle = bundle.and_then(|bundle| match bundle.x509.roots() {
            [] => Err("it has no X.509 authorities".to_owned()),
            _ => Ok(bundle),
        });
        bundle.map_err(|problem| SpireError::Refused {
            method: "GetBundle",
            problem,
        })
    }

    /// What the server is verified by before it has told a bundle in this run.
    async fn first_trust(&self) -> Result<Arc<X509Bundle>, SpireError> {
        if let Some(known) = self.known_trust().await? {
            return Ok(known);
        }
        warn!(
            server = self.config.server,
            "the first bundle is taken from whoever answers: nothing verifies the SPIRE server"
        );
        let session = self.unauthenticated(Trust::OnFirstUse)?;
        let bundle = self.own_bundle(&session).await?;
        // The first use is only once.
        self.directory.keep_bundle(&bundle.spiffe)?;
        Ok(bundle.x509)
    }

    /// The bundle of an earlier run, or the one to begin with; none where the first contact is to be
    /// trusted.
    pub(super) async fn known_trust(&self) -> Result<Option<Arc<X509Bundle>>, SpireError> {
        let bundle = match self.directory.bundle()? {
            Some(kept) => Some(kept),
            None => self.config.bootstrap.bundle().await?,
        };
        Ok(bundle.map(Arc::new))
    }

    pub(super) fn unauthenticated(&self, trust: Trust) -> Result<Session, SpireError> {
        let (server, trust_domain) = (&self.config.server, &self.config.trust_domain);
        Session::new(server, trust_domain, trust, None, Arc::clone(&self.clock))
    }
}

impl Held {
    /// Whether there is an SVID to show that has not expired.
    pub(super) fn has_counting_svid(&self, now: SystemTime) -> bool {
        let in_use = self.credentials.in_use.as_ref();
        in_use.is_some_and(|svid| now < svid.validity().not_after)
    }

    /// What an earlier run left counts no more where it is of other authorities: the server would not
    /// take it either.
    fn forget_foreign(&mut self, trust: &X509Bundle, now: SystemTime) {
        let counts = |svid: &Arc<X509Svid>| {
            // Whether it counts now is another question.
            let validity = svid.validity();
            let last = validity.not_after.checked_sub(SECOND);
            let then = now.max(validity.not_before).min(last.unwrap_or(now));
            verify_chain(svid.chain(), trust, then).is_ok()
        };
        if self
            .credentials
            .in_use
            .as_ref()
            .is_some_and(|it| !counts(it))
        {
            warn!("the agent's SVID is not of the trust domain's authorities any more");
            let fallback = self.credentials.fallback.clone();
            let credentials = Credentials {
                in_use: fallback.filter(counts),
                fallback: None,
            };
            self.take(credentials, now);
        }
    }

    /// The server has accepted the SVID in use: the one before it counts no longer.
    pub(super) fn confirm(&mut self) {
        if self.credentials.fallback.take().is_some() {
            self.is_kept = false;
        }
    }

    /// Takes other credentials.
    fn take(&mut self, credentials: Credentials, now: SystemTime) {
        self.renew_at = match &credentials.in_use {
            Some(svid) => renewal(svid, now),
            None => SystemTime::UNIX_EPOCH,
        };
        self.credentials = credentials;
    }
}

/// When to renew an SVID that came now: at half of what is left, give or take a tenth of that, so
/// that many do not come due at once.
pub(super) fn renewal(svid: &X509Svid, now: SystemTime) -> SystemTime {
    now + about_half(now, svid.validity().not_after)
}

/// When to renew an SVID that came some time ago.
pub(super) fn half_life(svid: &X509Svid) -> SystemTime {
    let validity = svid.validity();
    validity.not_before + about_half(validity.not_before, validity.not_after)
}

fn about_half(from: SystemTime, to: SystemTime) -> Duration {
    let span = to.duration_since(from).unwrap_or_default();
    span.mul_f64(rand::random_range(0.45..=0.55))
}

/// The own bundle as the server sends it.
pub(super) async fn get_bundle(session: &Session) -> Result<types::Bundle, SpireError> {
    session
        .call("GetBundle", |channel| async move {
            let request = GetBundleRequest {};
            Ok(BundleClient::new(channel)
                .get_bundle(request)
                .await?
                .into_inner())
        })
        .await
}

/// Nothing is asked before there is a bundle.
pub(super) fn no_trust() -> SpireError {
    SpireError::Bootstrap {
        from: "the state directory".to_owned(),
        problem: "there is none yet".to_owned(),
    }
}

/// Shows the evidence, answers challenges, and returns the SVID that comes of it, and whether the node is
/// to be attested anew instead of renewing it.
async fn exchange(
    channel: Channel,
    evidence: &Evidence,
    key: &NewKey,
) -> Result<(Option<types::X509svid>, bool), Failure> {
    let (requests, receiver) = mpsc::channel(1);
    let first = Step::Params(Params {
        data: Some(AttestationData {
            r#type: evidence.kind.to_owned(),
            payload: evidence.payload.to_vec(),
        }),
        params: Some(params(key)),
    });
    let send = async |step| {
        // Where the stream is gone, its other side says why.
        let _ = requests.send(AttestAgentRequest { step: Some(step) }).await;
    };
    send(first).await;
    let mut answers = AgentClient::new(channel)
        .attest_agent(ReceiverStream::new(receiver))
        .await?
        .into_inner();
    for _ in 0..=CHALLENGES {
        let answer = answers.message().await?.and_then(|answer| answer.step);
        match answer {
            None => return Err("it ended without a result".into()),
            Some(Answer::Result(result)) => return Ok((result.svid, result.reattestable)),
            Some(Answer::Challenge(challenge)) => {
                send(Step::ChallengeResponse(evidence.respond(&challenge)?)).await;
            }
        }
    }
    Err("there is no end to the challenges".into())
}

fn params(key: &NewKey) -> AgentX509svidParams {
    AgentX509svidParams {
        csr: key.request.clone(),
    }
}
