//! Envoy's Secret Discovery Service v3, state of the world, with the names that SPIRE uses.
//!
//! One stream's life: the caller is attested when it opens; each request subscribes to names; each
//! name that the caller may have is answered, and answered again whenever its secret changes. A
//! name that the caller may not have is left unanswered: an error would end the stream for the
//! other names too.

mod secrets;
mod subscription;

use std::pin::Pin;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use sidegate_identity::attestation::{Caller, UnixAttestor};
use sidegate_identity::metrics::IdentityMetrics;
use sidegate_identity::selector::Selector;
use sidegate_identity::svid::Identities;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use subscription::Subscription;

/// A request with Envoy's node metadata is far smaller.
const MAX_REQUEST: usize = 1024 * 1024;

/// Serves a source's SVIDs and bundles to attested Envoys.
pub struct SecretDiscovery {
    identities: watch::Receiver<Arc<Identities>>,
    attestor: UnixAttestor,
    metrics: IdentityMetrics,
}

/// Why a caller gets nothing.
#[derive(Debug, thiserror::Error)]
enum SdsError {
    #[error("workload attestation failed")]
    AttestationFailed,
    #[error("no identity issued")]
    NoIdentity,
    #[error("delta SDS is not offered; use api_type: GRPC")]
    DeltaNotOffered,
}

impl From<SdsError> for Status {
    fn from(error: SdsError) -> Self {
        let message = error.to_string();
        match error {
            SdsError::AttestationFailed => Self::unavailable(message),
            SdsError::NoIdentity => Self::permission_denied(message),
            SdsError::DeltaNotOffered => Self::unimplemented(message),
        }
    }
}

impl SecretDiscovery {
    /// The gRPC service, to be mounted on the attested socket.
    pub fn service(
        identities: watch::Receiver<Arc<Identities>>,
        attestor: UnixAttestor,
        metrics: IdentityMetrics,
    ) -> SecretDiscoveryServiceServer<Self> {
        SecretDiscoveryServiceServer::new(Self {
            identities,
            attestor,
            metrics,
        })
        .max_decoding_message_size(MAX_REQUEST)
    }

    /// The caller's selectors, if they give it any identity.
    async fn admit<T>(&self, request: &Request<T>) -> Result<Vec<Selector>, SdsError> {
        let caller = request
            .extensions()
            .get::<Caller>()
            .ok_or(SdsError::AttestationFailed)?;
        let selectors = self.attestor.attest(caller).await.map_err(|error| {
            info!(code = "SG0130", pid = caller.pid(), %error, "an SDS client is not attested");
            SdsError::AttestationFailed
        })?;
        if self
            .identities
            .borrow()
            .entitled(&selectors)
            .next()
            .is_none()
        {
            debug!(
                pid = caller.pid(),
                "an SDS client without an entry is turned away"
            );
            return Err(SdsError::NoIdentity);
        }
        Ok(selectors)
    }
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for SecretDiscovery {
    type DeltaSecretsStream = ResponseStream<DeltaDiscoveryResponse>;
    type StreamSecretsStream = ResponseStream<DiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let selectors = self.admit(&request).await?;
        let (sender, receiver) = mpsc::channel(1);
        let guard = self.metrics.stream("StreamSecrets");
        let identities = self.identities.clone();
        tokio::spawn(async move {
            let _open = guard;
            serve(request.into_inner(), identities, &selectors, sender).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let selectors = self.admit(&request).await?;
        let mut subscription = Subscription::default();
        subscription.receive(request.into_inner());
        let identities = Arc::clone(&self.identities.borrow());
        let response = subscription.respond(&identities, &selectors);
        Ok(Response::new(response.unwrap_or_default()))
    }

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(SdsError::DeltaNotOffered.into())
    }
}

/// Answers one stream until either side ends it.
async fn serve(
    mut requests: Streaming<DiscoveryRequest>,
    mut identities: watch::Receiver<Arc<Identities>>,
    selectors: &[Selector],
    responses: mpsc::Sender<Result<DiscoveryResponse, Status>>,
) {
    let mut subscription = Subscription::default();
    loop {
        tokio::select! {
            request = requests.next() => match request {
                Some(Ok(request)) => subscription.receive(request),
                Some(Err(_)) | None => return,
            },
            changed = identities.changed() => if changed.is_err() { return },
            () = responses.closed() => return,
        }
        let newest = Arc::clone(&identities.borrow_and_update());
        if let Some(response) = subscription.respond(&newest, selectors)
            && responses.send(Ok(response)).await.is_err()
        {
            return;
        }
    }
}
