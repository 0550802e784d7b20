//! The file as it is written: names and TOML types, nothing else.
//!
//! Every key is optional here, so that what is missing is reported together with all else that is
//! wrong and not as the one error that ends deserialization.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::table::Table;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) identity: Option<Table<RawIdentity>>,
    pub(super) workload_api: Option<Table<RawWorkloadApi>>,
    pub(super) admin: Option<Table<RawAdmin>>,
    pub(super) policy: Option<Table<RawPolicy>>,
    pub(super) proxy: Option<Table<RawProxy>>,
    #[serde(default)]
    pub(super) component: Vec<Table<RawComponent>>,
    #[serde(default)]
    pub(super) listener: Vec<Table<RawListener>>,
    #[serde(default)]
    pub(super) egress: Vec<Table<RawEgress>>,
    #[serde(default)]
    pub(super) svid_file: Vec<Table<RawSvidFile>>,
    pub(super) log: Option<Table<RawLog>>,
    pub(super) decision_log: Option<Table<RawDecisionLog>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIdentity {
    pub(super) trust_domain: Option<String>,
    pub(super) source: Option<String>,
    pub(super) state: Option<String>,
    pub(super) svid_ttl: Option<String>,
    pub(super) embedded: Option<Table<RawEmbedded>>,
    pub(super) files: Option<Table<RawFiles>>,
    pub(super) workload_api: Option<Table<RawAgent>>,
    pub(super) spire_server: Option<Table<RawSpireServer>>,
    #[serde(default)]
    pub(super) audience_rule: Vec<Table<RawAudienceRule>>,
    #[serde(default)]
    pub(super) entry: Vec<Table<RawEntry>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEmbedded {
    pub(super) root_ttl: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
    pub(super) bundle: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFiles {
    pub(super) svid: Option<String>,
    pub(super) key: Option<String>,
    pub(super) bundle: Option<String>,
}

/// A Workload API to ask.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAgent {
    pub(super) socket: Option<String>,
}

/// A SPIRE server.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSpireServer {
    pub(super) address: Option<String>,
    pub(super) trust_bundle: Option<String>,
    pub(super) trust_bundle_url: Option<String>,
    pub(super) trust_bundle_ca: Option<String>,
    pub(super) insecure_bootstrap: Option<bool>,
    pub(super) join_token_file: Option<String>,
    pub(super) x509pop_certificate: Option<String>,
    pub(super) x509pop_key: Option<String>,
    pub(super) sync_interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAudienceRule {
    pub(super) spiffe_ids: Option<Vec<String>>,
    pub(super) audiences: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEntry {
    pub(super) spiffe_id: Option<String>,
    pub(super) selectors: Option<Vec<String>>,
    #[serde(default)]
    pub(super) dns_names: Vec<String>,
    #[serde(default)]
    pub(super) audiences: Vec<String>,
    #[serde(default)]
    pub(super) federates_with: Vec<String>,
    pub(super) x509_svid_ttl: Option<String>,
    pub(super) jwt_svid_ttl: Option<String>,
    pub(super) hint: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWorkloadApi {
    pub(super) socket: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAdmin {
    pub(super) listen: Option<String>,
    pub(super) clients: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    pub(super) path: Option<String>,
    pub(super) entrypoint: Option<String>,
    pub(super) timeout: Option<String>,
    #[serde(default)]
    pub(super) bundle: Vec<Table<RawBundle>>,
    pub(super) shadow: Option<Table<RawShadow>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawShadow {
    pub(super) path: Option<String>,
    pub(super) sample: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBundle {
    pub(super) name: Option<String>,
    pub(super) path: Option<String>,
    pub(super) url: Option<String>,
    pub(super) token_file: Option<String>,
    pub(super) ca_file: Option<String>,
    pub(super) min_poll: Option<String>,
    pub(super) max_poll: Option<String>,
    pub(super) long_poll: Option<String>,
    pub(super) persist: Option<bool>,
    pub(super) verification_key: Option<String>,
    pub(super) verification_algorithm: Option<String>,
    pub(super) verification_key_id: Option<String>,
    pub(super) verification_scope: Option<String>,
    pub(super) verification_exclude: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProxy {
    pub(super) workers: Option<i64>,
    pub(super) drain_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawComponent {
    pub(super) name: Option<String>,
    pub(super) path: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) memory_limit: Option<String>,
    pub(super) max_concurrency: Option<i64>,
    pub(super) request_deadline: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListener {
    pub(super) name: Option<String>,
    pub(super) listen: Option<String>,
    pub(super) component: Option<String>,
    pub(super) upstream: Option<String>,
    pub(super) expected_spiffe_ids: Option<Vec<String>>,
    pub(super) expected_trust_domain: Option<String>,
    pub(super) spiffe_id: Option<String>,
    pub(super) tls: Option<String>,
    pub(super) protocol: Option<String>,
    #[serde(default)]
    pub(super) sni: Vec<Table<RawSni>>,
    pub(super) timeouts: Option<Table<RawTimeouts>>,
    pub(super) request_body: Option<Table<RawRequestBody>>,
    pub(super) limits: Option<Table<RawLimits>>,
    pub(super) http2: Option<Table<RawHttp2>>,
    pub(super) path: Option<Table<RawPath>>,
    pub(super) forward_client_cert: Option<Table<RawForwardClientCert>>,
    #[serde(default)]
    pub(super) trusted_hops: Vec<String>,
    pub(super) context_extensions: Option<Table<BTreeMap<String, String>>>,
    #[serde(default)]
    pub(super) route: Vec<Table<RawRoute>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSni {
    #[serde(default)]
    pub(super) server_names: Vec<String>,
    pub(super) spiffe_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEgress {
    pub(super) name: Option<String>,
    pub(super) listen: Option<String>,
    pub(super) spiffe_id: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) upstream: Option<String>,
    pub(super) expected_spiffe_ids: Option<Vec<String>>,
    pub(super) expected_trust_domain: Option<String>,
    pub(super) allowed_addresses: Option<Vec<String>>,
    pub(super) timeouts: Option<Table<RawTimeouts>>,
    pub(super) limits: Option<Table<RawLimits>>,
    pub(super) http2: Option<Table<RawHttp2>>,
    pub(super) context_extensions: Option<Table<BTreeMap<String, String>>>,
    #[serde(default)]
    pub(super) route: Vec<Table<RawRoute>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) hosts: Vec<String>,
    pub(super) path: Option<String>,
    pub(super) path_prefix: Option<String>,
    #[serde(default)]
    pub(super) methods: Vec<String>,
    pub(super) headers: Option<Table<BTreeMap<String, String>>>,
    pub(super) component: Option<String>,
    pub(super) upstream: Option<String>,
    pub(super) expected_spiffe_ids: Option<Vec<String>>,
    pub(super) expected_trust_domain: Option<String>,
    pub(super) request_timeout: Option<String>,
    pub(super) context_extensions: Option<Table<BTreeMap<String, String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTimeouts {
    pub(super) header_read: Option<String>,
    pub(super) idle: Option<String>,
    pub(super) stream_idle: Option<String>,
    pub(super) body_read: Option<String>,
    pub(super) request: Option<String>,
    pub(super) connect: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRequestBody {
    pub(super) max_request_bytes: Option<String>,
    pub(super) allow_partial_message: Option<bool>,
    pub(super) pack_as_bytes: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) max_connections: Option<i64>,
    pub(super) max_connections_per_identity: Option<i64>,
    pub(super) max_handshakes: Option<i64>,
    pub(super) requests_per_second: Option<i64>,
    pub(super) request_burst: Option<i64>,
    pub(super) max_headers: Option<i64>,
    pub(super) max_header_bytes: Option<String>,
    pub(super) max_uri_bytes: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHttp2 {
    pub(super) max_concurrent_streams: Option<i64>,
    pub(super) max_resets: Option<i64>,
    pub(super) max_local_resets: Option<i64>,
    pub(super) max_pings: Option<i64>,
    pub(super) max_settings: Option<i64>,
    pub(super) max_empty_data: Option<i64>,
    pub(super) max_window_updates: Option<i64>,
    pub(super) max_ignored: Option<i64>,
    pub(super) max_continuations: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPath {
    pub(super) escaped_slashes: Option<String>,
    pub(super) dot_segments: Option<String>,
    pub(super) double_slashes: Option<String>,
    pub(super) semicolons: Option<String>,
    pub(super) backslashes: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawForwardClientCert {
    pub(super) mode: Option<String>,
    pub(super) details: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSvidFile {
    pub(super) spiffe_id: Option<String>,
    pub(super) directory: Option<String>,
    pub(super) pid_file: Option<String>,
    pub(super) signal: Option<String>,
    pub(super) command: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) level: Option<String>,
    pub(super) format: Option<String>,
    pub(super) access: Option<String>,
    pub(super) access_path: Option<String>,
    pub(super) access_format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDecisionLog {
    pub(super) output: Option<String>,
    pub(super) path: Option<String>,
    pub(super) max_size: Option<String>,
    pub(super) keep: Option<i64>,
    pub(super) url: Option<String>,
    pub(super) resource: Option<String>,
    pub(super) token_file: Option<String>,
    pub(super) ca_file: Option<String>,
    pub(super) upload_size_limit: Option<String>,
    pub(super) min_delay: Option<String>,
    pub(super) max_delay: Option<String>,
    pub(super) buffer_size: Option<String>,
    pub(super) max_decisions_per_second: Option<i64>,
    pub(super) credentials: Option<String>,
    #[serde(default)]
    pub(super) mask_headers: Vec<String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}
