//! Load: clients on threads of their own that ask, wait for the answer, and ask again.

mod connect;
mod grpc;
mod handshake;
mod http1;
mod http2;
pub(super) mod idle;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use http::Method;
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::Window;
use super::cases::{CONNECTIONS, Case, STREAMS};
use super::report::{Figures, nanoseconds};
use crate::policy::cases::PATHS;
pub(super) use connect::{Negotiated, Target};
use handshake::Handshaker;

/// How long one answer, or the last ones after the end, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Clients at work.
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<Vec<u32>>>>,
}

/// What a measurement of the load is made of.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    answered: u64,
    cpu: Duration,
}

#[derive(Default)]
struct Shared {
    answered: AtomicU64,
    recording: AtomicBool,
    ended: AtomicBool,
}

/// One that asks and waits.
enum Client {
    Http1(Box<http1::Client>),
    Http2(http2::Client),
    GrpcUnary(grpc::Caller),
    GrpcStream(grpc::Streamer),
    Handshake(Handshaker),
}

/// Asks once as the case does, to see whether a proxy can serve it.
pub(super) async fn probe(case: Case, target: &Target) -> Result<()> {
    let once = async {
        let mut clients = clients(case, target, 0).await?;
        clients
            .first_mut()
            .context("there is a client")?
            .once()
            .await
    };
    let answered = timeout(PATIENCE, LocalSet::new().run_until(once)).await;
    answered.context("no answer")?
}

/// Puts load on a target and measures it. `cpu` reads what the proxy has spent.
pub(super) async fn measure(
    case: Case,
    target: &Target,
    threads: u16,
    window: Window,
    cpu: impl Fn() -> Result<Duration>,
) -> Result<Figures> {
    let load = Load::start(case, target, threads, window)?;
    tokio::time::sleep(window.warm_up).await;
    load.shared.recording.store(true, Relaxed);
    let before = load.read(&cpu)?;
    tokio::time::sleep(window.measured).await;
    let after = load.read(&cpu)?;
    load.shared.recording.store(false, Relaxed);
    let latencies = load.end()?;
    Figures::of_load(
        after.answered - before.answered,
        after.at - before.at,
        after.cpu.saturating_sub(before.cpu),
        latencies,
    )
}

impl Load {
    fn start(case: Case, target: &Target, threads: u16, window: Window) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let threads = (0..threads)
            .map(|thread| {
                let connections: Vec<_> = (usize::from(thread)..CONNECTIONS)
                    .step_by(threads.into())
                    .collect();
                let (target, shared) = (target.clone(), Arc::clone(&shared));
                let limit = window.warm_up + window.measured + PATIENCE;
                std::thread::Builder::new()
                    .name("load".to_owned())
                    .spawn(move || run(case, &target, &connections, shared, limit))
                    .map_err(Into::into)
            })
            .collect::<Result<_>>()?;
        Ok(Self { shared, threads })
    }

    fn read(&self, cpu: impl Fn() -> Result<Duration>) -> Result<Reading> {
        Ok(Reading {
            answered: self.shared.answered.load(Relaxed),
            at: Instant::now(),
            cpu: cpu()?,
        })
    }

    /// Waits for the last answers, and gives how long each of those took that were recorded.
    fn end(mut self) -> Result<Vec<u32>> {
        self.shared.ended.store(true, Relaxed);
        let mut latencies = Vec::new();
        for thread in self.threads.drain(..) {
            latencies.append(&mut thread.join().map_err(|_| anyhow!("a thread failed"))??);
        }
        Ok(latencies)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.ended.store(true, Relaxed);
    }
}

impl Client {
    async fn once(&mut self) -> Result<()> {
        match self {
            Self::Http1(client) => client.once().await,
            Self::Http2(client) => client.once().await,
            Self::GrpcUnary(caller) => caller.once().await,
            Self::GrpcStream(streamer) => streamer.once().await,
            Self::Handshake(handshaker) => handshaker.once().await,
        }
    }
}

/// One thread's share.
fn run(
    case: Case,
    target: &Target,
    connections: &[usize],
    shared: Arc<Shared>,
    limit: Duration,
) -> Result<Vec<u32>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    let work = async {
        let mut tasks = tokio::task::JoinSet::new();
        for connection in connections {
            for client in clients(case, target, *connection).await? {
                tasks.spawn_local(drive(client, Arc::clone(&shared)));
            }
        }
        let mut latencies = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            latencies.append(&mut ended??);
        }
        Ok(latencies)
    };
    // A timer needs the runtime that it is made in.
    let ended = async { timeout(limit, work).await };
    let ended = runtime.block_on(local.run_until(ended));
    ended.context("answers are missing")?
}

/// Asks until the end; nanoseconds of each answer that was recorded.
async fn drive(mut client: Client, shared: Arc<Shared>) -> Result<Vec<u32>> {
    let mut latencies = Vec::new();
    while !shared.ended.load(Relaxed) {
        let began = Instant::now();
        client.once().await?;
        if shared.recording.load(Relaxed) {
            shared.answered.fetch_add(1, Relaxed);
            latencies.push(nanoseconds(began.elapsed()));
        }
    }
    Ok(latencies)
}

/// Connects, and gives the clients of one connection.
async fn clients(case: Case, target: &Target, connection: usize) -> Result<Vec<Client>> {
    // Not all connections ask for the same at the same time.
    let first = connection * PATHS / CONNECTIONS;
    Ok(match case {
        Case::H1 | Case::Body1k | Case::Body1m | Case::Idle => {
            let requests = Rc::new(http1::Requests::new(case, connection));
            let client = http1::Client::connect(target, connection, requests, first).await?;
            vec![Client::Http1(Box::new(client))]
        }
        Case::H2 => {
            let requests = http2::connect(target, connection).await?;
            let uris: Rc<[_]> = http2::uris(&Method::GET, connection)?.into();
            let client = |stream| {
                let first = first + stream * PATHS / STREAMS;
                http2::Client::new(requests.clone(), Rc::clone(&uris), first)
            };
            (0..STREAMS).map(client).map(Client::Http2).collect()
        }
        Case::GrpcUnary | Case::GrpcStream => {
            let requests = http2::connect(target, connection).await?;
            let uris: Rc<[_]> = http2::uris(&Method::POST, connection)?.into();
            let client = |stream| {
                let first = first + stream * PATHS / STREAMS;
                let caller = grpc::Caller::new(requests.clone(), Rc::clone(&uris), first);
                match case {
                    Case::GrpcStream => Client::GrpcStream(grpc::Streamer::new(caller)),
                    _ => Client::GrpcUnary(caller),
                }
            };
            (0..STREAMS).map(client).collect()
        }
        Case::Handshake => vec![Client::Handshake(Handshaker::new(target, connection))],
    })
}

/// A path that the ten rules let this caller have.
fn path(method: &Method, connection: usize, number: usize) -> String {
    let number = number % PATHS;
    if *method == Method::GET {
        return format!("/catalog/{number}/items");
    }
    let caller = connection % crate::policy::cases::IDENTITIES;
    format!("/orders/{caller}/{number}")
}
