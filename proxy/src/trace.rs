//! Traces: which one a request belongs to, and what is told of its way through here.
//!
//! ```text
//! client ── traceparent: T-A ──▶ server span S, child of A ──▶ policy, decision log: T-S
//!                                  └─ client span C, child of S ── traceparent: T-C ──▶ upstream
//! ```
//! Without a collector there are no spans; the trace is continued or started all the same, and the
//! upstream's parent is S.

mod context;
mod queue;
mod sampler;
mod span;
mod state;

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};

pub use context::{SpanId, TraceId};
pub use queue::{SpanQueue, TraceMetrics};
pub use sampler::{RootSampler, Sampler};
pub use span::{AttributeValue, Span, SpanKind};

use context::{Context, Flags};
pub(crate) use span::{Ended, EndedCall};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Decides which requests are recorded, and takes what is told of them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tracer {
    sampler: Sampler,
    queue: Option<SpanQueue>,
}

/// One request's place in its trace.
#[derive(Debug)]
pub(crate) struct Trace {
    context: Context,
    /// The caller's span.
    parent: Option<SpanId>,
    /// As it is forwarded.
    state: Option<HeaderValue>,
    recorded: Option<Recorded>,
}

/// What is kept of a request that is recorded.
#[derive(Debug)]
struct Recorded {
    queue: SpanQueue,
    begun: SystemTime,
    /// The span of the call of the upstream.
    call: SpanId,
}

impl Tracer {
    /// Traces are continued and started, and nothing is recorded of them. What is behind decides for
    /// itself whether to record those that are started.
    pub fn off() -> Self {
        Self {
            sampler: Sampler::ParentBased(RootSampler::AlwaysOn),
            queue: None,
        }
    }

    /// Records what the sampler says.
    pub fn new(sampler: Sampler, queue: SpanQueue) -> Self {
        Self {
            sampler,
            queue: Some(queue),
        }
    }

    /// Continues the trace of a request, or starts one where it brings none.
    pub(crate) fn begin(&self, headers: &HeaderMap, now: SystemTime) -> Trace {
        let brought = Context::of(headers);
        let state = brought.and_then(|_| state::of(headers));
        let trace_id = brought.map_or_else(TraceId::random, |context| context.trace_id);
        let parent_flags = brought.map(|context| context.flags);
        let is_sampled = self.sampler.samples(trace_id, parent_flags);
        let context = Context {
            trace_id,
            span_id: SpanId::random(),
            flags: parent_flags
                .unwrap_or(Flags::RANDOM)
                .with_sampled(is_sampled),
        };
        let queue = self.queue.as_ref().filter(|_| is_sampled);
        Trace {
            context,
            parent: brought.map(|context| context.span_id),
            state,
            recorded: queue.map(|queue| Recorded {
                queue: queue.clone(),
                begun: now,
                call: SpanId::random(),
            }),
        }
    }
}

impl Trace {
    pub(crate) fn trace_id(&self) -> TraceId {
        self.context.trace_id
    }

    /// This request's own span.
    pub(crate) fn span_id(&self) -> SpanId {
        self.context.span_id
    }

    /// Writes it into a head that is to be decided on and forwarded.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.context.header());
        match &self.state {
            Some(state) => headers.insert(TRACESTATE, state.clone()),
            None => headers.remove(TRACESTATE),
        };
    }

    /// Writes the span of the call of the upstream into a head that [`Trace::put`] has written
    /// into, unless the policy has taken it out.
    pub(crate) fn call(&self) -> Option<CallTrace> {
        let recorded = self.recorded.as_ref()?;
        Some(CallTrace {
            own: self.context.header(),
            call: Context {
                span_id: recorded.call,
                ..self.context
            }
            .header(),
        })
    }
}

/// What replaces a request's own span on its way to the upstream.
#[derive(Debug)]
pub(crate) struct CallTrace {
    own: HeaderValue,
    call: HeaderValue,
}

impl CallTrace {
    /// Writes it, unless the policy has written something else.
    pub(crate) fn put(self, headers: &mut HeaderMap) {
        if headers.get(TRACEPARENT) == Some(&self.own) {
            headers.insert(TRACEPARENT, self.call);
        }
    }
}

#[cfg(test)]
mod tests;
