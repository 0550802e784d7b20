//! What else HTTP/1.1 has beside a head and a body: `100 Continue`, and trailers.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::run;
use crate::support::{Client, Upstream, access_line, folder, patiently};

/// Sends bytes on a connection of their own, and reads up to the end of a head.
async fn head(client: &Client, request: &str) -> (super::TlsStream<super::TcpStream>, String) {
    let mut stream = client.raw().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = next_head(&mut stream).await;
    (stream, head)
}

async fn next_head(stream: &mut super::TlsStream<super::TcpStream>) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(patiently(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_100_continue_gets_it_once_its_request_is_allowed() {
    let folder = folder();
    let upstream = Upstream::start().await;
    let (sidegate, client) = run(&folder, &upstream.url, "", "");
    let waits = "host: localhost\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    let (mut stream, interim) = head(&client, &format!("POST / HTTP/1.1\r\n{waits}")).await;
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let answer = next_head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Upstream answers with the request's body.
    let mut echo = [0; 5];
    if answer.contains("chunked") {
        let mut size = [0; 3];
        patiently(stream.read_exact(&mut size)).await.unwrap();
    }
    patiently(stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"hello");

    // Nobody who is denied is asked for the body.
    let (mut stream, answer) = head(&client, &format!("POST /denied HTTP/1.1\r\n{waits}")).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let mut rest = Vec::new();
    patiently(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(
        rest.is_empty(),
        "the connection ends: it cannot know what comes next"
    );
    let line = access_line(&sidegate, super::raw::request_id(&answer));
    assert_eq!(line["verdict"], "deny", "{line}");
    assert_eq!(upstream.heads().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_gets_the_upstreams_last_word_too() {
    let upstream = Origin::start(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 417 No\r\ncontent-length: 0\r\n\r\n",
        "\r\n\r\n",
    );
    let folder = folder();
    let (_sidegate, client) = run(&folder, &upstream.url, "", "");
    let waits = "host: localhost\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    let (mut stream, mut answer) = head(&client, &format!("POST / HTTP/1.1\r\n{waits}")).await;
    if answer.starts_with("HTTP/1.1 100 ") {
        answer = next_head(&mut stream).await;
    }
    assert!(answer.starts_with("HTTP/1.1 417 "), "{answer}");
    let seen = upstream.seen.recv().unwrap();
    assert!(seen.contains("expect: 100-continue\r\n"), "{seen}");
}

/// A server that answers one request, read up to some text, with bytes as they are.
struct Origin {
    url: String,
    seen: Receiver<String>,
}

impl Origin {
    fn start(answer: &'static str, last: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let mut seen = String::new();
            while !seen.ends_with(last) {
                assert_ne!(reader.read_line(&mut seen).unwrap(), 0, "{seen}");
            }
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
            sender.send(seen).unwrap();
            // What goes on is not part of it, but a reset would be.
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
        });
        let seen = receiver;
        Self { url, seen }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways_over_http1() {
    let upstream = Origin::start(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
         4\r\nback\r\n0\r\nx-sum: 43\r\n\r\n",
        "0\r\nx-count: 42\r\n\r\n",
    );
    let folder = folder();
    let (sidegate, client) = run(&folder, &upstream.url, "", "");
    let (mut sender, channel) = Channel::<bytes::Bytes, std::convert::Infallible>::new(2);
    let request = Request::post("/")
        .header("host", "localhost")
        .header("te", "trailers")
        .header("trailer", "x-count")
        .body(channel.boxed())
        .unwrap();
    sender.send_data("forth".into()).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-count", "42".parse().unwrap());
    sender.send_trailers(trailers).await.unwrap();
    drop(sender);
    let mut connection = client.http1().await;
    let response = patiently(connection.send_request(request)).await.unwrap();
    assert_eq!(response.headers()["trailer"], "x-sum");
    let id = response.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let body = patiently(response.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "43");
    assert_eq!(body.to_bytes(), "back");
    let line = access_line(&sidegate, &id);
    assert_eq!(line["error"], serde_json::Value::Null, "{line}");
    let seen = upstream.seen.recv().unwrap();
    assert!(seen.contains("te: trailers\r\n"), "{seen}");
    assert!(seen.contains("trailer: x-count\r\n"), "{seen}");
    assert!(seen.contains("connection: te\r\n"), "{seen}");
}
