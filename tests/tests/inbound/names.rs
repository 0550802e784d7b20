//! `[[listener.sni]]`: the identity by the name that a client asks for.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::ServerName;
use serde_json::Value;
use sidegate_tests::{Sidegate, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Front, OWN, SEEN};
use crate::federation::foreign::Foreign;
use crate::support::{
    Operator, Upstream, admin, counter, finish, folder, identity_only, logged, patiently, write,
};

type Stream = TlsStream<TcpStream>;

const ENTRIES: &str = r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/a"
selectors = ["listener:name:main"]
dns_names = ["a.example", "a.b.example"]
federates_with = ["other.example"]

[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/b"
selectors = ["listener:name:main"]
dns_names = ["x.b.example", "y.x.b.example"]
"#;

const NAMES: &str = r#"
[[listener.sni]]
server_names = ["a.example", "A.b.example"]
spiffe_id = "spiffe://sidegate.local/a"

[[listener.sni]]
server_names = ["*.b.example"]
spiffe_id = "spiffe://sidegate.local/b"
"#;

/// A connection by this name; what the server then shows must be valid for it.
async fn connect(front: &Front, name: &str, config: ClientConfig) -> io::Result<Stream> {
    let tcp = TcpStream::connect(&front.client.address).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a DNS name");
    let connector = TlsConnector::from(Arc::new(config));
    patiently(connector.connect(name, tcp)).await
}

/// The answer to a request by this name.
async fn ask(front: &Front, name: &str, config: ClientConfig) -> io::Result<String> {
    let mut stream = connect(front, name, config).await?;
    let get = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(get).await?;
    let mut answer = String::new();
    patiently(stream.read_to_string(&mut answer)).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_tells_the_identity_and_all_that_hangs_on_it() {
    let upstream = Upstream::start().await;
    let listener = format!(
        "spiffe_id = \"spiffe://sidegate.local/orders\"\nupstream = \"{}\"\n{NAMES}",
        upstream.url
    );
    let entries = format!("{ENTRIES}{OWN}");
    let front = Front::start_in(folder(), "", &entries, &listener, SEEN);
    let own = || front.client.tls(aws_lc_rs::default_provider());
    for (name, path) in [
        ("a.example", "/a"),
        ("A.Example", "/a"),
        // A name counts before a wildcard.
        ("a.b.example", "/a"),
        ("x.b.example", "/b"),
        ("y.x.b.EXAMPLE", "/b"),
        ("localhost", "/orders"),
    ] {
        let answer = ask(&front, name, own()).await.expect(name);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{name} {answer}");
        let head = upstream.heads().pop().expect("a request");
        let id = format!("spiffe://sidegate.local{path}");
        let told = head.headers["x-forwarded-client-cert"].to_str().unwrap();
        assert!(told.starts_with(&format!("By={id};")), "{name} {told}");
        let seen = head.headers["x-seen"].to_str().unwrap();
        let seen: Value = serde_json::from_str(seen).unwrap();
        assert_eq!(seen["destination"], id, "{name} {seen}");
    }
    // The name that a wildcard is below is not below it.
    let other = ask(&front, "b.example", own())
        .await
        .expect_err("the listener's own");
    assert!(
        other.to_string().contains("spiffe://sidegate.local/orders"),
        "{other}"
    );

    // Whom an identity trusts is its own matter.
    let foreign = Foreign::start("other.example");
    let operator = Operator::of(&front.sidegate);
    foreign.is_known_to(&operator);
    let roots = front.folder.path().join("demo/bundle.pem");
    let stranger = foreign.client(&front.client.address, &roots);
    let strange = || stranger.tls(aws_lc_rs::default_provider());
    let answer = ask(&front, "a.example", strange())
        .await
        .expect("it federates");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for name in ["x.b.example", "localhost"] {
        let refused = ask(&front, name, strange()).await;
        assert!(refused.is_err(), "{name} {refused:?}");
    }
    let status = operator_status(&front);
    let ids: Vec<&str> = status
        .lines()
        .filter(|line| line.contains("has an identity"))
        .collect();
    assert_eq!(ids.len(), 3, "{status}");
    for path in ["/orders", "/a", "/b"] {
        let id = format!("spiffe://sidegate.local{path}");
        assert!(ids.iter().any(|line| line.ends_with(&id)), "{id}: {status}");
    }
}

fn operator_status(front: &Front) -> String {
    let state = &front.sidegate.ready.state;
    let output = finish(Sidegate::command("check").arg("--state").arg(state));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    output.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_an_identity_that_the_listener_is_not_entitled_to_is_refused_at_its_place() {
    let folder = folder();
    let entries = ENTRIES.replacen("listener:name:main", "listener:name:other", 1);
    let text = format!(
        "[identity]\ntrust_domain = \"sidegate.local\"\nstate = \"state\"\n{entries}{OWN}\n\
         [workload_api]\nsocket = \"workload.sock\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\n\
         upstream = \"http://127.0.0.1:9\"\n{NAMES}"
    );
    let entries = text.replace("federates_with = [\"other.example\"]\n", "");
    let path = write(folder.path(), "sidegate.toml", entries);
    for (command, code) in [("run", 2), ("check", 1)] {
        let output = finish(Sidegate::command(command).arg("--config").arg(&path));
        assert_eq!(output.status.code(), Some(code), "{command} {output:?}");
        let shown = output.stdout + &output.stderr;
        assert!(shown.contains("SG0043"), "{command} {shown}");
        let place = "spiffe_id = \"spiffe://sidegate.local/a\"";
        let caret = shown.lines().position(|line| line.contains(place));
        let caret = shown.lines().nth(caret.expect("its place") + 1).unwrap();
        assert!(caret.contains("^^^"), "{command} {shown}");
    }
}

/// Panics unless a connection takes another request.
async fn is_kept(stream: &mut Stream) {
    let get = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(get).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(patiently(stream.read_u8()).await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("content-length: 0\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_whose_identity_is_gone_meets_no_other_and_all_other_names_go_on() {
    let folder = folder();
    let first = ["a.example", "a.b.example"];
    let create = |gate: &Sidegate| {
        let names = first.iter().flat_map(|name| ["--dns-name", name]);
        let names = Vec::from_iter(names);
        Operator::of(gate).create("/a", "listener:name:main", &names)
    };
    let identities = Sidegate::run(&identity_only(folder.path(), ""));
    let entry = create(&identities);
    identities.stop();
    let upstream = Upstream::start().await;
    let listener = format!(
        "spiffe_id = \"spiffe://sidegate.local/orders\"\nupstream = \"{}\"\n{NAMES}",
        upstream.url
    );
    // The file has the identity for somebody else only. The others would do for its names.
    let entries = format!("{ENTRIES}{OWN}")
        .replacen("listener:name:main", "listener:name:other", 1)
        .replace("[\"localhost\"]", "[\"localhost\", \"a.example\"]")
        .replace("[\"x.b.example\"", "[\"a.b.example\", \"x.b.example\"");
    let front = Front::start_in(folder, "", &entries, &listener, SEEN);
    let own = || front.client.tls(aws_lc_rs::default_provider());
    let mut gone = connect(&front, "a.example", own()).await.unwrap();
    let mut others = Vec::new();
    for name in ["x.b.example", "localhost"] {
        others.push(connect(&front, name, own()).await.unwrap());
    }
    for stream in others.iter_mut().chain([&mut gone]) {
        is_kept(stream).await;
    }

    Operator::of(&front.sidegate).delete(&entry);
    let mut rest = Vec::new();
    let _ = patiently(gone.read_to_end(&mut rest)).await;
    logged(&front.sidegate, &["SG0309", "main"]);
    let cut = ["reason=\"trust\""];
    let cut = counter(&front.sidegate, "sidegate_connections_cut_total", &cut);
    assert_eq!(cut as u64, 1);
    let before = upstream.heads().len();
    // Neither the listener's own identity nor that of a wildcard stands in.
    for name in first {
        let refused = ask(&front, name, own()).await.expect_err(name);
        assert!(refused.to_string().contains("alert"), "{name} {refused}");
    }
    assert_eq!(upstream.heads().len(), before);
    let failed = ["result=\"tls\""];
    let failed = counter(&front.sidegate, "sidegate_tls_handshakes_total", &failed);
    assert_eq!(failed as u64, 2);
    logged(&front.sidegate, &["SG0178", "main"]);
    for stream in &mut others {
        is_kept(stream).await;
    }
    for name in ["x.b.example", "localhost"] {
        let answer = ask(&front, name, own()).await.expect(name);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{name} {answer}");
    }
    let (status, missing) = admin(&front.sidegate, "/readyz").expect("an answer");
    assert_eq!(status, 503);
    assert!(missing.contains("`main` has no identity"), "{missing}");

    create(&front.sidegate);
    until("it is ready again", || {
        let (status, _) = admin(&front.sidegate, "/readyz")?;
        (status == 200).then_some(())
    });
    let answer = ask(&front, "a.example", own()).await.expect("it is back");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let told = &upstream.heads().pop().expect("a request").headers;
    let told = told["x-forwarded-client-cert"].to_str().unwrap();
    assert!(told.starts_with("By=spiffe://sidegate.local/a;"), "{told}");
}
