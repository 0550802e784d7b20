//! A WebSocket server to front.

use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::support::{listen, listen_at};

/// A WebSocket server that sends each message back. Asked to `close`, it closes with code 4000.
#[derive(Debug)]
pub(super) struct Server {
    /// `http://host:port`, or `unix://path`.
    pub(super) url: String,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    heads: Mutex<Vec<HeaderMap>>,
    closes: Mutex<Vec<Option<CloseFrame>>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        let url = listen(move |stream| serve(stream, Arc::clone(&shared))).await;
        Self { url, seen }
    }

    /// On a Unix socket.
    pub(super) fn at(socket: &Path) -> Self {
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        let url = listen_at(socket, move |stream| serve(stream, Arc::clone(&shared)));
        Self { url, seen }
    }

    /// The headers of all handshakes so far.
    pub(super) fn heads(&self) -> Vec<HeaderMap> {
        self.seen.heads.lock().expect("nobody panics").clone()
    }

    /// What clients closed with, so far.
    pub(super) fn closes(&self) -> Vec<Option<CloseFrame>> {
        self.seen.closes.lock().expect("nobody panics").clone()
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, seen: Arc<Seen>) {
    #[expect(clippy::result_large_err, reason = "the library has it so")]
    let accept = |request: &Request, mut response: Response| {
        let headers = request.headers();
        if headers.contains_key("sec-websocket-protocol") {
            let chosen = "chat.v2".parse().expect("a value");
            response
                .headers_mut()
                .insert("sec-websocket-protocol", chosen);
        }
        let mut heads = seen.heads.lock().expect("nobody panics");
        heads.push(headers.clone());
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, accept).await else {
        return;
    };
    while let Some(Ok(message)) = socket.next().await {
        let answered = match message {
            Message::Text(text) if text == "close" => {
                let close = CloseFrame {
                    code: 4000.into(),
                    reason: "as you wish".into(),
                };
                socket.close(Some(close)).await
            }
            Message::Close(frame) => {
                let mut closes = seen.closes.lock().expect("nobody panics");
                closes.push(frame);
                continue;
            }
            // The library answers these.
            Message::Ping(_) | Message::Pong(_) => continue,
            message => socket.send(message).await,
        };
        if answered.is_err() {
            return;
        }
    }
}
