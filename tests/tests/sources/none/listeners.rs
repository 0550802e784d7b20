//! Listeners without TLS, where nobody has an identity and beside others that have one.

use std::fs;
use std::path::Path;

use http::Request;
use nix::sys::signal::Signal;
use sidegate_tests::{Sidegate, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Gate, get, greeter, send};
use crate::support::{Configuration, Upstream, folder, listen, logged, patiently};

const RELOADED: &str = "the configuration is reloaded";

/// Changes the file, and has it read again.
fn change(gate: &Sidegate, folder: &Path, change: impl FnOnce(String) -> String) {
    let count = || gate.process.stderr().matches(RELOADED).count();
    let before = count();
    let file = folder.join("sidegate.toml");
    let text = fs::read_to_string(&file).expect("it is there");
    fs::write(&file, change(text)).expect("it is written");
    gate.process.signal(Signal::SIGHUP);
    until("a reload", || (count() > before).then_some(()));
}

/// A port that was free a moment ago.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_of_itself_is_taken_out_and_nothing_is_said_of_it() {
    let upstream = Upstream::start().await;
    let sections = greeter() + &route(&upstream.url);
    let gate = Gate::start(&sections, &[]);
    let request = Request::get("/upstream")
        .header("x-forwarded-client-cert", "URI=spiffe://td.example/king")
        .header("x-forwarded-proto", "https")
        .header("x-kept", "yes");
    assert_eq!(send(gate.address("main"), request).await.status, 200);
    let heads = upstream.heads();
    let [head] = heads.as_slice() else {
        panic!("one request: {heads:?}");
    };
    assert_eq!(head.headers.get("x-forwarded-client-cert"), None);
    assert_eq!(head.headers["x-forwarded-proto"], "http");
    assert_eq!(head.headers["x-kept"], "yes");
}

fn route(url: &str) -> String {
    format!("\n[[listener.route]]\npath_prefix = \"/upstream\"\nupstream = \"{url}\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_adds_a_listener_and_another_source_needs_a_restart() {
    let gate = Gate::start(&greeter(), &[]);
    let added = free_address();
    change(&gate.gate, gate.folder.path(), |text| {
        text + &format!(
            "\n[[listener]]\nname = \"added\"\nlisten = \"{added}\"\ncomponent = \"greeter\"\n"
        )
    });
    assert_eq!(get(&added, "/hello").await.status, 200);
    assert_eq!(get(gate.address("main"), "/hello").await.status, 200);
    change(&gate.gate, gate.folder.path(), |text| {
        text.replace(
            "source = \"none\"",
            "trust_domain = \"td.example\"\n[workload_api]\nsocket = \"w.sock\"\n[identity2]",
        )
        .replace("[identity2]\nstate = \"state\"", "")
        .replace("[identity]", "[identity]\nstate = \"state\"")
        .replace(
            "[admin]",
            "[[identity.entry]]\nspiffe_id = \"spiffe://td.example/all\"\n\
             selectors = [\"component:namespace:default\"]\n[admin]",
        )
    });
    logged(&gate.gate, &["SG0073", "identity.source"]);
    assert_eq!(get(&added, "/hello").await.status, 200);
    assert!(!gate.folder.path().join("w.sock").exists());
    assert!(!gate.gate.ready.state.join("authority.pem").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_passed_on_as_they_are_and_a_server_may_speak_first() {
    let server = listen(|mut stream: TcpStream| async move {
        stream.write_all(b"hello ").await.expect("it is sent");
        let mut bytes = [0; 3];
        stream.read_exact(&mut bytes).await.expect("it comes");
        stream.write_all(&bytes).await.expect("it is sent");
    });
    let server = server.await.replace("http://", "tcp://");
    let sections = format!(
        "\n[policy]\npath = \"policy\"\n\n[[listener]]\nname = \"bytes\"\nlisten = \"127.0.0.1:0\"\n\
         protocol = \"tcp\"\nupstream = \"{server}\"\n"
    );
    let rules = "package sidegate.connect\nallow if not input.source_principal\n";
    let gate = Gate::start(&sections, &[("connect", rules)]);
    let address = gate.address("bytes");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let mut answer = [0; 6];
    patiently(stream.read_exact(&mut answer))
        .await
        .expect("it speaks first");
    // As TLS begins.
    stream.write_all(&[22, 3, 1]).await.expect("it is sent");
    let mut rest = Vec::new();
    patiently(stream.read_to_end(&mut rest))
        .await
        .expect("an end");
    assert_eq!((&answer, rest.as_slice()), (b"hello ", &[22, 3, 1][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_without_tls_stands_beside_others_and_may_be_given_tls() {
    let folder = folder();
    let plain = free_address();
    let policy = "package envoy.authz\nallow if not input.attributes.destination.principal\n\
                  allow if startswith(input.source_principal, \"spiffe://sidegate.local/\")\n";
    crate::support::write(folder.path(), "policy/a.rego", policy);
    let rest = format!(
        "[policy]\npath = \"policy\"\n\n[[listener]]\nname = \"plain\"\nlisten = \"{plain}\"\n\
         tls = \"off\"\ncomponent = \"probe\"\n"
    );
    let configuration = Configuration::new().rest(&rest);
    let gate = Sidegate::run(&configuration.write(folder.path()));
    let listeners = &gate.ready.listeners;
    let [main, without] = listeners.as_slice() else {
        panic!("two listeners: {listeners:?}");
    };
    assert!(main.spiffe_id.starts_with("spiffe://sidegate.local/"));
    assert_eq!(without.spiffe_id, "");
    let demo = folder.path().join("demo");
    let [bundle, svid, key] = ["bundle.pem", "svid.pem", "key.pem"].map(|name| demo.join(name));
    let client = crate::support::Client::new(&main.address, &bundle, &svid, &key);
    assert_eq!(get(&plain, "/headers").await.status, 200);
    assert_eq!(client.get("/headers").await.status, 200);
    let asked = client.clone().at(&plain);
    let config = || asked.tls(rustls::crypto::aws_lc_rs::default_provider());
    let refused = asked.connect(config()).await;
    let refused = refused.expect_err("it speaks no TLS").to_string();
    assert!(refused.contains("HandshakeFailure"), "{refused}");
    change(&gate, folder.path(), |text| {
        text.replace("tls = \"off\"", "tls = \"mutual\"")
    });
    assert_eq!(asked.get("/headers").await.status, 200);
    change(&gate, folder.path(), |text| {
        text.replace("tls = \"mutual\"", "tls = \"off\"")
    });
    assert_eq!(get(&plain, "/headers").await.status, 200);
    assert!(asked.connect(config()).await.is_err());
}
