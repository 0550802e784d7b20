//! WebSockets over HTTP/2: an extended CONNECT (RFC 8441), one stream each.

use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::server::Server;
use super::{Socket, converse, echoes, run};
use crate::support::{Body, Client, Upstream, access_line, body, counter, folder, patiently, read};

/// Asks for a WebSocket.
pub(super) async fn ask(connection: &mut SendRequest<Body>, path: &str) -> Response<Incoming> {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://localhost{path}"))
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static("websocket"))
        .body(body(""))
        .unwrap();
    patiently(connection.ready()).await.unwrap();
    patiently(connection.send_request(request)).await.unwrap()
}

pub(super) async fn socket(response: Response<Incoming>) -> Socket<TokioIo<Upgraded>> {
    let upgraded = patiently(hyper::upgrade::on(response)).await.unwrap();
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

/// A connection that has its server's settings: without them there is no extended CONNECT.
pub(super) async fn connect(client: &Client) -> SendRequest<Body> {
    let mut connection = client.http2().await;
    let request = Request::get("https://localhost/denied")
        .body(body(""))
        .unwrap();
    let response = patiently(connection.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 403);
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_share_a_connection_and_the_server_sees_upgrades() {
    let folder = folder();
    let server = Server::start().await;
    let (sidegate, client) = run(&folder, &server.url, "", "");
    let mut connection = connect(&client).await;
    let one = ask(&mut connection, "/one").await;
    assert_eq!(one.status(), 200);
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert_eq!(one.headers().get(name), None, "{name}");
    }
    let id = one.headers()["x-request-id"].to_str().unwrap().to_owned();
    let two = ask(&mut connection, "/two").await;
    let (mut one, mut two) = (socket(one).await, socket(two).await);
    converse(&mut one).await;
    echoes(&mut two, Message::text("beside")).await;
    one.close(None).await.unwrap();
    while let Some(Ok(_)) = patiently(one.next()).await {}
    drop(one);
    echoes(&mut two, Message::text("still there")).await;

    assert_eq!(server.heads().len(), 2);
    let line = access_line(&sidegate, &id);
    assert_eq!(line["protocol"], "HTTP/2", "{line}");
    assert_eq!(line["status"], 200, "{line}");
    assert_eq!(line["error"], serde_json::Value::Null, "{line}");
    assert!(line["request_bytes"].as_u64() >= Some(3_000_000), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_which_nothing_moves_is_ended_and_its_neighbour_is_not() {
    let folder = folder();
    let server = Server::start().await;
    let timeouts = "[listener.timeouts]\nstream_idle = \"2s\"\n";
    let (sidegate, client) = run(&folder, &server.url, "", timeouts);
    let mut connection = connect(&client).await;
    let quiet = ask(&mut connection, "/quiet").await;
    let id = quiet.headers()["x-request-id"].to_str().unwrap().to_owned();
    let busy = ask(&mut connection, "/busy").await;
    let (mut quiet, mut busy) = (socket(quiet).await, socket(busy).await);
    let talk = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            ticks.tick().await;
            echoes(&mut busy, Message::text("busy")).await;
        }
    };
    let ended = tokio::select! {
        ended = patiently(quiet.next()) => ended,
        () = talk => None,
    };
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
    echoes(&mut busy, Message::text("busy")).await;
    let line = access_line(&sidegate, &id);
    assert_eq!(line["error"], "stream_idle", "{line}");
    assert_eq!(line["code"], "SG0361", "{line}");
    let exceeded = counter(
        &sidegate,
        "sidegate_limits_exceeded_total",
        &["limit=\"stream_idle\""],
    );
    assert!(exceeded > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_denies_it_now_ends_a_stream_and_no_other() {
    let folder = folder();
    let server = Server::start().await;
    let (sidegate, client, policy) = super::up(&folder, &server);
    let mut connection = client.http2().await;
    let request = Request::get("https://localhost/first")
        .body(body(""))
        .unwrap();
    patiently(connection.send_request(request)).await.unwrap();
    let denied = ask(&mut connection, "/denied").await;
    let id = denied.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let allowed = ask(&mut connection, "/allowed").await;
    let (mut denied, mut allowed) = (socket(denied).await, socket(allowed).await);
    echoes(&mut denied, Message::text("before")).await;
    std::fs::write(&policy, super::ALLOWS_ONE).unwrap();
    let ended = patiently(denied.next()).await;
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
    let line = access_line(&sidegate, &id);
    assert_eq!(line["error"], "policy_changed", "{line}");
    assert_eq!(line["code"], "SG0340", "{line}");
    echoes(&mut allowed, Message::text("after")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_connect_is_decided_and_may_fail_like_any_upgrade() {
    let folder = folder();
    let upstream = Upstream::start().await;
    let (sidegate, client) = run(&folder, &upstream.url, "", "");
    let mut connection = connect(&client).await;
    let denied = read(ask(&mut connection, "/denied").await).await;
    assert_eq!(denied.status, 403);
    assert!(upstream.heads().is_empty());
    // A server that ignores the wish answers 200, which would be a tunnel here.
    let ignored = read(ask(&mut connection, "/").await).await;
    assert_eq!(ignored.status, StatusCode::BAD_GATEWAY);
    let line = access_line(&sidegate, ignored.header("x-request-id"));
    assert_eq!(line["code"], "SG0315", "{line}");
    let heads = upstream.heads();
    assert_eq!(heads[0].method, Method::GET);
    assert_eq!(heads[0].headers["upgrade"], "websocket");
    assert_eq!(heads[0].headers["sec-websocket-key"].len(), 24);

    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("localhost:443");
    let request = request.body(body("")).unwrap();
    let refused = patiently(connection.send_request(request)).await.unwrap();
    assert_eq!(refused.status(), 405, "what is no extended one");
}
