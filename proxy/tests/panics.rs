//! What panics ends alone: requests over real sockets to a handler that panics, and a worker whose
//! own work does.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "whatever goes wrong in a test fails it, and some of it is meant"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::registry::Registry;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sidegate_identity::authority::{EmbeddedAuthority, Lifetimes};
use sidegate_identity::clock::{Clock, SystemClock};
use sidegate_identity::entry::{Entry, EntryRequest};
use sidegate_identity::svid::{Identities, Issued, X509Svid};
use sidegate_identity::tls::{Presented, ServerTls, TlsMode, TlsServer};
use sidegate_identity::{SpiffeId, TrustDomain};
use sidegate_policy::{Evaluator, Policy, PolicyMetrics, PolicyOptions, PolicySources};
use sidegate_proxy::access_log::{AccessLog, AccessLogWriter};
use sidegate_proxy::trace::Tracer;
use sidegate_proxy::upstream::{ServiceFailure, Upstream, UpstreamService};
use sidegate_proxy::{
    BodyLimits, BoundListener, BoxBody, BoxError, Forwarding, Limits, LineFormat, ListenerConfig,
    NextListener, PathRules, Protocol, Proxy, ProxyConfig, ProxyMetrics, RequestBody, Route,
    Timeouts,
};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::service_fn;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A body that comes apart.
struct Panicking;

impl Body for Panicking {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        panic!("the body comes apart")
    }
}

/// A time of day that can be broken.
#[derive(Debug, Default)]
struct Fragile {
    is_broken: AtomicBool,
}

impl Clock for Fragile {
    fn now(&self) -> SystemTime {
        assert!(!self.is_broken.load(SeqCst), "the clock is broken");
        SystemClock.now()
    }
}

/// Keeps what is written.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Stage {
    proxy: Proxy,
    address: SocketAddr,
    client: Arc<X509Svid>,
    roots: RootCertStore,
    registry: Registry,
    clock: Arc<Fragile>,
    policy: Policy,
    decisions: PolicyMetrics,
    written: Kept,
    writer: AccessLogWriter,
    /// The source of identities lives as long.
    _identities: watch::Sender<Arc<Identities>>,
}

/// Greets, but for two paths.
async fn answer(request: Request<RequestBody>) -> Result<Response<BoxBody>, ServiceFailure> {
    let body = match request.uri().path() {
        "/head" => panic!("the handler comes apart"),
        "/body" => Panicking.boxed_unsync(),
        _ => Full::new(Bytes::from_static(b"hello"))
            .map_err(Into::into)
            .boxed_unsync(),
    };
    Ok(Response::new(body))
}

fn issued(authority: &EmbeddedAuthority, name: &str, selector: &str, now: SystemTime) -> Issued {
    let request = EntryRequest {
        spiffe_id: format!("spiffe://one.test/{name}"),
        selectors: vec![selector.to_owned()],
        dns_names: vec!["localhost".to_owned()],
        ..EntryRequest::default()
    };
    let entry = Arc::new(Entry::new(request, authority.trust_domain()).unwrap());
    let svid = Arc::new(authority.mint(&entry, now).unwrap());
    Issued { entry, svid }
}

impl Stage {
    async fn new(workers: usize) -> Self {
        let (folder, now) = (tempfile::tempdir().unwrap(), SystemClock.now());
        let own = TrustDomain::new("one.test").unwrap();
        let lifetimes = Lifetimes {
            root: Duration::from_secs(24 * 3600),
            svid: Duration::from_secs(3600),
        };
        let path = folder.path().join("authority.pem");
        let authority = EmbeddedAuthority::open(path, own.clone(), lifetimes, now).unwrap();
        let server = issued(&authority, "server", "listener:name:main", now);
        let client = issued(&authority, "client", "unix:uid:1", now);
        let bundle = Arc::new(authority.bundle().unwrap());
        let mut roots = RootCertStore::empty();
        for root in bundle.roots() {
            roots.add(root.clone()).unwrap();
        }
        let presented = Presented {
            spiffe_id: SpiffeId::new("spiffe://one.test/server").unwrap(),
            selectors: server.entry.selectors().into(),
        };
        let client_svid = Arc::clone(&client.svid);
        let generation = Identities::new(
            1,
            own.clone(),
            vec![server, client],
            BTreeMap::from([(own, bundle)]),
            BTreeMap::new(),
        );
        let (sender, identities) = watch::channel(Arc::new(generation));
        let tls = {
            let identities = identities.clone();
            ServerTls::new(presented, identities, TlsMode::Mutual, &["h2", "http/1.1"]).unwrap()
        };

        let mut registry = Registry::default();
        let sources = [("a.rego", "package envoy.authz\nallow := true")];
        let sources = PolicySources::from_modules(sources).unwrap();
        let policy = Policy::load(sources, &PolicyOptions::default()).unwrap();
        let decisions = PolicyMetrics::register(&mut registry);
        let evaluators = (0..workers).map(|_| policy.evaluator(&decisions).unwrap());
        let evaluators: Vec<Evaluator> = evaluators.collect();
        let written = Kept::default();
        let (access_log, writer) = AccessLog::start(written.clone(), LineFormat::Json).unwrap();
        let clock = Arc::new(Fragile::default());
        let proxy = Proxy::start(ProxyConfig {
            evaluators,
            identities,
            access_log,
            metrics: ProxyMetrics::register(&mut registry),
            tracer: Tracer::off(),
            clock: Arc::<Fragile>::clone(&clock),
            drain_timeout: Duration::from_secs(5),
        })
        .unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let bound = BoundListener::bind(any, NonZeroUsize::new(workers).unwrap()).unwrap();
        let address = bound.address();
        let upstream = Upstream::Service {
            name: "handler".into(),
            service: UpstreamService::new(service_fn(answer)),
        };
        let config = ListenerConfig {
            name: "main".to_owned(),
            tls: Some(TlsServer::new(tls)),
            protocol: Protocol::default(),
            routes: vec![Route::any(upstream, PATIENCE)],
            timeouts: Timeouts::default(),
            body_limits: BodyLimits::default(),
            limits: Limits::default(),
            paths: PathRules::default(),
            forwarding: Forwarding::default(),
            outbound: None,
            context_extensions: BTreeMap::new(),
        };
        let swap = proxy.listeners();
        let prepared = swap.prepare([NextListener::New(bound, config)]).unwrap();
        swap.put(prepared).await;
        Self {
            proxy,
            address,
            client: client_svid,
            roots,
            registry,
            clock,
            policy,
            decisions,
            written,
            writer,
            _identities: sender,
        }
    }

    async fn connect(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let key = PrivatePkcs8KeyDer::from(self.client.key().to_vec());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.client.chain().to_vec(), PrivateKeyDer::Pkcs8(key))
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }

    async fn http1(&self) -> http1::SendRequest<Empty<Bytes>> {
        let stream = TokioIo::new(self.connect(b"http/1.1").await);
        let (sender, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn http2(&self) -> http2::SendRequest<Empty<Bytes>> {
        let stream = TokioIo::new(self.connect(b"h2").await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        sender
    }

    fn metric(&self, line: &str) -> bool {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines().any(|it| it == line)
    }

    /// Ends everything, and gives the access log.
    async fn end(self) -> String {
        let proxy = self.proxy;
        tokio::task::spawn_blocking(move || proxy.drain())
            .await
            .unwrap();
        let writer = self.writer;
        tokio::task::spawn_blocking(move || writer.finish())
            .await
            .unwrap();
        String::from_utf8(self.written.0.lock().unwrap().clone()).unwrap()
    }
}

fn request(target: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(target);
    let request = match target.starts_with('/') {
        true => request.header("host", "localhost"),
        false => request,
    };
    request.body(Empty::new()).unwrap()
}

/// The whole answer, if there is one.
async fn whole<E>(
    answer: impl Future<Output = Result<Response<hyper::body::Incoming>, E>>,
) -> Option<(StatusCode, Bytes)> {
    let read = async {
        let response = answer.await.ok()?;
        let status = response.status();
        let body = response.into_body().collect().await.ok()?;
        Some((status, body.to_bytes()))
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap()
}

fn greeting() -> Option<(StatusCode, Bytes)> {
    Some((StatusCode::OK, Bytes::from_static(b"hello")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_or_body_that_panics_ends_its_own_connection_or_stream_and_is_counted() {
    let stage = Stage::new(2).await;
    let mut bystander = stage.http1().await;
    assert_eq!(
        whole(bystander.send_request(request("/"))).await,
        greeting()
    );
    for path in ["/head", "/body"] {
        let mut http1 = stage.http1().await;
        assert_eq!(whole(http1.send_request(request("/"))).await, greeting());
        http1.ready().await.unwrap();
        assert_eq!(whole(http1.send_request(request(path))).await, None);
        let ends = async {
            while !http1.is_closed() {
                tokio::task::yield_now().await;
            }
        };
        let ended = tokio::time::timeout(PATIENCE, ends).await;
        assert!(ended.is_ok(), "its connection has ended");

        let mut http2 = stage.http2().await;
        let target = format!("https://localhost{path}");
        assert_eq!(whole(http2.send_request(request(&target))).await, None);
        let again = http2.send_request(request("https://localhost/"));
        assert_eq!(whole(again).await, greeting(), "the other streams go on");
    }
    assert_eq!(
        whole(bystander.send_request(request("/"))).await,
        greeting()
    );
    assert!(stage.metric("sidegate_panics_total{listener=\"main\"} 4"));
    assert!(stage.proxy.health()(), "no worker has ended");
    drop(bystander);
    let lines = stage.end().await;
    let told = lines
        .lines()
        .filter(|line| line.contains("\"code\":\"SG0308\""));
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 4, "{lines}");
    assert!(told.iter().all(|line| line.contains("\"error\":\"panic\"")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_own_work_panics_has_failed_and_can_still_be_drained() {
    let stage = Stage::new(2).await;
    let mut kept = stage.http1().await;
    assert_eq!(whole(kept.send_request(request("/"))).await, greeting());
    let failed = stage.proxy.failed();
    stage.clock.is_broken.store(true, SeqCst);
    // With another policy each live connection is asked again: by the clock.
    let swap = stage.proxy.policy();
    let next = stage.policy.as_generation(2);
    let prepared = swap.prepare(|| next.evaluator(&stage.decisions)).unwrap();
    drop(swap.swap(prepared).await);
    tokio::time::timeout(PATIENCE, failed).await.unwrap();
    assert!(!stage.proxy.health()());
    stage.end().await;
}
