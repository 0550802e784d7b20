//! What the played server does wrong on request.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tonic::body::Body;
use tonic::{Code, Status};

/// What happens to the calls of a method.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Each answer takes longer: before the server does anything for it,
    Slow(Duration),
    /// or when that is done.
    Late(Duration),
    /// It is refused.
    Refuse(Code),
    /// The answer's first half comes, and then the stream is reset.
    Cut,
    /// The answer has this many bytes more, in a field that nobody knows.
    Oversize(usize),
    /// The last result is left out.
    Fewer,
    /// What is signed is not what was asked for.
    Forge(Forgery),
}

/// What of an SVID is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgery {
    Id,
    Key,
    Authority,
    /// The server's clock is ahead: it does not count yet.
    Early,
    /// The server's clock is behind: it counts no more.
    Late,
}

impl Fault {
    /// What comes before the call is answered at all.
    pub(super) async fn before(self) -> Result<(), Status> {
        match self {
            Self::Slow(time) => tokio::time::sleep(time).await,
            Self::Refuse(code) => return Err(Status::new(code, "refused on request")),
            _ => {}
        }
        Ok(())
    }

    /// What becomes of an answer.
    pub(super) async fn after(self, answer: Response<Body>) -> Response<Body> {
        match self {
            Self::Late(time) => {
                tokio::time::sleep(time).await;
                answer
            }
            Self::Cut => {
                let (head, mut body) = answer.into_parts();
                let first = body.frame().await.and_then(Result::ok);
                let first = first.and_then(|frame| frame.into_data().ok());
                let half = first.map(|first| Ok(Frame::data(first.slice(..first.len() / 2))));
                let frames = half
                    .into_iter()
                    .chain([Err(Status::internal("cut on request"))]);
                let body = Body::new(StreamBody::new(stream::iter(Vec::from_iter(frames))));
                Response::from_parts(head, body)
            }
            Self::Oversize(bytes) => {
                let (head, body) = answer.into_parts();
                let body = body.collect().await.expect("it is ours").to_bytes();
                Response::from_parts(head, oversize(&body, bytes))
            }
            _ => answer,
        }
    }

    pub(super) fn forgery(self) -> Option<Forgery> {
        match self {
            Self::Forge(forgery) => Some(forgery),
            _ => None,
        }
    }
}

/// A message with a field of this length at its end.
fn oversize(framed: &Bytes, bytes: usize) -> Body {
    let message = framed.slice(5.min(framed.len())..);
    let mut longer = BytesMut::from(&message[..]);
    // Field 1000, with a length.
    longer.put_slice(&[0xc2, 0x3e]);
    let mut rest = bytes;
    while rest >= 0x80 {
        longer.put_u8(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
        rest >>= 7;
    }
    longer.put_u8(u8::try_from(rest).expect("seven bits"));
    longer.resize(longer.len() + bytes, 0);
    let mut frame = BytesMut::with_capacity(longer.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(longer.len()).expect("it is not that long"));
    frame.extend_from_slice(&longer);
    let ok = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    Body::new(Full::new(frame.freeze()).with_trailers(async move { Some(Ok(ok)) }))
}
