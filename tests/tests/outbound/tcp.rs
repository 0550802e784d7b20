//! Plain TCP from an app, mutual TLS to the peer.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Gate, entry, policy, text, told};
use crate::support::{Identity, certificates, folder, own_uid, patiently};
use sidegate_tests::until;

/// A peer that greets by the name of who called, and sends back what it gets.
struct Peer {
    listener: TcpListener,
    address: String,
}

impl Peer {
    async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        Self { listener, address }
    }

    /// Serves with the SVID files in a folder.
    fn serve(self, folder: &TempDir) {
        let echo = folder.path().join("echo");
        let mut roots = RootCertStore::empty();
        for root in certificates(&echo.join("bundle.pem")) {
            roots.add(root).expect("a root");
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let Identity { chain, key } = Identity::read(&echo.join("svid.pem"), &echo.join("key.pem"));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.3")
            .with_client_cert_verifier(verifier.build().expect("there are roots"))
            .with_single_cert(chain, key)
            .expect("the key fits");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            loop {
                let (stream, _) = self.listener.accept().await.expect("a connection");
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.expect("mutual TLS");
                    let (_, tls) = stream.get_ref();
                    let leaf = &tls.peer_certificates().expect("it showed them")[0];
                    let greeting = format!("hello {}\n", uri(leaf));
                    stream.write_all(greeting.as_bytes()).await.expect("sent");
                    let mut buffer = [0; 1024];
                    // A read may fail where the other side is cut.
                    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                        let sent = stream.write_all(&buffer[..length]).await;
                        sent.expect("it is sent back");
                    }
                    let _ = stream.write_all(b"bye\n").await;
                    let _ = stream.shutdown().await;
                });
            }
        });
    }
}

fn uri(leaf: &[u8]) -> String {
    let (_, certificate) = X509Certificate::from_der(leaf).expect("a certificate");
    let names = certificate.subject_alternative_name().expect("there are");
    let names = &names.expect("names").value.general_names;
    let uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    uri.expect("a URI")
}

/// An app that may send to the peer by these rules.
fn gate(peer: &Peer, rules: &str) -> Gate {
    let sections = format!(
        r#"{app}
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/echo"
selectors = ["{uid}"]

[[svid_file]]
spiffe_id = "spiffe://sidegate.local/echo"
directory = "echo"

[[egress]]
name = "app"
listen = "127.0.0.1:0"
spiffe_id = "spiffe://sidegate.local/app"
protocol = "tcp"
upstream = "tls://{address}"
expected_spiffe_ids = ["spiffe://sidegate.local/echo"]

[policy]
path = "policy"
"#,
        app = entry("sidegate.local", "/app", "app", ""),
        uid = own_uid(),
        address = peer.address,
    );
    let folder = folder();
    policy::write_policy(folder.path(), rules);
    Gate::start_with(folder, text("sidegate.local", &sections))
}

const RULES: &str = r#"allow if {
    input.attributes.request.http.method == "CONNECT"
    input.attributes.request.http.scheme == "tcp"
    not input.attributes.request.http.path
    startswith(input.attributes.request.http.host, "127.0.0.1:")
    input.attributes.destination.principal == "spiffe://sidegate.local/echo"
}"#;

async fn greeted(app: &str) -> TcpStream {
    let mut stream = TcpStream::connect(app).await.expect("a connection");
    let expected = b"hello spiffe://sidegate.local/app\n";
    let mut greeting = vec![0; expected.len()];
    let read = patiently(stream.read_exact(&mut greeting)).await;
    read.expect("the peer speaks first");
    assert_eq!(greeting, expected);
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_both_ways_and_either_side_may_end_first() {
    let peer = Peer::bind().await;
    let gate = gate(&peer, RULES);
    let address = peer.address.clone();
    peer.serve(&gate.folder);
    let mut stream = greeted(&gate.address("app")).await;
    stream.write_all(b"one two").await.expect("it is sent");
    stream.shutdown().await.expect("the app has no more to say");
    let mut rest = String::new();
    let read = patiently(stream.read_to_string(&mut rest)).await;
    read.expect("a clean end");
    assert_eq!(rest, "one twobye\n");
    let line = until("the connection's line", || {
        let written = gate.gate.process.stdout();
        let mut lines = written.lines().filter(|line| line.contains("\"TCP\""));
        lines.next().map(ToOwned::to_owned)
    });
    let line: serde_json::Value = serde_json::from_str(&line).expect("it is JSON");
    assert_eq!(line["listener"], "app", "{line}");
    assert_eq!(line["authority"], address.as_str(), "{line}");
    assert_eq!(line["verdict"], "allow", "{line}");
    assert_eq!(line["request_bytes"], 7, "{line}");
    assert_eq!(line["response_bytes"], 34 + 11, "{line}");
    assert_eq!(line.get("error"), None, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_policy_denies_ends_and_one_that_it_denies_now_does_too() {
    let peer = Peer::bind().await;
    let gate = gate(&peer, RULES);
    peer.serve(&gate.folder);
    let mut open = greeted(&gate.address("app")).await;
    policy::write_policy(gate.folder.path(), "default allow := false");
    told(&gate, &["SG0340"]);
    let mut rest = Vec::new();
    // It may be told by an end or by a reset.
    let _ = patiently(open.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "{rest:?}");

    let address = gate.address("app");
    let mut denied = TcpStream::connect(address).await.expect("a connection");
    let read = patiently(denied.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "{read:?} {rest:?}");
    let line = until("the line of the one that is denied", || {
        let written = gate.gate.process.stdout();
        let mut lines = written.lines().filter(|line| line.contains("\"deny\""));
        lines
            .find(|line| !line.contains("SG0340"))
            .map(ToOwned::to_owned)
    });
    assert!(line.contains("\"TCP\""), "{line}");
}
