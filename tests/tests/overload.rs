//! More clients than there is room for, and clients that take their time.

use std::process::Command;
use std::sync::Arc;

use sidegate_tests::{Running, Sidegate, Tool, sidegate, skip, tool, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use crate::nghttp2::relay;
use crate::support::{Client, Configuration, Upstream, counter, folder, listen, logged, write};

const ALLOWS: &str = "package envoy.authz\nallow := true\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_handshakes_at_once_all_succeed() {
    let (folder, upstream) = (folder(), Upstream::start().await);
    write(folder.path(), "policy/policy.rego", ALLOWS);
    let patient = "timeouts = { header_read = \"2m\", idle = \"5m\" }";
    let (sidegate, client) = Configuration::before(&upstream.url, patient).start(folder.path());
    let all = Arc::new(Barrier::new(1000));
    let crowd: Vec<_> = (0..1000)
        .map(|_| {
            let (client, all) = (client.clone(), Arc::clone(&all));
            tokio::spawn(async move {
                // Nobody goes before all are there.
                all.wait().await;
                client.get("/").await.status
            })
        })
        .collect();
    for answer in crowd {
        assert_eq!(answer.await.unwrap(), 200);
    }
    let succeeded = ["result=\"success\""];
    let handshakes = counter(&sidegate, "sidegate_tls_handshakes_total", &succeeded);
    assert_eq!(handshakes as u64, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_descriptors_left_says_so_once_and_serves_again() {
    let (folder, upstream) = (folder(), Upstream::start().await);
    write(folder.path(), "policy/policy.rego", ALLOWS);
    let config = Configuration::before(&upstream.url, "limits = { max_connections = 1000 }")
        .rest("[proxy]\nworkers = 1\n")
        .write(folder.path());
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 100 && exec \"$0\" \"$@\""]);
    command
        .arg(sidegate())
        .args(["run", "-o", "json", "--config"]);
    let sidegate = Sidegate::start(command.arg(config));
    let file = |name: &str| folder.path().join("demo").join(name);
    let address = &sidegate.ready.listeners[0].address;
    let (bundle, svid, key) = (file("bundle.pem"), file("svid.pem"), file("key.pem"));
    let client = Client::new(address, &bundle, &svid, &key);
    assert_eq!(client.get("/").await.status, 200);

    let mut crowd = Vec::new();
    for _ in 0..150 {
        crowd.push(TcpStream::connect(address).await.unwrap());
    }
    logged(&sidegate, &["SG0307"]);
    drop(crowd);
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let said = sidegate.process.stderr();
    let times = said.matches("SG0307").count();
    // Each time that there was room in between.
    assert!(times < 10, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_cut_and_others_are_served_meanwhile() {
    let Some(slowhttptest) = tool(Tool::Slowhttptest) else {
        return skip("slow_clients_are_cut", Tool::Slowhttptest);
    };
    let url = listen(|mut stream: TcpStream| async move {
        let Some(target) = crate::broken::target(&mut stream).await else {
            return;
        };
        if target == "/whole" {
            // It wants the whole body first.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
        let _ = stream.write_all(answer).await;
    })
    .await;
    let folder = folder();
    write(folder.path(), "policy/policy.rego", ALLOWS);
    let impatient = "timeouts = { header_read = \"2s\", body_read = \"1s\", idle = \"2s\" }";
    let (sidegate, client) = Configuration::before(&url, impatient).start(folder.path());
    let port = relay(&client, b"http/1.1").await;
    for (attack, limit) in [
        (&["-H", "-i", "1"][..], "header_read"),
        (&["-B", "-i", "3", "-s", "8192"], "body_read"),
    ] {
        let mut command = Command::new(&slowhttptest);
        let path = if limit == "body_read" { "whole" } else { "" };
        command
            .args(attack)
            .args(["-c", "30", "-r", "30", "-l", "50"]);
        command.arg("-u").arg(format!("{port}/{path}"));
        let mut attacker = Running::start(&mut command);
        while attacker.is_running() {
            assert_eq!(client.get("/").await.status, 200, "{attack:?}");
        }
        let output = attacker.wait();
        // Before its own time was over.
        let said = output.stdout + &output.stderr;
        assert!(
            said.contains("No open connections left"),
            "{attack:?} {said}"
        );
        let label = format!("limit=\"{limit}\"");
        until(limit, || {
            let cut = counter(&sidegate, "sidegate_limits_exceeded_total", &[&label]);
            (cut > 10.0).then_some(())
        });
    }
}
