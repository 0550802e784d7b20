//! As whom an app's requests are sent, and for how long a connection carries them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Request;
use sidegate_tests::until;
use tokio::task::JoinSet;

use super::{App, Gate, SERVER, client_certificate, egress, entry, free_port, server, text};
use crate::support::{Upstream, body, folder, patiently, read};

#[tokio::test(flavor = "multi_thread")]
async fn two_identities_never_share_a_connection() {
    let upstream = Upstream::start().await;
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("https://{address}");
    let sections = [
        entry("sidegate.local", "/server", "main", ""),
        entry("sidegate.local", "/one", "one", ""),
        entry("sidegate.local", "/two", "two", ""),
        server(&address, &upstream.url),
        egress("one", &url, SERVER),
        egress("two", &url, SERVER),
    ];
    let gate = Gate::start("sidegate.local", &sections.concat());
    let mut asking = JoinSet::new();
    for index in 0..60 {
        let name = ["one", "two"][index % 2];
        let app = gate.app(name);
        asking.spawn(async move {
            let path = format!("/{name}/{index}");
            match index % 4 < 2 {
                true => app.get(&path).await.status,
                false => app.send_http2(Request::builder(), &path).await.status,
            }
        });
    }
    for status in asking.join_all().await {
        assert_eq!(status, 200);
    }
    let heads = upstream.heads();
    assert_eq!(heads.len(), 60);
    for head in heads {
        let name = head
            .uri
            .path()
            .split('/')
            .nth(1)
            .expect("a name")
            .to_owned();
        let certificate = client_certificate(&head);
        let ends = certificate.ends_with(&format!(";URI=spiffe://sidegate.local/{name}"));
        assert!(ends, "{certificate} {}", head.uri);
    }
}

/// Asks until told to stop, on one connection; panics where a request fails.
async fn load(app: App, is_http2: bool, stop: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    let (mut one, mut two) = (app.http1().await, app.http2().await);
    while !stop.load(Ordering::Relaxed) {
        let answer = if is_http2 {
            let request = Request::get("http://orders.example/").body(body(""));
            let sent = two.send_request(request.expect("a request"));
            patiently(sent).await.expect("a response")
        } else {
            patiently(one.ready()).await.expect("the connection stays");
            let request = Request::get("/")
                .header("host", "orders.example")
                .body(body(""));
            let sent = one.send_request(request.expect("a request"));
            patiently(sent).await.expect("a response")
        };
        let answer = read(answer).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_both_sides_get_new_svids() {
    let upstream = Upstream::start().await;
    let address = format!("127.0.0.1:{}", free_port());
    let sections = [
        entry("sidegate.local", "/server", "main", ""),
        entry("sidegate.local", "/app", "app", ""),
        server(&address, &upstream.url),
        egress("app", &format!("https://{address}"), SERVER),
    ];
    let text = text("sidegate.local", &sections.concat()).replace("\"1h\"", "\"10s\"");
    let gate = Gate::start_with(folder(), text);
    let stop = Arc::new(AtomicBool::new(false));
    let mut loads = JoinSet::new();
    for is_http2 in [false, true, false, true] {
        loads.spawn(load(gate.app("app"), is_http2, Arc::clone(&stop)));
    }
    let shown = || -> BTreeSet<String> {
        let heads = upstream.heads();
        heads.iter().map(client_certificate).collect()
    };
    tokio::task::block_in_place(|| {
        until("four SVIDs of the app", || {
            (shown().len() >= 4).then_some(())
        });
    });
    stop.store(true, Ordering::Relaxed);
    for count in loads.join_all().await {
        assert!(count > 10, "{count}");
    }
}
