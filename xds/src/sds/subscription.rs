//! What one SDS stream asked for, and what it already has.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use sidegate_identity::selector::Selector;
use sidegate_identity::svid::Identities;
use tracing::warn;

use super::secrets;

/// The type that this service serves.
pub(super) const SECRET: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// The state of one stream.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    names: Names,
    /// The secrets that were sent, by name.
    sent: BTreeMap<String, Any>,
    responses: u64,
}

#[derive(Debug, Default, PartialEq)]
enum Names {
    /// No request came yet.
    #[default]
    None,
    /// No name was ever given: everything that the caller may have.
    Everything,
    These(BTreeSet<String>),
}

impl Subscription {
    /// Takes a request. The names of the newest count, whatever nonce it carries; a NACK is
    /// reported, and its secret is not sent again before it changes.
    pub(super) fn receive(&mut self, request: DiscoveryRequest) {
        if let Some(error) = request.error_detail {
            warn!(
                code = "SG0501",
                version = request.version_info,
                message = error.message,
                "Envoy refuses a secret (NACK) and keeps the one before",
            );
        }
        self.names = match (&self.names, request.resource_names) {
            (Names::None | Names::Everything, names) if names.is_empty() => Names::Everything,
            (_, names) => Names::These(names.into_iter().collect()),
        };
        // A name that is dropped and asked for again is answered again.
        if let Names::These(names) = &self.names {
            self.sent.retain(|name, _| names.contains(name));
        }
    }

    /// The secrets that are subscribed to and were not sent as they are now.
    pub(super) fn respond(
        &mut self,
        identities: &Identities,
        selectors: &[Selector],
    ) -> Option<DiscoveryResponse> {
        let secrets = match &self.names {
            Names::None => return None,
            Names::Everything => secrets::everything(identities, selectors),
            Names::These(names) => names
                .iter()
                .filter_map(|name| secrets::named(name, identities, selectors))
                .collect(),
        };
        let gone = self.sent.keys().filter(|name| {
            let is_there = secrets.iter().any(|secret| secret.name == **name);
            !is_there && secrets::is_trust_domain(name)
        });
        // Envoy ignores removals: a bundle that is gone is replaced.
        let gone: Vec<_> = gone.map(|name| secrets::empty_bundle(name)).collect();
        let changed: Vec<_> = secrets
            .into_iter()
            .chain(gone)
            .filter_map(|secret| self.note(secret))
            .collect();
        if changed.is_empty() {
            return None;
        }
        self.responses += 1;
        Some(DiscoveryResponse {
            version_info: identities.generation.to_string(),
            nonce: self.responses.to_string(),
            type_url: SECRET.to_owned(),
            resources: changed,
            ..DiscoveryResponse::default()
        })
    }

    /// The secret to send, unless the very same was sent before.
    fn note(&mut self, secret: Secret) -> Option<Any> {
        let name = secret.name.clone();
        let packed = pack_any(secret);
        if self.sent.get(&name) == Some(&packed) {
            return None;
        }
        self.sent.insert(name, packed.clone());
        Some(packed)
    }
}

#[cfg(test)]
mod tests;
