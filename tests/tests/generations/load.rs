//! Many changes while requests come.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::cut::{send1, send2};
use super::{ALLOWS, Gate};
use crate::support::{Client, counter};

const SWAPS: u64 = 200;

/// Goes back, which goes forward the next time.
pub(super) fn roll_back(state: &Path) {
    let mut stream = UnixStream::connect(state.join("admin.sock")).unwrap();
    stream
        .write_all(
            b"POST /v1/policy/rollback HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\
              content-length: 0\r\n\r\n",
        )
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_changes_fail_no_request() {
    let gate = Gate::up(ALLOWS);
    let client = Client::demo(&gate.sidegate);
    gate.change("package envoy.authz\nallow if input.parsed_path[0] == \"status\"\n");
    let (is_over, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut loads = Vec::new();
    for index in 0..4 {
        let (client, is_over, answered) =
            (client.clone(), Arc::clone(&is_over), Arc::clone(&answered));
        loads.push(tokio::spawn(async move {
            let (mut http1, mut http2) = (client.http1().await, client.http2().await);
            while !is_over.load(Ordering::SeqCst) {
                let answer = match index % 2 {
                    0 => send1(&mut http1, "/status/200").await,
                    _ => send2(&mut http2, "/status/200").await,
                };
                assert_eq!(answer.unwrap().status, 200);
                answered.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let state = gate.sidegate.ready.state.clone();
    let swaps = tokio::task::spawn_blocking(move || {
        for _ in 0..SWAPS {
            roll_back(&state);
        }
    });
    swaps.await.unwrap();
    let at_the_end = answered.load(Ordering::SeqCst);
    while answered.load(Ordering::SeqCst) < at_the_end + 10 {
        tokio::task::yield_now().await;
    }
    is_over.store(true, Ordering::SeqCst);
    for load in loads {
        load.await.unwrap();
    }
    assert_eq!(gate.generation(), 2 + SWAPS);
    assert_eq!(gate.loads("failure"), 0);
    let denied = counter(
        &gate.sidegate,
        "http_server_request_duration_seconds_count",
        &["verdict=\"deny\""],
    );
    assert!(denied < 0.5, "{denied}");
}
