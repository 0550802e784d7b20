//! A connection, and a request on it, live no longer than the policy that allowed them.
//!
//! After a swap each live connection is asked again at `connect`, and each request that has been
//! open for a second at `ingress`, with the head that was decided. Younger ones are given that
//! second: most of them end by themselves. What is denied now is cut.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};
use tracing::info;

use crate::connect;
use crate::connections::{CutBy, LiveConnection};
use crate::generation::{current, with_evaluator};
use crate::metrics::Cut;
use crate::open_request::OpenRequest;
use crate::worker::Worker;

/// From this age on a request is asked again.
const LONG: Duration = Duration::from_secs(1);

/// How long asking may go on at a stretch, before others on the worker get their turn.
const SLICE: Duration = Duration::from_micros(500);

/// How long a request that was cut may take to end. It cannot where its client does not read.
const LAST: Duration = Duration::from_secs(1);

/// What was cut and has to end.
type Ending = Vec<(Arc<LiveConnection>, Arc<OpenRequest>)>;

/// Asks the worker's connections and requests again after each swap.
pub(crate) async fn watch(worker: Arc<Worker>) {
    let mut generations = worker.generation.subscribe();
    while generations.changed().await.is_ok() {
        ask_all(&worker).await;
        // Those that were too young then. Another swap in between begins anew.
        while let Ok(Ok(())) = tokio::time::timeout(LONG, generations.changed()).await {
            ask_all(&worker).await;
        }
        ask_all(&worker).await;
    }
}

async fn ask_all(worker: &Worker) {
    let mut begun = Instant::now();
    let mut ending = Ending::new();
    for live in worker.connections.all() {
        ask_connection(&live, worker.clock.now());
        for request in live.requests.all() {
            pause(&mut begun).await;
            if request.age() >= LONG && !live.is_cut() && ask_request(&live, &request) {
                ending.push((Arc::clone(&live), request));
            }
        }
        pause(&mut begun).await;
    }
    if !ending.is_empty() {
        tokio::spawn(finish(ending));
    }
}

/// Lets others have their turn, where asking has taken long enough.
async fn pause(begun: &mut Instant) {
    if begun.elapsed() >= SLICE {
        tokio::task::yield_now().await;
        *begun = Instant::now();
    }
}

/// Asks about a connection, and cuts it if it is denied now.
fn ask_connection(live: &LiveConnection, now: SystemTime) {
    let generation = current();
    if live.policy_generation.swap(generation, Relaxed) == generation {
        return;
    }
    if live.listener.outbound.is_some() {
        // A local app's connections are not asked about, but for its requests.
        return;
    }
    let Err(refusal) = connect::ask(&live.listener, &live.facts, now) else {
        return;
    };
    info!(
        code = "SG0342",
        listener = %live.listener.name,
        downstream = %live.downstream,
        peer = live.peer.as_ref().map(tracing::field::display),
        reason = refusal.reason,
        decision_id = refusal.decision_id.map(tracing::field::display),
        policy_generation = refusal.generation,
        error = refusal.error,
        "a connection is cut: the policy has changed",
    );
    live.listener.metrics.cut(Cut::policy);
    live.cut(CutBy::Policy);
}

/// Asks about a request, and tells it to end if it is denied now.
fn ask_request(live: &LiveConnection, request: &OpenRequest) -> bool {
    let generation = current();
    if request.generation() == generation {
        return false;
    }
    let connection = live.facts_of(request.route());
    let asked = match (&live.listener.outbound, request.destination()) {
        (Some(outbound), Some(destination)) => {
            outbound.ask(connection, request.facts(), destination)
        }
        _ => with_evaluator(|evaluator| evaluator.decide(connection, request.facts())),
    };
    let Some(Err(denial)) = asked else {
        request.is_allowed_by(generation);
        return false;
    };
    info!(
        code = "SG0340",
        listener = %live.listener.name,
        downstream = %live.downstream,
        peer = live.peer.as_ref().map(tracing::field::display),
        request_id = request.request_id(),
        reason = denial.reason.label(),
        decision_id = %denial.decision_id,
        policy_generation = denial.generation,
        error = %denial.reason,
        "a request is cut: the policy has changed",
    );
    live.listener.metrics.request_cut();
    request.deny(denial);
    true
}

/// Ends what could not end by itself, with its connection.
async fn finish(ending: Ending) {
    sleep(LAST).await;
    for (live, request) in ending {
        if live.requests.contains(&request) {
            live.listener.metrics.cut(Cut::policy);
            live.cut(CutBy::Policy);
        }
    }
}
