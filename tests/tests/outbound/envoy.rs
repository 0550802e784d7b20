//! A real Envoy as the peer: it terminates mutual TLS with secrets from our socket.

use sidegate_tests::{Tool, skip, tool};

use super::{Gate, egress, entry, free_port, text};
use crate::envoy::{Bootstrap, Envoy};
use crate::support::{folder, own_uid};

/// An Envoy that answers itself, and tells who asked.
fn bootstrap(port: u16, socket: &str) -> Bootstrap {
    Bootstrap::new(format!(
        r#"
node: {{ id: server, cluster: server }}
admin:
  address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
static_resources:
  listeners:
    - name: application
      address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
      filter_chains:
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              require_client_certificate: true
              common_tls_context:
                alpn_protocols: [h2, http/1.1]
                tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }}
                tls_certificate_sds_secret_configs:
                  - name: default
                    sds_config: &workload_api
                      resource_api_version: V3
                      api_config_source:
                        api_type: GRPC
                        transport_api_version: V3
                        grpc_services:
                          - envoy_grpc: {{ cluster_name: workload_api }}
                combined_validation_context:
                  default_validation_context:
                    match_typed_subject_alt_names:
                      - san_type: URI
                        matcher: {{ exact: "spiffe://sidegate.local/app" }}
                  validation_context_sds_secret_config:
                    name: ROOTCA
                    sds_config: *workload_api
          filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: application
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: {{ prefix: "/" }}
                          direct_response: {{ status: 200, body: {{ inline_string: "from Envoy" }} }}
                          response_headers_to_add:
                            - header: {{ key: x-peer, value: "%DOWNSTREAM_PEER_URI_SAN%" }}
                            - header: {{ key: x-protocol, value: "%PROTOCOL%" }}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
    - name: workload_api
      connect_timeout: 5s
      load_assignment:
        cluster_name: workload_api
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    pipe: {{ path: "{socket}" }}
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config:
            http2_protocol_options: {{}}
"#
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_terminates_mutual_tls_sees_the_apps_identity() {
    let Some(binary) = tool(Tool::Envoy) else {
        return skip("an_envoy_that_terminates_mutual_tls", Tool::Envoy);
    };
    let port = free_port();
    let url = format!("https://127.0.0.1:{port}");
    let envoys = format!(
        "\n[[identity.entry]]\nspiffe_id = \"spiffe://sidegate.local/envoy\"\n\
         selectors = [\"{}\"]\n",
        own_uid()
    );
    let is = |path: &str| format!("expected_spiffe_ids = [\"spiffe://sidegate.local{path}\"]");
    let sections = [
        envoys,
        entry("sidegate.local", "/app", "app", ""),
        entry("sidegate.local", "/wrong", "wrong", ""),
        entry("sidegate.local", "/stranger", "stranger", ""),
        egress("app", &url, &is("/envoy")),
        egress("wrong", &url, &is("/other")),
        egress("stranger", &url, &is("/envoy")),
    ];
    let gate = Gate::start_with(folder(), text("sidegate.local", &sections.concat()));
    let socket = gate
        .gate
        .ready
        .workload_socket
        .trim_start_matches("unix://");
    let bootstrap = bootstrap(port, socket);
    let envoy = tokio::task::block_in_place(|| Envoy::start(&binary, &bootstrap));

    let answer = gate.app("app").get("/hello").await;
    assert_eq!(answer.status, 200, "{} {}", gate.line(&answer), envoy.log());
    assert_eq!(answer.body, "from Envoy");
    assert_eq!(answer.header("x-peer"), "spiffe://sidegate.local/app");
    assert_eq!(answer.header("x-protocol"), "HTTP/2");

    let count =
        || tokio::task::block_in_place(|| envoy.stat("http.application.downstream_rq_total"));
    let requests = count();
    let answer = gate.app("wrong").get("/hello").await;
    assert_eq!(answer.status, 502);
    assert_eq!(gate.line(&answer)["code"], "SG0186");
    // Envoy wants nobody but the app.
    let answer = gate.app("stranger").get("/hello").await;
    assert_eq!(answer.status, 502);
    assert_eq!(count(), requests, "neither was sent");
}
