//! `protocol = "tcp"`: connections that are allowed as a whole, and passed on as they are.

mod admission;

use std::net::{Shutdown, TcpListener};

use nix::sys::signal::Signal;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;
use rustls::crypto::aws_lc_rs;
use sidegate_tests::{Sidegate, until};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Front, OWN};
use crate::support::{
    Operator, admin, counter, finish, folder, identity_only, logged, patiently, write,
};

/// For everybody who has an identity.
const KNOWN: &str = "package sidegate.connect\nallow if input.source_principal\n";

/// There are no requests.
const NO_REQUESTS: &str = "package envoy.authz\ndefault allow := false\n";

/// A listener for those whom the policy of connections allows.
fn start(listener: &str, connections: &str) -> Front {
    start_in(folder(), "", OWN, listener, connections)
}

fn start_in(
    folder: TempDir,
    identity: &str,
    entries: &str,
    listener: &str,
    connections: &str,
) -> Front {
    write(folder.path(), "policy/connect.rego", connections);
    Front::start_in(folder, identity, entries, listener, NO_REQUESTS)
}

/// Greets, says everything back, and once the client has ended says goodbye.
fn talk(mut stream: impl Read + Write) -> std::io::Result<()> {
    stream.write_all(b"hello ")?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(b" bye"),
            read => stream.write_all(&buffer[..read])?,
        }
    }
}

/// A server that speaks first.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(|| talk(stream.unwrap()));
        }
    });
    url
}

fn listener(url: &str, rest: &str) -> String {
    format!("protocol = \"tcp\"\nupstream = \"{url}\"\n{rest}")
}

async fn greeted<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let mut greeting = [0; 6];
    patiently(stream.read_exact(&mut greeting))
        .await
        .expect("a greeting");
    assert_eq!(&greeting, b"hello ");
}

/// Panics unless bytes go both ways.
async fn is_open<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    stream.write_all(b"ping").await.expect("it is sent");
    let mut back = [0; 4];
    patiently(stream.read_exact(&mut back))
        .await
        .expect("it comes back");
    assert_eq!(&back, b"ping");
}

/// Waits until nothing comes any more: without the end that the server would have sent.
async fn is_cut<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut rest = Vec::new();
    let _ = patiently(stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "{rest:?}");
}

fn ended(front: &Front, how: &str) -> u64 {
    let label = format!("end=\"{how}\"");
    counter(&front.sidegate, "sidegate_tcp_connections_total", &[&label]) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_the_server_may_speak_first_and_each_side_ends_by_itself() {
    let front = start(&listener(&server(), ""), KNOWN);
    let mut stream = front.client.raw().await;
    greeted(&mut stream).await;
    is_open(&mut stream).await;
    let large: Vec<u8> = (0..3_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let (mut from, mut to) = tokio::io::split(stream);
    let sending = async {
        to.write_all(&large).await.unwrap();
        // The client has ended; the server has not.
        to.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let (read, ()) = patiently(async { tokio::join!(from.read_to_end(&mut back), sending) }).await;
    read.expect("a clean end");
    assert_eq!(back.len(), large.len() + 4);
    assert!(back.starts_with(&large) && back.ends_with(b" bye"));

    let line = front.line("of the connection", |line| line["protocol"] == "TCP");
    assert_eq!(line["peer"], "spiffe://sidegate.local/demo", "{line}");
    assert_eq!(line["request_bytes"], 3_000_004, "{line}");
    assert_eq!(line["response_bytes"], 3_000_014, "{line}");
    assert_eq!(line["verdict"], "allow", "{line}");
    assert!(
        line["decision_id"].is_string() && line["duration_ms"].is_f64(),
        "{line}"
    );
    for absent in ["method", "path", "authority", "status", "error", "code"] {
        assert_eq!(line.get(absent), None, "{line}");
    }
    assert_eq!(ended(&front, "complete"), 1);
    let bytes = |name: &str| counter(&front.sidegate, name, &["listener=\"main\""]) as u64;
    assert_eq!(bytes("sidegate_tcp_received_bytes_total"), 3_000_004);
    assert_eq!(bytes("sidegate_tcp_sent_bytes_total"), 3_000_014);
    assert_eq!(bytes("sidegate_requests_total"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_says_nothing_about_connections_allows_none_and_everybody_is_told() {
    let front = Front::start(
        &listener(&server(), ""),
        "package envoy.authz\nallow := true\n",
    );
    logged(&front.sidegate, &["SG0386", "main"]);
    let mut stream = front.client.raw().await;
    is_cut(&mut stream).await;
    let line = front.line("of the refusal", |line| line["verdict"] == "deny");
    assert_eq!(line["code"], "SG0385", "{line}");
    assert_eq!(line["error"], "undeclared", "{line}");
    assert_eq!(ended(&front, "undeclared"), 1);
    logged(&front.sidegate, &["SG0385", "sidegate.connect"]);
    let check = |arguments: &[&str]| {
        let output = finish(Sidegate::command("check").args(arguments));
        let row = output
            .stdout
            .lines()
            .find(|line| line.contains("decides on connections"));
        (
            output.status.code(),
            row.expect("a row").to_owned() + &output.stdout,
        )
    };
    let file = front.folder.path().join("sidegate.toml");
    let file = file.to_str().unwrap();
    let state = front.sidegate.ready.state.to_str().unwrap();
    for arguments in [["--config", file], ["--state", state]] {
        let (code, shown) = check(&arguments);
        assert!(shown.contains("SG0386"), "{shown}");
        assert_eq!(code, Some(0), "a warning: {shown}");
    }

    write(front.folder.path(), "policy/connect.rego", KNOWN);
    logged(&front.sidegate, &["another policy decides"]);
    let mut allowed = front.client.raw().await;
    greeted(&mut allowed).await;
    let (_, shown) = check(&["--state", state]);
    assert!(!shown.contains("SG0386"), "{shown}");

    // What was allowed is asked about again.
    write(
        front.folder.path(),
        "policy/connect.rego",
        "package sidegate.connect\nallow := {\"allowed\": false, \"reason\": \"closed\"}\n",
    );
    is_cut(&mut allowed).await;
    let line = front.line("of the cut", |line| line["error"] == "policy_changed");
    assert_eq!(line["code"], "SG0342", "{line}");
    logged(&front.sidegate, &["SG0342", "closed"]);
    is_cut(&mut front.client.raw().await).await;
    let line = front.line("of the denial", |line| line["code"] == "SG0341");
    assert_eq!(line["error"], "policy", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_rule_that_allowed_them_connections_end() {
    let front = Front::start(
        &listener(&server(), ""),
        "package envoy.authz\nallow := true\n",
    );
    let rule = write(front.folder.path(), "policy/connect.rego", KNOWN);
    logged(&front.sidegate, &["another policy decides"]);
    let mut stream = front.client.raw().await;
    greeted(&mut stream).await;
    std::fs::remove_file(rule).unwrap();
    is_cut(&mut stream).await;
    let line = front.line("of the cut", |line| line["error"] == "policy_changed");
    assert_eq!(line["code"], "SG0342", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_in_which_nothing_moves_is_ended_and_one_that_is_used_is_not() {
    let idle = "timeouts = { idle = \"1500ms\", header_read = \"500ms\" }";
    let front = start(&listener(&server(), idle), KNOWN);
    let mut used = front.client.raw().await;
    let mut unused = front.client.raw().await;
    greeted(&mut used).await;
    greeted(&mut unused).await;
    let using = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(300));
        loop {
            ticks.tick().await;
            is_open(&mut used).await;
        }
    };
    tokio::select! {
        () = is_cut(&mut unused) => {}
        () = using => {}
    }
    is_open(&mut used).await;
    let line = front.line("of the cut", |line| line["error"] == "idle");
    assert_eq!(line["code"], "SG0305", "{line}");
    assert_eq!(ended(&front, "idle"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_the_svid_of_its_client() {
    let front = start_in(
        folder(),
        "svid_ttl = \"10s\"\n",
        OWN,
        &listener(&server(), ""),
        KNOWN,
    );
    let mut stream = front.client.raw().await;
    greeted(&mut stream).await;
    is_cut(&mut stream).await;
    let line = front.line("of the cut", |line| line["error"] == "peer_expired");
    assert_eq!(line["code"], "SG0316", "{line}");
    let labels = ["reason=\"expired\""];
    let cut = counter(&front.sidegate, "sidegate_connections_cut_total", &labels);
    assert_eq!(cut as u64, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_when_what_it_was_trusted_by_is_gone() {
    let folder = folder();
    let sidegate = Sidegate::run(&identity_only(folder.path(), ""));
    let name = ["--dns-name", "localhost"];
    let entry = Operator::of(&sidegate).create("/orders", "listener:name:main", &name);
    sidegate.stop();
    let everybody = "package sidegate.connect\nallow := true\n";
    let listener = listener(&server(), "tls = \"permissive\"");
    let front = start_in(folder, "", "", &listener, everybody);
    let mut mutual = front.client.raw().await;
    let mut plain = TcpStream::connect(&front.client.address).await.unwrap();
    greeted(&mut mutual).await;
    // Without TLS the client's first byte is what tells that there is none.
    plain.write_all(b"hey").await.unwrap();
    greeted(&mut plain).await;
    let mut back = [0; 3];
    patiently(plain.read_exact(&mut back)).await.unwrap();
    Operator::of(&front.sidegate).delete(&entry);
    is_cut(&mut mutual).await;
    is_cut(&mut plain).await;
    for peer in [true, false] {
        let line = front.line("of the cut", |line| {
            line["error"] == "trust_gone" && line.get("peer").is_some() == peer
        });
        assert_eq!(line["code"], "SG0309", "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_connections_until_its_deadline_and_then_cuts_them() {
    let listener = listener(&server(), "[proxy]\ndrain_timeout = \"5s\"");
    let front = start(&listener, KNOWN);
    let mut ends = front.client.raw().await;
    let mut stays = front.client.raw().await;
    greeted(&mut ends).await;
    greeted(&mut stays).await;
    front.sidegate.process.signal(Signal::SIGTERM);
    until("readiness says that it drains", || {
        let (status, text) = admin(&front.sidegate, "/readyz")?;
        (status == 503 && text.contains("draining")).then_some(())
    });
    is_open(&mut ends).await;
    is_open(&mut stays).await;
    ends.shutdown().await.unwrap();
    let mut rest = Vec::new();
    patiently(ends.read_to_end(&mut rest))
        .await
        .expect("a clean end");
    assert_eq!(rest, b" bye");
    is_cut(&mut stays).await;
    let line = front.line("of the cut", |line| line["error"] == "drain_timeout");
    assert_eq!(line["code"], "SG0306", "{line}");
    assert_eq!(front.sidegate.process.wait().status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_and_one_that_breaks_off_are_told() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", closed.local_addr().unwrap());
    drop(closed);
    let front = start(&listener(&url, ""), KNOWN);
    is_cut(&mut front.client.raw().await).await;
    let line = front.line("of the failure", |line| line["error"] == "connect_failed");
    assert_eq!(line["code"], "SG0321", "{line}");
    assert_eq!(ended(&front, "connect_failed"), 1);

    let breaks = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", breaks.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = breaks.accept().unwrap();
        stream.write_all(b"hello ").unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        let linger = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, Linger, &linger).unwrap();
    });
    let front = start(&listener(&url, ""), KNOWN);
    let mut stream = front.client.raw().await;
    greeted(&mut stream).await;
    stream.write_all(b"!").await.unwrap();
    let mut rest = Vec::new();
    let end = patiently(stream.read_to_end(&mut rest)).await;
    // It must not look like the whole.
    let error = end.expect_err("no clean end of TLS");
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    let line = front.line("of the break", |line| line["error"] == "tunnel_broken");
    assert_eq!(line["code"], "SG0317", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_connections_hold_and_a_unix_socket_can_be_behind() {
    let folder = folder();
    let socket = folder.path().join("app.sock");
    let app = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in app.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = talk(&stream);
                stream.shutdown(Shutdown::Both)
            });
        }
    });
    let limits = "limits = { max_connections_per_identity = 1 }";
    let listener = listener(&format!("unix+tcp://{}", socket.display()), limits);
    let front = start_in(folder, "", OWN, &listener, KNOWN);
    let mut first = front.client.raw().await;
    greeted(&mut first).await;
    is_cut(&mut front.client.raw().await).await;
    logged(&front.sidegate, &["SG0351"]);
    is_open(&mut first).await;
    // Whatever a client offers by ALPN: none of it means anything here.
    let mut config = front.client.tls(aws_lc_rs::default_provider());
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    drop(first);
    until("the first one is gone", || {
        (ended(&front, "downstream_gone") == 1).then_some(())
    });
    let mut other = front.client.connect(config).await.unwrap();
    greeted(&mut other).await;
}
