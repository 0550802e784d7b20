//! Servers of all kinds behind `https://`: what they show, what they speak.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::CertificateParams;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{App, Echo, Gate, egress, entry, told};
use crate::support::{Authority, Identity, body, leaf, leaf as leaf_of, now, patiently, read};

/// A server that speaks HTTP/1.1 only and does not ask who calls. It answers with its version, and
/// counts what it is asked.
struct Server {
    asked: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(listener: TcpListener, identity: Identity, protocols: &[&str]) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let Identity { chain, key } = identity;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key fits");
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = protocols.collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let server = Self {
            asked: Arc::default(),
            connections: Arc::default(),
        };
        let (asked, connections) = (Arc::clone(&server.asked), Arc::clone(&server.connections));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (acceptor, asked) = (acceptor.clone(), Arc::clone(&asked));
                let connections = Arc::clone(&connections);
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    connections.fetch_add(1, Ordering::SeqCst);
                    let service = service_fn(|request| {
                        asked.fetch_add(1, Ordering::SeqCst);
                        let answer = answer(request);
                        async { Ok::<_, Infallible>(answer) }
                    });
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        server
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

type Answered = Response<http_body_util::combinators::BoxBody<Bytes, hyper::Error>>;

fn answer(request: Request<Incoming>) -> Answered {
    assert_eq!(request.version(), Version::HTTP_11);
    let host = request.headers()["host"].clone();
    let body = match request.uri().path() {
        "/echo" => request.into_body().boxed(),
        _ => Full::from("hello").map_err(|never| match never {}).boxed(),
    };
    let response = Response::builder().header("x-host", host);
    response.body(body).expect("a response")
}

const EXPECTED: &str = r#"expected_spiffe_ids = ["spiffe://sidegate.local/server"]"#;

/// An instance with an app, and a place where its peer may listen.
async fn gate() -> (Gate, App, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let sections = [
        entry("sidegate.local", "/app", "app", ""),
        entry("sidegate.local", "/server", "nowhere", ""),
        egress("app", &format!("https://{address}"), EXPECTED),
    ];
    let gate = Gate::start("sidegate.local", &sections.concat());
    let app = gate.app("app");
    (gate, app, listener)
}

fn own(gate: &Gate) -> Authority {
    Authority::of(&gate.gate.ready.state)
}

const SERVER: &str = "spiffe://sidegate.local/server";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_http2_is_spoken_to_in_http1_on_kept_connections() {
    for protocols in [&[][..], &["http/1.1"]] {
        let (gate, app, listener) = gate().await;
        let identity = own(&gate).issue(&leaf(&[SERVER]));
        let server = Server::start(listener, identity, protocols);
        let mut connection = app.http1().await;
        for _ in 0..5 {
            patiently(connection.ready()).await.expect("it stays");
            let request = Request::get("/").header("host", "orders.example");
            let request = request.body(body("")).expect("a request");
            let response = patiently(connection.send_request(request)).await;
            let answer = read(response.expect("a response")).await;
            assert_eq!(
                (answer.status.as_u16(), answer.body.as_str()),
                (200, "hello")
            );
            assert_eq!(answer.header("x-host"), "orders.example");
        }
        let answer = app.send_http2(Request::builder(), "/").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-host"), "orders.example");
        assert_eq!(server.asked(), 6);
        let connections = server.connections.load(Ordering::SeqCst);
        assert!(
            connections <= 2,
            "one for each worker that asked: {connections}"
        );
    }
}

/// What a server shows, and why that is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_svid_is_not_in_order_is_sent_nothing() {
    type Change = fn(&mut CertificateParams);
    let cases: [(&str, &str, Change); 5] = [
        ("SG0187", "expired", |leaf| {
            leaf.not_after = now() - Duration::seconds(30);
        }),
        ("SG0187", "no URI SAN", |leaf| {
            let name = "localhost".try_into().expect("a name");
            leaf.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
        }),
        ("SG0187", "2 URI SANs", |leaf| {
            let more = leaf_of(&["spiffe://sidegate.local/more"]);
            leaf.subject_alt_names.extend(more.subject_alt_names);
        }),
        ("SG0187", "which is not the leaf's trust domain", |leaf| {
            let other = leaf_of(&["spiffe://other.example/server"]);
            leaf.subject_alt_names = other.subject_alt_names;
        }),
        ("SG0186", "/other`", |leaf| {
            let other = leaf_of(&["spiffe://sidegate.local/other"]);
            leaf.subject_alt_names = other.subject_alt_names;
        }),
    ];
    for (code, text, change) in cases {
        let (gate, app, listener) = gate().await;
        let mut params = leaf(&[SERVER]);
        change(&mut params);
        let server = Server::start(listener, own(&gate).issue(&params), &["http/1.1"]);
        let answer = app.get("/").await;
        assert_eq!(answer.status, 502, "{text}");
        let line = gate.line(&answer);
        assert_eq!(line["code"], code, "{line}");
        let detail = line["detail"].as_str().expect("there is one");
        assert!(
            detail.to_lowercase().contains(&text.to_lowercase()),
            "{detail}"
        );
        assert_eq!(server.asked(), 0, "{text}");
    }
    // Of the right name, and of nobody whom the trust domain knows.
    let (gate, app, listener) = gate().await;
    let foreign = Authority::foreign("sidegate.local");
    let server = Server::start(listener, foreign.issue(&leaf(&[SERVER])), &["http/1.1"]);
    let answer = app.get("/").await;
    assert_eq!(answer.status, 502);
    assert_eq!(gate.line(&answer)["code"], "SG0187");
    assert_eq!(server.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_speak_tls_is_502() {
    let (gate, app, listener) = gate().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
        }
    });
    let answer = app.get("/").await;
    assert_eq!(answer.status, 502);
    assert_eq!(gate.line(&answer)["code"], "SG0188");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_servers_svid() {
    let (gate, app, listener) = gate().await;
    let mut params = leaf(&[SERVER]);
    params.not_after = now() + Duration::seconds(5);
    let _server = Server::start(listener, own(&gate).issue(&params), &["http/1.1"]);
    Echo::start(&app).await.must_be_cut().await;
    told(&gate, &["SG0397", SERVER]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_hang_on_the_root_that_the_server_was_trusted_by() {
    let (gate, app, listener) = gate().await;
    let identity = own(&gate).issue(&leaf(&[SERVER]));
    let server = Server::start(listener, identity, &["http/1.1"]);
    let running = Echo::start(&app).await;
    let operator = gate.operator();
    for action in ["rotate", "taint", "revoke"] {
        operator.ask(&[action, "x509"]);
    }
    running.must_be_cut().await;
    told(&gate, &["SG0396", SERVER]);
    let asked = server.asked();
    let answer = app.get("/").await;
    assert_eq!(answer.status, 502);
    assert_eq!(gate.line(&answer)["code"], "SG0187");
    assert_eq!(server.asked(), asked, "nothing more was sent");
}
