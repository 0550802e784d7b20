//! A policy that changes while it decides.

mod connect;
mod cut;
mod load;

use std::path::PathBuf;

use serde_json::Value;
use sidegate_tests::{Output, Sidegate, until};
use tempfile::TempDir;

use crate::support::{Client, access_line, counter, finish, folder, logged, up, write};

const ALLOWS: &str = "package envoy.authz\nallow := true\n";
const DENIES: &str = "package envoy.authz\nallow := false\n";

/// A `sidegate up` whose policy is a directory that is edited.
struct Gate {
    sidegate: Sidegate,
    policy: PathBuf,
    _folder: TempDir,
}

impl Gate {
    fn up(rego: &str) -> Self {
        let folder = folder();
        write(folder.path(), "policy/policy.rego", rego);
        let policy = folder.path().join("policy");
        let sidegate = up(&folder, &["--policy", policy.to_str().unwrap()]);
        Self {
            sidegate,
            policy,
            _folder: folder,
        }
    }

    fn generation(&self) -> u64 {
        counter(&self.sidegate, "sidegate_policy_generation", &[]) as u64
    }

    /// Edits the policy at one blow, without waiting for what comes of it.
    fn write(&self, rego: &str) {
        self.put("policy.rego", rego);
    }

    /// Puts a file in the place of another.
    fn put(&self, name: &str, content: &str) {
        let new = write(&self.policy, ".new", content);
        let path = self.policy.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    /// Edits the policy, and waits until it decides.
    fn change(&self, rego: &str) -> u64 {
        let before = self.generation();
        self.write(rego);
        self.is_changed(before)
    }

    /// Waits for another generation.
    fn is_changed(&self, before: u64) -> u64 {
        until("another generation", || {
            let now = self.generation();
            (now > before).then_some(now)
        })
    }

    /// `sidegate policy …`.
    fn policy(&self, arguments: &[&str]) -> Output {
        let mut command = Sidegate::command("policy");
        let state = &self.sidegate.ready.state;
        finish(command.args(arguments).arg("--state").arg(state))
    }

    /// The same, as JSON; panics unless it ends with this status.
    fn ask(&self, action: &str, status: i32) -> Value {
        let output = self.policy(&[action, "-o", "json"]);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        serde_json::from_str(&output.stdout).unwrap()
    }

    /// The text of `sidegate check`; panics unless it ends with this status.
    fn check(&self, status: i32) -> String {
        let mut command = Sidegate::command("check");
        let output = finish(command.arg("--state").arg(&self.sidegate.ready.state));
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        output.stdout
    }

    fn loads(&self, result: &str) -> u64 {
        let label = format!("result=\"{result}\"");
        counter(&self.sidegate, "sidegate_policy_loads_total", &[&label]) as u64
    }
}

async fn status(client: &Client) -> u16 {
    client.get("/status/200").await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_the_directory_decides_on_connections_that_are_kept() {
    let gate = Gate::up(ALLOWS);
    let client = Client::demo(&gate.sidegate);
    let mut http1 = client.http1().await;
    let mut http2 = client.http2().await;
    let mut expect = async |expected: u16, generation: u64| {
        for answer in [
            cut::send1(&mut http1, "/status/200").await,
            cut::send2(&mut http2, "/status/200").await,
        ] {
            let answer = answer.unwrap();
            assert_eq!(answer.status, expected, "{answer:?}");
            let line = access_line(&gate.sidegate, answer.header("x-request-id"));
            assert_eq!(line["policy_generation"], generation, "{line}");
        }
    };
    expect(200, 1).await;
    assert_eq!(gate.change(DENIES), 2);
    expect(403, 2).await;
    // Data counts too.
    let follows_data = "package envoy.authz\nallow if data.teams.open\n";
    assert_eq!(gate.change(follows_data), 3);
    expect(403, 3).await;
    for (open, generation, status) in [(true, 4, 200), (false, 5, 403)] {
        gate.put("teams/data.json", &format!("{{\"open\": {open}}}"));
        assert_eq!(gate.is_changed(generation - 1), generation);
        expect(status, generation).await;
    }
    let facts = gate.ask("status", 0);
    assert_eq!(facts["generation"], 5, "{facts}");
    assert_eq!(facts["previous"], 4, "{facts}");
    assert_eq!((gate.loads("success"), gate.loads("failure")), (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_edit_keeps_the_last_good_policy_and_is_told_everywhere() {
    let gate = Gate::up(ALLOWS);
    let client = Client::demo(&gate.sidegate);
    assert!(gate.check(0).contains("generation 1"));
    for (rego, code, part) in [
        (
            "package envoy.authz\nallow := {\n",
            "SG0207",
            "policy.rego:3:",
        ),
        (
            "package envoy.authz\nallow := false\ntest_no if false\n",
            "SG0213",
            "test_no",
        ),
        ("package other\nallow := true\n", "SG0210", "envoy/authz"),
    ] {
        let before = gate.loads("failure");
        gate.write(rego);
        until("a failure", || {
            (gate.loads("failure") > before).then_some(())
        });
        assert_eq!(status(&client).await, 200);
        let check = gate.check(1);
        assert!(check.contains("× newest sources are the policy"), "{check}");
        assert!(check.contains(&format!("[{code}]")), "{check}");
        assert!(check.contains(part), "{check}");
        let facts = gate.ask("status", 1);
        assert_eq!(facts["refused"]["code"], code, "{facts}");
        assert_eq!(facts["generation"], 1, "{facts}");
        assert!(gate.policy(&["status"]).stdout.contains(part));
        logged(&gate.sidegate, &[code, "generation=1"]);
    }
    // Sources that are gone are no policy either.
    let before = gate.loads("failure");
    std::fs::remove_file(gate.policy.join("policy.rego")).unwrap();
    until("a failure", || {
        (gate.loads("failure") > before).then_some(())
    });
    assert!(gate.check(1).contains("[SG0204]"));
    assert_eq!(status(&client).await, 200);
    assert_eq!(gate.generation(), 1);

    // Back to what decides: all is well, and nothing has changed.
    gate.write(ALLOWS);
    until("no refused sources", || {
        gate.policy(&["status"]).status.success().then_some(())
    });
    assert_eq!(gate.generation(), 1);
    gate.check(0);
    assert_eq!(gate.change(DENIES), 2);
    assert_eq!(status(&client).await, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_returns_to_the_policy_before_and_forward_again() {
    let gate = Gate::up(ALLOWS);
    let client = Client::demo(&gate.sidegate);
    for (format, said) in [("text", false), ("json", true)] {
        let refused = gate.policy(&["rollback", "-o", format]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(refused.stderr.contains("error[SG0251]"), "{refused:?}");
        assert_eq!(refused.stdout.contains("\"SG0251\""), said, "{refused:?}");
    }
    assert_eq!(gate.change(DENIES), 2);
    assert_eq!(status(&client).await, 403);

    let facts = gate.ask("rollback", 0);
    assert_eq!(facts["generation"], 3, "{facts}");
    assert_eq!(facts["sources_of"], 1, "{facts}");
    assert_eq!(facts["previous"], 2, "{facts}");
    assert_eq!(status(&client).await, 200);
    let check = gate.check(0);
    assert!(check.contains("‼ policy decides"), "{check}");
    assert!(check.contains("[SG0253]"), "{check}");
    let text = gate.policy(&["status"]);
    assert!(text.status.success(), "{text:?}");
    assert!(
        text.stdout.contains("3, the sources of 1 since"),
        "{text:?}"
    );

    let facts = gate.ask("rollback", 0);
    assert_eq!(
        (&facts["generation"], &facts["sources_of"]),
        (&4.into(), &2.into())
    );
    assert_eq!(status(&client).await, 403);
    assert!(!gate.check(0).contains("SG0253"));

    // The next edit counts, whatever was gone back from.
    gate.ask("rollback", 0);
    assert_eq!(status(&client).await, 200);
    let edited = format!("{DENIES}# edited\n");
    assert_eq!(gate.change(&edited), 6);
    assert_eq!(status(&client).await, 403);
    assert_eq!(gate.ask("rollback", 0)["sources_of"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_that_is_mounted_again_is_the_new_policy() {
    let folder = folder();
    let mount = folder.path().join("mount");
    for (version, rego) in [("..1", ALLOWS), ("..2", DENIES)] {
        write(&mount, &format!("{version}/policy.rego"), rego);
    }
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, mount.join(name)).unwrap();
    link("..1", "..data");
    link("..data/policy.rego", "policy.rego");
    let gate = up(&folder, &["--policy", mount.to_str().unwrap()]);
    let client = Client::demo(&gate);
    assert_eq!(status(&client).await, 200);
    link("..2", "..data_tmp");
    std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    until("another generation", || {
        (counter(&gate, "sidegate_policy_generation", &[]) > 1.5).then_some(())
    });
    assert_eq!(status(&client).await, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_makes_denials_jump_is_told_until_it_is_taken_back() {
    let gate = Gate::up(ALLOWS);
    let client = Client::demo(&gate.sidegate);
    let jump = || counter(&gate.sidegate, "sidegate_policy_denial_jump", &[]) > 0.5;
    let mut connection = client.http1().await;
    let mut ask = async |expected: u16| {
        for _ in 0..40 {
            let answer = cut::send1(&mut connection, "/status/200").await.unwrap();
            assert_eq!(answer.status, expected);
        }
    };
    ask(200).await;
    assert_eq!(gate.change(DENIES), 2);
    assert!(!jump(), "nothing was denied yet");
    ask(403).await;
    until("a jump", || jump().then_some(()));
    logged(&gate.sidegate, &["SG0252", "generation=2"]);
    let check = gate.check(1);
    assert!(check.contains("× denials are as before"), "{check}");
    assert!(check.contains("100 % of the requests"), "{check}");
    let facts = gate.ask("status", 1);
    assert_eq!(facts["denials"]["after"], 1.0, "{facts}");
    gate.ask("rollback", 0);
    assert!(!jump());
    ask(200).await;
    gate.check(0);
}
