//! What a local app sends: the policy is asked at `egress`, and a peer in the mesh sees the app's own
//! identity.

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use sidegate_policy::{ConnectionFacts, Denial, EgressRequest, Permit, RequestFacts, Workload};

use crate::generation::with_evaluator;
use crate::headers::{X_FORWARDED_FOR, X_FORWARDED_PROTO};

/// What makes a listener one for a local app's own requests.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// The app. Each of its requests is decided; of bytes that are none of HTTP each connection, as a
    /// `CONNECT` to the upstream.
    pub workload: Arc<Workload>,
}

/// Where a request goes, as it was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
    /// What is known beforehand of who the server must be.
    pub(crate) principal: Option<String>,
}

impl Outbound {
    /// Asks the policy; `None` on a thread that has none.
    pub(crate) fn ask(
        &self,
        connection: &ConnectionFacts,
        facts: RequestFacts,
        destination: &Destination,
    ) -> Option<Result<Permit, Box<Denial>>> {
        let request = EgressRequest {
            head: facts.head,
            scheme: facts.scheme.into_owned(),
            host: facts.host,
            address: Some(destination.address),
            principal: destination.principal.clone(),
            time: facts.time,
        };
        with_evaluator(|evaluator| evaluator.egress(connection, &self.workload, request))
    }
}

/// Takes out of a normalized head what is for upstreams behind a listener only: a peer learns who
/// asks by mutual TLS, and nothing of where the app is.
pub(crate) fn unannounce(head: &mut Parts) {
    head.headers.remove(X_FORWARDED_FOR);
    head.headers.remove(X_FORWARDED_PROTO);
}
