//! What is served on the Workload API's socket: the API itself, Envoy's SDS, and what gRPC clients
//! expect of any server.

use std::sync::Arc;

use sidegate_identity::attestation::UnixListenerStream;
use sidegate_identity::clock::Clock;
use sidegate_identity::svid::Identities;
use sidegate_identity::workload_api::{FILE_DESCRIPTOR_SET, WorkloadApi};
use sidegate_xds::sds::SecretDiscovery;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::identity::IdentityPlane;

/// Serves until told to stop.
pub(super) async fn serve(
    plane: IdentityPlane,
    identities: watch::Receiver<Arc<Identities>>,
    clock: Arc<dyn Clock>,
    incoming: UnixListenerStream,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let workload_api = WorkloadApi::service(
        identities.clone(),
        plane.source.issuer(),
        plane.attestor.clone(),
        clock,
        plane.metrics.clone(),
    );
    let secrets = SecretDiscovery::service(identities, plane.attestor, plane.metrics);
    let serving = tonic_health::ServingStatus::Serving;
    reporter
        .set_service_status("SpiffeWorkloadAPI", serving)
        .await;
    Server::builder()
        .add_service(workload_api)
        .add_service(secrets)
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await?;
    Ok(())
}
