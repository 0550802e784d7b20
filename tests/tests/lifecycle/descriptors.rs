//! More connections than there are file descriptors.

use std::net::TcpStream;
use std::path::Path;

use sidegate_tests::{Sidegate, until};

use super::limited;
use crate::support::{Client, Configuration, admin, counter, folder, logged};

/// Enough to start with, and fewer than the connections of the test.
const DESCRIPTORS: u64 = 200;

const CONNECTIONS: usize = 400;

fn run(config: &Path) -> Sidegate {
    let mut command = limited(DESCRIPTORS, DESCRIPTORS);
    command.args(["run", "-o", "json", "--config"]).arg(config);
    Sidegate::start(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_it_tells_serves_who_is_there_and_accepts_again_later() {
    let folder = folder();
    let mut configuration = Configuration::new().rest("[proxy]\nworkers = 2\n");
    configuration.listener += "[listener.limits]\nmax_connections = 5000\n";
    let sidegate = run(&configuration.write(folder.path()));
    let file = |name: &str| folder.path().join("demo").join(name);
    let address = crate::support::address(&sidegate).to_owned();
    let client = Client::new(
        &address,
        &file("bundle.pem"),
        &file("svid.pem"),
        &file("key.pem"),
    );
    let mut kept = client.http2().await;
    let mut status = async || {
        let request = http::Request::get("https://localhost/status/200");
        let request = request.body(crate::support::body("")).unwrap();
        let answer = crate::support::patiently(kept.send_request(request)).await;
        answer.unwrap().status()
    };
    // What a component takes descriptors for, it takes once.
    assert_eq!(status().await, 200);
    let crowd = (0..CONNECTIONS).map(|_| TcpStream::connect(&address).unwrap());
    let crowd: Vec<_> = crowd.collect();
    let line = logged(&sidegate, &["SG0307"]);
    assert!(line.contains("open files"), "{line}");
    assert_eq!(status().await, 200, "whoever is connected is served");

    drop(crowd);
    logged(&sidegate, &["connections are accepted again"]);
    assert_eq!(client.get("/status/200").await.status, 200);
    let ready = until("the admin server", || admin(&sidegate, "/readyz"));
    assert_eq!(ready, (200, "ok\n".to_owned()));
    let failed = counter(&sidegate, "sidegate_connections_not_accepted_total", &[]);
    assert!(failed > 0.5, "{failed}");
    assert_eq!(sidegate.stop().status.code(), Some(0));
}
