//! Several workers.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use http::Request;
use sidegate_tests::{Sidegate, Tool, skip, tool};

use super::{ALLOWS, finish};
use crate::support::{Configuration, Upstream, body, counter, folder, logged, patiently, write};

/// Of one run of h2load.
const REQUESTS: usize = 2000;

/// How long each worker has run so far, in nanoseconds.
fn workers(sidegate: &Sidegate) -> BTreeMap<String, u64> {
    let tasks = format!("/proc/{}/task", sidegate.process.pid());
    let mut workers = BTreeMap::new();
    for task in fs::read_dir(tasks).expect("it runs") {
        let task = task.expect("a thread").path();
        let name = fs::read_to_string(task.join("comm")).expect("it has a name");
        if name.starts_with("worker-") {
            let spent = fs::read_to_string(task.join("schedstat")).expect("it was scheduled");
            let spent = spent.split(' ').next().and_then(|spent| spent.parse().ok());
            workers.insert(name.trim_end().to_owned(), spent.expect("a number"));
        }
    }
    workers
}

#[tokio::test(flavor = "multi_thread")]
async fn all_workers_take_part_and_none_of_their_responses_is_lost() {
    let (Some(h2load), Some(nghttp)) = (tool(Tool::H2load), tool(Tool::Nghttp)) else {
        return skip("all_workers_take_part", Tool::H2load);
    };
    for count in [2, 5] {
        let (folder, upstream) = (folder(), Upstream::start().await);
        let policy = write(folder.path(), "policy/policy.rego", ALLOWS);
        // h2load has no certificate to show.
        let (sidegate, client) = Configuration::before(&upstream.url, "tls = \"permissive\"")
            .rest(&format!("[proxy]\nworkers = {count}\n"))
            .start(folder.path());
        let before = workers(&sidegate);
        let names: Vec<_> = (0..count)
            .map(|number| format!("worker-{number}"))
            .collect();
        assert!(before.keys().eq(&names), "{before:?}");

        for options in [&["--max-concurrent-streams=10"][..], &["--h1"]] {
            let mut command = Command::new(&h2load);
            command.arg(format!("--requests={REQUESTS}"));
            command.arg("--clients=100").args(options);
            command.arg(format!("https://{}/", client.address));
            let output = finish(command).await;
            let all = format!("{REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored");
            assert!(output.stdout.contains(&all), "{options:?} {output:?}");
        }
        let mut command = Command::new(&nghttp);
        command.args(["--null-out", "--verbose", "--multiply=50"]);
        command.arg(format!("https://{}/", client.address));
        let output = finish(command).await;
        let responses = output.stdout.matches(":status: 200").count();
        assert_eq!(responses, 50, "{output:?}");

        let asked = 2 * REQUESTS + 50;
        assert_eq!(upstream.heads().len(), asked);
        let name = "http_server_request_duration_seconds_count";
        assert_eq!(counter(&sidegate, name, &[]) as usize, asked);
        // One that has served nobody has hardly run at all.
        for (name, spent) in workers(&sidegate) {
            let spent = spent - before[&name];
            assert!(spent > 3_000_000, "{name} ran for {spent} ns");
        }

        // What changes, changes for all of them.
        let mut kept = Vec::new();
        for _ in 0..10 * count {
            kept.push(client.http2().await);
        }
        fs::write(&policy, "package envoy.authz\nallow := false\n").unwrap();
        logged(&sidegate, &["another policy decides"]);
        for mut connection in kept {
            let request = Request::get("https://localhost/").body(body(""));
            let answer = patiently(connection.send_request(request.unwrap())).await;
            assert_eq!(answer.unwrap().status(), 403);
        }
        assert_eq!(upstream.heads().len(), asked);
    }
}
