//! Reads of a request's body what the policy has to see, before it is asked.
//!
//! Reading it is also what sends `100 Continue` to a caller that waits for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::ProxyError;
use crate::listener::BodyLimits;
use crate::request_body::RequestBody;
use crate::upstream::UpstreamError;

/// What bodies may take up at least that wait for their decision on one connection: 8 KiB for each of
/// the streams that it may have.
const BUDGET: usize = 256 * 8 * 1024;

/// How many bodies of the largest size may wait on one connection, where that is more.
const LARGEST_BODIES: usize = 4;

/// The room that one connection's requests have for bodies that wait for their decision.
///
/// Who finds none is refused and does not wait: on HTTP/2 bodies that nobody reads take up the
/// connection's window, and those that are to make room would not arrive.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new(limits: BodyLimits) -> Self {
        let bytes = BUDGET.max(limits.max_request_bytes.saturating_mul(LARGEST_BODIES));
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Makes `taken` larger by this many bytes, if there is room.
    fn take(&self, bytes: usize, taken: &mut Option<OwnedSemaphorePermit>) -> bool {
        let bytes = u32::try_from(bytes).ok();
        let more = bytes.and_then(|bytes| Arc::clone(&self.0).try_acquire_many_owned(bytes).ok());
        match (more, taken.as_mut()) {
            (Some(more), Some(taken)) => taken.merge(more),
            (Some(more), None) => *taken = Some(more),
            (None, _) => return false,
        }
        true
    }
}

/// What the policy sees, and what is forwarded: the same bytes, and the rest as it comes.
pub(super) async fn read(
    mut body: Incoming,
    limits: BodyLimits,
    budget: &Budget,
    pause: Duration,
) -> Result<(sidegate_policy::RequestBody, RequestBody), ProxyError> {
    let max = limits.max_request_bytes;
    let too_large = ProxyError::BodyTooLarge { limit: max };
    let least = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if least > max && !limits.allow_partial_message {
        return Err(too_large);
    }
    let mut read = BytesMut::new();
    let mut reserved = None;
    let mut trailers = None;
    let mut is_partial = false;
    loop {
        let frame = timeout(pause, body.frame()).await;
        let Some(frame) = frame.map_err(|_| ProxyError::BodyStalled)? else {
            break;
        };
        let frame =
            frame.map_err(|error| ProxyError::Upstream(UpstreamError::Downstream(error)))?;
        match frame.into_data() {
            Ok(data) => {
                if !budget.take(data.len(), &mut reserved) {
                    return Err(ProxyError::TooManyBodies);
                }
                read.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if limits.allow_partial_message && read.len() >= max {
            is_partial = read.len() > max || !body.is_end_stream();
            break;
        }
        if read.len() > max {
            return Err(too_large);
        }
    }
    let read = read.freeze();
    let seen = sidegate_policy::RequestBody {
        bytes: beginning(&read, max),
        is_partial,
        pack_as_bytes: limits.pack_as_bytes,
    };
    let rest = is_partial.then_some(body);
    Ok((seen, RequestBody::new(read, trailers, rest, reserved)))
}

fn beginning(bytes: &Bytes, max: usize) -> Bytes {
    let mut beginning = bytes.clone();
    beginning.truncate(max);
    beginning
}
