//! A candidate policy, decided beside the one that decides.

mod bundles;

use std::path::{Path, PathBuf};

use serde_json::Value;
use sidegate_tests::{Output, Sidegate, until};
use tempfile::TempDir;

use crate::support::{Client, Configuration, counter, finish, folder, logged, write};

const ALLOWS: &str = "package envoy.authz\nallow := true\n";
const DENIES: &str = "package envoy.authz\nallow := false\n";

/// Longer than any decision may take.
const LOOPS: &str = r"
package envoy.authz

allow if {
    some i in numbers.range(1, 4000)
    some j in numbers.range(1, 4000)
    i * j < 0
}
";

/// An instance with a policy and a candidate.
struct Trial {
    sidegate: Sidegate,
    client: Client,
    candidate: PathBuf,
    _folder: TempDir,
}

impl Trial {
    fn start(live: &str, candidate: &str, more: &str) -> Self {
        let folder = folder();
        write(folder.path(), "live/policy.rego", live);
        let candidate = write(folder.path(), "next/policy.rego", candidate);
        let (sidegate, client) = configuration(more).start(folder.path());
        Self {
            sidegate,
            client,
            candidate,
            _folder: folder,
        }
    }

    async fn status(&self, path: &str) -> u16 {
        self.client.get(path).await.status.as_u16()
    }

    fn count(&self, result: &str) -> u64 {
        counted(&self.sidegate, result)
    }

    /// Waits until so many decisions have this result.
    fn counted(&self, result: &str, expected: u64) {
        until(&format!("{expected} of {result}"), || {
            (self.count(result) >= expected).then_some(())
        });
        assert_eq!(self.count(result), expected, "{result}");
    }

    fn policy(&self, arguments: &[&str]) -> Output {
        policy(&self.sidegate, arguments)
    }

    fn ask(&self, action: &str, status: i32) -> Value {
        ask(&self.sidegate, action, status)
    }

    fn check(&self) -> String {
        let mut command = Sidegate::command("check");
        finish(command.arg("--state").arg(&self.sidegate.ready.state)).stdout
    }

    /// Edits a file at one blow.
    fn put(&self, path: &Path, rego: &str) {
        let new = write(path.parent().unwrap(), ".new", rego);
        std::fs::rename(new, path).unwrap();
    }

    fn generation(&self) -> u64 {
        counter(&self.sidegate, "sidegate_policy_generation", &[]) as u64
    }
}

fn configuration(more: &str) -> Configuration {
    Configuration::new().rest(&format!(
        "[policy]\npath = \"live\"\ntimeout = \"1s\"\n[policy.shadow]\npath = \"next\"\n{more}\n"
    ))
}

fn counted(sidegate: &Sidegate, result: &str) -> u64 {
    let label = format!("result=\"{result}\"");
    counter(sidegate, "sidegate_policy_shadow_total", &[&label]) as u64
}

/// `sidegate policy …`.
fn policy(sidegate: &Sidegate, arguments: &[&str]) -> Output {
    let mut command = Sidegate::command("policy");
    let state = &sidegate.ready.state;
    finish(command.args(arguments).arg("--state").arg(state))
}

/// The same, as JSON; panics unless it ends with this status.
fn ask(sidegate: &Sidegate, action: &str, status: i32) -> Value {
    let output = policy(sidegate, &[action, "-o", "json"]);
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    let facts: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(facts["schema"], 1, "{facts}");
    facts
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_candidate_would_deny_is_allowed_counted_and_logged_with_both_results() {
    let candidate = r#"
package envoy.authz
default allow := false
allow if input.parsed_path[1] == "200"
allow := {"allowed": true, "headers": {"x-user": "s3cret-value"}} if input.parsed_path[1] == "201"
"#;
    let trial = Trial::start(ALLOWS, candidate, "");
    let denied = trial.client.get("/status/202").await;
    assert_eq!(denied.status, 202);
    assert_eq!(trial.status("/status/200").await, 200);
    assert_eq!(trial.status("/status/201").await, 201);
    trial.counted("allowed_to_denied", 1);
    trial.counted("same", 1);
    trial.counted("edits", 1);

    let id = denied.header("x-request-id");
    let line = logged(&trial.sidegate, &["SG0254", "allowed_to_denied", id]);
    for part in ["decision_id=", "live=allow", "candidate=deny with 403"] {
        assert!(line.contains(part), "{line}");
    }
    let line = logged(&trial.sidegate, &["SG0254", "edits"]);
    assert!(line.contains("request header x-user"), "{line}");

    // Nothing of it is a decision.
    let verdict = |verdict: &str| {
        let labels = [
            "decision_point=\"ingress\"",
            &format!("verdict=\"{verdict}\""),
        ];
        counter(&trial.sidegate, "sidegate_authz_decisions_total", &labels) as u64
    };
    assert_eq!((verdict("allow"), verdict("deny")), (3, 0));

    let facts = trial.ask("status", 0);
    let shadow = &facts["shadow"];
    assert!(
        shadow["path"].as_str().unwrap().ends_with("next"),
        "{facts}"
    );
    for (key, expected) in [
        ("compared", 3),
        ("same", 1),
        ("allowed_to_denied", 1),
        ("denied_to_allowed", 0),
        ("edits", 1),
        ("error", 0),
        ("dropped", 0),
        ("generation", 1),
    ] {
        assert_eq!(shadow[key], expected, "{key}: {facts}");
    }
    let text = trial.policy(&["status"]).stdout;
    let comparison = "3 compared with generation 1, 2 differ (1 allowed to denied, 1 other edits)";
    assert!(text.contains(comparison), "{text}");
    assert!(trial.check().contains(comparison), "{}", trial.check());
    let output = trial.sidegate.stop();
    assert!(!output.stderr.contains("s3cret"), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_decision_log_and_the_candidate_hear_of_the_same_decision() {
    let trial = Trial::start(
        ALLOWS,
        DENIES,
        "[decision_log]\noutput = \"file\"\npath = \"decisions.log\"\n",
    );
    assert_eq!(trial.status("/status/200").await, 200);
    trial.counted("allowed_to_denied", 1);
    let line = logged(&trial.sidegate, &["SG0254"]);
    let log = trial._folder.path().join("decisions.log");
    let event: Value = until("an event", || {
        let text = std::fs::read_to_string(&log).ok()?;
        serde_json::from_str(text.lines().next()?).ok()
    });
    let id = event["decision_id"].as_str().unwrap();
    assert!(line.contains(id), "{line}\n{event}");
    assert_eq!(event["result"], true);
    assert_eq!(event["input"]["parsed_path"][1], "200", "{event}");
    trial.sidegate.stop();
    // The candidate's decisions are not in it.
    assert_eq!(std::fs::read_to_string(log).unwrap().lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_never_answers_holds_no_request_and_is_counted() {
    let trial = Trial::start(ALLOWS, LOOPS, "");
    for _ in 0..5 {
        assert_eq!(trial.status("/status/200").await, 200);
    }
    assert!(
        trial.count("error") < 5,
        "a request waited for the candidate"
    );
    trial.counted("error", 5);
    let line = logged(&trial.sidegate, &["SG0254", "result=\"error\""]);
    assert!(line.contains("SG0222"), "{line}");
    let facts = trial.ask("status", 0);
    assert_eq!(facts["shadow"]["error"], 5, "{facts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_sample_of_nothing_nothing_is_compared() {
    let trial = Trial::start(ALLOWS, DENIES, "sample = 0\n");
    let live = trial._folder.path().join("live/policy.rego");
    for _ in 0..20 {
        assert_eq!(trial.status("/status/200").await, 200);
    }
    // What was compared would be counted by the time that the policy has changed.
    trial.put(&live, DENIES);
    until("another generation", || {
        (trial.generation() == 2).then_some(())
    });
    assert_eq!(trial.status("/status/200").await, 403);
    for result in [
        "same",
        "allowed_to_denied",
        "denied_to_allowed",
        "edits",
        "error",
        "dropped",
    ] {
        assert_eq!(trial.count(result), 0, "{result}");
    }
    let text = trial.policy(&["status"]).stdout;
    assert!(text.contains("asked about 0 of the requests"), "{text}");
    assert!(text.contains("nothing compared yet"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_candidate_decides_until_it_is_taken_back_and_survives_no_restart() {
    let trial = Trial::start(ALLOWS, DENIES, "");
    assert_eq!(trial.status("/status/200").await, 200);
    trial.counted("allowed_to_denied", 1);

    let facts = trial.ask("promote", 0);
    assert_eq!(facts["is_changed"], true, "{facts}");
    assert_eq!(facts["is_promoted"], true, "{facts}");
    assert_eq!(facts["generation"], 2, "{facts}");
    assert_eq!(facts["previous"], 1, "{facts}");
    assert_eq!(trial.status("/status/200").await, 403);
    // From here on the same sources are compared.
    trial.counted("same", 1);
    logged(&trial.sidegate, &["SG0256", "generation=2"]);
    let check = trial.check();
    assert!(check.contains("‼ configured policy decides"), "{check}");
    assert!(check.contains("[SG0256]"), "{check}");
    let status = trial.policy(&["status"]);
    assert!(status.status.success(), "{status:?}");
    assert!(status.stdout.contains("the next start loads"), "{status:?}");
    assert!(
        status.stdout.contains("1 compared with generation 2"),
        "{status:?}"
    );

    // A second time there is nothing to do.
    let facts = trial.ask("promote", 1);
    assert_eq!(facts["is_changed"], false, "{facts}");
    assert_eq!(facts["generation"], 2, "{facts}");

    let facts = trial.ask("rollback", 0);
    assert_eq!(facts["generation"], 3, "{facts}");
    assert_eq!(facts["sources_of"], 1, "{facts}");
    assert_eq!(facts["is_promoted"], false, "{facts}");
    assert_eq!(trial.status("/status/200").await, 200);
    let check = trial.check();
    assert!(
        !check.contains("SG0256") && !check.contains("SG0253"),
        "{check}"
    );
    // Forward again, by either way.
    let facts = trial.ask("promote", 0);
    assert_eq!(facts["generation"], 4, "{facts}");
    assert_eq!(trial.status("/status/200").await, 403);
    trial.ask("rollback", 0);
    let facts = trial.ask("rollback", 0);
    assert_eq!(facts["is_promoted"], true, "{facts}");

    let Trial {
        sidegate,
        client,
        _folder: folder,
        ..
    } = trial;
    assert_eq!(client.get("/status/200").await.status, 403);
    sidegate.stop();
    let (_sidegate, client) = configuration("").start(folder.path());
    assert_eq!(client.get("/status/200").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_candidate_that_is_configured_is_as_any_other_policy() {
    let trial = Trial::start(ALLOWS, DENIES, "");
    let live = trial._folder.path().join("live/policy.rego");
    trial.ask("promote", 0);
    assert_eq!(trial.status("/status/200").await, 403);
    trial.put(&live, DENIES);
    until("no warning", || {
        (!trial.check().contains("SG0256")).then_some(())
    });
    assert_eq!(trial.ask("status", 0)["generation"], 2);
    // What is configured afterwards counts as ever.
    let again = format!("{ALLOWS}# again\n");
    trial.put(&live, &again);
    until("another generation", || {
        (trial.generation() == 3).then_some(())
    });
    assert_eq!(trial.status("/status/200").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_candidate_keeps_the_last_one_and_is_not_promoted() {
    let trial = Trial::start(ALLOWS, DENIES, "");
    trial.put(&trial.candidate, "package envoy.authz\nallow := {\n");
    let facts = until("refused sources", || {
        let output = trial.policy(&["status", "-o", "json"]);
        (output.status.code() == Some(1)).then_some(output.stdout)
    });
    let facts: Value = serde_json::from_str(&facts).unwrap();
    assert_eq!(facts["shadow"]["refused"]["code"], "SG0207", "{facts}");
    assert_eq!(facts.get("refused"), None, "{facts}");
    logged(&trial.sidegate, &["SG0207", "a new candidate is refused"]);
    let check = trial.check();
    assert!(check.contains("‼ candidate is compared"), "{check}");
    assert!(check.contains("[SG0207]"), "{check}");
    // The last one is compared all the same; the policy is not concerned.
    assert_eq!(trial.status("/status/200").await, 200);
    trial.counted("allowed_to_denied", 1);
    for format in ["text", "json"] {
        let refused = trial.policy(&["promote", "-o", format]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(refused.stderr.contains("error[SG0257]"), "{refused:?}");
        assert!(refused.stderr.contains("SG0207"), "{refused:?}");
        match format {
            "json" => assert!(
                refused.stdout.contains("\"code\":\"SG0257\""),
                "{refused:?}"
            ),
            _ => assert_eq!(refused.stdout, ""),
        }
    }
    assert_eq!(trial.status("/status/200").await, 200);

    trial.put(&trial.candidate, ALLOWS);
    until("another candidate", || {
        trial.policy(&["status"]).status.success().then_some(())
    });
    assert_eq!(trial.status("/status/200").await, 200);
    trial.counted("same", 1);
    let facts = trial.ask("status", 0);
    assert_eq!(facts["shadow"]["compared"], 1, "{facts}");
    // It is the policy, by another path.
    assert_eq!(trial.ask("promote", 1)["is_promoted"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_candidate_nothing_is_promoted() {
    let folder = folder();
    let (sidegate, client) = Configuration::new().start(folder.path());
    let refused = policy(&sidegate, &["promote"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(refused.stderr.contains("error[SG0255]"), "{refused:?}");
    assert_eq!(ask(&sidegate, "status", 0).get("shadow"), None);
    assert_eq!(client.get("/headers").await.status, 200);
}

#[test]
fn a_candidate_that_cannot_be_loaded_at_start_is_refused_at_its_place() {
    let folder = folder();
    write(folder.path(), "live/policy.rego", ALLOWS);
    write(
        folder.path(),
        "next/policy.rego",
        "package envoy.authz\nallow := {\n",
    );
    let file = configuration("").write(folder.path());
    for command in ["run", "check"] {
        let output = finish(Sidegate::command(command).arg("--config").arg(&file));
        assert!(!output.status.success(), "{output:?}");
        let told = output.stdout + &output.stderr;
        assert!(told.contains("SG0207"), "{told}");
        assert!(told.contains("path = \"next\""), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_the_stock_policy_a_candidate_may_be_a_bundle() {
    let folder = folder();
    let bundle = crate::bundles::tarball(&[
        ("/.manifest", r#"{"revision": "r1", "rego_version": 0}"#),
        (
            "/policy.rego",
            "package envoy.authz\nallow { input.parsed_path[0] == \"no\" }\n",
        ),
    ]);
    write(folder.path(), "next.tar.gz", bundle);
    let (sidegate, client) = Configuration::new()
        .rest("[policy.shadow]\npath = \"next.tar.gz\"\n")
        .start(folder.path());
    assert_eq!(client.get("/headers").await.status, 200);
    until("a comparison", || {
        (counted(&sidegate, "allowed_to_denied") == 1).then_some(())
    });
    assert_eq!(ask(&sidegate, "promote", 0)["is_promoted"], true);
    assert_eq!(client.get("/headers").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_a_manifest_is_a_candidate_as_the_bundle_that_it_is() {
    let folder = folder();
    let v0 = "package envoy.authz\nallow { input.parsed_path[0] == \"no\" }\n";
    write(folder.path(), "next/policy.rego", v0);
    let manifest = |more: &str| format!(r#"{{"rego_version": 0{more}}}"#);
    write(folder.path(), "next/.manifest", manifest(""));
    write(folder.path(), "live/policy.rego", ALLOWS);
    let (sidegate, client) = configuration("").start(folder.path());
    assert_eq!(client.get("/headers").await.status, 200);
    until("a comparison", || {
        (counted(&sidegate, "allowed_to_denied") == 1).then_some(())
    });
    // Its roots count, and a signature that nobody can verify.
    let refused = |code: &str| {
        until(code, || {
            let output = policy(&sidegate, &["status", "-o", "json"]);
            let facts: Value = serde_json::from_str(&output.stdout).ok()?;
            (facts["shadow"]["refused"]["code"] == code).then_some(())
        });
        let promoted = policy(&sidegate, &["promote"]);
        assert_eq!(promoted.status.code(), Some(2), "{promoted:?}");
        assert!(promoted.stderr.contains(code), "{promoted:?}");
    };
    let roots = manifest(r#", "roots": ["other"]"#);
    write(folder.path(), "next/.manifest", roots);
    refused("SG0238");
    write(folder.path(), "next/.manifest", manifest(""));
    let signatures = r#"{"signatures": ["a.b.c"]}"#;
    write(folder.path(), "next/.signatures.json", signatures);
    refused("SG0241");
    sidegate.stop();
    let file = configuration("").write(folder.path());
    let output = finish(Sidegate::command("run").arg("--config").arg(&file));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains("SG0241"), "{output:?}");
}
