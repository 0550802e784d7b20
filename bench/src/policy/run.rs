//! Asks an evaluator about many requests and counts the processor's time.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow, ensure};
use http::request::Parts;
use prometheus_client::registry::Registry;
use sidegate_policy::{
    ConnectionFacts, ConnectionParameters, Evaluator, Policy, PolicyMetrics, PolicyOptions,
    RequestFacts,
};

use super::cases::{Case, IDENTITIES, Kind, PATHS, identity};
use super::told::{Listener, Told};
use crate::clock;

/// Rounds, of which the middle one counts.
const ROUNDS: usize = 5;
/// Decisions in a round: each path with each identity.
const REQUESTS: usize = PATHS * IDENTITIES;
/// Requests that are built ahead, so that building them is not measured.
const BATCH: usize = 1_000;

/// What the cached case took.
pub(super) struct Cached {
    pub(super) ns: f64,
    pub(super) hit_rate: f64,
}

/// Nanoseconds a decision for each kind of request, nothing remembered. On several threads, those
/// of the slowest. What whoever is told spends on threads of its own is not among them.
pub(super) fn uncached(
    case: &Case,
    threads: usize,
    told: Told,
) -> Result<Vec<(&'static str, f64)>> {
    let policy = load(case, 0)?;
    case.kinds
        .iter()
        .map(|kind| {
            let ns = on_threads(threads, || {
                let mut asked = told.start(&policy, evaluator(&policy)?)?;
                let connections = connections()?;
                let rounds = (0..ROUNDS)
                    .map(|_| round(case, &mut asked, &connections, &[kind]))
                    .collect::<Result<Vec<_>>>()?;
                Ok(clock::median(rounds))
            })?;
            Ok((kind.name, ns))
        })
        .collect()
}

/// Nanoseconds a decision where each request was asked about before.
pub(super) fn cached(case: &Case, threads: usize, told: Told) -> Result<Cached> {
    let policy = load(case, PolicyOptions::default().memory_bytes)?;
    let kinds: Vec<&Kind> = case.kinds.iter().collect();
    let rates = std::sync::Mutex::new(Vec::new());
    let ns = on_threads(threads, || {
        let mut asked = told.start(&policy, evaluator(&policy)?)?;
        let connections = connections()?;
        let kinds = kinds.get(..1).unwrap_or_default();
        round(case, &mut asked, &connections, kinds)?;
        let before = asked.0.remembered();
        let rounds = (0..ROUNDS)
            .map(|_| round(case, &mut asked, &connections, kinds))
            .collect::<Result<Vec<_>>>()?;
        let decisions = (ROUNDS * REQUESTS) as f64;
        let hits = (asked.0.remembered() - before) as f64;
        rates
            .lock()
            .map_err(|_| anyhow!("a thread failed"))?
            .push(hits / decisions);
        Ok(clock::median(rounds))
    })?;
    let rates = rates.into_inner()?;
    Ok(Cached {
        ns,
        hit_rate: clock::median(rates),
    })
}

/// What a worker spends on one change to a policy with 10,000 role bindings: it takes the new
/// evaluator, decides with it for the first time and gives the old one back.
pub(super) fn reload() -> Result<f64> {
    let case = &super::cases::ten_rule(10_000)?;
    let policy = load(case, 0)?;
    let kind = case
        .kinds
        .first()
        .ok_or_else(|| anyhow!("no kind of request"))?;
    let (new, arriving) = mpsc::channel::<Evaluator>();
    let (leaving, old) = mpsc::channel::<Evaluator>();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let connections = connections()?;
            let connection = connections
                .first()
                .ok_or_else(|| anyhow!("no connection"))?;
            let mut evaluator = arriving.recv()?;
            let mut spent = Vec::new();
            while let Ok(next) = arriving.recv() {
                let request = request(case, kind, spent.len())?;
                let began = clock::thread()?;
                let old = std::mem::replace(&mut evaluator, next);
                let decided = evaluator.decide(connection, request);
                leaving.send(old)?;
                spent.push((clock::thread()? - began).as_nanos() as f64);
                ensure!(decided.is_ok() == kind.allowed, "a decision is wrong");
            }
            Ok(spent.into_iter().fold(0.0, f64::max))
        });
        for _ in 0..20 {
            new.send(evaluator(&policy)?)?;
            drop(old.try_recv());
        }
        drop(new);
        worker.join().map_err(|_| anyhow!("the worker failed"))?
    })
}

/// Resident memory that one more evaluator takes, with nothing remembered; `None` where it does not
/// show.
///
/// The first ones find room in what loading the policy has left. So they are doubled until twice as
/// many take twice the memory, and enough of it to be more than the allocator's own steps; or so
/// much that what was left does not count.
pub(super) fn memory(case: &Case) -> Result<Option<f64>> {
    const FIRST: usize = 32;
    const MOST: usize = 4096;
    const ENOUGH: f64 = 4.0 * 1024.0 * 1024.0;
    const MUCH: f64 = 16.0 * ENOUGH;
    let policy = load(case, 0)?;
    let mut built = Vec::new();
    let mut last = f64::INFINITY;
    while built.len() < MOST {
        let more = built.len().max(FIRST);
        let before = resident()?;
        for _ in 0..more {
            built.push(evaluator(&policy)?);
        }
        let grown = resident()? - before;
        let each = grown / more as f64;
        let is_linear = (each - last).abs() <= each / 10.0;
        if grown >= ENOUGH && is_linear || grown >= MUCH && last.is_finite() {
            return Ok(Some(each));
        }
        last = each;
    }
    Ok(None)
}

fn resident() -> Result<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm
        .split(' ')
        .nth(1)
        .ok_or_else(|| anyhow!("statm has one field"))?;
    Ok(pages.parse::<f64>()? * 4096.0)
}

fn load(case: &Case, memory_bytes: u64) -> Result<Policy> {
    let options = PolicyOptions {
        memory_bytes,
        // A machine that is busy with other things denies nothing for it.
        decision_timeout: Duration::from_secs(5),
        ..PolicyOptions::default()
    };
    Ok(Policy::load(case.sources.clone(), &options)?)
}

fn evaluator(policy: &Policy) -> Result<Evaluator> {
    let metrics = PolicyMetrics::register(&mut Registry::default());
    Ok(policy.evaluator(&metrics)?)
}

/// Runs the same on several threads at once and takes the slowest.
fn on_threads(threads: usize, measure: impl Fn() -> Result<f64> + Sync) -> Result<f64> {
    let results = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(&measure)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread failed"))?)
            .collect::<Result<Vec<f64>>>()
    })?;
    Ok(results.into_iter().fold(0.0, f64::max))
}

/// CPU nanoseconds a decision over each path with each identity.
fn round(
    case: &Case,
    (evaluator, listener): &mut (Evaluator, Listener),
    connections: &[ConnectionFacts],
    kinds: &[&Kind],
) -> Result<f64> {
    let mut spent = Duration::ZERO;
    for start in (0..REQUESTS).step_by(BATCH) {
        let asked = (start..start + BATCH)
            .flat_map(|number| kinds.iter().map(move |kind| (number, *kind)))
            .map(|(number, kind)| Ok((number, kind.allowed, request(case, kind, number)?)))
            .collect::<Result<Vec<_>>>()?;
        let count = asked.len();
        let mut answered = 0;
        let began = clock::thread()?;
        for (number, allowed, request) in asked {
            if let Some(connection) = connections.get(number % IDENTITIES) {
                let outcome = evaluator.decide(connection, request);
                answered += usize::from(outcome.is_ok() == allowed);
            }
        }
        spent += clock::thread()? - began;
        ensure!(
            answered == count,
            "{} of {count} decisions are wrong",
            count - answered
        );
        listener.take(count)?;
    }
    Ok(spent.as_nanos() as f64 / (REQUESTS * kinds.len()) as f64)
}

fn connections() -> Result<Vec<ConnectionFacts>> {
    let local: SocketAddr = "127.0.0.1:8443".parse()?;
    (0..IDENTITIES)
        .map(|number| {
            let port = 40_000 + u16::try_from(number)?;
            Ok(ConnectionFacts::new(ConnectionParameters {
                downstream_address: SocketAddr::new(local.ip(), port),
                local_address: local,
                source_principal: Some(identity(number)),
                source_certificate: Some("-----BEGIN%20CERTIFICATE-----%0A".repeat(40).into()),
                destination_principal: Some("spiffe://bench.test/orders".to_owned()),
                server_name: Some("orders.bench.test".to_owned()),
                listener: "main".to_owned(),
                context_extensions: std::collections::BTreeMap::new(),
            }))
        })
        .collect()
}

/// A request as the proxy has it when it asks.
fn request(case: &Case, kind: &Kind, number: usize) -> Result<RequestFacts> {
    let head = http::Request::builder()
        .method(kind.method)
        .uri((kind.path)(number / IDENTITIES % PATHS))
        .header("host", "orders.bench.test")
        .header("user-agent", "bench/1.0")
        .header("accept", "application/json")
        .header("x-forwarded-for", "127.0.0.1")
        .header("x-forwarded-proto", "https")
        .header("x-request-id", "0b0c2dfb-5b9a-4b8e-9d3a-1f0f5b1c7a11")
        .header(
            "x-forwarded-client-cert",
            "By=spiffe://bench.test/orders;URI=spiffe://bench.test/a",
        );
    let head = match &case.authorization {
        Some(value) => head.header("authorization", value),
        None => head,
    };
    let (head, ()): (Parts, ()) = head.body(())?.into_parts();
    Ok(RequestFacts {
        head,
        scheme: "https".into(),
        host: "orders.bench.test".to_owned(),
        request_id: "0b0c2dfb-5b9a-4b8e-9d3a-1f0f5b1c7a11".to_owned(),
        time: SystemTime::UNIX_EPOCH,
        declared_body_bytes: Some(0),
        body: sidegate_policy::RequestBody::default(),
    })
}
