//! go-spiffe in two trust domains.

use serde_json::{Value, json};
use sidegate_tests::{Running, Sidegate, until};

use super::{Foreign, OTHER, bundle, set};
use crate::go_spiffe::client::{GoClient, documents};
use crate::support::{Operator, folder, identity_only, own_entry, spiffe_id, write};

#[test]
fn go_has_both_trust_domains_in_its_x509_context_for_as_long_as_both_are_known() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = start(folder.path());
    let Some(client) = GoClient::of(&gate, "go_has_both_trust_domains") else {
        return;
    };
    let operator = Operator::of(&gate);
    let mut watch = client.start(&["watch"]);
    let bundles = |watch: &mut Running, number: usize| {
        until(&format!("update {number}"), || {
            let line = printed(watch).into_iter().nth(number)?;
            assert_eq!(line["svids"][0]["verified"], spiffe_id("/demo"), "{line}");
            Some(line["bundles"].clone())
        })
    };
    let own = json!({"sidegate.local": 1});
    assert_eq!(bundles(&mut watch, 0), own);
    foreign.is_known_to(&operator);
    let both = json!({"sidegate.local": 1, OTHER: 1});
    assert_eq!(bundles(&mut watch, 1), both);
    assert_eq!(client.ask(&["x509"])[0]["bundles"], both);
    foreign
        .operator()
        .ask(&["rotate", "x509", "--prepare-only"]);
    foreign.is_known_to(&operator);
    let more = json!({"sidegate.local": 1, OTHER: 2});
    assert_eq!(bundles(&mut watch, 2), more);
    foreign.is_forgotten_by(&operator);
    assert_eq!(bundles(&mut watch, 3), own);
}

#[test]
fn go_in_one_trust_domain_talks_to_go_in_the_other_once_each_knows_the_other() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = start(folder.path());
    let Some(ours) = GoClient::of(&gate, "go_in_one_trust_domain") else {
        return;
    };
    let theirs = GoClient::of(&foreign.gate, "go_in_the_other").expect("it is the same");
    let operator = Operator::of(&gate);
    let own = bundle(&operator, None).to_string();
    let own = write(folder.path(), "own.json", own);
    let (ours_id, theirs_id) = (spiffe_id("/demo"), foreign.id());
    let mut server = ours.start(&["serve", &theirs_id]);
    let url = until("the server's address", || printed(&mut server).pop());
    let url = format!("https://{}/", url["address"].as_str().expect("an address"));
    let get = ["get", &url, &ours_id];

    let refused = theirs.refusal(&get);
    let message = refused["message"].as_str().expect("a message");
    assert!(message.contains("sidegate.local"), "{message}");
    set(&foreign.operator(), "sidegate.local", &own);
    // Now the client knows the server, but not the server the client.
    theirs.refusal(&get);
    foreign.is_known_to(&operator);
    // The server is told by its stream, which is not the one that we see.
    until("the server knows the client", || {
        let output = theirs.run(&get);
        let answers = documents(&output.stdout);
        let all = answers.iter().all(|answer| answer["status"] == 200);
        (output.status.success() && all).then_some(())
    });
    for answer in theirs.ask(&get) {
        assert_eq!(answer["body"], theirs_id, "the client's SPIFFE ID");
    }
    let refused = ours.refusal(&get);
    assert!(refused["error"].is_string(), "only the foreign client may");

    foreign.is_forgotten_by(&operator);
    until("the server does not know the client", || {
        (!theirs.run(&get).status.success()).then_some(())
    });
}

/// What a client that still runs has printed so far, whole lines only.
fn printed(client: &mut Running) -> Vec<Value> {
    assert!(client.is_running(), "{}", client.stderr());
    let stdout = client.stdout();
    documents(stdout.rsplit_once('\n').map_or("", |(whole, _)| whole))
}

/// An instance with one entry, for the user who runs the tests, that federates with other.example.
fn start(folder: &std::path::Path) -> Sidegate {
    let entry = own_entry("/demo") + "federates_with = [\"other.example\"]\n";
    Sidegate::run(&identity_only(folder, &entry))
}
