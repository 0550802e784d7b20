//! An Envoy that asks OPA's Envoy plugin about each request: what Sidegate takes the place of.

use std::path::Path;

use sidegate_tests::OpaEnvoyPlugin;

use crate::envoy::Bootstrap;

/// The largest part of a body that is put before the policy.
pub(crate) const MAX_BODY_BYTES: usize = 1024;

/// Envoy's bootstrap: it shows the SVID of a directory, takes clients of its bundle only, asks the
/// plugin, and leads to a server in plain text. What it does about paths and about the client's
/// certificate is set as Sidegate has it.
pub(crate) fn bootstrap(svid: &Path, plugin: &OpaEnvoyPlugin, upstream: &str) -> Bootstrap {
    let port = upstream.rsplit_once(':').expect("it has a port").1;
    let plugin = plugin.socket();
    let (svid, plugin) = (svid.display(), plugin.display());
    Bootstrap::new(format!(
        r#"
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}
static_resources:
  listeners:
    - name: application
      address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
      listener_filters:
        - name: envoy.filters.listener.tls_inspector
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector
      filter_chains:
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              require_client_certificate: true
              common_tls_context:
                alpn_protocols: [h2, http/1.1]
                tls_params: {{ tls_minimum_protocol_version: TLSv1_3 }}
                tls_certificates:
                  - certificate_chain: {{ filename: "{svid}/svid.pem" }}
                    private_key: {{ filename: "{svid}/key.pem" }}
                validation_context: {{ trusted_ca: {{ filename: "{svid}/bundle.pem" }} }}
          filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: application
                use_remote_address: true
                normalize_path: true
                merge_slashes: true
                path_with_escaped_slashes_action: REJECT_REQUEST
                forward_client_cert_details: SANITIZE_SET
                set_current_client_cert_details: {{ uri: true }}
                http_filters:
                  - name: envoy.filters.http.ext_authz
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
                      transport_api_version: V3
                      include_peer_certificate: true
                      include_tls_session: true
                      with_request_body:
                        max_request_bytes: {MAX_BODY_BYTES}
                        allow_partial_message: true
                      grpc_service:
                        timeout: 10s
                        envoy_grpc: {{ cluster_name: opa }}
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                      suppress_envoy_headers: true
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: {{ prefix: "/" }}
                          route: {{ cluster: upstream }}
                          typed_per_filter_config:
                            envoy.filters.http.ext_authz:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                              check_settings: {{ context_extensions: {{ listener: main }} }}
  clusters:
    - name: opa
      type: STATIC
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{ http2_protocol_options: {{}} }}
      load_assignment:
        cluster_name: opa
        endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ pipe: {{ path: "{plugin}" }} }} }} }}] }}]
    - name: upstream
      type: STATIC
      load_assignment:
        cluster_name: upstream
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
"#
    ))
}
