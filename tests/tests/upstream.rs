//! What reaches whatever is behind the proxy, and what comes back.

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use sidegate_tests::Sidegate;

use crate::support::{Client, Upstream, access_line, body, folder, patiently, read, up};

/// `sidegate up` in front of a local server.
fn front(folder: &tempfile::TempDir, url: &str) -> Sidegate {
    Sidegate::up(&folder.path().join("state"), ["--upstream", url])
}

/// A request with headers that it may not pass on.
fn forged() -> http::request::Builder {
    Request::get("/headers")
        .header(
            "x-forwarded-client-cert",
            "URI=spiffe://sidegate.local/king",
        )
        .header("X-Forwarded-Client-Cert", "By=nobody")
        .header("x-request-id", "mine")
        .header("x-kept", "yes")
}

/// The same where there are hop-by-hop headers.
fn forged_http1() -> http::request::Builder {
    forged()
        .header("connection", "keep-alive, x-private")
        .header("x-private", "hop by hop")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "keep-alive")
        .header("te", "gzip")
        .header("upgrade", "h2c")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_sees_one_client_certificate_header_and_no_hop_by_hop_headers() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let client = Client::demo(&sidegate);
    let certificate = format!(
        "x-forwarded-client-cert: By=spiffe://sidegate.local/probe;Hash={};\
         URI=spiffe://sidegate.local/demo",
        client.identity.hash()
    );
    let answers = [
        client.send(forged_http1(), body("")).await,
        client.send_http2(forged(), "/headers").await,
    ];

    for answer in answers {
        assert_eq!(answer.status, 200);
        let lines: Vec<_> = answer.body.lines().collect();
        let named = |name: &str| {
            let name = format!("{name}: ");
            let mut lines = lines.iter().filter(|line| line.starts_with(&name));
            (lines.next().copied(), lines.count())
        };
        assert_eq!(
            named("x-forwarded-client-cert"),
            (Some(certificate.as_str()), 0)
        );
        assert_eq!(named("x-kept"), (Some("x-kept: yes"), 0));
        for name in [
            "x-private",
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "upgrade",
            "transfer-encoding",
        ] {
            assert_eq!(named(name), (None, 0));
        }
        let id = answer.header("x-request-id");
        assert_ne!(id, "mine");
        assert_eq!(
            named("x-request-id"),
            (Some(&*format!("x-request-id: {id}")), 0)
        );
        assert_eq!(access_line(&sidegate, id)["request_id"], id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_sees_the_same_and_its_own_hop_by_hop_headers_stay_with_it() {
    let folder = folder();
    let upstream = Upstream::start().await;
    let sidegate = front(&folder, &upstream.url);
    let client = Client::demo(&sidegate);
    let server = &sidegate.ready.listeners[0].spiffe_id;
    let answers = [
        client.send(forged_http1(), body("")).await,
        client.send_http2(forged(), "/headers").await,
    ];

    for (answer, head) in answers.into_iter().zip(upstream.heads()) {
        assert_eq!(answer.status, 200);
        let values = |name: &str| -> Vec<String> {
            let values = head.headers.get_all(name).iter();
            values
                .map(|value| value.to_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            values("x-forwarded-client-cert"),
            [format!(
                "By={server};Hash={};URI=spiffe://sidegate.local/demo",
                client.identity.hash()
            )]
        );
        assert_eq!(values("x-request-id"), [answer.header("x-request-id")]);
        assert_eq!(values("x-kept"), ["yes"]);
        assert_eq!(values("host"), ["localhost"]);
        for name in [
            "x-private",
            "keep-alive",
            "proxy-connection",
            "te",
            "upgrade",
        ] {
            assert_eq!(values(name), [""; 0], "{name}");
        }

        assert_eq!(answer.header("x-upstream"), "yes");
        for name in ["x-private", "connection"] {
            assert_eq!(answer.headers.get(name), None, "{name}");
        }
    }
}

/// Sends a chunk, reads it back, sends the next on the same request.
async fn converse(response: hyper::Response<hyper::body::Incoming>, mut chunks: Chunks) {
    let mut answer = response.into_body();
    for chunk in ["one", "two", "three"] {
        chunks.send_data(Bytes::from(chunk)).await.unwrap();
        let mut received = Vec::new();
        while received.len() < chunk.len() {
            let frame = patiently(answer.frame()).await.unwrap().unwrap();
            received.extend_from_slice(&frame.into_data().unwrap());
        }
        assert_eq!(received, chunk.as_bytes());
    }
    drop(chunks);
    let rest = patiently(answer.collect()).await.unwrap();
    assert!(rest.to_bytes().is_empty(), "it ends too");
}

type Chunks = http_body_util::channel::Sender<Bytes, std::convert::Infallible>;

/// Over both protocols: what is sent comes back while the request still runs.
async fn stream_both_ways(client: &Client) {
    let (chunks, channel) = Channel::new(1);
    let request = Request::post("/echo").header("host", "localhost");
    let mut connection = client.http1().await;
    let request = request.body(channel.boxed()).unwrap();
    let response = patiently(connection.send_request(request)).await.unwrap();
    converse(response, chunks).await;

    let (chunks, channel) = Channel::new(1);
    let request = Request::post("https://localhost/echo");
    let mut connection = client.http2().await;
    let request = request.body(channel.boxed()).unwrap();
    let response = patiently(connection.send_request(request)).await.unwrap();
    converse(response, chunks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways_through_a_component() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    stream_both_ways(&Client::demo(&sidegate)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways_through_a_server() {
    let folder = folder();
    let upstream = Upstream::start().await;
    let sidegate = front(&folder, &upstream.url);
    stream_both_ways(&Client::demo(&sidegate)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_comes_back_byte_for_byte() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let client = Client::demo(&sidegate);
    let large: String = (0..3_000_000_u32)
        .map(|number| char::from(b'a' + u8::try_from(number % 26).unwrap()))
        .collect();
    let answer = client
        .send(Request::post("/echo"), body(large.clone()))
        .await;
    assert!(answer.body == large, "{} bytes", answer.body.len());
    let answer = client.get("/large/3000000").await;
    assert_eq!(answer.body.len(), 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_and_used_again_on_both_sides() {
    let folder = folder();
    let upstream = Upstream::start().await;
    let sidegate = front(&folder, &upstream.url);
    let client = Client::demo(&sidegate);
    assert_eq!(upstream.connections(), 0, "nothing is opened in advance");

    let mut connection = client.http1().await;
    for _ in 0..5 {
        let request = Request::get("/").header("host", "localhost");
        patiently(connection.ready()).await.unwrap();
        let response = connection.send_request(request.body(body("")).unwrap());
        assert_eq!(read(patiently(response).await.unwrap()).await.status, 200);
    }
    assert_eq!(upstream.connections(), 1);
    let mut connection = client.http2().await;
    let answers = (0..5).map(|_| {
        let request = Request::get("https://localhost/").body(body("")).unwrap();
        tokio::spawn(connection.send_request(request))
    });
    for answer in answers.collect::<Vec<_>>() {
        let response = patiently(answer).await.unwrap().unwrap();
        assert_eq!(read(response).await.status, 200);
    }
    assert_eq!(upstream.heads().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_502() {
    let folder = folder();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let sidegate = front(&folder, &format!("http://{address}"));
    let client = Client::demo(&sidegate);

    let answer = client.get("/").await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.body, "");
    let line = access_line(&sidegate, answer.header("x-request-id"));
    assert_eq!(line["verdict"], "allow");
    assert_eq!(line["status"], 502);
    assert!(line["code"].as_str().unwrap().starts_with("SG03"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_request_never_reaches_the_upstream() {
    let folder = folder();
    let upstream = Upstream::start().await;
    let sidegate = front(&folder, &upstream.url);
    let client = Client::demo(&sidegate);
    for _ in 0..3 {
        assert_eq!(client.get("/admin").await.status, 403);
        let answer = client.send_http2(Request::builder(), "/admin").await;
        assert_eq!(answer.status, 403);
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(upstream.heads().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_lengths_reaches_the_upstream_as_one_request_or_not_at_all() {
    let folder = folder();
    let upstream = Upstream::start().await;
    let sidegate = front(&folder, &upstream.url);
    let client = Client::demo(&sidegate);
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let length = smuggled.len() + 5;
    let heads = [
        // What follows the last chunk is no request: the connection closes.
        format!("content-length: {length}\r\ntransfer-encoding: chunked"),
        format!("transfer-encoding: chunked\r\ncontent-length: {length}"),
        format!("content-length: 5\r\ncontent-length: {length}"),
        "transfer-encoding: chunked, identity".to_owned(),
        "transfer-encoding: xchunked".to_owned(),
        "transfer-encoding : chunked".to_owned(),
        "content-length: +5".to_owned(),
        "content-length: 0x5".to_owned(),
    ];
    for head in heads {
        let request =
            format!("POST / HTTP/1.1\r\nhost: localhost\r\n{head}\r\n\r\n0\r\n\r\n{smuggled}");
        let answer = client.exchange(request.as_bytes()).await;
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{head}: {answer}");
    }
    let seen = upstream.heads();
    assert!(seen.iter().all(|head| head.uri == "/"), "{seen:?}");
    assert!(seen.len() <= 2, "{seen:?}");
}
