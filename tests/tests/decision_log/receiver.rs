//! A receiver of OPA's decision log API.

use std::convert::Infallible;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::support::Identity;

/// A server on the loopback interface that takes chunks of events. It stops when it is dropped.
pub(super) struct Receiver {
    /// `host:port`.
    pub(super) address: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

/// How it answers, and what came.
struct State {
    answer: Answer,
    chunks: Vec<Chunk>,
    refused: usize,
}

/// How a receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Status(StatusCode),
    /// Never.
    Hang,
}

/// A chunk that was accepted.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) head: http::request::Parts,
    pub(super) bytes: usize,
    pub(super) events: Vec<Value>,
}

impl Receiver {
    /// Starts one that accepts everything.
    pub(super) async fn start() -> Self {
        Self::start_at("127.0.0.1:0", None).await
    }

    /// Starts one at an address, by TLS if there is an identity to show.
    pub(super) async fn start_at(address: &str, identity: Option<Identity>) -> Self {
        let listener = TcpListener::bind(address).await.expect("an address");
        let address = listener.local_addr().expect("its address").to_string();
        let state = Arc::new(Mutex::new(State {
            answer: Answer::Status(StatusCode::OK),
            chunks: Vec::new(),
            refused: 0,
        }));
        let tls = identity.map(|Identity { chain, key }| {
            let config = ServerConfig::builder_with_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ));
            let config = config
                .with_safe_default_protocol_versions()
                .expect("TLS 1.3");
            let config = config.with_no_client_auth().with_single_cert(chain, key);
            TlsAcceptor::from(Arc::new(config.expect("the key fits")))
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, state).await,
                        // A client that does not trust the certificate is gone.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, state).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    /// From now on it answers like this.
    pub(super) fn answer(&self, answer: Answer) {
        self.lock().answer = answer;
    }

    /// The chunks that were accepted so far.
    pub(super) fn chunks(&self) -> Vec<Chunk> {
        self.lock().chunks.clone()
    }

    /// The events of these chunks.
    pub(super) fn events(&self) -> Vec<Value> {
        let chunks = self.chunks().into_iter();
        chunks.flat_map(|chunk| chunk.events).collect()
    }

    /// How many requests came and were not accepted.
    pub(super) fn refused(&self) -> usize {
        self.lock().refused
    }

    /// Ends, with all of its connections.
    pub(super) async fn stop(self) -> Vec<Value> {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
        self.events()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<Mutex<State>>) {
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(take(request, &state).await) }
    });
    // How it ends is the client's affair.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn take(request: Request<Incoming>, state: &Mutex<State>) -> Response<Empty<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let answer = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.answer == Answer::Status(StatusCode::OK) {
            let mut text = String::new();
            GzDecoder::new(body.as_ref())
                .read_to_string(&mut text)
                .expect("it is gzip");
            state.chunks.push(Chunk {
                head,
                bytes: body.len(),
                events: serde_json::from_str(&text).expect("an array of events"),
            });
        } else {
            state.refused += 1;
        }
        state.answer
    };
    match answer {
        Answer::Status(status) => {
            let mut response = Response::new(Empty::new());
            *response.status_mut() = status;
            response
        }
        Answer::Hang => std::future::pending().await,
    }
}
