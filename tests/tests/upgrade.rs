//! Requests that switch to another protocol, WebSocket above all.

mod ends;
mod http1;
mod http2;
mod raw;
mod server;
mod trust;

use std::path::PathBuf;

use futures_util::{SinkExt, StreamExt};
use sidegate_tests::{Sidegate, until};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::{
    Client, Configuration, Upstream, access_line, body, counter, folder, patiently, read,
    up_with_policy, write,
};
use server::Server;

type Socket<S = TlsStream<TcpStream>> = WebSocketStream<S>;

/// `sidegate run` in front of a server. The policy allows all but `/denied`.
fn run(folder: &TempDir, url: &str, identity: &str, rest: &str) -> (Sidegate, Client) {
    let policy = r#"
package envoy.authz
allow if {
    input.attributes.request.http.path != "/denied"
    not is_wrong
}
is_wrong if input.attributes.request.http.headers.connection != "Upgrade"
is_wrong if {
    input.attributes.request.http.headers.upgrade
    not input.attributes.request.http.headers.connection
}
"#;
    write(folder.path(), "policy/policy.rego", policy);
    let mut configuration = Configuration::before(url, "");
    configuration.entries.insert_str(0, identity);
    configuration.rest(rest).start(folder.path())
}

/// A policy for `/allowed` only.
const ALLOWS_ONE: &str = "package envoy.authz\nallow if input.parsed_path[0] == \"allowed\"\n";

/// `sidegate up` in front of a server, with a policy that allows everything, in a file to edit.
fn up(folder: &TempDir, server: &Server) -> (Sidegate, Client, PathBuf) {
    let allows = "package envoy.authz\nallow := true\n";
    let policy = write(folder.path(), "policy/policy.rego", allows);
    let state = folder.path().join("state");
    let directory = policy.parent().unwrap().to_str().unwrap();
    let sidegate = Sidegate::up(&state, ["--upstream", &server.url, "--policy", directory]);
    let client = Client::demo(&sidegate);
    (sidegate, client, policy)
}

/// A WebSocket of its own connection, and the answer to its handshake.
async fn open(client: &Client, path: &str) -> Result<(Socket, Response), Error> {
    let mut request = format!("wss://localhost{path}").into_client_request()?;
    let offered = "chat.v1, chat.v2".parse().unwrap();
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", offered);
    let stream = client.connect_for(b"http/1.1").await;
    patiently(client_async(request, stream)).await
}

/// Sends a message and waits until it is back.
async fn echoes<S>(socket: &mut Socket<S>, message: Message)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    patiently(socket.send(message.clone())).await.unwrap();
    let back = patiently(socket.next()).await.unwrap().unwrap();
    assert!(back == message, "{} bytes", back.len());
}

/// All kinds of messages, both ways.
async fn converse<S>(socket: &mut Socket<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    echoes(socket, Message::text("short")).await;
    let large: Vec<u8> = (0..3_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    echoes(socket, Message::binary(large)).await;
    for (part, opcode, is_last) in [
        ("frag", Data::Text, false),
        ("men", Data::Continue, false),
        ("ted", Data::Continue, true),
    ] {
        let frame = Frame::message(part, OpCode::Data(opcode), is_last);
        socket.send(Message::Frame(frame)).await.unwrap();
    }
    let back = patiently(socket.next()).await.unwrap().unwrap();
    assert_eq!(back, Message::text("fragmented"));
    socket
        .send(Message::Ping("are you there".into()))
        .await
        .unwrap();
    let back = patiently(socket.next()).await.unwrap().unwrap();
    assert_eq!(back, Message::Pong("are you there".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_carries_messages_of_every_kind_and_leaves_its_line() {
    let folder = folder();
    let server = Server::start().await;
    let (sidegate, client) = run(&folder, &server.url, "", "");
    let (mut socket, head) = open(&client, "/chat").await.unwrap();
    assert_eq!(head.headers()["sec-websocket-protocol"], "chat.v2");
    converse(&mut socket).await;
    let close = CloseFrame {
        code: 4321.into(),
        reason: "enough".into(),
    };
    socket.close(Some(close.clone())).await.unwrap();
    while let Some(Ok(_)) = patiently(socket.next()).await {}
    until("the server sees it", || {
        (server.closes() == [Some(close.clone())]).then_some(())
    });
    drop(socket);

    let heads = server.heads();
    assert_eq!(heads.len(), 1);
    assert_eq!(heads[0]["sec-websocket-protocol"], "chat.v1, chat.v2");
    let certificate = heads[0]["x-forwarded-client-cert"].to_str().unwrap();
    assert!(certificate.ends_with("URI=spiffe://sidegate.local/demo"));
    let line = access_line(&sidegate, head.headers()["x-request-id"].to_str().unwrap());
    assert_eq!(line["status"], 101, "{line}");
    assert_eq!(line["verdict"], "allow", "{line}");
    assert_eq!(line["error"], serde_json::Value::Null, "{line}");
    for bytes in ["request_bytes", "response_bytes"] {
        let passed = line[bytes].as_u64().unwrap();
        assert!((3_000_000..3_001_000).contains(&passed), "{bytes}: {line}");
    }
    let requests = counter(
        &sidegate,
        "http_server_request_duration_seconds_count",
        &["http_response_status_code=\"101\""],
    );
    assert_eq!(requests as u64, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_closes_a_websocket_with_its_own_code() {
    let folder = folder();
    let server = Server::at(&folder.path().join("server.sock"));
    let (sidegate, client) = run(&folder, &server.url, "", "");
    let (mut socket, head) = open(&client, "/").await.unwrap();
    socket.send(Message::text("close")).await.unwrap();
    let last = patiently(socket.next()).await.unwrap().unwrap();
    let close = CloseFrame {
        code: 4000.into(),
        reason: "as you wish".into(),
    };
    assert_eq!(last, Message::Close(Some(close)));
    while let Some(Ok(_)) = patiently(socket.next()).await {}
    drop(socket);
    let line = access_line(&sidegate, head.headers()["x-request-id"].to_str().unwrap());
    assert_eq!(line["status"], 101, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_upgrade_never_reaches_the_server() {
    let folder = folder();
    let server = Server::start().await;
    let (sidegate, client) = run(&folder, &server.url, "", "");
    let Err(Error::Http(answer)) = open(&client, "/denied").await else {
        panic!("it is denied");
    };
    assert_eq!(answer.status(), 403);
    assert!(server.heads().is_empty());
    let line = access_line(
        &sidegate,
        answer.headers()["x-request-id"].to_str().unwrap(),
    );
    assert_eq!(line["verdict"], "deny", "{line}");
    assert_eq!(line.get("request_bytes"), None, "{line}");
    open(&client, "/").await.unwrap();
    assert_eq!(server.heads().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_switch_just_answers_and_connections_stay() {
    let folder = folder();
    let upstream = Upstream::start().await;
    let (sidegate, client) = run(&folder, &upstream.url, "", "");
    let mut connection = client.http1().await;
    for path in ["/one", "/two", "/three"] {
        let request = http::Request::get(path)
            .header("host", "localhost")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket");
        patiently(connection.ready()).await.unwrap();
        let response = connection.send_request(request.body(body("")).unwrap());
        let answer = read(patiently(response).await.unwrap()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-upstream"), "yes");
        assert_eq!(answer.headers.get("upgrade"), None);
        let line = access_line(&sidegate, answer.header("x-request-id"));
        assert_eq!(line["error"], serde_json::Value::Null, "{line}");
    }
    assert_eq!(upstream.connections(), 1);
    // The wish of a request with a body is not passed on, nor is one for h2c.
    for (protocol, content) in [("websocket", "content"), ("h2c", "")] {
        let request = http::Request::post("/")
            .header("connection", "upgrade")
            .header("upgrade", protocol);
        let answer = client.send(request, body(content)).await;
        assert_eq!((answer.status.as_u16(), &*answer.body), (200, content));
    }
    let heads = upstream.heads();
    let asked = heads
        .iter()
        .map(|head| head.headers.contains_key("upgrade"));
    assert_eq!(asked.collect::<Vec<_>>(), [true, true, true, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_switch_says_so_to_those_who_may_ask() {
    let folder = folder();
    let sidegate = up_with_policy(
        &folder,
        "package envoy.authz\nallow if input.parsed_path[0] != \"denied\"\n",
    );
    let client = Client::demo(&sidegate);
    let ask = async |path: &str, protocol: &str| {
        let request = http::Request::get(path)
            .header("connection", "upgrade")
            .header("upgrade", protocol);
        client.send(request, body("")).await
    };
    let answer = ask("/status/200", "websocket").await;
    assert_eq!(answer.status, 501);
    let line = access_line(&sidegate, answer.header("x-request-id"));
    assert_eq!(line["code"], "SG0314", "{line}");
    assert_eq!(ask("/denied", "websocket").await.status, 403);
    assert_eq!(ask("/status/200", "h2c").await.status, 200);
}
