//! A real Envoy as the client-side sidecar of a local application. It has no certificate files: its
//! identity and the trust bundle come by SDS from our Workload API socket.

mod bootstrap;
mod http;
mod process;

use std::collections::BTreeSet;

use sidegate_tests::{Sidegate, Tool, skip, tool, until};

use crate::support::{folder, logged};
pub(crate) use bootstrap::Bootstrap;
pub(crate) use process::Envoy;

const NO_ARGUMENTS: [&str; 0] = [];

/// A cluster that asks for a name which nobody has, as Istio's gateways do on the same socket. It
/// waits for it for a second only, instead of Envoy's fifteen.
const CLUSTER_WITH_UNKNOWN_SECRET: &str = r#"
    - name: unused
      load_assignment: { cluster_name: unused }
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          common_tls_context:
            tls_certificate_sds_secret_configs:
              - name: default
                sds_config: *workload_api
            validation_context_sds_secret_config:
              name: "file-root:system"
              sds_config:
                initial_fetch_timeout: 1s
                resource_api_version: V3
                api_config_source:
                  api_type: GRPC
                  transport_api_version: V3
                  grpc_services:
                    - envoy_grpc: { cluster_name: workload_api }
"#;

#[test]
fn the_example_bootstrap_is_valid_and_its_requests_are_decided_by_the_spiffe_id_from_sds() {
    let Some(binary) = tool(Tool::Envoy) else {
        return skip("the_example_bootstrap_is_valid", Tool::Envoy);
    };
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let bootstrap = Bootstrap::example(&gate);

    let validation = Envoy::validate(&binary, &bootstrap);
    assert!(validation.status.success(), "{}", validation.stderr);

    let envoy = Envoy::start(&binary, &bootstrap);
    let allowed = envoy.get("/hello");
    assert_eq!(allowed.status, 200, "{}", envoy.log());
    assert!(
        allowed
            .body
            .contains("You are spiffe://sidegate.local/demo\n"),
        "{}",
        allowed.body
    );
    assert_eq!(envoy.get("/admin").status, 403);

    // Envoy's word for the connection agrees: one handshake, nobody refused.
    assert_eq!(envoy.stat("cluster.sidegate.ssl.handshake"), 1);
    assert_eq!(envoy.stat("cluster.sidegate.ssl.fail_verify_san"), 0);
    assert_eq!(envoy.stat("cluster.sidegate.ssl.versions.TLSv1.3"), 1);
    gate.stop();
}

#[test]
fn the_access_log_names_the_envoys_identity_and_both_verdicts() {
    let Some(binary) = tool(Tool::Envoy) else {
        return skip("the_access_log_names_the_envoys_identity", Tool::Envoy);
    };
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let envoy = Envoy::start(&binary, &Bootstrap::example(&gate));
    envoy.get("/hello");
    envoy.get("/admin");

    let lines = until("two lines in the access log", || {
        let lines = access_log(&gate);
        (lines.len() >= 2).then_some(lines)
    });
    let seen: Vec<_> = lines
        .iter()
        .map(|line| [&line["peer"], &line["path"], &line["verdict"]].map(|value| value.as_str()))
        .collect();
    let demo = Some("spiffe://sidegate.local/demo");
    assert_eq!(
        seen,
        [
            [demo, Some("/hello"), Some("allow")],
            [demo, Some("/admin"), Some("deny")],
        ]
    );
}

#[test]
fn envoy_holds_the_two_secrets_under_the_names_that_it_asked_for() {
    let Some(binary) = tool(Tool::Envoy) else {
        return skip("envoy_holds_the_two_secrets", Tool::Envoy);
    };
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let envoy = Envoy::start(&binary, &Bootstrap::example(&gate));

    assert_eq!(active_secrets(&envoy), names(["ROOTCA", "default"]));

    let shown = &envoy.admin("/certs")["certificates"][0];
    let own = &shown["cert_chain"][0]["subject_alt_names"];
    assert_eq!(own[0]["uri"], "spiffe://sidegate.local/demo", "{shown}");
    let authority = &shown["ca_cert"][0]["subject_alt_names"];
    assert_eq!(authority[0]["uri"], "spiffe://sidegate.local", "{shown}");
}

#[test]
fn an_envoy_that_expects_another_workload_refuses_our_server() {
    let Some(binary) = tool(Tool::Envoy) else {
        return skip("an_envoy_that_expects_another_workload", Tool::Envoy);
    };
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let bootstrap = Bootstrap::example(&gate).replace(
        "exact: \"spiffe://sidegate.local/hello\"",
        "exact: \"spiffe://sidegate.local/other\"",
    );
    let envoy = Envoy::start(&binary, &bootstrap);

    assert_eq!(envoy.get("/hello").status, 503);
    assert!(envoy.stat("cluster.sidegate.ssl.fail_verify_san") >= 1);
    assert_eq!(access_log(&gate).len(), 0, "no request came through");
}

#[test]
fn a_secret_that_nobody_has_does_not_harm_the_others() {
    let Some(binary) = tool(Tool::Envoy) else {
        return skip("a_secret_that_nobody_has", Tool::Envoy);
    };
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let bootstrap = Bootstrap::example(&gate).with_cluster(CLUSTER_WITH_UNKNOWN_SECRET);
    let envoy = Envoy::start(&binary, &bootstrap);

    assert_eq!(envoy.get("/hello").status, 200, "{}", envoy.log());
    assert_eq!(active_secrets(&envoy), names(["ROOTCA", "default"]));
    // Envoy has a stream for each name. All are left open: none was refused and tried again.
    for count in ["upstream_rq_total", "upstream_rq_active"] {
        let streams = envoy.stat(&format!("cluster.workload_api.{count}"));
        assert_eq!(streams, 3, "{count}: {}", envoy.log());
    }
}

#[test]
fn an_envoy_that_stops_at_tls_1_2_fails_and_the_log_says_what_to_set() {
    let Some(binary) = tool(Tool::Envoy) else {
        return skip("an_envoy_that_stops_at_tls_1_2", Tool::Envoy);
    };
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let bootstrap = Bootstrap::example(&gate).replace(
        "tls_maximum_protocol_version: TLSv1_3",
        "tls_maximum_protocol_version: TLSv1_2",
    );
    let envoy = Envoy::start(&binary, &bootstrap);

    assert_eq!(envoy.get("/hello").status, 503);
    logged(&gate, &["TLSv1_3", "code=\"SG0"]);
    assert_eq!(access_log(&gate).len(), 0, "no request came through");
}

/// The names of the secrets that Envoy has received.
fn active_secrets(envoy: &Envoy) -> BTreeSet<String> {
    let dump = envoy.admin("/config_dump?resource=dynamic_active_secrets");
    dump["configs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|secret| secret["version_info"] != "uninitialized")
        .filter_map(|secret| secret["name"].as_str())
        .map(ToOwned::to_owned)
        .collect()
}

fn names<const COUNT: usize>(names: [&str; COUNT]) -> BTreeSet<String> {
    names.map(ToOwned::to_owned).into()
}

/// The requests that our proxy has logged so far.
fn access_log(gate: &Sidegate) -> Vec<serde_json::Value> {
    // Under `up` it goes to standard error, beside the diagnostics.
    let output = gate.process.stderr();
    output
        .lines()
        .filter(|line| line.starts_with('{') && line.contains("\"request_id\""))
        .map(|line| serde_json::from_str(line).expect("it is JSON"))
        .collect()
}
