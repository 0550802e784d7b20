//! Telling systemd how it goes, as sd_notify(3) describes it: one datagram a message, to the socket
//! that the environment names. Without one, nothing is told.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::time::ClockId;
use tracing::warn;

use crate::failure::Failure;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Systemd {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
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
