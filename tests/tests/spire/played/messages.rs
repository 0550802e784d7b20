//! The messages of SPIRE's server APIs, as far as an agent meets them, by the published protos.

/// `spire.api.types.SPIFFEID`: the path begins with a slash.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SpiffeId {
    #[prost(string, tag = "1")]
    pub(crate) trust_domain: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

/// `spire.api.types.Selector`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Selector {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// `spire.api.types.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ItemStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

/// `google.rpc.Status`, with details.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `spire.api.types.PermissionDeniedDetails`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PermissionDeniedDetails {
    #[prost(int32, tag = "1")]
    pub(crate) reason: i32,
}

/// `spire.api.types.AttestationData`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AttestationData {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) payload: Vec<u8>,
}

/// `spire.api.types.X509SVID`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct X509Svid {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(crate) cert_chain: Vec<Vec<u8>>,
    #[prost(message, optional, tag = "2")]
    pub(crate) id: Option<SpiffeId>,
    #[prost(int64, tag = "3")]
    pub(crate) expires_at: i64,
    #[prost(string, tag = "4")]
    pub(crate) hint: String,
}

/// `spire.api.types.JWTSVID`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JwtSvid {
    #[prost(string, tag = "1")]
    pub(crate) token: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) id: Option<SpiffeId>,
    #[prost(int64, tag = "3")]
    pub(crate) expires_at: i64,
    #[prost(int64, tag = "4")]
    pub(crate) issued_at: i64,
    #[prost(string, tag = "5")]
    pub(crate) hint: String,
}

/// `spire.api.types.Bundle`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Bundle {
    #[prost(string, tag = "1")]
    pub(crate) trust_domain: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) x509_authorities: Vec<X509Certificate>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) jwt_authorities: Vec<JwtKey>,
    #[prost(int64, tag = "4")]
    pub(crate) refresh_hint: i64,
    #[prost(uint64, tag = "5")]
    pub(crate) sequence_number: u64,
}

/// `spire.api.types.X509Certificate`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct X509Certificate {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) asn1: Vec<u8>,
    #[prost(bool, tag = "2")]
    pub(crate) tainted: bool,
}

/// `spire.api.types.JWTKey`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JwtKey {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) public_key: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) key_id: String,
    #[prost(int64, tag = "3")]
    pub(crate) expires_at: i64,
    #[prost(bool, tag = "4")]
    pub(crate) tainted: bool,
}

/// `spire.api.types.Entry`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Entry {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) spiffe_id: Option<SpiffeId>,
    #[prost(message, optional, tag = "3")]
    pub(crate) parent_id: Option<SpiffeId>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) selectors: Vec<Selector>,
    #[prost(int32, tag = "5")]
    pub(crate) x509_svid_ttl: i32,
    #[prost(string, repeated, tag = "6")]
    pub(crate) federates_with: Vec<String>,
    #[prost(bool, tag = "7")]
    pub(crate) admin: bool,
    #[prost(bool, tag = "8")]
    pub(crate) downstream: bool,
    #[prost(int64, tag = "9")]
    pub(crate) expires_at: i64,
    #[prost(string, repeated, tag = "10")]
    pub(crate) dns_names: Vec<String>,
    #[prost(int64, tag = "11")]
    pub(crate) revision_number: i64,
    #[prost(bool, tag = "12")]
    pub(crate) store_svid: bool,
    #[prost(int32, tag = "13")]
    pub(crate) jwt_svid_ttl: i32,
    #[prost(string, tag = "14")]
    pub(crate) hint: String,
    #[prost(int64, tag = "15")]
    pub(crate) created_at: i64,
}

/// `spire.api.types.EntryMask`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EntryMask {
    #[prost(bool, tag = "2")]
    pub(crate) spiffe_id: bool,
    #[prost(bool, tag = "3")]
    pub(crate) parent_id: bool,
    #[prost(bool, tag = "4")]
    pub(crate) selectors: bool,
    #[prost(bool, tag = "5")]
    pub(crate) x509_svid_ttl: bool,
    #[prost(bool, tag = "6")]
    pub(crate) federates_with: bool,
    #[prost(bool, tag = "7")]
    pub(crate) admin: bool,
    #[prost(bool, tag = "8")]
    pub(crate) downstream: bool,
    #[prost(bool, tag = "9")]
    pub(crate) expires_at: bool,
    #[prost(bool, tag = "10")]
    pub(crate) dns_names: bool,
    #[prost(bool, tag = "11")]
    pub(crate) revision_number: bool,
    #[prost(bool, tag = "12")]
    pub(crate) store_svid: bool,
    #[prost(bool, tag = "13")]
    pub(crate) jwt_svid_ttl: bool,
    #[prost(bool, tag = "14")]
    pub(crate) hint: bool,
    #[prost(bool, tag = "15")]
    pub(crate) created_at: bool,
}

/// A message without fields, or one whose fields do not matter.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Empty {}

/// `AgentX509SVIDParams`; a `RenewAgentRequest` wraps it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AgentParams {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) csr: Vec<u8>,
}

/// `AttestAgentRequest`: one of both.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AttestRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) params: Option<AttestParams>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) challenge_response: Option<Vec<u8>>,
}

/// `AttestAgentRequest.Params`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AttestParams {
    #[prost(message, optional, tag = "1")]
    pub(crate) data: Option<AttestationData>,
    #[prost(message, optional, tag = "2")]
    pub(crate) params: Option<AgentParams>,
}

/// `AttestAgentResponse`: one of both.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AttestResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) result: Option<AttestResult>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) challenge: Option<Vec<u8>>,
}

/// `AttestAgentResponse.Result`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AttestResult {
    #[prost(message, optional, tag = "1")]
    pub(crate) svid: Option<X509Svid>,
    #[prost(bool, tag = "2")]
    pub(crate) reattestable: bool,
}

/// `RenewAgentRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RenewRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) params: Option<AgentParams>,
}

/// `RenewAgentResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RenewResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) svid: Option<X509Svid>,
}

/// `PostStatusRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PostStatusRequest {
    #[prost(int64, tag = "1")]
    pub(crate) current_bundle_serial: i64,
    #[prost(string, tag = "2")]
    pub(crate) agent_version: String,
}

/// `GetAuthorizedEntriesRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EntriesRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) output_mask: Option<EntryMask>,
}

/// `GetAuthorizedEntriesResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EntriesResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) entries: Vec<Entry>,
}

/// `SyncAuthorizedEntriesRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SyncRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) output_mask: Option<EntryMask>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) ids: Vec<String>,
}

/// `SyncAuthorizedEntriesResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SyncResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) entry_revisions: Vec<EntryRevision>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) entries: Vec<Entry>,
    #[prost(bool, tag = "3")]
    pub(crate) more: bool,
}

/// `EntryRevision`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EntryRevision {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(int64, tag = "2")]
    pub(crate) revision_number: i64,
    #[prost(int64, tag = "3")]
    pub(crate) created_at: i64,
}

/// `BatchNewX509SVIDRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BatchRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) params: Vec<SvidParams>,
}

/// `NewX509SVIDParams`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SvidParams {
    #[prost(string, tag = "1")]
    pub(crate) entry_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) csr: Vec<u8>,
}

/// `BatchNewX509SVIDResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BatchResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) results: Vec<BatchResult>,
}

/// `BatchNewX509SVIDResponse.Result`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BatchResult {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<ItemStatus>,
    #[prost(message, optional, tag = "2")]
    pub(crate) svid: Option<X509Svid>,
}

/// `NewJWTSVIDRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JwtRequest {
    #[prost(string, tag = "1")]
    pub(crate) entry_id: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) audience: Vec<String>,
}

/// `NewJWTSVIDResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JwtResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) svid: Option<JwtSvid>,
}

/// `GetFederatedBundleRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FederatedRequest {
    #[prost(string, tag = "1")]
    pub(crate) trust_domain: String,
}

impl SpiffeId {
    /// The parts of `spiffe://…`.
    pub(crate) fn parse(id: &str) -> Self {
        let rest = id.strip_prefix("spiffe://").expect("a SPIFFE ID");
        let (trust_domain, path) = rest.split_at(rest.find('/').expect("it has a path"));
        Self {
            trust_domain: trust_domain.to_owned(),
            path: path.to_owned(),
        }
    }
}
