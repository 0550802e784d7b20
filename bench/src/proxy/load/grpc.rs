//! gRPC: a call for each message, or many messages on one.

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Request, Response, StatusCode, Uri};

use super::super::cases::Case;
use super::http2::{self, read};

/// Messages on one stream; then it ends, and another begins.
const MESSAGES: usize = 100;

/// Calls with one message each way.
pub(super) struct Caller {
    client: http2::Client,
    message: Bytes,
}

/// Messages back and forth.
pub(super) struct Streamer {
    caller: Caller,
    open: Option<Open>,
}

/// A stream.
struct Open {
    sender: SendStream<Bytes>,
    response: Answer,
    sent: usize,
}

/// What comes back, whose head may not be there yet.
enum Answer {
    Awaited(ResponseFuture),
    Begun(RecvStream),
}

impl Caller {
    /// `first`: which path it begins with.
    pub(super) fn new(requests: SendRequest<Bytes>, uris: Rc<[Uri]>, first: usize) -> Self {
        // A flag, a length, and a message of so many bytes.
        let length = Case::GrpcUnary.body() - 5;
        let prefix = [0, 0, 0, 0, u8::try_from(length).unwrap_or(u8::MAX)];
        let message = prefix.into_iter().chain(std::iter::repeat_n(b'x', length));
        Self {
            client: http2::Client::new(requests, uris, first),
            message: message.collect(),
        }
    }

    pub(super) async fn once(&mut self) -> Result<()> {
        let (response, mut sender) = self.call().await?;
        sender.send_data(self.message.clone(), true)?;
        let mut body = begun(response.await?)?;
        let mut length = 0;
        while let Some(count) = read(&mut body).await? {
            length += count;
        }
        ensure!(length == self.message.len(), "{length} bytes came back");
        succeeded(&mut body).await
    }

    async fn call(&mut self) -> Result<(ResponseFuture, SendStream<Bytes>)> {
        let request = Request::post(self.client.next()?)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "bench/1.0")
            .body(())?;
        Ok(self.client.ready().await?.send_request(request, false)?)
    }
}

impl Streamer {
    pub(super) fn new(caller: Caller) -> Self {
        let open = None;
        Self { caller, open }
    }

    /// One message each way.
    pub(super) async fn once(&mut self) -> Result<()> {
        let mut stream = match self.open.take() {
            Some(stream) => stream,
            None => {
                let (response, sender) = self.caller.call().await?;
                Open {
                    sender,
                    response: Answer::Awaited(response),
                    sent: 0,
                }
            }
        };
        let message = self.caller.message.clone();
        let expected = message.len();
        stream.sender.send_data(message, false)?;
        stream.sent += 1;
        let mut body = match stream.response {
            Answer::Awaited(response) => begun(response.await?)?,
            Answer::Begun(body) => body,
        };
        let mut length = 0;
        while length < expected {
            length += read(&mut body).await?.context("the stream has ended")?;
        }
        if stream.sent < MESSAGES {
            stream.response = Answer::Begun(body);
            self.open = Some(stream);
            return Ok(());
        }
        stream.sender.send_data(Bytes::new(), true)?;
        while let Some(count) = read(&mut body).await? {
            ensure!(count == 0, "more comes than was sent");
        }
        succeeded(&mut body).await
    }
}

/// The body of an answer that is one of gRPC.
fn begun(response: Response<RecvStream>) -> Result<RecvStream> {
    let status = response.status();
    ensure!(status == StatusCode::OK, "the answer is {status}");
    if let Some(status) = response.headers().get("grpc-status") {
        let message = response.headers().get("grpc-message");
        ensure!(status == "0", "gRPC status {status:?}: {message:?}");
    }
    Ok(response.into_body())
}

/// Whether the trailers say that the call succeeded.
async fn succeeded(body: &mut RecvStream) -> Result<()> {
    let trailers = body.trailers().await?.context("no trailers")?;
    let status = trailers.get("grpc-status");
    ensure!(
        status.is_some_and(|status| status == "0"),
        "gRPC status {status:?}: {:?}",
        trailers.get("grpc-message")
    );
    Ok(())
}
