//! What stands behind the proxies: replies from memory, on threads of its own.

mod grpc;

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};
use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cases::{Case, Group, REPLY};
use super::http1::head;

/// How much is read at a time.
const READ: usize = 64 * 1024;

/// Starts an upstream for a group of cases on so many threads, which serve until the process ends.
pub(super) fn start(group: Group, threads: u16) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    for _ in 0..threads {
        let listener = listener.try_clone()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("upstream".to_owned())
            .spawn(move || runtime.block_on(serve(group, listener)))?;
    }
    Ok(address)
}

/// Without a listener each request fails, which the load tells.
async fn serve(group: Group, listener: TcpListener) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // How a connection ended is seen by the proxy at its other end.
        match group {
            Group::Http1 | Group::Memory => drop(tokio::spawn(http1(stream))),
            Group::Http2 => drop(tokio::spawn(grpc::echo(stream))),
        }
    }
}

/// Answers each request with a body that is as long as its own, or with a short one.
async fn http1(mut stream: TcpStream) -> Result<()> {
    let longest = Bytes::from(vec![b'x'; Case::Body1m.body()]);
    let mut received = Vec::with_capacity(READ);
    loop {
        let request = loop {
            if let Some(head) = head(&received)? {
                break head;
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        };
        let content_length = request.content_length.unwrap_or_default();
        let arrived = received.len() - request.length;
        let mut missing = content_length.checked_sub(arrived).context("pipelined")?;
        received.clear();
        while missing > 0 {
            let count = stream.read_buf(&mut received).await?;
            missing = missing.checked_sub(count).context("pipelined")?;
            if count == 0 {
                return Ok(());
            }
            received.clear();
        }
        let length = if content_length == 0 {
            REPLY
        } else {
            content_length.min(longest.len())
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n"
        );
        let mut response = Buf::chain(head.as_bytes(), longest.slice(..length));
        stream.write_all_buf(&mut response).await?;
    }
}
