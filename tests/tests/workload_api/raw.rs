//! Calls on the Workload API's socket without a SPIFFE library in between, to do what none does.

use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::timeout;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// Any request of the Workload API: what a method does not know, it ignores.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AnyRequest {
    #[prost(string, repeated, tag = "1")]
    pub(crate) audience: Vec<String>,
}

/// Any response: it came, and that is what counts.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AnyResponse {}

/// `envoy.service.discovery.v3.DiscoveryRequest`, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DiscoveryRequest {
    #[prost(string, tag = "1")]
    pub(crate) version_info: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) resource_names: Vec<String>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) response_nonce: String,
}

/// `envoy.service.discovery.v3.DiscoveryResponse`, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DiscoveryResponse {
    #[prost(string, tag = "1")]
    pub(crate) version_info: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) resources: Vec<Resource>,
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Resource {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `envoy.extensions.transport_sockets.tls.v3.Secret`, but for what is secret.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Secret {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

/// A method of the Workload API, up to its first response. `security_header` is the value of
/// `workload.spiffe.io`, if there is to be one.
pub(crate) async fn first_response(
    socket: &str,
    method: &str,
    security_header: Option<&'static str>,
) -> Result<AnyResponse, Status> {
    let mut request = Request::new(AnyRequest {
        audience: vec!["someone".to_owned()],
    });
    if let Some(value) = security_header {
        let metadata = request.metadata_mut();
        metadata.insert("workload.spiffe.io", value.parse().expect("it is ASCII"));
    }
    let path = path(&format!("/SpiffeWorkloadAPI/{method}"));
    let mut grpc = grpc(socket).await;
    let codec = ProstCodec::<AnyRequest, AnyResponse>::default();
    // A response that is one only looks like a stream of one.
    let call = async {
        let response = grpc.server_streaming(request, path, codec).await?;
        let first = response.into_inner().message().await?;
        first.ok_or_else(|| Status::unknown("the stream ended without a response"))
    };
    timeout(Duration::from_secs(30), call)
        .await
        .expect("a first response comes at once")
}

/// A stream of secrets.
pub(crate) async fn stream_secrets(
    socket: &str,
    requests: impl Stream<Item = DiscoveryRequest> + Send + 'static,
) -> Result<Streaming<DiscoveryResponse>, Status> {
    let path = path("/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets");
    let codec = ProstCodec::<DiscoveryRequest, DiscoveryResponse>::default();
    let mut grpc = grpc(socket).await;
    let response = grpc.streaming(Request::new(requests), path, codec).await?;
    Ok(response.into_inner())
}

/// Where requests of a stream are put in one by one.
pub(crate) fn requests() -> (
    tokio::sync::mpsc::Sender<DiscoveryRequest>,
    ReceiverStream<DiscoveryRequest>,
) {
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    (sender, ReceiverStream::new(receiver))
}

fn path(path: &str) -> PathAndQuery {
    path.parse().expect("a path")
}

async fn grpc(socket: &str) -> Grpc<Channel> {
    let endpoint = Endpoint::from_shared(socket.to_owned()).expect("a socket's address");
    let channel = endpoint.connect().await.expect("the socket is there");
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("the channel is ready");
    grpc
}
