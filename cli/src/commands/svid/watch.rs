//! X.509-SVIDs and bundles, as they change.
//!
//! ```text
//!        ┌──────── pause, longer each time ────────┐
//!        ▼                                         │
//!     connect ──▶ update ──▶ update … ──▶ withdrawn or unavailable
//! ```

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use sidegate_identity::clock::{Clock, SystemClock};
use spiffe::transport::{Endpoint, GrpcStatusCode};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_stream::StreamExt;

use super::x509::{self, Svid};
use super::{TIMEOUT, block_on, endpoint, files, has_code, refused};
use super::{rfc3339, silent, unreachable, words};
use crate::arguments::{OutputFormat, WatchArguments};
use crate::failure::Failure;
use crate::output;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

struct Watch<'a> {
    arguments: &'a WatchArguments,
    endpoint: String,
    updates: u64,
    /// What is shown already, so that it is shown once.
    gap: Option<Gap>,
}

/// Why there are no updates.
#[derive(Debug, PartialEq, Eq)]
enum Gap {
    /// The Workload API has no identity for this process.
    Withdrawn(String),
    /// The Workload API does not answer, or says what cannot be used.
    Unavailable(String),
}

/// How a connection ended.
enum End {
    /// There were as many updates as were asked for.
    Enough,
    Gap(Gap),
}

/// What is printed at a time.
#[derive(Debug, Default, Serialize)]
struct Event<'a> {
    /// RFC 3339.
    time: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// All that the process now has.
    #[serde(skip_serializing_if = "Option::is_none")]
    svids: Option<Vec<Svid>>,
    /// X.509 authorities by trust domain, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    bundles: Option<BTreeMap<String, String>>,
}

/// Shows updates until there were enough, a signal comes, or nobody reads any more.
pub(super) fn watch(arguments: &WatchArguments) -> Result<(), Failure> {
    let endpoint = endpoint(&arguments.client.socket);
    if let Err(error) = Endpoint::parse(&endpoint) {
        return Err(Failure::message(
            "SG0050",
            unreachable(&endpoint, &error.into()),
        ));
    }
    block_on(async {
        let mut terminate = listen_for(SignalKind::terminate())?;
        let mut interrupt = listen_for(SignalKind::interrupt())?;
        let mut watch = Watch {
            arguments,
            endpoint,
            updates: 0,
            gap: None,
        };
        tokio::select! {
            outcome = watch.run() => outcome,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            closed = tokio::task::spawn_blocking(reader_gone) => {
                closed
                    .unwrap_or_else(|error| Err(io::Error::other(error)))
                    .map_err(|error| Failure::new("SG0009", &error))
            }
        }
    })
}

impl Watch<'_> {
    async fn run(&mut self) -> Result<(), Failure> {
        let mut pause = FIRST_PAUSE;
        loop {
            let updates = self.updates;
            let gap = match self.follow().await? {
                End::Enough => return Ok(()),
                End::Gap(gap) => gap,
            };
            if self.updates > updates {
                pause = FIRST_PAUSE;
            }
            self.show_gap(gap)?;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Connects and shows each update, until the connection ends.
    async fn follow(&mut self) -> Result<End, Failure> {
        let endpoint = self.endpoint.clone();
        let opening = async {
            let client = match WorkloadApiClient::connect_to(&endpoint).await {
                Ok(client) => client,
                Err(error) => return Ok(Err(Gap::Unavailable(unreachable(&endpoint, &error)))),
            };
            let mut stream = match client.stream_x509_contexts().await {
                Ok(stream) => stream,
                Err(error) => return gap(error).map(Err),
            };
            // The first message is due at once (SPIFFE_Workload_API.md section 4.3).
            let first = stream.next().await;
            Ok(Ok((first, stream)))
        };
        let opened = tokio::time::timeout(TIMEOUT, opening).await;
        let opened = opened.unwrap_or_else(|_| Ok(Err(Gap::Unavailable(silent(&self.endpoint)))));
        let (mut next, mut stream) = match opened? {
            Ok(opened) => opened,
            Err(gap) => return Ok(End::Gap(gap)),
        };
        loop {
            match next {
                Some(Ok(context)) => self.show_update(&context)?,
                Some(Err(error)) => return gap(error).map(End::Gap),
                None => {
                    let reason = "the Workload API ended the stream".to_owned();
                    return Ok(End::Gap(Gap::Unavailable(reason)));
                }
            }
            if self
                .arguments
                .count
                .is_some_and(|count| self.updates >= count.get())
            {
                return Ok(End::Enough);
            }
            next = stream.next().await;
        }
    }

    fn show_update(&mut self, context: &X509Context) -> Result<(), Failure> {
        self.gap = None;
        self.updates += 1;
        let svids = x509::take(context, self.arguments.write.as_deref())?;
        let bundles = context.bundle_set().iter();
        let bundles =
            bundles.map(|(name, bundle)| (name.to_string(), files::pem(bundle.authorities())));
        self.print(Event {
            event: "update",
            svids: Some(svids),
            bundles: Some(bundles.collect()),
            ..Event::default()
        })
    }

    /// Shows it unless it lasts already. What was withdrawn must not be used any more
    /// (SPIFFE_Workload_API.md section 5.2.1), so its files go; what merely cannot be renewed stays.
    fn show_gap(&mut self, gap: Gap) -> Result<(), Failure> {
        if self.gap.as_ref() == Some(&gap) {
            return Ok(());
        }
        let (event, reason) = match &gap {
            Gap::Withdrawn(reason) => ("withdrawn", reason),
            Gap::Unavailable(reason) => ("unavailable", reason),
        };
        if let (Gap::Withdrawn(_), Some(directory)) = (&gap, &self.arguments.write) {
            files::remove_all(directory)?;
        }
        self.print(Event {
            event,
            reason: Some(reason),
            ..Event::default()
        })?;
        self.gap = Some(gap);
        Ok(())
    }

    fn print(&self, event: Event<'_>) -> Result<(), Failure> {
        let event = Event {
            time: rfc3339(SystemClock.now()),
            ..event
        };
        match self.arguments.client.output {
            OutputFormat::Json => output::print_json(&event),
            OutputFormat::Text => output::print(&event.text()),
        }
    }
}

impl Event<'_> {
    fn text(&self) -> String {
        let Self { time, event, .. } = self;
        let reason = self.reason.map(|reason| format!(": {reason}"));
        let svids = self.svids.iter().flatten().map(Svid::lines);
        let bundles = self.bundles.iter().flatten().map(|(name, roots)| {
            let count = roots.matches("-----BEGIN").count();
            format!("Trusts:     {name} (X.509 authorities: {count})\n")
        });
        format!("{time} {event}{}\n", reason.unwrap_or_default())
            + &svids.chain(bundles).collect::<String>()
            + "\n"
    }
}

/// What to make of an error: most pass. A request that is refused as such, or a profile that is
/// switched off, will be refused again.
fn gap(error: WorkloadApiError) -> Result<Gap, Failure> {
    let lasts = [
        GrpcStatusCode::InvalidArgument,
        GrpcStatusCode::Unimplemented,
    ];
    match error {
        WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => {
            Ok(Gap::Withdrawn(words(&error)))
        }
        error if lasts.iter().any(|&code| has_code(&error, code)) => Err(refused(error)),
        error => Ok(Gap::Unavailable(words(&error))),
    }
}

fn listen_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new("SG0008", &error))
}

/// Waits until nobody reads standard output any more: between two updates an hour may pass.
fn reader_gone() -> io::Result<()> {
    let stdout = io::stdout();
    // Without events to wait for, only an error or the other side's end is reported.
    let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    loop {
        match poll(&mut watched, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            outcome => return outcome.map(|_| ()).map_err(io::Error::from),
        }
    }
}
