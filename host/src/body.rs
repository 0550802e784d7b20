//! The body of a component's response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::ending::Ending;
use crate::error::InvokeError;

/// The body of a response, as the component writes it. It ends in an error if the component fails
/// before it is complete; a proxy must then cut the connection or reset the stream.
pub type ResponseBody = UnsyncBoxBody<Bytes, InvokeError>;

/// The task of the instance that writes a body.
type Instance = AbortOnDropHandle<()>;

/// Passes on what an instance writes, and ends it when nobody listens any more.
pub(crate) struct GuestBody {
    inner: HyperOutgoingBody,
    /// What is left of the announced length, in bytes.
    remaining: Option<u64>,
    /// The caller has all that it can get, though the end may not have been seen.
    delivered: bool,
    /// No frame follows.
    finished: bool,
    ending: Arc<Ending>,
    /// Taken when this is dropped.
    instance: Option<Instance>,
}

impl GuestBody {
    /// Checks a guest's response, and watches over its body.
    ///
    /// `head_only` says that the request's method was HEAD.
    pub(crate) fn respond(
        response: Response<HyperOutgoingBody>,
        head_only: bool,
        ending: Arc<Ending>,
        instance: Instance,
    ) -> Result<Response<ResponseBody>, InvokeError> {
        let without_body = head_only || response.status() == StatusCode::NOT_MODIFIED;
        let empty = response.body().is_end_stream();
        let length = check(&response, empty && !without_body).map_err(|reason| {
            let error = InvokeError::InvalidResponse { reason };
            ending.failed(error.clone());
            error
        })?;
        Ok(response.map(|inner| {
            let remaining = if without_body { None } else { length };
            let finished = without_body || empty;
            let instance = Some(instance);
            Self {
                inner,
                remaining,
                delivered: finished,
                finished,
                ending,
                instance,
            }
            .boxed_unsync()
        }))
    }

    /// Keeps count of what is passed on, which is no more than was announced.
    fn passed_on(&mut self, frame: &Frame<Bytes>) -> Result<(), InvokeError> {
        let Some(data) = frame.data_ref() else {
            self.finished = true; // Trailers are the last.
            self.delivered = true;
            return Ok(());
        };
        if let Some(remaining) = self.remaining {
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let Some(remaining) = remaining.checked_sub(length) else {
                return Err(self.incomplete());
            };
            self.remaining = Some(remaining);
            // Servers do not ask again when all of the announced length is there.
            self.delivered = remaining == 0;
        }
        Ok(())
    }

    /// The channel is closed: because the guest finished the body, or because it failed.
    fn ended(&mut self) -> Result<(), InvokeError> {
        if let Some(error) = self.ending.failure() {
            return Err(error);
        }
        if self.remaining.is_some_and(|remaining| remaining > 0) {
            return Err(self.incomplete());
        }
        self.finished = true;
        self.delivered = true;
        Ok(())
    }

    fn incomplete(&self) -> InvokeError {
        self.ending.failed(InvokeError::IncompleteBody);
        InvokeError::IncompleteBody
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = InvokeError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InvokeError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(self.passed_on(&frame).map(|()| frame)),
            Some(Err(_)) => Some(Err(self.incomplete())),
            None => self.ended().err().map(Err),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.finished
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take() {
            if self.delivered {
                // The caller has everything. The guest may go on until its deadline.
                instance.detach();
            } else {
                drop(instance);
            }
        }
    }
}

/// The announced length of a response that a server can send.
fn check(
    response: &Response<HyperOutgoingBody>,
    lacks_body: bool,
) -> Result<Option<u64>, &'static str> {
    if response.status().is_informational() {
        return Err("its status is informational");
    }
    let length = content_length(response.headers())?;
    if lacks_body && length.is_some_and(|length| length > 0) {
        return Err("it has a content-length, but no body");
    }
    Ok(length)
}

/// The announced length, if there is one and it is valid.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err("it has more than one content-length");
    }
    let value = value
        .to_str()
        .map_err(|_| "its content-length is not a number")?;
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("its content-length is not a number");
    }
    value
        .parse()
        .map(Some)
        .map_err(|_| "its content-length is not a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_length_is_one_decimal_number() {
        let check = |values: &[&str], expected: Option<Option<u64>>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_LENGTH, value.parse().unwrap());
            }
            assert_eq!(content_length(&headers).ok(), expected, "{values:?}");
        };
        check(&[], Some(None));
        check(&["12"], Some(Some(12)));
        check(&["+1"], None);
        check(&[""], None);
        check(&["99999999999999999999"], None);
        check(&["1", "1"], None);
    }
}
