//! Foreign bundles by Envoy's SDS, secret by secret.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use sidegate_tests::sidegate;
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;
use tonic::Streaming;

use super::{Foreign, OTHER, ourselves, two_workloads};
use crate::support::{Operator, folder, program};
use crate::workload_api::raw::{
    DiscoveryRequest, DiscoveryResponse, Resource, requests, stream_secrets,
};

const SECRET_TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const NAMES: [&str; 3] = ["ALL", "ROOTCA", "spiffe://other.example"];

/// `envoy.extensions.transport_sockets.tls.v3.Secret` of what is trusted.
#[derive(Clone, PartialEq, Message)]
struct Secret {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "4")]
    validation_context: Option<ValidationContext>,
}

/// `CertificateValidationContext`.
#[derive(Clone, PartialEq, Message)]
struct ValidationContext {
    #[prost(message, optional, tag = "1")]
    trusted_ca: Option<DataSource>,
    #[prost(message, optional, tag = "12")]
    custom_validator_config: Option<Extension>,
}

/// `DataSource`.
#[derive(Clone, PartialEq, Message)]
struct DataSource {
    #[prost(bytes = "vec", tag = "2")]
    inline_bytes: Vec<u8>,
}

/// `TypedExtensionConfig`.
#[derive(Clone, PartialEq, Message)]
struct Extension {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    typed_config: Option<Resource>,
}

/// `SPIFFECertValidatorConfig`.
#[derive(Clone, PartialEq, Message)]
struct Validator {
    #[prost(message, repeated, tag = "1")]
    trust_domains: Vec<TrustDomain>,
}

#[derive(Clone, PartialEq, Message)]
struct TrustDomain {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    trust_bundle: Option<DataSource>,
}

/// A stream of the secrets of what is trusted.
struct Secrets {
    sender: Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
    /// How many roots of which trust domain are in the secret of a name, as last heard.
    known: BTreeMap<String, BTreeMap<String, usize>>,
}

#[tokio::test]
async fn all_and_the_foreign_name_are_for_those_whose_entries_federate_and_for_no_others() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = two_workloads(folder.path(), &[]);
    let operator = Operator::of(&gate);
    foreign.is_known_to(&operator);
    // Another workload federates, and this one does not.
    operator.create(
        "/other",
        &program(&sidegate()),
        &["--federates-with", OTHER],
    );
    let mut secrets = Secrets::open(&gate.ready.workload_socket).await;
    let own: &[(&str, usize)] = &[("sidegate.local", 1)];
    secrets.reach(&[("ALL", own), ("ROOTCA", own)]).await;

    let more = ["--federates-with", OTHER];
    let entry = operator.create("/more", &program(&ourselves()), &more);
    let other: &[(&str, usize)] = &[(OTHER, 1)];
    let both: &[(&str, usize)] = &[(OTHER, 1), ("sidegate.local", 1)];
    let name = "spiffe://other.example";
    secrets
        .reach(&[("ALL", both), ("ROOTCA", own), (name, other)])
        .await;

    foreign
        .operator()
        .ask(&["rotate", "x509", "--prepare-only"]);
    foreign.is_known_to(&operator);
    let two: &[(&str, usize)] = &[(OTHER, 2)];
    let three: &[(&str, usize)] = &[(OTHER, 2), ("sidegate.local", 1)];
    secrets
        .reach(&[("ALL", three), ("ROOTCA", own), (name, two)])
        .await;

    // What is gone is replaced with something empty, as nothing can be taken from an Envoy.
    let gone: &[(&str, usize)] = &[];
    foreign.is_forgotten_by(&operator);
    secrets
        .reach(&[("ALL", own), ("ROOTCA", own), (name, gone)])
        .await;
    foreign.is_known_to(&operator);
    secrets
        .reach(&[("ALL", three), ("ROOTCA", own), (name, two)])
        .await;
    operator.delete(&entry);
    secrets
        .reach(&[("ALL", own), ("ROOTCA", own), (name, gone)])
        .await;
}

impl Secrets {
    async fn open(socket: &str) -> Self {
        let (sender, requests) = requests();
        let first = ask(&DiscoveryResponse::default());
        sender.send(first).await.expect("there is room");
        let responses = stream_secrets(socket, requests).await;
        Self {
            sender,
            responses: responses.expect("a stream"),
            known: BTreeMap::new(),
        }
    }

    /// Takes responses until exactly these roots are known under these names.
    async fn reach(&mut self, expected: &[(&str, &[(&str, usize)])]) {
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(name, roots)| {
                let roots = roots
                    .iter()
                    .map(|(name, count)| ((*name).to_owned(), *count));
                ((*name).to_owned(), roots.collect())
            })
            .collect();
        while self.known != expected {
            let next = timeout(Duration::from_secs(10), self.responses.message()).await;
            let Ok(response) = next else {
                panic!("nothing more comes: {:?}, not {expected:?}", self.known);
            };
            let response = response.expect("the stream goes on");
            let response = response.expect("it does not end");
            let accept = ask(&response);
            self.sender.send(accept).await.expect("the stream is open");
            for resource in &response.resources {
                let secret = Secret::decode(&*resource.value).expect("a secret");
                let name = secret.name.clone();
                self.known.insert(name, secret.roots());
            }
        }
    }
}

impl Secret {
    /// How many roots of which trust domain it holds; those that hold none are left out.
    fn roots(self) -> BTreeMap<String, usize> {
        let context = self.validation_context.expect("what is trusted");
        let mut found = BTreeMap::new();
        if let Some(extension) = context.custom_validator_config {
            assert!(context.trusted_ca.is_none(), "one or the other");
            let config = extension.typed_config.expect("a configuration");
            let end = "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
            assert!(config.type_url.ends_with(end), "{}", config.type_url);
            let validator = Validator::decode(&*config.value).expect("a validator");
            for domain in validator.trust_domains {
                let roots = count(domain.trust_bundle, &domain.name);
                let known = found.insert(domain.name, roots);
                assert_eq!(known, None, "each is there once");
            }
        } else {
            let name = match self.name.as_str() {
                "ROOTCA" => "sidegate.local",
                name => name.trim_start_matches("spiffe://"),
            };
            // Without one an Envoy would believe everybody.
            assert!(context.trusted_ca.is_some(), "{name}: nothing is verified");
            found.insert(name.to_owned(), count(context.trusted_ca, name));
        }
        found.retain(|_, roots| *roots > 0);
        found
    }
}

/// How many roots of a trust domain there are; what merely stands in for roots names none.
fn count(source: Option<DataSource>, trust_domain: &str) -> usize {
    let bytes = source.map(|source| source.inline_bytes).unwrap_or_default();
    let roots = pem::parse_many(bytes).expect("it is PEM").into_iter();
    let id = format!("spiffe://{trust_domain}");
    let named = roots.filter(|root| {
        let mut parts = root.contents().windows(id.len());
        parts.any(|part| part == id.as_bytes())
    });
    named.count()
}

fn ask(last: &DiscoveryResponse) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: last.version_info.clone(),
        resource_names: NAMES.map(ToOwned::to_owned).to_vec(),
        type_url: SECRET_TYPE.to_owned(),
        response_nonce: last.nonce.clone(),
    }
}
