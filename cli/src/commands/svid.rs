//! `sidegate svid`: a client of any SPIFFE Workload API.

mod bundle;
mod files;
mod jwt;
mod watch;
mod x509;

use std::time::{Duration, SystemTime};

use spiffe::transport::{GrpcStatusCode, TransportError};
use spiffe::{WorkloadApiClient, WorkloadApiError};

use super::block_on;
use crate::arguments::{FetchCommand, SvidCommand};
use crate::failure::{Failure, chain};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Does what the command line says. `false` is the answer no.
pub(super) fn execute(command: &SvidCommand) -> Result<bool, Failure> {
    match command {
        SvidCommand::Fetch(FetchCommand::X509(arguments)) => x509::fetch(arguments)?,
        SvidCommand::Fetch(FetchCommand::Jwt(arguments)) => jwt::fetch(arguments)?,
        SvidCommand::Watch(arguments) => watch::watch(arguments)?,
        SvidCommand::Bundle(arguments) => bundle::show(arguments)?,
        SvidCommand::Validate(arguments) => return jwt::validate(arguments),
    }
    Ok(true)
}

/// Connects to a Workload API and asks it one thing, in bounded time.
fn ask<T>(
    socket: &str,
    question: impl AsyncFnOnce(WorkloadApiClient) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let endpoint = endpoint(socket);
    let asking = async {
        let connected = WorkloadApiClient::connect_to(&endpoint).await;
        let client = connected.map_err(|error| {
            Failure::message("SG0050", unreachable(&endpoint, &error))
                .help("is Sidegate running? `sidegate up` prints its socket")
        })?;
        question(client).await
    };
    block_on(async {
        tokio::time::timeout(TIMEOUT, asking)
            .await
            .unwrap_or_else(|_| Err(Failure::message("SG0050", silent(&endpoint))))
    })
}

/// The Workload API refuses, in its own words.
fn refused(error: WorkloadApiError) -> Failure {
    let words = words(&error);
    let failure = Failure::message("SG0050", format!("the Workload API refuses: {words}"));
    match error {
        WorkloadApiError::NoIdentityIssued => {
            failure.help("an entry must match this process, such as unix:uid:<id -u>")
        }
        _ => failure,
    }
}

/// What the Workload API says, or what is wrong with what it says.
fn words(error: &WorkloadApiError) -> String {
    match error {
        WorkloadApiError::PermissionDenied(words) => words.clone(),
        WorkloadApiError::Transport(TransportError::Status(status)) => status.message().to_owned(),
        _ => chain(error),
    }
}

fn unreachable(endpoint: &str, error: &WorkloadApiError) -> String {
    format!("{endpoint} cannot be reached: {}", chain(error))
}

fn silent(endpoint: &str) -> String {
    format!("{endpoint} did not answer within {}s", TIMEOUT.as_secs())
}

/// Whether the Workload API answered with this code.
fn has_code(error: &WorkloadApiError, code: GrpcStatusCode) -> bool {
    matches!(
        error,
        WorkloadApiError::Transport(TransportError::Status(status)) if status.code() == code
    )
}

/// A bare path is a Unix socket.
fn endpoint(socket: &str) -> String {
    if socket.contains(':') {
        return socket.to_owned();
    }
    let path = std::path::absolute(socket).unwrap_or_else(|_| socket.into());
    format!("unix://{}", path.display())
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
