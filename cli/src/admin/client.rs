//! Asking a running instance.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{Refusal, SOCKET, Status};
use crate::failure::Failure;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A client of the instance that uses a state directory.
pub(crate) struct AdminClient {
    socket: PathBuf,
}

impl AdminClient {
    /// Nothing is connected yet.
    pub(crate) fn new(state: &Path) -> Self {
        Self {
            socket: state.join(SOCKET),
        }
    }

    /// Whether something serves the socket, or may. Only what clearly is not there is not there.
    pub(crate) fn is_there(&self) -> bool {
        match std::os::unix::net::UnixStream::connect(&self.socket) {
            Ok(_) => true,
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::ConnectionRefused
            ),
        }
    }

    /// Asks for everything that `check` shows.
    pub(crate) async fn status(&self) -> Result<Status, Failure> {
        let document: serde_json::Value = self.get("/v1/status").await?;
        match document.get("schema").and_then(serde_json::Value::as_u64) {
            Some(Status::SCHEMA) => serde_json::from_value(document)
                .map_err(|error| self.unreachable(&error.to_string())),
            _ => Err(self
                .unreachable("its status is in a form that this version does not know")
                .help("use the `sidegate` of the version that runs")),
        }
    }

    /// Asks for a document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Has something removed.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::DELETE, path, Bytes::new()).await
    }

    /// Has something done.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        document: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(document).map_err(|error| Failure::new("SG0049", &error))?;
        self.ask(Method::POST, path, body.into()).await
    }

    /// Puts a document, as it is, in the place of another.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        document: Vec<u8>,
    ) -> Result<T, Failure> {
        self.ask(Method::PUT, path, document.into()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        let asked = tokio::time::timeout(TIMEOUT, self.exchange(method, path, body)).await;
        let (is_success, answer) = asked.unwrap_or_else(|_| {
            let text = format!("no answer within {}s", TIMEOUT.as_secs());
            Err(self.unreachable(&text))
        })?;
        let unreadable = |error: serde_json::Error| self.unreachable(&error.to_string());
        if is_success {
            return serde_json::from_slice(&answer).map_err(unreadable);
        }
        let refusal: Refusal = serde_json::from_slice(&answer).map_err(unreadable)?;
        Err(refusal.into())
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(bool, Bytes), Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            self.unreachable(&error.to_string())
                .help("is Sidegate running, with this --state, as this user?")
        })?;
        let broken = |error: hyper::Error| self.unreachable(&error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Its errors come out of the exchange too.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "admin")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Failure::new("SG0049", &error))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let is_success = response.status().is_success();
        let answer = response.into_body().collect().await.map_err(broken)?;
        Ok((is_success, answer.to_bytes()))
    }

    fn unreachable(&self, problem: &str) -> Failure {
        let socket = self.socket.display();
        Failure::message("SG0054", format!("{socket} cannot be asked: {problem}"))
    }
}
