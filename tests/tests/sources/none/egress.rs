//! What local apps send where there are no identities: in plaintext, and decided all the same.

use http::Request;
use sidegate_tests::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Gate, get, get_http2, send};
use crate::support::{Upstream, access_line, listen, patiently};

/// Allows what leads to this machine.
const RULES: &str = r#"package sidegate.egress

default allow := false

allow if {
    not input.source_principal
    not input.attributes.source.principal
    not input.attributes.destination.principal
    input.workload.selectors == ["listener:name:app"]
    input.attributes.destination.address.socketAddress.address == "127.0.0.1"
    not input.attributes.request.http.path == "/no"
}
"#;

fn app(upstream: &str, lines: &str) -> String {
    format!(
        "\n[policy]\npath = \"policy\"\n\n[[egress]]\nname = \"app\"\nlisten = \"127.0.0.1:0\"\n\
         upstream = \"{upstream}\"\n{lines}\n"
    )
}

fn gate(upstream: &str, lines: &str) -> Gate {
    Gate::start(&app(upstream, lines), &[("egress", RULES)])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_reaches_a_plain_server_that_the_policy_allows() {
    let upstream = Upstream::start().await;
    let gate = gate(&upstream.url, "");
    let address = gate.address("app");
    let request = Request::get("/a?b=c").header("x-forwarded-client-cert", "URI=spiffe://a.b/c");
    let answer = send(address, request).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-upstream")),
        (200, "yes")
    );
    let line = access_line(&gate.gate, answer.header("x-request-id"));
    let server = upstream.url.strip_prefix("http://").expect("a URL");
    assert_eq!(line["upstream"], server, "{line}");
    assert_eq!(line["verdict"], "allow", "{line}");
    assert_eq!(get_http2(address, "/two").await.status, 200);
    assert_eq!(get(address, "/no").await.status, 403);
    let heads = upstream.heads();
    let uris: Vec<_> = heads.iter().map(|head| head.uri.to_string()).collect();
    assert_eq!(uris, ["/a?b=c", "/two"]);
    for head in &heads {
        for name in ["x-forwarded-client-cert", "x-forwarded-for"] {
            assert_eq!(head.headers.get(name), None, "{name}");
        }
        assert_eq!(head.headers["host"], "shop.example");
    }
    // Each worker has its own, and one that was just used may not be ready again.
    for _ in 0..40 {
        assert_eq!(get(address, "/again").await.status, 200);
    }
    let connections = upstream.connections();
    assert!(connections < 20, "connections are kept: {connections}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_server_speaks_what_its_url_says() {
    // Sidegate itself is the server that speaks HTTP/2.
    let behind = Upstream::start().await;
    let server = Gate::start(
        &format!(
            "\n[policy]\npath = \"policy\"\n\n[[listener]]\nname = \"main\"\n\
             listen = \"127.0.0.1:0\"\nprotocol = \"http2\"\nupstream = \"{}\"\n",
            behind.url
        ),
        &[],
    );
    let gate = gate(&format!("h2c://{}", server.address("main")), "");
    let address = gate.address("app");
    for path in ["/one", "/two"] {
        let answer = get(address, path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        until("the server's line", || {
            let written = server.gate.process.stdout();
            let mut lines = written.lines().filter(|line| line.contains(path));
            lines
                .find(|line| line.contains("\"protocol\":\"HTTP/2\""))
                .map(drop)
        });
    }
    assert_eq!(get_http2(address, "/three").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_switch_to_another_protocol() {
    let server = listen(|mut stream: TcpStream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        assert!(String::from_utf8_lossy(&head).contains("upgrade: chat"));
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                       upgrade: chat\r\n\r\nhello ";
        stream.write_all(answer).await.expect("it is sent");
        let mut bytes = [0; 3];
        stream.read_exact(&mut bytes).await.expect("it comes");
        stream.write_all(&bytes).await.expect("it is sent");
    });
    let gate = gate(&server.await, "");
    let mut stream = TcpStream::connect(gate.address("app")).await.expect("one");
    let request = b"GET /chat HTTP/1.1\r\nhost: shop.example\r\nconnection: upgrade\r\n\
                    upgrade: chat\r\n\r\n";
    stream.write_all(request).await.expect("it is sent");
    stream.write_all(b"you").await.expect("it is sent");
    let mut answer = String::new();
    patiently(stream.read_to_string(&mut answer))
        .await
        .expect("an end");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello you"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_where_the_policy_allows_and_nowhere_else() {
    let server = listen(|mut stream: TcpStream| async move {
        stream.write_all(b"hello\n").await.expect("it is sent");
    });
    let server = server.await.replace("http://", "tcp://");
    for (lines, expected) in [
        ("protocol = \"tcp\"", "hello\n"),
        (
            "protocol = \"tcp\"\nallowed_addresses = [\"10.0.0.0/8\"]",
            "hello\n",
        ),
    ] {
        let gate = gate(&server, lines);
        let mut stream = TcpStream::connect(gate.address("app")).await.expect("one");
        let mut answer = String::new();
        patiently(stream.read_to_string(&mut answer))
            .await
            .expect("an end");
        // An address in the configuration itself needs no check.
        assert_eq!(answer, expected, "{lines}");
    }
    let denies = "package sidegate.egress\ndefault allow := false\n";
    let gate = Gate::start(&app(&server, "protocol = \"tcp\""), &[("egress", denies)]);
    let mut stream = TcpStream::connect(gate.address("app")).await.expect("one");
    let mut answer = Vec::new();
    let read = patiently(stream.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "{read:?} {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_to_this_machine_is_not_dialled_unless_that_is_said() {
    let upstream = Upstream::start().await;
    let url = upstream.url.replace("127.0.0.1", "localhost");
    let refused = gate(&url, "");
    let answer = get(refused.address("app"), "/").await;
    assert_eq!(answer.status, 502, "{answer:?}");
    let line = access_line(&refused.gate, answer.header("x-request-id"));
    assert_eq!(line["verdict"], "none", "it was not even asked: {line}");
    let said = gate(&url, "allowed_addresses = [\"127.0.0.0/8\"]");
    assert_eq!(get(said.address("app"), "/").await.status, 200);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_an_error_and_found_again() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = gone.local_addr().expect("its address");
    drop(gone);
    let gate = gate(&format!("http://{address}"), "");
    let answer = get(gate.address("app"), "/").await;
    assert_eq!(answer.status, 502, "{answer:?}");
    let back = std::net::TcpListener::bind(address).expect("it is free");
    let served = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = back.accept().expect("a connection");
        let mut head = [0; 1024];
        let read = stream.read(&mut head).expect("a head");
        assert!(read > 0);
        let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
        stream.write_all(answer).expect("it is sent");
    });
    assert_eq!(get(gate.address("app"), "/").await.status, 204);
    served.join().expect("it was asked");
    let output = gate.gate.stop();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
