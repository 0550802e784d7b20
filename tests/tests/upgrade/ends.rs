//! What ends a tunnel: whatever had allowed it is gone.

use futures_util::StreamExt;
use sidegate_tests::until;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;

use super::server::Server;
use super::{ALLOWS_ONE, Socket, echoes, open, run, up};
use crate::support::{access_line, admin, counter, folder, logged, patiently, write};
use crate::workload_api::validity;

/// Waits until nothing comes any more.
pub(super) async fn is_cut<S>(socket: &mut Socket<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let next = patiently(socket.next()).await;
    assert!(!matches!(next, Some(Ok(_))), "{next:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_denies_it_now_ends_a_tunnel_and_no_other() {
    let folder = folder();
    let server = Server::start().await;
    let (sidegate, client, policy) = up(&folder, &server);
    let (mut denied, head) = open(&client, "/denied").await.unwrap();
    let (mut allowed, _) = open(&client, "/allowed").await.unwrap();
    echoes(&mut denied, Message::text("before")).await;

    std::fs::write(&policy, ALLOWS_ONE).unwrap();
    is_cut(&mut denied).await;
    let id = head.headers()["x-request-id"].to_str().unwrap();
    let line = access_line(&sidegate, id);
    assert_eq!(line["error"], "policy_changed", "{line}");
    assert_eq!(line["code"], "SG0340", "{line}");
    assert_eq!(line["status"], 101, "{line}");
    logged(&sidegate, &["SG0340", id]);
    let cut = counter(&sidegate, "sidegate_requests_cut_total", &[]);
    assert_eq!(cut as u64, 1);
    echoes(&mut allowed, Message::text("after")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_denies_the_peer_ends_its_tunnels() {
    let folder = folder();
    let server = Server::start().await;
    let (sidegate, client, _) = up(&folder, &server);
    let (mut socket, head) = open(&client, "/").await.unwrap();
    write(
        folder.path(),
        "policy/connect.rego",
        "package sidegate.connect\nallow := false\n",
    );
    is_cut(&mut socket).await;
    let line = access_line(&sidegate, head.headers()["x-request-id"].to_str().unwrap());
    assert_eq!(line["error"], "policy_changed", "{line}");
    assert_eq!(line["code"], "SG0342", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_ends_with_the_svid_of_its_client() {
    let folder = folder();
    let server = Server::start().await;
    let (sidegate, client) = run(&folder, &server.url, "svid_ttl = \"10s\"\n", "");
    let ends = validity(&client.identity.chain[0])[1];
    let (mut socket, head) = open(&client, "/").await.unwrap();
    echoes(&mut socket, Message::text("before")).await;
    is_cut(&mut socket).await;
    let now = OffsetDateTime::now_utc();
    let when = format!("expiry at {ends}, cut at {now}");
    assert!(now >= ends - time::Duration::seconds(1), "{when}");
    assert!(now <= ends + time::Duration::seconds(2), "{when}");
    let line = access_line(&sidegate, head.headers()["x-request-id"].to_str().unwrap());
    assert_eq!(line["error"], "peer_expired", "{line}");
    assert_eq!(line["code"], "SG0316", "{line}");
    logged(&sidegate, &["SG0316", "spiffe://sidegate.local/demo"]);
    let labels = ["reason=\"expired\""];
    let cut = counter(&sidegate, "sidegate_connections_cut_total", &labels);
    assert_eq!(cut as u64, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_in_which_nothing_moves_is_ended() {
    let folder = folder();
    let server = Server::start().await;
    let timeouts = "[listener.timeouts]\nidle = \"1s\"\n";
    let (sidegate, client) = run(&folder, &server.url, "", timeouts);
    let (mut socket, head) = open(&client, "/").await.unwrap();
    is_cut(&mut socket).await;
    let line = access_line(&sidegate, head.headers()["x-request-id"].to_str().unwrap());
    assert_eq!(line["error"], "idle", "{line}");
    assert_eq!(line["code"], "SG0305", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_tunnels_until_its_deadline_and_then_cuts_them() {
    let folder = folder();
    let server = Server::start().await;
    let drain = "[proxy]\ndrain_timeout = \"10s\"\n";
    let (sidegate, client) = run(&folder, &server.url, "", drain);
    let (mut ends, _) = open(&client, "/ends").await.unwrap();
    let (mut stays, head) = open(&client, "/stays").await.unwrap();
    let id = head.headers()["x-request-id"].to_str().unwrap().to_owned();
    sidegate.process.signal(nix::sys::signal::Signal::SIGTERM);
    until("readiness says that it drains", || {
        let (status, text) = admin(&sidegate, "/readyz")?;
        (status == 503 && text.contains("draining")).then_some(())
    });
    echoes(&mut ends, Message::text("still there")).await;
    echoes(&mut stays, Message::text("still there")).await;
    ends.close(None).await.unwrap();
    while let Some(Ok(_)) = patiently(ends.next()).await {}
    drop(ends);
    is_cut(&mut stays).await;
    let line = access_line(&sidegate, &id);
    assert_eq!(line["error"], "drain_timeout", "{line}");
    assert_eq!(line["code"], "SG0306", "{line}");
    logged(&sidegate, &["SG0306", "cut=1"]);
    assert_eq!(sidegate.process.wait().status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_breaks_off_is_told_from_a_client_that_does() {
    let folder = folder();
    let server = Server::start().await;
    let (sidegate, client) = run(&folder, &server.url, "", "");
    let (socket, head) = open(&client, "/").await.unwrap();
    // Without a goodbye of TLS.
    drop(socket);
    let line = access_line(&sidegate, head.headers()["x-request-id"].to_str().unwrap());
    assert_eq!(line["error"], "downstream_gone", "{line}");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let broken = std::thread::spawn({
        let listener = listener.try_clone().unwrap();
        move || super::raw::accept_and_reset(&listener)
    });
    let other = crate::support::folder();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sidegate, client) = run(&other, &url, "", "");
    let mut stream = client.raw().await;
    let answer = super::raw::ask(&mut stream, "GET / HTTP/1.1", "").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    broken.join().unwrap();
    let line = access_line(&sidegate, super::raw::request_id(&answer));
    assert_eq!(line["error"], "tunnel_broken", "{line}");
    assert_eq!(line["code"], "SG0317", "{line}");
}
