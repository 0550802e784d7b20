//! An HTTP/2 client that sends whatever frames it is told to (RFC 9113 section 4).

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{Client, patiently};

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const PRIORITY: u8 = 0x2;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;

pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A connection for bare frames.
pub(crate) struct Peer {
    stream: TlsStream<TcpStream>,
}

/// A frame from the proxy.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Peer {
    /// Connects and says hello.
    pub(crate) async fn connect(client: &Client) -> Self {
        Self::connect_with(client, &[]).await
    }

    /// The same with settings.
    pub(crate) async fn connect_with(client: &Client, settings: &[u8]) -> Self {
        let mut peer = Self::without_hello(client).await;
        let hello = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(SETTINGS, 0, 0, settings),
        ];
        peer.send(&hello.concat()).await;
        peer
    }

    /// Only connects.
    pub(crate) async fn without_hello(client: &Client) -> Self {
        Self {
            stream: client.connect_for(b"h2").await,
        }
    }

    /// Sends bytes; what cannot be sent any more is as good as sent.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// The next frame; `None` at the connection's end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        patiently(self.read()).await.ok()
    }

    /// The frames until the connection's end.
    pub(crate) async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }

    /// The frames of a stream until one of this kind. Panics where the connection ends before.
    pub(crate) async fn until(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection lives");
            if (frame.kind, frame.stream) == (kind, stream) {
                return frame;
            }
        }
    }

    async fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let [l0, l1, l2, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        let mut payload = vec![0; usize::try_from(length).expect("a length")];
        self.stream.read_exact(&mut payload).await?;
        Ok(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream),
            payload,
        })
    }
}

/// The error codes of `GOAWAY`s among frames.
pub(crate) fn goaways(frames: &[Frame]) -> Vec<u32> {
    let goaways = frames.iter().filter(|frame| frame.kind == GOAWAY);
    let code = |frame: &Frame| u32::from_be_bytes(frame.payload[4..8].try_into().unwrap());
    goaways.map(code).collect()
}

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A head as HPACK literals that nobody has to remember.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(text.len(), &mut block);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// What a request begins with.
pub(crate) fn pseudo<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [
        (":method", method),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
    ]
}

/// A whole GET.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    let head = block(&pseudo("GET", path));
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)
}

/// The head of a POST whose body is to come.
pub(crate) fn post(stream: u32, path: &str) -> Vec<u8> {
    let head = block(&pseudo("POST", path));
    frame(HEADERS, END_HEADERS, stream, &head)
}

/// A length with a prefix of seven bits (RFC 7541 section 5.1).
fn integer(length: usize, block: &mut Vec<u8>) {
    if length < 127 {
        block.push(u8::try_from(length).unwrap());
        return;
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128 + 128).unwrap());
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}
