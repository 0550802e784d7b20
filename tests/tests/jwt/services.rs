//! Health and reflection on the Workload API's socket.

use std::collections::BTreeSet;

use sidegate_tests::Sidegate;
use tonic::Code;

use super::NO_ARGUMENTS;
use super::raw::{
    HEADER, HealthRequest, HealthResponse, ReflectionRequest, ReflectionResponse, call,
};
use crate::support::folder;

const CHECK: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

#[tokio::test]
async fn health_is_serving_for_all_and_for_the_workload_api() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let cases = [
        ("", Ok(1)),
        ("SpiffeWorkloadAPI", Ok(1)),
        ("nothing", Err(Code::NotFound)),
    ];
    for (service, expected) in cases {
        // Those who ask for health do not know of the security header.
        for header in [None, HEADER] {
            let request = HealthRequest {
                service: service.to_owned(),
            };
            let answer =
                call::<_, HealthResponse>(&gate.ready.workload_socket, CHECK, header, request)
                    .await
                    .map(|response| response.status)
                    .map_err(|status| status.code());
            assert_eq!(answer, expected, "{service:?} {header:?}");
        }
    }
}

#[tokio::test]
async fn reflection_lists_the_services_and_describes_the_workload_api() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let socket = &gate.ready.workload_socket;
    let list = ReflectionRequest {
        list_services: Some(String::new()),
        file_containing_symbol: None,
    };
    let answer: ReflectionResponse = call(socket, REFLECTION, None, list)
        .await
        .expect("it is answered");
    let services: BTreeSet<_> = answer
        .services
        .expect("a list")
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    assert!(services.contains("SpiffeWorkloadAPI"), "{services:?}");

    let describe = ReflectionRequest {
        list_services: None,
        file_containing_symbol: Some("SpiffeWorkloadAPI".to_owned()),
    };
    let answer: ReflectionResponse = call(socket, REFLECTION, None, describe)
        .await
        .expect("it is answered");
    let files = answer.files.expect("files").file;
    let text: String = files
        .iter()
        .map(|file| String::from_utf8_lossy(file))
        .collect();
    for method in [
        "FetchX509SVID",
        "FetchX509Bundles",
        "FetchJWTSVID",
        "ValidateJWTSVID",
    ] {
        assert!(text.contains(method), "{method}");
    }
}
