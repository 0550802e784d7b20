//! gRPC: every message comes back.

use anyhow::Result;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;

/// Room for what is under way on a connection, in bytes.
const WINDOW: u32 = 1024 * 1024;

/// Serves a connection to its end.
pub(super) async fn echo(stream: TcpStream) -> Result<()> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(stream)
        .await?;
    while let Some(call) = connection.accept().await {
        let (request, responder) = call?;
        // How a call ended is seen by the proxy.
        tokio::spawn(answer(request, responder));
    }
    Ok(())
}

/// The head at once, then the messages as they come, then the trailers.
async fn answer(request: Request<RecvStream>, mut responder: SendResponse<Bytes>) -> Result<()> {
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())?;
    let mut sender = responder.send_response(head, false)?;
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        if !data.is_empty() {
            sender.send_data(data, false)?;
        }
    }
    let status = HeaderValue::from_static("0");
    sender.send_trailers(HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        status,
    )]))?;
    Ok(())
}
