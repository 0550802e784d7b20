//! `sidegate svid`: a client of any SPIFFE Workload API.

mod jwt;
mod x509;

use std::time::{Duration, SystemTime};

use spiffe::transport::TransportError;
use spiffe::{WorkloadApiClient, WorkloadApiError};

use super::block_on;
use crate::failure::{Failure, chain};

pub(super) use jwt::{fetch as fetch_jwt, validate};
pub(super) use x509::fetch as fetch_x509;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to a Workload API and asks it one thing, in bounded time.
fn ask<T>(
    socket: &str,
    question: impl AsyncFnOnce(WorkloadApiClient) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let endpoint = endpoint(socket);
    let asking = async {
        let connected = WorkloadApiClient::connect_to(&endpoint).await;
        let client = connected.map_err(|error| {
            let text = format!("{endpoint} cannot be reached: {}", chain(&error));
            Failure::message("SG0050", text)
                .help("is Sidegate running? `sidegate up` prints its socket")
        })?;
        question(client).await
    };
    block_on(async {
        tokio::time::timeout(TIMEOUT, asking)
            .await
            .unwrap_or_else(|_| {
                let text = format!("{endpoint} did not answer within {}s", TIMEOUT.as_secs());
                Err(Failure::message("SG0050", text))
            })
    })
}

/// The Workload API refuses, in its own words.
fn refused(error: WorkloadApiError) -> Failure {
    let words = match &error {
        WorkloadApiError::PermissionDenied(words) => words.clone(),
        WorkloadApiError::Transport(TransportError::Status(status)) => status.message().to_owned(),
        _ => chain(&error),
    };
    let failure = Failure::message("SG0050", format!("the Workload API refuses: {words}"));
    match error {
        WorkloadApiError::NoIdentityIssued => {
            failure.help("an entry must match this process, such as unix:uid:<id -u>")
        }
        _ => failure,
    }
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
