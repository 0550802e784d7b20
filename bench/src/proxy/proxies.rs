//! The proxies: how each is configured and started.

mod envoy;
mod haproxy;
mod nginx;
mod sidegate;

use std::fmt;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use super::Options;
use super::cases::{Case, Group};
use super::credentials::Credentials;
use super::load::{Negotiated, Target};
use super::process::Process;

/// How long a proxy may take until it serves.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long until it is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Proxy {
    /// hyper and rustls, and nothing else
    Floor,
    /// The binary, with everything on
    Sidegate,
    /// Envoy with its RBAC filter over the same callers, without an access log
    EnvoyRbac,
    /// haproxy without any policy
    Haproxy,
    /// nginx without any policy
    Nginx,
}

/// A proxy that serves.
pub(super) struct Running {
    pub(super) proxy: Proxy,
    pub(super) process: Process,
    pub(super) address: SocketAddr,
    /// Where it tells its metrics, if it does.
    pub(super) admin: Option<SocketAddr>,
    pub(super) negotiated: Negotiated,
}

/// What a configuration is made of.
struct Setup<'a> {
    credentials: &'a Credentials,
    /// A folder of this proxy's own.
    folder: PathBuf,
    address: SocketAddr,
    admin: SocketAddr,
    upstream: SocketAddr,
    group: Group,
    workers: u16,
}

impl Proxy {
    pub(super) const ALL: [Self; 5] = [
        Self::Floor,
        Self::Sidegate,
        Self::EnvoyRbac,
        Self::Haproxy,
        Self::Nginx,
    ];

    /// Its program, or `None` where this machine has none.
    pub(super) fn program(self, options: &Options) -> Result<Option<PathBuf>> {
        Ok(match self {
            Self::Floor => Some(std::env::current_exe()?),
            Self::Sidegate => Some(options.binary.clone()),
            Self::EnvoyRbac => options.envoy.clone(),
            Self::Haproxy => options.haproxy.clone(),
            Self::Nginx => options.nginx.clone(),
        })
    }

    /// The command that starts it, its configuration written.
    fn command(self, program: &Path, setup: &Setup<'_>) -> Result<Command> {
        let mut command = Command::new(program);
        match self {
            Self::Floor => floor(&mut command, setup),
            Self::Sidegate => sidegate::configure(&mut command, setup)?,
            Self::EnvoyRbac => envoy::configure(&mut command, setup)?,
            Self::Haproxy => haproxy::configure(&mut command, setup)?,
            Self::Nginx => nginx::configure(&mut command, setup)?,
        }
        Ok(command)
    }
}

impl Running {
    /// Starts a proxy for a group of cases, and waits until it does handshakes.
    pub(super) async fn start(
        proxy: Proxy,
        program: &Path,
        credentials: &Credentials,
        upstream: SocketAddr,
        group: Group,
        workers: u16,
    ) -> Result<Self> {
        let folder = tempfile::tempdir_in(credentials.folder())?.keep();
        let setup = Setup {
            credentials,
            folder,
            address: free()?,
            admin: free()?,
            upstream,
            group,
            workers,
        };
        let mut command = proxy.command(program, &setup)?;
        let (output, log) = (setup.folder.join("output"), setup.folder.join("log"));
        let mut process = Process::start(&mut command, &output, &log)?;
        let target = Target::new(setup.address, credentials, Case::H1)?;
        let began = Instant::now();
        let negotiated = loop {
            process.check()?;
            match target.negotiated().await {
                Ok(negotiated) => break negotiated,
                Err(error) if began.elapsed() > PATIENCE => {
                    let said = fs::read_to_string(&log).unwrap_or_default();
                    bail!("it is not ready: {error:#}: {}", said.trim());
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        Ok(Self {
            proxy,
            process,
            address: setup.address,
            admin: (proxy == Proxy::Sidegate).then_some(setup.admin),
            negotiated,
        })
    }
}

impl Setup<'_> {
    /// Writes a file into the proxy's folder.
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("{} is not written", path.display()))?;
        Ok(path)
    }
}

fn floor(command: &mut Command, setup: &Setup<'_>) {
    command
        .arg("floor")
        .args(["--listen", &setup.address.to_string()])
        .args(["--upstream", &setup.upstream.to_string()])
        .args(["--workers", &setup.workers.to_string()])
        .arg("--credentials")
        .arg(setup.credentials.folder());
    if setup.group == Group::Http2 {
        command.arg("--http2-upstream");
    }
}

/// A port of loopback that nobody has.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl fmt::Display for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        formatter.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}
