//! What the identity plane counts.

use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::svid::{Identities, X509Svid};
use spiffe::SpiffeId;

/// Counters and gauges of the identity plane. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct IdentityMetrics {
    rotations: Family<ResultLabel, Counter>,
    expiry: Family<SpiffeIdLabel, Gauge<f64, AtomicU64>>,
    streams: Family<StreamLabel, Gauge>,
    attestations: Family<ResultLabel, Counter>,
    authority_failures: Counter,
    authority_expiry: Family<AuthorityLabel, Gauge>,
    refused_connections: Counter,
    source_up: Gauge,
    source_expiry: Gauge<f64, AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the labels' values")]
enum Outcome {
    success,
    failure,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpiffeIdLabel {
    spiffe_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AuthorityLabel {
    authority: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabel {
    method: &'static str,
}

impl IdentityMetrics {
    /// Makes and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "svid_rotations",
            "X.509-SVIDs minted or received, or failed to be minted",
            metrics.rotations.clone(),
        );
        registry.register(
            "svid_expiry_timestamp_seconds",
            "When the X.509-SVID in use expires; of the newest of those with the same ID",
            metrics.expiry.clone(),
        );
        registry.register(
            "workload_api_streams_open",
            "Streams that workloads and Envoys hold open",
            metrics.streams.clone(),
        );
        registry.register(
            "attestations",
            "Attestations of callers of the Workload API's socket",
            metrics.attestations.clone(),
        );
        registry.register(
            "authority_renewal_failures",
            "Attempts to renew a root or a JWT key that failed; each second until one succeeds",
            metrics.authority_failures.clone(),
        );
        registry.register(
            "authority_expiry_timestamp_seconds",
            "When the authority that signs now expires",
            metrics.authority_expiry.clone(),
        );
        registry.register(
            "workload_api_connections_refused",
            "Connections to the Workload API's socket that were one too many of their user",
            metrics.refused_connections.clone(),
        );
        registry.register(
            "identity_source_up",
            "0 where the source of identities is away, or what it gives is refused: the SVIDs that \
             there are serve until they expire",
            metrics.source_up.clone(),
        );
        registry.register(
            "identity_source_expiry_timestamp_seconds",
            "When the first of the X.509-SVIDs in use expires; 0 without any",
            metrics.source_expiry.clone(),
        );
        metrics
    }

    /// Makes a series for every value of a label, for the documentation; a SPIFFE ID is `…`.
    pub fn illustrate(&self) {
        for result in [Outcome::success, Outcome::failure] {
            Self::count(&self.rotations, result);
            Self::count(&self.attestations, result);
        }
        for method in [
            "FetchX509SVID",
            "FetchX509Bundles",
            "FetchJWTBundles",
            "StreamSecrets",
        ] {
            drop(self.stream(method));
        }
        for authority in ["x509", "jwt"] {
            self.authority_expires(authority, 0);
        }
        let spiffe_id = "…".to_owned();
        self.expiry
            .get_or_create_owned(&SpiffeIdLabel { spiffe_id });
    }

    pub(crate) fn rotated(&self, svid: &X509Svid) {
        Self::count(&self.rotations, Outcome::success);
        let expiry = seconds(svid);
        let label = SpiffeIdLabel {
            spiffe_id: svid.id().to_string(),
        };
        self.expiry.get_or_create(&label).set(expiry);
    }

    /// Whether the source gives what it should.
    pub(crate) fn source_is_up(&self, is_up: bool) {
        self.source_up.set(i64::from(is_up));
    }

    /// These are the identities from now on.
    pub(crate) fn first_expires(&self, identities: &Identities) {
        let ends = identities.issued().iter().map(|it| seconds(&it.svid));
        self.source_expiry
            .set(ends.reduce(f64::min).unwrap_or_default());
    }

    /// An SVID is no longer in use.
    pub(crate) fn withdrawn(&self, spiffe_id: &SpiffeId) {
        let spiffe_id = spiffe_id.to_string();
        self.expiry.remove(&SpiffeIdLabel { spiffe_id });
    }

    pub(crate) fn authority_failed(&self) {
        self.authority_failures.inc();
    }

    pub(crate) fn authority_expires(&self, authority: &'static str, seconds: u64) {
        let label = AuthorityLabel { authority };
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        self.authority_expiry.get_or_create(&label).set(seconds);
    }

    pub(crate) fn connection_refused(&self) {
        self.refused_connections.inc();
    }

    pub(crate) fn rotation_failed(&self) {
        Self::count(&self.rotations, Outcome::failure);
    }

    pub(crate) fn attested(&self, success: bool) {
        let outcome = if success {
            Outcome::success
        } else {
            Outcome::failure
        };
        Self::count(&self.attestations, outcome);
    }

    /// Counts an open stream until the guard is dropped.
    pub fn stream(&self, method: &'static str) -> StreamGuard {
        let gauge = self.streams.get_or_create(&StreamLabel { method }).clone();
        gauge.inc();
        StreamGuard(gauge)
    }

    fn count(family: &Family<ResultLabel, Counter>, result: Outcome) {
        family.get_or_create(&ResultLabel { result }).inc();
    }
}

/// When an SVID ends, in seconds since 1970.
fn seconds(svid: &X509Svid) -> f64 {
    let end = svid.validity().not_after;
    let since_epoch = end.duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.map_or(0.0, |span| span.as_secs_f64())
}

/// One open stream; dropping it is its end.
#[derive(Debug)]
pub struct StreamGuard(Gauge);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
