//! Bodies that are too large, too slow, or not what they say they are.

use http::Request;
use tokio::io::AsyncWriteExt;

use super::Front;
use crate::support::{access_line, body, patiently, read};

const READS_BODIES: &str = "default allow := false\nallow if not input.parsed_body.denied";

const JSON: &str = "application/json";

fn post() -> http::request::Builder {
    Request::post("/").header("content-type", JSON)
}

/// About this many bytes of JSON.
fn large(bytes: usize) -> String {
    format!("[{}0]", "1234567,".repeat(bytes / 8))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_the_policy_cannot_see_whole_is_413_and_never_reaches_the_upstream() {
    let front = Front::start(READS_BODIES, "").await;
    // Larger ones may not be sent to their end before the answer comes and the connection goes.
    for bytes in [9_000, 60_000] {
        let answer = front.client.send(post(), body(large(bytes))).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (413, ""));
        let line = front.line(&answer);
        assert_eq!(line["code"], "SG0270");
        assert_eq!(line["verdict"], "none");
    }
    // Without a length, it is found out on the way.
    let chunk = format!("{:x}\r\n{}\r\n", 5000, " ".repeat(5000));
    let request = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\n\
         transfer-encoding: chunked\r\n\r\n{chunk}{chunk}"
    );
    let answer = front.client.exchange(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    let request = post()
        .uri("https://localhost/")
        .body(body(large(10_000_000)));
    let mut connection = front.client.http2().await;
    let response = patiently(connection.send_request(request.unwrap())).await;
    assert_eq!(read(response.unwrap()).await.status, 413);
    assert_eq!(front.upstream.connections(), 0);

    // What the policy does not look at may be as large as it likes.
    let request = Request::post("/").header("content-type", "application/octet-stream");
    let answer = front.client.send(request, body(large(1_000_000))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, large(1_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_body_is_decided_as_truncated_and_forwarded_whole() {
    let front = Front::start(
        "allow if { input.truncated_body; input.parsed_body == null }",
        "request_body = { allow_partial_message = true }",
    )
    .await;
    for bytes in [9_000, 10_000_000] {
        let text = large(bytes);
        let answer = front.client.send(post(), body(text.clone())).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body == text, "{} bytes", answer.body.len());
        let request = post().uri("https://localhost/").body(body(text.clone()));
        let mut connection = front.client.http2().await;
        let response = patiently(connection.send_request(request.unwrap())).await;
        let answer = read(response.unwrap()).await;
        assert!(answer.body == text, "{} bytes", answer.body.len());
    }
    let answer = front.client.send(post(), body("[1]")).await;
    assert_eq!(answer.status, 403, "a body that was seen whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_many_megabytes_is_decided_on_where_that_is_allowed() {
    let front = Front::start(
        "allow if input.parsed_body[_] == 7654321",
        "request_body = { max_request_bytes = \"4MiB\" }",
    )
    .await;
    let text = large(3_000_000).replace("0]", "7654321]");
    let answer = front.client.send(post(), body(text.clone())).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body == text, "{} bytes", answer.body.len());
    let answer = front.client.send(post(), body(large(3_000_000))).await;
    assert_eq!(answer.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_what_it_says_is_400_by_name() {
    let front = Front::start(READS_BODIES, "").await;
    let nested = "[".repeat(4000);
    for (content_type, text, detail) in [
        (JSON, &b"{"[..], "not valid JSON"),
        (JSON, b"[1] [2]", "not valid JSON"),
        (JSON, b"\"\xff\"", "not valid JSON"),
        (JSON, nested.as_bytes(), "nested more than 100 levels deep"),
        (
            JSON,
            br#"{"denied": true, "denied": false}"#,
            "the same key twice",
        ),
        (
            "application/x-www-form-urlencoded",
            b"a=%zz",
            "the form in the body",
        ),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\n\r\nx",
            "the multipart body",
        ),
        (
            "multipart/form-data; boundary=b; boundary=c",
            b"--b--",
            "content-type of the multipart",
        ),
    ] {
        let request = Request::post("/").header("content-type", content_type);
        let answer = front.client.send(request, body(text.to_vec())).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (400, ""));
        let line = front.line(&answer);
        assert_eq!(line["code"], "SG0225", "{line}");
        let told = line["detail"].as_str().unwrap();
        assert!(told.contains(detail), "{told}");
    }
    assert_eq!(front.upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_is_408_and_never_reaches_the_upstream() {
    let front = Front::start(READS_BODIES, "timeouts = { request = \"300ms\" }").await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\n\
         content-length: 100\r\n\r\n{{\"a\":"
    );
    let answer = front.client.exchange(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let id = answer
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "));
    let line = access_line(&front.sidegate, id.unwrap());
    assert_eq!(line["code"], "SG0271");
    assert_eq!(front.upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_off_while_its_body_is_read_does_no_harm() {
    let front = Front::start(READS_BODIES, "").await;
    for _ in 0..20 {
        let mut stream = front.client.raw().await;
        let head = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\n\
             content-length: 100\r\n\r\n{{\"a\":"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        drop(stream);
    }
    let answer = front.client.send(post(), body("{}")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(front.upstream.heads().len(), 1);
}
