//! Rego decides: the OPA-Envoy input, the decisions, and what never gets as far as that.

use http::{Method, Request};
use serde_json::{Value, json};
use sidegate_tests::Sidegate;

use crate::support::{
    Client, Upstream, access_line, address, body, counter, folder, up_with_policy, write,
};

/// Denies everything and answers with what it was asked.
const MIRROR: &str = r#"
package envoy.authz
import rego.v1

http := input.attributes.request.http

allow := {
    "allowed": false,
    "http_status": 429,
    "headers": {
        "x-principal": input.attributes.source.principal,
        "x-destination": input.attributes.destination.principal,
        "x-method": http.method,
        "x-path": http.path,
        "x-host": http.host,
        "x-scheme": http.scheme,
        "x-protocol": http.protocol,
        "x-agent": http.headers["user-agent"],
        "x-parsed-path": concat("|", input.parsed_path),
        "x-parsed-query": concat("|", input.parsed_query.q),
    },
    "body": json.marshal(input),
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn policy_sees_the_request_and_both_identities_as_opa_envoy_shows_them() {
    let folder = folder();
    let sidegate = up_with_policy(&folder, MIRROR);
    let client = Client::demo(&sidegate);
    let path = "/orders/a%20b?q=1&q=x+y&empty=";
    let request = || {
        Request::builder()
            .method(Method::PUT)
            .header("user-agent", "mirror")
            .header("x-two", "one")
            .header("x-two", "two")
            .header(
                "x-forwarded-client-cert",
                "URI=spiffe://sidegate.local/king",
            )
    };
    let cases = [
        (client.send(request().uri(path), body("")).await, "HTTP/1.1"),
        (client.send_http2(request(), path).await, "HTTP/2"),
    ];

    for (answer, protocol) in cases {
        assert_eq!(answer.status, 429, "{answer:?}");
        for (name, expected) in [
            ("x-principal", "spiffe://sidegate.local/demo"),
            ("x-destination", "spiffe://sidegate.local/probe"),
            ("x-method", "PUT"),
            ("x-path", path),
            ("x-host", "localhost"),
            ("x-scheme", "https"),
            ("x-protocol", protocol),
            ("x-agent", "mirror"),
            ("x-parsed-path", "orders|a b"),
            ("x-parsed-query", "1|x y"),
        ] {
            assert_eq!(answer.header(name), expected, "{name} over {protocol}");
        }

        let input: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(input["source_principal"], "spiffe://sidegate.local/demo");
        assert_eq!(input["parsed_path"], json!(["orders", "a b"]));
        assert_eq!(
            input["parsed_query"],
            json!({"q": ["1", "x y"], "empty": [""]})
        );
        assert_eq!(input["version"]["ext_authz"], "v3");
        let http = &input["attributes"]["request"]["http"];
        assert_eq!(http["path"], path);
        assert_eq!(http["headers"]["x-two"], "one,two");
        let certificate = &http["headers"]["x-forwarded-client-cert"];
        assert!(!certificate.to_string().contains("king"), "{certificate}");
        assert_eq!(http["id"], answer.header("x-request-id"));
        let source = &input["attributes"]["source"]["address"]["socketAddress"];
        assert_eq!(source["address"], "127.0.0.1");
        assert!(source["portValue"].is_u64(), "{source}");
        let destination = &input["attributes"]["destination"]["address"]["socketAddress"];
        let port = address(&sidegate).rsplit_once(':').unwrap().1;
        assert_eq!(destination["portValue"].to_string(), port);
    }
}

/// One rule for each first segment of the path.
const DECISIONS: &str = r#"
package envoy.authz
import rego.v1

case := input.parsed_path[0]

allow if case == "true"
allow := false if case == "false"
allow := {"allowed": true} if case == "object"
allow := {"allowed": false} if case == "plain-denial"
allow := {
    "allowed": false,
    "http_status": 404,
    "headers": {"x-why": "because", "x-list": ["one", "two"]},
    "body": "go away",
} if case == "denial"
allow := {"allowed": false, "headers": [{"x-why": "one"}, {"x-other": "two"}]} if case == "header-list"

allow := "true" if case == "string"
allow := 1 if case == "number"
allow := null if case == "null"
allow := [true] if case == "array"
allow := {} if case == "empty-object"
allow := {"allowed": "true"} if case == "string-inside"
allow := {"allowed": null} if case == "null-inside"
allow := {"http_status": 200} if case == "status-only"
allow := {"allowed": true, "headers": "x-why: because"} if case == "headers-text"
allow := {"allowed": true, "headers": {"x why": "because"}} if case == "header-name"
allow := {"allowed": true, "headers": {"x-why": "a\nb"}} if case == "header-value"
allow := {"allowed": true, "headers": {"x-why": 1}} if case == "header-number"
allow := {"allowed": false, "http_status": "404"} if case == "status-text"
allow := {"allowed": false, "http_status": 99} if case == "status-low"
allow := {"allowed": false, "http_status": 1000} if case == "status-high"
allow := {"allowed": false, "http_status": 404.5} if case == "status-fraction"
allow := {"allowed": false, "body": 1} if case == "body-number"

allow if { case == "conflict" }
allow := false if { case == "conflict" }
allow if { case == "division"; 1 / to_number(input.parsed_path[1]) > 0 }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_decision_has_its_answer_and_whatever_is_no_decision_is_403() {
    let folder = folder();
    let sidegate = up_with_policy(&folder, DECISIONS);
    let client = Client::demo(&sidegate);

    // The probe answers 404 to paths that it does not know: so 200 and 404 are told apart by body.
    let reached = (404, "no such probe\n");
    let denied = (403, "");
    let cases = [
        ("true", reached),
        ("object", reached),
        ("false", denied),
        ("plain-denial", denied),
        ("denial", (404, "go away")),
        ("header-list", denied),
        ("undefined", denied),
        ("string", denied),
        ("number", denied),
        ("null", denied),
        ("array", denied),
        ("empty-object", denied),
        ("string-inside", denied),
        ("null-inside", denied),
        ("status-only", denied),
        ("headers-text", denied),
        ("header-name", denied),
        ("header-value", denied),
        ("header-number", denied),
        ("status-text", denied),
        ("status-low", denied),
        ("status-high", denied),
        ("status-fraction", denied),
        ("body-number", denied),
        ("conflict", denied),
        ("division/0", denied),
    ];
    let mut wrong = Vec::new();
    for (path, expected) in cases {
        let answer = client.get(&format!("/{path}")).await;
        let id = answer.header("x-request-id").to_owned();
        let verdict = access_line(&sidegate, &id)["verdict"].clone();
        let allowed = expected == reached;
        if (answer.status.as_u16(), answer.body.as_str()) != expected
            || verdict != if allowed { "allow" } else { "deny" }
        {
            wrong.push(format!("{path}: {verdict} {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let answer = client.get("/denial").await;
    assert_eq!(answer.header("x-why"), "because");
    let list: Vec<_> = answer.headers.get_all("x-list").iter().collect();
    assert_eq!(list, ["one", "two"]);
    let answer = client.get("/header-list").await;
    assert_eq!(answer.header("x-why"), "one");
    assert_eq!(answer.header("x-other"), "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowing_decision_edits_the_request_and_the_response() {
    let folder = folder();
    let sidegate = up_with_policy(
        &folder,
        r#"
package envoy.authz
import rego.v1

allow := {
    "allowed": true,
    "headers": {"x-tenant": "blue", "x-roles": ["reader", "writer"]},
    "request_headers_to_remove": ["x-secret"],
    "response_headers_to_add": {"x-decided": "yes"},
}
"#,
    );
    let client = Client::demo(&sidegate);
    let request = Request::get("/headers")
        .header("x-tenant", "forged")
        .header("x-secret", "word");
    let answer = client.send(request, body("")).await;
    assert_eq!(answer.status, 200);
    let lines: Vec<_> = answer.body.lines().collect();
    assert!(lines.contains(&"x-tenant: blue"), "{lines:?}");
    assert!(lines.contains(&"x-roles: reader"), "{lines:?}");
    assert!(lines.contains(&"x-roles: writer"), "{lines:?}");
    assert!(!answer.body.contains("forged"), "{lines:?}");
    assert!(!answer.body.contains("x-secret"), "{lines:?}");
    assert_eq!(answer.header("x-decided"), "yes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_can_be_read_in_two_ways_is_400_before_policy_and_upstream() {
    let folder = folder();
    let upstream = Upstream::start().await;
    let state = folder.path().join("state");
    let sidegate = Sidegate::up(&state, ["--upstream", &upstream.url]);
    let client = Client::demo(&sidegate);

    let paths = [
        "/a/../admin",
        "/a/..",
        "/./a",
        "/a/%2e%2e/admin",
        "/a/%2E%2e/admin",
        "/a/.%2e/admin",
        "/a/%2e/b",
        "//admin",
        "/a//b",
        "/a%2fb",
        "/a%2Fb",
        "/a;b",
        "/a;b=c/d",
        "/a%3bb",
        "/a\\b",
        "/a%5cb",
        "/a%5Cb",
        "/a%00",
        "/a%0d%0ab",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%252e%252e/%2e%2e/b",
    ];
    let mut wrong = Vec::new();
    for path in paths {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = client.exchange(head.as_bytes()).await;
        if !answer.starts_with("HTTP/1.1 400 ") {
            wrong.push(format!("{path} over HTTP/1.1: {answer}"));
        }
        // Not all of them fit into hyper's type.
        if format!("https://localhost{path}")
            .parse::<http::Uri>()
            .is_ok()
        {
            let answer = client.send_http2(Request::builder(), path).await;
            if answer.status != 400 {
                wrong.push(format!("{path} over HTTP/2: {answer:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(upstream.heads().len(), 0);
    let ingress = ["decision_point=\"ingress\""];
    let decisions = counter(&sidegate, "sidegate_authz_decisions_total", &ingress);
    assert!(decisions < 0.5, "{decisions} decisions");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_escape_that_has_one_meaning_is_passed_on_as_it_is() {
    let folder = folder();
    let upstream = Upstream::start().await;
    let state = folder.path().join("state");
    let sidegate = Sidegate::up(&state, ["--upstream", &upstream.url]);
    let client = Client::demo(&sidegate);

    let paths = [
        "/",
        "/a%20b",
        "/caf%C3%A9",
        "/a.b/..c/d..",
        "/a/",
        "/a?b=../c//d&e=%2f%3b",
        "/a%25",
        "/~a:b@c!$&'()*+,=",
    ];
    for path in paths {
        assert_eq!(client.get(path).await.status, 200, "{path}");
        let head = upstream.heads().pop().unwrap();
        assert_eq!(head.uri, path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_grpc_call_is_answered_in_grpc() {
    let folder = folder();
    let sidegate = up_with_policy(&folder, "package envoy.authz\ndefault allow := false\n");
    let client = Client::demo(&sidegate);

    for content_type in ["application/grpc", "application/grpc+proto"] {
        let request = Request::post("/").header("content-type", content_type);
        let answer = client.send_http2(request, "/shop.Orders/List").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("grpc-status"), "7");
        assert!(
            answer
                .header("content-type")
                .starts_with("application/grpc")
        );
        assert_eq!(answer.body, "");
        let line = access_line(&sidegate, answer.header("x-request-id"));
        assert_eq!(line["verdict"], "deny");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_call_whose_content_type_only_begins_like_grpc_is_403() {
    let folder = folder();
    let sidegate = up_with_policy(&folder, "package envoy.authz\ndefault allow := false\n");
    let client = Client::demo(&sidegate);
    for content_type in [
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpcx",
    ] {
        let request = Request::post("/").header("content-type", content_type);
        let answer = client.send_http2(request, "/shop.Orders/List").await;
        assert_eq!(answer.status, 403, "{content_type}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_a_directory_with_rego_and_data_and_tests_that_pass() {
    let folder = folder();
    write(
        folder.path(),
        "policy/deep/rules.rego",
        "package envoy.authz\nimport rego.v1\n\
         allow if input.source_principal in data.callers\n",
    );
    write(
        folder.path(),
        "policy/rules_test.rego",
        "package envoy.authz_test\nimport rego.v1\nimport data.envoy.authz\n\
         test_demo_is_allowed if authz.allow with input as \
         {\"source_principal\": \"spiffe://sidegate.local/demo\"}\n\
         test_others_are_not if not authz.allow with input as {\"source_principal\": \"x\"}\n",
    );
    write(
        folder.path(),
        "policy/data.json",
        r#"{"callers": ["spiffe://sidegate.local/demo"]}"#,
    );
    let policy = folder.path().join("policy");
    let sidegate = crate::support::up(&folder, &["--policy", policy.to_str().unwrap()]);
    let client = Client::demo(&sidegate);
    assert_eq!(client.get("/status/200").await.status, 200);
}
