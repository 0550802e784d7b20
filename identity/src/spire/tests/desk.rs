//! The calls of the server that the tests play.

use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::server::Shown;
use super::world::{Fault, TRUST_DOMAIN, World, denied};
use crate::hex;
use crate::spire::proto::agent::attest_agent_request::Step as Asked;
use crate::spire::proto::agent::attest_agent_response::{Result as Attested, Step};
use crate::spire::proto::agent::{
    AttestAgentRequest, AttestAgentResponse, PostStatusRequest, PostStatusResponse,
    RenewAgentRequest, RenewAgentResponse, agent_server,
};
use crate::spire::proto::bundle::{GetBundleRequest, GetFederatedBundleRequest, bundle_server};
use crate::spire::proto::entry::{
    EntryRevision, GetAuthorizedEntriesRequest, GetAuthorizedEntriesResponse,
    SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse, entry_server,
};
use crate::spire::proto::svid::batch_new_x509svid_response::Result as Signed;
use crate::spire::proto::svid::{
    BatchNewX509svidRequest, BatchNewX509svidResponse, NewJwtsvidRequest, NewJwtsvidResponse,
    svid_server,
};
use crate::spire::proto::types;
use crate::spire::proto::types::permission_denied_details::Reason;

#[derive(Clone)]
pub(super) struct Desk(pub(super) Arc<Mutex<World>>);

type Answers<T> = ReceiverStream<Result<T, Status>>;

const NONCE: [u8; 32] = [7; 32];

impl Desk {
    /// Notes a call.
    fn begin(&self, method: &'static str) -> Result<MutexGuard<'_, World>, Status> {
        let mut world = self.0.lock().unwrap();
        if world.fault == Fault::Down {
            return Err(Status::unavailable("the server is down"));
        }
        world.calls.push(method);
        Ok(world)
    }

    /// Notes a call that only an agent may make.
    fn of_agent<T>(
        &self,
        method: &'static str,
        request: &Request<T>,
    ) -> Result<MutexGuard<'_, World>, Status> {
        let mut world = self.begin(method)?;
        let shown = request.extensions().get::<Shown>().unwrap();
        world.caller(shown.0.as_ref())?;
        Ok(world)
    }

    async fn attest(
        &self,
        mut asked: Streaming<AttestAgentRequest>,
        answers: &mpsc::Sender<Result<AttestAgentResponse, Status>>,
    ) -> Result<types::X509svid, Status> {
        let Some(Asked::Params(params)) = asked.message().await?.unwrap().step else {
            return Err(Status::invalid_argument("no params"));
        };
        let (data, csr) = (params.data.unwrap(), params.params.unwrap().csr);
        let id = match data.r#type.as_str() {
            "join_token" => {
                let token = String::from_utf8(data.payload).unwrap();
                if !self.0.lock().unwrap().tokens.remove(&token) {
                    return Err(Status::invalid_argument("the token has been used"));
                }
                format!("join_token/{token}")
            }
            "x509pop" => {
                let payload: Value = serde_json::from_slice(&data.payload).unwrap();
                let leaf = payload["certificates"][0].as_str().unwrap();
                let leaf = STANDARD.decode(leaf).unwrap();
                let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
                let is_rsa = matches!(
                    parsed.public_key().parsed(),
                    Ok(x509_parser::public_key::PublicKey::RSA(_))
                );
                let name = ["ecdsa_signature", "rsa_signature"][usize::from(is_rsa)];
                let challenge = json!({name: {"nonce": STANDARD.encode(NONCE)}});
                let challenge = Step::Challenge(challenge.to_string().into());
                let answer = AttestAgentResponse {
                    step: Some(challenge),
                };
                answers.send(Ok(answer)).await.unwrap();
                let Some(Asked::ChallengeResponse(response)) =
                    asked.message().await?.and_then(|it| it.step)
                else {
                    return Err(Status::invalid_argument("no response"));
                };
                let response: Value = serde_json::from_slice(&response).unwrap();
                let key = &parsed.public_key().subject_public_key.data;
                verify(&response[name], key, is_rsa)?;
                let fingerprint = digest(&SHA1_FOR_LEGACY_USE_ONLY, &leaf);
                format!("x509pop/{}", hex(fingerprint.as_ref()))
            }
            other => return Err(Status::invalid_argument(other)),
        };
        let id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/{id}");
        let mut world = self.0.lock().unwrap();
        if world.agents.get(&id).is_some_and(|node| node.is_banned) {
            return Err(denied(Reason::AgentBanned));
        }
        Ok(world.attest(&id, &csr))
    }

    async fn sync(
        &self,
        mut asked: Streaming<SyncAuthorizedEntriesRequest>,
        answers: &mpsc::Sender<Result<SyncAuthorizedEntriesResponse, Status>>,
    ) -> Result<(), Status> {
        let first = asked.message().await?.unwrap();
        assert!(first.ids.is_empty());
        assert!(first.output_mask.unwrap().revision_number);
        let (entries, page_size, fault) = {
            let world = self.0.lock().unwrap();
            (world.listed(), world.page_size, world.fault)
        };
        let send = async |answer| answers.send(Ok(answer)).await;
        if entries.len() <= page_size {
            let answer = SyncAuthorizedEntriesResponse {
                entries,
                ..SyncAuthorizedEntriesResponse::default()
            };
            let _ = send(answer).await;
            return Ok(());
        }
        let pages: Vec<_> = entries.chunks(page_size).collect();
        for (index, page) in pages.iter().enumerate() {
            if fault == Fault::CutSync && index == 1 {
                return Ok(());
            }
            let revisions = page.iter().map(|entry| EntryRevision {
                id: entry.id.clone(),
                revision_number: entry.revision_number,
                created_at: entry.created_at,
            });
            let answer = SyncAuthorizedEntriesResponse {
                entry_revisions: revisions.collect(),
                entries: Vec::new(),
                more: index + 1 < pages.len(),
            };
            let _ = send(answer).await;
        }
        while let Some(request) = asked.message().await? {
            assert!(request.ids.is_sorted() && request.ids.len() <= page_size);
            let wanted = entries.iter();
            let mut wanted: Vec<_> = match fault {
                Fault::NotWhatWasAskedFor => wanted.cloned().collect(),
                Fault::NotAllThatWasAskedFor => Vec::new(),
                _ => wanted
                    .filter(|entry| request.ids.contains(&entry.id))
                    .cloned()
                    .collect(),
            };
            self.0.lock().unwrap().asked.push(request.ids);
            // In two parts.
            let rest = wanted.split_off(wanted.len() / 2);
            for (entries, more) in [(wanted, true), (rest, false)] {
                let answer = SyncAuthorizedEntriesResponse {
                    entry_revisions: Vec::new(),
                    entries,
                    more,
                };
                let _ = send(answer).await;
            }
        }
        Ok(())
    }
}

impl World {
    fn listed(&self) -> Vec<types::Entry> {
        let mut entries = self.entries.clone();
        match self.fault {
            Fault::TwiceTheSameEntry => entries.extend(self.entries.first().cloned()),
            Fault::HugeEntries => entries[0].hint = "x".repeat(5 * 1024 * 1024),
            _ => {}
        }
        entries
    }
}

fn verify(response: &Value, key: &[u8], is_rsa: bool) -> Result<(), Status> {
    let decode = |name: &str| STANDARD.decode(response[name].as_str().unwrap()).unwrap();
    let message = [&NONCE[..], &decode("nonce")].concat();
    let (algorithm, signature): (&'static dyn VerificationAlgorithm, _) = match is_rsa {
        true => (&RSA_PSS_2048_8192_SHA256, decode("signature")),
        false => (
            &ECDSA_P256_SHA256_FIXED,
            [decode("r"), decode("s")].concat(),
        ),
    };
    UnparsedPublicKey::new(algorithm, key)
        .verify(&message, &signature)
        .map_err(|_| Status::permission_denied("the signature is wrong"))
}

#[tonic::async_trait]
impl agent_server::Agent for Desk {
    type AttestAgentStream = Answers<AttestAgentResponse>;

    async fn attest_agent(
        &self,
        request: Request<Streaming<AttestAgentRequest>>,
    ) -> Result<Response<Self::AttestAgentStream>, Status> {
        drop(self.begin("AttestAgent")?);
        let shown = request.extensions().get::<Shown>().unwrap();
        assert_eq!(shown.0, None);
        let (answers, receiver) = mpsc::channel(4);
        let desk = self.clone();
        tokio::spawn(async move {
            let svid = desk.attest(request.into_inner(), &answers).await;
            let answer = svid.map(|svid| AttestAgentResponse {
                step: Some(Step::Result(Attested {
                    svid: Some(svid),
                    reattestable: desk.0.lock().unwrap().is_reattestable,
                })),
            });
            let _ = answers.send(answer).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn renew_agent(
        &self,
        request: Request<RenewAgentRequest>,
    ) -> Result<Response<RenewAgentResponse>, Status> {
        let mut world = self.of_agent("RenewAgent", &request)?;
        let shown = request.extensions().get::<Shown>().unwrap().0.clone();
        let shown = shown.unwrap();
        if world.caller(Some(&shown))?.must_reattest {
            return Err(denied(Reason::AgentMustReattest));
        }
        let csr = request.into_inner().params.unwrap().csr;
        world.requests.push(csr.clone());
        let peer = crate::tls::PeerIdentity::from_leaf(&shown).unwrap();
        let svid = world.svid(&peer.spiffe_id.to_string(), &csr, world.agent_life);
        let leaf = svid.cert_chain.first().cloned().unwrap_or_default();
        if !world.forgets_renewed {
            world.caller(Some(&shown))?.renewed = Some(leaf.into());
        }
        Ok(Response::new(RenewAgentResponse { svid: Some(svid) }))
    }

    async fn post_status(
        &self,
        request: Request<PostStatusRequest>,
    ) -> Result<Response<PostStatusResponse>, Status> {
        let mut world = self.of_agent("PostStatus", &request)?;
        let request = request.into_inner();
        let posted = (request.current_bundle_serial, request.agent_version);
        world.posted.push(posted);
        Ok(Response::new(PostStatusResponse {}))
    }
}

#[tonic::async_trait]
impl bundle_server::Bundle for Desk {
    async fn get_bundle(
        &self,
        _: Request<GetBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        Ok(Response::new(self.begin("GetBundle")?.bundle()))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        if self.0.lock().unwrap().fault == Fault::NoForeign {
            return Err(Status::internal("the datastore is away"));
        }
        let found = {
            let mut world = self.of_agent("GetFederatedBundle", &request)?;
            world.federated_now += 1;
            world.federated_most = world.federated_most.max(world.federated_now);
            world
                .federated
                .get(&request.get_ref().trust_domain)
                .cloned()
        };
        // Lets the others begin.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.0.lock().unwrap().federated_now -= 1;
        let found = found.ok_or_else(|| Status::not_found("no such bundle"))?;
        Ok(Response::new(found))
    }
}

#[tonic::async_trait]
impl entry_server::Entry for Desk {
    type SyncAuthorizedEntriesStream = Answers<SyncAuthorizedEntriesResponse>;

    async fn get_authorized_entries(
        &self,
        request: Request<GetAuthorizedEntriesRequest>,
    ) -> Result<Response<GetAuthorizedEntriesResponse>, Status> {
        let world = self.of_agent("GetAuthorizedEntries", &request)?;
        let entries = world.listed();
        Ok(Response::new(GetAuthorizedEntriesResponse { entries }))
    }

    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<SyncAuthorizedEntriesRequest>>,
    ) -> Result<Response<Self::SyncAuthorizedEntriesStream>, Status> {
        let fault = self.of_agent("SyncAuthorizedEntries", &request)?.fault;
        if fault == Fault::Old {
            return Err(Status::unimplemented("unknown method"));
        }
        let (answers, receiver) = mpsc::channel(4);
        let desk = self.clone();
        tokio::spawn(async move {
            if let Err(status) = desk.sync(request.into_inner(), &answers).await {
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl svid_server::Svid for Desk {
    async fn batch_new_x509svid(
        &self,
        request: Request<BatchNewX509svidRequest>,
    ) -> Result<Response<BatchNewX509svidResponse>, Status> {
        if self.0.lock().unwrap().fault == Fault::Hangs {
            self.0.lock().unwrap().calls.push("BatchNewX509SVID");
            std::future::pending::<()>().await;
        }
        let mut world = self.of_agent("BatchNewX509SVID", &request)?;
        let params = request.into_inner().params;
        world.batches.push(params.len());
        if params.len() > world.largest_batch {
            return Err(Status::resource_exhausted("too many at once"));
        }
        let results = params.into_iter().map(|params| {
            let mut entries = world.entries.iter();
            let entry = entries.find(|entry| entry.id == params.entry_id);
            let id = entry.unwrap().spiffe_id.clone().unwrap();
            let id = format!("spiffe://{}{}", id.trust_domain, id.path);
            let code = i32::from(world.fault == Fault::RefusedSvids) * 5;
            Signed {
                status: Some(types::Status {
                    code,
                    message: "no".to_owned(),
                }),
                svid: (code == 0).then(|| world.svid(&id, &params.csr, world.svid_life)),
            }
        });
        let mut results: Vec<_> = results.collect();
        if world.fault == Fault::FewerSvids {
            results.pop();
        }
        Ok(Response::new(BatchNewX509svidResponse { results }))
    }

    async fn new_jwtsvid(
        &self,
        request: Request<NewJwtsvidRequest>,
    ) -> Result<Response<NewJwtsvidResponse>, Status> {
        let world = self.of_agent("NewJWTSVID", &request)?;
        let request = request.into_inner();
        let mut entries = world.entries.iter();
        let entry = entries.find(|entry| entry.id == request.entry_id).unwrap();
        let id = entry.spiffe_id.clone().unwrap();
        let id = format!("spiffe://{}{}", id.trust_domain, id.path);
        let svid = Some(world.token(&id, &request.audience));
        Ok(Response::new(NewJwtsvidResponse { svid }))
    }
}
