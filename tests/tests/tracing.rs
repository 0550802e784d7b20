//! Traces: continued or started, told to the upstream and to the logs, and exported by OTLP.

mod receiver;

use std::fs;
use std::path::Path;

use http::Request;
use serde_json::Value;
use sidegate_tests::{Sidegate, Tool, skip, tool, until};
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;

use crate::support::{
    Answer, Client, Configuration, Upstream, access_line, address, body, counter, finish, folder,
    logged, patiently, write,
};
use receiver::{Received, Receiver};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

const ENTRY: &str = r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/main"
selectors = ["listener:name:main"]
dns_names = ["localhost"]
"#;

const POLICY: &str = r#"package envoy.authz

default allow := false

allow if input.attributes.request.http.path != "/denied"
"#;

/// In front of a server, with variables.
fn start(folder: &Path, upstream: &str, variables: &[(&str, &str)]) -> (Sidegate, Client) {
    write(folder, "policy/policy.rego", POLICY);
    let mut configuration = Configuration::new()
        .listener(&format!(
            r#"
[[listener]]
name = "main"
listen = "127.0.0.1:0"

[[listener.route]]
name = "app"
upstream = "{upstream}"
"#
        ))
        .rest(
            "[policy]\npath = \"policy\"\n\
             [decision_log]\noutput = \"file\"\npath = \"decisions.log\"\n",
        );
    configuration.entries.push_str(ENTRY);
    let mut command = Sidegate::command("run");
    command
        .args(["-o", "json", "--config"])
        .arg(configuration.write(folder))
        .envs(variables.iter().copied());
    let sidegate = Sidegate::start(&mut command);
    let demo = folder.join("demo");
    let client = Client::new(
        address(&sidegate),
        &demo.join("bundle.pem"),
        &demo.join("svid.pem"),
        &demo.join("key.pem"),
    );
    (sidegate, client)
}

/// A request that belongs to a trace.
async fn ask(client: &Client, path: &str, traceparent: &str) -> Answer {
    let request = Request::get(path)
        .header("traceparent", traceparent)
        .header("tracestate", "vendor=value");
    client.send(request, body("")).await
}

/// Waits for the decision log's event of a request.
fn decision(folder: &Path, decision_id: &Value) -> Value {
    until("the event of a decision", || {
        let events = fs::read_to_string(folder.join("decisions.log")).ok()?;
        let events = events
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        events
            .into_iter()
            .find(|event: &Value| event["decision_id"] == *decision_id)
    })
}

/// Takes connections in plain text, and passes their bytes on with the client's certificate.
async fn by_mutual_tls(client: Client) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut peer = client.raw().await;
            // However it ends, it is over.
            tokio::spawn(async move { copy_bidirectional(&mut stream, &mut peer).await.ok() });
        }
    });
    url
}

/// The one span of a kind, of those of one service.
fn one<'s>(spans: &'s [Received], service: &str, kind: &str) -> &'s Received {
    let found = spans
        .iter()
        .filter(|span| span.resource["service.name"] == service && span.kind() == kind);
    let found: Vec<_> = found.collect();
    assert_eq!(found.len(), 1, "{kind} of {service} in {spans:?}");
    found[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_continued_or_started_and_told_to_the_upstream_and_to_both_logs() {
    let folder = folder();
    let upstream = Upstream::start().await;
    let (sidegate, client) = start(folder.path(), &upstream.url, &[]);
    for (traceparent, is_continued) in [
        (format!("00-{TRACE}-{CALLER}-01"), true),
        (format!("00-{TRACE}-{CALLER}-00"), true),
        (format!("00-{TRACE}-{CALLER}-01-more"), false),
        (format!("00-{}-{CALLER}-01", TRACE.to_uppercase()), false),
    ] {
        let answer = ask(&client, "/", &traceparent).await;
        assert_eq!(answer.status, 200);
        let line = access_line(&sidegate, answer.header("x-request-id"));
        let (trace, span) = (line["trace_id"].as_str(), line["span_id"].as_str());
        let (trace, span) = (trace.unwrap(), span.unwrap());
        assert_eq!(trace == TRACE, is_continued, "{traceparent}");
        assert_eq!((trace.len(), span.len()), (32, 16));
        assert_ne!(span, CALLER);
        let heads = upstream.heads();
        let head = &heads.last().unwrap().headers;
        // Those that nobody began to record are left to others to decide on.
        let flags = match is_continued {
            true => &traceparent[53..55],
            false => "03",
        };
        assert_eq!(head["traceparent"], format!("00-{trace}-{span}-{flags}"));
        let state = head.get("tracestate").map(|state| state.to_str().unwrap());
        assert_eq!(state, is_continued.then_some("vendor=value"));
        let event = decision(folder.path(), &line["decision_id"]);
        assert_eq!(event["trace_id"], trace);
        assert_eq!(event["span_id"], span);
        assert_eq!(line["route"], "app");
        assert_eq!(
            line["upstream"],
            upstream.url.strip_prefix("http://").unwrap()
        );
    }
    let denied = ask(&client, "/denied", &format!("00-{TRACE}-{CALLER}-01")).await;
    assert_eq!(denied.status, 403);
    let line = access_line(&sidegate, denied.header("x-request-id"));
    assert_eq!(line["trace_id"], TRACE);
    assert_eq!(line["route"], "app");
    assert_eq!(line.get("upstream"), None, "it was not forwarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sidegates_in_a_row_share_one_trace_with_each_span_below_its_caller() {
    let Some(program) = tool(Tool::OtlpReceiver) else {
        return skip("two_sidegates_in_a_row", Tool::OtlpReceiver);
    };
    let receiver = Receiver::start(&program, None);
    let endpoint = format!("http://{}", receiver.grpc);
    let variables = |name| {
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_SERVICE_NAME", name),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment.name=a%20test",
            ),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ]
    };
    let (first_folder, second_folder) = (folder(), folder());
    let upstream = Upstream::start().await;
    let (second, to_second) = start(second_folder.path(), &upstream.url, &variables("second"));
    let between = by_mutual_tls(to_second).await;
    let (first, client) = start(first_folder.path(), &between, &variables("first"));

    let answer = ask(&client, "/orders", &format!("00-{TRACE}-{CALLER}-01")).await;
    assert_eq!(answer.status, 200);
    let spans = receiver.spans(4);
    assert_eq!(spans.len(), 4);
    let mut parent = CALLER;
    for (service, kind) in [
        ("first", "server"),
        ("first", "client"),
        ("second", "server"),
        ("second", "client"),
    ] {
        let span = one(&spans, service, kind);
        assert_eq!(span.text("traceId"), TRACE);
        assert_eq!(span.text("parentSpanId"), parent, "{kind} of {service}");
        assert_eq!(span.text("traceState"), "vendor=value");
        assert_eq!(span.protocol, "grpc");
        assert_eq!(span.resource["deployment.environment.name"], "a test");
        assert!(!span.has_failed());
        parent = span.text("spanId");
    }
    // The last one is what the application sees, and each span lies within the one before.
    let heads = upstream.heads();
    let forwarded = &heads.last().unwrap().headers["traceparent"];
    assert_eq!(forwarded, &format!("00-{TRACE}-{parent}-01"));
    let within = |outer: &Received, inner: &Received| {
        let at = |span: &Received, field| span.nanoseconds(field);
        at(outer, "startTimeUnixNano") <= at(inner, "startTimeUnixNano")
            && at(inner, "startTimeUnixNano") <= at(inner, "endTimeUnixNano")
            && at(inner, "endTimeUnixNano") <= at(outer, "endTimeUnixNano")
    };
    let server = one(&spans, "first", "server");
    assert!(within(server, one(&spans, "first", "client")));

    let line = access_line(&first, answer.header("x-request-id"));
    let told = |name: &str| server.attributes.get(name).map(String::as_str);
    for (name, expected) in [
        ("http.request.method", Some("GET")),
        ("http.response.status_code", Some("200")),
        ("url.path", Some("/orders")),
        ("url.scheme", Some("https")),
        ("server.address", Some("localhost")),
        ("client.address", Some("127.0.0.1")),
        ("network.protocol.version", Some("1.1")),
        ("error.type", None),
        ("sidegate.listener", Some("main")),
        ("sidegate.route", Some("app")),
        ("sidegate.verdict", Some("allow")),
        ("sidegate.decision_id", line["decision_id"].as_str()),
        ("sidegate.request_id", line["request_id"].as_str()),
        ("sidegate.peer", Some("spiffe://sidegate.local/demo")),
    ] {
        assert_eq!(told(name), expected, "{name}");
    }
    assert_eq!(server.text("name"), "GET app");
    assert_eq!(line["span_id"], server.text("spanId"));
    let event = decision(first_folder.path(), &line["decision_id"]);
    assert_eq!(event["span_id"], server.text("spanId"));
    let called = &one(&spans, "second", "client").attributes;
    assert_eq!(called["server.address"], "127.0.0.1");
    assert!(
        upstream
            .url
            .ends_with(&format!(":{}", called["server.port"]))
    );
    for sidegate in [&first, &second] {
        until("the spans to be counted", || {
            let exported = ["result=\"exported\""];
            let count = counter(sidegate, "sidegate_trace_spans_total", &exported);
            ((count - 2.0).abs() < 0.5).then_some(())
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn samplers_denials_and_failures_are_told_as_the_conventions_say() {
    let Some(program) = tool(Tool::OtlpReceiver) else {
        return skip("samplers_denials_and_failures", Tool::OtlpReceiver);
    };
    let receiver = Receiver::start(&program, None);
    let endpoint = format!("http://{}", receiver.http);
    let folder = folder();
    let (sidegate, client) = start(
        folder.path(),
        "http://127.0.0.1:1",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=a%2Cb"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
            // What is left is exported at the end.
            ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ],
    );
    assert_eq!(client.get("/unsampled").await.status, 502);
    let unsampled = ask(&client, "/unsampled", &format!("00-{TRACE}-{CALLER}-00")).await;
    assert_eq!(unsampled.status, 502);
    let sampled = format!("00-{TRACE}-{CALLER}-01");
    assert_eq!(ask(&client, "/denied", &sampled).await.status, 403);
    let request = Request::builder().method("BREW").uri("/failed");
    let request = request.header("traceparent", &sampled);
    assert_eq!(client.send(request, body("")).await.status, 502);
    assert!(sidegate.stop().status.success());

    let spans = receiver.spans(3);
    let told: Vec<_> = spans
        .iter()
        .map(|span| {
            let told = |name: &str| span.attributes.get(name).map_or("", String::as_str);
            (
                (span.kind(), span.text("name"), told("url.path")),
                (told("sidegate.verdict"), told("http.response.status_code")),
                (told("error.type"), span.has_failed()),
                told("http.request.method_original"),
            )
        })
        .collect();
    let denied = ("server", "GET app", "/denied");
    let (called, failed) = (
        ("client", "HTTP", "/failed"),
        ("server", "HTTP app", "/failed"),
    );
    assert_eq!(
        told,
        [
            (denied, ("deny", "403"), ("", false), ""),
            (called, ("", ""), ("connect_failed", true), "BREW"),
            (failed, ("allow", "502"), ("connect_failed", true), "BREW"),
        ]
    );
    for span in spans {
        assert_eq!(span.protocol, "http/protobuf");
        assert_eq!(span.headers["x-api-key"][0], "a,b");
        assert_eq!(span.headers["content-encoding"][0], "gzip");
        assert_eq!(span.resource["service.name"], "sidegate");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_verified_with_the_roots_that_are_named() {
    let Some(program) = tool(Tool::OtlpReceiver) else {
        return skip("a_collector_is_verified", Tool::OtlpReceiver);
    };
    let folder = folder();
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["localhost".to_owned()];
    let params = rcgen::CertificateParams::new(names).unwrap();
    let certificate = write(
        folder.path(),
        "tls.pem",
        params.self_signed(&key).unwrap().pem(),
    );
    let key = write(folder.path(), "key.pem", key.serialize_pem());
    let receiver = Receiver::start(&program, Some((&certificate, &key)));
    let upstream = Upstream::start().await;
    let port = |address: &str| address.rsplit(':').next().unwrap().to_owned();
    for (protocol, address) in [("grpc", &receiver.grpc), ("http/protobuf", &receiver.http)] {
        let folder = crate::support::folder();
        let endpoint = format!("https://localhost:{}", port(address));
        let variables = |roots| {
            [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", roots),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
                ("OTEL_BSP_SCHEDULE_DELAY", "10"),
            ]
        };
        let before = receiver.spans(0).len();
        let (sidegate, client) = start(
            folder.path(),
            &upstream.url,
            &variables(certificate.to_str().unwrap()),
        );
        assert_eq!(client.get("/").await.status, 200);
        let spans = receiver.spans(before + 2);
        assert_eq!(spans.last().unwrap().protocol, protocol);
        sidegate.stop();
        // The demo client's roots are others.
        let others = folder.path().join("demo/bundle.pem");
        let (sidegate, client) = start(
            folder.path(),
            &upstream.url,
            &variables(others.to_str().unwrap()),
        );
        assert_eq!(client.get("/").await.status, 200);
        logged(&sidegate, &["SG0370"]);
        assert_eq!(receiver.spans(0).len(), before + 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_holds_nobody_up() {
    let folder = folder();
    let upstream = Upstream::start().await;
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let (sidegate, client) = start(
        folder.path(),
        &upstream.url,
        &[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "200"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "500"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "2"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ],
    );
    let count = |result: &str| {
        let label = format!("result=\"{result}\"");
        counter(&sidegate, "sidegate_trace_spans_total", &[&label])
    };
    let all = async {
        while count("dropped") < 0.5 || count("failed") < 0.5 {
            assert_eq!(client.get("/").await.status, 200);
        }
    };
    patiently(all).await;
    logged(&sidegate, &["SG0370"]);
    let stopped = sidegate.stop();
    assert!(stopped.status.success());
    let told = stopped.stderr.matches("SG0370").count();
    assert_eq!(told, 1, "once, not for every batch: {}", stopped.stderr);
}

#[test]
fn a_variable_that_is_not_understood_is_an_error_at_start() {
    let folder = folder();
    let config = Configuration::new().write(folder.path());
    for (name, value, code) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4317", "SG0080"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "SG0081"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "SG0081"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "no-such-file", "SG0082"),
    ] {
        let mut command = Sidegate::command("run");
        command
            .arg("--config")
            .arg(&config)
            .env(
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "https://127.0.0.1:4317",
            )
            .env("OTEL_EXPORTER_OTLP_CERTIFICATE", &config)
            .env(name, value);
        if name == "OTEL_EXPORTER_OTLP_ENDPOINT" {
            command.env_remove("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        }
        let refused = finish(&mut command);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(refused.stderr.contains(code), "{name}: {}", refused.stderr);
        let shown = if code == "SG0082" { value } else { name };
        assert!(refused.stderr.contains(shown), "{}", refused.stderr);
    }
}
