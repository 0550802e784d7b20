//! `[identity] source`: what each source needs, and what has no effect with it.

use sidegate_identity::received::{SourceKind, SvidFiles};

use super::{Diagnostic, Key, Lowering, codes, values};
use crate::config::model::IdentitySource;
use crate::config::raw::{RawAgent, RawEntry, RawFiles, RawIdentity};
use crate::table::Table;

impl Lowering<'_> {
    /// `None` only where a problem was reported.
    pub(super) fn source(&mut self, at: &Key, raw: &mut RawIdentity) -> Option<IdentitySource> {
        let key = at.child("source");
        let kind = match &raw.source {
            Some(text) => self.parsed(text.as_str(), &key, values::source)?,
            None if self.is_faulty(&key) => return None,
            None => SourceKind::default(),
        };
        self.only_with(at, kind, raw);
        for (index, Table(entry)) in raw.entry.iter().enumerate() {
            self.needs_no_mint(&Key::entry(index), kind, entry);
        }
        match kind {
            SourceKind::None => Some(IdentitySource::None),
            SourceKind::Embedded => Some(IdentitySource::Embedded),
            SourceKind::Files => {
                let at = at.child("files");
                let files = self.section(raw.files.take(), &at, "with `svid`, `key`, `bundle`")?;
                self.files(&at, files).map(IdentitySource::Files)
            }
            SourceKind::WorkloadApi => {
                let key = at.child("workload_api").child("socket");
                if self.is_faulty(&key) {
                    return None;
                }
                let agent = raw.workload_api.take();
                let RawAgent { socket } = agent.map(|Table(agent)| agent).unwrap_or_default();
                let socket = match socket {
                    Some(socket) => Some(self.parsed(socket.as_str(), &key, values::endpoint)?),
                    None => None,
                };
                Some(IdentitySource::WorkloadApi(socket))
            }
            SourceKind::SpireServer => {
                let server = self.spire_server(at, raw)?;
                Some(IdentitySource::SpireServer(Box::new(server)))
            }
        }
    }

    fn files(&mut self, at: &Key, raw: RawFiles) -> Option<SvidFiles> {
        let base = self.base;
        let [svid, key, bundle] = [(raw.svid, "svid"), (raw.key, "key"), (raw.bundle, "bundle")]
            .map(|(path, name)| self.required(path, at.child(name), values::path(base)));
        Some(SvidFiles {
            svid: svid?,
            key: key?,
            bundle: bundle?,
        })
    }

    /// Sections and keys of other sources.
    fn only_with(&mut self, at: &Key, kind: SourceKind, raw: &RawIdentity) {
        use SourceKind::{Embedded, Files, SpireServer, WorkloadApi};
        for (is_there, name, of) in [
            (raw.svid_ttl.is_some(), "svid_ttl", Embedded),
            (raw.embedded.is_some(), "embedded", Embedded),
            (raw.files.is_some(), "files", Files),
            (raw.workload_api.is_some(), "workload_api", WorkloadApi),
            (raw.spire_server.is_some(), "spire_server", SpireServer),
            (!raw.audience_rule.is_empty(), "audience_rule", SpireServer),
        ] {
            if is_there && kind != of {
                let key = at.child(name);
                let title = format!("`{key}` with the source `{kind}`");
                let problem = Diagnostic::new(codes::NO_EFFECT, title, self.keys.value(&key));
                let source = at.child("source");
                let problem = match self.keys.contains(&source) {
                    true => problem.related(self.keys.value(&source), "chosen here"),
                    false => problem,
                };
                self.report(problem.label("has no effect").help(format!(
                    "it is for the source `{of}`: remove one of the two"
                )));
            }
        }
    }

    /// What an entry asks of its SVIDs, others decide who mint them.
    fn needs_no_mint(&mut self, at: &Key, kind: SourceKind, raw: &RawEntry) {
        // With a SPIRE server there should not be any.
        if matches!(kind, SourceKind::Embedded | SourceKind::SpireServer) {
            return;
        }
        let are_foreign = kind == SourceKind::Files && !raw.federates_with.is_empty();
        for (is_there, name) in [
            (!raw.dns_names.is_empty(), "dns_names"),
            (!raw.audiences.is_empty(), "audiences"),
            (raw.x509_svid_ttl.is_some(), "x509_svid_ttl"),
            (raw.jwt_svid_ttl.is_some(), "jwt_svid_ttl"),
            (are_foreign, "federates_with"),
        ] {
            if is_there {
                let key = at.child(name);
                let title = format!("`{key}` with the source `{kind}`");
                let help = match name {
                    "federates_with" => "`embedded` and `workload-api` have foreign bundles",
                    _ => "`embedded` can mint; remove it, or ask whoever issues the SVIDs",
                };
                let place = self.keys.value(&key);
                let problem = Diagnostic::new(codes::CANNOT_MINT, title, place)
                    .label("this source gives what it holds, as it is");
                self.report(problem.help(help));
            }
        }
    }
}
