//! nghttp2's tools as clients.

mod long;
mod workers;

use std::process::Command;

use sidegate_tests::{Running, Tool, skip, tool};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use crate::support::{Client, Configuration, Upstream, folder, listen, write};

const ALLOWS: &str = "package envoy.authz\nallow := true\n";

/// A port that brings whoever knows no client certificates to us: `http://host:port`.
pub(crate) async fn relay(client: &Client, protocol: &'static [u8]) -> String {
    let client = client.clone();
    listen(move |mut stream: TcpStream| {
        let client = client.clone();
        async move {
            let mut tls = client.connect_for(protocol).await;
            if copy_bidirectional(&mut stream, &mut tls).await.is_err() {
                // What was broken off must not look like an end.
                let _ = stream.set_zero_linger();
            }
        }
    })
    .await
}

/// Runs a program to its end while the relay goes on.
async fn finish(mut command: Command) -> sidegate_tests::Output {
    let running = tokio::task::spawn_blocking(move || Running::start(&mut command).wait());
    running.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nghttp_gets_each_of_its_responses_with_odd_settings_and_padding() {
    let Some(nghttp) = tool(Tool::Nghttp) else {
        return skip("nghttp_gets_each_of_its_responses", Tool::Nghttp);
    };
    let (folder, upstream) = (folder(), Upstream::start().await);
    write(folder.path(), "policy/policy.rego", ALLOWS);
    let (_sidegate, client) = Configuration::before(&upstream.url, "").start(folder.path());
    let content = write(folder.path(), "content", "hello".repeat(20_000));
    let demo = folder.path().join("demo");
    for options in [
        &["--multiply=20"][..],
        &["--multiply=5", "--padding=200"],
        &["--multiply=5", "--window-bits=10", "--header-table-size=0"],
        &["--multiply=5", "--trailer=x-a: 1"],
        &["--multiply=5", "--no-dep"],
    ] {
        let mut command = Command::new(&nghttp);
        command.args(["--null-out", "--verbose", "--header=:authority: localhost"]);
        command.arg("--cert").arg(demo.join("svid.pem"));
        command.arg("--key").arg(demo.join("key.pem"));
        command.arg("--data").arg(&content).args(options);
        command.arg(format!("https://{}/", client.address));
        let before = upstream.heads().len();
        let output = finish(command).await;
        assert!(output.status.success(), "{options:?} {output:?}");
        let number: usize = options[0].split('=').nth(1).unwrap().parse().unwrap();
        let responses = output.stdout.matches(":status: 200").count();
        assert_eq!(responses, number, "{options:?} {}", output.stdout);
        assert_eq!(upstream.heads().len() - before, number, "{options:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_of_h2load_fails() {
    let Some(h2load) = tool(Tool::H2load) else {
        return skip("no_request_of_h2load_fails", Tool::H2load);
    };
    let (folder, upstream) = (folder(), Upstream::start().await);
    write(folder.path(), "policy/policy.rego", ALLOWS);
    let (_sidegate, client) = Configuration::before(&upstream.url, "").start(folder.path());
    for (protocol, options) in [
        (&b"h2"[..], &["--max-concurrent-streams=20"][..]),
        (b"http/1.1", &["--h1"]),
    ] {
        let mut command = Command::new(&h2load);
        command.args(["--requests=2000", "--clients=10"]);
        command.args(options).arg(relay(&client, protocol).await);
        let output = finish(command).await;
        assert!(output.status.success(), "{output:?}");
        let all = "2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(output.stdout.contains(all), "{}", output.stdout);
    }
    assert_eq!(upstream.heads().len(), 4000);
}
