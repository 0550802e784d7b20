//! `admin.clients`: health and metrics by mutual TLS, to those who are trusted when they ask.

use std::fs;

use sidegate_tests::{Sidegate, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Client, Operator, folder, identity_only, own_entry, patiently, spiffe_id, write,
};

#[tokio::test(flavor = "multi_thread")]
async fn who_was_let_in_and_is_not_trusted_any_more_gets_nothing() {
    let folder = folder();
    let host = format!(
        "[[identity.entry]]\nspiffe_id = \"{}\"\nselectors = [\"host:self\"]\n\
         dns_names = [\"localhost\"]\n",
        spiffe_id("/host")
    );
    let demo = spiffe_id("/demo");
    let files = format!("[[svid_file]]\nspiffe_id = \"{demo}\"\ndirectory = \"demo\"\n");
    let config = identity_only(folder.path(), &[host, own_entry("/demo"), files].concat());
    let clients = format!("[admin]\nclients = [\"{demo}\"]");
    let text = fs::read_to_string(config).expect("it is there");
    let text = text.replace("[admin]", &clients);
    let gate = Sidegate::run(&write(folder.path(), "sidegate.toml", text));
    let address = gate.ready.admin.strip_prefix("https://");
    let address = address.expect("the ready line says that it is TLS");
    let files = folder.path().join("demo");
    let client = || {
        let [bundle, svid, key] = ["bundle.pem", "svid.pem", "key.pem"].map(|it| files.join(it));
        Client::new(address, &bundle, &svid, &key)
    };
    let answer = client().get("/readyz").await;
    assert_eq!(answer.status, 200);
    // Who asks again shows its certificate again.
    assert_eq!(answer.header("connection"), "close");

    let mut held = client().raw().await;
    let before = fs::read(files.join("svid.pem")).expect("it is there");
    let operator = Operator::of(&gate);
    for action in ["rotate", "taint", "revoke"] {
        operator.ask(&[action, "x509"]);
    }
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut answer = Vec::new();
    // It may be closed already.
    if held.write_all(request).await.is_ok() {
        let _ = patiently(held.read_to_end(&mut answer)).await;
    }
    assert_eq!(String::from_utf8_lossy(&answer), "");

    until("the client has a new SVID", || {
        let now = fs::read(files.join("svid.pem")).expect("it is there");
        (now != before).then_some(())
    });
    assert_eq!(client().get("/metrics").await.status, 200);
}
