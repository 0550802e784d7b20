//! What systemd passes, and what it is told.
//!
//! Sockets come as sd_listen_fds(3) describes it. It is told how it goes as sd_notify(3) describes it:
//! one datagram a message, to the socket that the environment names. Without one, nothing is told.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use listenfd::ListenFd;
use nix::time::ClockId;
use sidegate_proxy::{BoundListener, InheritError};
use tracing::warn;

use crate::failure::Failure;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Systemd {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

/// The sockets that systemd passed, in its order. They stay open for as long as the process lives.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    sockets: Vec<Passed>,
}

/// One of them, under its `FileDescriptorName=`.
#[derive(Debug)]
struct Passed {
    name: String,
    socket: io::Result<TcpListener>,
}

/// Why a passed socket is not listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotInherited {
    #[error("systemd passed no socket called `{name}`: {}", passed(names))]
    Missing { name: String, names: Vec<String> },
    #[error("systemd passed {count} sockets called `{name}`")]
    Several { name: String, count: usize },
    #[error("systemd's socket `{name}` cannot be used: {problem}")]
    Unusable { name: String, problem: String },
    #[error("systemd's socket `{name}` cannot be used")]
    Refused {
        name: String,
        #[source]
        source: InheritError,
    },
}

fn passed(names: &[String]) -> String {
    match names {
        [] => "it passed none".to_owned(),
        names => format!("it passed `{}`", names.join("`, `")),
    }
}

impl NotInherited {
    /// The stable diagnostic code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::Several { .. } => "SG0075",
            Self::Unusable { .. } | Self::Refused { .. } => "SG0076",
        }
    }
}

impl Inherited {
    /// What the environment tells of. It is to be called once, and before there are other threads:
    /// what it tells is taken out of it, so that no child takes it for its own.
    #[expect(
        clippy::disallowed_methods,
        reason = "the cli is where the environment is read"
    )]
    pub(crate) fn from_environment() -> Self {
        let variable = |name| std::env::var(name).unwrap_or_default();
        // The descriptors are those of whom this names, and of nobody else.
        if variable("LISTEN_PID") != std::process::id().to_string() {
            return Self::default();
        }
        let names = variable("LISTEN_FDNAMES");
        let mut names = names.split(':').filter(|name| !name.is_empty());
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).map(|index| Passed {
            name: names.next().unwrap_or("unknown").to_owned(),
            socket: passed
                .take_tcp_listener(index)
                .and_then(|socket| socket.ok_or_else(|| io::ErrorKind::NotFound.into())),
        });
        Self {
            sockets: sockets.collect(),
        }
    }

    /// The socket of this name, for so many workers.
    pub(crate) fn socket(
        &self,
        name: &str,
        workers: NonZeroUsize,
    ) -> Result<BoundListener, NotInherited> {
        let called: Vec<_> = self.sockets.iter().filter(|it| it.name == name).collect();
        let name = name.to_owned();
        match called.as_slice() {
            [] => Err(NotInherited::Missing {
                name,
                names: self.sockets.iter().map(|it| it.name.clone()).collect(),
            }),
            [passed] => match &passed.socket {
                Ok(socket) => BoundListener::inherited(socket, workers)
                    .map_err(|source| NotInherited::Refused { name, source }),
                Err(error) => Err(NotInherited::Unusable {
                    name,
                    problem: error.to_string(),
                }),
            },
            several => Err(NotInherited::Several {
                name,
                count: several.len(),
            }),
        }
    }

    /// Tells of those that nobody accepts from, by the names of those that are.
    pub(crate) fn warn_unused<'a>(&self, used: impl Iterator<Item = &'a str> + Clone) {
        for passed in &self.sockets {
            let name = passed.name.as_str();
            if !used.clone().any(|used| used == name) {
                warn!(
                    code = "SG0077",
                    name,
                    "systemd passed a socket that no listener uses: whoever connects to it waits"
                );
            }
        }
    }
}

impl Systemd {
    /// The one that the environment names.
    #[expect(
        clippy::disallowed_methods,
        reason = "the cli is where the environment is read"
    )]
    pub(crate) fn from_environment() -> Result<Self, Failure> {
        let address = std::env::var_os("NOTIFY_SOCKET");
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        // Without the process id, it is for every process of the service.
        let is_for_us = match std::env::var_os("WATCHDOG_PID") {
            Some(id) => id == OsString::from(std::process::id().to_string()),
            None => true,
        };
        let watchdog = number("WATCHDOG_USEC").filter(|_| is_for_us);
        let connected = address.as_deref().map(connect).transpose();
        let socket = connected.map_err(|error| {
            Failure::message("SG0074", format!("NOTIFY_SOCKET cannot be used: {error}"))
        })?;
        Ok(Self {
            socket,
            watchdog: watchdog.filter(|usec| *usec > 0).map(Duration::from_micros),
        })
    }

    /// How often it wants to hear that all is well, at the latest.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some())
    }

    /// Everything is served; also after a reload.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// A reload begins; [`Systemd::ready`] ends it.
    pub(crate) fn reloading(&self) {
        // With it systemd knows that this is an answer to its own signal (Type=notify-reload).
        match ClockId::CLOCK_MONOTONIC.now() {
            Ok(now) => {
                let now = Duration::from(now).as_micros();
                self.tell(&format!(
                    "RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reloading"
                ));
            }
            Err(error) => warn!(code = "SG0074", %error, "there is no monotonic clock"),
        }
    }

    /// The drain begins.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// All is well.
    pub(crate) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, message: &str) {
        let Some((socket, address)) = &self.socket else {
            return;
        };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            warn!(code = "SG0074", %error, "systemd cannot be told");
        }
    }
}

/// A path, or `@` and an abstract name.
fn connect(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::other("neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold up what is served.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
