//! What is counted of connections that are no more than bytes.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::ListenerLabel;

/// Counters of every TCP listener.
#[derive(Debug, Clone, Default)]
pub(super) struct TcpMetrics {
    ended: Family<TcpLabels, Counter>,
    received: Family<ListenerLabel, Counter>,
    sent: Family<ListenerLabel, Counter>,
}

/// One listener's share of them. They are there once there is something to count.
#[derive(Debug)]
pub(crate) struct TcpCounters {
    listener: String,
    metrics: TcpMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TcpLabels {
    listener: String,
    end: &'static str,
}

impl TcpMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "tcp_connections",
            "TCP connections that have ended, by what ended them",
            metrics.ended.clone(),
        );
        registry.register(
            "tcp_received_bytes",
            "Bytes from the clients of TCP connections",
            metrics.received.clone(),
        );
        registry.register(
            "tcp_sent_bytes",
            "Bytes to the clients of TCP connections",
            metrics.sent.clone(),
        );
        metrics
    }

    pub(super) fn of(&self, listener: &str) -> TcpCounters {
        TcpCounters {
            listener: listener.to_owned(),
            metrics: self.clone(),
        }
    }
}

impl TcpCounters {
    /// A connection has ended, by itself or because of an error.
    pub(crate) fn ended(&self, error: Option<&'static str>) {
        let labels = TcpLabels {
            listener: self.listener.clone(),
            end: error.unwrap_or("complete"),
        };
        self.metrics.ended.get_or_create(&labels).inc();
    }

    /// What counts bytes from clients, and to them.
    pub(crate) fn bytes(&self) -> [Counter; 2] {
        let labels = ListenerLabel {
            listener: self.listener.clone(),
        };
        let TcpMetrics { received, sent, .. } = &self.metrics;
        [received, sent].map(|family| family.get_or_create_owned(&labels))
    }
}
