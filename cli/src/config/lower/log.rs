//! `[log]`: which keys go with which output.

use super::Lowering;
use crate::config::codes;
use crate::config::diagnostic::Diagnostic;
use crate::config::key::Key;
use crate::config::model::{AccessLogKind, AccessLogOutput, Log};
use crate::config::raw::RawLog;
use crate::config::values;

impl Lowering<'_> {
    pub(super) fn log(&mut self, mut raw: RawLog) -> Log {
        let at = Key::of("log");
        let default = Log::default();
        Log {
            level: self
                .optional(raw.level.take(), at.child("level"), values::log_level)
                .unwrap_or(default.level),
            format: self
                .optional(raw.format.take(), at.child("format"), values::log_format)
                .unwrap_or(default.format),
            access_format: self
                .optional(
                    raw.access_format.take(),
                    at.child("access_format"),
                    values::line_format,
                )
                .unwrap_or(default.access_format),
            access: self.access(&at, raw).unwrap_or(default.access),
        }
    }

    fn access(&mut self, at: &Key, raw: RawLog) -> Option<AccessLogOutput> {
        let base = self.base;
        let output = at.child("access");
        let is_faulty = self.is_faulty(&output);
        let kind = match raw.access {
            Some(text) => self.parsed(text.as_str(), &output, values::access_log_kind)?,
            None if is_faulty => return None,
            None => AccessLogKind::Stdout,
        };
        let path = at.child("access_path");
        if kind == AccessLogKind::File {
            let path = self.required(raw.access_path, path, values::path(base));
            return path.map(AccessLogOutput::File);
        }
        if raw.access_path.is_some() {
            let title = format!("`{path}` with another output");
            let problem = Diagnostic::new(codes::NO_EFFECT, title, self.keys().value(&path))
                .label("has no effect")
                .help("it goes with `access = \"file\"`");
            self.report(problem);
        }
        Some(match kind {
            AccessLogKind::Stderr => AccessLogOutput::Stderr,
            AccessLogKind::Stdout | AccessLogKind::File => AccessLogOutput::Stdout,
        })
    }
}
