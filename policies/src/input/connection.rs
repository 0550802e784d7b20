//! What the policy may know of a connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use regorus::Value;

use super::{Members, constant_attributes, set, set_number, set_string, string, version};

/// What the proxy knows of a connection once it is established.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionParameters {
    /// The peer's address.
    pub downstream_address: SocketAddr,
    /// The address at which the connection was accepted.
    pub local_address: SocketAddr,
    /// The peer's SPIFFE ID. Only if it was verified: policies trust it.
    pub source_principal: Option<String>,
    /// The peer's certificate as URL-encoded PEM.
    pub source_certificate: Option<Arc<str>>,
    /// The SPIFFE ID that the proxy showed to the peer.
    pub destination_principal: Option<String>,
    /// The server name that the peer asked for.
    pub server_name: Option<String>,
    /// The name of the listener that accepted the connection.
    pub listener: String,
    /// What the operator's configuration says of the listener, by keys other
    /// than `listener`.
    pub context_extensions: BTreeMap<String, String>,
}

/// The part of the input document that stays the same for a whole connection.
/// What is read of it is built once: of thousands of idle connections most of
/// it is never read. It belongs to the thread that serves the connection.
///
/// The listener's name is `input.attributes.contextExtensions.listener`: the
/// place in Envoy's document for what the operator's configuration says, so
/// that an Envoy can be configured to send the same.
#[derive(Debug, Clone)]
pub struct ConnectionFacts {
    /// What all this is made of, also for threads that must not share these values.
    pub(super) parameters: Arc<ConnectionParameters>,
    source: OnceLock<Value>,
    destination: OnceLock<Value>,
    tls_session: OnceLock<Value>,
    context_extensions: OnceLock<Value>,
    source_principal: OnceLock<Value>,
}

impl ConnectionFacts {
    /// Nothing is built yet.
    #[must_use]
    pub fn new(parameters: impl Into<Arc<ConnectionParameters>>) -> Self {
        Self {
            parameters: parameters.into(),
            source: OnceLock::new(),
            destination: OnceLock::new(),
            tls_session: OnceLock::new(),
            context_extensions: OnceLock::new(),
            source_principal: OnceLock::new(),
        }
    }

    /// The same on a route of which the operator's configuration says more, or something else.
    #[must_use]
    pub fn on_route(&self, context_extensions: &BTreeMap<String, String>) -> Self {
        let mut parameters = ConnectionParameters::clone(&self.parameters);
        let more = context_extensions.clone();
        parameters.context_extensions.extend(more);
        Self {
            context_extensions: OnceLock::new(),
            parameters: Arc::new(parameters),
            ..self.clone()
        }
    }

    /// `attributes.source`.
    pub(super) fn source(&self) -> &Value {
        self.source.get_or_init(|| {
            let ConnectionParameters {
                downstream_address,
                source_principal,
                source_certificate,
                ..
            } = &*self.parameters;
            let certificate = source_certificate.clone().map(Value::String);
            let mut source = peer(*downstream_address, source_principal.as_deref());
            source.extend(certificate.map(|certificate| ("certificate".into(), certificate)));
            Value::from(source)
        })
    }

    /// `attributes.destination`.
    pub(super) fn destination(&self) -> &Value {
        self.destination.get_or_init(|| {
            let ConnectionParameters {
                local_address,
                destination_principal,
                ..
            } = &*self.parameters;
            Value::from(peer(*local_address, destination_principal.as_deref()))
        })
    }

    /// `attributes.tlsSession`, if there is one.
    pub(super) fn tls_session(&self) -> &Value {
        self.tls_session.get_or_init(|| {
            let server_name = self.parameters.server_name.as_deref();
            object_of("sni", server_name.unwrap_or_default())
        })
    }

    /// `attributes.contextExtensions`, if there are any.
    pub(crate) fn context_extensions(&self) -> &Value {
        self.context_extensions.get_or_init(|| {
            let ConnectionParameters {
                context_extensions,
                listener,
                ..
            } = &*self.parameters;
            extensions(context_extensions, listener)
        })
    }

    /// `source_principal`, if there is one.
    pub(super) fn source_principal(&self) -> &Value {
        self.source_principal.get_or_init(|| {
            let principal = self.parameters.source_principal.as_deref();
            string(principal.unwrap_or_default())
        })
    }

    /// The document of the `connect` decision point.
    pub(crate) fn document(&self) -> Value {
        let mut attributes = constant_attributes();
        set(&mut attributes, &"source".into(), self.source().clone());
        set(
            &mut attributes,
            &"destination".into(),
            self.destination().clone(),
        );
        set(
            &mut attributes,
            &"tlsSession".into(),
            self.tls_session().clone(),
        );
        let extensions = self.context_extensions().clone();
        set(&mut attributes, &"contextExtensions".into(), extensions);
        let mut document = Members::from([
            ("attributes".into(), Value::from(attributes)),
            ("version".into(), version()),
        ]);
        let principal = self.source_principal().clone();
        set(&mut document, &"source_principal".into(), principal);
        Value::from(document)
    }

    /// What it was made of.
    pub(crate) fn parameters(&self) -> &Arc<ConnectionParameters> {
        &self.parameters
    }
}

/// `source` or `destination`.
fn peer(address: SocketAddr, principal: Option<&str>) -> Members {
    let mut peer = Members::from([("address".into(), socket_address(address))]);
    set_string(
        &mut peer,
        &"principal".into(),
        principal.unwrap_or_default(),
    );
    peer
}

/// An `address`, which is always that of a socket.
pub(crate) fn socket_address(address: SocketAddr) -> Value {
    let mut socket_address = Members::new();
    // An IPv4 peer of an IPv6 socket is an IPv4 peer to policies.
    set_string(
        &mut socket_address,
        &"address".into(),
        &address.ip().to_canonical().to_string(),
    );
    set_number(
        &mut socket_address,
        &"portValue".into(),
        address.port().into(),
    );
    Members::from([("socketAddress".into(), Value::from(socket_address))]).into()
}

/// `contextExtensions`: what the configuration says, and the listener's name.
fn extensions(configured: &BTreeMap<String, String>, listener: &str) -> Value {
    let configured = configured.iter();
    let mut extensions: Members = configured
        .map(|(key, value)| (Value::from(key.as_str()), Value::from(value.as_str())))
        .collect();
    set_string(&mut extensions, &"listener".into(), listener);
    match extensions.is_empty() {
        true => Value::Undefined,
        false => Value::from(extensions),
    }
}

/// An object with one member; undefined if the member is empty.
fn object_of(key: &str, value: &str) -> Value {
    if value.is_empty() {
        return Value::Undefined;
    }
    Value::from(Members::from([(key.into(), Value::from(value))]))
}
