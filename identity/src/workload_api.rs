//! The SPIFFE Workload API server (SPIFFE_Workload_API.md), X.509 and JWT profiles.
//!
//! Every message is the caller's full state. A stream stays open and a message follows each change
//! that concerns the caller; when nothing is left for it, the stream ends with `PermissionDenied`.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use spiffe::{SpiffeId, TrustDomain};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{debug, error, info};

use crate::attestation::{Caller, UnixAttestor};
use crate::clock::Clock;
use crate::jwt::{self, JwtCache};
use crate::metrics::IdentityMetrics;
use crate::selector::Selector;
use crate::source::Issuer;
use crate::svid::{Identities, Issued};
use proto::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use proto::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse,
    ValidateJwtsvidRequest, ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse,
    X509svid, X509svidRequest, X509svidResponse,
};

#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::clone_on_ref_ptr,
    clippy::default_trait_access,
    reason = "generated code"
)]
mod proto {
    tonic::include_proto!("_");
}

mod claims;

/// The descriptors of the API, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/workload.bin"));

/// The largest request is a token with its audience.
const MAX_REQUEST: usize = 64 * 1024;

/// Clients match this text (rust-spiffe does), so it is part of the interface.
const NO_IDENTITY: &str = "no identity issued";

/// Serves a source's identities to attested callers.
pub struct WorkloadApi {
    identities: watch::Receiver<Arc<Identities>>,
    issuer: Arc<dyn Issuer>,
    tokens: JwtCache,
    attestor: UnixAttestor,
    clock: Arc<dyn Clock>,
    metrics: IdentityMetrics,
}

/// What a call says when it is turned away.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadApiError {
    /// The security header is missing (SPIFFE_Workload_Endpoint.md section 5.3).
    #[error("security header missing from request")]
    SecurityHeaderMissing,
    /// It could not be found out who calls.
    #[error("workload attestation failed")]
    AttestationFailed,
    /// The caller matches no entry.
    #[error("{NO_IDENTITY}")]
    NoIdentity,
    /// The request lacks something, or has something that cannot be read.
    #[error("{0}")]
    BadRequest(String),
    /// The caller's entries do not allow the audience.
    #[error("no entry allows a JWT-SVID for this audience")]
    AudienceNotAllowed,
    /// A token cannot be signed now.
    #[error("a JWT-SVID cannot be signed now")]
    CannotSign,
}

impl From<WorkloadApiError> for Status {
    fn from(error: WorkloadApiError) -> Self {
        let message = error.to_string();
        match error {
            WorkloadApiError::SecurityHeaderMissing => Self::invalid_argument(message),
            WorkloadApiError::BadRequest(_) => Self::invalid_argument(message),
            WorkloadApiError::AttestationFailed | WorkloadApiError::CannotSign => {
                Self::unavailable(message)
            }
            WorkloadApiError::NoIdentity | WorkloadApiError::AudienceNotAllowed => {
                Self::permission_denied(message)
            }
        }
    }
}

impl WorkloadApi {
    /// The gRPC service, to be mounted on the attested socket.
    pub fn service(
        identities: watch::Receiver<Arc<Identities>>,
        issuer: Arc<dyn Issuer>,
        attestor: UnixAttestor,
        clock: Arc<dyn Clock>,
        metrics: IdentityMetrics,
    ) -> SpiffeWorkloadApiServer<Self> {
        SpiffeWorkloadApiServer::new(Self {
            identities,
            issuer,
            tokens: JwtCache::default(),
            attestor,
            clock,
            metrics,
        })
        .max_decoding_message_size(MAX_REQUEST)
    }

    /// A token for each of the caller's IDs, or for the one that it asks for.
    fn tokens(
        &self,
        request: &JwtsvidRequest,
        selectors: &[Selector],
    ) -> Result<Vec<Jwtsvid>, WorkloadApiError> {
        let bad = |text: &str| WorkloadApiError::BadRequest(text.to_owned());
        if request.audience.is_empty() || request.audience.iter().any(String::is_empty) {
            return Err(bad("audience must be specified"));
        }
        let wanted = match request.spiffe_id.as_str() {
            "" => None,
            id => Some(SpiffeId::new(id).map_err(|_| bad("spiffe_id is not a SPIFFE ID"))?),
        };
        let identities = Arc::clone(&self.identities.borrow());
        let bundle = identities.jwt_bundles.get(&identities.trust_domain);
        let bundle = bundle.ok_or(WorkloadApiError::CannotSign)?;
        let entitled: Vec<_> = identities
            .entitled(selectors)
            .filter(|issued| {
                wanted
                    .as_ref()
                    .is_none_or(|id| id == issued.entry.spiffe_id())
            })
            .collect();
        if entitled.is_empty() {
            return Err(WorkloadApiError::NoIdentity);
        }
        let now = self.clock.now();
        let mut hints = Hints::default();
        let tokens = entitled
            .iter()
            .filter(|issued| issued.entry.allows(&request.audience))
            .map(|issued| {
                let (entry, audience) = (&issued.entry, &request.audience);
                let mint = || self.issuer.mint_jwt(entry, audience, now);
                let svid = self
                    .tokens
                    .get(entry, audience, bundle, now, mint)
                    .map_err(|error| {
                        error!(code = error.code(), %error, "a JWT-SVID is not signed");
                        WorkloadApiError::CannotSign
                    })?;
                Ok(Jwtsvid {
                    spiffe_id: entry.spiffe_id().to_string(),
                    svid: svid.token.to_string(),
                    hint: hints.take(entry.hint()),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if tokens.is_empty() {
            return Err(WorkloadApiError::AudienceNotAllowed);
        }
        Ok(tokens)
    }

    async fn attest<T>(&self, request: &Request<T>) -> Result<Vec<Selector>, WorkloadApiError> {
        let header = request.metadata().get("workload.spiffe.io");
        if header.is_none_or(|value| value != "true") {
            return Err(WorkloadApiError::SecurityHeaderMissing);
        }
        let caller = request
            .extensions()
            .get::<Caller>()
            .ok_or(WorkloadApiError::AttestationFailed)?;
        self.attestor.attest(caller).await.map_err(|error| {
            info!(code = "SG0130", pid = caller.pid(), %error, "a workload is not attested");
            WorkloadApiError::AttestationFailed
        })
    }

    /// Sends `project`'s view now and after each change of it, until there is none.
    fn stream<T, V>(
        &self,
        method: &'static str,
        project: impl Fn(&Identities) -> Option<(V, T)> + Send + 'static,
    ) -> Result<Response<ResponseStream<T>>, Status>
    where
        T: Send + 'static,
        V: PartialEq + Send + 'static,
    {
        let mut identities = self.identities.clone();
        let first = project(&identities.borrow_and_update());
        let Some((mut version, first)) = first else {
            debug!(method, "a workload without an entry is turned away");
            return Err(WorkloadApiError::NoIdentity.into());
        };
        let (sender, receiver) = mpsc::channel(1);
        let guard = self.metrics.stream(method);
        tokio::spawn(async move {
            let _open = guard;
            let mut next = Ok(first);
            loop {
                let last = next.is_err();
                if sender.send(next).await.is_err() || last {
                    return;
                }
                next = loop {
                    tokio::select! {
                        () = sender.closed() => return,
                        changed = identities.changed() => if changed.is_err() { return },
                    }
                    match project(&identities.borrow_and_update()) {
                        Some((seen, _)) if seen == version => {}
                        Some((seen, message)) => {
                            version = seen;
                            break Ok(message);
                        }
                        None => break Err(WorkloadApiError::NoIdentity.into()),
                    }
                };
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = ResponseStream<X509svidResponse>;
    type FetchX509BundlesStream = ResponseStream<X509BundlesResponse>;
    type FetchJWTBundlesStream = ResponseStream<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let selectors = self.attest(&request).await?;
        self.stream("FetchX509SVID", move |identities| {
            let entitled: Vec<_> = identities.entitled(&selectors).collect();
            if entitled.is_empty() {
                return None;
            }
            let trusted = identities.trusted_by(entitled.iter().copied());
            let roots = trusted
                .iter()
                .filter_map(|trust_domain| identities.bundles.get(*trust_domain));
            let version: Vec<_> = entitled
                .iter()
                .map(|issued| issued.svid.chain().to_vec())
                .chain(roots.map(|bundle| bundle.roots().to_vec()))
                .collect();
            Some((version, svid_response(identities, &entitled)))
        })
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let selectors = self.attest(&request).await?;
        self.stream("FetchX509Bundles", move |identities| {
            let trusted = trusted(identities, &selectors)?;
            let bundles: HashMap<_, _> = identities
                .bundles
                .iter()
                .filter(|(trust_domain, _)| trusted.contains(trust_domain))
                .map(|(trust_domain, bundle)| {
                    (trust_domain.id_string(), concatenated(bundle.roots()))
                })
                .collect();
            let crl = Vec::new();
            Some((bundles.clone(), X509BundlesResponse { crl, bundles }))
        })
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        let selectors = self.attest(&request).await?;
        let svids = self.tokens(request.get_ref(), &selectors)?;
        Ok(Response::new(JwtsvidResponse { svids }))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let selectors = self.attest(&request).await?;
        self.stream("FetchJWTBundles", move |identities| {
            let trusted = trusted(identities, &selectors)?;
            let bundles: HashMap<_, _> = identities
                .jwt_bundles
                .iter()
                .filter(|(trust_domain, _)| trusted.contains(trust_domain))
                .map(|(trust_domain, bundle)| {
                    (trust_domain.id_string(), bundle.jwks().as_bytes().to_vec())
                })
                .collect();
            Some((bundles.clone(), JwtBundlesResponse { bundles }))
        })
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let selectors = self.attest(&request).await?;
        let identities = Arc::clone(&self.identities.borrow());
        let trusted = trusted(&identities, &selectors).ok_or(WorkloadApiError::NoIdentity)?;
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        if audience.is_empty() || svid.is_empty() {
            let text = "audience and svid must be specified".to_owned();
            return Err(WorkloadApiError::BadRequest(text).into());
        }
        let own = &identities.trust_domain;
        let bundles = identities.jwt_bundles.iter();
        let bundles = bundles
            .filter(|(trust_domain, _)| trusted.contains(trust_domain))
            .map(|(trust_domain, bundle)| (trust_domain.clone(), Arc::clone(bundle)))
            .collect();
        let valid = jwt::validate(&svid, &audience, &bundles, own)
            .map_err(|error| WorkloadApiError::BadRequest(error.to_string()))?;
        Ok(Response::new(ValidateJwtsvidResponse {
            spiffe_id: valid.spiffe_id.to_string(),
            claims: Some(claims::to_struct(&valid.claims)),
        }))
    }
}

/// The hints of one response. Each counts once: the first entry keeps it.
#[derive(Default)]
struct Hints<'a>(Vec<&'a str>);

impl<'a> Hints<'a> {
    fn take(&mut self, hint: &'a str) -> String {
        if self.0.contains(&hint) {
            return String::new();
        }
        self.0.push(hint);
        hint.to_owned()
    }
}

/// Whose bundles the caller may have; `None` where no entry is for it.
fn trusted<'a>(
    identities: &'a Identities,
    selectors: &'a [Selector],
) -> Option<BTreeSet<&'a TrustDomain>> {
    let mut entitled = identities.entitled(selectors).peekable();
    entitled.peek()?;
    Some(identities.trusted_by(entitled))
}

fn svid_response(identities: &Identities, entitled: &[&Issued]) -> X509svidResponse {
    let own_bundle = identities
        .own_bundle()
        .map(|bundle| concatenated(bundle.roots()));
    let own_bundle = own_bundle.unwrap_or_default();
    let mut hints = Hints::default();
    let svids = entitled
        .iter()
        .map(|issued| X509svid {
            spiffe_id: issued.svid.id().to_string(),
            x509_svid: concatenated(issued.svid.chain()),
            x509_svid_key: issued.svid.key().to_vec(),
            bundle: own_bundle.clone(),
            hint: hints.take(issued.entry.hint()),
        })
        .collect();
    let trusted = identities.trusted_by(entitled.iter().copied());
    let foreign = identities.bundles.iter().filter(|(trust_domain, _)| {
        **trust_domain != identities.trust_domain && trusted.contains(trust_domain)
    });
    X509svidResponse {
        svids,
        crl: Vec::new(),
        federated_bundles: foreign
            .map(|(trust_domain, bundle)| (trust_domain.id_string(), concatenated(bundle.roots())))
            .collect(),
    }
}

fn concatenated(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    certificates
        .iter()
        .flat_map(|der| der.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_stands_once_in_a_response() {
        let mut hints = Hints::default();
        let taken = ["a", "", "b", "a", ""].map(|hint| hints.take(hint));
        assert_eq!(taken, ["a", "", "b", "", ""]);
    }
}
