//! Envoy with mutual TLS and its RBAC filter: the callers, and which paths they may have.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::super::cases::Group;
use super::Setup;
use crate::policy::cases::{IDENTITIES, identity};

const CONNECTION_MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.\
                                  http_connection_manager.v3.HttpConnectionManager";
const DOWNSTREAM_TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const PROTOCOL: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

pub(super) fn configure(command: &mut Command, setup: &Setup<'_>) -> Result<()> {
    let path = setup.write("envoy.json", &bootstrap(setup).to_string())?;
    command
        .args(["--disable-hot-restart", "--log-level", "warn"])
        .args(["--concurrency", &setup.workers.to_string()])
        .arg("--config-path")
        .arg(path);
    Ok(())
}

fn bootstrap(setup: &Setup<'_>) -> Value {
    json!({"static_resources": {
        "listeners": [{
            "name": "main",
            "address": socket_address(&setup.address),
            "filter_chains": [{
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls(setup)},
                "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": connection_manager(),
                }],
            }],
        }],
        "clusters": [cluster(setup)],
    }})
}

/// As the others have it: TLS 1.3, a client certificate, no resumption.
fn tls(setup: &Setup<'_>) -> Value {
    let file = |name: &str| json!({"filename": text(&setup.credentials.file(name))});
    json!({
        "@type": DOWNSTREAM_TLS,
        "require_client_certificate": true,
        "disable_stateless_session_resumption": true,
        "disable_stateful_session_resumption": true,
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
                "ecdh_curves": ["X25519MLKEM768", "X25519"],
            },
            "tls_certificates": [{
                "certificate_chain": file("server.pem"),
                "private_key": file("server.key"),
            }],
            "validation_context": {"trusted_ca": file("roots.pem")},
        },
    })
}

fn connection_manager() -> Value {
    json!({
        "@type": CONNECTION_MANAGER,
        "stat_prefix": "main",
        "http_filters": [
            {"name": "envoy.filters.http.rbac", "typed_config": rbac()},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}},
        ],
        "route_config": {"virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{
                "match": {"prefix": "/"},
                "route": {"cluster": "upstream", "timeout": "0s"},
            }],
        }]},
    })
}

/// One policy: these callers, these methods and paths.
fn rbac() -> Value {
    let principals: Vec<_> = (0..IDENTITIES)
        .map(|number| json!({"authenticated": {"principal_name": {"exact": identity(number)}}}))
        .collect();
    let permission = |method: &str, prefix: &str| {
        json!({"and_rules": {"rules": [
            {"header": {"name": ":method", "string_match": {"exact": method}}},
            {"url_path": {"path": {"prefix": prefix}}},
        ]}})
    };
    json!({
        "@type": RBAC,
        "rules": {
            "action": "ALLOW",
            "policies": {"callers": {
                "permissions": [permission("GET", "/catalog/"), permission("POST", "/orders/")],
                "principals": principals,
            }},
        },
    })
}

fn cluster(setup: &Setup<'_>) -> Value {
    let protocol = match setup.group {
        Group::Http1 | Group::Memory => "http_protocol_options",
        Group::Http2 => "http2_protocol_options",
    };
    json!({
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": socket_address(&setup.upstream)}},
        ]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": PROTOCOL,
                "explicit_http_config": {protocol: {}},
            },
        },
    })
}

fn socket_address(address: &std::net::SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
