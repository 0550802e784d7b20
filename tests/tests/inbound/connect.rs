//! `CONNECT`: tunnels to servers that a route names.

mod trust;

use std::io::{Read, Write};
use std::net::TcpListener;

use http::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Front;
use crate::support::{Upstream, access_line, body, counter, logged, patiently, write};

/// Tunnels to one host only.
const DATABASES: &str = r#"
package envoy.authz
request := input.attributes.request.http
allow if {
    request.method == "CONNECT"
    request.host == "db.internal:5432"
    object.get(request, "path", "") == ""
}
allow if request.method == "GET"
allow if request.host == "elsewhere.internal:5432"
"#;

/// Says everything back in capitals, after a greeting.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                stream.write_all(b"ready ").unwrap();
                let mut buffer = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    let back = buffer[..read].to_ascii_uppercase();
                    let _ = stream.write_all(&back);
                }
            });
        }
    });
    url
}

fn start(http: &str) -> Front {
    Front::start(&listener(http), DATABASES)
}

/// Tunnels to a server for one host, beside a server for all requests.
fn listener(http: &str) -> String {
    format!(
        r#"
upstream = "{http}"
[[listener.route]]
hosts = ["db.internal"]
methods = ["CONNECT"]
upstream = "{}"
"#,
        server()
    )
}

/// Asks for a tunnel, and reads the head of the answer.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, head: &str) -> String {
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(patiently(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(answer).unwrap()
}

fn request_id(head: &str) -> &str {
    let mut lines = head.lines();
    let id = lines.find_map(|line| line.strip_prefix("x-request-id: "));
    id.expect("it has an id")
}

async fn expect<S: AsyncRead + Unpin>(stream: &mut S, expected: &str) {
    let mut found = vec![0; expected.len()];
    patiently(stream.read_exact(&mut found))
        .await
        .expect("it comes");
    assert_eq!(String::from_utf8_lossy(&found), expected);
}

const TUNNEL: &str = "CONNECT db.internal:5432 HTTP/1.1\r\nhost: db.internal:5432\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_connect_is_a_tunnel_over_http1_with_nothing_of_a_body() {
    let upstream = Upstream::start().await;
    let front = start(&upstream.url);
    let mut stream = front.client.raw().await;
    // Its first bytes may come at once.
    let head = ask(&mut stream, &format!("{TUNNEL}early ")).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for name in ["content-length", "transfer-encoding", "connection"] {
        assert!(!head.contains(name), "{head}");
    }
    expect(&mut stream, "ready EARLY ").await;
    stream.write_all(b"select").await.unwrap();
    expect(&mut stream, "SELECT").await;
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    patiently(stream.read_to_end(&mut rest))
        .await
        .expect("a clean end");
    assert!(rest.is_empty());
    let line = access_line(&front.sidegate, request_id(&head));
    assert_eq!(line["method"], "CONNECT", "{line}");
    assert_eq!(line["authority"], "db.internal:5432", "{line}");
    assert_eq!(line.get("path"), None, "{line}");
    assert_eq!(
        (&line["status"], &line["verdict"]),
        (&200.into(), &"allow".into())
    );
    assert_eq!(
        (&line["request_bytes"], &line["response_bytes"]),
        (&12.into(), &18.into())
    );
    assert_eq!(line.get("error"), None, "{line}");
    assert!(upstream.heads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_connect_is_a_tunnel_over_http2() {
    let upstream = Upstream::start().await;
    let front = start(&upstream.url);
    let mut connection = front.client.http2().await;
    let connect = |target: &str| {
        let request = Request::builder().method(Method::CONNECT).uri(target);
        request.body(body("")).unwrap()
    };
    let response = patiently(connection.send_request(connect("db.internal:5432")))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("content-length"));
    let id = response.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let upgraded = patiently(hyper::upgrade::on(response)).await.unwrap();
    let mut stream = TokioIo::new(upgraded);
    expect(&mut stream, "ready ").await;
    stream.write_all(b"select").await.unwrap();
    expect(&mut stream, "SELECT").await;
    // Beside it there are requests.
    let request = Request::get("https://localhost/").body(body("")).unwrap();
    let other = patiently(connection.send_request(request)).await.unwrap();
    assert_eq!(other.status(), 200);
    let denied = patiently(connection.send_request(connect("db.internal:1")))
        .await
        .unwrap();
    assert_eq!(denied.status(), 403);
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    patiently(stream.read_to_end(&mut rest))
        .await
        .expect("a clean end");
    let line = access_line(&front.sidegate, &id);
    assert_eq!(line["protocol"], "HTTP/2", "{line}");
    assert_eq!(
        (&line["request_bytes"], &line["response_bytes"]),
        (&6.into(), &12.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_not_routed_or_no_authority_gets_no_tunnel() {
    let upstream = Upstream::start().await;
    let front = start(&upstream.url);
    let status = async |front: &Front, target: &str, headers: &str| {
        let mut stream = front.client.raw().await;
        let head = format!("CONNECT {target} HTTP/1.1\r\n{headers}\r\n");
        let answer = ask(&mut stream, &head).await;
        let line = access_line(&front.sidegate, request_id(&answer));
        let status = answer.split(' ').nth(1).unwrap().to_owned();
        (status, line["code"].as_str().unwrap_or_default().to_owned())
    };
    for (target, headers, expected) in [
        ("db.internal:22", "host: db.internal:22\r\n", "403"),
        (
            "unknown.internal:5432",
            "host: unknown.internal:5432\r\n",
            "403",
        ),
        // Allowed, but no route is for it: least of all the one for all other requests.
        (
            "elsewhere.internal:5432",
            "host: elsewhere.internal:5432\r\n",
            "405",
        ),
        ("db.internal", "host: db.internal\r\n", "400"),
        ("db.internal:5432", "host: other:5432\r\n", "400"),
        ("/", "host: db.internal:5432\r\n", "400"),
        (
            "https://db.internal:5432/",
            "host: db.internal:5432\r\n",
            "400",
        ),
        (
            "db.internal:5432",
            "host: db.internal:5432\r\ncontent-length: 3\r\n",
            "400",
        ),
    ] {
        let (found, code) = status(&front, target, headers).await;
        assert_eq!(found, expected, "{target} {headers}");
        let is_refused = expected != "403";
        assert_eq!(code == "SG0310", is_refused, "{target} {code}");
    }
    // A method alone opens no way to it.
    let answer = front
        .client
        .send(
            Request::get("/").header("host", "db.internal:5432"),
            body(""),
        )
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.heads().len(), 1);

    // Where no route is for it, nobody is even asked.
    let front = Front::start(&format!("upstream = \"{}\"", upstream.url), DATABASES);
    let (found, _) = status(&front, "db.internal:5432", "host: db.internal:5432\r\n").await;
    assert_eq!(found, "405");
    let asked = counter(&front.sidegate, "sidegate_authz_decisions_total", &[]);
    assert_eq!(asked as u64, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_ends_when_the_policy_denies_it_and_its_server_may_be_down() {
    let upstream = Upstream::start().await;
    let front = start(&upstream.url);
    let mut stream = front.client.raw().await;
    let head = ask(&mut stream, TUNNEL).await;
    expect(&mut stream, "ready ").await;
    write(
        front.folder.path(),
        "policy/policy.rego",
        "package envoy.authz\nallow if input.attributes.request.http.method == \"GET\"\n",
    );
    let mut rest = Vec::new();
    let _ = patiently(stream.read_to_end(&mut rest)).await;
    let line = access_line(&front.sidegate, request_id(&head));
    assert_eq!(line["error"], "policy_changed", "{line}");
    logged(&front.sidegate, &["SG0340", request_id(&head)]);

    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", closed.local_addr().unwrap());
    drop(closed);
    let route = format!("[[listener.route]]\nmethods = [\"CONNECT\"]\nupstream = \"{url}\"");
    let front = Front::start(&route, DATABASES);
    let mut stream = front.client.raw().await;
    let head = ask(&mut stream, TUNNEL).await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    let line: Value = access_line(&front.sidegate, request_id(&head));
    assert_eq!(line["code"], "SG0321", "{line}");
}
