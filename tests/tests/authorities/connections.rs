//! Live connections end with the root that let them in.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use sidegate_tests::until;
use tokio::io::AsyncReadExt;
use tokio::time::{interval, timeout};

use super::svids::renewed;
use crate::support::{
    Body, Client, Configuration, Operator, body, counter, folder, logged, patiently, read,
};

/// Connections of one client that have all been used.
pub(crate) struct Connections {
    http1: http1::SendRequest<Body>,
    http2: http2::SendRequest<Body>,
    /// Responses that have begun and do not end, over HTTP/1.1 and HTTP/2.
    running: Vec<Response<Incoming>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_cuts_what_hangs_on_the_root_and_leaves_what_does_not() {
    let folder = folder();
    let (gate, old) = Configuration::new()
        .component("request_deadline = \"60s\"\n")
        .timeouts("header_read = \"60s\"\nidle = \"60s\"\nrequest = \"60s\"\n")
        .start(folder.path());
    let operator = Operator::of(&gate);
    let first = operator.authority("x509", "active");
    let mut before = Connections::open(&old).await;
    // One that has never sent a request.
    let mut silent = old.raw().await;
    operator.ask(&["rotate", "x509"]);
    operator.ask(&["taint", "x509"]);
    let new = renewed(&folder, &old, &first);
    let mut after = Connections::open(&new).await;
    // With new roots a client may still show what it had.
    let mut kept = new.with(old.identity.clone()).http1().await;
    let cut = || {
        counter(
            &gate,
            "sidegate_connections_cut_total",
            &["listener=\"main\""],
        )
    };
    assert!(cut() < 0.5);
    before.leave().await;
    after.are_in_use().await;
    assert_eq!(get1(&mut kept).await, Some(200));

    operator.ask(&["revoke", "x509"]);
    before.are_cut().await;
    let mut ticks = interval(Duration::from_millis(20));
    patiently(async {
        while kept.ready().await.is_ok() {
            ticks.tick().await;
        }
    })
    .await;
    let mut rest = Vec::new();
    // Whether it is told goodbye is not our concern.
    let _ = patiently(silent.read_to_end(&mut rest)).await;
    // The two that have left by themselves are not among them.
    until("four connections that were cut", || {
        (cut() > 3.5).then_some(())
    });
    logged(&gate, &["SG0309"]);
    after.are_in_use().await;
    assert!((cut() - 4.0).abs() < 0.5, "{}", cut());
    let open = counter(&gate, "sidegate_connections_open", &["listener=\"main\""]);
    assert!((open - 4.0).abs() < 0.5, "{open}");
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_entries_nor_a_rotation_nor_a_taint_cut_a_connection() {
    let folder = folder();
    let (gate, client) = Configuration::new()
        .timeouts("idle = \"60s\"\nrequest = \"60s\"\n")
        .component("request_deadline = \"60s\"\n")
        .start(folder.path());
    let operator = Operator::of(&gate);
    let mut connections = Connections::open(&client).await;
    let entry = operator.create("/new", &crate::support::own_uid(), &[]);
    operator.delete(&entry);
    for kind in ["x509", "jwt"] {
        operator.ask(&["rotate", kind]);
    }
    operator.ask(&["taint", "jwt"]);
    operator.ask(&["revoke", "jwt"]);
    operator.ask(&["rotate", "x509", "--prepare-only"]);
    connections.are_in_use().await;
    operator.ask(&["taint", "x509"]);
    connections.leave().await;
    assert!(counter(&gate, "sidegate_connections_cut_total", &[]) < 0.5);
}

impl Connections {
    pub(crate) async fn open(client: &Client) -> Self {
        let mut running = Vec::new();
        let stall = Request::get("/stall").header("host", "localhost");
        let mut connection = client.http1().await;
        let response = connection.send_request(stall.body(body("")).unwrap());
        running.push(patiently(response).await.expect("a head"));
        let stall = Request::get("https://localhost/stall");
        let mut connection = client.http2().await;
        let response = connection.send_request(stall.body(body("")).unwrap());
        running.push(patiently(response).await.expect("a head"));
        let mut connections = Self {
            http1: client.http1().await,
            http2: client.http2().await,
            running,
        };
        connections.are_in_use().await;
        connections
    }

    /// Panics unless each takes another request, and the running responses still run.
    pub(crate) async fn are_in_use(&mut self) {
        assert_eq!(get1(&mut self.http1).await, Some(200));
        assert_eq!(get2(&mut self.http2).await, Some(200));
        self.still_run().await;
    }

    /// Waits until those without a running response have ended in good order: over HTTP/1.1 after
    /// one more response, over HTTP/2 at once.
    async fn leave(&mut self) {
        let mut ticks = interval(Duration::from_millis(20));
        patiently(async {
            while get1(&mut self.http1).await == Some(200) {
                ticks.tick().await;
            }
            while self.http2.ready().await.is_ok() {
                ticks.tick().await;
            }
        })
        .await;
        self.still_run().await;
    }

    async fn still_run(&mut self) {
        for response in &mut self.running {
            // What has come is read; then there is nothing more, and no end.
            while let Ok(frame) = timeout(Duration::from_millis(50), response.frame()).await {
                let frame = frame.expect("it has not ended");
                frame.expect("it was not cut");
            }
        }
    }

    /// Waits until each was ended, and not as if it were complete.
    pub(crate) async fn are_cut(&mut self) {
        let mut ticks = interval(Duration::from_millis(20));
        patiently(async {
            while self.http1.ready().await.is_ok() {
                ticks.tick().await;
            }
            while self.http2.ready().await.is_ok() {
                ticks.tick().await;
            }
        })
        .await;
        for response in self.running.drain(..) {
            let whole = patiently(response.into_body().collect()).await;
            assert!(whole.is_err(), "a response that was cut is not complete");
        }
    }
}

async fn get1(connection: &mut http1::SendRequest<Body>) -> Option<u16> {
    let request = Request::get("/status/200").header("host", "localhost");
    connection.ready().await.ok()?;
    let response = connection.send_request(request.body(body("")).unwrap());
    let response = patiently(response).await.ok()?;
    Some(read(response).await.status.as_u16())
}

async fn get2(connection: &mut http2::SendRequest<Body>) -> Option<u16> {
    let request = Request::get("https://localhost/status/200");
    connection.ready().await.ok()?;
    let response = connection.send_request(request.body(body("")).unwrap());
    let response = patiently(response).await.ok()?;
    Some(read(response).await.status.as_u16())
}
