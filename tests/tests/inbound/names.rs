//! `[[listener.sni]]`: the identity by the name that a client asks for.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::ServerName;
use serde_json::Value;
use sidegate_tests::Sidegate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Front, OWN, SEEN};
use crate::federation::foreign::Foreign;
use crate::support::{Operator, Upstream, finish, folder, patiently, write};

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

/// A request by this name; what the server then shows must be valid for it.
async fn ask(front: &Front, name: &str, config: ClientConfig) -> std::io::Result<String> {
    let tcp = TcpStream::connect(&front.client.address).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a DNS name");
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = patiently(connector.connect(name, tcp)).await?;
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
