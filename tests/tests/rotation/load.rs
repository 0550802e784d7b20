//! Requests at a steady rate over a few kept connections, each counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::client::{Client, Sender, Unanswered, describe};

/// Between two requests of one worker.
const PERIOD: Duration = Duration::from_millis(15);
/// No request may take longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a worker sends its requests.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Our proxy, by mutual TLS.
    Proxy(Arc<Client>, Version),
    /// An Envoy's plaintext listener: `host:port`.
    Envoy(String),
}

/// What became of a worker's requests.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) answered: usize,
    pub(crate) connections: usize,
    /// Responses that announced the end of their connection (HTTP/1.1).
    pub(crate) announced: usize,
    /// How each failed request failed, and when since the start.
    pub(crate) failures: Vec<(Duration, String)>,
}

impl Target {
    /// Asks for a path again and again, one request at a time.
    pub(crate) async fn load(self, duration: Duration) -> Report {
        let start = Instant::now();
        self.load_while(|| start.elapsed() < duration).await
    }

    /// The same for as long as this is so.
    pub(crate) async fn load_while(self, goes_on: impl Fn() -> bool) -> Report {
        let mut report = Report::default();
        let mut sender = None;
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let start = Instant::now();
        while goes_on() {
            ticks.tick().await;
            let exchange = timeout(PATIENCE, self.exchange(&mut sender, &mut report)).await;
            if let Err(failure) = exchange.unwrap_or_else(|_| Err("no answer".to_owned())) {
                sender = None;
                report.failures.push((start.elapsed(), failure));
            }
        }
        report
    }

    /// One request and its response, on a new connection where the old one ended before.
    async fn exchange(&self, kept: &mut Option<Sender>, report: &mut Report) -> Result<(), String> {
        let response = loop {
            let mut sender = match still_open(kept.take()).await {
                Some(sender) => sender,
                None => {
                    report.connections += 1;
                    self.connect().await?
                }
            };
            match sender.send(self.head()).await {
                Ok(response) => {
                    *kept = Some(sender);
                    break response;
                }
                Err(Unanswered::NeverSent) => {}
                Err(Unanswered::Failed(failure)) => return Err(failure),
            }
        };
        let status = response.status();
        let closes = response.headers().get(header::CONNECTION);
        report.announced += usize::from(closes.is_some_and(|value| value == "close"));
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| describe(&error))?.to_bytes();
        let body = String::from_utf8_lossy(&body);
        if status != 200 || !body.contains("You are spiffe://sidegate.local/demo") {
            return Err(format!("{status}: {body}"));
        }
        report.answered += 1;
        Ok(())
    }

    async fn connect(&self) -> Result<Sender, String> {
        match self {
            Self::Proxy(client, version) => client.connect(*version).await,
            Self::Envoy(address) => {
                let stream = TcpStream::connect(address)
                    .await
                    .map_err(|error| format!("connect: {error}"))?;
                Sender::over(TokioIo::new(stream), Version::HTTP_11).await
            }
        }
    }

    fn head(&self) -> Request<Empty<Bytes>> {
        let request = match self {
            Self::Proxy(_, Version::HTTP_2) => Request::get("https://localhost/hello"),
            _ => Request::get("/hello").header(header::HOST, "localhost"),
        };
        request.body(Empty::new()).expect("a request")
    }
}

/// A connection that takes another request.
async fn still_open(sender: Option<Sender>) -> Option<Sender> {
    let mut sender = sender?;
    sender.is_open().await.then_some(sender)
}
