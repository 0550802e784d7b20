//! Who is let in, and how many.

use rustls::crypto::aws_lc_rs;
use sidegate_tests::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{KNOWN, ended, greeted, is_open, listener, server, start};
use crate::inbound::Front;
use crate::inbound::modes::gets_nothing_in_plaintext;
use crate::support::{counter, logged, patiently, write};

/// Whether a connection gets as far as the server.
async fn is_served(front: &Front) -> bool {
    let config = front.client.tls(aws_lc_rs::default_provider());
    let Ok(mut stream) = front.client.connect(config).await else {
        return false;
    };
    let mut greeting = [0; 6];
    patiently(stream.read_exact(&mut greeting)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_server_only_listener_the_policy_decides_on_nobody_in_particular() {
    let nobody = "package sidegate.connect\nallow if not input.source_principal\n";
    let front = start(&listener(&server(), "tls = \"server-only\""), nobody);
    // The first would show its SVID if it were asked.
    for config in [
        front.client.tls(aws_lc_rs::default_provider()),
        front.client.anonymous(),
    ] {
        let mut stream = front.client.connect(config).await.unwrap();
        greeted(&mut stream).await;
        is_open(&mut stream).await;
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        patiently(stream.read_to_end(&mut rest))
            .await
            .expect("a clean end");
        assert_eq!(rest, b" bye");
    }
    until("both are counted", || {
        (ended(&front, "complete") == 2).then_some(())
    });
    let line = front.line("of a connection", |line| line["protocol"] == "TCP");
    assert_eq!(line["verdict"], "allow", "{line}");
    assert_eq!(line.get("peer"), None, "{line}");
    gets_nothing_in_plaintext(&front).await;

    write(front.folder.path(), "policy/connect.rego", KNOWN);
    logged(&front.sidegate, &["another policy decides"]);
    assert!(!is_served(&front).await);
    let line = front.line("of the denial", |line| line["verdict"] == "deny");
    assert_eq!(line["code"], "SG0341", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_counts_for_the_listeners_limit_for_as_long_as_bytes_may_pass() {
    let limits = "limits = { max_connections = 2 }";
    let front = start(&listener(&server(), limits), KNOWN);
    let mut ends = front.client.raw().await;
    let mut stays = front.client.raw().await;
    greeted(&mut ends).await;
    greeted(&mut stays).await;
    for _ in 0..5 {
        assert!(!is_served(&front).await);
    }
    let exceeded = ["limit=\"max_connections\""];
    let exceeded = counter(&front.sidegate, "sidegate_limits_exceeded_total", &exceeded);
    assert_eq!(exceeded as u64, 5);
    logged(&front.sidegate, &["SG0350", "main"]);
    is_open(&mut ends).await;
    is_open(&mut stays).await;

    ends.shutdown().await.unwrap();
    let mut rest = Vec::new();
    patiently(ends.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b" bye");
    drop(ends);
    patiently(async { while !is_served(&front).await {} }).await;
    is_open(&mut stays).await;
}
