//! `sidegate check --config`: what `sidegate run` would refuse, and nothing changed.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::Value;
use sidegate_tests::{Output, Running, Sidegate, root, until};

use super::{check, json, problem, problems, rows};
use crate::state::content;
use crate::support::{Configuration, finish, folder, write};

/// Something wrong in a folder with a configuration, and the rows that show it.
struct Case {
    what: &'static str,
    prepare: fn(&Path) -> Configuration,
    expected: &'static [(&'static str, &'static str)],
}

fn check_file(file: &Path) -> Output {
    check(&["-o", "json", "--config", file.to_str().unwrap()])
}

/// A configuration with lines after its identity section.
fn with(entries: &str) -> Configuration {
    let mut configuration = Configuration::new();
    configuration.entries.insert_str(0, entries);
    configuration
}

fn listener(section: &str) -> Configuration {
    Configuration::new().listener(&format!("[[listener]]\nname = \"main\"\n{section}\n"))
}

/// A state directory that was used, and its instance gone.
fn used(folder: &Path) {
    drop(Configuration::new().start(folder));
}

const CASES: &[Case] = &[
    Case {
        what: "two problems of the text",
        prepare: |_| listener("listen = \"nowhere\"\ncomponent = \"prob\""),
        expected: &[("configuration", "SG0023"), ("configuration", "SG0030")],
    },
    Case {
        what: "an entry that anyone could take over, and one outside the trust domain",
        prepare: |_| {
            with(
                "[[identity.entry]]\nspiffe_id = \"spiffe://sidegate.local/x\"\n\
                 selectors = [\"component:name:probe\"]\n\
                 [[identity.entry]]\nspiffe_id = \"spiffe://else.test/x\"\n\
                 selectors = [\"unix:uid:1\"]\n",
            )
        },
        expected: &[("entries", "SG0108"), ("entries", "SG0102")],
    },
    Case {
        what: "entries of run time that cannot be read",
        prepare: |folder| {
            used(folder);
            write(folder, "state/entries.json", "{}");
            Configuration::new()
        },
        expected: &[("entries", "SG0137")],
    },
    Case {
        what: "a policy with an error",
        prepare: |folder| {
            write(folder, "policy/a.rego", "package envoy.authz\nallow :=");
            Configuration::new().rest("[policy]\npath = \"policy\"\n")
        },
        expected: &[("policy", "SG0207")],
    },
    Case {
        what: "a component that is none",
        prepare: |folder| {
            write(folder, "text.wasm", "(component)");
            let other = "[[component]]\nname = \"other\"\npath = \"text.wasm\"\n";
            Configuration::new().rest(other)
        },
        expected: &[("component", "SG0402")],
    },
    Case {
        what: "a component that is not there",
        prepare: |_| {
            let other = "[[component]]\nname = \"other\"\npath = \"other.wasm\"\n";
            Configuration::new().rest(other)
        },
        expected: &[("component", "SG0041")],
    },
    Case {
        what: "a listener without an entry",
        prepare: |_| listener("listen = \"127.0.0.1:0\"\nupstream = \"http://127.0.0.1:9\""),
        expected: &[("listener-identity", "SG0042")],
    },
    Case {
        what: "a listener with somebody else's identity",
        prepare: |_| {
            listener(
                "listen = \"127.0.0.1:0\"\ncomponent = \"probe\"\n\
                 spiffe_id = \"spiffe://sidegate.local/demo\"",
            )
        },
        expected: &[("listener-identity", "SG0043")],
    },
    Case {
        what: "an address that this machine does not have",
        prepare: |_| listener("listen = \"192.0.2.1:8443\"\ncomponent = \"probe\""),
        expected: &[("listener-address", "SG0302")],
    },
    Case {
        what: "a state directory that is somebody else's",
        prepare: |folder| {
            write(folder, "state/notes.txt", "mine");
            Configuration::new()
        },
        expected: &[("state-directory", "SG0002")],
    },
    Case {
        what: "a state directory of another trust domain",
        prepare: |folder| {
            used(folder);
            let marker = folder.join("state/state.json");
            let text = fs::read_to_string(&marker).unwrap();
            fs::write(marker, text.replace("sidegate.local", "else.test")).unwrap();
            Configuration::new()
        },
        expected: &[("state-directory", "SG0003")],
    },
    Case {
        what: "a state directory that others can enter",
        prepare: |folder| {
            used(folder);
            let open = Permissions::from_mode(0o750);
            fs::set_permissions(folder.join("state"), open).unwrap();
            Configuration::new()
        },
        expected: &[("state-directory", "SG0005")],
    },
    Case {
        what: "an authority and keys that are damaged",
        prepare: |folder| {
            used(folder);
            write(folder, "state/authority.pem", "garbage");
            write(folder, "state/jwt_keys.json", "{}");
            Configuration::new()
        },
        expected: &[("x509-authority", "SG0121"), ("jwt-authority", "SG0127")],
    },
    Case {
        what: "an authority that was not brought along",
        prepare: |_| with("[identity.embedded]\ncertificate = \"ca.pem\"\nkey = \"ca.key\"\n"),
        expected: &[("x509-authority", "SG0120")],
    },
    Case {
        what: "SVID files that others could replace",
        prepare: |folder| {
            fs::create_dir(folder.join("demo")).unwrap();
            let open = Permissions::from_mode(0o777);
            fs::set_permissions(folder.join("demo"), open).unwrap();
            Configuration::new()
        },
        expected: &[("svid-files", "SG0141")],
    },
    Case {
        what: "a file where the socket is to be",
        prepare: |folder| {
            write(folder, "workload.sock", "a file");
            Configuration::new()
        },
        expected: &[("workload-socket", "SG0007")],
    },
];

#[test]
fn what_run_would_refuse_has_its_row_and_nothing_is_changed() {
    let mut wrong = Vec::new();
    for case in CASES {
        let folder = folder();
        let file = (case.prepare)(folder.path()).write(folder.path());
        let before = content(folder.path());
        let output = check_file(&file);
        let (code, document) = json(&output);
        let expected: Vec<_> = case
            .expected
            .iter()
            .map(|(id, code)| ((*id).to_owned(), (*code).to_owned()))
            .collect();
        if code != Some(1) || problems(&document) != expected {
            wrong.push(format!("{}: {document}", case.what));
        }
        assert_eq!(content(folder.path()), before, "{}", case.what);

        // `run` says the same, or the first of it.
        let refused = run(&file);
        let (_, first) = case.expected[0];
        if !refused.stderr.contains(&format!("error[{first}]")) {
            wrong.push(format!("{}: {refused:?}", case.what));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `sidegate run`, which does not start.
fn run(file: &Path) -> Output {
    let mut process = Running::start(Sidegate::command("run").arg("--config").arg(file));
    until("a refusal", || (!process.is_running()).then_some(()));
    let output = process.wait();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    output
}

#[test]
fn problems_of_the_text_are_shown_as_run_shows_them() {
    let folder = folder();
    let file = listener("listen = \"nowhere\"\ncomponent = \"prob\"").write(folder.path());
    let output = check(&["--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let refused = run(&file);
    for line in refused.stderr.lines() {
        let shown = output
            .stdout
            .lines()
            .any(|it| it.trim_start() == line.trim_start());
        assert!(shown, "{line}: {}", output.stdout);
    }
    let last = "Status check results are ×    (0 ok, 0 warnings, 2 failed)\n";
    assert!(output.stdout.ends_with(last), "{}", output.stdout);
}

#[test]
fn the_example_could_be_started_and_nothing_is_made() {
    let folder = folder();
    let file = Configuration::new().write(folder.path());
    let before = content(folder.path());
    let (code, document) = json(&check_file(&file));
    assert_eq!((code, problems(&document)), (Some(0), Vec::new()));
    assert_eq!(content(folder.path()), before);
    drop(Sidegate::run(&file));

    let example = root().join("examples/sidegate.toml");
    let (_, document) = json(&check_file(&example));
    // Its ports and its state may be in use on this machine; what is written in it is right.
    let written = [
        "configuration",
        "entries",
        "policy",
        "component",
        "listener-identity",
    ];
    for (id, result, _) in rows(&document) {
        assert!(result == "ok" || !written.contains(&id.as_str()), "{id}");
    }
}

#[test]
fn what_its_own_running_instance_uses_is_no_problem_but_what_others_use_is() {
    let folder = folder();
    let gate = Configuration::new().start(folder.path()).0;
    let [own] = gate.ready.listeners.as_slice() else {
        panic!("one listener")
    };
    let admin = gate.ready.admin.trim_start_matches("http://");
    let fixed = |listen: &str, admin: &str| {
        let section = format!("listen = \"{listen}\"\ncomponent = \"probe\"");
        let text = listener(&section).text();
        let text = text.replace(
            "[admin]\nlisten = \"127.0.0.1:0\"",
            &format!("[admin]\nlisten = \"{admin}\""),
        );
        json(&check_file(&write(folder.path(), "sidegate.toml", text)))
    };
    let before = content(&folder.path().join("state"));
    let (code, document) = fixed(&own.address, admin);
    assert_eq!(code, Some(0), "{document}");
    let detail = |id: &str| detail(&document, id);
    assert!(detail("state-directory").contains(&gate.process.pid().to_string()));
    for id in ["admin-address", "listener-address"] {
        assert!(detail(id).ends_with("in use by the running instance"));
    }
    assert_eq!(content(&folder.path().join("state")), before);

    drop(gate);
    let others = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [listen, admin] = others
        .each_ref()
        .map(|it| it.local_addr().unwrap().to_string());
    let (code, document) = fixed(&listen, &admin);
    assert_eq!(code, Some(1));
    let expected = [
        problem("admin-address", "SG0046"),
        problem("listener-address", "SG0301"),
    ];
    assert_eq!(problems(&document), expected.concat());
}

fn detail(document: &Value, id: &str) -> String {
    let categories = document["categories"].as_array().unwrap();
    let mut checks = categories
        .iter()
        .flat_map(|it| it["checks"].as_array().unwrap());
    let check = checks.find(|check| check["id"] == id).expect("it is there");
    check["detail"].as_str().unwrap().to_owned()
}

#[test]
fn a_socket_that_another_process_serves_is_refused() {
    let folder = folder();
    let file = Configuration::new().write(folder.path());
    let other = UnixListener::bind(folder.path().join("workload.sock")).unwrap();
    let (code, document) = json(&check_file(&file));
    assert_eq!(code, Some(1));
    assert_eq!(problems(&document), problem("workload-socket", "SG0007"));
    // What a dead process left behind is no problem, and is left for `run` to replace.
    drop(other);
    let (code, document) = json(&check_file(&file));
    assert_eq!((code, problems(&document)), (Some(0), Vec::new()));
    assert!(folder.path().join("workload.sock").exists());
}

#[test]
fn a_file_that_cannot_be_read_and_arguments_that_contradict_each_other_are_no_answer() {
    let folder = folder();
    let missing = folder.path().join("missing.toml");
    let output = check_file(&missing);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains("error[SG0010]"), "{output:?}");

    let file = Configuration::new().write(folder.path());
    let file = file.to_str().unwrap();
    let output = check(&["--config", file, "--state", "elsewhere"]);
    assert_eq!(output.status.code(), Some(2));
    // The variable is for the commands that have no file.
    let mut command = Sidegate::command("check");
    command
        .args(["--config", file])
        .env("SIDEGATE_STATE", "elsewhere");
    assert_eq!(finish(&mut command).status.code(), Some(0));
}
