//! The contract of OPA's Envoy plugin, key by key: what a policy is shown, and what becomes of its
//! answer at the client and at the upstream.

mod bodies;
mod limits;

use http::Request;
use serde_json::{Value, json};
use sidegate_tests::Sidegate;
use tempfile::TempDir;

use crate::support::{Client, Configuration, Upstream, access_line, body, folder, write};

/// `sidegate run` in front of a server, deciding by one Rego file.
struct Front {
    sidegate: Sidegate,
    client: Client,
    upstream: Upstream,
    _folder: TempDir,
}

impl Front {
    /// `rules` are those of the package `envoy.authz`; `lines` belong to the listener.
    async fn start(rules: &str, lines: &str) -> Self {
        let folder = folder();
        let upstream = Upstream::start().await;
        write(
            folder.path(),
            "policy/policy.rego",
            format!("package envoy.authz\nimport rego.v1\n{rules}\n"),
        );
        let (sidegate, client) = Configuration::new()
            .listener(&format!(
                r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/orders"
selectors = ["listener:name:main"]
dns_names = ["localhost"]

[policy]
path = "policy"
timeout = "5s"

[[listener]]
name = "main"
listen = "127.0.0.1:0"
upstream = "{}"
{lines}
"#,
                upstream.url
            ))
            .start(folder.path());
        Self {
            sidegate,
            client,
            upstream,
            _folder: folder,
        }
    }

    /// What the access log says of an answer.
    fn line(&self, answer: &crate::support::Answer) -> Value {
        access_line(&self.sidegate, answer.header("x-request-id"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_an_allowing_decision_has_its_effect() {
    let front = Front::start(
        r#"
allow := {
    "allowed": true,
    "headers": [{"x-tenant": "blue"}, {"x-roles": ["reader", "writer"]}],
    "request_headers_to_remove": ["x-secret"],
    "response_headers_to_add": {"x-decided": ["yes", "indeed"], "x-upstream": "added"},
    "query_parameters_to_set": {"role": ["king", "guest"], "name": "J%C3%BCrgen+R"},
    "query_parameters_to_remove": ["debug"],
    "dynamic_metadata": {"tier": "gold", "limits": {"rps": 10}},
    "http_status": 404,
    "body": "only for denials",
    "reason": "a key of our own",
}
"#,
        "",
    )
    .await;
    let path = "/orders?q=%2F&role=admin&de%62ug=1&debug=2&%72ole=root";
    let request = || {
        Request::get(path)
            .header("x-tenant", "forged")
            .header("x-secret", "word")
    };
    let answers = [
        front.client.send(request(), body("")).await,
        front.client.send_http2(request(), path).await,
    ];
    for (answer, head) in answers.iter().zip(front.upstream.heads()) {
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, ""));
        let decided: Vec<_> = answer.headers.get_all("x-decided").iter().collect();
        assert_eq!(decided, ["yes", "indeed"]);
        let upstreams: Vec<_> = answer.headers.get_all("x-upstream").iter().collect();
        assert_eq!(upstreams, ["yes", "added"]);

        assert_eq!(head.uri, "/orders?q=%2F&name=J%C3%BCrgen+R&role=guest");
        assert_eq!(head.headers["x-tenant"], "blue");
        let roles: Vec<_> = head.headers.get_all("x-roles").iter().collect();
        assert_eq!(roles, ["reader", "writer"]);
        assert!(!head.headers.contains_key("x-secret"));

        let line = front.line(answer);
        assert_eq!(line["verdict"], "allow");
        let metadata = json!({"tier": "gold", "limits": {"rps": 10}});
        assert_eq!(line["dynamic_metadata"], metadata);
        assert_eq!(line["path"], "/orders");
    }
    assert_eq!(front.upstream.heads().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_a_denying_decision_has_its_effect() {
    let front = Front::start(
        r#"
allow := {
    "allowed": false,
    "http_status": 429,
    "headers": [{"set-cookie": "a=1"}, {"set-cookie": "b=2"}, {"x-why": "because"}],
    "body": "slowly",
    "dynamic_metadata": {"bucket": "empty"},
    "request_headers_to_remove": ["x-secret"],
    "response_headers_to_add": {"x-decided": "yes"},
    "query_parameters_to_set": {"a": "b"},
    "query_parameters_to_remove": ["c"],
}
"#,
        "",
    )
    .await;
    for answer in [
        front.client.get("/").await,
        front.client.send_http2(Request::builder(), "/").await,
    ] {
        assert_eq!(answer.status, 429);
        assert_eq!(answer.body, "slowly");
        assert_eq!(answer.header("x-why"), "because");
        let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert!(!answer.headers.contains_key("x-decided"));
        let line = front.line(&answer);
        assert_eq!(line["verdict"], "deny");
        assert_eq!(line["dynamic_metadata"], json!({"bucket": "empty"}));
    }
    assert_eq!(front.upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_would_not_stay_what_it_is_called_is_a_denial() {
    let front = Front::start(
        r#"
value := {"space": "a b", "two": "a&admin=1", "fragment": "a#b", "escape": "%zz"}[input.parsed_path[0]]
allow := {"allowed": true, "query_parameters_to_set": {"q": value}}
"#,
        "",
    )
    .await;
    for case in ["space", "two", "fragment", "escape"] {
        let answer = front.client.get(&format!("/{case}")).await;
        assert_eq!(answer.status, 403, "{case}");
        assert_eq!(front.line(&answer)["code"], "SG0224", "{case}");
    }
    assert_eq!(front.upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_sees_the_context_extensions_of_the_listener() {
    let front = Front::start(
        r#"
allow if {
    input.attributes.contextExtensions == {"listener": "main", "tier": "gold", "zone": "a b"}
}
"#,
        "context_extensions = { tier = \"gold\", zone = \"a b\" }",
    )
    .await;
    let answer = front.client.get("/").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_utf_8_is_refused_and_duplicate_headers_are_one() {
    let front = Front::start(
        r#"
allow if input.attributes.request.http.headers["x-two"] == "one,two"
"#,
        "",
    )
    .await;
    let request = Request::get("/")
        .header("x-two", "one")
        .header("x-two", "two");
    let answer = front.client.send(request, body("")).await;
    assert_eq!(answer.status, 200);
    let head = front.upstream.heads().pop().unwrap();
    let both: Vec<_> = head.headers.get_all("x-two").iter().collect();
    assert_eq!(both, ["one", "two"], "they are forwarded as they came");

    for (head, code) in [
        (
            &b"GET /caf%e9 HTTP/1.1\r\nhost: localhost\r\n"[..],
            "SG0225",
        ),
        (b"GET /?q=%ff HTTP/1.1\r\nhost: localhost\r\n", "SG0225"),
        (b"GET /?a=1;b=2 HTTP/1.1\r\nhost: localhost\r\n", "SG0225"),
        (
            b"GET / HTTP/1.1\r\nhost: localhost\r\nx-two: J\xfcrgen\r\n",
            "SG0225",
        ),
    ] {
        let text = String::from_utf8_lossy(head).into_owned();
        let request = [head, b"connection: close\r\n\r\n"].concat();
        let answer = front.client.exchange(&request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{text}: {answer}");
        let id = answer
            .lines()
            .find_map(|line| line.strip_prefix("x-request-id: "));
        let line = access_line(&front.sidegate, id.unwrap());
        assert_eq!(line["code"], code, "{text}");
    }
    assert_eq!(front.upstream.heads().len(), 1);
}
