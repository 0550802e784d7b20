//! A local HTTP server to front.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Body, listen, listen_at};

/// An HTTP/1.1 server on the loopback interface. It remembers the heads that it sees and answers
/// with the request's body as it comes.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// `http://host:port`, or `unix://path`.
    pub(crate) url: String,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    heads: Mutex<Vec<http::request::Parts>>,
}

impl Upstream {
    /// Starts it on the current runtime.
    pub(crate) async fn start() -> Self {
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        let url = listen(move |stream| serve(stream, Arc::clone(&shared))).await;
        Self { url, seen }
    }

    /// Starts it on a Unix socket.
    pub(crate) fn at(socket: &Path) -> Self {
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        let url = listen_at(socket, move |stream| serve(stream, Arc::clone(&shared)));
        Self { url, seen }
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<http::request::Parts> {
        let heads = self.seen.heads.lock();
        heads.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, seen: Arc<Seen>) {
    seen.connections.fetch_add(1, Ordering::SeqCst);
    let service = service_fn(move |request| {
        let answer = answer(request, &seen);
        async { Ok::<_, Infallible>(answer) }
    });
    // How it ends is not our concern.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer(request: Request<Incoming>, seen: &Seen) -> Response<Body> {
    let (head, body) = request.into_parts();
    seen.heads
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(head);
    let body = body.map_err(|error| panic!("the request's body ends well: {error}"));
    Response::builder()
        .header("x-upstream", "yes")
        .header("connection", "x-private")
        .header("x-private", "hop by hop")
        .body(body.boxed())
        .expect("a response")
}
