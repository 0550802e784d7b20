//! `[listener.path]`, `[listener.forward_client_cert]` and `trusted_hops`: what becomes of heads.

use sidegate_identity::SpiffeId;
use sidegate_proxy::{
    Backslashes, ClientCertDetails, DotSegments, DoubleSlashes, EscapedSlashes, ForwardClientCert,
    Forwarding, PathRules, Semicolons,
};

use super::{Diagnostic, Key, Lowering, codes, values};
use crate::config::raw::{RawForwardClientCert, RawPath};
use crate::config::values::{Problem, one_of};
use crate::table::Table;

/// One thing that upstreams can be told of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Subject,
    Cert,
    Chain,
    Dns,
    Uri,
}

impl Lowering<'_> {
    /// `None` where a problem was reported.
    pub(super) fn paths(&mut self, at: &Key, raw: RawPath) -> Option<PathRules> {
        if self.is_faulty(at) {
            return None;
        }
        let escaped_slashes = self.rule(
            at.child("escaped_slashes"),
            raw.escaped_slashes,
            &[
                ("reject", EscapedSlashes::Reject),
                ("keep", EscapedSlashes::Keep),
                ("decode", EscapedSlashes::Decode),
            ],
        );
        let dot_segments = self.rule(
            at.child("dot_segments"),
            raw.dot_segments,
            &[
                ("reject", DotSegments::Reject),
                ("resolve", DotSegments::Resolve),
            ],
        );
        let double_slashes = self.rule(
            at.child("double_slashes"),
            raw.double_slashes,
            &[
                ("reject", DoubleSlashes::Reject),
                ("merge", DoubleSlashes::Merge),
                ("keep", DoubleSlashes::Keep),
            ],
        );
        let semicolons = self.rule(
            at.child("semicolons"),
            raw.semicolons,
            &[("reject", Semicolons::Reject), ("keep", Semicolons::Keep)],
        );
        let backslashes = self.rule(
            at.child("backslashes"),
            raw.backslashes,
            &[
                ("reject", Backslashes::Reject),
                ("to_slash", Backslashes::ToSlash),
            ],
        );
        Some(PathRules {
            escaped_slashes: escaped_slashes?,
            dot_segments: dot_segments?,
            double_slashes: double_slashes?,
            semicolons: semicolons?,
            backslashes: backslashes?,
        })
    }

    /// A rule, or the default where there is none.
    fn rule<T: Copy + Default>(
        &mut self,
        key: Key,
        text: Option<String>,
        known: &[(&str, T)],
    ) -> Option<T> {
        match text {
            Some(text) => self.parsed(text.as_str(), &key, |text| one_of(text, known)),
            None if self.is_faulty(&key) => None,
            None => Some(T::default()),
        }
    }

    /// `None` where a problem was reported.
    pub(super) fn forwarding(
        &mut self,
        listener: &Key,
        raw: Option<Table<RawForwardClientCert>>,
        trusted_hops: &[String],
    ) -> Option<Forwarding> {
        let at = listener.child("forward_client_cert");
        let Table(raw) = raw.unwrap_or_default();
        let trusted_hops = self.trusted_hops(&listener.child("trusted_hops"), trusted_hops);
        let mode_key = at.child("mode");
        let client_cert = self.rule(
            mode_key.clone(),
            raw.mode,
            &[
                ("sanitize", ForwardClientCert::Sanitize),
                ("forward_only", ForwardClientCert::ForwardOnly),
                ("append_forward", ForwardClientCert::AppendForward),
                ("sanitize_set", ForwardClientCert::SanitizeSet),
                ("always_forward_only", ForwardClientCert::AlwaysForwardOnly),
            ],
        );
        let details_key = at.child("details");
        let is_told = raw.details.is_some();
        let details = raw.details.map(|words| self.details(&details_key, &words));
        let (client_cert, trusted_hops) = (client_cert?, trusted_hops?);
        if is_told && !client_cert.writes() {
            let title = "details of a certificate in a mode that tells nothing of it";
            let problem = Diagnostic::new(codes::NO_EFFECT, title, self.keys().value(&details_key))
                .label("has no effect")
                .related(self.keys().value(&mode_key), "with this mode")
                .help("remove it, or choose \"append_forward\" or \"sanitize_set\"");
            self.report(problem);
        }
        if client_cert.forwards() && trusted_hops.is_empty() {
            let title =
                "a client's x-forwarded-client-cert is to be forwarded, but nobody is trusted";
            let problem = Diagnostic::new(
                codes::NO_TRUSTED_HOP,
                title,
                self.keys().value(&mode_key),
            )
            .label("it is believed from trusted hops only")
            .help(
                "add `trusted_hops = [\"spiffe://…\"]` to the listener with the IDs of the proxies \
                 in front of it",
            );
            self.report(problem);
        }
        Some(Forwarding {
            client_cert,
            details: details.unwrap_or_default(),
            trusted_hops,
        })
    }

    fn trusted_hops(&mut self, at: &Key, texts: &[String]) -> Option<Vec<SpiffeId>> {
        if self.is_faulty(at) {
            return None;
        }
        let hops = self.list(at, texts, values::trusted_hop);
        (hops.len() == texts.len()).then_some(hops)
    }

    fn details(&mut self, at: &Key, words: &[String]) -> ClientCertDetails {
        let details = self.list(at, words, detail);
        let has = |detail| details.contains(&detail);
        ClientCertDetails {
            cert: has(Detail::Cert),
            chain: has(Detail::Chain),
            subject: has(Detail::Subject),
            uri: has(Detail::Uri),
            dns: has(Detail::Dns),
        }
    }
}

fn detail(text: &str) -> Result<Detail, Problem> {
    one_of(
        text,
        &[
            ("subject", Detail::Subject),
            ("cert", Detail::Cert),
            ("chain", Detail::Chain),
            ("dns", Detail::Dns),
            ("uri", Detail::Uri),
        ],
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Listener, parse};

    fn listener(sections: &str) -> Listener {
        let text = format!(
            r#"
[identity]
trust_domain = "sidegate.local"
state = "state"
[workload_api]
socket = "/run/sidegate/workload.sock"
[[listener]]
name = "main"
listen = "127.0.0.1:0"
upstream = "http://127.0.0.1:9000"
{sections}
"#
        );
        let (Config { listeners, .. }, _) = parse(Path::new("sidegate.toml"), &text).unwrap();
        listeners.first().unwrap().clone()
    }

    #[test]
    fn what_is_left_out_refuses_all_that_is_ambiguous_and_believes_nobody() {
        let default = listener("");
        assert_eq!(default.paths, PathRules::default());
        assert_eq!(default.forwarding, Forwarding::default());
        assert_eq!(
            default.forwarding.client_cert,
            ForwardClientCert::SanitizeSet
        );
        assert!(default.forwarding.details.uri && !default.forwarding.details.dns);
    }

    #[test]
    fn each_word_has_its_meaning() {
        let hops = "trusted_hops = [\"spiffe://a.test\", \"spiffe://sidegate.local/edge\"]";
        for (word, mode) in [
            ("sanitize", ForwardClientCert::Sanitize),
            ("forward_only", ForwardClientCert::ForwardOnly),
            ("append_forward", ForwardClientCert::AppendForward),
            ("sanitize_set", ForwardClientCert::SanitizeSet),
            ("always_forward_only", ForwardClientCert::AlwaysForwardOnly),
        ] {
            let section = format!("{hops}\n[listener.forward_client_cert]\nmode = \"{word}\"");
            let forwarding = listener(&section).forwarding;
            assert_eq!(forwarding.client_cert, mode);
            let hops: Vec<_> = forwarding
                .trusted_hops
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(hops, ["spiffe://a.test", "spiffe://sidegate.local/edge"]);
        }
        let none = ClientCertDetails::NONE;
        for (words, details) in [
            ("", none),
            (
                "\"subject\"",
                ClientCertDetails {
                    subject: true,
                    ..none
                },
            ),
            ("\"cert\"", ClientCertDetails { cert: true, ..none }),
            (
                "\"chain\"",
                ClientCertDetails {
                    chain: true,
                    ..none
                },
            ),
            ("\"dns\"", ClientCertDetails { dns: true, ..none }),
            (
                "\"uri\", \"dns\"",
                ClientCertDetails {
                    uri: true,
                    dns: true,
                    ..none
                },
            ),
        ] {
            let section = format!("[listener.forward_client_cert]\ndetails = [{words}]");
            assert_eq!(listener(&section).forwarding.details, details);
        }
    }

    #[test]
    fn routes_follow_the_rules_for_paths() {
        let keeping = listener(
            r#"
path = { escaped_slashes = "keep", double_slashes = "keep", semicolons = "keep" }
route = [{ path = "/a%2fb//c;d", upstream = "http://127.0.0.1:1" }]
"#,
        );
        assert_eq!(
            keeping.paths,
            PathRules {
                escaped_slashes: EscapedSlashes::Keep,
                dot_segments: DotSegments::Reject,
                double_slashes: DoubleSlashes::Keep,
                semicolons: Semicolons::Keep,
                backslashes: Backslashes::Reject,
            }
        );
        let rewriting = listener(
            r#"
path = { escaped_slashes = "decode", dot_segments = "resolve", double_slashes = "merge", backslashes = "to_slash" }
route = [{ path = "/a/%C3%A9", upstream = "http://127.0.0.1:1" }]
"#,
        );
        assert_eq!(
            rewriting.paths,
            PathRules {
                escaped_slashes: EscapedSlashes::Decode,
                dot_segments: DotSegments::Resolve,
                double_slashes: DoubleSlashes::Merge,
                semicolons: Semicolons::Reject,
                backslashes: Backslashes::ToSlash,
            }
        );
    }
}
