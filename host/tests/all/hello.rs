//! The example component.

use http::{Method, StatusCode};

use crate::support::{ask, get, hello, text};

#[tokio::test]
async fn the_example_greets_with_the_path() {
    let expected = "Hello from a component, /a/b?c=d\n";
    assert_eq!(
        text(&hello(), "/a/b?c=d").await,
        (StatusCode::OK, expected.to_owned())
    );
}

#[tokio::test]
async fn the_example_names_the_caller_that_the_proxy_vouches_for() {
    let table = [
        ("URI=spiffe://a.test/web", Some("spiffe://a.test/web")),
        (
            "By=spiffe://a.test/me;Hash=00;URI=spiffe://a.test/web",
            Some("spiffe://a.test/web"),
        ),
        (
            "URI=spiffe://far.test/x,Hash=11;URI=spiffe://a.test/near",
            Some("spiffe://a.test/near"),
        ),
        ("URI=spiffe://far.test/x, Hash=11", None),
        (r#"Subject="CN=x;URI=spiffe://forged.test/x";Hash=00"#, None),
        (
            r#"Subject="CN=\";URI=spiffe://forged.test/x\"";Hash=00"#,
            None,
        ),
        (
            r#"Subject="CN=a,b";URI=spiffe://a.test/web"#,
            Some("spiffe://a.test/web"),
        ),
        ("Hash=00", None),
    ];
    for (header, expected) in table {
        let mut request = get("/");
        request
            .headers_mut()
            .insert("x-forwarded-client-cert", header.parse().unwrap());
        let response = ask(&hello(), request).await.unwrap();
        let body = http_body_util::BodyExt::collect(response.into_body())
            .await
            .unwrap();
        let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
        let id = body.lines().find_map(|line| line.strip_prefix("You are "));
        assert_eq!(id, expected, "{header}");
    }
}

#[tokio::test]
async fn the_example_answers_only_gets() {
    let mut request = get("/");
    *request.method_mut() = Method::DELETE;
    let response = ask(&hello(), request).await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}
