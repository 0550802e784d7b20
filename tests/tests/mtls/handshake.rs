//! The handshake itself: versions, key exchange, resumption, and what is not TLS at all.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::{HandshakeKind, NamedGroup};
use sidegate_tests::{Output, Sidegate, Tool, skip, tool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{GET, counted, handshakes};
use crate::support::{Client, address, finish, folder, logged, patiently, up, write};

/// openssl's client with the demo client's identity; it sends one request and reads to the end.
fn openssl(folder: &Path, sidegate: &Sidegate, options: &[&str]) -> Option<Output> {
    let Some(openssl) = tool(Tool::Openssl) else {
        skip("openssl as the client", Tool::Openssl);
        return None;
    };
    let demo = sidegate.demo();
    // It wants the chain without the leaf.
    let svid = std::fs::read_to_string(&demo.svid).expect("the SVID is read");
    let (_, intermediate) = svid
        .split_once("-----END CERTIFICATE-----\n")
        .expect("a leaf and an intermediate");
    let intermediate = write(folder, "intermediate.pem", intermediate);
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(
            "printf 'GET /status/200 HTTP/1.1\\r\\nhost: localhost\\r\\nconnection: close\\r\\n\\r\\n' \
             | \"$@\"",
        )
        .arg("sh")
        .arg(openssl)
        .args(["s_client", "-ign_eof", "-servername", "localhost"])
        .arg("-verify_return_error")
        .args(["-connect", address(sidegate)])
        .arg("-CAfile")
        .arg(&demo.bundle)
        .arg("-cert")
        .arg(&demo.svid)
        .arg("-cert_chain")
        .arg(intermediate)
        .arg("-key")
        .arg(&demo.key)
        .args(options);
    Some(finish(&mut command))
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_answered_with_no_http() {
    let folder = folder();
    let sidegate = up(&folder, &[]);

    let mut stream = TcpStream::connect(address(&sidegate)).await.unwrap();
    stream.write_all(GET).await.unwrap();
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = patiently(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.contains("HTTP"), "{answer}");
    logged(&sidegate, &["code=\"SG0176\"", "plain HTTP"]);
    counted(&sidegate, "not_tls");
}

#[test]
fn a_client_that_speaks_only_tls_1_2_is_told_apart_and_the_envoy_setting_named() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let Some(output) = openssl(folder.path(), &sidegate, &["-tls1_2"]) else {
        return;
    };
    assert!(!output.stdout.contains("HTTP/1.1"), "{}", output.stdout);
    assert!(
        output.stderr.contains("alert protocol version"),
        "{}",
        output.stderr
    );
    logged(&sidegate, &["code=\"SG0171\"", "TLSv1_3"]);
    counted(&sidegate, "no_tls13");
}

#[test]
fn openssl_is_served_and_gets_no_session_tickets() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let session = folder.path().join("session.pem");
    let Some(output) = openssl(
        folder.path(),
        &sidegate,
        &["-sess_out", session.to_str().unwrap()],
    ) else {
        return;
    };
    let said = output.stdout + &output.stderr;
    assert!(said.contains("New, TLSv1.3"), "{said}");
    assert!(said.contains("HTTP/1.1 200"), "{said}");
    assert!(!said.contains("New Session Ticket"), "{said}");
    if !session.exists() {
        return;
    }
    // openssl may have written what it holds of the session: it resumes nothing.
    let output = openssl(
        folder.path(),
        &sidegate,
        &["-sess_in", session.to_str().unwrap()],
    )
    .unwrap();
    let said = output.stdout + &output.stderr;
    assert!(!said.contains("Reused"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_shows_its_certificate_again_because_no_session_is_resumed() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let client = Client::demo(&sidegate);
    // rustls resumes by itself whatever it got a ticket for.
    let config = Arc::new(client.tls(aws_lc_rs::default_provider()));

    for _ in 0..3 {
        let mut stream = client.connect_with(Arc::clone(&config)).await.unwrap();
        stream.write_all(GET).await.unwrap();
        let mut answer = String::new();
        patiently(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let connection = stream.get_ref().1;
        assert_eq!(connection.tls13_tickets_received(), 0);
        assert_ne!(connection.handshake_kind(), Some(HandshakeKind::Resumed));
    }
    assert!(handshakes(&sidegate, "result=\"success\"") > 2.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_exchange_is_hybrid_where_the_client_can_and_x25519_where_it_cannot() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let client = Client::demo(&sidegate);

    let cases = [
        (
            vec![kx_group::X25519MLKEM768, kx_group::X25519],
            NamedGroup::X25519MLKEM768,
        ),
        (vec![kx_group::X25519MLKEM768], NamedGroup::X25519MLKEM768),
        (vec![kx_group::X25519], NamedGroup::X25519),
    ];
    for (groups, expected) in cases {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = groups;
        let stream = client.connect(client.tls(provider)).await.unwrap();
        let group = stream.get_ref().1.negotiated_key_exchange_group();
        assert_eq!(group.map(|group| group.name()), Some(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_shows_the_components_spiffe_id_and_the_name_localhost() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let client = Client::demo(&sidegate);

    let stream = client.raw().await;
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    assert_eq!(chain.len(), 2, "leaf and intermediate");
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    let names = &names.value.general_names;
    let uris: Vec<_> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    assert_eq!(uris, ["spiffe://sidegate.local/probe"]);
    assert_eq!(sidegate.ready.listeners[0].spiffe_id, uris[0]);
    assert!(names.contains(&GeneralName::DNSName("localhost")));
}
