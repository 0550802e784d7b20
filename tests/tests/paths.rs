//! `[listener.path]`: a path is normalized once, and whoever looks at it sees the same bytes.

use http::Request;
use sidegate_tests::Sidegate;
use tempfile::TempDir;

use crate::hostile::origin::Origin;
use crate::support::{Client, Configuration, access_line, folder, write};

/// What the policy sees comes back in headers of the response.
const POLICY: &str = r#"package envoy.authz
import rego.v1
seen := input.attributes.request.http.path
place := object.get(input.attributes.contextExtensions, "place", "elsewhere")
default allow := {"allowed": false, "http_status": 403}
allow := {"allowed": true, "response_headers_to_add": {
    "x-path": seen,
    "x-segments": concat("|", input.parsed_path),
    "x-place": place,
}} if not startswith(seen, "/denied")
"#;

/// `sidegate run` in front of an origin that records what it gets.
struct Front {
    sidegate: Sidegate,
    client: Client,
    origin: Origin,
    _folder: TempDir,
}

/// An answer, as text.
struct Answer(String);

impl Front {
    /// `rules` are those of `[listener.path]`.
    async fn start(rules: &str) -> Self {
        let folder = folder();
        write(folder.path(), "policy/policy.rego", POLICY);
        let origin = Origin::start().await;
        let (sidegate, client) = Configuration::new()
            .listener(&format!(
                r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/shop"
selectors = ["listener:name:main"]
dns_names = ["localhost"]

[policy]
path = "policy"
timeout = "5s"

[[listener]]
name = "main"
listen = "127.0.0.1:0"
upstream = "{url}"
path = {{ {rules} }}
[[listener.route]]
path_prefix = "/admin"
upstream = "{url}"
context_extensions = {{ place = "admin" }}
"#,
                url = origin.url
            ))
            .start(folder.path());
        Self {
            sidegate,
            client,
            origin,
            _folder: folder,
        }
    }

    /// Sends a target as it is.
    async fn ask(&self, method: &str, target: &str) -> Answer {
        let request =
            format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        Answer(self.client.exchange(request.as_bytes()).await)
    }

    /// The targets that the origin got, byte by byte.
    fn targets(&self) -> Vec<String> {
        let received = self.origin.received();
        let lines = received.iter().filter_map(|request| request.lines().next());
        lines
            .filter_map(|line| {
                Some(
                    line.strip_prefix("GET ")?
                        .strip_suffix(" HTTP/1.1")?
                        .to_owned(),
                )
            })
            .collect()
    }

    /// The path in the access log of an answer.
    fn logged(&self, answer: &Answer) -> String {
        let line = access_line(&self.sidegate, answer.header("x-request-id"));
        line["path"].as_str().unwrap().to_owned()
    }

    /// Sends targets, each with what it becomes, its segments to the policy and the route.
    async fn check(&self, cases: &[(&str, &str, &str, &str)]) {
        for (target, becomes, segments, place) in cases {
            let before = self.targets().len();
            let answer = self.ask("GET", target).await;
            assert_eq!(answer.status(), 200, "{target}: {}", answer.0);
            assert_eq!(self.targets().split_off(before), [*becomes], "{target}");
            assert_eq!(answer.header("x-path"), *becomes, "{target}");
            assert_eq!(answer.header("x-segments"), *segments, "{target}");
            assert_eq!(answer.header("x-place"), *place, "{target}");
            let (path, _) = becomes.split_once('?').unwrap_or((becomes, ""));
            assert_eq!(self.logged(&answer), path, "{target}");
        }
    }

    /// Sends targets, each of which is refused for this reason.
    async fn check_refused(&self, cases: &[(&str, &str)]) {
        let before = self.targets().len();
        for (target, why) in cases {
            let answer = self.ask("GET", target).await;
            assert_eq!(answer.status(), 400, "{target}: {}", answer.0);
            let line = access_line(&self.sidegate, answer.header("x-request-id"));
            assert_eq!(line["code"], "SG0310", "{target}");
            assert_eq!(line["verdict"], "none", "{target}");
            let detail = line["detail"].as_str().unwrap();
            assert!(detail.contains(why), "{target}: {detail}");
        }
        assert_eq!(self.targets().len(), before);
    }
}

impl Answer {
    fn status(&self) -> u16 {
        self.0.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> &str {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| *found == name).unwrap().1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rules_what_is_ambiguous_is_refused_and_the_rest_passes_as_it_came() {
    let front = Front::start("").await;
    front
        .check(&[
            (
                "/a/%62/%c3%a9?x=/../%2f",
                "/a/%62/%c3%a9?x=/../%2f",
                "a|b|é",
                "elsewhere",
            ),
            ("/%61dmin", "/%61dmin", "admin", "elsewhere"),
            ("/admin/x", "/admin/x", "admin|x", "admin"),
            ("http://localhost/a?b", "/a?b", "a", "elsewhere"),
        ])
        .await;
    front
        .check_refused(&[
            ("/a/../admin", "dot segment"),
            ("/a/%2e%2E/admin", "dot segment"),
            ("/a//b", "empty segment"),
            ("//admin", "empty segment"),
            ("/a;b", "semicolon"),
            ("/a%3bb", "semicolon"),
            ("/a%2Fb", "escaped slash"),
            ("/a%5cb", "escaped slash"),
            ("/a\\b", "backslash"),
            ("/a%zz", "hex digits"),
            ("/a%00", "control character"),
            ("*", "slash"),
        ])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_rewritten_once_and_routed_decided_forwarded_and_logged_as_that() {
    let front = Front::start(
        r#"escaped_slashes = "decode", dot_segments = "resolve", double_slashes = "merge", semicolons = "keep", backslashes = "to_slash""#,
    )
    .await;
    front
        .check(&[
            ("/a/../admin", "/admin", "admin", "admin"),
            ("/a%2F..%5C..\\admin//%2fx", "/admin/x", "admin|x", "admin"),
            ("/%61dm%69n/%2E", "/admin/", "admin|", "admin"),
            ("//admin", "/admin", "admin", "admin"),
            (
                "/../../admin?x=%2e%2E/../",
                "/admin?x=%2e%2E/../",
                "admin",
                "admin",
            ),
            ("/a/..", "/", "", "elsewhere"),
            ("/%c3%a9;v=%3b1", "/%C3%A9;v=%3B1", "é;v=;1", "elsewhere"),
            // Unescaped once, this is still no dot segment.
            (
                "/x/%252e%252e/admin",
                "/x/%252e%252e/admin",
                "x|%2e%2e|admin",
                "elsewhere",
            ),
            ("http://localhost/a/../admin", "/admin", "admin", "admin"),
        ])
        .await;
    for target in [
        "/denied",
        "/x/../denied",
        "/x%2f..%5c%64enied",
        "//denied/x",
        "/./denied",
    ] {
        let answer = front.ask("GET", target).await;
        assert_eq!(answer.status(), 403, "{target}");
    }
    front
        .check_refused(&[
            (
                "/a/..;/admin",
                "behind an escaped slash or before a semicolon",
            ),
            ("/a/.%3Bx", "behind an escaped slash or before a semicolon"),
            ("/a%", "hex digits"),
            ("/a%0a", "control character"),
        ])
        .await;

    // Over HTTP/2 it is no different.
    let before = front.targets().len();
    let target = "/a%2f..//%61dmin/?x=//";
    let answer = front.client.send_http2(Request::builder(), target).await;
    assert_eq!(answer.header("x-path"), "/admin/?x=//");
    assert_eq!(answer.header("x-place"), "admin");
    assert_eq!(front.targets().split_off(before), ["/admin/?x=//"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_reaches_the_upstream_byte_by_byte() {
    let front =
        Front::start(r#"escaped_slashes = "keep", double_slashes = "keep", semicolons = "keep""#)
            .await;
    front
        .check(&[
            ("/a%2fb/%5C", "/a%2fb/%5C", "a|b|\\", "elsewhere"),
            ("/a%2Fb?x", "/a%2Fb?x", "a|b", "elsewhere"),
            ("/admin%2fx", "/admin%2fx", "admin|x", "elsewhere"),
            ("/a//b//", "/a//b//", "a||b||", "elsewhere"),
            ("/admin//x", "/admin//x", "admin||x", "admin"),
            ("/a;b=c/%3bd;", "/a;b=c/%3bd;", "a;b=c|;d;", "elsewhere"),
        ])
        .await;
    front
        .check_refused(&[
            ("/a/..%2fadmin", "behind an escaped slash"),
            ("/a%2f%2e%2e%5cadmin", "behind an escaped slash"),
            ("/a/..;x/admin", "before a semicolon"),
            ("/a/../admin", "dot segment"),
            ("/a\\b", "backslash"),
        ])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_stands_for_itself() {
    for (rule, passes, becomes, refused, why) in [
        (
            r#"escaped_slashes = "decode""#,
            "/a%2Fb",
            "/a/b",
            "/a%5Cb",
            "a backslash",
        ),
        (
            r#"dot_segments = "resolve""#,
            "/a/./%2e%2e/b",
            "/b",
            "/a//b",
            "empty segment",
        ),
        (
            r#"double_slashes = "merge""#,
            "//a///b/",
            "/a/b/",
            "/a/../b",
            "dot segment",
        ),
        (
            r#"backslashes = "to_slash""#,
            "/a\\b",
            "/a/b",
            "/a\\\\b",
            "empty segment",
        ),
        (
            r#"semicolons = "keep""#,
            "/a;%3b",
            "/a;%3b",
            "/a%2Fb",
            "escaped slash",
        ),
    ] {
        let front = Front::start(rule).await;
        let answer = front.ask("GET", passes).await;
        assert_eq!(answer.status(), 200, "{rule}: {}", answer.0);
        assert_eq!(front.targets(), [becomes], "{rule}");
        assert_eq!(answer.header("x-path"), becomes, "{rule}");
        front.check_refused(&[(refused, why)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_about_the_server_as_a_whole_is_refused_as_not_offered() {
    let front = Front::start("").await;
    let answer = front.ask("OPTIONS", "*").await;
    assert_eq!(answer.status(), 501);
    let line = access_line(&front.sidegate, answer.header("x-request-id"));
    assert_eq!(line["code"], "SG0310");
    assert_eq!(line["path"], "*");
    let detail = line["detail"].as_str().unwrap();
    assert!(
        detail.contains("OPTIONS of the server as a whole"),
        "{detail}"
    );
    assert_eq!(front.origin.requests(), 0);
    assert_eq!(front.ask("OPTIONS", "/a").await.status(), 200);
}
