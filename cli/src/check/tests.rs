use std::path::Path;

use serde_json::{Value, json};
use sidegate_identity::embedded::AuthorityKind;
use sidegate_identity::slots::{AuthorityStatus, Phase};

use super::running::{Seen, rows};
use super::*;
use crate::admin::Status;

const DAY: u64 = 24 * 3600;

/// An hour after everything began.
const NOW: u64 = 1_800_000_000;

fn healthy() -> Value {
    json!({
        "schema": 1,
        "version": "1.2.3",
        "pid": 42,
        "uid": 1000,
        "now": NOW,
        "trust_domain": "one.test",
        "missing": [],
        "failing": [],
        "generation": 7,
        "entries": {"configuration": 2, "runtime": 1},
        "svids": [
            {"spiffe_id": "spiffe://one.test/a", "issued_at": NOW - 3000, "not_after": NOW + 3000},
            {"spiffe_id": "spiffe://one.test/b", "issued_at": NOW - 1200, "not_after": NOW + 2400},
        ],
        "authorities": {
            "x509": [authority_of("active", 364)],
            "jwt": [authority_of("active", 20), authority_of("old", 1)],
        },
        "workload_socket": "unix:///state/workload.sock",
        "admin": "127.0.0.1:15900",
        "policy": {"entrypoint": "a/b/allow", "generation": 1, "modules": 1, "tests": 0},
        "listeners": [{
            "name": "main",
            "address": "127.0.0.1:8443",
            "spiffe_id": "spiffe://one.test/a",
            "has_svid": true,
        }],
        "components": [{"name": "hello", "digest": "sha256:00"}],
    })
}

/// An authority that has lived for a day and has so many days left.
fn authority_of(phase: &str, days: u64) -> Value {
    let end = NOW + days * DAY;
    json!({"id": format!("{phase}-id"), "phase": phase, "not_before": NOW - DAY, "not_after": end})
}

fn seen() -> Seen {
    Seen {
        directory: Ok(()),
        workload_api: Ok(()),
    }
}

fn report(status: Value, seen: Seen, strict: bool) -> Report {
    let status: Status = serde_json::from_value(status).unwrap();
    Report::new(rows(Path::new("/state"), &status, seen), strict)
}

/// The healthy instance, with values replaced.
fn with(changes: &[(&str, Value)]) -> Value {
    let mut status = healthy();
    for (pointer, value) in changes {
        match status.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            // A key that is left out where there is nothing to be said.
            None => status[pointer.trim_start_matches('/')] = value.clone(),
        }
    }
    status
}

/// The rows that are not well, as text.
fn problems(report: &Report) -> String {
    let mut text = String::new();
    for check in report.checks().filter(|check| check.result != Outcome::Ok) {
        check.write(&mut text, 0, false);
    }
    text
}

#[test]
fn a_healthy_instance_is_shown_whole() {
    let report = report(healthy(), seen(), true);
    assert!(report.is_success());
    assert_eq!(
        report.text(false),
        "\
state
-----
√ state directory is private  /state
√ instance answers            sidegate 1.2.3, process 42, trust domain one.test
√ instance is ready           http://127.0.0.1:15900/readyz

identity
--------
√ entries are valid           2 in the configuration, 1 made at run time
√ X.509-SVIDs are fresh       2, the first ends in 40m
√ X.509 authority is valid    active-id, for 364 days
√ JWT authority is valid      active-id, for 20 days

workload API
------------
√ Workload API answers        unix:///state/workload.sock

policy
------
√ policy decides              the stock policy, a/b/allow, 1 module, 0 tests passed, generation 1

listeners
---------
√ listener has an identity    main, 127.0.0.1:8443, spiffe://one.test/a

components
----------
√ component is loaded         hello, sha256:00

Status check results are √    (11 ok, 0 warnings, 0 failed)
"
    );
}

#[test]
fn each_fact_that_is_not_well_has_its_row() {
    let brought = || ("/brought", json!("/ca.pem"));
    let root = |value: Value| ("/authorities/x509", json!([value]));
    let ends_soon = "\
‼ X.509 authority is valid  active-id, for 30 days
    it ends soon and has no successor   [SG0182]
    hint: renew /ca.pem and restart
";
    let policy = |more: Value| {
        let mut policy = json!({
            "entrypoint": "a/b/allow", "generation": 5, "modules": 1, "tests": 0, "path": "/p",
        });
        let (all, more) = (policy.as_object_mut().unwrap(), more.as_object().unwrap());
        all.extend(more.clone());
        ("/policy", policy)
    };
    let shadow = |more: Value| {
        let mut shadow = json!({
            "path": "/next", "sample": 1.0, "modules": 2, "tests": 1, "since": NOW,
            "generation": 5, "compared": 9, "same": 8, "allowed_to_denied": 0,
            "denied_to_allowed": 1, "edits": 0, "error": 0, "dropped": 0,
        });
        let (all, more) = (shadow.as_object_mut().unwrap(), more.as_object().unwrap());
        all.extend(more.clone());
        shadow
    };
    let cases: &[(&[(&str, Value)], &str)] = &[
        (&[], ""),
        (
            &[policy(json!({
                "refused": {"at": NOW, "code": "SG0207", "message": "modules:\na.rego:1:1"},
            }))],
            "\
× newest sources are the policy
    modules:
    a.rego:1:1   [SG0207]
    hint: generation 5 decides until they are mended
",
        ),
        (
            &[policy(json!({"denials": {"before": 0.014, "after": 1.0}}))],
            "\
× denials are as before
    100 % of the requests are denied, and 1 % were before the policy changed   [SG0252]
    hint: if that was not meant, `sidegate policy rollback`
",
        ),
        (
            &[policy(
                json!({"sources_of": 3, "is_rolled_back": true, "previous": 4}),
            )],
            "\
‼ policy decides  /p, a/b/allow, 1 module, 0 tests passed, generation 5
    it was rolled back to the sources of generation 3   [SG0253]
    hint: change the sources; or `sidegate policy rollback` again, to return to them
",
        ),
        (
            &[policy(json!({"is_promoted": true}))],
            "\
‼ configured policy decides
    the candidate was promoted: the next start loads /p again   [SG0256]
    hint: make the candidate's sources those of the configuration; or `sidegate policy rollback`
",
        ),
        (
            &[policy(json!({"shadow": shadow(json!({
                "refused": {"at": NOW, "code": "SG0204", "message": "no modules"},
            }))}))],
            "\
‼ candidate is compared  /next, 2 modules, 1 test passed; 9 compared with generation 5, 1 differ (1 denied to allowed)
    no modules   [SG0204]
    hint: the last candidate is compared until its files are mended
",
        ),
        (&[policy(json!({"shadow": shadow(json!({}))}))], ""),
        (
            &[policy(json!({"bundles": [
                {"name": "a", "revision": "", "kept": false},
                {"name": "b", "revision": "r1", "etag": "\"1\"", "kept": true,
                 "error": {"code": "SG0230", "message": "down"}},
            ]}))],
            "\
‼ bundle is up to date  b, revision r1, etag \"1\", kept from an earlier run
    down   [SG0230]
    hint: the one in use stays; it is tried again
",
        ),
        (
            &[policy(json!({"decision_log": {
                "written": 7, "waiting": 2, "error": "status 500", "lost": 0,
            }}))],
            "\
‼ decisions are logged  7 logged, 2 wait for the receiver
    status 500   [SG0263]
    hint: it is tried again; what `decision_log.buffer_size` does not hold is lost
",
        ),
        // The last that waited was refused.
        (
            &[policy(json!({"decision_log": {
                "written": 7, "waiting": 0, "error": "status 413", "lost": 3,
                "lost_because": "refused: status 413",
            }}))],
            "\
× decisions are logged  7 logged
    3 were lost in the last minutes: refused: status 413   [SG0269]
    hint: `sidegate_decision_log_dropped_total` counts them by the reason
",
        ),
        (
            &[policy(json!({"decision_log": {
                "written": 7, "waiting": 2, "error": null, "lost": 0,
            }}))],
            "",
        ),
        // Forward again.
        (&[policy(json!({"sources_of": 4, "previous": 5}))], ""),
        (
            &[("/failing", json!(["the disk is full [SG0120]"]))],
            "\
‼ everything is renewed
    the disk is full [SG0120]   [SG0149]
    hint: it is tried again each second; look at the log
",
        ),
        (&[("/svids/0/not_after", json!(NOW + 1500))], ""),
        (
            &[("/svids/0/not_after", json!(NOW + 1499))],
            "\
‼ X.509-SVIDs are fresh  spiffe://one.test/a
    two thirds of its life are over, 24m are left   [SG0180]
    hint: it is renewed at half of its life; the log says why it is not
",
        ),
        (
            &[("/svids/1/not_after", json!(NOW))],
            "\
× X.509-SVIDs are fresh  spiffe://one.test/b
    it expired 0s ago   [SG0181]
    hint: the log says why it is not renewed
",
        ),
        (&[("/svids", json!([]))], ""),
        (
            &[("/authorities/x509", json!([]))],
            "\
× X.509 authority is valid
    none is valid: nothing new can be signed   [SG0184]
    hint: the log says why no other is made
",
        ),
        (
            &[("/authorities/jwt/0/not_after", json!(NOW))],
            "\
× JWT authority is valid
    none is valid: nothing new can be signed   [SG0184]
    hint: the log says why no other is made
",
        ),
        // A day of six is the last sixth.
        (
            &[("/authorities/x509/0/not_after", json!(NOW + DAY / 5 + 1))],
            "",
        ),
        (
            &[("/authorities/x509/0/not_after", json!(NOW + DAY / 5))],
            "\
‼ X.509 authority is valid  active-id, for 4h
    it ends soon and has no successor   [SG0182]
    hint: the log says why none is made
",
        ),
        (
            &[(
                "/authorities/x509",
                json!([authority_of("active", 0), authority_of("prepared", 1)]),
            )],
            "\
× X.509 authority is valid
    none is valid: nothing new can be signed   [SG0184]
    hint: the log says why no other is made
",
        ),
        (
            &[(
                "/authorities/jwt",
                json!([
                    {"id": "k", "phase": "active", "not_before": 0, "not_after": NOW + DAY},
                    authority_of("prepared", 1),
                ]),
            )],
            "",
        ),
        (
            &[
                brought(),
                root(json!({
                    "id": "active-id", "phase": "active", "not_before": 0, "not_after": NOW + 30 * DAY,
                })),
            ],
            ends_soon,
        ),
        (
            &[
                brought(),
                root(json!({
                    "id": "active-id", "phase": "active", "not_before": 0,
                    "not_after": NOW + 30 * DAY + 1,
                })),
            ],
            "",
        ),
        // One that lives for a week is not renewed a month before.
        (&[brought(), root(authority_of("active", 6))], ""),
        (
            &[brought(), root(authority_of("active", 0))],
            "\
× X.509 authority is valid  /ca.pem
    none is valid: nothing new can be signed   [SG0184]
    hint: renew /ca.pem and restart
",
        ),
        (
            &[(
                "/authorities/jwt",
                json!([authority_of("tainted", 1), authority_of("active", 2)]),
            )],
            "\
‼ tainted authorities are revoked  tainted-id
    peers still accept what it has signed   [SG0183]
    hint: once every workload has a new SVID: sidegate identity revoke jwt
",
        ),
        (
            &[("/listeners/0/has_svid", json!(false))],
            "\
× listener has an identity  main, 127.0.0.1:8443, spiffe://one.test/a
    its entry was removed: it refuses every connection   [SG0042]
    hint: make the entry again, or restart with another that matches
",
        ),
    ];
    for (changes, expected) in cases {
        let report = report(with(changes), seen(), false);
        assert_eq!(problems(&report), *expected, "{changes:?}");
        assert_eq!(report.is_success(), !expected.contains('×'), "{changes:?}");
    }
}

#[test]
fn what_the_command_line_sees_has_its_rows_too() {
    let seen = Seen {
        directory: Err(Failure::message("SG0005", "it is open").help("chmod")),
        workload_api: Err("nobody answers".to_owned()),
    };
    let changes = [
        ("/missing", json!(["draining"])),
        ("/admin_tls", json!(true)),
    ];
    let report = report(with(&changes), seen, false);
    assert_eq!(
        problems(&report),
        "\
× state directory is private  /state
    it is open   [SG0005]
    hint: chmod
× instance is ready  https://127.0.0.1:15900/readyz
    draining   [SG0060]
× Workload API answers  unix:///state/workload.sock
    nobody answers   [SG0050]
"
    );
    assert!(!report.is_success());
}

#[test]
fn a_warning_is_a_failure_only_if_it_is_told_to_be() {
    let tainted = json!([authority_of("tainted", 1), authority_of("active", 2)]);
    let status = || with(&[("/authorities/x509", tainted.clone())]);
    for (strict, success) in [(false, true), (true, false)] {
        let report = report(status(), seen(), strict);
        assert_eq!(report.is_success(), success);
        let text = report.text(false);
        let last = "Status check results are ‼    (11 ok, 1 warning, 0 failed)\n";
        assert!(text.ends_with(last), "{text}");
    }
}

#[test]
fn the_json_has_what_the_text_has() {
    let checks = vec![
        Check::ok("a", "it is so", "x"),
        Check::ok("b", "it is so", "y").warning("SG0180", "not for long"),
        Check::ok("c", "it is so", "z")
            .error("SG0181", "no")
            .hint("mend it"),
    ];
    let category = Category::new("one", checks).unwrap();
    assert!(Category::new("none", Vec::new()).is_none());
    let report = Report::new(vec![category], false);
    assert_eq!(
        serde_json::to_value(&report).unwrap(),
        json!({
            "schema": 1,
            "success": false,
            "categories": [{"name": "one", "checks": [
                {"id": "a", "result": "ok", "description": "it is so", "detail": "x"},
                {
                    "id": "b", "result": "warning", "description": "it is so", "detail": "y",
                    "code": "SG0180", "reason": "not for long",
                },
                {
                    "id": "c", "result": "error", "description": "it is so", "detail": "z",
                    "code": "SG0181", "reason": "no", "hint": "mend it",
                },
            ]}],
        })
    );
}

#[test]
fn colors_are_all_that_a_terminal_gets_more() {
    let changes = [
        ("/missing", json!(["draining"])),
        ("/listeners/0/has_svid", json!(false)),
    ];
    let report = report(with(&changes), seen(), false);
    let (plain, mut colored) = (report.text(false), report.text(true));
    assert_ne!(plain, colored);
    assert!(!plain.contains('\x1b'));
    for escape in ["\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[0m"] {
        assert!(colored.contains(escape), "{escape:?}");
        colored = colored.replace(escape, "");
    }
    assert_eq!(plain, colored);
}

#[test]
fn an_authority_that_is_kept_is_made_or_replaced_at_the_start() {
    let kept = |phase, not_after| AuthorityStatus {
        id: "id".to_owned(),
        phase,
        not_before: 0,
        not_after,
    };
    let cases = [
        (AuthorityKind::X509, vec![], "√ none yet: it will be made"),
        (
            AuthorityKind::X509,
            vec![kept(Phase::Old, NOW), kept(Phase::Active, NOW + DAY)],
            "√ for 24h",
        ),
        (
            AuthorityKind::X509,
            vec![kept(Phase::Active, NOW - 60)],
            "‼ expired: it will be replaced",
        ),
        (
            AuthorityKind::Jwt,
            vec![kept(Phase::Active, NOW - 60)],
            "√ expired: it will be replaced",
        ),
        (
            AuthorityKind::Jwt,
            vec![kept(Phase::Active, NOW + 60), kept(Phase::Tainted, NOW)],
            "√ for 60s, ‼ id",
        ),
    ];
    for (kind, all, expected) in cases {
        let rows = kept_authority(kind, &all, NOW);
        let shown: Vec<_> = rows
            .iter()
            .map(|row| format!("{} {}", row.result.mark(false), row.detail))
            .collect();
        assert_eq!(shown.join(", "), expected);
    }
}

#[test]
fn each_problem_of_a_file_has_a_row_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidegate.toml");
    std::fs::write(&path, "[identity]\ntrust_domain = \"é\"\n  stat = 1\n").unwrap();
    let refused = crate::config::load(&path).map_err(Failure::from);
    let rows = Check::ok("configuration", "configuration is valid", "").unless(refused);
    let places: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.detail.rsplit_once("toml").unwrap().1,
                row.code.as_deref(),
            )
        })
        .collect();
    assert!(places.contains(&(":2:16", Some("SG0020"))), "{places:?}");
    assert!(places.contains(&(":3:3", Some("SG0013"))), "{places:?}");
    let mut text = String::new();
    rows.iter().for_each(|row| row.write(&mut text, 0, false));
    assert!(text.contains("    3 |   stat = 1\n"), "{text}");
}

#[test]
fn a_span_of_time_is_told_in_one_unit() {
    let cases = [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7199, "119m"),
        (7200, "2h"),
    ];
    for (seconds, expected) in cases {
        assert_eq!(span(seconds), expected);
    }
    assert_eq!(span(2 * DAY - 1), "47h");
    assert_eq!(span(2 * DAY), "2 days");
}
