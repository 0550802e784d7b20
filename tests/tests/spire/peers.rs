//! Clients that others wrote, with identities that the server signed: Envoy, go-spiffe, py-spiffe.

use sidegate_tests::{Tool, skip, tool};
use tokio::task::block_in_place;

use super::gate::{DEMO, GREETER, Machine};
use super::server::{Kind, Options, SpireServer, id};
use crate::envoy::{Bootstrap, Envoy};
use crate::go_spiffe::client::GoClient;
use crate::jwt::peer;

scenarios! {
    envoy_takes_its_identity_and_the_next_one_by_sds(Options::short(12));
    go_spiffe_verifies_what_the_server_signed(Options::default());
    py_spiffe_fetches_and_validates_whatever_it_can(Options::default());
}

async fn envoy_takes_its_identity_and_the_next_one_by_sds<S: SpireServer>(server: S) {
    let Some(binary) = tool(Tool::Envoy) else {
        return skip("spire::envoy_takes_its_identity", Tool::Envoy);
    };
    let machine = Machine::joining(&server);
    machine.register(&server);
    let gate = machine.run();
    let bootstrap = Bootstrap::example(&gate).replace(&id("/hello"), &id(GREETER));
    let envoy = block_in_place(|| Envoy::start(&binary, &bootstrap));
    let asks = || {
        let answer = envoy.get("/hello");
        assert_eq!(answer.status, 200, "{}", envoy.log());
        assert!(answer.body.contains(&id(DEMO)), "{}", answer.body);
    };
    block_in_place(|| {
        asks();
        let before = envoy.serials();
        sidegate_tests::until("another SVID", || {
            asks();
            let now = envoy.serials();
            now.iter()
                .all(|serial| !before.contains(serial))
                .then_some(())
        });
        asks();
        assert_eq!(envoy.stat("cluster.sidegate.ssl.fail_verify_error"), 0);
    });
}

async fn go_spiffe_verifies_what_the_server_signed<S: SpireServer>(server: S) {
    let machine = Machine::joining(&server);
    machine.register(&server);
    let gate = machine.run();
    let Some(client) = GoClient::of(&gate, "spire::go_spiffe_verifies") else {
        return;
    };
    block_in_place(|| {
        let context = client.ask(&["x509"]).remove(0);
        let svid = &context["svids"][0];
        assert_eq!(svid["spiffe_id"], id(DEMO));
        assert_eq!(svid["verified"], id(DEMO));
        let token = client.ask(&["jwt", "shop", "shop"]).remove(0);
        assert_eq!(token["spiffe_id"], id(DEMO));
        let both = serde_json::json!({"by_the_api": "OK", "locally": "OK"});
        assert_eq!(token["validated"], both);
        let url = format!("https://{}/hello", crate::support::address(&gate));
        for answer in client.ask(&["get", &url, &id(GREETER)]) {
            assert_eq!(answer["status"], 200, "{answer}");
        }
    });
    server.rotate(Kind::X509);
    super::gate::eventually("both authorities", async || {
        let context = block_in_place(|| client.ask(&["x509"])).remove(0);
        (context["bundles"]["sidegate.local"] == 2).then_some(())
    })
    .await;
}

async fn py_spiffe_fetches_and_validates_whatever_it_can<S: SpireServer>(server: S) {
    let mut machine = Machine::joining(&server);
    machine.sections = format!(
        "[[identity.audience_rule]]\nspiffe_ids = [{:?}]\naudiences = [\"demo\"]\n",
        id(DEMO)
    );
    machine.register(&server);
    let gate = machine.run();
    let socket = &gate.ready.workload_socket;
    let folder = machine.folder.path();
    let Some(document) = block_in_place(|| peer::ask(folder, socket)) else {
        return skip("spire::py_spiffe_fetches", Tool::Python);
    };
    let demo = id(DEMO);
    assert_eq!(document["x509_svid"]["spiffe_id"], demo);
    assert_eq!(
        document["x509_bundles"],
        serde_json::json!({"sidegate.local": 1})
    );
    let svid = &document["jwt_svid"];
    assert_eq!(svid["spiffe_id"], demo);
    for other in ["selected", "validated", "validated_locally"] {
        assert_eq!(document[other], *svid, "{other}");
    }
    let refused = document["refused"].as_object().expect("refusals");
    for (what, error) in refused {
        assert!(error.is_string(), "{what} was not refused");
    }
}
