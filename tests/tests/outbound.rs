//! What local apps send: in plain text to a listener on loopback, and on to a peer in the mesh by
//! mutual TLS.

mod envoy;
mod federated;
mod grpc;
mod identities;
mod policy;
mod servers;
mod tcp;

use std::convert::Infallible;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use sidegate_tests::Sidegate;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    Answer, Body, Operator, Upstream, access_line, body, counter, finish, folder, logged,
    patiently, read, write,
};

/// A running instance, in a folder of its own.
struct Gate {
    gate: Sidegate,
    folder: TempDir,
}

/// An app that sends in plain text.
#[derive(Clone)]
struct App {
    address: String,
}

/// A configuration with these sections.
fn text(trust_domain: &str, sections: &str) -> String {
    format!(
        r#"
[identity]
trust_domain = "{trust_domain}"
state = "state"
svid_ttl = "1h"

[workload_api]
socket = "workload.sock"

[admin]
listen = "127.0.0.1:0"
{sections}"#
    )
}

/// An entry for a listener.
fn entry(trust_domain: &str, path: &str, listener: &str, more: &str) -> String {
    format!(
        "\n[[identity.entry]]\nspiffe_id = \"spiffe://{trust_domain}{path}\"\n\
         selectors = [\"listener:name:{listener}\"]\n{more}\n"
    )
}

/// A listener in front of a server, `main`.
fn server(address: &str, upstream: &str) -> String {
    format!("\n[[listener]]\nname = \"main\"\nlisten = \"{address}\"\nupstream = \"{upstream}\"\n")
}

/// An outbound listener for `/app` of sidegate.local.
fn egress(name: &str, upstream: &str, lines: &str) -> String {
    format!(
        "\n[[egress]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\n\
         spiffe_id = \"spiffe://sidegate.local/{name}\"\nupstream = \"{upstream}\"\n{lines}\n"
    )
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

impl Gate {
    fn start(trust_domain: &str, sections: &str) -> Self {
        Self::start_with(folder(), text(trust_domain, sections))
    }

    fn start_with(folder: TempDir, text: String) -> Self {
        let file = write(folder.path(), "sidegate.toml", text);
        let gate = Sidegate::run(&file);
        Self { gate, folder }
    }

    /// `sidegate.local` with a server `/server` behind `main`, in front of `upstream`, and the
    /// outbound listener `app` with these lines, whose upstream is that server. The stock policy
    /// decides, or what `sections` say.
    fn pair(upstream: &str, lines: &str, sections: &str) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let sections = [
            entry("sidegate.local", "/server", "main", ""),
            entry("sidegate.local", "/app", "app", ""),
            server(&address, upstream),
            egress("app", &format!("https://{address}"), lines),
            sections.to_owned(),
        ];
        Self::start("sidegate.local", &sections.concat())
    }

    fn address(&self, listener: &str) -> String {
        let mut listeners = self.gate.ready.listeners.iter();
        let found = listeners.find(|it| it.name == listener);
        found.expect("there is one").address.clone()
    }

    fn app(&self, listener: &str) -> App {
        let address = self.address(listener);
        App { address }
    }

    fn operator(&self) -> Operator {
        Operator::of(&self.gate)
    }

    /// The access log's line of a request.
    fn line(&self, answer: &Answer) -> Value {
        access_line(&self.gate, answer.header("x-request-id"))
    }

    /// The lines of a listener in the access log so far.
    fn lines(&self, listener: &str) -> usize {
        let written = self.gate.process.stdout();
        let name = format!("\"listener\":\"{listener}\"");
        written.lines().filter(|line| line.contains(&name)).count()
    }
}

impl App {
    async fn http1(&self) -> http1::SendRequest<Body> {
        let stream = TcpStream::connect(&self.address).await;
        let stream = TokioIo::new(stream.expect("a connection"));
        let (sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        sender
    }

    async fn http2(&self) -> http2::SendRequest<Body> {
        let stream = TcpStream::connect(&self.address).await;
        let stream = TokioIo::new(stream.expect("a connection"));
        let handshake = http2::handshake(TokioExecutor::new(), stream).await;
        let (sender, connection) = handshake.expect("HTTP/2");
        tokio::spawn(connection);
        sender
    }

    /// The answer to a GET over HTTP/1.1.
    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path)).await
    }

    /// The answer to a request without a body over HTTP/1.1.
    async fn send(&self, request: http::request::Builder) -> Answer {
        let request = request.header("host", "orders.example");
        let request = request.body(body("")).expect("a request");
        let mut connection = self.http1().await;
        let response = patiently(connection.send_request(request)).await;
        read(response.expect("a response")).await
    }

    /// The answer to a request without a body over HTTP/2.
    async fn send_http2(&self, request: http::request::Builder, path: &str) -> Answer {
        let request = request.uri(format!("http://orders.example{path}"));
        let request = request.body(body("")).expect("a request");
        let mut connection = self.http2().await;
        let response = patiently(connection.send_request(request)).await;
        read(response.expect("a response")).await
    }
}

/// A request that runs: what is sent comes back until either is dropped.
struct Echo {
    _chunks: http_body_util::channel::Sender<Bytes, Infallible>,
    answer: Incoming,
    _connection: http1::SendRequest<Body>,
}

impl Echo {
    async fn start(app: &App) -> Self {
        let (mut chunks, channel) = Channel::new(1);
        let request = Request::post("/echo").header("host", "orders.example");
        let request = request.body(channel.boxed()).expect("a request");
        let mut connection = app.http1().await;
        let response = connection.send_request(request);
        chunks.send_data("one".into()).await.expect("it is sent");
        let mut answer = patiently(response).await.expect("a response").into_body();
        let first = patiently(answer.frame()).await.expect("a frame");
        assert_eq!(
            first.expect("it is whole").into_data().expect("data"),
            "one"
        );
        Self {
            _chunks: chunks,
            answer,
            _connection: connection,
        }
    }

    /// Waits until it is cut.
    async fn must_be_cut(self) {
        let rest = patiently(self.answer.collect()).await;
        assert!(rest.is_err(), "it does not end well");
    }
}

/// What a server was told of who called.
fn client_certificate(head: &http::request::Parts) -> String {
    let mut values = head.headers.get_all("x-forwarded-client-cert").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        panic!("one certificate: {head:?}");
    };
    value.to_str().expect("it is text").to_owned()
}

const SERVER: &str = r#"expected_spiffe_ids = ["spiffe://sidegate.local/server"]"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_speaks_plain_http_reaches_a_peer_that_sees_its_identity() {
    let upstream = Upstream::start().await;
    let pair = Gate::pair(&upstream.url, SERVER, "");
    let app = pair.app("app");
    let forged = || {
        Request::builder()
            .header(
                "x-forwarded-client-cert",
                "URI=spiffe://sidegate.local/king",
            )
            .header(
                "x_forwarded_client_cert",
                "URI=spiffe://sidegate.local/king",
            )
            .header("x-kept", "yes")
    };
    let answers = [
        app.send(forged().uri("/a?b=c")).await,
        app.send_http2(forged(), "/a?b=c").await,
    ];
    for (answer, head) in answers.iter().zip(upstream.heads()) {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-upstream"), "yes");
        let certificate = client_certificate(&head);
        let ends = certificate.starts_with("By=spiffe://sidegate.local/server;Hash=")
            && certificate.ends_with(";URI=spiffe://sidegate.local/app");
        assert!(ends, "{certificate}");
        assert_eq!(head.uri, "/a?b=c");
        assert_eq!(head.headers["host"], "orders.example");
        assert_eq!(head.headers["x-kept"], "yes");
    }
    let decided = |point: &str| {
        let labels = [
            format!("decision_point=\"{point}\""),
            "verdict=\"allow\"".to_owned(),
        ];
        let labels = labels.each_ref().map(String::as_str);
        counter(&pair.gate, "sidegate_authz_decisions_total", &labels)
    };
    assert_eq!((decided("egress"), decided("ingress")), (2.0, 2.0));
    let line = pair.line(&answers[1]);
    assert_eq!(line["listener"], "app", "{line}");
    assert_eq!(line["protocol"], "HTTP/2", "{line}");
    assert_eq!(line["verdict"], "allow", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_somebody_else_is_sent_nothing() {
    for (lines, who, code) in [
        (
            r#"expected_spiffe_ids = ["spiffe://sidegate.local/other"]"#,
            "`spiffe://sidegate.local/other`",
            "SG0186",
        ),
        (
            r#"expected_trust_domain = "other.example""#,
            "a member of `spiffe://other.example`",
            "SG0186",
        ),
    ] {
        let upstream = Upstream::start().await;
        let policy = "[policy]\npath = \"policy\"\n";
        let address = format!("127.0.0.1:{}", free_port());
        let sections = [
            entry("sidegate.local", "/server", "main", ""),
            entry("sidegate.local", "/app", "app", ""),
            server(&address, &upstream.url),
            egress("app", &format!("https://{address}"), lines),
            policy.to_owned(),
        ];
        let folder = folder();
        policy::write_policy(folder.path(), "allow := true");
        let pair = Gate::start_with(folder, text("sidegate.local", &sections.concat()));
        let answer = pair.app("app").get("/secret").await;
        assert_eq!(answer.status, 502);
        assert_eq!(answer.body, "");
        let line = pair.line(&answer);
        assert_eq!(line["code"], code, "{line}");
        assert_eq!(line["error"], "unexpected_server", "{line}");
        let detail = line["detail"].as_str().expect("there is one");
        let found = "`spiffe://sidegate.local/server`";
        assert!(detail.contains(who) && detail.contains(found), "{detail}");
        assert_eq!(pair.lines("main"), 0, "it got no request");
        assert_eq!(upstream.connections(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_to_this_machine_is_not_dialled_unless_that_is_said() {
    let upstream = Upstream::start().await;
    let port = free_port();
    let sections = |lines: &str| {
        let lines = format!("{SERVER}\n{lines}");
        [
            entry("sidegate.local", "/server", "main", ""),
            entry("sidegate.local", "/app", "app", ""),
            server(&format!("127.0.0.1:{port}"), &upstream.url),
            egress("app", &format!("https://localhost:{port}"), &lines),
        ]
        .concat()
    };
    for lines in ["", "allowed_addresses = [\"10.0.0.0/8\"]"] {
        let refusing = Gate::start("sidegate.local", &sections(lines));
        let answer = refusing.app("app").get("/").await;
        assert_eq!(answer.status, 502);
        let line = refusing.line(&answer);
        assert_eq!(line["code"], "SG0393", "{line}");
        assert_eq!(
            line["verdict"], "none",
            "it never came to a decision: {line}"
        );
    }
    let lines = "allowed_addresses = [\"127.0.0.0/8\", \"::1\"]";
    let dialling = Gate::start("sidegate.local", &sections(lines));
    assert_eq!(dialling.app("app").get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_lead_to_peers_by_path_and_a_listener_reaches_a_peer_as_itself() {
    let upstream = Upstream::start().await;
    let (address, front) = (free_port(), free_port());
    let sections = [
        entry("sidegate.local", "/server", "main", ""),
        entry("sidegate.local", "/front", "front", ""),
        entry("sidegate.local", "/app", "app", ""),
        server(&format!("127.0.0.1:{address}"), &upstream.url),
        format!(
            "\n[[listener]]\nname = \"front\"\nlisten = \"127.0.0.1:{front}\"\n\
             upstream = \"https://127.0.0.1:{address}\"\n{SERVER}\n"
        ),
        format!(
            "\n[[egress]]\nname = \"app\"\nlisten = \"127.0.0.1:0\"\n\
             spiffe_id = \"spiffe://sidegate.local/app\"\n\
             [[egress.route]]\npath_prefix = \"/direct\"\n\
             upstream = \"https://127.0.0.1:{address}\"\n{SERVER}\n\
             [[egress.route]]\npath_prefix = \"/front\"\n\
             upstream = \"https://127.0.0.1:{front}\"\n\
             expected_trust_domain = \"sidegate.local\"\n"
        ),
    ];
    let gate = Gate::start("sidegate.local", &sections.concat());
    let app = gate.app("app");
    assert_eq!(app.get("/direct/1").await.status, 200);
    assert_eq!(app.get("/front/1").await.status, 200);
    let answer = app.get("/elsewhere").await;
    assert_eq!(answer.status, 404);
    assert_eq!(gate.line(&answer)["code"], "SG0313");
    let heads = upstream.heads();
    let callers: Vec<_> = heads.iter().map(client_certificate).collect();
    for (caller, id) in callers.iter().zip(["app", "front"]) {
        let ends = caller.ends_with(&format!(";URI=spiffe://sidegate.local/{id}"));
        assert!(ends, "{caller}");
    }
}

/// Answers what asks to switch, and sends back what comes then.
async fn switching(listener: TcpListener) {
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    let answer =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(answer).await.expect("it is sent");
    let (mut from, mut to) = stream.split();
    let copied = tokio::io::copy(&mut from, &mut to).await;
    copied.expect("it ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_switches_protocols_passes_both_listeners() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let serving = tokio::spawn(switching(listener));
    let pair = Gate::pair(&url, SERVER, "");
    let mut stream = TcpStream::connect(pair.address("app"))
        .await
        .expect("a connection");
    let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(patiently(stream.read_u8()).await.expect("a head"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{answer:?}");
    stream.write_all(b"one two").await.expect("it is sent");
    stream.shutdown().await.expect("the app has no more to say");
    let mut rest = String::new();
    let read = patiently(stream.read_to_string(&mut rest)).await;
    read.expect("it ends well");
    assert_eq!(rest, "one two");
    serving.await.expect("the server ends well");
}

#[test]
fn an_outbound_listener_without_an_entry_for_it_does_not_start() {
    let folder = folder();
    let sections = [
        entry("sidegate.local", "/app", "another", ""),
        egress("app", "https://127.0.0.1:1", SERVER),
    ];
    let text = text("sidegate.local", &sections.concat());
    let file = write(folder.path(), "sidegate.toml", text);
    let mut command = Sidegate::command("run");
    let output = finish(command.arg("--config").arg(&file));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    for part in ["error[SG0043]", "listener:name:app", "name = \"app\""] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
}

/// Waits until an instance has logged a line with these texts.
fn told(gate: &Gate, texts: &[&str]) {
    logged(&gate.gate, texts);
}
