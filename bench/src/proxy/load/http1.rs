//! HTTP/1.1: one request after the other on a connection.

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, Bytes};
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::cases::{Case, REPLY};
use super::super::credentials::SERVER_NAME;
use super::super::http1::head;
use super::connect::{Stream, Target};
use super::path;
use crate::policy::cases::PATHS;

/// How much is read at a time.
const READ: usize = 32 * 1024;

/// Requests, made ahead.
pub(super) struct Requests {
    heads: Vec<String>,
    body: Bytes,
}

/// A connection.
pub(super) struct Client {
    stream: Stream,
    requests: Rc<Requests>,
    next: usize,
    received: Vec<u8>,
}

impl Requests {
    /// One for each path.
    pub(super) fn new(case: Case, connection: usize) -> Self {
        let body = Bytes::from(vec![b'x'; case.body()]);
        let (method, length) = if body.is_empty() {
            (Method::GET, String::new())
        } else {
            (Method::POST, format!("content-length: {}\r\n", body.len()))
        };
        let head = |number| {
            let path = path(&method, connection, number);
            format!(
                "{method} {path} HTTP/1.1\r\nhost: {SERVER_NAME}\r\nuser-agent: bench/1.0\r\n\
                 accept: application/json\r\n{length}\r\n"
            )
        };
        let heads = (0..PATHS).map(head).collect();
        Self { heads, body }
    }
}

impl Client {
    /// Connects. `first`: which request it begins with.
    pub(super) async fn connect(
        target: &Target,
        connection: usize,
        requests: Rc<Requests>,
        first: usize,
    ) -> Result<Self> {
        Ok(Self {
            stream: target.connect(connection).await?,
            requests,
            next: first,
            received: Vec::new(),
        })
    }

    /// Asks, and reads the whole answer.
    pub(super) async fn once(&mut self) -> Result<()> {
        let head = self.requests.heads.get(self.next % PATHS);
        self.next += 1;
        let head = head.context("there are requests")?.as_bytes();
        let mut request = Buf::chain(head, self.requests.body.clone());
        self.stream.write_all_buf(&mut request).await?;
        self.stream.flush().await?;
        self.response().await
    }

    /// Gives back room for what it received.
    pub(super) fn rest(&mut self) {
        self.received = Vec::new();
    }

    async fn response(&mut self) -> Result<()> {
        self.received.clear();
        let response = loop {
            if let Some(head) = head(&self.received)? {
                break head;
            }
            self.read().await?;
        };
        let answer = self.received.get(..response.length).unwrap_or_default();
        ensure!(
            answer.starts_with(b"HTTP/1.1 200 "),
            "the answer is not 200: {}",
            String::from_utf8_lossy(answer)
        );
        let length = response.content_length.context("no content-length")?;
        let expected = match self.requests.body.len() {
            0 => REPLY,
            length => length,
        };
        ensure!(length == expected, "{length} bytes came back");
        let mut arrived = self.received.len() - response.length;
        while arrived < length {
            self.received.clear();
            self.read().await?;
            arrived += self.received.len();
        }
        ensure!(arrived == length, "more comes than was asked for");
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        self.received.reserve(READ);
        let count = self.stream.read_buf(&mut self.received).await?;
        ensure!(count > 0, "the connection is closed");
        Ok(())
    }
}
