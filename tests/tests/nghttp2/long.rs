//! A long run.

use std::path::Path;
use std::process::Command;

use sidegate_tests::{Sidegate, Tool, skip, tool};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{ALLOWS, finish};
use crate::faults::unread::memory;
use crate::support::{Configuration, counter, folder, listen, write};

/// Of one run of h2load.
const REQUESTS: u64 = 25_000;
/// What the process may grow by, in KiB.
const GROWTH: u64 = 8 * 1024;

/// A server that keeps nothing of what it is asked.
async fn origin() -> String {
    listen(|stream: TcpStream| async move {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).await.unwrap_or(0) > 0 {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
            if line == b"\r\n" && stream.write_all(answer).await.is_err() {
                return;
            }
            line.clear();
        }
    })
    .await
}

/// So many requests over both protocols, none of which fails.
async fn load(h2load: &Path, address: &str) {
    for options in [&["--max-concurrent-streams=10"][..], &["--h1"]] {
        let mut command = Command::new(h2load);
        command.arg(format!("--requests={REQUESTS}"));
        command.arg("--clients=10").args(options);
        let output = finish({
            command.arg(format!("https://{address}/items?page=1"));
            command
        })
        .await;
        let all = format!("{REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(output.stdout.contains(&all), "{options:?} {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_first_quarter_a_run_of_200_000_requests_takes_no_more_memory() {
    let Some(h2load) = tool(Tool::H2load) else {
        return skip("a_run_of_200_000_requests", Tool::H2load);
    };
    let folder = folder();
    write(folder.path(), "policy/policy.rego", ALLOWS);
    // h2load has no certificate to show.
    let (sidegate, client) = Configuration::before(&origin().await, "tls = \"permissive\"")
        .rest("[log]\naccess = \"file\"\naccess_path = \"access.log\"\naccess_format = \"text\"\n")
        .start(folder.path());
    let mut taken = Vec::new();
    for _ in 0..4 {
        load(&h2load, &client.address).await;
        taken.push(memory(&sidegate));
    }
    assert_eq!(requests(&sidegate), 8 * REQUESTS);
    let (first, last) = (taken[0], taken[3]);
    assert!(last.abs_diff(first) < GROWTH, "KiB: {taken:?}");
}

fn requests(sidegate: &Sidegate) -> u64 {
    let name = "http_server_request_duration_seconds_count";
    let served = ["http_response_status_code=\"200\""];
    counter(sidegate, name, &served) as u64
}
