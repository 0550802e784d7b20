//! What a component writes to stdout and stderr becomes log lines.

use std::fmt::Write as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// The longest line that is kept, in bytes; the rest of it is left out.
const LINE_LIMIT: usize = 4096;

/// The lines of one instance that are logged, per stream; what follows is dropped with a notice.
const LINES_LIMIT: usize = 256;

/// Which of its two outputs a component wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// One output of one instance. Clones write to the same lines.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    stream: Stream,
    component: Arc<str>,
    lines: Arc<Mutex<Lines>>,
}

impl Output {
    pub(crate) fn new(component: &Arc<str>, stream: Stream) -> Self {
        Self {
            stream,
            component: Arc::clone(component),
            lines: Arc::default(),
        }
    }

    fn accept(&self, bytes: &[u8]) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(bytes, |line| self.log(line));
    }

    fn log(&self, line: &str) {
        let component = &*self.component;
        match self.stream {
            Stream::Stdout => tracing::info!(target: "component", component, "{line}"),
            Stream::Stderr => tracing::warn!(target: "component", component, "{line}"),
        }
    }
}

impl Drop for Output {
    /// The last of the instance's handles logs the line that has no end.
    fn drop(&mut self) {
        if let Some(lines) = Arc::get_mut(&mut self.lines) {
            let lines = std::mem::take(lines.get_mut().unwrap_or_else(PoisonError::into_inner));
            if let Some(line) = lines.rest() {
                self.log(&line);
            }
        }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.accept(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LINE_LIMIT)
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.accept(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Cuts bytes into lines, within the limits.
#[derive(Debug, Default)]
struct Lines {
    current: Vec<u8>,
    logged: usize,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut log: impl FnMut(&str)) {
        let mut parts = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            if self.logged > LINES_LIMIT {
                return;
            }
            let room = LINE_LIMIT.saturating_sub(self.current.len());
            self.current.extend(part.iter().take(room));
            if parts.peek().is_none() {
                return; // The line goes on in the next write.
            }
            self.logged = self.logged.saturating_add(1);
            if self.logged > LINES_LIMIT {
                log("(further output of this instance is dropped)");
            } else {
                log(&printable(&self.current));
            }
            self.current.clear();
        }
    }

    fn rest(&self) -> Option<String> {
        let worth_logging = !self.current.is_empty() && self.logged <= LINES_LIMIT;
        worth_logging.then(|| printable(&self.current))
    }
}

/// The line as text in which control characters are escaped, so that a component can forge neither
/// log lines nor terminal sequences.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut printed = String::with_capacity(text.len());
    for character in text.trim_end_matches('\r').chars() {
        if character.is_control() && character != '\t' {
            // Writing to a String cannot fail.
            let _ = write!(printed, "{}", character.escape_default());
        } else {
            printed.push(character);
        }
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(writes: &[&[u8]], expected: &[&str]) {
        let mut lines = Lines::default();
        let mut logged = Vec::new();
        for bytes in writes {
            lines.push(bytes, |line| logged.push(line.to_owned()));
        }
        logged.extend(lines.rest());
        assert_eq!(logged, expected);
    }

    #[test]
    fn writes_become_whole_lines() {
        check(&[b"one\ntwo\n"], &["one", "two"]);
        check(&[b"o", b"ne\r\nt", b"wo"], &["one", "two"]);
        check(&[b"\n\n"], &["", ""]);
        check(
            &[b"red \x1b[31m\rtext\t\xff\n"],
            &["red \\u{1b}[31m\\rtext\t\u{fffd}"],
        );
        check(&[], &[]);
    }

    #[test]
    fn a_long_line_is_cut() {
        let long = "x".repeat(LINE_LIMIT);
        check(&[long.as_bytes(), b"more", b"\nnext\n"], &[&long, "next"]);
    }

    #[test]
    fn a_flood_of_lines_ends_with_one_notice() {
        let mut lines = Lines::default();
        let mut logged = Vec::new();
        for _ in 0..LINES_LIMIT * 2 {
            lines.push(b"again\nand ", |line| logged.push(line.to_owned()));
        }
        assert_eq!(logged.len(), LINES_LIMIT + 1);
        assert_eq!(
            logged.last().unwrap(),
            "(further output of this instance is dropped)"
        );
        assert_eq!(lines.rest(), None);
    }
}
