//! go-spiffe, as it is, against the Workload API; Go's own verification of certificates, and Go's
//! TLS at both ends.

pub(crate) mod client;

use std::collections::{BTreeMap, BTreeSet};

use nix::unistd::getuid;
use serde_json::{Value, json};
use sidegate_tests::{Running, Sidegate, until};

use crate::support::{Configuration, finish, folder};
use crate::workload_api::many_users::{Entry, ManyUsers, open_folder};
use crate::workload_api::setpriv;
use client::{GoClient, documents, refusal};

const NO_ARGUMENTS: [&str; 0] = [];
const DEMO: &str = "spiffe://sidegate.local/demo";
const COMPONENT: &str = "spiffe://sidegate.local/hello";
const OTHER: &str = "spiffe://sidegate.local/other";

#[test]
fn go_verifies_the_svid_with_its_bundle_for_clients_and_for_servers() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let Some(client) = GoClient::of(&gate, "go_verifies_the_svid_with_its_bundle") else {
        return;
    };
    let context = only(client.ask(&["x509"]));
    let svid = only_svid(&context);
    assert_eq!(svid["spiffe_id"], DEMO);
    assert_eq!(svid["verified"], DEMO);
    assert_eq!(svid["certificates"], 2, "leaf and intermediate");
    assert_eq!(svid["hint"], "");
    assert_eq!(context["bundles"], json!({"sidegate.local": 1}));
}

#[test]
fn every_svid_of_the_caller_comes_verified_with_its_own_hint() {
    let folder = folder();
    let mut configuration = Configuration::new();
    let uid = getuid();
    for name in ["inside", "outside"] {
        let entry = format!(
            r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/{name}"
selectors = ["unix:uid:{uid}"]
hint = "{name} only"
"#
        );
        configuration.entries.push_str(&entry);
    }
    let gate = Sidegate::run(&configuration.write(folder.path()));
    let Some(client) = GoClient::of(&gate, "every_svid_of_the_caller_comes_verified") else {
        return;
    };
    let context = only(client.ask(&["x509"]));
    let text = |svid: &Value, key: &str| svid[key].as_str().expect("a text").to_owned();
    let svids = context["svids"].as_array().expect("there are SVIDs");
    let hints: BTreeMap<_, _> = svids
        .iter()
        .map(|svid| (text(svid, "verified"), text(svid, "hint")))
        .collect();
    let expected = [
        (DEMO, ""),
        ("spiffe://sidegate.local/inside", "inside only"),
        ("spiffe://sidegate.local/outside", "outside only"),
    ];
    let expected = expected.map(|(id, hint)| (id.to_owned(), hint.to_owned()));
    assert_eq!(hints, BTreeMap::from(expected));
    assert_eq!(svids.len(), hints.len());
    // go-spiffe takes the first one where the application does not choose.
    assert_eq!(svids[0]["spiffe_id"], DEMO);
}

#[test]
fn a_watch_receives_each_new_svid_before_the_last_one_expires() {
    let state = folder();
    let gate = Sidegate::up(state.path(), ["--svid-ttl", "10s"]);
    let Some(client) = GoClient::of(&gate, "a_watch_receives_each_new_svid") else {
        return;
    };
    let mut watch = client.start(&["watch"]);
    let updates = until("three SVIDs", || {
        let updates = printed(&mut watch);
        let serials: BTreeSet<_> = updates
            .iter()
            .map(|update| only_svid(update)["serial"].to_string())
            .collect();
        (serials.len() >= 3).then_some(updates)
    });
    let time = |value: &Value| value.as_i64().expect("a time");
    let mut last = None;
    for update in updates {
        let svid = only_svid(&update);
        assert_eq!(svid["verified"], DEMO);
        assert_eq!(update["bundles"], json!({"sidegate.local": 1}));
        let ends = time(&svid["not_after"]);
        let received = time(&update["received"]);
        if let Some(last) = last.replace(ends) {
            assert!(received < last, "{received}: the last one ended at {last}");
            assert!(ends >= last, "{ends}: the last one ended at {last}");
        }
    }
}

#[test]
fn a_watch_is_told_that_sidegate_is_away_and_goes_on_when_it_is_back() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let Some(client) = GoClient::of(&gate, "a_watch_goes_on_when_sidegate_is_back") else {
        return;
    };
    let mut watch = client.start(&["watch"]);
    let before = until("a first update", || printed(&mut watch).pop());
    assert_eq!(only_svid(&before)["verified"], DEMO);

    gate.stop();
    let error = until("an error", || {
        printed(&mut watch)
            .into_iter()
            .find(|line| line["error"].is_string())
    });
    // By the standard a client tries again.
    assert_eq!(error["error"], "Unavailable", "{error}");

    let _gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let after = until("another update", || {
        printed(&mut watch)
            .pop()
            .filter(|line| line["svids"].is_array())
    });
    assert_eq!(only_svid(&after)["verified"], DEMO);
    assert_eq!(after["bundles"], before["bundles"]);
}

#[test]
fn a_jwt_svid_is_valid_by_the_api_and_by_the_bundle_for_its_audience_only() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let Some(client) = GoClient::of(&gate, "a_jwt_svid_is_valid_by_the_api") else {
        return;
    };
    let svid = only(client.ask(&["jwt", "demo", "demo"]));
    assert_eq!(svid["spiffe_id"], DEMO);
    assert_eq!(svid["audience"], json!(["demo"]));
    let both = json!({"by_the_api": "OK", "locally": "OK"});
    assert_eq!(svid["validated"], both);

    let svid = only(client.ask(&["jwt", "demo", "other"]));
    let neither = json!({"by_the_api": "InvalidArgument", "locally": "Unknown"});
    assert_eq!(svid["validated"], neither);

    let refused = client.refusal(&["jwt", "other", "other"]);
    assert_eq!(refused["error"], "PermissionDenied", "{refused}");
}

#[test]
fn a_go_client_is_allowed_and_denied_by_policy_over_mutual_tls() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let Some(client) = GoClient::of(&gate, "a_go_client_is_allowed_and_denied_by_policy") else {
        return;
    };
    let demo = gate.demo();
    for (url, status) in [(&demo.url_allowed, 200), (&demo.url_denied, 403)] {
        let answers = client.ask(&["get", url, COMPONENT]);
        let protocols: Vec<_> = answers.iter().map(|answer| &answer["protocol"]).collect();
        assert_eq!(protocols, ["HTTP/1.1", "HTTP/2.0"], "{url}");
        for answer in &answers {
            assert_eq!(answer["status"], status, "{url}: {answer}");
            let body = answer["body"].as_str().expect("a body");
            assert_eq!(body.contains(DEMO), status == 200, "{url}: {answer}");
        }
    }
    let refused = client.refusal(&["get", &demo.url_allowed, OTHER]);
    let expected = format!("unexpected ID {COMPONENT:?}");
    assert_eq!(refused["message"], expected, "the server's SPIFFE ID");
}

#[test]
fn go_serves_and_connects_with_the_svid_and_checks_who_is_at_the_other_end() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let Some(client) = GoClient::of(&gate, "go_serves_and_connects_with_the_svid") else {
        return;
    };
    let mut server = client.start(&["serve", DEMO]);
    let url = address(&mut server);
    for answer in client.ask(&["get", &url, DEMO]) {
        assert_eq!(answer["status"], 200, "{answer}");
        assert_eq!(answer["body"], DEMO, "the client's SPIFFE ID");
    }
    let refused = client.refusal(&["get", &url, OTHER]);
    assert_eq!(refused["message"], format!("unexpected ID {DEMO:?}"));

    let mut server = client.start(&["serve", OTHER]);
    let url = address(&mut server);
    client.refusal(&["get", &url, DEMO]);
    until("why the server refuses", || {
        let expected = format!("unexpected ID {DEMO:?}");
        server.stderr().contains(&expected).then_some(())
    });
}

#[test]
fn a_user_gets_its_own_svid_and_one_that_no_entry_matches_is_denied() {
    let Some(setpriv) = setpriv("a_go_client_that_no_entry_matches_is_denied") else {
        return;
    };
    let entry = Entry {
        path: "/nobody",
        selectors: vec!["unix:uid:65534".to_owned()],
    };
    let folder = open_folder();
    let path = folder.path().to_owned();
    let users = ManyUsers::start(folder, &[entry]);
    let Some(client) = GoClient::of(&users.gate, "a_user_gets_its_own_svid") else {
        return;
    };
    let client = client.copied_to(&path);

    let output = finish(&mut client.as_user(&setpriv, 65534, &["x509"]));
    let context = only(documents(&output.stdout));
    assert_eq!(
        only_svid(&context)["verified"],
        "spiffe://sidegate.local/nobody"
    );

    for arguments in [&["x509"][..], &["jwt", "demo", "demo"]] {
        let refused = refusal(&mut client.as_user(&setpriv, 65532, arguments));
        assert_eq!(refused["error"], "PermissionDenied", "{refused}");
    }
    let mut watch = Running::start(&mut client.as_user(&setpriv, 65532, &["watch"]));
    let errors = until("go-spiffe to try again", || {
        let lines = printed(&mut watch);
        (lines.len() >= 2).then_some(lines)
    });
    for error in errors {
        assert_eq!(error["error"], "PermissionDenied", "{error}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.ends_with("no identity issued"), "{error}");
    }
}

/// What a client that still runs has printed so far.
fn printed(client: &mut Running) -> Vec<Value> {
    assert!(client.is_running(), "{}", client.stderr());
    documents(&client.stdout())
}

/// Where a server of the client is.
fn address(server: &mut Running) -> String {
    let line = until("the server's address", || printed(server).pop());
    format!("https://{}/", line["address"].as_str().expect("an address"))
}

fn only(documents: Vec<Value>) -> Value {
    let [document] = <[Value; 1]>::try_from(documents).expect("one document");
    document
}

fn only_svid(context: &Value) -> &Value {
    let svids = context["svids"].as_array();
    let [svid] = svids.map(Vec::as_slice).unwrap_or_default() else {
        panic!("one SVID: {context}");
    };
    svid
}
