//! What the command line itself can see of a running instance.

use std::time::Duration;

use spiffe::{WorkloadApiClient, WorkloadApiError};

use crate::failure::chain;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for the bundles. A caller without an identity is refused: that is an answer, too.
pub(super) async fn workload_api(endpoint: &str) -> Result<(), String> {
    let asking = async {
        let client = WorkloadApiClient::connect_to(endpoint).await?;
        client.fetch_x509_bundles().await
    };
    match in_time(asking).await? {
        Ok(_) | Err(WorkloadApiError::PermissionDenied(_) | WorkloadApiError::NoIdentityIssued) => {
            Ok(())
        }
        Err(error) => Err(chain(&error)),
    }
}

async fn in_time<T>(asking: impl Future<Output = T>) -> Result<T, String> {
    let asked = tokio::time::timeout(TIMEOUT, asking).await;
    asked.map_err(|_| format!("no answer within {}s", TIMEOUT.as_secs()))
}
