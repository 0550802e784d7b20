//! The SPIFFE Workload API server (SPIFFE_Workload_API.md), X.509 and JWT profiles.
//!
//! Every message is the caller's full state. A stream stays open and a message follows each change
//! that concerns the caller; when nothing is left for it, the stream ends with `PermissionDenied`.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use spiffe::{SpiffeId, TrustDomain};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use tracing::{debug, error, info};

use crate::attestation::{Caller, UnixAttestor};
use crate::clock::Clock;
use crate::jwt::{self, JwtBundle, JwtCache};
use crate::metrics::IdentityMetrics;
use crate::selector::Selector;
use crate::source::Issuer;
use crate::svid::{Identities, Issued, X509Bundle};
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
mod codec;

/// The descriptors of the API, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/workload.bin"));

/// The largest request is a token with its audience.
const MAX_REQUEST: usize = 64 * 1024;

/// Clients match this text (rust-spiffe does), so it is part of the interface.
const NO_IDENTITY: &str = "no identity issued";

/// Serves a source's identities to attested callers.
pub struct WorkloadApi {
    identities: watch::Receiver<Arc<Identities>>,
    /// `None` where the source cannot mint.
    issuer: Option<Arc<dyn Issuer>>,
    tokens: JwtCache,
    attestor: UnixAttestor,
    clock: Arc<dyn Clock>,
    metrics: IdentityMetrics,
}

/// What a stream's last message was made of. While it is the very same, nothing has changed.
#[derive(Default)]
struct Parts(Vec<Arc<dyn Any + Send + Sync>>);

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
    /// The caller's SVIDs are over, and could not be renewed in time.
    #[error("the X.509-SVIDs have expired and cannot be renewed now")]
    Expired,
    /// The source of identities signs nothing.
    #[error("the source of identities here cannot mint JWT-SVIDs")]
    CannotMint,
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
            WorkloadApiError::AttestationFailed
            | WorkloadApiError::Expired
            | WorkloadApiError::CannotSign => Self::unavailable(message),
            WorkloadApiError::CannotMint => Self::unimplemented(message),
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
        issuer: Option<Arc<dyn Issuer>>,
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
    async fn tokens(
        &self,
        request: &JwtsvidRequest,
        selectors: &[Selector],
    ) -> Result<Vec<Jwtsvid>, WorkloadApiError> {
        let issuer = self.issuer.as_ref().ok_or(WorkloadApiError::CannotMint)?;
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
        let audience = &request.audience;
        let mut hints = Hints::default();
        let mut tokens = Vec::new();
        for entry in entitled.iter().map(|issued| &issued.entry) {
            if !issuer.allows(entry, audience) {
                continue;
            }
            let mint = issuer.mint_jwt(entry, audience);
            let svid = self.tokens.get(entry, audience, bundle, now, mint).await;
            let svid = svid.map_err(|error| {
                let (code, error) = (error.code(), crate::chain(&error));
                error!(code, error, "a JWT-SVID is not signed");
                WorkloadApiError::CannotSign
            })?;
            tokens.push(Jwtsvid {
                spiffe_id: entry.spiffe_id().to_string(),
                svid: svid.token.to_string(),
                hint: hints.take(entry.hint()),
            });
        }
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

    /// Sends the caller's state now and after each change of `parts`, until there is none.
    fn stream<T: Send + 'static>(
        &self,
        method: &'static str,
        selectors: Vec<Selector>,
        parts: fn(&Identities, &[&Issued]) -> Parts,
        message: fn(&Identities, &[&Issued], SystemTime) -> Result<T, WorkloadApiError>,
    ) -> Result<Response<ResponseStream<T>>, Status> {
        let mut identities = self.identities.clone();
        let clock = Arc::clone(&self.clock);
        let mut sent = None;
        let mut next = move |identities: &Identities| {
            let entitled: Vec<_> = identities.entitled(&selectors).collect();
            if entitled.is_empty() {
                return Some(Err(WorkloadApiError::NoIdentity.into()));
            }
            let parts = Some(parts(identities, &entitled));
            if parts == sent {
                return None;
            }
            sent = parts;
            Some(message(identities, &entitled, clock.now()).map_err(Status::from))
        };
        let first = next(&identities.borrow_and_update());
        if let Some(Err(status)) = first {
            debug!(method, %status, "a workload is turned away");
            return Err(status);
        }
        let open = self.metrics.stream(method);
        // A response ends with the first error.
        let changes = WatchStream::from_changes(identities).filter_map(move |identities| {
            let _open = &open;
            next(&identities)
        });
        let stream = tokio_stream::iter(first).chain(changes);
        Ok(Response::new(Box::pin(stream)))
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
        let parts = |identities: &Identities, entitled: &[&Issued]| {
            Parts::default()
                .and(entitled.iter().map(|issued| &issued.entry))
                .and(entitled.iter().map(|issued| &issued.svid))
                .and(x509_bundles(identities, entitled).map(|(_, bundle)| bundle.shared_roots()))
        };
        self.stream("FetchX509SVID", selectors, parts, svid_response)
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let selectors = self.attest(&request).await?;
        let parts = |identities: &Identities, entitled: &[&Issued]| {
            Parts::default()
                .and(x509_bundles(identities, entitled).map(|(_, bundle)| bundle.shared_roots()))
        };
        self.stream(
            "FetchX509Bundles",
            selectors,
            parts,
            |identities, entitled, _| {
                let bundles = x509_bundles(identities, entitled);
                Ok(X509BundlesResponse {
                    crl: Vec::new(),
                    bundles: bundles
                        .map(|(name, bundle)| (name.id_string(), concatenated(bundle.roots())))
                        .collect(),
                })
            },
        )
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        let selectors = self.attest(&request).await?;
        let svids = self.tokens(request.get_ref(), &selectors).await?;
        Ok(Response::new(JwtsvidResponse { svids }))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let selectors = self.attest(&request).await?;
        let parts = |identities: &Identities, entitled: &[&Issued]| {
            Parts::default()
                .and(jwt_bundles(identities, entitled).map(|(_, bundle)| bundle.shared_jwks()))
        };
        self.stream(
            "FetchJWTBundles",
            selectors,
            parts,
            |identities, entitled, _| {
                let bundles = jwt_bundles(identities, entitled);
                Ok(JwtBundlesResponse {
                    bundles: bundles
                        .map(|(name, bundle)| (name.id_string(), bundle.jwks().as_bytes().to_vec()))
                        .collect(),
                })
            },
        )
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let selectors = self.attest(&request).await?;
        let identities = Arc::clone(&self.identities.borrow());
        let entitled: Vec<_> = identities.entitled(&selectors).collect();
        if entitled.is_empty() {
            return Err(WorkloadApiError::NoIdentity.into());
        }
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        if audience.is_empty() || svid.is_empty() {
            let text = "audience and svid must be specified".to_owned();
            return Err(WorkloadApiError::BadRequest(text).into());
        }
        let own = &identities.trust_domain;
        let bundles = jwt_bundles(&identities, &entitled)
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

impl Parts {
    fn and<'a, T: Send + Sync + 'static>(
        mut self,
        parts: impl IntoIterator<Item = &'a Arc<T>>,
    ) -> Self {
        for part in parts {
            self.0.push(Arc::<T>::clone(part));
        }
        self
    }
}

impl PartialEq for Parts {
    fn eq(&self, other: &Self) -> bool {
        let pairs = || self.0.iter().zip(&other.0);
        self.0.len() == other.0.len() && pairs().all(|(own, other)| Arc::ptr_eq(own, other))
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

/// The X.509 bundles that a caller with these entries may have.
fn x509_bundles<'a>(
    identities: &'a Identities,
    entitled: &[&'a Issued],
) -> impl Iterator<Item = (&'a TrustDomain, &'a Arc<X509Bundle>)> {
    let trusted = identities.trusted_by(entitled.iter().copied());
    let bundles = trusted.into_iter();
    bundles.filter_map(|name| identities.bundles.get_key_value(name))
}

/// The JWT bundles that a caller with these entries may have.
fn jwt_bundles<'a>(
    identities: &'a Identities,
    entitled: &[&'a Issued],
) -> impl Iterator<Item = (&'a TrustDomain, &'a Arc<JwtBundle>)> {
    let trusted = identities.trusted_by(entitled.iter().copied());
    let bundles = trusted.into_iter();
    bundles.filter_map(|name| identities.jwt_bundles.get_key_value(name))
}

/// What has expired is not handed out; of the caller's SVIDs that may leave some, or none.
fn svid_response(
    identities: &Identities,
    entitled: &[&Issued],
    now: SystemTime,
) -> Result<X509svidResponse, WorkloadApiError> {
    let own_bundle = identities
        .own_bundle()
        .map(|bundle| concatenated(bundle.roots()));
    let own_bundle = own_bundle.unwrap_or_default();
    let mut hints = Hints::default();
    let svids: Vec<_> = entitled
        .iter()
        .filter(|issued| now < issued.svid.validity().not_after)
        .map(|issued| X509svid {
            spiffe_id: issued.svid.id().to_string(),
            x509_svid: concatenated(issued.svid.chain()),
            x509_svid_key: issued.svid.key().to_vec(),
            bundle: own_bundle.clone(),
            hint: hints.take(issued.entry.hint()),
        })
        .collect();
    if svids.is_empty() {
        return Err(WorkloadApiError::Expired);
    }
    let federated = x509_bundles(identities, entitled)
        .filter(|(trust_domain, _)| **trust_domain != identities.trust_domain);
    Ok(X509svidResponse {
        svids,
        crl: Vec::new(),
        federated_bundles: federated
            .map(|(trust_domain, bundle)| (trust_domain.id_string(), concatenated(bundle.roots())))
            .collect(),
    })
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
