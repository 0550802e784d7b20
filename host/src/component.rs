//! A loaded component, and the service that it is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::body::ResponseBody;
use crate::engine::Shared;
use crate::error::InvokeError;
use crate::guest::Guest;
use crate::invoke;

/// A component that is compiled and linked. Clones share it; it holds no instance.
#[derive(Clone)]
pub struct Component {
    loaded: Arc<Loaded>,
}

/// What every request to a component needs.
pub(crate) struct Loaded {
    pub(crate) name: Arc<str>,
    pub(crate) pre: ProxyPre<Guest>,
    pub(crate) host: Arc<Shared>,
    digest: String,
}

impl Component {
    pub(crate) fn new(name: &str, digest: String, pre: ProxyPre<Guest>, host: Arc<Shared>) -> Self {
        Self {
            loaded: Arc::new(Loaded {
                name: name.into(),
                pre,
                host,
                digest,
            }),
        }
    }

    /// The name that it was loaded by.
    pub fn name(&self) -> &str {
        &self.loaded.name
    }

    /// The SHA-256 of the component's bytes, as `sha256:<hex>`.
    pub fn digest(&self) -> &str {
        &self.loaded.digest
    }

    /// The component as a service.
    pub fn service(&self) -> ComponentService {
        ComponentService {
            loaded: Arc::clone(&self.loaded),
        }
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Component")
            .field("name", &self.name())
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}

/// Answers HTTP requests with a component: each with a new instance, in a task of its own on the
/// tokio runtime that the call is made on (a current-thread runtime will do).
///
/// Bodies and their trailers stream both ways; nothing is collected. The component sees the scheme
/// of the request's URI (`http` where there is none), its authority (else the `host` header) and
/// its headers without those of the connection (`host` among them). Dropping the response future
/// or an unfinished body ends the instance; once the body is complete, the component may go on
/// until `total_deadline`.
#[derive(Clone)]
pub struct ComponentService {
    loaded: Arc<Loaded>,
}

impl std::fmt::Debug for ComponentService {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ComponentService")
            .field("component", &self.loaded.name)
            .finish_non_exhaustive()
    }
}

impl<B> tower::Service<Request<B>> for ComponentService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = InvokeError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, InvokeError>> + Send>>;

    /// Always ready: whether an instance is free is known once the call is made.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), InvokeError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(invoke::invoke(Arc::clone(&self.loaded), request))
    }
}
