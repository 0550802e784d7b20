//! Many streams of many workloads: what they hold in memory, and how fast a change reaches them.

use std::convert::Infallible;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use nix::unistd::{Uid, geteuid, seteuid};
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::gate::{FIRST_UID, Gate};
use crate::report::{Goal, Report, say};
use crate::workload_api::{Call, Connection, Messages, X509Response};

const WORKLOADS: u32 = 1000;
const STREAMS: u32 = 10_000;

/// In MB (10^6 bytes).
const GOAL_PER_THOUSAND: f64 = 30.0;

/// Descriptors of sidegate for what is no connection.
const RESERVED: u64 = 500;

/// A connection takes the socket and a pidfd.
const DESCRIPTORS_OF_A_CONNECTION: u64 = 2;

/// No wait takes longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// Streams that stay open, and what comes over them.
struct Fleet {
    streams: u32,
    events: mpsc::UnboundedReceiver<Event>,
    /// Ends the streams with the fleet.
    _tasks: JoinSet<()>,
}

/// What a stream brought.
#[derive(Debug)]
enum Event {
    /// Its first message.
    First,
    /// A new SVID under the bundle that was there at first.
    Renewed,
    /// Another bundle than at first.
    NewBundle(Instant),
    /// It ended, or never began.
    Failed(anyhow::Error),
}

pub(super) async fn measure(binary: &Path, descriptors: u64, report: &mut Report) -> Result<()> {
    if !geteuid().is_root() {
        report.skip("open streams: 1,000 workloads are 1,000 users, which needs root");
        return Ok(());
    }
    let possible = descriptors.saturating_sub(RESERVED) / DESCRIPTORS_OF_A_CONNECTION;
    let streams = STREAMS.min(u32::try_from(possible).unwrap_or(STREAMS));
    if streams < STREAMS {
        report.skip(format!(
            "{streams} streams are opened, not {STREAMS}: a process may have {descriptors} \
             descriptors open here, and sidegate needs {DESCRIPTORS_OF_A_CONNECTION} for each"
        ));
    }
    say(&format!("streams: memory of {streams}"));
    let gate = Gate::start(binary, WORKLOADS)?;
    let mut fleet = memory(&gate, streams, report).await?;
    say(&format!("streams: a bundle change reaches {streams}"));
    change(&gate, &mut fleet, report).await
}

async fn memory(gate: &Gate, streams: u32, report: &mut Report) -> Result<Fleet> {
    let before = gate.memory()?;
    let (cpu, began) = (gate.cpu()?, Instant::now());
    let fleet = Fleet::open(&gate.socket(), streams).await?;
    let (cpu, took) = (gate.cpu()?.saturating_sub(cpu), began.elapsed());
    let after = gate.memory()?;
    let streams = f64::from(streams);
    report.add("streams open at once", streams, "");
    report.add(
        "streams, until each had its first message",
        took.as_secs_f64(),
        "s",
    );
    report.add(
        "streams, CPU for each until then",
        cpu.as_secs_f64() * 1e6 / streams,
        "µs",
    );
    report.add("streams, RSS before", before.rss / 1e6, "MB");
    report.add("streams, RSS with all", after.rss / 1e6, "MB");
    report.add("streams, PSS with all", after.pss / 1e6, "MB");
    report.judge(
        "streams, RSS for 1,000 connections",
        (after.rss - before.rss) / 1e3 / streams,
        "MB",
        Goal::AtMost(GOAL_PER_THOUSAND),
    );
    Ok(fleet)
}

/// A successor of the root is published: every stream gets the new bundle, and no new SVID.
async fn change(gate: &Gate, fleet: &mut Fleet, report: &mut Report) -> Result<()> {
    let cpu = gate.cpu()?;
    let asked = Instant::now();
    let mut command = gate.publish_successor()?;
    let last = fleet.spread().await?;
    let cpu = gate.cpu()?.saturating_sub(cpu);
    ensure!(command.wait()?.success(), "the root is not rotated");
    report.add(
        "bundle change, from the command to the last stream",
        last.duration_since(asked).as_secs_f64() * 1e3,
        "ms",
    );
    report.add(
        "bundle change, CPU for each stream",
        cpu.as_secs_f64() * 1e6 / f64::from(fleet.streams),
        "µs",
    );
    Ok(())
}

impl Fleet {
    /// Opens streams, each on a connection of its own, as the workloads in turn, and waits for
    /// the first message of each.
    async fn open(socket: &Path, streams: u32) -> Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let call = Call::fetch_x509_svid();
        for number in 0..streams {
            // The kernel tells the other end who connects, not who speaks.
            seteuid(Uid::from_raw(FIRST_UID + number % WORKLOADS))?;
            let connected = UnixStream::connect(socket);
            seteuid(Uid::from_raw(0))?;
            let connection = Connection::over(connected?).await?;
            let (call, sender) = (call.clone(), sender.clone());
            tasks.spawn(async move {
                let Err(error) = watch(&connection, &call, &sender).await;
                // Nobody listens any more at the end.
                let _ = sender.send(Event::Failed(error));
            });
            // Those that are open have their turn.
            tokio::task::yield_now().await;
        }
        let mut fleet = Self {
            streams,
            events,
            _tasks: tasks,
        };
        let mut open = 0;
        while open < streams {
            match fleet.next().await? {
                Event::First => open += 1,
                Event::Renewed => {}
                event => bail!("before all streams were open: {event:?}"),
            }
        }
        Ok(fleet)
    }

    /// Waits until a new bundle has reached all streams, and says when it reached the last.
    async fn spread(&mut self) -> Result<Instant> {
        let mut changed = 0;
        let deadline = Instant::now() + PATIENCE;
        loop {
            ensure!(Instant::now() < deadline, "the bundle does not change");
            match self.next().await? {
                Event::First | Event::Renewed => {}
                Event::NewBundle(at) => {
                    changed += 1;
                    if changed == self.streams {
                        return Ok(at);
                    }
                }
                Event::Failed(error) => return Err(error),
            }
        }
    }

    async fn next(&mut self) -> Result<Event> {
        let event = timeout(PATIENCE, self.events.recv()).await;
        match event.context("nothing comes over the streams")? {
            Some(Event::Failed(error)) => Err(error.context("a stream failed")),
            Some(event) => Ok(event),
            None => bail!("all streams ended"),
        }
    }
}

/// Reports what a stream brings, until it ends.
async fn watch(
    connection: &Connection,
    call: &Call,
    events: &mpsc::UnboundedSender<Event>,
) -> Result<Infallible> {
    let mut messages = connection.call(call).await?;
    let first = bundle(&mut messages).await?;
    events.send(Event::First)?;
    let mut is_changed = false;
    loop {
        let event = if bundle(&mut messages).await? == first {
            Event::Renewed
        } else if is_changed {
            continue;
        } else {
            is_changed = true;
            Event::NewBundle(Instant::now())
        };
        events.send(event)?;
    }
}

/// The bundle of the next message.
async fn bundle(messages: &mut Messages) -> Result<Bytes> {
    let response = X509Response::decode(messages.next().await?)?;
    let svid = response.svids.into_iter().next();
    Ok(svid.context("a message without an SVID")?.bundle)
}
