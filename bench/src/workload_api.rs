//! A client of the Workload API that costs little: HTTP/2 and gRPC's framing, nothing around them.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;

use anyhow::{Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use prost::Message;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::gate::AUDIENCE;

/// A flag and the length come before each message.
const PREFIX: usize = 5;

/// `X509SVIDResponse`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct X509Response {
    #[prost(message, repeated, tag = "1")]
    pub(crate) svids: Vec<X509Svid>,
}

/// `X509SVID`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct X509Svid {
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) bundle: Bytes,
}

/// `JWTSVIDRequest`.
#[derive(Clone, PartialEq, Message)]
struct JwtRequest {
    #[prost(string, repeated, tag = "1")]
    audience: Vec<String>,
}

/// A call of a method, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: &'static str,
    body: Bytes,
}

/// One connection; dropping it closes it.
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
    driver: JoinHandle<()>,
}

/// The messages of one response.
pub(crate) struct Messages {
    body: RecvStream,
    received: BytesMut,
}

impl Call {
    /// The caller's X.509-SVIDs, and each change.
    pub(crate) fn fetch_x509_svid() -> Self {
        Self::new("FetchX509SVID", &[])
    }

    /// The caller's JWT-SVIDs.
    pub(crate) fn fetch_jwt_svid() -> Self {
        let request = JwtRequest {
            audience: vec![AUDIENCE.to_owned()],
        };
        Self::new("FetchJWTSVID", &request.encode_to_vec())
    }

    fn new(method: &'static str, message: &[u8]) -> Self {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let body = [&[0], length.to_be_bytes().as_slice(), message].concat();
        Self {
            method,
            body: body.into(),
        }
    }
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(socket: &Path) -> Result<Self> {
        Self::over(StdUnixStream::connect(socket)?).await
    }

    /// Speaks over what is connected.
    pub(crate) async fn over(stream: StdUnixStream) -> Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        let (requests, connection) = h2::client::handshake(stream).await?;
        let driver = tokio::spawn(async move {
            // How a connection ended is seen by whoever waits for a response.
            let _ = connection.await;
        });
        Ok(Self { requests, driver })
    }

    /// Sends a call and waits for the head of its response.
    pub(crate) async fn call(&self, call: &Call) -> Result<Messages> {
        let request = Request::post(format!(
            "http://localhost/SpiffeWorkloadAPI/{}",
            call.method
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("workload.spiffe.io", "true")
        .body(())?;
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut body) = requests.send_request(request, false)?;
        body.send_data(call.body.clone(), true)?;
        let response = response.await?;
        check(response.headers())?;
        Ok(Messages {
            body: response.into_body(),
            received: BytesMut::new(),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Messages {
    /// The next message; an error at the end.
    pub(crate) async fn next(&mut self) -> Result<Bytes> {
        loop {
            if let Some(message) = self.take() {
                return Ok(message);
            }
            let Some(data) = self.body.data().await else {
                let trailers = self.body.trailers().await?;
                check(&trailers.unwrap_or_default())?;
                bail!("the stream has ended");
            };
            let data = data?;
            self.body.flow_control().release_capacity(data.len())?;
            self.received.extend_from_slice(&data);
        }
    }

    /// A message that is there whole.
    fn take(&mut self) -> Option<Bytes> {
        let length = self.received.get(1..PREFIX)?.try_into().ok()?;
        let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
        if self.received.len() < PREFIX + length {
            return None;
        }
        self.received.advance(PREFIX);
        Some(self.received.split_to(length).freeze())
    }
}

/// Whether gRPC says that a call failed.
fn check(headers: &HeaderMap) -> Result<()> {
    match headers.get("grpc-status") {
        Some(status) if status != "0" => {
            bail!("gRPC status {status:?}: {:?}", headers.get("grpc-message"))
        }
        _ => Ok(()),
    }
}
