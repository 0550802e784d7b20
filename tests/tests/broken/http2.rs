//! HTTP/2 upstreams that fail.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response};
use sidegate_tests::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Front;
use crate::support::{access_line, body, listen, patiently, read};

/// What ends the connection, not just a stream.
enum End {
    Goaway,
    Reset,
    Close,
    Garbage,
}

/// Answers a request as its path says.
fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Option<End> {
    let path = request.uri().path().to_owned();
    let ok = || Response::builder().body(()).unwrap();
    let begin = |respond: &mut SendResponse<Bytes>, head: Response<()>| {
        let mut stream = respond.send_response(head, false).unwrap();
        stream.send_data("hello".into(), false).unwrap();
        stream
    };
    match path.as_str() {
        "/refused" => respond.send_reset(Reason::REFUSED_STREAM),
        "/internal" => respond.send_reset(Reason::INTERNAL_ERROR),
        "/no-error" => respond.send_reset(Reason::NO_ERROR),
        "/stall" => std::mem::forget((request, respond)),
        "/reset-within" => {
            let mut stream = begin(&mut respond, ok());
            tokio::spawn(async move {
                // Once what was sent is gone.
                stream.reserve_capacity(1);
                let _ = poll_fn(|context| stream.poll_capacity(context)).await;
                stream.send_reset(Reason::INTERNAL_ERROR);
            });
        }
        "/short" => {
            let head = Response::builder().header("content-length", "100").body(());
            let mut stream = begin(&mut respond, head.unwrap());
            stream.send_data("!".into(), true).unwrap();
        }
        "/long" => {
            let head = Response::builder().header("content-length", "2").body(());
            let mut stream = begin(&mut respond, head.unwrap());
            stream.send_data("!".into(), true).unwrap();
        }
        "/goaway" => return Some(End::Goaway),
        "/reset-connection" => return Some(End::Reset),
        "/close" => return Some(End::Close),
        "/garbage" => return Some(End::Garbage),
        _ => {
            let mut stream = respond.send_response(ok(), false).unwrap();
            stream.send_data("ok".into(), true).unwrap();
        }
    }
    None
}

async fn serve(stream: TcpStream) {
    let Ok(mut connection) = server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        match answer(request, respond) {
            None => {}
            Some(End::Goaway) => connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM),
            Some(_) => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_has_its_answer_and_its_name_and_the_next_request_is_served() {
    let url = listen(serve).await.replace("http://", "h2c://");
    let front = Front::start(&url, "timeouts = { request = \"1s\" }");
    let (reset, broken) = (("upstream_reset", "SG0322"), ("response_broken", "SG0324"));
    let failures = [
        ("/refused", 502, reset),
        ("/internal", 502, reset),
        ("/no-error", 502, reset),
        ("/goaway", 502, reset),
        ("/close", 502, reset),
        ("/stall", 504, ("request_timeout", "SG0312")),
        ("/reset-within", 200, broken),
        ("/short", 200, broken),
        ("/long", 200, broken),
    ];
    let failures = failures.map(|(path, status, (error, code))| (path, status, error, code));
    front.serves().await;
    front.fails_as(&failures).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_speak_http2_is_502_or_504_and_waited_for_no_longer() {
    for (sent, status) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"[..],
            502,
        ),
        (b"\0\0\0\xff\0\0\0\0\0garbage", 502),
        (b"", 504),
    ] {
        let url = listen(move |mut stream: TcpStream| async move {
            let _ = stream.write_all(sent).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        });
        let url = url.await.replace("http://", "h2c://");
        let front = Front::start(&url, "timeouts = { request = \"1s\" }");
        for is_http2 in [false, true] {
            let outcome = front.ask("GET", "/", is_http2).await;
            assert_eq!(outcome.status, status, "{sent:?} {outcome:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_before_the_requests_end_is_a_response() {
    let url = listen(|stream: TcpStream| async move {
        let Ok(mut connection) = server::handshake(stream).await else {
            return;
        };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let head = Response::builder().status(413).body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data("no!".into(), true).unwrap();
            // The rest of it is not wanted: the stream is reset without an error (RFC 9113 section 8.1).
            drop(request);
        }
    });
    let url = url.await.replace("http://", "h2c://");
    let front = Front::start(&url, "");
    for _ in 0..10 {
        let mut connection = front.client.http2().await;
        let request = Request::post("https://localhost/").body(body("x".repeat(3_000_000)));
        let response = patiently(connection.send_request(request.unwrap())).await;
        let answer = read(response.unwrap()).await;
        assert_eq!((answer.status.as_u16(), &*answer.body), (413, "no!"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_of_a_sequence_fails_while_the_upstream_ends_its_connections_in_good_order() {
    const PER_CONNECTION: usize = 20;
    let connections = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&connections);
    let url = listen(move |stream: TcpStream| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let Ok(mut connection) = server::handshake(stream).await else {
                return;
            };
            let mut requests = 0;
            while let Some(Ok((request, respond))) = connection.accept().await {
                answer(request, respond);
                requests += 1;
                if requests == PER_CONNECTION {
                    connection.graceful_shutdown();
                }
            }
        }
    });
    let url = url.await.replace("http://", "h2c://");
    let front = Front::start(&url, "");
    let mut connection = front.client.http2().await;
    for _ in 0..100 {
        let request = Request::get("https://localhost/ok").body(body(""));
        let response = patiently(connection.send_request(request.unwrap())).await;
        let answer = read(response.unwrap()).await;
        let line = access_line(&front.sidegate, answer.header("x-request-id"));
        assert_eq!(answer.status, 200, "{line}");
    }
    until("several connections", || {
        (connections.load(Ordering::SeqCst) > 3).then_some(())
    });
}
