//! The `egress` decision point: may this workload send this request there?
//!
//! It answers as `ingress` does, and its edits are carried out on the request
//! that is sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use http::request::Parts;
use regorus::Value;

use crate::decision_log::HeadCopy;
use crate::denial::{Denial, DenialReason};
use crate::evaluator::Evaluator;
use crate::input::{
    ConnectionFacts, InputError, Members, headers, lists, set, set_string, socket_address, url,
};
use crate::permit::Permit;

/// The rule that decides, as OPA writes it.
pub(crate) const ENTRYPOINT: &str = "sidegate/egress/allow";

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
    /// When its head was complete.
    pub time: SystemTime,
}

/// All that the decision log needs of such a request.
#[derive(Clone)]
pub(crate) struct AskedEgress {
    workload: Arc<Workload>,
    scheme: String,
    host: String,
    address: Option<SocketAddr>,
    principal: Option<String>,
    pub(crate) time: SystemTime,
    /// Empty until it is logged.
    pub(crate) head: HeadCopy,
}

impl Evaluator {
    /// Asks the policy about a request that a workload wants to send, on a
    /// connection that the workload made. The policy was loaded with
    /// [`egress`](crate::PolicyOptions::egress), or with the entrypoint of
    /// [`Egress`](crate::DecisionPoint::Egress).
    ///
    /// # Errors
    ///
    /// A [`Denial`] whenever the policy does not clearly allow it: also if it
    /// says nothing at all about what workloads send.
    pub fn egress(
        &mut self,
        connection: &ConnectionFacts,
        workload: &Arc<Workload>,
        request: EgressRequest,
    ) -> Result<Permit, Box<Denial>> {
        let EgressRequest {
            head,
            scheme,
            host,
            address,
            principal,
            time,
        } = request;
        let asked = AskedEgress {
            workload: Arc::clone(workload),
            scheme,
            host,
            address,
            principal,
            time,
            head: HeadCopy::default(),
        };
        let document = asked.document(connection, &head);
        let document = document.map_err(DenialReason::MalformedRequest);
        self.decide_egress(connection, document, asked, head)
    }
}

impl AskedEgress {
    /// The input document, and its request's headers to whom it may concern.
    pub(crate) fn into_document(
        mut self,
        connection: &ConnectionFacts,
        look: &mut dyn FnMut(&HeaderMap),
    ) -> Option<Value> {
        let head = std::mem::take(&mut self.head).into_head()?;
        look(&head.headers);
        self.document(connection, &head).ok()
    }

    /// About how many bytes it takes up.
    pub(crate) fn size(&self) -> usize {
        let strings = self.scheme.len().saturating_add(self.host.len());
        size_of::<Self>()
            .saturating_add(strings)
            .saturating_add(self.head.size())
    }

    /// The input document.
    fn document(&self, connection: &ConnectionFacts, head: &Parts) -> Result<Value, InputError> {
        document(self, connection.context_extensions(), head)
    }
}

fn document(
    request: &AskedEgress,
    context_extensions: &Value,
    head: &Parts,
) -> Result<Value, InputError> {
    let workload = &request.workload;
    let target = head.uri.path_and_query();
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
        ("method", head.method.as_str()),
        ("scheme", &request.scheme),
        ("host", &request.host),
        ("path", target),
    ] {
        set_string(&mut http, &key.into(), value);
    }
    http.insert("headers".into(), Value::from(headers(&head.headers)?));
    let request = Members::from([("http".into(), Value::from(http))]);
    let mut attributes = Members::from([
        ("source".into(), Value::from(source)),
        ("destination".into(), Value::from(destination)),
        ("request".into(), Value::from(request)),
    ]);
    let key = "contextExtensions".into();
    set(&mut attributes, &key, context_extensions.clone());
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

    fn head(builder: http::request::Builder) -> Parts {
        builder.body(()).unwrap().into_parts().0
    }

    fn nobodys() -> AskedEgress {
        AskedEgress {
            workload: Arc::new(Workload {
                principal: None,
                selectors: Vec::new(),
            }),
            scheme: "https".into(),
            host: "api.example".into(),
            address: None,
            principal: None,
            time: SystemTime::UNIX_EPOCH,
            head: HeadCopy::default(),
        }
    }

    #[test]
    fn the_document_is_the_one_of_its_schema() {
        let full = AskedEgress {
            address: Some("192.0.2.8:443".parse().unwrap()),
            principal: Some("spiffe://sidegate.local/orders".into()),
            workload: Arc::new(Workload {
                principal: Some("spiffe://sidegate.local/frontend".into()),
                selectors: vec!["component:name:frontend".into()],
            }),
            ..nobodys()
        };
        let request = head(
            http::Request::post("/v1/a%20b?q=1&q=2")
                .header("host", "api.example")
                .header("x-a", "1"),
        );
        let extensions = Value::from_json_str(r#"{"listener": "orders"}"#).unwrap();
        let found = document(&full, &extensions, &request).unwrap();
        let found = serde_json::to_value(found).unwrap();
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
                "contextExtensions": {"listener": "orders"},
            },
            "source_principal": "spiffe://sidegate.local/frontend",
            "parsed_path": ["v1", "a b"],
            "parsed_query": {"q": ["1", "2"]},
            "workload": {"selectors": ["component:name:frontend"]},
        });
        assert_eq!(found, expected);
        schema("egress.input").check(&found);

        let root = head(http::Request::get("/"));
        let bare = document(&nobodys(), &Value::Undefined, &root).unwrap();
        let bare = serde_json::to_value(bare).unwrap();
        assert_eq!(bare["attributes"]["source"], serde_json::json!({}));
        schema("egress.input").check(&bare);
    }

    #[test]
    fn a_request_that_can_be_read_in_two_ways_has_no_document() {
        for (target, problem) in [("/%ff", InputError::Path), ("/?a;b", InputError::Query)] {
            let request = head(http::Request::get(target));
            let refused = document(&nobodys(), &Value::Undefined, &request);
            assert_eq!(refused, Err(problem));
        }
    }
}
