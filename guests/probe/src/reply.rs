//! Writing a response.

use std::io;

use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse, ResponseOutparam, Trailers};
use wasip2::io::streams::OutputStream;

/// A response whose head is out and whose body is being written.
pub(crate) struct Reply {
    stream: OutputStream,
    body: OutgoingBody,
}

impl Reply {
    /// Sends the head.
    pub(crate) fn start(response: ResponseOutparam, status: u16, headers: Fields) -> Self {
        let outgoing = OutgoingResponse::new(headers);
        outgoing.set_status_code(status).expect("a valid status");
        let body = outgoing.body().expect("the body is taken once");
        ResponseOutparam::set(response, Ok(outgoing));
        let stream = body.write().expect("the stream is taken once");
        Self { stream, body }
    }

    /// Ends the body, with the length check that the host makes.
    pub(crate) fn finish(self, trailers: Option<Trailers>) {
        drop(self.stream);
        let _ = OutgoingBody::finish(self.body, trailers);
    }
}

impl io::Write for Reply {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut self.stream, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::Write::flush(&mut self.stream)
    }
}

/// Answers with a whole text.
pub(crate) fn text(response: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    headers
        .set("content-type", &[b"text/plain".to_vec()])
        .expect("a valid header");
    let mut reply = Reply::start(response, status, headers);
    if io::Write::write_all(&mut reply, text.as_bytes()).is_ok() {
        reply.finish(None);
    }
}
