//! The `egress` decision point: may this workload send this request there?
//!
//! It answers as `ingress` does, and its edits are carried out on the request
//! that is sent.

use std::net::SocketAddr;

use http::request::Parts;
use regorus::Value;

use crate::denial::{Denial, DenialReason};
use crate::evaluator::Evaluator;
use crate::input::{InputError, Members, headers, lists, set_string, socket_address, url};
use crate::permit::Permit;

/// A workload that sends requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its own SPIFFE ID, if it has one.
    pub principal: Option<String>,
    /// What is known of it, as registration entries name it:
    /// `component:digest:sha256:…`, `unix:uid:1000`.
    pub selectors: Vec<String>,
}

/// A request that a workload wants to send.
#[derive(Debug)]
pub struct EgressRequest {
    /// The head, with a target in origin form: what is decided is what is sent.
    pub head: Parts,
    /// `http` or `https`, as the workload means it.
    pub scheme: String,
    /// The authority that the request is for.
    pub host: String,
    /// The address that it would go to, once the host is resolved.
    pub address: Option<SocketAddr>,
    /// The SPIFFE ID that the peer there must show, if it is in the mesh.
    pub principal: Option<String>,
}

impl Evaluator {
    /// Asks the policy about a request that a workload wants to send. The
    /// policy was loaded with the entrypoint of
    /// [`Egress`](crate::DecisionPoint::Egress).
    ///
    /// # Errors
    ///
    /// A [`Denial`] whenever the policy does not clearly allow it.
    pub fn egress(
        &mut self,
        workload: &Workload,
        request: EgressRequest,
    ) -> Result<Permit, Box<Denial>> {
        let document = document(workload, &request).map_err(DenialReason::MalformedRequest);
        self.decide_by(document, request.head)
    }
}

/// The input document.
fn document(workload: &Workload, request: &EgressRequest) -> Result<Value, InputError> {
    let target = request.head.uri.path_and_query();
    let target = target.map_or("", |target| target.as_str());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let segments = url::path_segments(path).map_err(|_| InputError::Path)?;
    let pairs = url::query_pairs(query).map_err(|_| InputError::Query)?;
    let principal = workload.principal.as_deref().unwrap_or_default();

    let mut source = Members::new();
    set_string(&mut source, &"principal".into(), principal);
    let mut destination = Members::new();
    if let Some(address) = request.address {
        destination.insert("address".into(), socket_address(address));
    }
    let peer = request.principal.as_deref().unwrap_or_default();
    set_string(&mut destination, &"principal".into(), peer);

    let mut http = Members::new();
    for (key, value) in [
        ("method", request.head.method.as_str()),
        ("scheme", &request.scheme),
        ("host", &request.host),
        ("path", target),
    ] {
        set_string(&mut http, &key.into(), value);
    }
    http.insert(
        "headers".into(),
        Value::from(headers(&request.head.headers)?),
    );
    let request = Members::from([("http".into(), Value::from(http))]);
    let attributes = Members::from([
        ("source".into(), Value::from(source)),
        ("destination".into(), Value::from(destination)),
        ("request".into(), Value::from(request)),
    ]);
    let selectors = workload.selectors.iter();
    let selectors: Vec<Value> = selectors.map(|name| name.as_str().into()).collect();
    let workload = Members::from([("selectors".into(), Value::from(selectors))]);
    let segments: Vec<Value> = segments.into_iter().map(Value::from).collect();
    let mut document = Members::from([
        ("attributes".into(), Value::from(attributes)),
        ("parsed_path".into(), Value::from(segments)),
        ("parsed_query".into(), lists(pairs)),
        ("workload".into(), Value::from(workload)),
    ]);
    set_string(&mut document, &"source_principal".into(), principal);
    Ok(Value::from(document))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_schemas::schema;

    fn request(builder: http::request::Builder) -> EgressRequest {
        EgressRequest {
            head: builder.body(()).unwrap().into_parts().0,
            scheme: "https".into(),
            host: "api.example".into(),
            address: None,
            principal: None,
        }
    }

    #[test]
    fn the_document_is_the_one_of_its_schema() {
        let full = EgressRequest {
            address: Some("192.0.2.8:443".parse().unwrap()),
            principal: Some("spiffe://sidegate.local/orders".into()),
            ..request(
                http::Request::post("/v1/a%20b?q=1&q=2")
                    .header("host", "api.example")
                    .header("x-a", "1"),
            )
        };
        let workload = Workload {
            principal: Some("spiffe://sidegate.local/frontend".into()),
            selectors: vec!["component:name:frontend".into()],
        };
        let found = serde_json::to_value(document(&workload, &full).unwrap()).unwrap();
        let expected = serde_json::json!({
            "attributes": {
                "source": {"principal": "spiffe://sidegate.local/frontend"},
                "destination": {
                    "address": {"socketAddress": {"address": "192.0.2.8", "portValue": 443}},
                    "principal": "spiffe://sidegate.local/orders",
                },
                "request": {"http": {
                    "method": "POST", "scheme": "https", "host": "api.example",
                    "path": "/v1/a%20b?q=1&q=2", "headers": {"x-a": "1"},
                }},
            },
            "source_principal": "spiffe://sidegate.local/frontend",
            "parsed_path": ["v1", "a b"],
            "parsed_query": {"q": ["1", "2"]},
            "workload": {"selectors": ["component:name:frontend"]},
        });
        assert_eq!(found, expected);
        schema("egress.input").check(&found);

        let nobody = Workload {
            principal: None,
            selectors: Vec::new(),
        };
        let bare = document(&nobody, &request(http::Request::get("/"))).unwrap();
        let bare = serde_json::to_value(bare).unwrap();
        assert_eq!(bare["attributes"]["source"], serde_json::json!({}));
        schema("egress.input").check(&bare);
    }

    #[test]
    fn a_request_that_can_be_read_in_two_ways_has_no_document() {
        let nobody = Workload {
            principal: None,
            selectors: Vec::new(),
        };
        for (target, problem) in [("/%ff", InputError::Path), ("/?a;b", InputError::Query)] {
            let refused = document(&nobody, &request(http::Request::get(target)));
            assert_eq!(refused, Err(problem));
        }
    }
}
