//! New connections over mutual TLS, one after the other, each with the newest SVID.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use spiffe::X509Context;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::rotation::client::{Client, Sender, describe, handshake};
use crate::workload_api::serial;

/// Between two connections of one worker.
const PERIOD: Duration = Duration::from_millis(15);
/// No exchange may take longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Workers that go on until they are stopped.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    workers: JoinSet<Tally>,
}

/// What became of their connections.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: usize,
    /// The serial numbers of the SVIDs that were shown.
    pub(crate) own: BTreeSet<String>,
    pub(crate) failures: Vec<String>,
}

impl Load {
    pub(crate) fn start(client: &Arc<Client>, workers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let workers = (0..workers).map(|_| work(Arc::clone(client), Arc::clone(&stop)));
        Self {
            workers: workers.collect(),
            stop,
        }
    }

    /// Stops, and fails if anything failed.
    pub(crate) async fn stop(self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Tally::default();
        for tally in self.workers.join_all().await {
            all.answered += tally.answered;
            all.own.extend(tally.own);
            all.failures.extend(tally.failures);
        }
        let first: Vec<_> = all.failures.iter().take(5).collect();
        assert!(
            first.is_empty(),
            "{} of {} failed: {first:?}",
            all.failures.len(),
            all.answered + all.failures.len()
        );
        all
    }
}

/// A request on a connection of its own, with one of the SVIDs of this moment.
pub(crate) async fn greet(
    client: &Client,
    context: &X509Context,
    index: usize,
) -> Result<String, String> {
    let svids = context.svids();
    let svid = svids.get(index % svids.len()).ok_or("there is no SVID")?;
    let bundle = context.bundle_set().get(svid.spiffe_id().trust_domain());
    let bundle = bundle.ok_or("there is no bundle")?;
    let roots = bundle.authorities().iter();
    let roots = roots.map(|root| root.as_bytes().to_vec()).collect();
    let stream = handshake(client.server, svid, roots, Version::HTTP_11).await?;
    let mut sender = Sender::over(TokioIo::new(stream), Version::HTTP_11).await?;
    let request = Request::get("/hello").header(header::HOST, "localhost");
    let request = request
        .body(Empty::new())
        .map_err(|error| describe(&error))?;
    let response = sender.send(request).await;
    let response = response.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let body = response.into_body().collect().await;
    let body = body.map_err(|error| describe(&error))?.to_bytes();
    let body = String::from_utf8_lossy(&body);
    if status != 200 || !body.contains(&format!("You are {}\n", svid.spiffe_id())) {
        return Err(format!("{status}: {body}"));
    }
    Ok(serial(svid.leaf().as_bytes()))
}

async fn work(client: Arc<Client>, stop: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    let mut index = 0;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::SeqCst) {
        ticks.tick().await;
        index += 1;
        let context = client.source.x509_context();
        let context = context.expect("the source is there");
        let exchange = timeout(PATIENCE, greet(&client, &context, index)).await;
        match exchange.unwrap_or_else(|_| Err("no answer".to_owned())) {
            Ok(serial) => {
                tally.answered += 1;
                tally.own.insert(serial);
            }
            Err(failure) => tally.failures.push(failure),
        }
    }
    tally
}
