//! An origin that records every byte it gets, and knows as little HTTP as it can.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::listen;

/// A raw TCP server. It answers each connection's first request and then only listens.
#[derive(Debug)]
pub(crate) struct Origin {
    /// `http://host:port`.
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        let received = Arc::<Mutex<Vec<_>>>::default();
        let shared = Arc::clone(&received);
        let url = listen(move |stream| serve(stream, Arc::clone(&shared))).await;
        Self { url, received }
    }

    /// What came on each connection so far.
    pub(crate) fn received(&self) -> Vec<String> {
        let received = self.received.lock();
        let received = received.unwrap_or_else(PoisonError::into_inner);
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        received.iter().map(text).collect()
    }

    /// How many requests it was sent, however they were framed.
    pub(crate) fn requests(&self) -> usize {
        let lines = |bytes: &String| bytes.matches(" HTTP/1.").count();
        self.received().iter().map(lines).sum()
    }
}

async fn serve(mut stream: TcpStream, received: Arc<Mutex<Vec<Vec<u8>>>>) {
    let record = |bytes: &[u8]| {
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        received.push(bytes.to_vec());
        received.len() - 1
    };
    let place = record(&[]);
    let mut seen = Vec::new();
    let mut answered = false;
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        seen.extend_from_slice(&buffer[..length]);
        received.lock().unwrap_or_else(PoisonError::into_inner)[place].clone_from(&seen);
        if !answered && let Some(answer) = answer(&String::from_utf8_lossy(&seen)) {
            answered = true;
            // It may be gone.
            let _ = stream.write_all(answer).await;
        }
    }
}

/// The answer to a request that is complete.
fn answer(seen: &str) -> Option<&'static [u8]> {
    let (head, body) = seen.split_once("\r\n\r\n")?;
    let is_complete = match head.split_once("content-length: ") {
        Some((_, length)) => {
            let length = length.lines().next()?.parse().ok()?;
            body.len() >= length
        }
        None if head.contains("transfer-encoding: chunked") => body.ends_with("0\r\n\r\n"),
        None => true,
    };
    if head.starts_with("GET /silent") {
        None
    } else if head.starts_with("GET /stall") {
        Some(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun")
    } else if head.starts_with("GET /large") {
        Some(LARGE)
    } else {
        is_complete
            .then_some(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
    }
}

const LARGE: &[u8] = &{
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
    let mut answer = [b'x'; 1_000_000 + HEAD.len()];
    let mut index = 0;
    while index < HEAD.len() {
        answer[index] = HEAD[index];
        index += 1;
    }
    answer
};
