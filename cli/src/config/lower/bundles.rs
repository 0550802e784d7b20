//! `[[policy.bundle]]`: where bundles come from, and how they must be signed.

use http::Uri;
use sidegate_policy::bundle::Polling;

use super::{Diagnostic, Key, Lowering, codes, values};
use crate::config::model::{BundleOrigin, BundleServer, BundleVerification, PolicyBundle};
use crate::config::raw::RawBundle;

impl Lowering<'_> {
    pub(super) fn bundle(&mut self, at: &Key, mut raw: RawBundle) -> Option<PolicyBundle> {
        let name = self.required(raw.name.take(), at.child("name"), values::name);
        let verification = self.verification(at, &mut raw);
        let origin = self.bundle_origin(at, raw);
        Some(PolicyBundle {
            name: name?,
            origin: origin?,
            verification,
        })
    }

    fn bundle_origin(&mut self, at: &Key, raw: RawBundle) -> Option<BundleOrigin> {
        let (path_key, url_key) = (at.child("path"), at.child("url"));
        match (&raw.path, &raw.url) {
            (Some(path), None) => {
                self.needs_url(at, &raw);
                let path = self.parsed(path.as_str(), &path_key, values::path(self.base))?;
                return Some(BundleOrigin::Path(path));
            }
            (None, Some(_)) => return self.server(at, raw).map(BundleOrigin::Server),
            (Some(_), Some(_)) => {
                let problem = Diagnostic::new(
                    codes::BUNDLE_ORIGIN,
                    "a bundle with both `path` and `url`",
                    self.keys.value(&url_key),
                )
                .label("it can come from one of the two only")
                .related(self.keys.value(&path_key), "the other one")
                .help("remove one of them, or write two bundles");
                self.report(problem);
            }
            (None, None) if self.is_faulty(&path_key) || self.is_faulty(&url_key) => {}
            (None, None) => {
                let problem = Diagnostic::new(
                    codes::BUNDLE_ORIGIN,
                    "a bundle with neither `path` nor `url`",
                    self.keys.value(at),
                )
                .label("it comes from nowhere")
                .help("add `url = \"https://…\"`, or `path = \"…\"` with a directory or tarball");
                self.report(problem);
            }
        }
        None
    }

    /// What is said of a server has no effect on a path.
    fn needs_url(&mut self, at: &Key, raw: &RawBundle) {
        for (is_there, name) in [
            (raw.token_file.is_some(), "token_file"),
            (raw.ca_file.is_some(), "ca_file"),
            (raw.min_poll.is_some(), "min_poll"),
            (raw.max_poll.is_some(), "max_poll"),
            (raw.long_poll.is_some(), "long_poll"),
            (raw.persist.is_some(), "persist"),
        ] {
            if is_there {
                let key = at.child(name);
                let problem = Diagnostic::new(
                    codes::NO_EFFECT,
                    format!("`{key}` of a bundle with a `path`"),
                    self.keys.value(&key),
                )
                .label("has no effect")
                .related(self.keys.value(&at.child("path")), "it comes from here")
                .help("it is for bundles with a `url`: remove one of the two");
                self.report(problem);
            }
        }
    }

    fn server(&mut self, at: &Key, raw: RawBundle) -> Option<BundleServer> {
        let base = self.base;
        let url = self.required(raw.url.clone(), at.child("url"), values::bundle_url);
        let ca_file = self.optional(raw.ca_file.clone(), at.child("ca_file"), values::path(base));
        if let Some(url) = &url {
            self.trust(at, url, raw.ca_file.is_some());
            self.plain_text(at, url, &raw);
        }
        let token_file = self.optional(raw.token_file, at.child("token_file"), values::path(base));
        let polling = self.polling(at, [raw.min_poll, raw.max_poll], raw.long_poll);
        Some(BundleServer {
            url: url?,
            token_file,
            ca_file,
            polling,
            persist: raw.persist.unwrap_or(false),
        })
    }

    /// There is no trust without roots, and no use for them without TLS.
    fn trust(&mut self, at: &Key, url: &Uri, has_roots: bool) {
        let (url_key, key) = (at.child("url"), at.child("ca_file"));
        let problem = match (url.scheme_str() == Some("https"), has_roots) {
            (true, false) if !self.is_faulty(&key) => Diagnostic::new(
                codes::BUNDLE_URL,
                format!("`{url_key}` without `ca_file`"),
                self.keys.value(&url_key),
            )
            .label("nobody is trusted to be this server")
            .help("add `ca_file = \"…\"`, a PEM file with the roots that its certificate leads to"),
            (false, true) => Diagnostic::new(
                codes::NO_EFFECT,
                format!("`{key}` of a bundle without TLS"),
                self.keys.value(&key),
            )
            .label("has no effect")
            .related(self.keys.value(&url_key), "plain text")
            .help("write `https://`, or remove it"),
            _ => return,
        };
        self.report(problem);
    }

    /// Over a network in plain text there is neither a token, nor a bundle that anybody on the way
    /// could have written.
    fn plain_text(&mut self, at: &Key, url: &Uri, raw: &RawBundle) {
        if url.scheme_str() == Some("https") || values::is_loopback(url) {
            return;
        }
        let url_key = at.child("url");
        let label = if raw.token_file.is_some() {
            "the token would cross the network as it is"
        } else if raw.verification_key.is_none() {
            "whoever is on the way decides what is allowed"
        } else {
            return;
        };
        let title = format!("`{url_key}` in plain text");
        let problem = Diagnostic::new(codes::BUNDLE_URL, title, self.keys.value(&url_key))
            .label(label)
            .help("write the url with https://, or a loopback address");
        self.report(problem);
    }

    fn polling(
        &mut self,
        at: &Key,
        [min, max]: [Option<String>; 2],
        long_poll: Option<String>,
    ) -> Polling {
        let default = Polling::default();
        let is_set = (min.is_some(), max.is_some());
        let min = self.optional(min, at.child("min_poll"), values::poll);
        let max = self.optional(max, at.child("max_poll"), values::poll);
        let long_poll = self.optional(long_poll, at.child("long_poll"), values::long_poll);
        // One of the two alone moves the other along.
        let (min, max) = match (min, max) {
            (Some(min), Some(max)) => (min, max),
            (Some(min), None) => (min, default.max.max(min)),
            (None, Some(max)) => (default.min.min(max), max),
            (None, None) => (default.min, default.max),
        };
        if min > max && is_set == (true, true) {
            let (key, other) = (at.child("min_poll"), at.child("max_poll"));
            let problem = Diagnostic::new(
                codes::OUT_OF_RANGE,
                format!("`{key}` is out of range"),
                self.keys.value(&key),
            )
            .label("must be at most `max_poll`")
            .related(self.keys.value(&other), "shorter");
            self.report(problem);
        }
        Polling {
            min,
            max,
            long_poll,
        }
    }

    /// Any key of it asks for verification.
    fn verification(&mut self, at: &Key, raw: &mut RawBundle) -> Option<BundleVerification> {
        let is_verified = raw.verification_key.is_some()
            || raw.verification_algorithm.is_some()
            || raw.verification_key_id.is_some()
            || raw.verification_scope.is_some()
            || raw.verification_exclude.is_some();
        if !is_verified {
            return None;
        }
        let base = self.base;
        let key = self.required(
            raw.verification_key.take(),
            at.child("verification_key"),
            values::path(base),
        );
        let algorithm = self.optional(
            raw.verification_algorithm.take(),
            at.child("verification_algorithm"),
            values::signature_algorithm,
        );
        Some(BundleVerification {
            key: key?,
            algorithm: algorithm.unwrap_or_default(),
            key_id: raw.verification_key_id.take(),
            scope: raw.verification_scope.take().unwrap_or_default(),
            exclude: raw.verification_exclude.take().unwrap_or_default(),
        })
    }
}
