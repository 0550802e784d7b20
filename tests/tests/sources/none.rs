//! No identities at all: plain HTTP is decided and served, and all else says that it is off.

mod egress;
mod listeners;

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::Request;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::unistd::geteuid;
use serde_json::Value;
use sidegate_tests::{Output, Sidegate, Tool, guest, skip, tool};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    Answer, Body, Operator, admin, body, finish, folder, logged, patiently, read, write,
};
use crate::workload_api::many_users::{copy_of_sidegate, open_folder};

const NOBODY: u32 = 65534;

/// Allows what nobody in particular asks for in plaintext, but not `/no`.
const POLICY: &str = r#"package envoy.authz

default allow := false

allow if {
    not input.attributes.source.principal
    not input.attributes.source.certificate
    not input.attributes.destination.principal
    not input.source_principal
    input.attributes.request.http.scheme == "http"
    input.attributes.request.http.path != "/no"
}
"#;

/// A running instance without identities, in a folder of its own.
struct Gate {
    gate: Sidegate,
    folder: TempDir,
}

/// A configuration without identities, with these sections.
fn text(sections: &str) -> String {
    format!(
        r#"
[identity]
source = "none"
state = "state"

[admin]
listen = "127.0.0.1:0"
{sections}
"#
    )
}

/// The greeter behind the listener `main`.
fn greeter() -> String {
    format!(
        r#"
[policy]
path = "policy"

[[component]]
name = "greeter"
path = "{}"

[[listener]]
name = "main"
listen = "127.0.0.1:0"
component = "greeter"
"#,
        guest("hello").display()
    )
}

impl Gate {
    /// With these sections, and [`POLICY`] and further rules in `policy`.
    fn start(sections: &str, rules: &[(&str, &str)]) -> Self {
        let folder = folder();
        let config = configuration(folder.path(), sections, rules);
        let gate = Sidegate::run(&config);
        Self { gate, folder }
    }

    fn address(&self, listener: &str) -> &str {
        let mut listeners = self.gate.ready.listeners.iter();
        &listeners
            .find(|it| it.name == listener)
            .expect(listener)
            .address
    }
}

fn configuration(folder: &Path, sections: &str, rules: &[(&str, &str)]) -> PathBuf {
    write(folder, "policy/ingress.rego", POLICY);
    for (name, rules) in rules {
        write(folder, &format!("policy/{name}.rego"), rules);
    }
    write(folder, "sidegate.toml", text(sections))
}

async fn http1(address: &str) -> http1::SendRequest<Body> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

/// The answer to a request without a body over HTTP/1.1.
async fn send(address: &str, request: http::request::Builder) -> Answer {
    let request = request.header("host", "shop.example").body(body(""));
    let mut connection = http1(address).await;
    let response = connection.send_request(request.expect("a request"));
    read(patiently(response).await.expect("a response")).await
}

async fn get(address: &str, path: &str) -> Answer {
    send(address, Request::get(path)).await
}

/// The answer to a GET over HTTP/2 with prior knowledge.
async fn get_http2(address: &str, path: &str) -> Answer {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let stream = TokioIo::new(stream);
    let handshake = http2::handshake::<_, _, Body>(TokioExecutor::new(), stream);
    let (mut sender, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::get(format!("http://shop.example{path}"));
    let response = sender.send_request(request.body(body("")).expect("a request"));
    read(patiently(response).await.expect("a response")).await
}

fn check(arguments: &[&str]) -> Output {
    let mut command = Sidegate::command("check");
    finish(command.args(arguments).env_remove("SIDEGATE_STATE"))
}

/// The ids of the rows of `check … -o json`, with what is wrong with them.
fn rows(output: &Output) -> Vec<(String, Option<String>)> {
    let document: Value = serde_json::from_str(&output.stdout).expect("it is JSON");
    let page = fs::read_to_string(sidegate_tests::root().join("docs/check.md")).expect("a page");
    let categories = document["categories"].as_array().expect("a list");
    let checks = categories
        .iter()
        .flat_map(|it| it["checks"].as_array().expect("a list"));
    let rows = checks.map(|row| {
        let id = row["id"].as_str().expect("a text");
        assert!(page.contains(&format!("| `{id}` |")), "{id} is documented");
        (id.to_owned(), row["code"].as_str().map(ToOwned::to_owned))
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_answers_plain_http_and_the_policy_sees_no_principals() {
    let gate = Gate::start(&greeter(), &[]);
    let address = gate.address("main");
    let answer = get(address, "/hello").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body, "Hello from a component, /hello\n");
    let line = crate::support::access_line(&gate.gate, answer.header("x-request-id"));
    assert_eq!(line["verdict"], "allow", "{line}");
    assert_eq!(line.get("peer"), None, "{line}");
    let denied = get(address, "/no").await;
    assert_eq!(denied.status, 403);
    let answer = get_http2(address, "/hello").await;
    assert_eq!(answer.status, 200);
    let line = crate::support::access_line(&gate.gate, answer.header("x-request-id"));
    assert_eq!(line["protocol"], "HTTP/2", "{line}");
    assert_eq!(get_http2(address, "/no").await.status, 403);
}

#[test]
fn curl_gets_an_answer_and_over_tls_a_clean_refusal() {
    let Some(curl) = tool(Tool::Curl) else {
        return skip(
            "curl_gets_an_answer_and_over_tls_a_clean_refusal",
            Tool::Curl,
        );
    };
    let gate = Gate::start(&greeter(), &[]);
    let address = gate.address("main");
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(&curl);
        finish(command.args(["--silent", "--show-error"]).args(arguments))
    };
    for version in ["--http1.1", "--http2-prior-knowledge", "--http2"] {
        let output = ask(&[version, &format!("http://{address}/hello")]);
        assert_eq!(
            output.stdout, "Hello from a component, /hello\n",
            "{output:?}"
        );
    }
    let refused = ask(&["--insecure", &format!("https://{address}/hello")]);
    assert_eq!(refused.status.code(), Some(35), "{refused:?}");
    let told = refused.stderr.contains("handshake failure");
    assert!(told, "it is told in TLS: {refused:?}");
    logged(
        &gate.gate,
        &["a client speaks TLS to a listener without TLS", "SG0178"],
    );
    let output = ask(&[&format!("http://{address}/hello")]);
    assert_eq!(output.status.code(), Some(0), "others are served on");
}

#[test]
fn there_is_no_socket_and_no_key_and_every_identity_command_says_why() {
    let gate = Gate::start(&greeter(), &[]);
    assert_eq!(gate.gate.ready.workload_socket, "");
    assert_eq!(gate.gate.ready.listeners[0].spiffe_id, "");
    let entries = fs::read_dir(&gate.gate.ready.state).expect("it is there");
    let names = entries.map(|it| it.expect("an entry").file_name().into_string());
    let mut names: Vec<String> = names.map(|name| name.expect("it is text")).collect();
    names.sort();
    assert_eq!(names, ["admin.sock", "lock", "state.json"]);
    let entries = fs::read_dir(gate.folder.path()).expect("it is there");
    assert_eq!(entries.count(), 3, "the file, the policy and the state");
    let told = logged(&gate.gate, &["identity is off"]);
    for off in ["no CA", "no SVIDs", "no Workload API", "no SDS", "no TLS"] {
        assert!(told.contains(off), "{told}");
    }
    let log = gate.gate.process.stderr();
    assert_eq!(log.matches("identity is off").count(), 1, "{log}");

    let document = write(gate.folder.path(), "bundle.json", "{\"keys\": []}");
    let document = document.to_str().expect("it is text");
    let operator = Operator::of(&gate.gate);
    let id = "spiffe://sidegate.local/web";
    for command in [
        &["entry", "list"][..],
        &["entry", "show", "web"],
        &["entry", "delete", "web"],
        &[
            "entry",
            "create",
            "--spiffe-id",
            id,
            "--selector",
            "unix:uid:1",
        ],
        &["bundle", "list"],
        &["bundle", "show"],
        &["bundle", "show", "other.example"],
        &["bundle", "set", "other.example", document],
        &["bundle", "delete", "other.example"],
        &["authorities"],
        &["rotate", "x509"],
        &["rotate", "jwt", "--prepare-only"],
        &["taint", "x509"],
        &["revoke", "jwt"],
    ] {
        let output = operator.run(command);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {output:?}");
        assert_eq!(output.stdout, "", "{command:?}");
        let refused = output.stderr;
        assert!(refused.contains("error[SG0189]"), "{command:?}: {refused}");
        let why = "the source `none` has no identities";
        assert!(refused.contains(why), "{command:?}: {refused}");
    }
}

#[test]
fn check_and_readiness_say_that_identity_is_off_and_that_all_is_well() {
    let folder = folder();
    let config = configuration(folder.path(), &greeter(), &[]);
    let config = config.to_str().expect("it is text");
    let before = check(&["--config", config, "--strict", "-o", "json"]);
    assert_eq!(before.status.code(), Some(0), "{before:?}");
    let gate = Sidegate::run(Path::new(config));
    let state = gate.ready.state.to_str().expect("it is text");
    let while_it_runs = check(&["--config", config, "--strict", "-o", "json"]);
    assert_eq!(while_it_runs.status.code(), Some(0), "{while_it_runs:?}");
    let running = check(&["--state", state, "--strict", "-o", "json"]);
    assert_eq!(running.status.code(), Some(0), "{running:?}");
    for output in [&before, &while_it_runs, &running] {
        let ids: Vec<_> = rows(output).into_iter().map(|(id, _)| id).collect();
        for there in ["identity-source", "listener-plaintext", "component"] {
            assert!(ids.iter().any(|id| id == there), "{there}: {ids:?}");
        }
        for absent in ["workload-socket", "workload-api", "entries", "x509-svids"] {
            assert!(!ids.iter().any(|id| id == absent), "{absent}: {ids:?}");
        }
        assert!(output.stdout.contains("identity is off"), "{output:?}");
    }
    assert_eq!(admin(&gate, "/readyz"), Some((200, "ok\n".to_owned())));
    let (_, metrics) = admin(&gate, "/metrics").expect("they are served");
    for (prefix, there) in [
        ("sidegate_identity_", false),
        ("sidegate_svid", false),
        ("sidegate_config_", true),
    ] {
        assert_eq!(metrics.contains(prefix), there, "{prefix}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_any_privilege_runs_it() {
    let name = "a_user_without_any_privilege_runs_it";
    let setpriv = tool(Tool::Setpriv).filter(|_| geteuid().is_root());
    let Some(setpriv) = setpriv else {
        return skip(name, Tool::Setpriv);
    };
    let folder = open_folder();
    let binary = copy_of_sidegate(folder.path(), "sidegate");
    let home = folder.path().join("home");
    fs::create_dir(&home).expect("it is made");
    write(
        &home,
        "hello.wasm",
        fs::read(guest("hello")).expect("it is there"),
    );
    let hello = home.join("hello.wasm").display().to_string();
    let sections = greeter().replace(&guest("hello").display().to_string(), &hello);
    let config = configuration(&home, &sections, &[]);
    chown(&home, Some(NOBODY), Some(NOBODY)).expect("we are root");
    let mut command = Command::new(setpriv);
    command
        .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
        .args(["--clear-groups", "--bounding-set=-all", "--no-new-privs"])
        .arg(binary)
        .args(["run", "-o", "json", "--config"])
        .arg(config);
    let gate = Sidegate::start(&mut command);
    let address = &gate.ready.listeners[0].address;
    assert_eq!(get(address, "/hello").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_policy_allows_nobody_and_that_is_told() {
    let sections = greeter().replace("[policy]\npath = \"policy\"\n", "");
    let gate = Gate::start(&sections, &[]);
    let mut stream = TcpStream::connect(gate.address("main")).await.expect("one");
    let request = b"GET /hello HTTP/1.1\r\nhost: shop.example\r\n\r\n";
    stream.write_all(request).await.expect("it is sent");
    let mut answer = Vec::new();
    let read = patiently(stream.read_to_end(&mut answer)).await;
    assert!(
        answer.is_empty(),
        "not even a connection: {read:?} {answer:?}"
    );
    logged(&gate.gate, &["SG0189", "the stock policy decides"]);
    let config = gate.folder.path().join("sidegate.toml");
    let state = gate.gate.ready.state.to_str().expect("it is text");
    let config = config.to_str().expect("it is text");
    for arguments in [["--state", state], ["--config", config]] {
        let checked = check(&[&arguments[..], &["-o", "json"]].concat());
        assert_eq!(checked.status.code(), Some(0), "{checked:?}");
        let wrong: Vec<_> = rows(&checked)
            .into_iter()
            .filter(|(_, code)| code.is_some())
            .collect();
        let expected = ("policy-identity".to_owned(), Some("SG0189".to_owned()));
        assert_eq!(wrong, [expected], "{checked:?}");
    }
}
