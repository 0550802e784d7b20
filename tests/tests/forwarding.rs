//! `[listener.forward_client_cert]` and `trusted_hops`: what upstreams are told of who calls, and whose
//! word about others counts.

mod envoy;

use http::Request;
use serde_json::Value;
use sidegate_tests::Sidegate;
use tempfile::TempDir;

use crate::support::{
    Answer, Authority, Client, Configuration, Upstream, access_line, body, folder, leaf, write,
};

const XFCC: &str = "x-forwarded-client-cert";
const SHOP: &str = "spiffe://sidegate.local/shop";
const DEMO: &str = "spiffe://sidegate.local/demo";
const OTHER: &str = "spiffe://sidegate.local/other";

/// What the policy sees of some headers comes back in others. It denies those whom a king is said
/// to have sent.
const POLICY: &str = r#"package envoy.authz
import rego.v1
headers := input.attributes.request.http.headers
seen(name) := object.get(headers, name, "none")
default allow := false
allow := {"allowed": true, "response_headers_to_add": {
    "x-seen-cert": seen("x-forwarded-client-cert"),
    "x-seen-for": seen("x-forwarded-for"),
    "x-seen-proto": seen("x-forwarded-proto"),
    "x-seen-id": input.attributes.request.http.id,
}} if not contains(seen("x-forwarded-client-cert"), "king")
"#;

/// `sidegate run` in front of a server that remembers what it gets.
struct Front {
    sidegate: Sidegate,
    client: Client,
    upstream: Upstream,
    folder: TempDir,
}

impl Front {
    /// `lines` belong to the listener.
    async fn start(lines: &str) -> Self {
        let folder = folder();
        let upstream = Upstream::start().await;
        write(folder.path(), "policy/policy.rego", POLICY);
        let (sidegate, client) = Configuration::new()
            .listener(&format!(
                r#"
[[identity.entry]]
spiffe_id = "{SHOP}"
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
            folder,
        }
    }

    /// The client as somebody else.
    fn other(&self) -> Client {
        let authority = Authority::of(&self.folder.path().join("state"));
        self.client.with(authority.issue(&leaf(&[OTHER])))
    }

    /// The values of a header in the last request that the upstream got.
    fn told(&self, name: &str) -> Vec<String> {
        let heads = self.upstream.heads();
        let values = heads.last().unwrap().headers.get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    }

    fn line(&self, answer: &Answer) -> Value {
        access_line(&self.sidegate, answer.header("x-request-id"))
    }
}

/// What we say of a client.
fn ours(client: &Client, id: &str) -> String {
    format!("By={SHOP};Hash={};URI={id}", client.identity.hash())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_forwards_what_a_trusted_hop_sends_and_writes_what_we_know() {
    let sent = [
        "By=spiffe://a.test/edge;Hash=00;URI=spiffe://a.test/x",
        "Hash=01;Subject=\"CN=\\\"a\\\"\"",
    ];
    let came = sent.join(",");
    for (mode, forwards, writes) in [
        ("sanitize", false, false),
        ("forward_only", true, false),
        ("always_forward_only", true, false),
        ("append_forward", true, true),
        ("sanitize_set", false, true),
    ] {
        let front = Front::start(&format!(
            "trusted_hops = [\"{DEMO}\"]\nforward_client_cert = {{ mode = \"{mode}\" }}"
        ))
        .await;
        let other = front.other();
        for (client, id, is_trusted) in [(&front.client, DEMO, true), (&other, OTHER, false)] {
            let ours = ours(client, id);
            let mut expected = Vec::new();
            if forwards && is_trusted {
                expected.push(came.as_str());
            }
            if writes {
                expected.push(&ours);
            }
            let expected = expected.join(",");
            let request = || {
                let request = Request::get("/");
                request.header(XFCC, sent[0]).header(XFCC, sent[1])
            };
            for answer in [
                client.send(request(), body("")).await,
                client.send_http2(request(), "/").await,
            ] {
                assert_eq!(answer.status, 200, "{mode} {id}");
                let seen = match expected.as_str() {
                    "" => "none",
                    expected => expected,
                };
                assert_eq!(answer.header("x-seen-cert"), seen, "{mode} {id}");
                assert_eq!(front.told(XFCC).join("|"), expected, "{mode} {id}");
            }
        }
        // There is nothing to continue.
        front.client.get("/").await;
        let ours = ours(&front.client, DEMO);
        assert_eq!(
            front.told(XFCC),
            Vec::from_iter(writes.then_some(ours)),
            "{mode}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_decides_on_what_a_trusted_hop_tells_and_on_nobody_elses_word() {
    let front = Front::start(
        "trusted_hops = [\"spiffe://sidegate.local/demo\"]\nforward_client_cert = { mode = \"append_forward\" }",
    )
    .await;
    let kings = || Request::get("/").header(XFCC, "URI=spiffe://a.test/king");
    assert_eq!(front.client.send(kings(), body("")).await.status, 403);
    assert_eq!(front.other().send(kings(), body("")).await.status, 200);
    assert_eq!(front.upstream.heads().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_hops_word_that_is_malformed_is_400_and_the_upstream_sees_nothing() {
    let front = Front::start(
        "trusted_hops = [\"spiffe://sidegate.local/demo\"]\nforward_client_cert = { mode = \"append_forward\" }",
    )
    .await;
    let cases = [
        (XFCC, "URI=a;king", "without a key that Envoy writes"),
        (XFCC, "URI=a,", "without a pair"),
        (XFCC, "Subject=\"CN=a", "does not end"),
        (XFCC, "Hash=0;Hash=1", "is there again"),
        (XFCC, "URI=a\"b", "must stand in quotes"),
        ("x-forwarded-proto", "gopher", "x-forwarded-proto"),
        ("x-forwarded-proto", "http, https", "x-forwarded-proto"),
    ];
    let other = front.other();
    for (name, value, why) in cases {
        let request = || Request::get("/").header(name, value);
        for answer in [
            front.client.send(request(), body("")).await,
            front.client.send_http2(request(), "/").await,
        ] {
            assert_eq!(answer.status, 400, "{value}");
            let line = front.line(&answer);
            assert_eq!(line["code"], "SG0362", "{value}");
            assert_eq!(line["verdict"], "none", "{value}");
            let detail = line["detail"].as_str().unwrap();
            assert!(detail.contains(why), "{value}: {detail}");
        }
        let heads = front.upstream.heads().len();
        // Of somebody else, nothing is believed anyway.
        assert_eq!(other.send(request(), body("")).await.status, 200, "{value}");
        assert_eq!(front.upstream.heads().len(), heads + 1, "{value}");
    }
    assert_eq!(front.upstream.heads().len(), cases.len());

    let call = Request::post("/a.B/C")
        .header("content-type", "application/grpc")
        .header(XFCC, "king");
    let answer = front.client.send_http2(call, "/a.B/C").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("grpc-status")),
        (200, "13")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_hop_is_believed_where_a_request_came_from_and_others_are_not() {
    // Every workload of the trust domain.
    let front = Front::start("trusted_hops = [\"spiffe://sidegate.local\"]").await;
    let nobody = Front::start(
        "trusted_hops = [\"spiffe://other.example\", \"spiffe://sidegate.local/demo/x\"]",
    )
    .await;
    let told = [
        ("x-forwarded-for", "198.51.100.7, 10.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.example"),
        ("forwarded", "for=198.51.100.7"),
        ("x-envoy-external-address", "198.51.100.7"),
        ("x-envoy-internal", "true"),
        ("x-envoy-auth-partial-body", "true"),
        ("x_forwarded_for", "203.0.113.1"),
        ("x-request-id", "from-the-edge/1"),
        // A client of the hop may have had this passed on.
        ("connection", "x-forwarded-for, x-request-id"),
    ];
    let request = || {
        let request = Request::get("/");
        told.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        })
    };
    let answer = front.client.send(request(), body("")).await;
    assert_eq!(answer.status, 200);
    for (name, expected) in [
        ("x-forwarded-for", Some("198.51.100.7, 10.0.0.1,127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("shop.example")),
        ("forwarded", Some("for=198.51.100.7")),
        ("x-envoy-external-address", Some("198.51.100.7")),
        ("x-envoy-internal", None),
        ("x-envoy-auth-partial-body", None),
        ("x_forwarded_for", None),
        ("x-request-id", Some("from-the-edge/1")),
    ] {
        assert_eq!(front.told(name), Vec::from_iter(expected), "{name}");
    }
    assert_eq!(
        answer.header("x-seen-for"),
        "198.51.100.7, 10.0.0.1,127.0.0.1"
    );
    assert_eq!(answer.header("x-seen-proto"), "http");
    assert_eq!(answer.header("x-seen-id"), "from-the-edge/1");
    assert_eq!(answer.header("x-request-id"), "from-the-edge/1");
    assert_eq!(front.line(&answer)["request_id"], "from-the-edge/1");
    // Its own element stays ours alone.
    assert_eq!(front.told(XFCC), [ours(&front.client, DEMO)]);

    let answer = nobody.client.send(request(), body("")).await;
    assert_eq!(answer.status, 200);
    for (name, expected) in [
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("https")),
        ("x-forwarded-host", None),
        ("forwarded", None),
        ("x-envoy-external-address", None),
        ("x-envoy-internal", None),
        ("x_forwarded_for", None),
        ("x-request-id", Some(answer.header("x-request-id"))),
    ] {
        assert_eq!(nobody.told(name), Vec::from_iter(expected), "{name}");
    }
    assert_ne!(answer.header("x-request-id"), "from-the-edge/1");
}
