//! No source at all: there are no identities.

use std::sync::Arc;

use sidegate_identity::TrustDomain;
use sidegate_identity::svid::Identities;
use tokio::sync::watch;
use tracing::info;

use crate::failure::Failure;

/// The trust domain of no identities. It is nobody's (RFC 6761 section 6.4), and nobody is told of it.
const NOBODYS: &str = "none.invalid";

/// Holds nothing, and never will.
pub(crate) struct Off {
    sender: watch::Sender<Arc<Identities>>,
}

/// Something was asked of a source that has no identities.
#[derive(Debug, thiserror::Error)]
#[error(
    "the source `none` has no identities: there are no entries, no authorities and no bundles here"
)]
pub(crate) struct NoIdentities;

impl Off {
    pub(in crate::instance) fn new() -> Result<Self, Failure> {
        let nobodys = TrustDomain::new(NOBODYS).map_err(|error| Failure::new("SG0020", &error))?;
        let none = Identities::new(0, nobodys, Vec::new(), [].into(), [].into());
        let (sender, _) = watch::channel(Arc::new(none));
        Ok(Self { sender })
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Identities>> {
        self.sender.subscribe()
    }

    /// Tells once what is off.
    pub(super) fn tell(&self) {
        info!(
            source = "none",
            "identity is off: no CA, no SVIDs, no Workload API, no SDS, no TLS; listeners take plaintext, \
             and the policy sees no principals"
        );
    }
}

impl NoIdentities {
    pub(crate) fn code(&self) -> &'static str {
        "SG0189"
    }

    pub(crate) fn hint(&self) -> &'static str {
        "for identities, set another `identity.source`, such as \"embedded\", and restart"
    }
}
