//! HTTP/2: several requests at a time on a connection.

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode, Uri};

use super::super::cases::REPLY;
use super::super::credentials::SERVER_NAME;
use super::connect::Target;
use super::path;
use crate::policy::cases::PATHS;

/// Room for what is under way on a connection, in bytes.
const WINDOW: u32 = 1024 * 1024;

/// One of those that share a connection.
pub(super) struct Client {
    requests: SendRequest<Bytes>,
    uris: Rc<[Uri]>,
    next: usize,
}

/// Connects. The connection lives as long as its clients.
pub(super) async fn connect(target: &Target, connection: usize) -> Result<SendRequest<Bytes>> {
    let stream = target.connect(connection).await?;
    let (requests, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .enable_push(false)
        .handshake(stream)
        .await?;
    tokio::task::spawn_local(async move {
        // How it ended is seen by whoever waits for a response.
        let _ = connection.await;
    });
    Ok(requests)
}

/// One for each path.
pub(super) fn uris(method: &Method, connection: usize) -> Result<Vec<Uri>> {
    (0..PATHS)
        .map(|number| {
            let path = path(method, connection, number);
            Ok(format!("https://{SERVER_NAME}{path}").parse()?)
        })
        .collect()
}

impl Client {
    /// `first`: which path it begins with.
    pub(super) fn new(requests: SendRequest<Bytes>, uris: Rc<[Uri]>, first: usize) -> Self {
        let next = first;
        Self {
            requests,
            uris,
            next,
        }
    }

    /// Where the next request goes.
    pub(super) fn next(&mut self) -> Result<Uri> {
        let uri = self.uris.get(self.next % PATHS);
        self.next += 1;
        Ok(uri.context("there are paths")?.clone())
    }

    /// What sends it, once it may be sent.
    pub(super) async fn ready(&self) -> Result<SendRequest<Bytes>> {
        Ok(self.requests.clone().ready().await?)
    }

    /// Asks, and reads the whole answer.
    pub(super) async fn once(&mut self) -> Result<()> {
        let request = Request::get(self.next()?)
            .header("user-agent", "bench/1.0")
            .header("accept", "application/json")
            .body(())?;
        let (response, _) = self.ready().await?.send_request(request, true)?;
        let response = response.await?;
        let status = response.status();
        ensure!(status == StatusCode::OK, "the answer is {status}");
        let mut body = response.into_body();
        let mut length = 0;
        while let Some(count) = read(&mut body).await? {
            length += count;
        }
        ensure!(length == REPLY, "{length} bytes came back");
        Ok(())
    }
}

/// How much came; `None` at the end.
pub(super) async fn read(body: &mut RecvStream) -> Result<Option<usize>> {
    let Some(data) = body.data().await else {
        return Ok(None);
    };
    let count = data?.len();
    body.flow_control().release_capacity(count)?;
    Ok(Some(count))
}
