//! Request bodies on their way upstream.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use crate::guard::Progress;
use crate::head;

/// A request's body: what was read of it before the decision, and then the rest as it comes.
pub struct RequestBody {
    read: Bytes,
    /// Those of a body that was read to its end.
    trailers: Option<HeaderMap>,
    rest: Option<Incoming>,
    /// Room that what was read takes up.
    reserved: Option<OwnedSemaphorePermit>,
    progress: Option<Arc<Progress>>,
}

impl RequestBody {
    /// A body of which nothing was read.
    pub(crate) fn unread(body: Incoming) -> Self {
        Self::new(Bytes::new(), None, Some(body), None)
    }

    /// What was read, and the rest if there is more.
    pub(crate) fn new(
        read: Bytes,
        trailers: Option<HeaderMap>,
        rest: Option<Incoming>,
        reserved: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            read,
            trailers,
            rest,
            reserved,
            progress: None,
        }
    }

    /// The same, noting when it moves and when it is waited for.
    pub(crate) fn noting(mut self, progress: &Arc<Progress>) -> Self {
        self.progress = Some(Arc::clone(progress));
        self
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.read.is_empty() {
            self.reserved = None;
            let read = std::mem::take(&mut self.read);
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        if let Some(rest) = &mut self.rest {
            let polled = Pin::new(rest).poll_frame(context).map_ok(forwardable);
            if let Some(progress) = &self.progress {
                match &polled {
                    Poll::Ready(_) => progress.moved(),
                    Poll::Pending => progress.waits_for_body(),
                }
            }
            return polled;
        }
        let trailers = self.trailers.take().map(Frame::trailers);
        Poll::Ready(trailers.map(|trailers| Ok(forwardable(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        let rest = self.rest.as_ref();
        self.read.is_empty() && self.trailers.is_none() && rest.is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = u64::try_from(self.read.len()).unwrap_or(u64::MAX);
        let rest = self.rest.as_ref().map(Body::size_hint);
        let mut size = rest.unwrap_or_else(|| SizeHint::with_exact(0));
        if let Some(upper) = size.upper() {
            size.set_upper(upper.saturating_add(read));
        }
        size.set_lower(size.lower().saturating_add(read));
        size
    }
}

impl Drop for RequestBody {
    /// Nobody waits for it any more.
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.moved();
        }
    }
}

/// The frame without what only a head may say.
fn forwardable(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            head::strip_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RequestBody")
            .field("read", &self.read.len())
            .finish_non_exhaustive()
    }
}
