//! More clients than there is room for, and clients that take their time.

use std::process::Command;
use std::sync::Arc;

use sidegate_tests::{Running, Sidegate, Tool, sidegate, skip, tool, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use crate::nghttp2::relay;
use crate::support::{
    Client, Configuration, Upstream, counter, folder, listen, logged, patiently, write,
};

const ALLOWS: &str = "package envoy.authz\nallow := true\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_handshakes_at_once_all_succeed() {
    let (folder, upstream) = (folder(), Upstream::start().await);
    write(folder.path(), "policy/policy.rego", ALLOWS);
    let patient =
        "timeouts = { header_read = \"2m\", connect = \"2m\", request = \"2m\", idle = \"5m\" }";
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

/// A server whose `/large` is more than what the system keeps for who does not read it.
async fn large() -> String {
    listen(|mut stream: TcpStream| async move {
        let Some(target) = crate::broken::target(&mut stream).await else {
            return;
        };
        let length = if target == "/large" { 64 << 20 } else { 2 };
        let head =
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&vec![b'x'; length]).await;
    })
    .await
}

/// What does not read is cut soon. It may come without TLS.
const SOON: &str = "tls = \"permissive\"\ntimeouts = { idle = \"5s\" }";

fn cut_for_idleness(sidegate: &Sidegate) -> u64 {
    let idle = ["limit=\"idle\""];
    counter(sidegate, "sidegate_limits_exceeded_total", &idle) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hardly_read_are_cut_and_others_are_served_meanwhile() {
    let Some(slowhttptest) = tool(Tool::Slowhttptest) else {
        return skip("clients_that_hardly_read_are_cut", Tool::Slowhttptest);
    };
    let folder = folder();
    write(folder.path(), "policy/policy.rego", ALLOWS);
    let (sidegate, client) = Configuration::before(&large().await, SOON).start(folder.path());
    let mut command = Command::new(&slowhttptest);
    command.args(["-X", "-c", "30", "-r", "30", "-l", "50"]);
    // A few bytes at a time, out of a small window.
    command.args(["-w", "10", "-y", "20", "-n", "5", "-z", "10"]);
    command
        .arg("-u")
        .arg(format!("http://{}/large", client.address));
    let mut attacker = Running::start(&mut command);
    while cut_for_idleness(&sidegate) < 30 {
        // Before its own time was over.
        assert!(attacker.is_running(), "{}", attacker.stdout());
        assert_eq!(client.get("/").await.status, 200);
    }
    until("the access lines", || {
        let lines = sidegate.process.stdout();
        let stalled = |line: &&str| line.contains("\"idle\"") && line.contains("SG0305");
        let stalled = lines.lines().filter(stalled);
        let stalled = stalled.filter(|line| line.contains("\"/large\""));
        (stalled.count() >= 30).then_some(())
    });
    until("none of them is counted", || {
        let open = ["listener=\"main\""];
        let open = counter(&sidegate, "sidegate_connections_open", &open) as u64;
        (open == 0).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_system_keeps_nothing_for_a_client_that_was_cut_because_it_does_not_read() {
    let folder = folder();
    write(folder.path(), "policy/policy.rego", ALLOWS);
    let (sidegate, client) = Configuration::before(&large().await, SOON).start(folder.path());
    let mut stream = TcpStream::connect(&client.address).await.unwrap();
    let request = b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    until("it is cut", || {
        (cut_for_idleness(&sidegate) == 1).then_some(())
    });
    // What is not sent yet would stay in the system's memory for as long as it pleases the client.
    let mut rest = Vec::new();
    let end = patiently(stream.read_to_end(&mut rest)).await;
    let error = end.expect_err("a reset, no clean end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
