//! `source = "none"` and `tls = "off"`: what needs an identity is refused where there is none.

use sidegate_identity::received::SourceKind;

use super::{Diagnostic, Key, Lowering, codes, values};
use crate::config::model::ListenerTls;
use crate::config::raw::{RawConfig, RawListener};
use crate::table::Table;

/// What to do where the source has no identities.
const SOURCE: &str = "the source `none` has no identities: remove one of the two";

/// What to do where a listener has none.
const PLAINTEXT: &str = "the listener has no identity with `tls = \"off\"`: remove one of the two";

impl Lowering<'_> {
    /// Where there are no identities at all, what of the file is about them is reported, and taken out,
    /// so that it is reported once.
    pub(super) fn turn_off(&mut self, raw: &mut RawConfig) {
        let identity = raw.identity.as_mut().map(|Table(raw)| raw);
        let source = identity.as_ref().and_then(|raw| raw.source.as_deref());
        if source.and_then(|text| values::source(text).ok()) != Some(SourceKind::None) {
            return;
        }
        self.is_off = true;
        if let Some(identity) = identity {
            let at = Key::of("identity");
            if identity.trust_domain.take().is_some() {
                self.idle(&at.child("trust_domain"));
            }
            for index in 0..std::mem::take(&mut identity.entry).len() {
                self.idle(&Key::entry(index));
            }
        }
        if raw.workload_api.take().is_some() {
            self.idle(&Key::of("workload_api"));
        }
        for index in 0..std::mem::take(&mut raw.svid_file).len() {
            self.unnamed(&Key::svid_file(index), "there is no SVID to write", SOURCE);
        }
        if let Some(Table(admin)) = &mut raw.admin
            && admin.clients.take().is_some()
        {
            let key = Key::of("admin").child("clients");
            self.unnamed(&key, "the server has nothing to show to them", SOURCE);
        }
        for (index, Table(egress)) in raw.egress.iter_mut().enumerate() {
            if egress.spiffe_id.take().is_some() {
                let key = Key::egress(index).child("spiffe_id");
                self.unnamed(&key, "the app has no identity", SOURCE);
            }
        }
    }

    /// A listener's TLS. Without it the listener has no identity, and what needs one is reported and
    /// taken out.
    pub(super) fn tls(&mut self, at: &Key, raw: &mut RawListener) -> ListenerTls {
        let key = at.child("tls");
        let written = self.optional(raw.tls.take(), key.clone(), values::listener_tls);
        let tls = match written {
            Some(ListenerTls::On(_)) if self.is_off => {
                self.unnamed(&key, "there is no certificate to show", SOURCE);
                ListenerTls::Off
            }
            None if self.is_off => ListenerTls::Off,
            written => written.unwrap_or_default(),
        };
        if tls != ListenerTls::Off {
            return tls;
        }
        let why = self.why();
        if raw.spiffe_id.take().is_some() {
            self.unnamed(&at.child("spiffe_id"), "nobody is shown an identity", why);
        }
        for index in 0..std::mem::take(&mut raw.sni).len() {
            let key = at.child("sni").item(index);
            self.unnamed(&key, "there are no server names without TLS", why);
        }
        let has_hops = !std::mem::take(&mut raw.trusted_hops).is_empty();
        let limits = raw.limits.as_mut();
        let has_handshakes = limits.and_then(|Table(raw)| raw.max_handshakes.take());
        for (is_there, key) in [
            (has_hops, at.child("trusted_hops")),
            (
                raw.forward_client_cert.take().is_some(),
                at.child("forward_client_cert"),
            ),
            (
                has_handshakes.is_some(),
                at.child("limits").child("max_handshakes"),
            ),
        ] {
            if is_there {
                let title = format!("`{key}` of a listener without TLS");
                let problem = Diagnostic::new(codes::NO_EFFECT, title, self.keys.value(&key))
                    .label("has no effect: nobody shows a certificate there");
                let problem = self.caused(problem);
                self.report(problem.help(why));
            }
        }
        tls
    }

    /// Reports an upstream in the mesh of a listener that has nothing to show to it.
    pub(super) fn nothing_to_show(&mut self, key: &Key) {
        let why = self.why();
        let label = "is reached by mutual TLS, and there is nothing to show to it";
        self.unnamed(key, label, why);
    }

    /// Why a listener has no identity.
    fn why(&self) -> &'static str {
        match self.is_off {
            true => SOURCE,
            false => PLAINTEXT,
        }
    }

    /// Shows the source besides, where that is the cause.
    fn caused(&self, problem: Diagnostic) -> Diagnostic {
        let source = Key::of("identity").child("source");
        match self.is_off {
            true => problem.related(self.keys.value(&source), "chosen here"),
            false => problem,
        }
    }

    /// Something has no effect without identities.
    fn idle(&mut self, key: &Key) {
        let title = format!("`{key}` with the source `none`");
        let problem = Diagnostic::new(codes::NO_EFFECT, title, self.keys.value(key));
        let problem = self.caused(problem.label("has no effect"));
        self.report(problem.help(SOURCE));
    }

    /// Something cannot be without an identity.
    fn unnamed(&mut self, key: &Key, label: &'static str, why: &str) {
        let title = format!("`{key}` needs an identity");
        let problem = Diagnostic::new(codes::NO_IDENTITY, title, self.keys.value(key));
        let problem = self.caused(problem);
        self.report(problem.label(label).help(why));
    }
}
