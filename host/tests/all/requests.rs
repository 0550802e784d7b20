//! What a component sees and sends when all goes well.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::support::{Logged, ask, chunk, get, probe, streamed, text};

#[tokio::test]
async fn bodies_stream_in_both_directions_with_their_trailers() {
    let (frames, body) = streamed();
    let request = Request::post("http://component.test/echo")
        .header("content-type", "application/x-test")
        .body(body)
        .unwrap();
    let mut response = probe().service().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-test");

    for piece in ["first", "second"] {
        frames
            .send(Ok(Frame::data(Bytes::from(piece))))
            .await
            .unwrap();
        assert_eq!(chunk(response.body_mut()).await.unwrap().unwrap(), piece);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-check", HeaderValue::from_static("sum"));
    frames
        .send(Ok(Frame::trailers(trailers.clone())))
        .await
        .unwrap();
    drop(frames);
    let last = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap(), trailers);
    assert!(response.body_mut().frame().await.is_none());
}

#[tokio::test]
async fn a_component_sees_the_request_without_the_connection_s_headers() {
    let mut request = get("/headers?x=1");
    request
        .headers_mut()
        .insert("x-one", HeaderValue::from_static("1"));
    request
        .headers_mut()
        .insert("connection", HeaderValue::from_static("close"));
    request
        .headers_mut()
        .insert("host", HeaderValue::from_static("other.test"));
    *request.uri_mut() = "https://component.test/headers".parse().unwrap();
    let body = ask(&probe(), request)
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    let expected = "method: Method::Get\nscheme: Some(Scheme::Https)\n\
                    authority: component.test\nx-one: 1\n";
    assert_eq!(body.to_bytes(), expected);
}

#[tokio::test]
async fn the_authority_comes_from_the_host_header_where_the_target_has_none() {
    let mut request = get("/");
    *request.uri_mut() = "/headers".parse().unwrap();
    request
        .headers_mut()
        .insert("host", HeaderValue::from_static("by-header.test"));
    let body = ask(&probe(), request)
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    assert!(
        text.contains("scheme: Some(Scheme::Http)\nauthority: by-header.test\n"),
        "{text}"
    );
}

#[tokio::test]
async fn every_status_is_passed_on() {
    for status in [200, 204, 304, 404, 503, 599] {
        assert_eq!(
            text(&probe(), &format!("/status/{status}"))
                .await
                .0
                .as_u16(),
            status
        );
    }
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let mut body = ask(&probe(), get("/large/3000001"))
        .await
        .unwrap()
        .into_body();
    let mut length = 0;
    while let Some(piece) = chunk(&mut body).await {
        length += piece.unwrap().len();
    }
    assert_eq!(length, 3_000_001);
}

#[tokio::test]
async fn the_answer_to_a_head_request_is_its_head() {
    let mut request = get("/bodiless");
    *request.method_mut() = Method::HEAD;
    let response = ask(&probe(), request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-length"], "10");
    assert!(response.body().is_end_stream());
}

#[tokio::test]
async fn nothing_of_the_machine_is_granted() {
    let nothing = "variables: 0\narguments: 0\npreopens: 0\ntcp: Err(\"access-denied\")\n";
    assert_eq!(text(&probe(), "/environment").await.1, nothing);
}

#[tokio::test]
async fn an_outgoing_request_is_denied() {
    assert_eq!(
        text(&probe(), "/outbound").await.1,
        "Err(ErrorCode::HttpRequestDenied)\n"
    );
}

#[tokio::test]
async fn what_a_component_writes_to_stderr_is_a_log_line_with_its_name() {
    let logged = Logged::start();
    assert_eq!(
        text(&probe(), "/log/disk%20almost%20full").await.1,
        "logged\n"
    );
    let expected = "WARN component: disk%20almost%20full component=\"probe\"\n";
    assert!(logged.text().contains(expected), "{}", logged.text());
}
