//! `[identity.spire_server]` and `[[identity.audience_rule]]`: the SPIRE server whose agent this is.

use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use sidegate_identity::spire::{
    AudienceRule, IdPattern, NoIdPattern, NodeAttestation, SYNC_INTERVAL,
};

use super::values::{self, Problem};
use super::{Diagnostic, Key, Lowering, codes};
use crate::config::model::{SpireServer, TrustBundle};
use crate::config::raw::{RawAudienceRule, RawIdentity, RawSpireServer};

/// More often would be a load to the server, more seldom would be no following.
const SYNC_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(10 * 60);

impl Lowering<'_> {
    /// `None` only where a problem was reported.
    pub(super) fn spire_server(&mut self, at: &Key, raw: &mut RawIdentity) -> Option<SpireServer> {
        self.has_no_entries(at, raw);
        let audience_rules = std::mem::take(&mut raw.audience_rule);
        let key = at.child("audience_rule");
        let audience_rules =
            self.each(audience_rules, |index| key.item(index), Self::audience_rule);
        let at = at.child("spire_server");
        let content = "with `address`, a trust bundle, and what attests this node";
        let mut raw = self.section(raw.spire_server.take(), &at, content)?;
        let address = self.required(raw.address.take(), at.child("address"), server);
        let sync_interval = self.optional(
            raw.sync_interval.take(),
            at.child("sync_interval"),
            values::duration(SYNC_INTERVALS),
        );
        let trust_bundle = self.trust_bundle(&at, &mut raw);
        let attestation = self.attestation(&at, raw);
        Some(SpireServer {
            address: address?,
            trust_bundle: trust_bundle?,
            attestation: attestation?,
            sync_interval: sync_interval.unwrap_or(SYNC_INTERVAL),
            audience_rules,
        })
    }

    /// They are the server's to make.
    fn has_no_entries(&mut self, at: &Key, raw: &RawIdentity) {
        if raw.entry.is_empty() {
            return;
        }
        let place = self.keys.value(&Key::entry(0));
        let title = "`identity.entry` with the source `spire-server`";
        let problem = Diagnostic::new(codes::SPIRE_ENTRIES, title, place)
            .label("registration entries are made at the SPIRE server")
            .related(self.keys.value(&at.child("source")), "chosen here")
            .help("remove it, and register it with `spire-server entry create`");
        self.report(problem);
    }

    fn audience_rule(&mut self, at: &Key, raw: RawAudienceRule) -> Option<AudienceRule> {
        let ids = self.present(raw.spiffe_ids, &at.child("spiffe_ids"));
        let audiences = self.present(raw.audiences, &at.child("audiences"));
        let ids = ids?.into_iter().enumerate().filter_map(|(index, text)| {
            let key = at.child("spiffe_ids").item(index);
            self.parsed(text.as_str(), &key, id_pattern)
        });
        Some(AudienceRule {
            spiffe_ids: ids.collect(),
            audiences: audiences?,
        })
    }

    /// What the server is verified by at first contact: exactly one of the three.
    fn trust_bundle(&mut self, at: &Key, raw: &mut RawSpireServer) -> Option<TrustBundle> {
        let base = self.base;
        let [file, url, ca_file] = ["trust_bundle", "trust_bundle_url", "trust_bundle_ca"];
        let is_insecure = raw.insecure_bootstrap == Some(true);
        let has_roots = raw.trust_bundle_ca.is_some();
        if has_roots && raw.trust_bundle_url.is_none() {
            let key = at.child(ca_file);
            let title = format!("`{key}` without `{url}`");
            let problem = Diagnostic::new(codes::NO_EFFECT, title, self.keys.value(&key));
            self.report(problem.label("has no effect"));
        }
        self.exactly_one(
            at,
            "nobody is trusted to be this server",
            &[
                (raw.trust_bundle.is_some(), file),
                (raw.trust_bundle_url.is_some(), url),
                (is_insecure, "insecure_bootstrap"),
            ],
        )?;
        if is_insecure {
            return Some(TrustBundle::Insecure);
        }
        if let Some(path) = raw.trust_bundle.take() {
            let path = self.parsed(path.as_str(), &at.child(file), values::path(base))?;
            return Some(TrustBundle::File(path));
        }
        let text = raw.trust_bundle_url.take()?;
        let url = self.parsed(text.as_str(), &at.child(url), trust_bundle_url);
        let roots = raw.trust_bundle_ca.take();
        let ca_file = self.optional(roots, at.child(ca_file), values::path(base));
        let url = url?;
        self.trust_of_url(at, &url, has_roots);
        Some(TrustBundle::Url { url, ca_file })
    }

    /// Whoever could write the answer would be the authority for everything.
    fn trust_of_url(&mut self, at: &Key, url: &Uri, has_roots: bool) {
        let (key, ca_file) = (at.child("trust_bundle_url"), at.child("trust_bundle_ca"));
        let is_https = url.scheme_str() == Some("https");
        let (title, label, help) = match (is_https, has_roots) {
            (true, false) if !self.is_faulty(&ca_file) => (
                format!("`{key}` without `trust_bundle_ca`"),
                "nobody is trusted to be this server",
                "add `trust_bundle_ca = \"…\"`, a PEM file with the roots that its certificate leads to",
            ),
            (false, true) => (
                format!("`{ca_file}` of a URL without TLS"),
                "plain text",
                "write `https://`, or remove it",
            ),
            (false, false) if !values::is_loopback(url) => (
                format!("`{key}` in plain text"),
                "whoever is on the way could be the authority for everything",
                "write the url with https://, or a loopback address",
            ),
            _ => return,
        };
        let problem = Diagnostic::new(codes::SPIRE_TRUST, title, self.keys.value(&key));
        self.report(problem.label(label).help(help));
    }

    /// What attests this node: exactly one of the two.
    fn attestation(&mut self, at: &Key, raw: RawSpireServer) -> Option<NodeAttestation> {
        let base = self.base;
        let [token, certificate, private_key] =
            ["join_token_file", "x509pop_certificate", "x509pop_key"];
        let is_x509pop = raw.x509pop_certificate.is_some() || raw.x509pop_key.is_some();
        let x509pop = match raw.x509pop_key {
            Some(_) if raw.x509pop_certificate.is_none() => private_key,
            _ => certificate,
        };
        self.exactly_one(
            at,
            "the server could not recognize this node",
            &[
                (raw.join_token_file.is_some(), token),
                (is_x509pop, x509pop),
            ],
        )?;
        if let Some(path) = raw.join_token_file {
            let path = self.parsed(path.as_str(), &at.child(token), values::path(base))?;
            return Some(NodeAttestation::JoinToken(path));
        }
        let certificates = self.required(
            raw.x509pop_certificate,
            at.child(certificate),
            values::path(base),
        );
        let private_key = self.required(raw.x509pop_key, at.child(private_key), values::path(base));
        Some(NodeAttestation::X509Pop {
            certificates: certificates?,
            private_key: private_key?,
        })
    }

    /// Whether exactly one of these keys is there; anything else is reported.
    fn exactly_one(&mut self, at: &Key, without: &str, keys: &[(bool, &str)]) -> Option<()> {
        // What is there and cannot be read was reported.
        if keys.iter().any(|(_, name)| self.is_faulty(&at.child(name))) {
            return None;
        }
        let set: Vec<&str> = keys
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, name)| *name)
            .collect();
        let names: Vec<_> = keys.iter().map(|(_, name)| format!("`{name}`")).collect();
        let names = names.join(", ");
        let problem = match set.as_slice() {
            [_] => return Some(()),
            [] => Diagnostic::new(
                codes::SPIRE_ALTERNATIVES,
                format!("`{at}` has none of {names}"),
                self.keys.value(at),
            )
            .label(without)
            .help("add one of them"),
            [first, other, ..] => {
                let (key, other) = (at.child(other), at.child(first));
                Diagnostic::new(
                    codes::SPIRE_ALTERNATIVES,
                    format!("`{key}` besides `{other}`"),
                    self.keys.value(&key),
                )
                .label("only one of them can count")
                .related(self.keys.value(&other), "said here")
                .help("remove one of the two")
            }
        };
        self.report(problem);
        None
    }
}

/// Where a trust bundle is fetched.
fn trust_bundle_url(text: &str) -> Result<Uri, Problem> {
    values::url_of_bundle(text).map_err(|label| {
        Problem::new(
            codes::SPIRE_TRUST,
            "is not the URL of a trust bundle",
            label,
        )
        .help("write it like \"https://bundles.example/prod.pem\"")
    })
}

/// Host and port of a server.
fn server(text: &str) -> Result<String, Problem> {
    let authority: Option<Authority> = text.parse().ok();
    let is_server = authority.is_some_and(|authority| {
        let port = authority.port_u16();
        values::is_host(authority.host())
            && port.is_some_and(|port| port > 0)
            && !text.contains('@')
    });
    match is_server {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(
            codes::BAD_SERVER,
            "is not the address of a server",
            "must be a host and a port",
        )
        .help("write it like \"spire-server.spire:8081\"")),
    }
}

/// A SPIFFE ID, or all below a path.
fn id_pattern(text: &str) -> Result<IdPattern, Problem> {
    text.parse().map_err(|error: NoIdPattern| {
        Problem::new(
            codes::BAD_SPIFFE_ID,
            "is not a SPIFFE ID",
            error.to_string(),
        )
        .help("all IDs below a path are written like \"spiffe://prod.example/ns/*\"")
    })
}
