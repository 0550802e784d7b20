mod connections;

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Instant, SystemTime};

use http::{Request, StatusCode};
use prometheus_client::registry::Registry;
use serde_json::{Value as Json, json};

use super::*;
use crate::input::{ConnectionFacts, ConnectionParameters, RequestFacts};
use crate::{Evaluator, Policy, PolicyMetrics, PolicyOptions, PolicySources};

const PATIENCE: Duration = Duration::from_secs(60);

/// Short, to be filled soon.
const TEST_QUEUE: usize = 300;

const POLICY: &str = r#"
package envoy.authz

segment := input.parsed_path[0]

allow if segment == "open"
allow := false if segment == "closed"
allow := {"allowed": true, "headers": {"authorization": "Bearer s3cret", "x-kept": "1"}} if segment == "headers"
allow := "yes" if segment == "text"
allow if segment == "conflict"
allow := false if segment == "conflict"
"#;

/// A stream whose content can be read elsewhere.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<u8>>>);

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shown {
    fn events(&self) -> Vec<Json> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }
}

/// A log that is started, with what it is asked by.
struct Started {
    evaluator: Evaluator,
    writer: DecisionLogWriter,
    metrics: DecisionLogMetrics,
}

fn options(output: DecisionLogOutput) -> DecisionLogOptions {
    DecisionLogOptions {
        labels: BTreeMap::from([("id".to_owned(), "instance".to_owned())]),
        erased_headers: CREDENTIAL_HEADERS.to_vec(),
        max_decisions_per_second: None,
        output,
    }
}

fn policy(generation: u64, modules: &[&str]) -> Policy {
    let named = modules.iter().enumerate();
    let named = named.map(|(index, text)| (format!("{index}.rego"), (*text).to_owned()));
    let options = PolicyOptions {
        decision_timeout: Duration::from_secs(30),
        generation,
        ..PolicyOptions::default()
    };
    let bundle = crate::sources::BundleRevision {
        name: "authz".to_owned(),
        revision: format!("r{generation}"),
    };
    let sources = PolicySources::from_modules(named)
        .unwrap()
        .of_bundle(bundle);
    Policy::load(sources, &options).unwrap()
}

fn evaluator(policy: &Policy, log: &DecisionLog) -> Evaluator {
    let metrics = PolicyMetrics::register(&mut Registry::default());
    let evaluator = policy.evaluator(&metrics).unwrap();
    evaluator.with_decision_log(log.clone())
}

fn start(options: DecisionLogOptions, modules: &[&str]) -> Started {
    let metrics = DecisionLogMetrics::register(&mut Registry::default());
    let started = DecisionLog::start_with_queue(options, metrics.clone(), TEST_QUEUE);
    let (log, writer) = started.unwrap();
    Started {
        evaluator: evaluator(&policy(1, modules), &log),
        writer,
        metrics,
    }
}

fn connection() -> ConnectionFacts {
    ConnectionFacts::new(ConnectionParameters {
        downstream_address: "192.0.2.7:40001".parse().unwrap(),
        local_address: "192.0.2.1:8443".parse().unwrap(),
        source_principal: Some("spiffe://sidegate.local/frontend".into()),
        source_certificate: None,
        destination_principal: None,
        server_name: None,
        listener: "main".into(),
        context_extensions: BTreeMap::new(),
    })
}

fn request(builder: http::request::Builder) -> RequestFacts {
    let (head, ()) = builder.body(()).unwrap().into_parts();
    RequestFacts {
        head,
        scheme: "https".into(),
        host: "orders.example".into(),
        request_id: "r1".into(),
        time: SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 120_000_000),
        declared_body_bytes: None,
        body: crate::RequestBody::default(),
    }
}

fn get(path: &str) -> RequestFacts {
    request(Request::get(path))
}

/// The events of these requests, and the ids of their decisions.
fn logged(
    modules: &[&str],
    requests: Vec<RequestFacts>,
) -> (Vec<Json>, Vec<String>, DecisionLogMetrics) {
    let shown = Shown::default();
    let stream = DecisionLogOutput::Stream(Box::new(shown.clone()));
    let Started {
        mut evaluator,
        writer,
        metrics,
    } = start(options(stream), modules);
    let ids = requests.into_iter().map(|request| {
        let decided = evaluator.decide(&connection(), request);
        let id = decided.map_or_else(|denial| denial.decision_id, |permit| permit.decision_id());
        id.to_string()
    });
    let ids = ids.collect();
    writer.finish(PATIENCE).unwrap();
    (shown.events(), ids, metrics)
}

#[test]
fn an_event_tells_what_was_asked_and_what_was_answered() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let asked = Request::get("/open/a%20b?q=1")
        .header("x-two", "one")
        .header("x-two", "two")
        .header("traceparent", trace);
    let (events, ids, metrics) = logged(&[POLICY], vec![request(asked), get("/closed")]);
    let [first, second] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(first["type"], "openpolicyagent.org/decision_logs");
    assert_eq!(first["labels"], json!({"id": "instance"}));
    assert_eq!(first["decision_id"], ids[0]);
    assert_eq!(first["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(first["span_id"], "b7ad6b7169203331");
    assert_eq!(first["bundles"], json!({"authz": {"revision": "r1"}}));
    assert_eq!(first["path"], "envoy/authz/allow");
    assert_eq!(first["result"], true);
    assert_eq!(first["requested_by"], "192.0.2.7:40001");
    assert_eq!(first["timestamp"], "2027-01-15T08:00:00.12Z");
    assert_eq!(first["req_id"], 1);
    for timer in ["timer_rego_query_eval_ns", "timer_server_handler_ns"] {
        assert!(first["metrics"][timer].as_u64().unwrap() > 0, "{timer}");
    }
    let input = &first["input"];
    assert_eq!(input["parsed_path"], json!(["open", "a b"]));
    assert_eq!(input["parsed_query"], json!({"q": ["1"]}));
    assert_eq!(
        input["attributes"]["request"]["http"]["headers"]["x-two"],
        "one,two"
    );
    assert_eq!(input["attributes"]["request"]["http"]["id"], "r1");
    assert_eq!(
        input["source_principal"],
        "spiffe://sidegate.local/frontend"
    );
    for absent in ["error", "erased", "masked", "nd_builtin_cache", "custom"] {
        assert_eq!(first.get(absent), None, "{absent}");
    }

    assert_eq!(second["result"], false);
    assert_eq!(second["decision_id"], ids[1]);
    assert_eq!(second["req_id"], 2);
    assert_eq!(second.get("error"), None, "a denial is a decision");
    assert_eq!(second.get("trace_id"), None);
    assert_eq!(metrics.events.get(), 2);
}

/// Remembered ones too.
#[test]
fn an_event_has_all_of_the_result() {
    let policy = r#"
        package envoy.authz
        allow := {
            "allowed": input.parsed_path[0] == "open",
            "http_status": 404,
            "body": "none",
            "headers": {"x-a": ["1", "2"]},
            "response_headers_to_add": [{"x-b": "1"}],
            "request_headers_to_remove": {"x-c"},
            "query_parameters_to_set": {"q": "1"},
            "dynamic_metadata": {"team": {"name": "red", "roles": {"a", "b"}}, "level": 3},
            "of_our_own": [null, 1.5],
        }
    "#;
    let (events, ..) = logged(&[policy], ["/open", "/closed", "/open"].map(get).into());
    let allowed = [true, false, true];
    for (event, allowed) in events.iter().zip(allowed) {
        let expected = json!({
            "allowed": allowed,
            "http_status": 404,
            "body": "none",
            "headers": {"x-a": ["1", "2"]},
            "response_headers_to_add": [{"x-b": "1"}],
            "request_headers_to_remove": ["x-c"],
            "query_parameters_to_set": {"q": "1"},
            "dynamic_metadata": {"team": {"name": "red", "roles": ["a", "b"]}, "level": 3},
            "of_our_own": [null, 1.5],
        });
        assert_eq!(event["result"], expected);
        assert_eq!(event.get("error"), None);
    }
    let evaluated = |event: &Json| event["metrics"].get("timer_rego_query_eval_ns").is_some();
    let evaluated: Vec<bool> = events.iter().map(evaluated).collect();
    assert_eq!(evaluated, [true, true, false]);
}

#[test]
fn the_input_that_is_logged_is_the_input_that_was_decided() {
    // The policy answers with its whole input.
    let mirror =
        "package envoy.authz\nallow := {\"allowed\": false, \"body\": json.marshal(input)}";
    let asked = Request::post("/a/b?x=1&x=2&y")
        .header("accept", "*/*")
        .header("te", "trailers");
    let (events, ..) = logged(&[mirror], vec![request(asked)]);
    let body = events[0]["result"]["body"].as_str().unwrap();
    let seen: Json = serde_json::from_str(body).unwrap();
    assert_eq!(events[0]["input"], seen);
}

#[test]
fn what_is_no_decision_is_told_as_an_error() {
    let paths = ["/none", "/conflict", "/text", "/open?a=%"];
    let (events, ..) = logged(&[POLICY], paths.map(get).into());
    let codes: Vec<_> = events.iter().map(|event| &event["error"]["code"]).collect();
    assert_eq!(codes, ["SG0221", "SG0223", "SG0224", "SG0225"]);
    assert_eq!(events[0].get("result"), None);
    assert_eq!(events[0]["input"]["parsed_path"], json!(["none"]));
    assert_eq!(events[2]["result"], "yes");
    assert_eq!(events[3]["input"].get("parsed_query"), None, "it has none");
    for event in events {
        assert!(
            event["error"]["message"].as_str().unwrap().len() > 10,
            "{event}"
        );
    }
}

#[test]
fn credentials_are_not_logged_and_no_mask_rule_can_put_them_back() {
    let mask = r#"
        package system.log
        headers := input.input.attributes.request.http.headers
        mask contains {"op": "upsert", "path": "/input/leak", "value": headers.authorization}
        mask contains {"op": "upsert", "path": "/input/seen", "value": object.keys(headers)}
    "#;
    let asked = Request::get("/headers")
        .header("authorization", "Bearer s3cret")
        .header("cookie", "s3cret")
        .header("accept", "*/*");
    let (events, ..) = logged(&[POLICY, mask], vec![request(asked)]);
    let text = events[0].to_string();
    assert!(!text.contains("s3cret"), "{text}");
    assert_eq!(events[0]["result"]["headers"], json!({"x-kept": "1"}));
    assert_eq!(
        events[0]["erased"],
        json!([
            "/input/attributes/request/http/headers/authorization",
            "/input/attributes/request/http/headers/cookie",
            "/result/headers/authorization",
        ])
    );
    assert_eq!(events[0]["masked"], json!(["/input/seen"]));
}

#[test]
fn the_policys_own_rules_mask_and_drop() {
    let rules = r#"
        package system.log
        drop if input.input.parsed_path[0] == "closed"
        mask contains "/input/attributes/source/address"
        mask contains {"op": "upsert", "path": "/input/parsed_query/card", "value": "**REDACTED**"} if {
            input.input.parsed_query.card
        }
        mask contains "/result" if input.path != "envoy/authz/allow"
    "#;
    let asked = ["/open?card=4111", "/closed", "/open"].map(get);
    let (events, _, metrics) = logged(&[POLICY, rules], asked.into());
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["input"]["parsed_query"]["card"], "**REDACTED**");
    assert_eq!(events[0]["masked"], json!(["/input/parsed_query/card"]));
    assert_eq!(
        events[0]["erased"],
        json!(["/input/attributes/source/address"])
    );
    assert_eq!(
        events[0]["input"]["attributes"]["source"].get("address"),
        None
    );
    assert_eq!(events[0]["result"], true);
    assert_eq!(events[1].get("masked"), None);
    assert_eq!(metrics.drops.rule.get(), 1);
}

#[test]
fn rules_may_be_data_too() {
    let sources = PolicySources::from_files([
        ("policy.rego".to_owned(), POLICY.to_owned()),
        (
            "system/log/data.json".to_owned(),
            r#"{"mask": ["/input/version"]}"#.to_owned(),
        ),
    ]);
    let policy = Arc::new(Policy::load(sources.unwrap(), &PolicyOptions::default()).unwrap());
    let mut event = event::Event::for_test(Some(json!({"version": 1, "a": 2})), None);
    let verdict = LogRules::default().apply(&policy, &mut event);
    assert_eq!(verdict, rules::Verdict::Log);
    assert_eq!(event.input, Some(json!({"a": 2})));
}

#[test]
fn a_mask_that_fails_withholds_what_it_was_to_hide() {
    let cases = [
        // Two values for one rule.
        "mask := [\"/input/a\"] if input.path\nmask := [\"/input/b\"] if input.path",
        // No list of rules.
        "mask := \"/input\"",
        // One rule that is none.
        "mask contains \"/input/parsed_query\"\nmask contains \"/labels/id\"",
        "mask contains {\"op\": \"hide\", \"path\": \"/input\"}",
    ];
    for rules in cases {
        let rules = format!("package system.log\n{rules}");
        let asked = vec![get("/open?card=s3cret"), get("/none?card=s3cret")];
        let (events, ids, metrics) = logged(&[POLICY, &rules], asked);
        for event in &events {
            assert!(!event.to_string().contains("s3cret"), "{event}");
            assert_eq!(
                (event.get("input"), event.get("result")),
                (None, None),
                "{event}"
            );
            assert_eq!(event["error"]["code"], "SG0261");
        }
        assert_eq!(events[0]["erased"], json!(["/input", "/result"]));
        assert_eq!(events[1]["erased"], json!(["/input"]));
        let message = events[1]["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("SG0221"),
            "its own error is kept: {message}"
        );
        assert_eq!(events[1]["decision_id"], ids[1]);
        assert_eq!(metrics.withheld.get(), 2);
    }
}

#[test]
fn a_drop_rule_that_fails_or_is_not_true_drops_nothing() {
    for rule in [
        "drop if input.path\ndrop := false if input.path",
        "drop := \"yes\"",
        "drop := false",
        "drop if input.path == \"other\"",
    ] {
        let rules = format!("package system.log\n{rule}\nmask contains \"/input/version\"");
        let (events, _, metrics) = logged(&[POLICY, &rules], vec![get("/open"), get("/open")]);
        assert_eq!(events.len(), 2, "{rule}");
        assert_eq!(events[1]["erased"], json!(["/input/version"]), "{rule}");
        assert_eq!(metrics.drops.rule.get(), 0);
    }
}

#[test]
fn each_decision_is_masked_by_the_policy_that_made_it() {
    let shown = Shown::default();
    let stream = DecisionLogOutput::Stream(Box::new(shown.clone()));
    let metrics = DecisionLogMetrics::register(&mut Registry::default());
    let (log, writer) = DecisionLog::start(options(stream), metrics).unwrap();
    let evaluators = (1..=3).map(|generation| {
        let mask =
            format!("package system.log\nmask contains \"/input/parsed_query/q{generation}\"");
        evaluator(&policy(generation, &[POLICY, &mask]), &log)
    });
    let mut evaluators: Vec<_> = evaluators.collect();
    for index in [0, 1, 0, 1, 2, 0] {
        let _ = evaluators[index].decide(&connection(), get("/open?q1=a&q2=b&q3=c"));
    }
    writer.finish(PATIENCE).unwrap();
    let erased: Vec<Json> = shown
        .events()
        .iter()
        .map(|event| event["erased"][0].clone())
        .collect();
    let expected = [1, 2, 1, 2, 3, 1].map(|number| format!("/input/parsed_query/q{number}"));
    assert_eq!(erased, expected);
}

/// A stream that does not take anything until it is told.
struct Stuck(Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The other end is gone: it takes everything.
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stuck() -> (SyncSender<()>, DecisionLogOutput) {
    let (go_on, told) = sync_channel(0);
    (go_on, DecisionLogOutput::Stream(Box::new(Stuck(told))))
}

#[test]
fn what_the_log_cannot_take_is_counted_and_nobody_waits() {
    let (go_on, output) = stuck();
    let Started {
        mut evaluator,
        writer,
        metrics,
    } = start(options(output), &[POLICY]);
    let sent = u64::try_from(TEST_QUEUE).unwrap() + 100;
    for _ in 0..sent {
        let _ = evaluator.decide(&connection(), get("/open"));
    }
    let dropped = metrics.drops.queue_full.get();
    assert!((1..=100).contains(&dropped), "{dropped}");
    drop(go_on);
    writer.finish(PATIENCE).unwrap();
    assert_eq!(metrics.events.get() + dropped, sent);
}

#[test]
fn large_requests_that_wait_are_bounded_by_their_bytes() {
    let (go_on, output) = stuck();
    let Started {
        mut evaluator,
        writer,
        metrics,
    } = start(options(output), &[POLICY]);
    let large = "a".repeat(1024 * 1024);
    for _ in 0..100 {
        let _ = evaluator.decide(
            &connection(),
            request(Request::get("/open").header("x-large", &large)),
        );
    }
    let dropped = metrics.drops.queue_full.get();
    assert!((30..50).contains(&dropped), "{dropped}");
    drop(go_on);
    writer.finish(PATIENCE).unwrap();
    assert_eq!(metrics.events.get() + dropped, 100);
}

#[test]
fn an_end_that_nobody_can_bring_about_is_given_up_in_time() {
    let (go_on, output) = stuck();
    let Started {
        mut evaluator,
        writer,
        ..
    } = start(options(output), &[POLICY]);
    let _ = evaluator.decide(&connection(), get("/open"));
    let error = writer.finish(Duration::from_millis(10)).unwrap_err();
    assert_eq!(error.code(), "SG0264");
    drop(go_on);
}

/// A stream that fails at first.
struct Failing(Shown, u32);

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1 > 0 {
            self.1 -= 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn events_that_cannot_be_written_are_counted_and_the_next_are_written() {
    let shown = Shown::default();
    let stream = DecisionLogOutput::Stream(Box::new(Failing(shown.clone(), 2)));
    let Started {
        mut evaluator,
        writer,
        metrics,
    } = start(options(stream), &[POLICY]);
    for _ in 0..3 {
        let _ = evaluator.decide(&connection(), get("/open"));
    }
    writer.finish(PATIENCE).unwrap();
    assert_eq!(shown.events().len(), 1);
    assert_eq!(metrics.drops.write_failed.get(), 2);
    assert_eq!(metrics.events.get(), 1);
}

#[test]
fn no_more_than_the_configured_number_a_second_is_logged() {
    let shown = Shown::default();
    let mut options = options(DecisionLogOutput::Stream(Box::new(shown.clone())));
    options.max_decisions_per_second = Some(3);
    let Started {
        mut evaluator,
        writer,
        metrics,
    } = start(options, &[POLICY]);
    let begin = Instant::now();
    for _ in 0..50 {
        let _ = evaluator.decide(&connection(), get("/open"));
    }
    writer.finish(PATIENCE).unwrap();
    let seconds = begin.elapsed().as_secs() + 1;
    let events = u64::try_from(shown.events().len()).unwrap();
    assert!(
        (3..=3 * (seconds + 1)).contains(&events),
        "{events} in {seconds} s"
    );
    assert_eq!(metrics.drops.rate_limit.get() + events, 50);
}

/// Hands on what it is given, and fails where it is told to.
struct Handed(SyncSender<Vec<u8>>, u32);

impl Upload for Handed {
    fn upload(&mut self, chunk: &[u8]) -> Result<(), UploadError> {
        if self.1 > 0 {
            self.1 -= 1;
            return Err(UploadError::Status(StatusCode::SERVICE_UNAVAILABLE));
        }
        self.0.send(chunk.to_vec()).unwrap();
        Ok(())
    }
}

fn upload(failures: u32, chunk_size: usize) -> (Receiver<Vec<u8>>, DecisionLogOutput) {
    let (handed, received) = sync_channel(1000);
    let options = UploadOptions {
        chunk_size,
        min_delay: Duration::from_millis(5),
        max_delay: Duration::from_millis(10),
        buffer_size: 1024 * 1024,
    };
    let output = DecisionLogOutput::Upload(Box::new(Handed(handed, failures)), options);
    (received, output)
}

fn unpack(chunk: &[u8]) -> Vec<Json> {
    serde_json::from_reader(flate2::read::GzDecoder::new(chunk)).unwrap()
}

#[test]
fn events_that_fill_no_chunk_are_uploaded_after_their_delay() {
    let (received, output) = upload(2, 32 * 1024);
    let Started {
        mut evaluator,
        writer,
        metrics,
    } = start(options(output), &[POLICY]);
    for _ in 0..2 {
        let _ = evaluator.decide(&connection(), get("/closed"));
        let events = unpack(&received.recv_timeout(PATIENCE).unwrap());
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["result"], false);
        assert_eq!(
            events[0].get("type"),
            None,
            "the receiver knows what they are"
        );
    }
    assert_eq!(metrics.failed_uploads.get(), 2);
    writer.finish(PATIENCE).unwrap();
}

#[test]
fn everything_is_uploaded_at_the_end_in_chunks_that_are_not_too_large() {
    let (received, mut output) = upload(1, 2048);
    if let DecisionLogOutput::Upload(_, options) = &mut output {
        options.min_delay = PATIENCE;
        options.max_delay = PATIENCE;
    }
    let Started {
        mut evaluator,
        writer,
        metrics,
    } = start(options(output), &[POLICY]);
    let sent = (0..200).map(|number| {
        let denial = evaluator.decide(&connection(), get(&format!("/closed/{number}")));
        denial.unwrap_err().decision_id.to_string()
    });
    let sent: Vec<String> = sent.collect();
    writer.finish(PATIENCE).unwrap();
    let chunks: Vec<Vec<u8>> = received.try_iter().collect();
    assert!(chunks.len() > 1);
    assert!(chunks.iter().all(|chunk| chunk.len() <= 2048));
    let events = chunks.iter().flat_map(|chunk| unpack(chunk));
    let ids: Vec<String> = events
        .map(|event| event["decision_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, sent);
    assert_eq!(metrics.events.get(), 200);
}
