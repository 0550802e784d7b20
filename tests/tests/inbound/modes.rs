//! `tls`: what clients must show.

use std::process::Command;

use serde_json::{Value, json};
use sidegate_tests::{Output, Sidegate, Tool, skip, tool, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Front, SEEN};
use crate::support::{
    Authority, Operator, Upstream, access_line, address, admin, counter, finish, folder,
    identity_only, leaf, logged, patiently,
};

const DEMO: &str = "spiffe://sidegate.local/demo";

/// curl, which says which version and status it got.
fn curl(arguments: &[&str]) -> Option<Output> {
    let Some(curl) = tool(Tool::Curl) else {
        skip("the modes of TLS by curl", Tool::Curl);
        return None;
    };
    let mut command = Command::new(curl);
    command.args(["-sS", "-o", "/dev/null", "-m", "30"]);
    command.args(["-w", "%{http_version} %{http_code}"]);
    Some(finish(command.args(arguments)))
}

/// What the policy has seen of the last request, and its headers as the upstream got them.
fn last(upstream: &Upstream) -> (Value, http::HeaderMap) {
    let head = upstream.heads().pop().expect("a request");
    let seen = head.headers["x-seen"].to_str().expect("it is text");
    (
        serde_json::from_str(seen).expect("it is JSON"),
        head.headers,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_permissive_port_come_plaintext_and_tls_with_and_without_an_svid() {
    let upstream = Upstream::start().await;
    let listener = format!("upstream = \"{}\"\ntls = \"permissive\"", upstream.url);
    let front = Front::start(&listener, SEEN);
    let demo = front.folder.path().join("demo");
    let file = |name: &str| demo.join(name).to_str().expect("it is text").to_owned();
    let port = front.client.address.rsplit_once(':').expect("a port").1;
    let https = format!("https://localhost:{port}/tls");
    let plain = front.url("/plain");
    let (roots, svid, key) = (file("bundle.pem"), file("svid.pem"), file("key.pem"));
    let tls = ["--cacert", &roots, &https];
    let mutual = ["--cert", &svid, "--key", &key, "--cacert", &roots, &https];
    for (arguments, version, scheme, principal) in [
        (vec![plain.as_str()], "1.1", "http", None),
        (vec!["--http2-prior-knowledge", &plain], "2", "http", None),
        (tls.to_vec(), "2", "https", None),
        (
            [&["--http1.1"], tls.as_slice()].concat(),
            "1.1",
            "https",
            None,
        ),
        (mutual.to_vec(), "2", "https", Some(DEMO)),
        (
            [&["--http1.1"], mutual.as_slice()].concat(),
            "1.1",
            "https",
            Some(DEMO),
        ),
    ] {
        let what = format!("{arguments:?}");
        let forged = [
            "-H",
            "x-forwarded-client-cert: URI=spiffe://sidegate.local/demo",
        ];
        let Some(output) = curl(&[&forged, arguments.as_slice()].concat()) else {
            return;
        };
        assert_eq!(output.stdout, format!("{version} 200"), "{what} {output:?}");
        let (seen, headers) = last(&upstream);
        assert_eq!(seen["principal"], json!(principal), "{what} {seen}");
        assert_eq!(
            seen["has_certificate"],
            principal.is_some(),
            "{what} {seen}"
        );
        assert_eq!(seen["scheme"], scheme, "{what} {seen}");
        let own = (scheme == "https").then_some("spiffe://sidegate.local/orders");
        assert_eq!(seen["destination"], json!(own), "{what} {seen}");
        assert_eq!(headers["x-forwarded-proto"], scheme, "{what}");
        let told = headers.get("x-forwarded-client-cert");
        assert_eq!(told.is_some(), principal.is_some(), "{what} {told:?}");
        let id = headers["x-request-id"].to_str().unwrap();
        let line = access_line(&front.sidegate, id);
        assert_eq!(
            line.get("peer"),
            principal.map(Value::from).as_ref(),
            "{line}"
        );
    }

    // Nothing may be shown, and something wrong may not.
    let stranger = Authority::foreign("sidegate.local").issue(&leaf(&[DEMO]));
    let mut stream = front.client.with(stranger).raw().await;
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut answer = Vec::new();
    let ended = patiently(stream.read_to_end(&mut answer)).await;
    assert!(ended.is_err() && answer.is_empty(), "{ended:?} {answer:?}");
    logged(&front.sidegate, &["SG0174"]);
    assert_eq!(upstream.heads().len(), 6);
    let plaintext = counter(
        &front.sidegate,
        "sidegate_tls_handshakes_total",
        &["result=\"plaintext\""],
    );
    assert_eq!(plaintext as u64, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_only_listener_asks_nobody_who_they_are_and_takes_no_plaintext() {
    let upstream = Upstream::start().await;
    let listener = format!("upstream = \"{}\"\ntls = \"server-only\"", upstream.url);
    let front = Front::start(&listener, SEEN);
    // It would show its SVID if it were asked.
    assert_eq!(front.client.get("/").await.status, 200);
    let (seen, headers) = last(&upstream);
    assert_eq!(seen["principal"], Value::Null, "{seen}");
    assert_eq!(seen["has_certificate"], false, "{seen}");
    assert_eq!(seen["scheme"], "https", "{seen}");
    assert!(!headers.contains_key("x-forwarded-client-cert"));
    gets_nothing_in_plaintext(&front).await;
    assert_eq!(upstream.heads().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plaintext_client_of_a_mutual_listener_gets_no_http() {
    let upstream = Upstream::start().await;
    let front = Front::start(&format!("upstream = \"{}\"", upstream.url), SEEN);
    gets_nothing_in_plaintext(&front).await;
    assert!(upstream.heads().is_empty());
}

pub(super) async fn gets_nothing_in_plaintext(front: &Front) {
    for sent in [
        &b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ] {
        let mut stream = TcpStream::connect(&front.client.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        let _ = patiently(stream.read_to_end(&mut answer)).await;
        // At most an alert of TLS.
        assert!(answer.len() <= 7, "{answer:?}");
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    // They are counted once they are closed.
    until("both are counted", || {
        let labels = ["result=\"not_tls\""];
        let not_tls = counter(&front.sidegate, "sidegate_tls_handshakes_total", &labels);
        (not_tls as u64 == 2).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_listeners_entry_the_connections_of_nobody_end_too() {
    let folder = folder();
    let upstream = Upstream::start().await;
    let identities = identity_only(folder.path(), "");
    let sidegate = Sidegate::run(&identities);
    let operator = Operator::of(&sidegate);
    let dns_name = ["--dns-name", "localhost"];
    let entry = operator.create("/orders", "listener:name:main", &dns_name);
    sidegate.stop();

    let listener = format!("upstream = \"{}\"\ntls = \"permissive\"", upstream.url);
    let front = Front::start_in(folder, "", "", &listener, SEEN);
    let operator = Operator::of(&front.sidegate);
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut plain = TcpStream::connect(address(&front.sidegate)).await.unwrap();
    let mut tls = front
        .client
        .connect(front.client.anonymous())
        .await
        .unwrap();
    let mut first = [0; 12];
    plain.write_all(request).await.unwrap();
    patiently(plain.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    tls.write_all(request).await.unwrap();
    patiently(tls.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    operator.delete(&entry);
    let mut rest = Vec::new();
    let _ = patiently(plain.read_to_end(&mut rest)).await;
    let _ = patiently(tls.read_to_end(&mut rest)).await;
    until("both are counted", || {
        let cut = counter(
            &front.sidegate,
            "sidegate_connections_cut_total",
            &["trust"],
        );
        (cut as u64 == 2).then_some(())
    });
    let (status, missing) = admin(&front.sidegate, "/readyz").expect("an answer");
    assert_eq!(status, 503);
    assert!(missing.contains("`main` has no identity"), "{missing}");
}
