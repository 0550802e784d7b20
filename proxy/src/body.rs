//! Response bodies on their way downstream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use crate::access_log::Record;
use crate::activity::InFlight;
use crate::head::strip_trailers;
use crate::open_request::DeniedNow;
use crate::upstream::Stream;
use crate::upstream::http1::PooledBody;

/// An error of a body that comes from elsewhere.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that comes from elsewhere, such as a component.
pub type BoxBody = UnsyncBoxBody<Bytes, BoxError>;

pin_project_lite::pin_project! {
    /// Where a response's body comes from.
    #[project = SourceProjection]
    pub(crate) enum Source {
        Http1 { #[pin] body: PooledBody },
        Http2 { #[pin] body: Incoming },
        Service { #[pin] body: BoxBody },
        Local { #[pin] body: Full<Bytes> },
        // Nothing: what follows is no body.
        Tunnel { stream: Option<Stream> },
    }
}

impl Source {
    pub(crate) fn local(content: impl Into<Bytes>) -> Self {
        Self::Local {
            body: Full::new(content.into()),
        }
    }

    /// The connection to where a tunnel leads, if there is one.
    pub(crate) fn take_tunnel(&mut self) -> Option<Stream> {
        match self {
            Self::Tunnel { stream } => stream.take(),
            _ => None,
        }
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project() {
            SourceProjection::Http1 { body } => body
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            SourceProjection::Http2 { body } => body
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            SourceProjection::Service { body } => body.poll_frame(context),
            SourceProjection::Local { body } => body
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            SourceProjection::Tunnel { .. } => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1 { body } => body.is_end_stream(),
            Self::Http2 { body } => body.is_end_stream(),
            Self::Service { body } => body.is_end_stream(),
            Self::Local { body } => body.is_end_stream(),
            Self::Tunnel { .. } => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1 { body } => body.size_hint(),
            Self::Http2 { body } => body.size_hint(),
            Self::Service { body } => body.size_hint(),
            Self::Local { body } => body.size_hint(),
            Self::Tunnel { .. } => SizeHint::with_exact(0),
        }
    }
}

/// A frame whose trailers, if it is of such, say nothing about the connection or the length: there are
/// clients that take the response for a broken one then (RFC 9113 section 8.2.2).
fn without_framing(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            strip_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

pin_project_lite::pin_project! {
    /// A body that ends its request: when it is dropped, the request is no longer in flight and its
    /// record is written.
    pub(crate) struct Recorded {
        #[pin]
        source: Source,
        record: Box<Record>,
        in_flight: InFlight,
    }
}

impl Recorded {
    pub(crate) fn new(source: Source, mut record: Box<Record>, in_flight: InFlight) -> Self {
        // A body that is at its end already is never asked for more, nor is one that there cannot be.
        if source.is_end_stream() || record.has_no_content() {
            record.complete();
        }
        Self {
            source,
            record,
            in_flight,
        }
    }
}

impl Body for Recorded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let opened = this.record.opened.as_ref();
        if let Some(Poll::Ready(denial)) = opened.map(|opened| opened.poll_denied(context)) {
            this.record.denied(&denial);
            return Poll::Ready(Some(Err(DeniedNow.into())));
        }
        let frame = ready!(this.source.as_mut().poll_frame(context));
        let frame = frame.map(|frame| frame.map(without_framing));
        this.record.progress.moved();
        match &frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                this.record.sent(length);
                // Trailers are the last: nobody asks for more.
                if frame.is_trailers() || this.source.is_end_stream() {
                    this.record.complete();
                }
            }
            Some(Err(error)) => this.record.broken(error.as_ref()),
            None => this.record.complete(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}
