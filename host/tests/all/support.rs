//! A shared host, and short ways to ask it.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use prometheus_client::registry::Registry;
use sidegate_host::{Component, Host, HostConfig, HostMetrics, InvokeError, ResponseBody};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower::ServiceExt;

pub(crate) const HELLO: &[u8] = include_bytes!("../../../guests/components/hello.wasm");
pub(crate) const PROBE: &[u8] = include_bytes!("../../../guests/components/probe.wasm");

/// Memory of an instance in tests.
pub(crate) const MEMORY_LIMIT: usize = 16 * 1024 * 1024;

/// A host with its metrics.
pub(crate) struct TestHost {
    pub(crate) host: Host,
    registry: Registry,
}

/// The host that tests share unless they need limits of their own.
static SHARED: LazyLock<TestHost> = LazyLock::new(|| TestHost::new(config()));
static SHARED_PROBE: LazyLock<Component> = LazyLock::new(|| SHARED.load("probe", PROBE));
static SHARED_HELLO: LazyLock<Component> = LazyLock::new(|| SHARED.load("hello", HELLO));

/// Limits that let a test see each deadline pass.
pub(crate) fn config() -> HostConfig {
    HostConfig {
        memory_limit: MEMORY_LIMIT,
        max_concurrency: 32,
        queue_wait: Duration::from_secs(5),
        request_deadline: Duration::from_secs(2),
        total_deadline: Duration::from_secs(4),
        ..HostConfig::default()
    }
}

pub(crate) fn shared() -> &'static TestHost {
    &SHARED
}

pub(crate) fn probe() -> Component {
    SHARED_PROBE.clone()
}

pub(crate) fn hello() -> Component {
    SHARED_HELLO.clone()
}

impl TestHost {
    pub(crate) fn new(config: HostConfig) -> Self {
        let mut registry = Registry::with_prefix("sidegate");
        let host = Host::new(config, HostMetrics::register(&mut registry)).unwrap();
        Self { host, registry }
    }

    pub(crate) fn load(&self, name: &str, bytes: &[u8]) -> Component {
        self.host.load(name, bytes).unwrap()
    }

    /// The value of a metric, by its whole name and labels; 0 where it was never touched.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has a value; other tasks of the runtime go on meanwhile.
    pub(crate) async fn metric_becomes(&self, series: &str, expected: f64) {
        let reached = async {
            while self.metric(series) != expected {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), reached)
            .await
            .is_err()
        {
            panic!("{series} is {}, not {expected}", self.metric(series));
        }
    }
}

/// A request without a body.
pub(crate) fn get(path: &str) -> Request<Empty<Bytes>> {
    let uri = format!("http://component.test{path}");
    Request::builder().uri(uri).body(Empty::new()).unwrap()
}

pub(crate) async fn ask(
    component: &Component,
    request: Request<Empty<Bytes>>,
) -> Result<Response<ResponseBody>, InvokeError> {
    component.service().oneshot(request).await
}

/// Status and whole body of the answer to a GET.
pub(crate) async fn text(component: &Component, path: &str) -> (StatusCode, String) {
    let (head, body) = ask(component, get(path)).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, String::from_utf8(body.to_vec()).unwrap())
}

/// The next piece of a body.
pub(crate) async fn chunk(body: &mut ResponseBody) -> Option<Result<Bytes, InvokeError>> {
    Some(body.frame().await?.map(|frame| frame.into_data().unwrap()))
}

pub(crate) type Frames = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

pub(crate) type StreamedBody = StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>;

/// A body that a test writes as it goes.
pub(crate) fn streamed() -> (Frames, StreamedBody) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, StreamBody::new(ReceiverStream::new(receiver)))
}

/// What was logged on this thread while it lives.
pub(crate) struct Logged {
    text: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Logged {
    pub(crate) fn start() -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer(Arc::clone(&text));
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        Self {
            text,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }
}

#[derive(Clone)]
struct Writer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
