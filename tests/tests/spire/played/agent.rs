//! `spire.api.server.agent.v1.Agent`: attestation, renewal, and what agents say of themselves.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tonic::{Status, Streaming};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{Leaf, random};
use super::fault::Fault;
use super::messages::{
    AttestRequest, AttestResponse, AttestResult, Empty, PostStatusRequest, RenewRequest,
    RenewResponse, X509Svid,
};
use super::state::{Agent, Caller, Reason, State, denied};
use super::{Answer, Shared};
use crate::spire::server::{id, joined};
use crate::support::hexadecimal;

/// `AttestAgent`.
pub(super) async fn attest(
    shared: Shared,
    mut requests: Streaming<AttestRequest>,
    answers: Sender<Result<AttestResponse, Status>>,
) {
    let answer = attested(&shared, &mut requests, &answers).await;
    // Whoever does not wait for the answer needs none.
    answers.send(answer).await.ok();
}

async fn attested(
    shared: &Shared,
    requests: &mut Streaming<AttestRequest>,
    answers: &Sender<Result<AttestResponse, Status>>,
) -> Answer<AttestResponse> {
    let missing = || Status::invalid_argument("malformed param");
    let first = requests.message().await?.ok_or_else(missing)?;
    let params = first.params.ok_or_else(missing)?;
    let data = params.data.ok_or_else(missing)?;
    let csr = params.params.ok_or_else(missing)?.csr;
    let (agent, can_reattest) = match data.kind.as_str() {
        "join_token" => {
            let token = String::from_utf8(data.payload).map_err(|_| missing())?;
            if !shared.lock().tokens.remove(&token) {
                return Err(Status::invalid_argument(
                    "failed to attest: join token does not exist or has already been used",
                ));
            }
            (joined(&token), false)
        }
        "x509pop" => {
            let leaf = presented(&shared.lock(), &data.payload)?;
            let nonce = random::<32>();
            let kind = kind_of(&leaf)?;
            let challenge = json!({kind: {"nonce": STANDARD.encode(nonce)}}).to_string();
            let challenge = AttestResponse {
                challenge: Some(challenge.into_bytes()),
                ..AttestResponse::default()
            };
            answers.send(Ok(challenge)).await.map_err(|_| missing())?;
            let second = requests.message().await?.ok_or_else(missing)?;
            prove(
                &leaf,
                kind,
                &nonce,
                &second.challenge_response.unwrap_or_default(),
            )?;
            let print = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &leaf);
            let path = format!("/spire/agent/x509pop/{}", hexadecimal(print.as_ref()));
            (id(&path), true)
        }
        other => {
            let text = format!("could not find node attestor type {other:?}");
            return Err(Status::failed_precondition(text));
        }
    };
    let mut state = shared.lock();
    let known = state.agents.get(&agent);
    if known.is_some_and(|known| known.active.is_none()) {
        let text = "failed to attest: agent is banned";
        return Err(Status::permission_denied(text));
    }
    let (svid, serial) = sign(&state, "AttestAgent", &agent, &csr)?;
    let record = Agent {
        active: Some(serial),
        next: None,
        can_reattest,
    };
    state.agents.insert(agent.clone(), record);
    state.seen.attested.push(agent);
    Ok(AttestResponse {
        result: Some(AttestResult {
            svid: Some(svid),
            reattestable: can_reattest,
        }),
        ..AttestResponse::default()
    })
}

/// `RenewAgent`.
pub(super) fn renew(
    state: &mut State,
    caller: Option<&Caller>,
    request: RenewRequest,
) -> Answer<RenewResponse> {
    let agent = state.authorize(caller)?;
    if state.agents[&agent].can_reattest {
        let text = "agent must reattest instead of renew";
        return Err(denied(Reason::MustReattest, text));
    }
    let csr = request.params.unwrap_or_default().csr;
    let (svid, serial) = sign(state, "RenewAgent", &agent, &csr)?;
    state.agents.get_mut(&agent).expect("it is known").next = Some(serial);
    Ok(RenewResponse { svid: Some(svid) })
}

/// `PostStatus`.
pub(super) fn post_status(
    state: &mut State,
    caller: Option<&Caller>,
    request: PostStatusRequest,
) -> Answer<Empty> {
    state.authorize(caller)?;
    state.seen.posted.push(request);
    Ok(Empty {})
}

fn sign(state: &State, method: &str, agent: &str, csr: &[u8]) -> Answer<(X509Svid, String)> {
    let leaf = Leaf {
        spiffe_id: agent,
        dns_names: &[],
        ttl: state.options.agent_ttl.try_into().expect("a short time"),
    };
    let fault = state.behaviour.faults.get(method).copied();
    let forgery = fault.and_then(Fault::forgery);
    let signed = state.authorities.sign(csr, &leaf, forgery);
    signed.map_err(|error| Status::invalid_argument(format!("failed to parse CSR: {error}")))
}

/// The leaf of a chain that the server's configuration trusts.
fn presented(state: &State, payload: &[u8]) -> Answer<CertificateDer<'static>> {
    let bad = |text: &str| Status::invalid_argument(format!("nodeattestor(x509pop): {text}"));
    let data: Value = serde_json::from_slice(payload).map_err(|_| bad("not JSON"))?;
    let chain = data["certificates"].as_array().into_iter().flatten();
    let chain: Option<Vec<CertificateDer<'static>>> = chain
        .map(|text| Some(STANDARD.decode(text.as_str()?).ok()?.into()))
        .collect();
    let chain = chain.ok_or_else(|| bad("not base64"))?;
    let (leaf, intermediates) = chain.split_first().ok_or_else(|| bad("no certificate"))?;
    let mut roots = RootCertStore::empty();
    let trusted = state.options.attestors.as_deref().unwrap_or_default();
    for root in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        roots.add(root.expect("PEM")).expect("a root");
    }
    let verifier = WebPkiClientVerifier::builder(roots.into())
        .build()
        .map_err(|_| Status::failed_precondition("x509pop is not configured"))?;
    verifier
        .verify_client_cert(leaf, intermediates, UnixTime::now())
        .map_err(|error| bad(&format!("certificate verification failed: {error}")))?;
    Ok(leaf.clone())
}

/// By which signature a key is proved.
fn kind_of(leaf: &[u8]) -> Answer<&'static str> {
    let (_, leaf) = X509Certificate::from_der(leaf).expect("it was verified");
    match leaf
        .public_key()
        .algorithm
        .algorithm
        .to_id_string()
        .as_str()
    {
        "1.2.840.113549.1.1.1" => Ok("rsa_signature"),
        "1.2.840.10045.2.1" => Ok("ecdsa_signature"),
        other => Err(Status::invalid_argument(format!("unsupported key {other}"))),
    }
}

/// Whether a response is signed with the leaf's key: over both nonces, one behind the other, whose
/// SHA-256 is what the signature is of.
fn prove(leaf: &[u8], kind: &str, nonce: &[u8; 32], response: &[u8]) -> Answer<()> {
    let refused = || Status::permission_denied("challenge response verification failed");
    let response: Value = serde_json::from_slice(response).map_err(|_| refused())?;
    let field = |name: &str| {
        let text = response[kind][name].as_str().ok_or_else(refused)?;
        STANDARD.decode(text).map_err(|_| refused())
    };
    let theirs = field("nonce")?;
    if theirs.len() != nonce.len() {
        return Err(Status::invalid_argument("invalid response nonce"));
    }
    let (algorithm, signature): (&'static dyn VerificationAlgorithm, _) = match kind {
        "rsa_signature" => (&RSA_PSS_2048_8192_SHA256, field("signature")?),
        _ => {
            // Big-endian numbers, which Go writes without leading zeros.
            let mut fixed = Vec::new();
            for number in [field("r")?, field("s")?] {
                let zeros = 32_usize.checked_sub(number.len()).ok_or_else(refused)?;
                fixed.extend(std::iter::repeat_n(0, zeros).chain(number));
            }
            (&ECDSA_P256_SHA256_FIXED, fixed)
        }
    };
    let (_, leaf) = X509Certificate::from_der(leaf).expect("it was verified");
    let key = &leaf.public_key().subject_public_key.data;
    UnparsedPublicKey::new(algorithm, key)
        .verify(&[nonce, theirs.as_slice()].concat(), &signature)
        .map_err(|_| refused())
}
