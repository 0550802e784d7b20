//! Fetches from the Workload API, as programs do that ask once.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::LocalSet;

use crate::clock::median;
use crate::gate::Gate;
use crate::report::{Report, say};
use crate::workload_api::{Call, Connection};

/// Entries beside the caller's own.
const WORKLOADS: u32 = 1000;

/// How many fetch at once.
const CLIENTS: usize = 16;

/// All kinds are measured in turns, so that a machine that becomes slower is so for all.
const ROUNDS: usize = 5;

const ROUND: Duration = Duration::from_millis(700);

/// A way to fetch, and what it gave in each round.
struct Kind {
    name: &'static str,
    call: Call,
    /// Whether connections are kept.
    kept: bool,
    per_second: Vec<f64>,
    cpu_seconds: Vec<f64>,
}

impl Kind {
    fn new(name: &'static str, call: Call, kept: bool) -> Self {
        Self {
            name,
            call,
            kept,
            per_second: Vec::new(),
            cpu_seconds: Vec::new(),
        }
    }
}

pub(super) async fn measure(binary: &Path, report: &mut Report) -> Result<()> {
    say("fetches: a sidegate with 1,000 entries");
    let gate = Gate::start(binary, WORKLOADS)?;
    let (x509, jwt) = (Call::fetch_x509_svid(), Call::fetch_jwt_svid());
    let mut kinds = [
        Kind::new("FetchX509SVID, kept connections", x509.clone(), true),
        Kind::new("FetchX509SVID, a new connection each", x509, false),
        Kind::new("FetchJWTSVID, kept connections", jwt.clone(), true),
        Kind::new("FetchJWTSVID, a new connection each", jwt, false),
    ];
    for _ in 0..ROUNDS {
        for kind in &mut kinds {
            let (cpu, began) = (gate.cpu()?, Instant::now());
            let fetches = fetch_for(&gate, &kind.call, kind.kept, ROUND).await?;
            let (cpu, took) = (gate.cpu()?.saturating_sub(cpu), began.elapsed());
            kind.per_second.push(fetches / took.as_secs_f64());
            kind.cpu_seconds.push(cpu.as_secs_f64() / fetches);
        }
    }
    for kind in kinds {
        report.add(kind.name, median(kind.per_second), "/s");
        let cpu = median(kind.cpu_seconds) * 1e6;
        report.add(format!("{}: CPU for each", kind.name), cpu, "µs");
    }
    Ok(())
}

/// Fetches with all clients for so long, and says how often.
async fn fetch_for(gate: &Gate, call: &Call, kept: bool, span: Duration) -> Result<f64> {
    let socket: Rc<Path> = gate.socket().into();
    let until = Instant::now() + span;
    let local = LocalSet::new();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (socket, call) = (Rc::clone(&socket), call.clone());
            local.spawn_local(async move {
                let mut connection = Connection::open(&socket).await?;
                let mut fetches = 0.0;
                while Instant::now() < until {
                    if !kept {
                        connection = Connection::open(&socket).await?;
                    }
                    connection.call(&call).await?.next().await?;
                    fetches += 1.0;
                }
                anyhow::Ok(fetches)
            })
        })
        .collect();
    local
        .run_until(async {
            let mut fetches = 0.0;
            for client in clients {
                fetches += client.await??;
            }
            Ok(fetches)
        })
        .await
}
