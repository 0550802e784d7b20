//! Where requests go, and how those are spoken to who are there.

use std::path::Path;
use std::process::Command;

use http::Request;
use serde_json::{Value, json};
use sidegate_tests::{Running, Sidegate, Tool, root, skip, tool, until};

use crate::support::{Configuration, Upstream, body, folder, write};

/// Allows all but one service, and tells the route that was taken.
const POLICY: &str = r#"package envoy.authz

allow := {"allowed": true, "response_headers_to_add": {"x-route": route}} if not is_secret

is_secret if startswith(input.attributes.request.http.path, "/secret.")

default route := "none"

route := input.attributes.contextExtensions.route
"#;

/// grpcio, which listens without TLS.
pub(crate) struct Grpc {
    _server: Running,
    pub(crate) port: u64,
}

impl Grpc {
    /// `None` where there is no grpcio.
    pub(crate) fn serve(test: &str) -> Option<Self> {
        let Some(mut command) = peer("serve") else {
            skip(test, Tool::Python);
            return None;
        };
        let mut server = Running::start(&mut command);
        let port = server.json_line()["port"].as_u64().expect("a port");
        Some(Self {
            _server: server,
            port,
        })
    }
}

pub(crate) fn peer(mode: &str) -> Option<Command> {
    let mut command = Command::new(tool(Tool::Python)?);
    command
        .arg(root().join("tests/peers/grpc_echo.py"))
        .arg(mode);
    Some(command)
}

/// What becomes of calls, each with its method, messages and timeout in seconds.
fn call(address: &str, folder: &Path, calls: &Value) -> Vec<Value> {
    let mut command = peer("call").expect("it served before");
    command.arg(address).arg(folder.join("demo"));
    let output = crate::support::finish(command.arg(calls.to_string()));
    assert!(output.status.success(), "{}", output.stderr);
    serde_json::from_str(&output.stdout).expect("it is JSON")
}

fn configuration(folder: &Path, listener: &str) -> Configuration {
    write(folder, "policy.rego", POLICY);
    let listener = format!("[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\n{listener}");
    let entry = r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/main"
selectors = ["listener:name:main"]
dns_names = ["localhost"]
"#;
    let mut configuration = Configuration::new()
        .listener(&listener)
        .rest("[policy]\npath = \"policy.rego\"\n");
    configuration.entries.push_str(entry);
    configuration
}

#[test]
fn grpc_is_carried_to_a_server_without_tls_and_back_with_its_trailers() {
    let Some(server) = Grpc::serve("grpc_is_carried_to_a_server_without_tls") else {
        return;
    };
    let folder = folder();
    let listener = format!("upstream = \"h2c://127.0.0.1:{}\"\n", server.port);
    let (sidegate, _) = configuration(folder.path(), &listener).start(folder.path());
    let address = crate::support::address(&sidegate);
    let large = "x".repeat(100_000);
    let calls = json!([
        ["/test.Echo/Unary", ["hello"], 30],
        ["/test.Echo/Unary", [large], 30],
        ["/test.Echo/Stream", ["a", "b", "c"], 30],
        ["/test.Echo/Stream", [], 30],
        ["/test.Echo/Fail", ["9"], 30],
        ["/test.Echo/None", ["x"], 30],
    ]);
    let expected = [
        json!({"code": 0, "details": "", "answers": ["hello"], "trailers": ["sent"]}),
        json!({"code": 0, "details": "", "answers": [large], "trailers": ["sent"]}),
        json!({"code": 0, "details": "", "answers": ["a", "b", "c"], "trailers": ["sent"]}),
        json!({"code": 0, "details": "", "answers": [], "trailers": ["sent"]}),
        json!({"code": 9, "details": "as asked", "answers": [], "trailers": ["sent"]}),
        json!({"code": 12, "details": "Method not found!", "answers": [], "trailers": []}),
    ];
    let found = call(address, folder.path(), &calls);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
}

#[test]
fn what_is_answered_here_has_the_code_that_a_grpc_client_expects() {
    let Some(server) = Grpc::serve("what_is_answered_here_has_the_code") else {
        return;
    };
    let folder = folder();
    let listener = format!(
        r#"
[[listener.route]]
path_prefix = "/test.Echo"
upstream = "h2c://127.0.0.1:{}"
request_timeout = "1s"

[[listener.route]]
path_prefix = "/down.Echo"
upstream = "h2c://127.0.0.1:1"

[[listener.route]]
path_prefix = "/secret.Echo"
upstream = "h2c://127.0.0.1:{0}"
"#,
        server.port
    );
    let (sidegate, _) = configuration(folder.path(), &listener).start(folder.path());
    let calls = json!([
        ["/secret.Echo/Unary", ["x"], 30],
        ["/down.Echo/Unary", ["x"], 30],
        ["/test.Echo/Wait", ["x"], 30],
        ["/no.Route/Unary", ["x"], 30],
        ["/test.Echo/Unary", ["x"], 30],
    ]);
    let found = call(crate::support::address(&sidegate), folder.path(), &calls);
    let codes: Vec<&Value> = found.iter().map(|it| &it["code"]).collect();
    // PERMISSION_DENIED, UNAVAILABLE, DEADLINE_EXCEEDED, UNIMPLEMENTED.
    assert_eq!(codes, [7, 14, 4, 12, 0]);
}

#[test]
fn what_is_over_a_limit_or_ambiguous_has_the_code_that_a_grpc_client_expects() {
    let Some(server) = Grpc::serve("what_is_over_a_limit_or_ambiguous_has_the_code") else {
        return;
    };
    let folder = folder();
    let listener = format!(
        "upstream = \"h2c://127.0.0.1:{}\"\ntrusted_hops = [\"spiffe://sidegate.local/demo\"]\n\
         limits = {{ max_uri_bytes = \"100B\", max_headers = 30, max_header_bytes = \"4KiB\" }}\n",
        server.port
    );
    let (sidegate, _) = configuration(folder.path(), &listener).start(folder.path());
    let long = format!("/test.Echo/{}/Stream", "x".repeat(100));
    let many: Vec<_> = (0..40)
        .map(|number| [format!("x-{number}"), String::new()])
        .collect();
    let large = "x".repeat(5000);
    let calls = [
        // RESOURCE_EXHAUSTED.
        (json!([long, ["x"], 30]), 8, "SG0355"),
        (json!(["/test.Echo/Unary", ["x"], 30, many]), 8, "SG0356"),
        (
            json!(["/test.Echo/Unary", ["x"], 30, [["x-large", large]]]),
            8,
            "SG0356",
        ),
        // INTERNAL.
        (json!(["/test.Echo//Unary", ["x"], 30]), 13, "SG0310"),
        (json!(["/test.Echo/%2FStream", ["x"], 30]), 13, "SG0310"),
        (
            json!([
                "/test.Echo/Unary",
                ["x"],
                30,
                [["x-forwarded-proto", "gopher"]]
            ]),
            13,
            "SG0362",
        ),
        (json!(["/test.Echo/Unary", ["x"], 30]), 0, ""),
    ];
    let asked: Value = calls.iter().map(|(call, ..)| call.clone()).collect();
    let address = crate::support::address(&sidegate);
    let found = call(address, folder.path(), &asked);
    // None of them was refused by the client itself.
    let lines = access_lines(&sidegate, calls.len());
    assert_eq!(found.len(), calls.len());
    for (place, (call, code, here)) in calls.iter().enumerate() {
        assert_eq!(found[place]["code"], *code, "{call} {}", found[place]);
        let told = lines[place]["code"].as_str().unwrap_or_default();
        assert_eq!(told, *here, "{call} {}", lines[place]);
    }
}

/// The access log, once it has so many lines.
fn access_lines(sidegate: &Sidegate, count: usize) -> Vec<Value> {
    until(&format!("{count} access lines"), || {
        let lines = sidegate.process.stdout();
        let lines = lines.lines().filter(|line| line.contains("request_id"));
        let lines: Vec<Value> = lines
            .map(|line| serde_json::from_str(line).expect("it is JSON"))
            .collect();
        (lines.len() == count).then_some(lines)
    })
}

#[test]
fn a_grpc_client_that_calls_too_often_is_told_that_something_is_exhausted() {
    let Some(server) = Grpc::serve("a_grpc_client_that_calls_too_often") else {
        return;
    };
    let folder = folder();
    let listener = format!(
        "upstream = \"h2c://127.0.0.1:{}\"\n\
         limits = {{ requests_per_second = 1, request_burst = 2 }}\n",
        server.port
    );
    let (sidegate, _) = configuration(folder.path(), &listener).start(folder.path());
    let calls: Value = (0..50)
        .map(|_| json!(["/test.Echo/Unary", ["x"], 30]))
        .collect();
    let found = call(crate::support::address(&sidegate), folder.path(), &calls);
    let lines = access_lines(&sidegate, 50);
    for (found, line) in found.iter().zip(&lines) {
        let is_limited = line["code"] == "SG0357";
        let code = if is_limited { 8 } else { 0 };
        assert_eq!(found["code"], code, "{found} {line}");
    }
    assert_eq!(found[1]["code"], 0, "a burst is allowed");
    assert!(found.iter().any(|it| it["code"] == 8), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_to_the_first_route_that_it_matches_and_the_policy_knows_which() {
    let (first, second, rest) = (
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
    );
    let folder = folder();
    let listener = format!(
        r#"
upstream = "{rest}"
context_extensions = {{ route = "rest" }}

[[listener.route]]
hosts = ["*.localhost"]
path_prefix = "/a"
methods = ["GET"]
upstream = "{first}"
context_extensions = {{ route = "first" }}

[[listener.route]]
path = "/a/b"
headers = {{ x-canary = "yes" }}
upstream = "{second}"
context_extensions = {{ route = "second" }}
"#,
        rest = rest.url,
        first = first.url,
        second = second.url,
    );
    let (_sidegate, client) = configuration(folder.path(), &listener).start(folder.path());
    for (method, host, canary, route) in [
        ("GET", "x.localhost", false, "first"),
        ("GET", "x.localhost:8443", true, "first"),
        ("POST", "x.localhost", true, "second"),
        ("GET", "localhost", true, "second"),
        ("GET", "localhost", false, "rest"),
    ] {
        let mut request = Request::builder().method(method).uri("/a/b");
        request = request.header("host", host);
        if canary {
            request = request.header("x-canary", "yes");
        }
        let answer = client.send(request, body("")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-route")),
            (200, route)
        );
    }
    let seen = [&first, &second, &rest].map(|upstream| upstream.heads().len());
    assert_eq!(seen, [2, 2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_matches_no_route_is_told_so_only_if_allowed() {
    let folder = folder();
    let listener = "[[listener.route]]\npath = \"/headers\"\ncomponent = \"probe\"\n";
    let (_sidegate, client) = configuration(folder.path(), listener).start(folder.path());
    for (path, status) in [("/headers", 200), ("/b", 404), ("/secret.b", 403)] {
        let request = Request::get(path);
        assert_eq!(
            client.send(request, body("")).await.status,
            status,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_a_unix_socket_is_an_upstream() {
    let folder = folder();
    let upstream = Upstream::at(&folder.path().join("app.sock"));
    let listener = format!("upstream = \"{}\"\n", upstream.url);
    let (_sidegate, client) = configuration(folder.path(), &listener).start(folder.path());
    let request = Request::post("/x");
    let answer = client.send(request, body("hello")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str()),
        (200, "hello")
    );
    assert_eq!(upstream.heads().len(), 1);
}
