//! A server that speaks OPA's bundle API: ETag, 304, long polling, tokens.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// What is served, at every path.
#[derive(Debug, Clone)]
pub(crate) enum Published {
    /// A tarball, under an ETag.
    Archive(&'static str, Bytes),
    /// A gigabyte that is made as it is sent; `true` says so in advance.
    Gigabyte(bool),
}

pub(super) const GIGABYTE: u64 = 1 << 30;

/// It runs as long as the test's runtime.
#[derive(Debug)]
pub(crate) struct BundleServer {
    /// `http://127.0.0.1:port`, or `https://localhost:port`.
    pub(crate) url: String,
    /// PEM: the certificate that it shows.
    pub(super) certificate: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    published: watch::Sender<Published>,
    token: Option<&'static str>,
    asked: Mutex<Vec<HeaderMap>>,
    sent: Arc<AtomicU64>,
}

impl BundleServer {
    /// Serves in plain text; with a token, only to those who show it.
    pub(crate) async fn start(published: Published, token: Option<&'static str>) -> Self {
        Self::serve(published, token, None, String::new()).await
    }

    /// Serves with TLS, under a certificate of its own for `localhost`.
    pub(super) async fn start_tls(published: Published) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.into())
            .expect("a key that fits");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::serve(published, None, Some(acceptor), cert.pem()).await
    }

    async fn serve(
        published: Published,
        token: Option<&'static str>,
        tls: Option<TlsAcceptor>,
        certificate: String,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            published: watch::channel(published).0,
            token,
            asked: Mutex::default(),
            sent: Arc::default(),
        });
        let url = match tls {
            None => format!("http://{address}"),
            Some(_) => format!("https://localhost:{}", address.port()),
        };
        tokio::spawn(accept(listener, tls, Arc::clone(&shared)));
        Self {
            url,
            certificate,
            shared,
        }
    }

    /// Replaces what is served; whoever waits is answered.
    pub(crate) fn publish(&self, published: Published) {
        self.shared.published.send_replace(published);
    }

    /// The headers of all requests so far.
    pub(super) fn asked(&self) -> Vec<HeaderMap> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How many bytes of gigabytes were sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            match tls {
                None => serve_connection(stream, shared).await,
                // Who does not trust it goes away.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve_connection(stream, shared).await;
                    }
                }
            }
        });
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    shared: Arc<Shared>,
) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&request, &shared).await) }
    });
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Clients go away when they have what they want, or have seen enough.
    let _ = served.await;
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(request: &Request<Incoming>, shared: &Shared) -> Answer {
    let headers = request.headers();
    shared.asked.lock().unwrap().push(headers.clone());
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let shown = header("authorization").and_then(|it| it.strip_prefix("Bearer "));
    if shared.token.is_some() && shared.token != shown {
        return status(401);
    }
    let known = header("if-none-match").unwrap_or_default().to_owned();
    let waits = header("prefer").is_some_and(|it| it.contains("wait="));
    let mut published = shared.published.subscribe();
    let is_known = |it: &Published| matches!(it, Published::Archive(etag, _) if *etag == known);
    if waits {
        // As long as the test runs: whoever stops waiting goes away.
        let newer = published.wait_for(|it| !is_known(it)).await;
        newer.expect("the server runs");
    }
    let published = published.borrow().clone();
    if is_known(&published) {
        return status(304);
    }
    let answer =
        Response::builder().header("content-type", "application/vnd.openpolicyagent.bundles");
    match published {
        Published::Archive(etag, archive) => {
            answer.header("etag", etag).body(Full::new(archive).boxed())
        }
        Published::Gigabyte(is_announced) => answer.body(
            Gigabyte {
                left: GIGABYTE,
                is_announced,
                sent: Arc::clone(&shared.sent),
            }
            .boxed(),
        ),
    }
    .expect("an answer")
}

fn status(status: u16) -> Answer {
    let answer = Response::builder().status(status);
    answer.body(Full::default().boxed()).expect("an answer")
}

/// A body that is made as it is sent.
struct Gigabyte {
    left: u64,
    is_announced: bool,
    sent: Arc<AtomicU64>,
}

impl Body for Gigabyte {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static PART: [u8; 1 << 16] = [0x5a; 1 << 16];
        let length = PART.len() as u64;
        if self.left < length {
            return Poll::Ready(None);
        }
        self.left -= length;
        self.sent.fetch_add(length, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PART)))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_announced {
            true => SizeHint::with_exact(self.left),
            false => SizeHint::default(),
        }
    }
}
