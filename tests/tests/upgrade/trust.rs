//! What ends a tunnel: what it was trusted by is gone, and with it no other.

use std::path::Path;

use hyper::client::conn::http2::SendRequest;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sidegate_tests::Sidegate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;

use super::ends::is_cut;
use super::server::Server;
use super::{Socket, echoes, http2, open, run};
use crate::authorities::svids::renewed_in;
use crate::federation::{Foreign, OTHER};
use crate::support::{
    Body, Client, Configuration, Operator, access_line, counter, folder, identity_only, logged,
    write,
};

/// A tunnel that was used.
struct Tunnel<S> {
    socket: Socket<S>,
    /// Of its request.
    id: String,
    status: u16,
    /// The connection that it is a stream of.
    _connection: Option<SendRequest<Body>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Tunnel<S> {
    async fn is_open(&mut self) {
        echoes(&mut self.socket, Message::text("are you there")).await;
    }

    /// Waits for its end, and for what is written of it.
    async fn is_cut(&mut self, gate: &Sidegate, peer: &str) {
        is_cut(&mut self.socket).await;
        let line = access_line(gate, &self.id);
        assert_eq!(line["error"], "trust_gone", "{line}");
        assert_eq!(line["code"], "SG0309", "{line}");
        assert_eq!(line["status"], self.status, "{line}");
        assert_eq!(line["peer"], peer, "{line}");
        logged(gate, &["SG0309", &format!("peer={peer}")]);
    }
}

/// Over HTTP/1.1.
async fn switched(client: &Client) -> Tunnel<super::TlsStream<super::TcpStream>> {
    let (mut socket, head) = open(client, "/").await.unwrap();
    echoes(&mut socket, Message::text("before")).await;
    Tunnel {
        socket,
        id: head.headers()["x-request-id"].to_str().unwrap().to_owned(),
        status: 101,
        _connection: None,
    }
}

/// Over HTTP/2, on a connection of its own.
async fn extended(client: &Client) -> Tunnel<TokioIo<Upgraded>> {
    stream_of(&mut http2::connect(client).await).await
}

async fn stream_of(connection: &mut SendRequest<Body>) -> Tunnel<TokioIo<Upgraded>> {
    let response = http2::ask(connection, "/").await;
    let id = response.headers()["x-request-id"].to_str().unwrap();
    let id = id.to_owned();
    let status = response.status().as_u16();
    let mut socket = http2::socket(response).await;
    echoes(&mut socket, Message::text("before")).await;
    Tunnel {
        socket,
        id,
        status,
        _connection: Some(connection.clone()),
    }
}

const DEMO: &str = "spiffe://sidegate.local/demo";

fn cut(gate: &Sidegate) -> u64 {
    let labels = ["listener=\"main\"", "reason=\"trust\""];
    counter(gate, "sidegate_connections_cut_total", &labels) as u64
}

async fn a_revoked_root_ends<S>(tunnel: impl AsyncFn(&Client) -> Tunnel<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let folder = folder();
    let server = Server::start().await;
    let (gate, old) = run(&folder, &server.url, "", "");
    let operator = Operator::of(&gate);
    let first = operator.authority("x509", "active");
    let mut before = tunnel(&old).await;
    operator.ask(&["rotate", "x509"]);
    operator.ask(&["taint", "x509"]);
    let new = renewed_in(&folder.path().join("demo"), &old, &first);
    let mut after = tunnel(&new).await;
    // Its connection was asked to end in good order, which does not hurry it.
    before.is_open().await;
    assert_eq!(cut(&gate), 0);
    operator.ask(&["revoke", "x509"]);
    before.is_cut(&gate, DEMO).await;
    after.is_open().await;
    assert_eq!(cut(&gate), 1);
}

async fn a_deleted_bundle_ends<S>(tunnel: impl AsyncFn(&Client) -> Tunnel<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let server = Server::start().await;
    let (gate, own) = federating(folder.path(), &server.url);
    let operator = Operator::of(&gate);
    foreign.is_known_to(&operator);
    let client = foreign.client(&own.address, &folder.path().join("demo/bundle.pem"));
    let mut theirs = tunnel(&client).await;
    let mut ours = tunnel(&own).await;
    foreign.is_forgotten_by(&operator);
    theirs.is_cut(&gate, &foreign.id()).await;
    ours.is_open().await;
    assert_eq!(cut(&gate), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_revoked_ends_the_tunnels_that_hang_on_it_and_no_others() {
    a_revoked_root_ends(switched).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_revoked_ends_the_websockets_over_http2_that_hang_on_it_and_no_others() {
    a_revoked_root_ends(extended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_is_deleted_ends_the_tunnels_of_its_trust_domain_and_no_others() {
    a_deleted_bundle_ends(switched).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_is_deleted_ends_the_websockets_over_http2_of_its_trust_domain_and_no_others()
{
    a_deleted_bundle_ends(extended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_listeners_entry_every_websocket_of_a_connection_ends_and_each_has_its_line() {
    let folder = folder();
    let identities = Sidegate::run(&identity_only(folder.path(), ""));
    let name = ["--dns-name", "localhost"];
    let entry = Operator::of(&identities).create("/orders", "listener:name:main", &name);
    identities.stop();
    let server = Server::start().await;
    write(folder.path(), "policy/policy.rego", NOT_DENIED);
    let mut configuration = Configuration::before(&server.url, "");
    let (_entry, rest) = configuration.listener.split_once("[policy]").unwrap();
    configuration.listener = format!("[policy]{rest}");
    let (gate, client) = configuration.start(folder.path());

    let mut connection = http2::connect(&client).await;
    let mut one = stream_of(&mut connection).await;
    let mut other = stream_of(&mut connection).await;
    let mut beside = switched(&client).await;
    // Another's entry is no news.
    let operator = Operator::of(&gate);
    operator.delete(&operator.create("/else", "listener:name:else", &[]));
    one.is_open().await;
    operator.delete(&entry);
    one.is_cut(&gate, DEMO).await;
    other.is_cut(&gate, DEMO).await;
    beside.is_cut(&gate, DEMO).await;
    assert_eq!(cut(&gate), 2);
}

const NOT_DENIED: &str =
    "package envoy.authz\nallow if input.attributes.request.http.path != \"/denied\"\n";

/// A listener in front of a server that lets the other trust domain in.
fn federating(folder: &Path, url: &str) -> (Sidegate, Client) {
    write(folder, "policy/policy.rego", NOT_DENIED);
    let mut configuration = Configuration::before(url, "");
    let line = "dns_names = [\"localhost\"]\n";
    let lines = format!("{line}federates_with = [\"{OTHER}\"]\n");
    configuration.listener = configuration.listener.replace(line, &lines);
    configuration.start(folder)
}
