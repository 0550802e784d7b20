//! Requests that are open: what each was allowed by, and the way to end it.
//!
//! A request that outlives the generation that allowed it is asked again with the head that was
//! decided then, so the head is kept: without the connection's part, which stays with the
//! connection, and without what hyper attached to it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use http::header::HOST;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use sidegate_policy::{Denial, Permit, RequestBody, RequestFacts};
use tokio::time::Instant;

use crate::connections::LiveConnection;
use crate::head::REQUEST_ID;
use crate::outbound::Destination;

/// What is kept of a request for as long as it is open.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    /// As it was decided, before the policy's edits.
    head: Head,
    circumstances: Circumstances,
    /// The route that it took.
    route: Option<usize>,
    begun: Instant,
    /// The generation that allowed it last.
    generation: AtomicU64,
    end: Mutex<End>,
}

/// A head without its extensions, which hold on to the connection, and with no index of its headers:
/// few requests are asked about twice.
#[derive(Debug)]
pub(crate) struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Whether it is to end early.
#[derive(Debug)]
enum End {
    /// Not yet; who is to be told.
    Open(Option<Waker>),
    /// The policy denies it now. The denial is there until it is taken.
    Denied(Option<Box<Denial>>),
}

/// Keeps a request in its connection's list; dropping it takes it out.
#[derive(Debug)]
pub(crate) struct Opened {
    request: Arc<OpenRequest>,
    live: Arc<LiveConnection>,
}

/// The open requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct OpenRequests {
    list: Mutex<Vec<Arc<OpenRequest>>>,
}

/// What a policy may know of a request beside its head.
#[derive(Debug, Clone)]
pub(crate) struct Circumstances {
    /// `https` or `http`.
    pub(crate) scheme: &'static str,
    pub(crate) time: SystemTime,
    pub(crate) declared_body_bytes: Option<u64>,
    /// What the policy saw of the body.
    pub(crate) body: RequestBody,
    /// Where it goes, of a local app's own.
    pub(crate) destination: Option<Arc<Destination>>,
}

/// A request's policy says no while it runs.
#[derive(Debug, thiserror::Error)]
#[error("the policy denies the request now")]
pub(crate) struct DeniedNow;

impl OpenRequests {
    /// Those that are there now.
    pub(crate) fn all(&self) -> Vec<Arc<OpenRequest>> {
        self.list().clone()
    }

    /// Whether this one is still open.
    pub(crate) fn contains(&self, request: &Arc<OpenRequest>) -> bool {
        self.list().iter().any(|open| Arc::ptr_eq(open, request))
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<OpenRequest>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Circumstances {
    /// All that a policy may know of a request with this head, which is normalized.
    pub(crate) fn of(&self, head: Parts) -> RequestFacts {
        RequestFacts {
            scheme: self.scheme.into(),
            host: text(head.headers.get(HOST)).to_owned(),
            request_id: text(head.headers.get(REQUEST_ID)).to_owned(),
            time: self.time,
            declared_body_bytes: self.declared_body_bytes,
            body: self.body.clone(),
            head,
        }
    }
}

impl Opened {
    /// Puts a request that was just allowed into its connection's list.
    pub(crate) fn new(
        live: &Arc<LiveConnection>,
        permit: &Permit,
        circumstances: Circumstances,
        route: Option<usize>,
        begun: Instant,
    ) -> Self {
        let request = Arc::new(OpenRequest {
            head: Head::of(permit.head()),
            circumstances,
            route,
            begun,
            generation: AtomicU64::new(permit.generation()),
            end: Mutex::new(End::Open(None)),
        });
        live.requests.list().push(Arc::clone(&request));
        Self {
            request,
            live: Arc::clone(live),
        }
    }

    /// Ready once the request must end.
    pub(crate) fn poll_denied(&self, context: &Context<'_>) -> Poll<Box<Denial>> {
        let mut end = self.request.end();
        match &mut *end {
            End::Denied(denial) => denial.take().map_or(Poll::Pending, Poll::Ready),
            End::Open(Some(waker)) if waker.will_wake(context.waker()) => Poll::Pending,
            End::Open(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Does what the request is open for, unless the request must end before.
    pub(crate) async fn unless_denied<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, Box<Denial>> {
        let mut work = pin!(work);
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_denied(context).map(Err),
        })
        .await
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut list = self.live.requests.list();
        let place = list
            .iter()
            .position(|open| Arc::ptr_eq(open, &self.request));
        if let Some(place) = place {
            list.swap_remove(place);
        }
    }
}

impl OpenRequest {
    /// How long it has been open.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The id under which it is found in logs.
    pub(crate) fn request_id(&self) -> &str {
        self.head.text(&REQUEST_ID)
    }

    /// The route that it took, by its place among the listener's.
    pub(crate) fn route(&self) -> Option<usize> {
        self.route
    }

    /// The generation that allowed it last.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// This generation allows it too.
    pub(crate) fn is_allowed_by(&self, generation: u64) {
        self.generation.store(generation, Relaxed);
    }

    /// Ends it early.
    pub(crate) fn deny(&self, denial: Box<Denial>) {
        self.is_allowed_by(denial.generation);
        let before = std::mem::replace(&mut *self.end(), End::Denied(Some(denial)));
        if let End::Open(Some(waker)) = before {
            waker.wake();
        }
    }

    /// What the policy was asked about, to be asked again.
    pub(crate) fn facts(&self) -> RequestFacts {
        self.circumstances.of(self.head.parts())
    }

    /// Where it goes, of a local app's own.
    pub(crate) fn destination(&self) -> Option<&Destination> {
        self.circumstances.destination.as_deref()
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Head {
    pub(crate) fn of(head: &Parts) -> Self {
        let headers = head.headers.iter();
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers: headers
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        }
    }

    pub(crate) fn parts(&self) -> Parts {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = self.method.clone();
        parts.uri = self.uri.clone();
        parts.version = self.version;
        for (name, value) in &self.headers {
            parts.headers.append(name, value.clone());
        }
        parts
    }

    fn text(&self, name: &HeaderName) -> &str {
        let mut headers = self.headers.iter();
        text(headers.find_map(|(found, value)| (found == name).then_some(value)))
    }
}

/// A header that normalization has set.
fn text(value: Option<&HeaderValue>) -> &str {
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
