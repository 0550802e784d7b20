//! `sidegate run`: the same from a file, and its timeouts.

use std::fs;

use http::Request;
use sidegate_tests::{Sidegate, root, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Client, Configuration, Upstream, access_line, admin, body, counter, folder, patiently, read,
    write,
};

/// Reads until the server closes the connection, however it does.
async fn until_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match patiently(stream.read(&mut chunk)).await {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&answer).into_owned(),
            Ok(length) => answer.extend_from_slice(&chunk[..length]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_starts_what_it_says_and_relative_paths_start_at_it() {
    let folder = folder();
    write(
        folder.path(),
        "rules/policy.rego",
        "package app\nimport rego.v1\n\
         decide := {\"allowed\": false, \"http_status\": 401} if input.parsed_path[0] == \"no\"\n\
         decide if input.parsed_path[0] != \"no\"\n",
    );
    let (sidegate, client) = Configuration::new()
        .rest("[policy]\npath = \"rules\"\nentrypoint = \"app/decide\"\n")
        .start(folder.path());
    let home = folder.path().canonicalize().unwrap();

    assert_eq!(sidegate.ready.state, home.join("state"));
    assert_eq!(
        sidegate.ready.workload_socket,
        format!("unix://{}", home.join("workload.sock").display())
    );
    assert!(sidegate.ready.demo.is_none());
    let [listener] = sidegate.ready.listeners.as_slice() else {
        panic!("one listener");
    };
    assert_eq!(listener.name, "main");
    assert_eq!(listener.spiffe_id, "spiffe://sidegate.local/probe");

    let answer = client.get("/status/200").await;
    assert_eq!(answer.status, 200);
    // The access log goes to standard output here.
    let id = answer.header("x-request-id");
    access_line(&sidegate, id);
    assert!(sidegate.process.stdout().contains(id));
    assert!(!sidegate.process.stderr().contains(id));
    assert_eq!(client.get("/no").await.status, 401);
    assert_eq!(admin(&sidegate, "/readyz").unwrap().0, 200);
    assert_eq!(sidegate.stop().status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_listeners_have_their_own_identities_and_upstreams() {
    let folder = folder();
    let upstream = Upstream::start().await;
    let mut configuration = Configuration::new().rest(&format!(
        "[[listener]]\nname = \"second\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\n\
         [[identity.entry]]\nspiffe_id = \"spiffe://sidegate.local/second\"\n\
         selectors = [\"listener:name:second\"]\ndns_names = [\"localhost\"]\n",
        upstream.url
    ));
    configuration.listener.push('\n');
    let path = configuration.write(folder.path());
    let sidegate = Sidegate::run(&path);
    let [first, second] = sidegate.ready.listeners.as_slice() else {
        panic!("two listeners");
    };
    let demo = folder.path().join("demo");
    let client = Client::new(
        &first.address,
        &demo.join("bundle.pem"),
        &demo.join("svid.pem"),
        &demo.join("key.pem"),
    );
    assert_eq!(second.spiffe_id, "spiffe://sidegate.local/second");
    assert_eq!(client.get("/status/204").await.status, 204);
    let answer = client.at(&second.address).get("/status/204").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-upstream"), "yes");
    let head = upstream.heads().pop().unwrap();
    let certificate = head.headers["x-forwarded-client-cert"].to_str().unwrap();
    assert!(certificate.starts_with("By=spiffe://sidegate.local/second;"));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_is_not_waited_for_longer_than_header_read() {
    let folder = folder();
    let (sidegate, client) = Configuration::new()
        .timeouts("header_read = \"500ms\"\nidle = \"10m\"\n")
        .start(folder.path());
    for (what, sent) in [
        ("half a head", "GET /status/200 HTTP/1.1\r\nhost: local"),
        ("half a line", "GE"),
    ] {
        let mut stream = client.raw().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let answer = until_closed(&mut stream).await;
        assert!(!answer.contains("HTTP/1.1 200"), "{what}: {answer}");
    }
    assert_eq!(client.get("/status/200").await.status, 200);
    until("no connection is left open", || {
        (counter(&sidegate, "sidegate_connections_open", &[]) < 0.5).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_behind_a_whole_request_lasts_no_longer_than_an_idle_connection() {
    let folder = folder();
    let (_sidegate, client) = Configuration::new()
        .timeouts("header_read = \"500ms\"\nidle = \"1s\"\n")
        .start(folder.path());
    let mut stream = client.raw().await;
    let sent = b"GET /status/200 HTTP/1.1\r\nhost: localhost\r\n\r\nGET /status/200 HT";
    stream.write_all(sent).await.unwrap();
    let answer = until_closed(&mut stream).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_finishes_its_handshake_is_closed() {
    let folder = folder();
    let (_sidegate, client) = Configuration::new()
        .timeouts("header_read = \"500ms\"\nidle = \"500ms\"\n")
        .start(folder.path());
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = tokio::net::TcpStream::connect(&client.address)
            .await
            .unwrap();
        stream.write_all(sent).await.unwrap();
        let answer = until_closed(&mut stream).await;
        assert!(!answer.contains("HTTP"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_over_either_protocol() {
    let folder = folder();
    let (_sidegate, client) = Configuration::new()
        .timeouts("idle = \"1s\"\nheader_read = \"10m\"\n")
        .start(folder.path());

    // HTTP/1.1, before and after a request.
    for sent in ["", "GET /status/200 HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
        let mut stream = client.raw().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let answer = until_closed(&mut stream).await;
        assert_eq!(
            answer.contains("HTTP/1.1 200"),
            !sent.is_empty(),
            "{answer}"
        );
    }

    let mut connection = client.http2().await;
    let request = Request::get("https://localhost/status/200");
    let response = connection.send_request(request.body(body("")).unwrap());
    assert_eq!(read(patiently(response).await.unwrap()).await.status, 200);
    until("the connection is closed", || {
        connection.is_closed().then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_not_idle_while_its_request_moves() {
    let folder = folder();
    let (_sidegate, client) = Configuration::new()
        .timeouts("idle = \"2s\"\n")
        .start(folder.path());
    let mut connection = client.http1().await;
    // Half of the idle time each, three times as long in all.
    for _ in 0..6 {
        let request = Request::get("/sleep/1000").header("host", "localhost");
        patiently(connection.ready()).await.unwrap();
        let response = connection.send_request(request.body(body("")).unwrap());
        assert_eq!(read(patiently(response).await.unwrap()).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_does_not_come_in_time_is_504() {
    let folder = folder();
    let (sidegate, client) = Configuration::new()
        .component("request_deadline = \"1m\"\n")
        .timeouts("request = \"500ms\"\n")
        .start(folder.path());
    for answer in [
        client.get("/sleep/3600000").await,
        client
            .send_http2(Request::builder(), "/sleep/3600000")
            .await,
        client.get("/spin").await,
    ] {
        assert_eq!(answer.status, 504);
        let line = access_line(&sidegate, answer.header("x-request-id"));
        assert_eq!(line["status"], 504);
        assert!(line["code"].as_str().unwrap().starts_with("SG03"), "{line}");
    }
    assert_eq!(client.get("/status/200").await.status, 200);
    until("nothing runs on", || {
        (counter(&sidegate, "sidegate_component_instances", &[]) < 0.5).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lasts_no_longer_than_its_timeout() {
    let folder = folder();
    let (sidegate, client) = Configuration::new()
        .component("request_deadline = \"1m\"\n")
        .timeouts("request = \"10m\"\nidle = \"10m\"\n")
        .rest("[proxy]\ndrain_timeout = \"1s\"\n")
        .start(folder.path());
    let mut stream = client.raw().await;
    stream
        .write_all(b"GET /sleep/3600000 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    until("it runs", || {
        (counter(&sidegate, "sidegate_component_instances", &[]) > 0.5).then_some(())
    });
    assert_eq!(sidegate.stop().status.code(), Some(0));
    assert!(!until_closed(&mut stream).await.contains("HTTP/1.1 200"));
}

#[test]
fn the_file_in_examples_starts_as_it_is_but_for_ports_and_user() {
    let folder = folder();
    let (example, hello) = ("examples/sidegate.toml", "guests/components/hello.wasm");
    let text = fs::read_to_string(root().join(example)).unwrap();
    let uid = format!("unix:uid:{}", nix::unistd::getuid());
    let text = text
        .replace("unix:uid:1000", &uid)
        .replace(":8443\"", ":0\"")
        .replace(":15900\"", ":0\"");
    let path = write(folder.path(), example, text);
    write(folder.path(), hello, fs::read(root().join(hello)).unwrap());
    let sidegate = Sidegate::run(&path);
    assert_eq!(
        sidegate.ready.listeners[0].spiffe_id,
        "spiffe://sidegate.local/hello"
    );
}
