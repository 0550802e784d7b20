//! Which requests are recorded: OpenTelemetry's samplers, by the names that its SDKs have for them.

use super::context::{Flags, TraceId};

/// Decides which requests are recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampler {
    /// The same, whoever calls.
    Always(RootSampler),
    /// As the caller decided; this one for traces that begin here.
    ParentBased(RootSampler),
}

/// Decides on traces as a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RootSampler {
    /// All of them.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// This part of them, from 0 to 1, by their ids.
    TraceIdRatio(f64),
}

impl Sampler {
    pub(super) fn samples(self, trace_id: TraceId, parent: Option<Flags>) -> bool {
        match (self, parent) {
            (Self::ParentBased(_), Some(flags)) => flags.is_sampled(),
            (Self::ParentBased(root) | Self::Always(root), _) => root.samples(trace_id),
        }
    }
}

impl RootSampler {
    fn samples(self, trace_id: TraceId) -> bool {
        match self {
            Self::AlwaysOn => true,
            Self::AlwaysOff => false,
            Self::TraceIdRatio(ratio) => {
                // As the SDKs do it, so that one trace is sampled by all or by none.
                let bound = (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64;
                trace_id.low() >> 1 < bound
            }
        }
    }
}
