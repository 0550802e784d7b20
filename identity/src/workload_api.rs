//! The SPIFFE Workload API server (SPIFFE_Workload_API.md), X.509 profile.
//!
//! Every message is the caller's full state. A stream stays open and a message follows each change
//! that concerns the caller; when nothing is left for it, the stream ends with `PermissionDenied`.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{debug, info};

use crate::attestation::{Caller, UnixAttestor};
use crate::metrics::IdentityMetrics;
use crate::selector::Selector;
use crate::svid::{Identities, Issued};
use proto::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use proto::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest,
    X509svidResponse,
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

/// Clients match this text (rust-spiffe does), so it is part of the interface.
const NO_IDENTITY: &str = "no identity issued";

/// Serves a source's identities to attested callers.
pub struct WorkloadApi {
    identities: watch::Receiver<Arc<Identities>>,
    attestor: UnixAttestor,
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
    /// A profile that this server does not offer.
    #[error("the JWT-SVID profile is not offered")]
    ProfileNotOffered,
}

impl From<WorkloadApiError> for Status {
    fn from(error: WorkloadApiError) -> Self {
        let message = error.to_string();
        match error {
            WorkloadApiError::SecurityHeaderMissing => Self::invalid_argument(message),
            WorkloadApiError::AttestationFailed => Self::unavailable(message),
            WorkloadApiError::NoIdentity => Self::permission_denied(message),
            WorkloadApiError::ProfileNotOffered => Self::unimplemented(message),
        }
    }
}

impl WorkloadApi {
    /// The gRPC service, to be mounted on the attested socket.
    pub fn service(
        identities: watch::Receiver<Arc<Identities>>,
        attestor: UnixAttestor,
        metrics: IdentityMetrics,
    ) -> SpiffeWorkloadApiServer<Self> {
        SpiffeWorkloadApiServer::new(Self {
            identities,
            attestor,
            metrics,
        })
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
            let version: Vec<_> = entitled
                .iter()
                .map(|issued| issued.svid.chain().to_vec())
                .chain(
                    identities
                        .bundles
                        .values()
                        .map(|bundle| bundle.roots().to_vec()),
                )
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
            identities.entitled(&selectors).next()?;
            let bundles: HashMap<_, _> = identities
                .bundles
                .iter()
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
        _: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        Err(WorkloadApiError::ProfileNotOffered.into())
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Err(WorkloadApiError::ProfileNotOffered.into())
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        Err(WorkloadApiError::ProfileNotOffered.into())
    }
}

fn svid_response(identities: &Identities, entitled: &[&Issued]) -> X509svidResponse {
    let own_bundle = identities
        .own_bundle()
        .map(|bundle| concatenated(bundle.roots()));
    let own_bundle = own_bundle.unwrap_or_default();
    let mut hints = Vec::new();
    let svids = entitled
        .iter()
        .map(|issued| {
            // A hint counts once in a response: the first entry keeps it.
            let hint = issued.entry.hint();
            let hint = if hints.contains(&hint) { "" } else { hint };
            hints.push(hint);
            X509svid {
                spiffe_id: issued.svid.id().to_string(),
                x509_svid: concatenated(issued.svid.chain()),
                x509_svid_key: issued.svid.key().to_vec(),
                bundle: own_bundle.clone(),
                hint: hint.to_owned(),
            }
        })
        .collect();
    let foreign = identities
        .bundles
        .iter()
        .filter(|(trust_domain, _)| **trust_domain != identities.trust_domain);
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
