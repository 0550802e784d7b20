//! Streams of the Workload API, response by response.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prost::Message;
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::support::hexadecimal;
use crate::workload_api::serial;

/// `X509SVIDResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Svids {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(crate) federated_bundles: BTreeMap<String, Vec<u8>>,
}

/// `X509SVID`, but for its key.
#[derive(Clone, PartialEq, Message)]
struct Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    chain: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

/// `X509BundlesResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct X509Bundles {
    #[prost(btree_map = "string, bytes", tag = "2")]
    pub(crate) bundles: BTreeMap<String, Vec<u8>>,
}

/// `JWTBundlesResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct JwtBundles {
    #[prost(btree_map = "string, bytes", tag = "1")]
    pub(crate) bundles: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

/// A stream that stays open.
#[derive(Debug)]
pub(crate) struct Stream<T>(Streaming<T>);

impl<T: Message + Default + 'static> Stream<T> {
    /// Begins a call of a method of the Workload API.
    pub(crate) async fn open(socket: &str, method: &str) -> Result<Self, Status> {
        let endpoint = Endpoint::from_shared(socket.to_owned()).expect("a socket's address");
        let channel = endpoint.connect().await.expect("the socket is there");
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.expect("the channel is ready");
        let mut request = Request::new(Nothing {});
        let header = "true".parse().expect("it is ASCII");
        request.metadata_mut().insert("workload.spiffe.io", header);
        let path = format!("/SpiffeWorkloadAPI/{method}");
        let path = path.parse().expect("a path");
        let codec = ProstCodec::<Nothing, T>::default();
        let response = grpc.server_streaming(request, path, codec).await?;
        Ok(Self(response.into_inner()))
    }

    /// The next response, or how the stream ended.
    pub(crate) async fn next(&mut self) -> Result<T, Status> {
        let next = timeout(Duration::from_secs(30), self.0.message()).await;
        let next = next.expect("something comes")?;
        next.ok_or_else(|| Status::ok("it ended"))
    }
}

impl Stream<Svids> {
    pub(crate) async fn svids(socket: &str) -> Self {
        let stream = Self::open(socket, "FetchX509SVID").await;
        stream.expect("a stream")
    }

    /// The SPIFFE IDs of the next response, each with its serial number.
    pub(crate) async fn serials(&mut self) -> BTreeMap<String, String> {
        self.update().await.serials()
    }

    /// The next response.
    pub(crate) async fn update(&mut self) -> Svids {
        self.next().await.expect("the stream goes on")
    }
}

impl Svids {
    /// The SPIFFE IDs, each with its serial number.
    pub(crate) fn serials(&self) -> BTreeMap<String, String> {
        let svids = self.svids.iter();
        let serials: BTreeMap<_, _> = svids
            .map(|svid| (svid.spiffe_id.clone(), serial(certificates(&svid.chain)[0])))
            .collect();
        assert_eq!(serials.len(), self.svids.len(), "each is there once");
        serials
    }

    /// The key identifiers of the roots in the bundle, which is the same with each SVID.
    pub(crate) fn roots(&self) -> BTreeSet<String> {
        let bundles: BTreeSet<_> = self.svids.iter().map(|svid| &svid.bundle).collect();
        let [bundle] = Vec::from_iter(bundles)[..] else {
            panic!("one bundle");
        };
        roots(bundle)
    }

    /// The key identifier of the root above an SVID.
    pub(crate) fn signer(&self, spiffe_id: &str) -> String {
        let mut svids = self.svids.iter();
        let svid = svids.find(|svid| svid.spiffe_id == spiffe_id);
        signer(&svid.expect("it is there").chain)
    }
}

/// The key identifiers of the roots in a bundle: certificates in DER.
pub(crate) fn roots(bundle: &[u8]) -> BTreeSet<String> {
    let roots = certificates(bundle).into_iter();
    roots.map(subject_key).collect()
}

/// The key identifier of the root above a chain: certificates in DER, leaf first.
pub(crate) fn signer(chain: &[u8]) -> String {
    let last = *certificates(chain).last().expect("a certificate");
    authority_key(last)
}

/// The key identifier of the authority that signed a certificate.
pub(crate) fn authority_key(der: &[u8]) -> String {
    let (_, certificate) = X509Certificate::from_der(der).expect("a certificate");
    let mut found = certificate.iter_extensions().filter_map(|extension| {
        let parsed = extension.parsed_extension();
        let x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(key) = parsed else {
            return None;
        };
        key.key_identifier.as_ref().map(|key| hexadecimal(key.0))
    });
    found.next().expect("it names its authority's key")
}

/// The key identifiers of certificates that were read from a file.
pub(crate) fn roots_of(certificates: &[CertificateDer<'_>]) -> BTreeSet<String> {
    certificates.iter().map(|der| subject_key(der)).collect()
}

fn subject_key(der: &[u8]) -> String {
    let (_, certificate) = X509Certificate::from_der(der).expect("a certificate");
    let mut found = certificate.iter_extensions().filter_map(|extension| {
        let parsed = extension.parsed_extension();
        let x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(key) = parsed else {
            return None;
        };
        Some(hexadecimal(key.0))
    });
    found.next().expect("it names its key")
}

/// The certificates in DER one after the other.
fn certificates(mut der: &[u8]) -> Vec<&[u8]> {
    let mut certificates = Vec::new();
    while !der.is_empty() {
        let (rest, _) = X509Certificate::from_der(der).expect("a certificate");
        certificates.push(&der[..der.len() - rest.len()]);
        der = rest;
    }
    certificates
}
