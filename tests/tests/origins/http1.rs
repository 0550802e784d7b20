//! What is hostile or odd in HTTP/1.1.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::heads::cases;
use super::servers::Origin;
use super::{Case, Front, Seen, attack_all};
use crate::support::{Client, patiently};

/// Sends bytes and reads what comes until the connection ends.
async fn send(client: &Client, bytes: &[u8]) -> String {
    let mut stream = client.raw().await;
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = patiently(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// All cases, each with another request behind it on the same connection, and one of somebody else.
async fn attack(mut front: Front, cases: Vec<Case<Vec<u8>>>) -> (Seen, Vec<String>) {
    for (index, case) in cases.iter().enumerate() {
        let marker = format!("/{index}/marker");
        let request =
            format!("GET {marker} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let bytes = [&case.sent, request.as_bytes()].concat();
        let answer = send(&front.client, &bytes).await;
        // If the second was answered, then with its own response.
        let finals = answer.split("HTTP/1.1 ").skip(1);
        let finals = finals.filter(|response| !response.starts_with("100 "));
        let answers: Vec<&str> = finals.collect();
        let is_right = match answers.as_slice() {
            [] | [_] => true,
            [_, second] => !second.starts_with("200") || second.contains(&format!("GET {marker}")),
            _ => false,
        };
        front.check(is_right, case.what, &answer);
        front.serves_others(index, case.what).await;
    }
    tokio::task::block_in_place(|| front.compare(&cases))
}

#[tokio::test(flavor = "multi_thread")]
async fn six_servers_see_the_same_requests_whatever_comes_over_http1() {
    let origins = Origin::all("six_servers_see_the_same_requests_over_http1").await;
    attack_all(origins, cases(), attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_http2_see_the_same_requests_whatever_comes_over_http1() {
    let origins = Origin::all_http2("servers_of_http2_see_the_same_over_http1");
    attack_all(origins, cases(), attack).await;
}
