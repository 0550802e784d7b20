//! Calls on the socket by bare gRPC: the JWT profile, health and reflection.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// The security header as it must be.
pub(crate) const HEADER: Option<&str> = Some("true");

/// `JWTSVIDRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FetchRequest {
    #[prost(string, repeated, tag = "1")]
    pub(crate) audience: Vec<String>,
    #[prost(string, tag = "2")]
    pub(crate) spiffe_id: String,
}

/// `JWTSVIDResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FetchResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) svids: Vec<Svid>,
}

/// `JWTSVID`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Svid {
    #[prost(string, tag = "1")]
    pub(crate) spiffe_id: String,
    #[prost(string, tag = "2")]
    pub(crate) svid: String,
}

/// `JWTBundlesResponse`: JWKS documents by trust domain.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Bundles {
    #[prost(btree_map = "string, bytes", tag = "1")]
    pub(crate) bundles: BTreeMap<String, Vec<u8>>,
}

/// `ValidateJWTSVIDRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ValidateRequest {
    #[prost(string, tag = "1")]
    pub(crate) audience: String,
    #[prost(string, tag = "2")]
    pub(crate) svid: String,
}

/// `ValidateJWTSVIDResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ValidateResponse {
    #[prost(string, tag = "1")]
    pub(crate) spiffe_id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) claims: Option<Claims>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Claims {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) fields: BTreeMap<String, Value>,
}

/// `google.protobuf.Value`, as far as claims are such values.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Value {
    #[prost(double, optional, tag = "2")]
    pub(crate) number: Option<f64>,
    #[prost(string, optional, tag = "3")]
    pub(crate) text: Option<String>,
    #[prost(message, optional, tag = "6")]
    pub(crate) list: Option<List>,
}

/// `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct List {
    #[prost(message, repeated, tag = "1")]
    pub(crate) values: Vec<Value>,
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HealthRequest {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
}

/// `grpc.health.v1.HealthCheckResponse`: 1 is SERVING.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HealthResponse {
    #[prost(int32, tag = "1")]
    pub(crate) status: i32,
}

/// `grpc.reflection.v1.ServerReflectionRequest`, asking one of two questions.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReflectionRequest {
    #[prost(string, optional, tag = "4")]
    pub(crate) file_containing_symbol: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub(crate) list_services: Option<String>,
}

/// `grpc.reflection.v1.ServerReflectionResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReflectionResponse {
    #[prost(message, optional, tag = "4")]
    pub(crate) files: Option<Files>,
    #[prost(message, optional, tag = "6")]
    pub(crate) services: Option<Services>,
}

/// `grpc.reflection.v1.FileDescriptorResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(crate) file: Vec<Vec<u8>>,
}

/// `grpc.reflection.v1.ListServiceResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Services {
    #[prost(message, repeated, tag = "1")]
    pub(crate) service: Vec<Service>,
}

/// `grpc.reflection.v1.ServiceResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Service {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

/// Calls a method, up to its first response: what is one response only looks like a stream of one.
/// `header` is the value of `workload.spiffe.io`, if there is to be one.
pub(crate) async fn call<Question, Answer>(
    socket: &str,
    method: &str,
    header: Option<&'static str>,
    question: Question,
) -> Result<Answer, Status>
where
    Question: prost::Message + Clone + 'static,
    Answer: prost::Message + Default + 'static,
{
    let endpoint = Endpoint::from_shared(socket.to_owned()).expect("a socket's address");
    let channel = endpoint.connect().await.expect("the socket is there");
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("the channel is ready");
    // A request that is one likewise.
    let mut request = Request::new(tokio_stream::iter([question]));
    if let Some(value) = header {
        request
            .metadata_mut()
            .insert("workload.spiffe.io", value.parse().expect("it is ASCII"));
    }
    let path = method.parse().expect("a path");
    let codec = ProstCodec::<Question, Answer>::default();
    let call = async {
        let mut responses = grpc.streaming(request, path, codec).await?.into_inner();
        let first = responses.message().await?;
        first.ok_or_else(|| Status::unknown("the stream ended without a response"))
    };
    timeout(Duration::from_secs(30), call)
        .await
        .expect("a first response comes at once")
}

/// `FetchJWTSVID` for audiences and a SPIFFE ID, or an empty one.
pub(crate) async fn fetch(
    socket: &str,
    audience: &[&str],
    spiffe_id: &str,
) -> Result<Vec<Svid>, Status> {
    let request = FetchRequest {
        audience: audience.iter().map(|&text| text.to_owned()).collect(),
        spiffe_id: spiffe_id.to_owned(),
    };
    let response: FetchResponse =
        call(socket, "/SpiffeWorkloadAPI/FetchJWTSVID", HEADER, request).await?;
    Ok(response.svids)
}

/// `FetchJWTSVID` of the only SVID there is.
pub(crate) async fn fetch_one(socket: &str, audience: &[&str]) -> Svid {
    let svids = fetch(socket, audience, "").await.expect("it is allowed");
    let [svid] = <[Svid; 1]>::try_from(svids).expect("there is one");
    svid
}

/// `ValidateJWTSVID`.
pub(crate) async fn validate(
    socket: &str,
    audience: &str,
    svid: &str,
) -> Result<ValidateResponse, Status> {
    let request = ValidateRequest {
        audience: audience.to_owned(),
        svid: svid.to_owned(),
    };
    call(
        socket,
        "/SpiffeWorkloadAPI/ValidateJWTSVID",
        HEADER,
        request,
    )
    .await
}

/// The JWKS of `sidegate.local`, the only one.
pub(crate) async fn jwks(socket: &str) -> serde_json::Value {
    let method = "/SpiffeWorkloadAPI/FetchJWTBundles";
    let response: Bundles = call(socket, method, HEADER, FetchRequest::default())
        .await
        .expect("there are bundles");
    let [(domain, jwks)] = <[_; 1]>::try_from(Vec::from_iter(response.bundles)).expect("one");
    assert_eq!(domain, "spiffe://sidegate.local");
    serde_json::from_slice(&jwks).expect("it is JSON")
}
