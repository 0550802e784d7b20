//! Logs, policies, and what becomes of past verdicts.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value as Json, json};

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

fn event(id: &str) -> Json {
    json!({"decision_id": id, "path": "envoy/authz/allow", "input": {"user": id}, "result": true})
}

/// The ids of the events of a log, and errors by code and line.
fn read(log: &[u8]) -> Vec<String> {
    let events = Events::new(log).unwrap();
    let told = events.map(|event| match event {
        Ok((line, event)) => format!("{}:{line}", event.decision_id),
        Err(error) => {
            let text = error.to_string();
            let line = text.split("line ").nth(1).unwrap_or_default();
            let line = line
                .split(|it: char| !it.is_ascii_digit())
                .next()
                .unwrap_or_default();
            format!("{}:{line}", error.code())
        }
    });
    told.collect()
}

#[test]
fn logs_are_read_in_every_form_and_what_is_no_event_is_told_by_line() {
    let [a, b, c] = ["a", "b", "c"].map(event);
    let pretty = serde_json::to_string_pretty(&json!([a, b])).unwrap();
    let lines = format!("{a}\n\n{b}\n{c}");
    for (log, expected) in [
        (String::new(), &[][..]),
        (" \n\n".to_owned(), &[]),
        (lines.clone(), &["a:1", "b:3", "c:4"]),
        (
            format!("{a}\r\n{{\"decision_id\": 1}}\nnot json\n{b}\n"),
            &["a:1", "SG0289:2", "SG0289:3", "b:4"],
        ),
        (
            format!("{a}\n{}", &b.to_string()[..20]),
            &["a:1", "SG0289:2"],
        ),
        (format!("[{a},{b}]\n[{c}]"), &["a:1", "b:1", "c:2"]),
        (pretty, &["a:2", "b:10"]),
        (
            format!("[{a},\n {{\"x\": \"]}}\"}},\n{b}]"),
            &["a:1", "SG0289:2", "b:3"],
        ),
        (
            format!("[{a},\n{}", &b.to_string()[..20]),
            &["a:1", "SG0289:2"],
        ),
        ("[]".to_owned(), &[]),
    ] {
        assert_eq!(read(log.as_bytes()), expected, "{log}");
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(log.as_bytes()).unwrap();
        assert_eq!(read(&gzip.finish().unwrap()), expected, "compressed: {log}");
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    let whole = gzip.finish().unwrap();
    assert_eq!(read(&whole[..whole.len() - 4]).last().unwrap(), "SG0288:4");
}

/// What becomes of an event: `same`, `allow -> deny`, or why it cannot be told.
fn replayed(policy: &str, changes: Json) -> String {
    let sources = PolicySources::from_modules([("p.rego", policy)]).unwrap();
    let mut event = json!({
        "decision_id": "d", "path": "envoy/authz/allow", "result": true,
        "input": {"user": "eve", "tags": ["x", "y"]},
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Json::Null => drop(event.as_object_mut().unwrap().remove(name)),
            value => event[name] = value.clone(),
        }
    }
    let event: LoggedDecision = serde_json::from_value(event).unwrap();
    let mut replay = Replay::new(sources, None, LIMIT).unwrap();
    match replay.decide(&event) {
        Replayed::Same { .. } => "same".to_owned(),
        Replayed::Changed {
            before,
            after,
            code,
            ..
        } => {
            format!("{before:?} -> {after:?} {}", code.unwrap_or_default())
        }
        Replayed::NotReplayable { reason, paths } => format!("{reason} {}", paths.join(" ")),
    }
}

#[test]
fn verdicts_are_compared_as_they_would_be_in_service() {
    const USER: &str = "package envoy.authz\nallow if input.user == \"eve\"\n";
    const NOBODY: &str = "package envoy.authz\ndefault allow := false\n";
    const TAG: &str = "package envoy.authz\nallow if input.tags[0] == \"x\"\n";
    const ALL: &str = "package envoy.authz\nallow if count(input) > 0\n";
    const WITH: &str = "package envoy.authz\nallow if other with input.a as 1\nother if input.a\n";
    const CLASH: &str = "package envoy.authz\nallow := v if some v in [true, false]\n";
    const KEY: &str = "package envoy.authz\nallow := {\"allowed\": true, \"headers\": 1}\n";
    const REMOVED: &str = "the policy reads what was removed from the log";
    for (policy, changes, expected) in [
        (USER, json!({}), "same".to_owned()),
        (USER, json!({"result": false}), "Deny -> Allow ".to_owned()),
        (
            USER,
            json!({"result": {"allowed": true}}),
            "same".to_owned(),
        ),
        (USER, json!({"result": null}), "Deny -> Allow ".to_owned()),
        (
            USER,
            json!({"error": {"code": "SG0224"}}),
            "Deny -> Allow ".to_owned(),
        ),
        (NOBODY, json!({}), "Allow -> Deny SG0220".to_owned()),
        (TAG, json!({"input": {}}), "Allow -> Deny SG0221".to_owned()),
        (CLASH, json!({}), "Allow -> Deny SG0223".to_owned()),
        (KEY, json!({}), "Allow -> Deny SG0224".to_owned()),
        (USER, json!({"input": null}), "it has no input ".to_owned()),
        (
            USER,
            json!({"input": null, "erased": ["/input"]}),
            "its input was withheld ".to_owned(),
        ),
        (
            USER,
            json!({"erased": ["/result"], "result": null}),
            "its result was removed ".to_owned(),
        ),
        (
            USER,
            json!({"erased": ["/input/user"]}),
            format!("{REMOVED} /input/user"),
        ),
        (
            USER,
            json!({"masked": ["/input/User/name"]}),
            format!("{REMOVED} /input/User/name"),
        ),
        (
            USER,
            json!({"erased": ["/input/tags", "/result/body"]}),
            "same".to_owned(),
        ),
        (TAG, json!({"masked": ["/input/tags/1"]}), "same".to_owned()),
        (
            TAG,
            json!({"erased": ["/input/tags/1"]}),
            format!("{REMOVED} /input/tags/1"),
        ),
        (
            TAG,
            json!({"erased": ["/input/ta%67s"]}),
            format!("{REMOVED} /input/ta%67s"),
        ),
        (
            ALL,
            json!({"erased": ["/input/x"]}),
            format!("{REMOVED} /input/x"),
        ),
        (
            WITH,
            json!({"erased": ["/input/x"]}),
            format!("{REMOVED} /input/x"),
        ),
    ] {
        assert_eq!(
            replayed(policy, changes.clone()),
            expected,
            "{policy}{changes}"
        );
    }
}

#[test]
fn decisions_about_connections_are_asked_by_their_own_rule() {
    const SILENT: &str = "package envoy.authz\nallow := false\n";
    const NO_RULE: &str = "package sidegate.connect\ndeny := true\n";
    const EVE: &str = "package sidegate.connect\ndefault allow := false\nallow := {\"allowed\": true} if input.user == \"eve\"\n";
    const MAX: &str = "package sidegate.connect\nallow := {\"allowed\": false, \"reason\": \"max only\"} if input.user == \"eve\"\n";
    const STATUS: &str =
        "package sidegate.connect\nallow := {\"allowed\": true, \"http_status\": 200}\n";
    let connect = |changes: Json| {
        let mut event = json!({"path": "sidegate/connect/allow"});
        event
            .as_object_mut()
            .unwrap()
            .append(&mut changes.as_object().unwrap().clone());
        event
    };
    for (policy, changes, expected) in [
        (EVE, json!({}), "same"),
        (EVE, json!({"result": {"allowed": true}}), "same"),
        (
            EVE,
            json!({"result": {"allowed": false, "reason": "no"}}),
            "Deny -> Allow ",
        ),
        (
            EVE,
            json!({"input": {"user": "max"}}),
            "Allow -> Deny SG0220",
        ),
        (MAX, json!({}), "Allow -> Deny SG0220"),
        (MAX, json!({"input": {}}), "Allow -> Deny SG0221"),
        (STATUS, json!({}), "Allow -> Deny SG0224"),
        (
            EVE,
            json!({"erased": ["/input/user"]}),
            "the policy reads what was removed from the log /input/user",
        ),
        // Who says nothing of connections lets them in, whatever becomes of their requests.
        (SILENT, json!({}), "same"),
        (SILENT, json!({"result": false}), "Deny -> Allow "),
        (
            SILENT,
            json!({"input": null, "erased": ["/input", "/result"]}),
            "its result was removed ",
        ),
    ] {
        let changes = connect(changes);
        assert_eq!(
            replayed(policy, changes.clone()),
            expected,
            "{policy}{changes}"
        );
    }
    let found = replayed(NO_RULE, connect(json!({})));
    assert!(found.contains("sidegate/connect/allow"), "{found}");
}

#[test]
fn no_other_entrypoint_is_asked_about_connections_and_none_of_theirs_about_requests() {
    let policy = "package a\nb if input.user == \"eve\"\n";
    let connect = "package sidegate.connect\nallow := false\n";
    let replayed = |entrypoint: &str, path: &str| {
        let sources = PolicySources::from_modules([("p.rego", policy), ("c.rego", connect)]);
        let mut replay = Replay::new(sources.unwrap(), Some(entrypoint.to_owned()), LIMIT).unwrap();
        let mut event = event("eve");
        event["path"] = json!(path);
        replay.decide(&serde_json::from_value(event).unwrap())
    };
    let allow = Verdict::Allow;
    let same = Replayed::Same { verdict: allow };
    assert_eq!(replayed("a/b", "envoy/authz/allow"), same);
    let found = replayed("a/b", "sidegate/connect/allow");
    assert!(
        matches!(
            found,
            Replayed::Changed {
                after: Verdict::Deny,
                ..
            }
        ),
        "{found:?}"
    );
    let found = replayed("/sidegate/connect/allow", "envoy/authz/allow");
    let expected = Replayed::NotReplayable {
        reason: "it is no decision about a connection".to_owned(),
        paths: Vec::new(),
    };
    assert_eq!(found, expected);
}

#[test]
fn a_log_of_many_entrypoints_does_not_keep_them_all() {
    let text = "package envoy.authz\nallow := true\n";
    let sources = PolicySources::from_modules([("p.rego", text)]).unwrap();
    let mut replay = Replay::new(sources, None, LIMIT).unwrap();
    for number in 0..100 {
        let mut event = event("e");
        event["path"] = json!(format!("a/b{number}"));
        let event: LoggedDecision = serde_json::from_value(event).unwrap();
        let found = replay.decide(&event);
        assert!(matches!(found, Replayed::NotReplayable { .. }), "{found:?}");
        assert!(replay.points.len() <= ENTRYPOINTS);
    }
}

#[test]
fn a_policy_that_could_not_be_put_into_service_is_refused() {
    for (policy, code) in [
        ("package envoy.authz\nallow if http.send({})\n", "SG0211"),
        ("package envoy.authz\nallow if allow\n", "SG0285"),
        ("package envoy.authz\nallow if\n", "SG0207"),
    ] {
        let sources = PolicySources::from_modules([("p.rego", policy)]).unwrap();
        let refused = Replay::new(sources, None, LIMIT).map(drop).unwrap_err();
        assert_eq!(refused.code(), code, "{policy}");
    }
}
