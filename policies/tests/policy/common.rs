//! What the tests share: a connection, requests, and policies from text.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use http::Request;
use prometheus_client::registry::Registry;
use sidegate_policy::{
    ConnectionFacts, ConnectionParameters, Evaluator, Policy, PolicyError, PolicyMetrics,
    PolicyOptions, PolicySources, RequestBody, RequestFacts,
};

pub(crate) fn connection() -> ConnectionFacts {
    ConnectionFacts::new(connection_parameters())
}

pub(crate) fn connection_parameters() -> ConnectionParameters {
    ConnectionParameters {
        downstream_address: "192.0.2.7:40001".parse().unwrap(),
        local_address: "192.0.2.1:8443".parse().unwrap(),
        source_principal: Some("spiffe://sidegate.local/frontend".into()),
        source_certificate: None,
        destination_principal: Some("spiffe://sidegate.local/orders".into()),
        server_name: None,
        listener: "public".into(),
        context_extensions: BTreeMap::new(),
    }
}

pub(crate) fn request(builder: http::request::Builder) -> RequestFacts {
    let (head, ()) = builder.body(()).unwrap().into_parts();
    RequestFacts {
        head,
        scheme: "https".into(),
        host: "orders.example".into(),
        request_id: "1".into(),
        time: SystemTime::UNIX_EPOCH,
        declared_body_bytes: None,
        body: RequestBody::default(),
    }
}

pub(crate) fn get(path: &str) -> RequestFacts {
    request(Request::get(path))
}

pub(crate) fn metrics() -> PolicyMetrics {
    PolicyMetrics::register(&mut Registry::default())
}

pub(crate) fn load(module: &str, options: &PolicyOptions) -> Result<Policy, PolicyError> {
    Policy::load(
        PolicySources::from_modules([("policy.rego", module)])?,
        options,
    )
}

/// Options of generation 7, with time enough for a slow machine.
pub(crate) fn options() -> PolicyOptions {
    PolicyOptions {
        decision_timeout: Duration::from_secs(30),
        generation: 7,
        ..PolicyOptions::default()
    }
}

/// An evaluator of one module.
pub(crate) fn evaluator(module: &str) -> Evaluator {
    let policy = load(module, &options()).unwrap();
    policy.evaluator(&metrics()).unwrap()
}
