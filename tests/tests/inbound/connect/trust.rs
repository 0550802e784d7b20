//! What ends a `CONNECT` tunnel: what it was trusted by is gone, and with it no other.

use http::{Method, Request};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use sidegate_tests::Sidegate;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{DATABASES, TUNNEL, ask, expect, listener, request_id, start};
use crate::authorities::svids::renewed_in;
use crate::federation::{Foreign, OTHER};
use crate::inbound::{Front, OWN};
use crate::support::{
    Body, Client, Operator, access_line, body, counter, folder, identity_only, logged, patiently,
};

/// A server that is not asked.
const NOBODY: &str = "http://127.0.0.1:9";

const DEMO: &str = "spiffe://sidegate.local/demo";

trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

/// A tunnel that was used.
struct Tunnel {
    stream: Box<dyn Duplex>,
    /// Of its request.
    id: String,
    /// The HTTP/2 connection that it is a stream of.
    _connection: Option<SendRequest<Body>>,
}

impl Tunnel {
    /// One over HTTP/1.1, and one over HTTP/2, each on a connection of its own.
    async fn pair(client: &Client) -> [Self; 2] {
        let mut stream = client.raw().await;
        let head = ask(&mut stream, TUNNEL).await;
        let first = Self::used(stream, request_id(&head), None).await;

        let mut connection = client.http2().await;
        let request = Request::builder().method(Method::CONNECT);
        let request = request.uri("db.internal:5432").body(body("")).unwrap();
        let response = patiently(connection.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        let id = response.headers()["x-request-id"].clone();
        let stream = patiently(hyper::upgrade::on(response)).await.unwrap();
        let stream = TokioIo::new(stream);
        let second = Self::used(stream, id.to_str().unwrap(), Some(connection)).await;
        [first, second]
    }

    async fn used(
        stream: impl Duplex + 'static,
        id: &str,
        connection: Option<SendRequest<Body>>,
    ) -> Self {
        let mut tunnel = Self {
            stream: Box::new(stream),
            id: id.to_owned(),
            _connection: connection,
        };
        expect(&mut tunnel.stream, "ready ").await;
        tunnel.is_open().await;
        tunnel
    }

    async fn is_open(&mut self) {
        self.stream.write_all(b"ping").await.unwrap();
        expect(&mut self.stream, "PING").await;
    }

    /// Waits for its end, which must not look like the server's, and for what is written of it.
    async fn is_cut(&mut self, gate: &Sidegate, peer: &str) {
        let mut rest = Vec::new();
        let end = patiently(self.stream.read_to_end(&mut rest)).await;
        assert!(end.is_err(), "a clean end");
        assert!(rest.is_empty(), "{rest:?}");
        let line = access_line(gate, &self.id);
        assert_eq!(line["error"], "trust_gone", "{line}");
        assert_eq!(line["code"], "SG0309", "{line}");
        assert_eq!(line["method"], "CONNECT", "{line}");
        assert_eq!(line["peer"], peer, "{line}");
        logged(gate, &["SG0309", &format!("peer={peer}")]);
    }
}

fn cut(gate: &Sidegate) -> u64 {
    let labels = ["listener=\"main\"", "reason=\"trust\""];
    counter(gate, "sidegate_connections_cut_total", &labels) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_revoked_ends_the_connects_that_hang_on_it_and_no_others() {
    let front = start(NOBODY);
    let gate = &front.sidegate;
    let operator = Operator::of(gate);
    let first = operator.authority("x509", "active");
    let mut before = Tunnel::pair(&front.client).await;
    operator.ask(&["rotate", "x509"]);
    operator.ask(&["taint", "x509"]);
    let new = renewed_in(&front.folder.path().join("demo"), &front.client, &first);
    let mut after = Tunnel::pair(&new).await;
    // Their connections were asked to end in good order, which does not hurry them.
    for tunnel in &mut before {
        tunnel.is_open().await;
    }
    assert_eq!(cut(gate), 0);
    operator.ask(&["revoke", "x509"]);
    for tunnel in &mut before {
        tunnel.is_cut(gate, DEMO).await;
    }
    for tunnel in &mut after {
        tunnel.is_open().await;
    }
    assert_eq!(cut(gate), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_is_deleted_ends_the_connects_of_its_trust_domain_and_no_others() {
    let foreign = Foreign::start(OTHER);
    let entries = format!("{OWN}federates_with = [\"{OTHER}\"]\n");
    let front = Front::start_in(folder(), "", &entries, &listener(NOBODY), DATABASES);
    let operator = Operator::of(&front.sidegate);
    foreign.is_known_to(&operator);
    let roots = front.folder.path().join("demo/bundle.pem");
    let client = foreign.client(&front.client.address, &roots);
    let mut theirs = Tunnel::pair(&client).await;
    let mut ours = Tunnel::pair(&front.client).await;
    foreign.is_forgotten_by(&operator);
    for tunnel in &mut theirs {
        tunnel.is_cut(&front.sidegate, &foreign.id()).await;
    }
    for tunnel in &mut ours {
        tunnel.is_open().await;
    }
    assert_eq!(cut(&front.sidegate), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_listeners_entry_its_connects_end() {
    let folder = folder();
    let identities = Sidegate::run(&identity_only(folder.path(), ""));
    let name = ["--dns-name", "localhost"];
    let entry = Operator::of(&identities).create("/orders", "listener:name:main", &name);
    identities.stop();
    let front = Front::start_in(folder, "", "", &listener(NOBODY), DATABASES);
    let mut tunnels = Tunnel::pair(&front.client).await;
    Operator::of(&front.sidegate).delete(&entry);
    for tunnel in &mut tunnels {
        tunnel.is_cut(&front.sidegate, DEMO).await;
    }
    assert_eq!(cut(&front.sidegate), 2);
}
