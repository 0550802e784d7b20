//! Bodies that are decided on: what the policy sees, and that the upstream gets all of it.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use serde_json::{Value, json};
use sidegate_tests::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Front;
use crate::support::{Answer, Body, Client, body, patiently, read};

/// Allows readers, whatever form says so.
const READERS: &str = r#"
allow if input.parsed_body.role == "reader"
allow if input.parsed_body.role == ["reader"]
"#;

/// Denies everything and answers with what it saw of the body.
const MIRROR: &str = r#"
import input.attributes.request.http

allow := {"allowed": false, "body": json.marshal({
    "parsed": input.parsed_body,
    "truncated": input.truncated_body,
    "body": object.get(http, "body", null),
    "raw": object.get(http, "rawBody", null),
    "size": object.get(http, "size", 0),
    "partial": object.get(http.headers, "x-envoy-auth-partial-body", null),
})}
"#;

/// A body in several parts, without a length.
fn chunked(parts: &[&str]) -> Body {
    let (mut sender, channel) = Channel::<Bytes, Infallible>::new(1);
    let parts: Vec<Bytes> = parts
        .iter()
        .map(|part| Bytes::copy_from_slice(part.as_bytes()))
        .collect();
    tokio::spawn(async move {
        for part in parts {
            // Whoever refuses the body does not read it to its end.
            if sender.send_data(part).await.is_err() {
                return;
            }
        }
    });
    channel.boxed()
}

fn post(content_type: &str) -> http::request::Builder {
    Request::post("/").header("content-type", content_type)
}

/// The same request over HTTP/2.
async fn over_http2(client: &Client, request: http::request::Builder, body: Body) -> Answer {
    let request = request.uri("https://localhost/").body(body).unwrap();
    let mut connection = client.http2().await;
    let response = patiently(connection.send_request(request)).await.unwrap();
    read(response).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_decided_on_and_forwarded_as_it_came() {
    let front = Front::start(READERS, "").await;
    let json = "application/json; charset=utf-8";
    let form = "application/x-www-form-urlencoded";
    let multipart = "multipart/form-data; boundary=b";
    let part = "--b\r\ncontent-disposition: form-data; name=role\r\n\r\nreader\r\n--b--\r\n";
    let padded = format!("{{\"role\": \"reader\", \"x\": \"{}\"}}", "x".repeat(8000));
    let bodies = [
        (json, r#"{"role": "reader"}"#, true),
        (json, padded.as_str(), true),
        (json, r#"{"role": "writer"}"#, false),
        (json, "", false),
        (form, "role=reader&x=%20+", true),
        (form, "role=writer", false),
        (multipart, part, true),
        ("text/plain", r#"{"role": "reader"}"#, false),
    ];
    let mut forwarded = 0;
    for (content_type, text, allowed) in bodies {
        let (first, second) = text.split_at(text.len() / 2);
        let answers = [
            front
                .client
                .send(post(content_type), body(text.to_owned()))
                .await,
            front
                .client
                .send(post(content_type), chunked(&[first, second]))
                .await,
            over_http2(&front.client, post(content_type), body(text.to_owned())).await,
            over_http2(&front.client, post(content_type), chunked(&[first, second])).await,
        ];
        for answer in answers {
            let expected = if allowed { (200, text) } else { (403, "") };
            let found = (answer.status.as_u16(), answer.body.as_str());
            assert_eq!(found, expected, "{content_type}: {text}");
            forwarded += usize::from(allowed);
        }
    }
    assert_eq!(front.upstream.heads().len(), forwarded);

    // A method that mostly has no body keeps it too.
    let request = Request::builder().method(Method::GET).uri("/");
    let request = request
        .header("content-type", json)
        .header("transfer-encoding", "chunked");
    let answer = front
        .client
        .send(request, chunked(&[r#"{"role": "#, r#""reader"}"#]))
        .await;
    assert_eq!(answer.body, r#"{"role": "reader"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_sees_the_body_as_opa_envoy_shows_it() {
    let front = Front::start(MIRROR, "").await;
    let seen = |answer: Answer| serde_json::from_str::<Value>(&answer.body).unwrap();
    let text = r#"{"a": [1, "ü"]}"#;
    let forged = post("application/json").header("x-envoy-auth-partial-body", "true");
    let answer = front.client.send(forged, body(text)).await;
    assert_eq!(
        seen(answer),
        json!({"parsed": {"a": [1, "ü"]}, "truncated": false, "body": text, "raw": null,
            "size": text.len(), "partial": "false"})
    );
    let answer = front
        .client
        .send(post("text/plain"), body(&b"a\xffb"[..]))
        .await;
    assert_eq!(
        seen(answer),
        json!({"parsed": null, "truncated": false, "body": "a!b", "raw": null,
            "size": 3, "partial": "false"})
    );
    let forged = Request::get("/").header("x-envoy-auth-partial-body", "true");
    let answer = front.client.send(forged, body("")).await;
    assert_eq!(
        seen(answer),
        json!({"parsed": null, "truncated": false, "body": null, "raw": null,
            "size": 0, "partial": null})
    );

    let front = Front::start(
        MIRROR,
        "request_body = { max_request_bytes = \"4B\", allow_partial_message = true, pack_as_bytes = true }",
    )
    .await;
    for (text, raw, size, partial, parsed) in [
        ("[1]", "WzFd", 3, "false", json!([1])),
        ("[11]", "WzExXQ==", 4, "false", json!([11])),
        ("[1, 2]", "WzEsIA==", 6, "true", Value::Null),
    ] {
        let answer = front
            .client
            .send(post("application/json"), body(text))
            .await;
        assert_eq!(
            seen(answer),
            json!({"parsed": parsed, "truncated": partial == "true", "body": null, "raw": raw,
                "size": size, "partial": partial}),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    let front = Front::start(READERS, "").await;
    let text = r#"{"role": "reader"}"#;
    let mut stream = front.client.raw().await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    patiently(stream.read_exact(&mut interim)).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    patiently(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains(text), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_stream_is_decided_before_its_first_message() {
    let front = Front::start(
        "allow if { input.parsed_body == null; input.attributes.request.http.method == \"POST\" }",
        "",
    )
    .await;
    let (mut messages, channel) = Channel::<Bytes, Infallible>::new(1);
    let request = Request::post("https://localhost/shop.Orders/Watch")
        .header("content-type", "application/grpc")
        .body(channel.boxed())
        .unwrap();
    let mut connection = front.client.http2().await;
    let response = patiently(connection.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut answer = response.into_body();
    for message in ["one", "two"] {
        messages.send_data(Bytes::from(message)).await.unwrap();
        let frame = patiently(answer.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_bodies_on_one_connection_are_all_decided_and_forwarded() {
    let front = Front::start(READERS, "request_body = { max_request_bytes = \"1MiB\" }").await;
    let mut connection = front.client.http2().await;
    // Together more than the connection's window.
    let bodies: Vec<String> = (0..10)
        .map(|number| {
            format!(
                r#"{{"role": "reader", "n": {number}, "x": "{}"}}"#,
                "x".repeat(250_000)
            )
        })
        .collect();
    let answers: Vec<_> = bodies
        .iter()
        .map(|text| {
            let request = post("application/json").uri("https://localhost/");
            let request = request.body(body(text.clone())).unwrap();
            let answer = connection.send_request(request);
            tokio::spawn(async { read(patiently(answer).await.unwrap()).await })
        })
        .collect();
    for (answer, text) in answers.into_iter().zip(&bodies) {
        let answer = patiently(answer).await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body == *text, "{} bytes", answer.body.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_wait_take_up_so_much_of_a_connection_and_no_more() {
    let front = Front::start(READERS, "request_body = { max_request_bytes = \"1MiB\" }").await;
    let mut connection = front.client.http2().await;
    // Six beginnings of bodies, of which room is for five.
    let beginning = format!(r#"{{"role": "reader", "x": "{}"#, "x".repeat(750_000));
    let mut open = Vec::new();
    for _ in 0..6 {
        let (mut sender, channel) = Channel::<Bytes, Infallible>::new(1);
        sender
            .send_data(Bytes::from(beginning.clone()))
            .await
            .unwrap();
        let request = post("application/json").uri("https://localhost/");
        let answer = connection.send_request(request.body(channel.boxed()).unwrap());
        let answer = tokio::spawn(async { read(patiently(answer).await.unwrap()).await });
        open.push((sender, answer));
    }
    until("one of them is refused", || {
        open.iter()
            .any(|(_, answer)| answer.is_finished())
            .then_some(())
    });
    let mut statuses = Vec::new();
    for (mut sender, answer) in open {
        // Who was refused takes no more.
        let _ = sender.send_data(Bytes::from("\"}")).await;
        drop(sender);
        statuses.push(answer.await.unwrap().status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 503]);
}
