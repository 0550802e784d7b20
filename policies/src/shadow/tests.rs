use std::time::{Duration, Instant, SystemTime};

use http::Request;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::input::{ConnectionFacts, ConnectionParameters, RequestFacts};
use crate::{DenialReason, PolicyOptions, PolicySources};

/// The live policy answers by the path.
const LIVE: &str = r#"
package envoy.authz

default allow := false

allow if input.parsed_path[0] == "open"
allow := {"allowed": true, "headers": {"x-user": "s3cret", "x-same": "1"}} if input.parsed_path[0] == "edited"
allow := {"allowed": false, "http_status": 401} if input.parsed_path[0] == "login"
allow := value if {
    some value in [true, false]
    input.parsed_path[0] == "clash"
}
"#;

const DENIES: &str = "package envoy.authz\nallow := false\n";
const ALLOWS: &str = "package envoy.authz\nallow := true\n";

/// Longer than any decision may take.
const LOOPS: &str = r"
package envoy.authz

allow if {
    some i in numbers.range(1, 4000)
    some j in numbers.range(1, 4000)
    i * j < 0
}
";

fn policy(rego: &str) -> Policy {
    let sources = PolicySources::from_modules([("a.rego", rego)]).unwrap();
    Policy::load(sources, &PolicyOptions::default()).unwrap()
}

/// A live policy, and a candidate that is compared with it.
struct Pair {
    live: Evaluator,
    control: ShadowControl,
    decisions: PolicyMetrics,
    shadow: Shadow,
}

impl Pair {
    fn new(candidate: &str, sample: Sample, queue: usize) -> Self {
        let metrics = ShadowMetrics::register(&mut Registry::default());
        let candidate = policy(candidate);
        let started = Shadow::start_with_queue(&candidate, sample, metrics, queue);
        let (shadow, control) = started.unwrap();
        let decisions = PolicyMetrics::register(&mut Registry::default());
        let live = policy(LIVE).evaluator(&decisions).unwrap();
        Self {
            live: live.with_shadow(shadow.clone()),
            control,
            decisions,
            shadow,
        }
    }

    fn ask(&mut self, path: &str) {
        let connection = ConnectionFacts::new(ConnectionParameters {
            downstream_address: "192.0.2.7:40001".parse().unwrap(),
            local_address: "192.0.2.1:8443".parse().unwrap(),
            source_principal: Some("spiffe://sidegate.local/frontend".into()),
            source_certificate: None,
            destination_principal: None,
            server_name: None,
            listener: "main".into(),
            context_extensions: std::collections::BTreeMap::new(),
        });
        let head = Request::get(path).header("x-asked", "yes");
        let (head, ()) = head.body(()).unwrap().into_parts();
        let request = RequestFacts {
            head,
            scheme: "https".into(),
            host: "orders.example".into(),
            request_id: "r1".into(),
            time: SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 120_000_000),
            declared_body_bytes: None,
            body: crate::RequestBody::default(),
        };
        drop(self.live.decide(&connection, request));
    }

    /// The counts, once so many were compared or dropped.
    fn counts(&self, so_many: u64) -> ShadowCounts {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let counts = self.control.counts();
            if counts.compared() + counts.dropped >= so_many {
                return counts;
            }
            assert!(Instant::now() < deadline, "waited in vain: {counts:?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// What comes of one request, by `same`, `allowed_to_denied`, `denied_to_allowed`, `edits` and
/// `error`.
fn compared(candidate: &str, path: &str) -> [u64; 5] {
    let mut pair = Pair::new(candidate, Sample::EVERY, QUEUE);
    pair.ask(path);
    let counts = pair.counts(1);
    [
        counts.same,
        counts.allowed_to_denied,
        counts.denied_to_allowed,
        counts.edits,
        counts.error,
    ]
}

#[test]
fn each_difference_is_of_its_kind() {
    let headers = |value: &str| {
        format!(
            "package envoy.authz\nallow := {{\"allowed\": true, \
             \"headers\": {{\"x-same\": \"1\", \"x-user\": \"{value}\"}}}}\n"
        )
    };
    let removes = |names: &str| {
        format!(
            "package envoy.authz\nallow := {{\"allowed\": true, \
             \"request_headers_to_remove\": [{names}]}}\n"
        )
    };
    let undefined = "package envoy.authz\nallow if input.parsed_path[0] == \"never\"\n";
    let nonsense = "package envoy.authz\nallow := \"yes\"\n";
    let clash = "package envoy.authz\nallow := value if some value in [true, false]\n";
    let status = "package envoy.authz\nallow := {\"allowed\": false, \"http_status\": 404}\n";
    for (candidate, path, expected) in [
        (LIVE, "/open", [1, 0, 0, 0, 0]),
        (LIVE, "/closed", [1, 0, 0, 0, 0]),
        (LIVE, "/edited", [1, 0, 0, 0, 0]),
        (LIVE, "/login", [1, 0, 0, 0, 0]),
        (DENIES, "/open", [0, 1, 0, 0, 0]),
        (ALLOWS, "/closed", [0, 0, 1, 0, 0]),
        (ALLOWS, "/edited", [0, 0, 0, 1, 0]),
        (&headers("s3cret"), "/edited", [1, 0, 0, 0, 0]),
        (&headers("other"), "/edited", [0, 0, 0, 1, 0]),
        (&removes("\"x-a\""), "/open", [0, 0, 0, 1, 0]),
        (DENIES, "/login", [0, 0, 0, 1, 0]),
        (status, "/closed", [0, 0, 0, 1, 0]),
        // What no rule allows is denied, and that is an answer.
        (undefined, "/open", [0, 1, 0, 0, 0]),
        (undefined, "/closed", [1, 0, 0, 0, 0]),
        (nonsense, "/open", [0, 0, 0, 0, 1]),
        (LOOPS, "/open", [0, 0, 0, 0, 1]),
        // Two values for one rule are none, whatever the live policy says; also where it has none
        // itself.
        (clash, "/open", [0, 0, 0, 0, 1]),
        (clash, "/closed", [0, 0, 0, 0, 1]),
        (clash, "/clash", [0, 0, 0, 0, 1]),
        (LIVE, "/clash", [0, 0, 0, 0, 1]),
        (nonsense, "/clash", [0, 0, 0, 0, 1]),
        // A candidate that answers where the live policy cannot.
        (ALLOWS, "/clash", [0, 0, 1, 0, 0]),
        (DENIES, "/clash", [1, 0, 0, 0, 0]),
    ] {
        assert_eq!(compared(candidate, path), expected, "{path}: {candidate}");
    }
}

#[test]
fn a_candidate_sees_what_the_policy_has_seen() {
    let facts = r#"
package envoy.authz

default allow := false

allow if {
    input.source_principal == "spiffe://sidegate.local/frontend"
    input.attributes.contextExtensions.listener == "main"
    input.attributes.request.time == {"seconds": 1800000000, "nanos": 120000000}
    input.attributes.request.http.id == "r1"
    input.attributes.request.http.path == "/open/a?b=c"
    input.attributes.request.http.headers["x-asked"] == "yes"
}
"#;
    assert_eq!(compared(facts, "/open/a?b=c"), [1, 0, 0, 0, 0]);
}

#[test]
fn what_a_candidate_decides_counts_as_no_decision() {
    let mut pair = Pair::new(DENIES, Sample::EVERY, QUEUE);
    for _ in 0..3 {
        pair.ask("/open");
    }
    assert_eq!(pair.counts(3).allowed_to_denied, 3);
    assert_eq!(pair.decisions.ingress_decisions(), (3, 0));
}

#[test]
fn a_sample_is_the_share_that_it_says() {
    let mut random = SmallRng::seed_from_u64(7);
    for (share, least, most) in [(0.0, 0, 0), (0.25, 2300, 2700), (1.0, 10_000, 10_000)] {
        let sample = Sample::new(share).unwrap();
        assert!((sample.share() - share).abs() < 1e-9);
        let taken = (0..10_000).filter(|_| sample.takes(&mut random)).count();
        assert!((least..=most).contains(&taken), "{share}: {taken}");
    }
    assert_eq!(Sample::new(1.0), Some(Sample::EVERY));
    for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(Sample::new(share), None);
    }
}

#[test]
fn what_waits_too_long_is_dropped_and_holds_nobody() {
    let mut pair = Pair::new(LOOPS, Sample::EVERY, 2);
    for _ in 0..100 {
        pair.ask("/open");
    }
    let counts = pair.counts(100);
    assert!(counts.dropped > 0, "{counts:?}");
    assert_eq!(counts.error, 100 - counts.dropped, "{counts:?}");
}

#[test]
fn another_candidate_or_generation_is_counted_anew() {
    let mut pair = Pair::new(DENIES, Sample::EVERY, QUEUE);
    pair.ask("/open");
    assert_eq!(pair.counts(1).allowed_to_denied, 1);
    pair.control.replace(&policy(ALLOWS)).unwrap();
    assert_eq!(pair.control.counts(), ShadowCounts::default());
    pair.ask("/open");
    let counts = pair.counts(1);
    assert_eq!((counts.generation, counts.same), (1, 1), "{counts:?}");

    let next = policy(LIVE).as_generation(2);
    let next = next.evaluator(&pair.decisions).unwrap();
    let mut old = std::mem::replace(&mut pair.live, next.with_shadow(pair.shadow.clone()));
    pair.ask("/closed");
    let deadline = Instant::now() + Duration::from_secs(60);
    while pair.control.counts().generation != 2 {
        assert!(Instant::now() < deadline, "the new generation is not seen");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    // A worker that is late changes nothing in that.
    std::mem::swap(&mut old, &mut pair.live);
    pair.ask("/open");
    std::mem::swap(&mut old, &mut pair.live);
    pair.ask("/closed");
    let counts = pair.counts(2);
    let expected = ShadowCounts {
        generation: 2,
        denied_to_allowed: 2,
        ..ShadowCounts::default()
    };
    assert_eq!(counts, expected);
}

#[test]
fn what_is_told_of_a_difference_holds_no_values() {
    let parse = |json: &str| {
        let value = regorus::Value::from_json_str(json).unwrap();
        comparison::Verdict::of(
            crate::decision::Decision::parse(&value).map_err(DenialReason::InvalidDecision),
        )
    };
    let one = parse(
        r#"{"allowed": true, "headers": {"x-user": "s3cret"}, "request_headers_to_remove": ["x-b", "x-a"],
            "response_headers_to_add": {"x-same": "1"}}"#,
    );
    let other = parse(
        r#"{"allowed": true, "headers": {"x-user": "0ther"}, "request_headers_to_remove": ["x-a"],
            "response_headers_to_add": {"x-same": "1", "x-new": "s3cret"}}"#,
    );
    assert_eq!(
        one.parts(&other),
        [
            "request header x-user",
            "removed header x-b",
            "response header x-new"
        ]
    );
    assert_eq!(one.to_string(), "allow");
    let one = parse(r#"{"allowed": false, "body": "s3cret", "headers": {"x-a": "1"}}"#);
    let other = parse(r#"{"allowed": false, "http_status": 404}"#);
    assert_eq!(
        one.parts(&other),
        [
            "status 403 to 404",
            "header content-type",
            "header x-a",
            "body"
        ]
    );
    assert_eq!(
        other.to_string(),
        "deny with 404: the policy denies the request"
    );
    let reordered = parse(r#"{"allowed": true, "request_headers_to_remove": ["x-b", "x-a"]}"#);
    let ordered = parse(r#"{"allowed": true, "request_headers_to_remove": ["x-a", "x-b", "x-a"]}"#);
    assert_eq!(Difference::between(&reordered, &ordered), None);
}
