//! `spire.api.server.svid.v1.SVID` and `spire.api.server.bundle.v1.Bundle`: what workloads get.

use tonic::{Code, Status};

use super::Answer;
use super::authority::Leaf;
use super::fault::Fault;
use super::messages::{
    BatchRequest, BatchResponse, BatchResult, Bundle, Empty, Entry, FederatedRequest, ItemStatus,
    JwtRequest, JwtResponse, SvidParams,
};
use super::state::{Caller, State};

/// `BatchNewX509SVID`.
pub(super) fn batch(
    state: &mut State,
    caller: Option<&Caller>,
    request: BatchRequest,
) -> Answer<BatchResponse> {
    let agent = state.authorize(caller)?;
    state.seen.batches.push(request.params.len());
    if request.params.is_empty() {
        return Err(Status::invalid_argument("missing parameters"));
    }
    if request.params.len() > state.behaviour.batch {
        let text = "rejecting request due to certificate signing rate limiting";
        return Err(Status::resource_exhausted(text));
    }
    let entries = state.authorized(&agent);
    let results = request.params.iter().map(|params| {
        let entry = entries.iter().find(|entry| entry.id == params.entry_id);
        signed(state, entry, params)
    });
    let mut results: Vec<_> = results.collect();
    let fault = state.behaviour.faults.get("BatchNewX509SVID");
    if matches!(fault, Some(Fault::Fewer)) {
        results.pop();
    }
    Ok(BatchResponse { results })
}

/// `NewJWTSVID`.
pub(super) fn jwt(
    state: &mut State,
    caller: Option<&Caller>,
    request: JwtRequest,
) -> Answer<JwtResponse> {
    let agent = state.authorize(caller)?;
    let entries = state.authorized(&agent);
    let entry = entries.iter().find(|entry| entry.id == request.entry_id);
    let entry = entry.ok_or_else(|| Status::not_found("entry not found or not authorized"))?;
    if request.audience.is_empty() {
        let text = "at least one audience is required";
        return Err(Status::invalid_argument(text));
    }
    let ttl = match entry.jwt_svid_ttl {
        0 => time::Duration::minutes(5),
        seconds => time::Duration::seconds(seconds.into()),
    };
    let svid = state
        .authorities
        .token(&id_of(entry), &request.audience, ttl);
    Ok(JwtResponse { svid: Some(svid) })
}

/// `GetBundle`, for everybody.
pub(super) fn bundle(state: &mut State, _: Option<&Caller>, _: Empty) -> Answer<Bundle> {
    let mut bundle = state.authorities.bundle();
    match state.behaviour.faults.get("GetBundle") {
        Some(Fault::Fewer) => bundle.x509_authorities.clear(),
        Some(Fault::Forge(_)) => "other.example".clone_into(&mut bundle.trust_domain),
        _ => {}
    }
    Ok(bundle)
}

/// `GetFederatedBundle`.
pub(super) fn federated(
    state: &mut State,
    caller: Option<&Caller>,
    request: FederatedRequest,
) -> Answer<Bundle> {
    state.authorize(caller)?;
    let bundle = state.bundles.get(&request.trust_domain).cloned();
    bundle.ok_or_else(|| Status::not_found("bundle not found"))
}

fn signed(state: &State, entry: Option<&Entry>, params: &SvidParams) -> BatchResult {
    let failed = |code: Code, message: &str| BatchResult {
        status: Some(ItemStatus {
            code: code as i32,
            message: message.to_owned(),
        }),
        svid: None,
    };
    let Some(entry) = entry else {
        return failed(Code::NotFound, "entry not found or not authorized");
    };
    let ttl = match entry.x509_svid_ttl {
        0 => state.options.svid_ttl.try_into().expect("a short time"),
        seconds => time::Duration::seconds(seconds.into()),
    };
    let leaf = Leaf {
        spiffe_id: &id_of(entry),
        dns_names: &entry.dns_names,
        ttl,
    };
    let fault = state.behaviour.faults.get("BatchNewX509SVID").copied();
    let forgery = fault.and_then(Fault::forgery);
    match state.authorities.sign(&params.csr, &leaf, forgery) {
        Ok((svid, _)) => BatchResult {
            status: Some(ItemStatus::default()),
            svid: Some(svid),
        },
        Err(error) => failed(Code::InvalidArgument, &format!("malformed CSR: {error}")),
    }
}

fn id_of(entry: &Entry) -> String {
    let id = entry.spiffe_id.as_ref().expect("every entry has one");
    format!("spiffe://{}{}", id.trust_domain, id.path)
}
