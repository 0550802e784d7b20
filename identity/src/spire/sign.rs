//! SVIDs for the workloads, signed by the server.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tonic::Code;
use zeroize::Zeroizing;

use super::agent::{Held, HeldSvid, SpireAgent};
use super::apply::LAST;
use super::attest::{no_trust, renewal};
use super::error::{Failure, SpireError};
use super::key::{Awaited, NewKey};
use super::messages;
use super::proto::svid::batch_new_x509svid_response::Result as Signed;
use super::proto::svid::svid_client::SvidClient;
use super::proto::svid::{BatchNewX509svidRequest, NewJwtsvidRequest, NewX509svidParams};
use super::proto::types;
use super::session::Session;
use crate::clock::moment;
use crate::entry::Entry;
use crate::jwt::{JwtSvid, validate};
use crate::svid::{Issued, Validity, X509Svid};
use crate::tls::verify_chain;

/// SVIDs under a tainted authority are replaced so many at once, so that the server is not asked for
/// all of them.
const TAINTED: usize = 100;

/// And with this pause between.
const TAINTED_PAUSE: Duration = Duration::from_secs(5);

/// The call in which a token is signed.
const NEW_JWT: &str = "NewJWTSVID";

/// What is asked of the server for one entry.
type Wanted = (String, Arc<Entry>);

impl SpireAgent {
    /// Has SVIDs signed for all entries that need one.
    pub(super) async fn sign(&self, held: &mut Held, session: &Session) -> Result<(), SpireError> {
        let wanted = held.wanted(self.clock.now());
        held.unsigned.clear();
        let mut rest = wanted.as_slice();
        while !rest.is_empty() {
            let size = held.batch.get().min(rest.len());
            let (batch, others) = rest.split_at(size);
            match self.sign_batch(held, session, batch).await {
                Ok(()) => {
                    held.batch.succeeded();
                    rest = others;
                }
                Err(error) => {
                    let is_smaller = held.batch.failed();
                    if !(is_smaller && is_too_much(&error)) {
                        self.metrics.rotation_failed();
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    async fn sign_batch(
        &self,
        held: &mut Held,
        session: &Session,
        batch: &[Wanted],
    ) -> Result<(), SpireError> {
        let count = batch.len();
        // Making keys and verifying chains takes its time.
        let keys = blocking(move || {
            let keys = (0..count).map(|_| NewKey::generate());
            keys.collect::<Result<Vec<_>, _>>()
        });
        let keys = keys.await??;
        let params = batch
            .iter()
            .zip(&keys)
            .map(|((id, _), key)| NewX509svidParams {
                entry_id: id.clone(),
                csr: key.request.clone(),
            });
        let request = BatchNewX509svidRequest {
            params: params.collect(),
        };
        let results = session
            .call("BatchNewX509SVID", |channel| {
                let request = request.clone();
                async move {
                    let answer = SvidClient::new(channel).batch_new_x509svid(request).await?;
                    let results = answer.into_inner().results;
                    match results.len() == count {
                        true => Ok(results),
                        false => Err(Failure::from(format!(
                            "it has {} SVIDs where {count} were asked for",
                            results.len()
                        ))),
                    }
                }
            })
            .await?;
        let trust = held.trust.clone().ok_or_else(no_trust)?;
        let now = self.clock.now();
        let entries: Vec<_> = batch.iter().map(|(_, entry)| Arc::clone(entry)).collect();
        let received = blocking(move || {
            let sent = results.into_iter().zip(keys).zip(entries);
            let received = sent.map(|((result, key), entry)| {
                let svid = signed(result, &key, &entry, &trust, now)?;
                let lasts = verify_chain(svid.chain(), trust.lasting(), now).is_ok();
                Ok((Arc::new(svid), lasts))
            });
            received.collect::<Vec<Result<_, String>>>()
        });
        for ((id, entry), received) in batch.iter().zip(received.await?) {
            let problem = match received {
                Ok((svid, lasts)) if lasts || held.svids.get(id).is_none_or(|it| it.due <= now) => {
                    self.metrics.rotated(&svid);
                    let svid = HeldSvid {
                        due: renewal(&svid, now),
                        is_tainted: !lasts,
                        issued: Issued {
                            entry: Arc::clone(entry),
                            svid,
                        },
                    };
                    held.issue(id.clone(), svid);
                    continue;
                }
                Ok(_) => "the new SVID is under a tainted authority too".to_owned(),
                Err(problem) => problem,
            };
            self.metrics.rotation_failed();
            held.unsigned
                .push(format!("{}: {problem}", entry.spiffe_id()));
        }
        Ok(())
    }

    /// A JWT-SVID for an entry that the server has authorized. Which audiences a workload may ask for
    /// is not for SPIRE's entries to say: the caller knows.
    ///
    /// # Errors
    /// When there is no such entry, or the server does not sign, or what it signed does not fit.
    pub async fn jwt_svid(
        &self,
        entry: &Entry,
        audience: &[String],
    ) -> Result<JwtSvid, SpireError> {
        let refused = |problem: String| SpireError::Refused {
            method: NEW_JWT,
            problem,
        };
        let sent = match self.new_jwt(entry, audience).await {
            // Between a new attestation and its first use the agent's SVID before it counts no more.
            Err(SpireError::Denied { .. }) => {
                self.step().await?;
                self.new_jwt(entry, audience).await?
            }
            other => other?,
        };
        let token = Zeroizing::new(sent.token);
        let told = messages::spiffe_id(sent.id.as_ref()).map_err(refused)?;
        let own = &self.config.trust_domain;
        let key_id = jsonwebtoken::decode_header(token.as_bytes());
        let key_id = key_id.ok().and_then(|header| header.kid);
        let key_id = key_id.ok_or_else(|| refused("it names no key".to_owned()))?;
        if !self.knows_jwt_key(&key_id) {
            // The server may sign with a new one before the bundle was asked for again.
            self.catch_up(&key_id).await;
        }
        let bundles = self.identities().jwt_bundles.clone();
        let wanted = audience.first();
        let wanted = wanted.ok_or_else(|| refused("no audience was asked for".to_owned()))?;
        let valid = validate(&token, wanted, &bundles, own);
        let valid = valid.map_err(|error| refused(error.to_string()))?;
        if told != *entry.spiffe_id() || valid.spiffe_id != told {
            return Err(refused(format!("the SVID is of `{}`", valid.spiffe_id)));
        }
        // What the token says is what its readers go by.
        let expires = valid.claims.get("exp").and_then(Value::as_u64);
        let issued = u64::try_from(sent.issued_at).ok();
        let (Some(issued), Some(expires)) = (issued, expires.filter(|it| *it <= LAST)) else {
            return Err(refused("its times are none".to_owned()));
        };
        let validity = Validity {
            not_before: moment(issued),
            not_after: moment(expires),
        };
        if issued == 0 || validity.not_after <= validity.not_before.max(self.clock.now()) {
            return Err(refused("it does not count now".to_owned()));
        }
        Ok(JwtSvid {
            spiffe_id: told,
            token,
            validity,
            key_id,
        })
    }
}

impl SpireAgent {
    async fn new_jwt(
        &self,
        entry: &Entry,
        audience: &[String],
    ) -> Result<types::Jwtsvid, SpireError> {
        let (entry_id, session) = self.signs(entry).ok_or(SpireError::UnknownEntry)?;
        let request = NewJwtsvidRequest {
            entry_id,
            audience: audience.to_vec(),
        };
        session
            .call(NEW_JWT, |channel| {
                let request = request.clone();
                async move {
                    let answer = SvidClient::new(channel).new_jwtsvid(request).await?;
                    let svid = answer.into_inner().svid;
                    svid.ok_or_else(|| "there is no SVID in it".into())
                }
            })
            .await
    }

    pub(super) fn knows_jwt_key(&self, key_id: &str) -> bool {
        let identities = self.identities();
        let bundle = identities.jwt_bundles.get(&self.config.trust_domain);
        bundle.is_some_and(|bundle| bundle.has_key(key_id))
    }
}

impl Held {
    /// The entries that need an SVID: first those without one, then those whose SVID ends first. Of
    /// those under a tainted authority, some at a time.
    fn wanted(&mut self, now: SystemTime) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let mut tainted = Vec::new();
        for (id, known) in &self.authorized {
            let Some(entry) = known.served() else {
                continue;
            };
            let svid = self.svids.get(id);
            let end = svid.map(|svid| svid.issued.svid.validity().not_after);
            let want = (end, (id.clone(), Arc::clone(entry)));
            match svid {
                Some(svid) if now < svid.due && svid.is_tainted => tainted.push(want),
                Some(svid) if now < svid.due => {}
                _ => wanted.push(want),
            }
        }
        // `None` comes first.
        wanted.sort_by_key(|(end, _)| *end);
        if now >= self.next_tainted && !tainted.is_empty() {
            // Those that the server does not sign must not keep back the others.
            let start = rand::random_range(0..tainted.len());
            tainted.rotate_left(start);
            wanted.extend(tainted.into_iter().take(TAINTED));
            self.next_tainted = now + TAINTED_PAUSE;
        }
        wanted.into_iter().map(|(_, wanted)| wanted).collect()
    }

    /// For how long nothing comes due. What is due already waits for the next step as it is.
    pub(super) fn idle(&self, now: SystemTime) -> Duration {
        let due = self.svids.values().map(|svid| svid.due);
        let is_tainted = self.svids.values().any(|svid| svid.is_tainted);
        let tainted = is_tainted.then_some(self.next_tainted);
        let all = due.chain(tainted).chain([self.renew_at]);
        let next = all.filter(|due| now < *due).min();
        next.and_then(|due| due.duration_since(now).ok())
            .unwrap_or(Duration::MAX)
    }
}

/// One result of a batch.
fn signed(
    result: Signed,
    key: &NewKey,
    entry: &Entry,
    trust: &crate::svid::X509Bundle,
    now: SystemTime,
) -> Result<X509Svid, String> {
    let status = result.status.unwrap_or_default();
    match Code::from_i32(status.code) {
        Code::Ok => key.receive(
            result.svid,
            Awaited::Workload(entry.spiffe_id()),
            trust,
            now,
        ),
        code => Err(format!(
            "the server does not sign it: {code}: {}",
            shown(&status.message)
        )),
    }
}

/// The beginning of a text of the server's, in one line.
fn shown(text: &str) -> String {
    text.chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect()
}

/// Whether less might succeed at once.
fn is_too_much(error: &SpireError) -> bool {
    let code = error.grpc_code();
    matches!(code, Some(Code::OutOfRange | Code::ResourceExhausted))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SpireError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|failure| SpireError::Refused {
        method: "BatchNewX509SVID",
        problem: failure.to_string(),
    })
}
