//! `[decision_log]`: which keys go with which output.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Uri;

use super::Lowering;
use crate::config::codes;
use crate::config::diagnostic::Diagnostic;
use crate::config::key::Key;
use crate::config::model::{
    Credentials, DecisionLog, DecisionLogKind, DecisionLogOutput, FileOptions, Receiver,
    UploadOptions,
};
use crate::config::raw::RawDecisionLog;
use crate::config::values;

/// Labels that every event has.
const OWN_LABELS: [&str; 2] = ["id", "version"];

impl Lowering<'_> {
    /// `None` only where a problem was reported.
    pub(super) fn decision_log(&mut self, mut raw: RawDecisionLog) -> Option<DecisionLog> {
        let at = Key::of("decision_log");
        let kind = self.required(
            raw.output.take(),
            at.child("output"),
            values::decision_log_kind,
        );
        let most = self.optional(
            raw.max_decisions_per_second,
            at.child("max_decisions_per_second"),
            values::integer(1..=i64::from(u32::MAX)),
        );
        let credentials = self.optional(
            raw.credentials.take(),
            at.child("credentials"),
            values::credentials,
        );
        let headers = raw.mask_headers.iter().enumerate();
        let mask_headers = headers
            .filter_map(|(index, name)| {
                let key = at.child("mask_headers").item(index);
                self.parsed(name.as_str(), &key, values::header_name)
            })
            .collect();
        let labels = self.labels(&at.child("labels"), std::mem::take(&mut raw.labels));
        let kind = kind?;
        self.refuse_others(&at, kind, &raw);
        let output = match kind {
            DecisionLogKind::Stdout => DecisionLogOutput::Stdout,
            DecisionLogKind::File => DecisionLogOutput::File(self.file(&at, raw)?),
            DecisionLogKind::Http => DecisionLogOutput::Http(self.receiver(&at, raw)?),
        };
        Some(DecisionLog {
            output,
            max_decisions_per_second: most.and_then(|most| u32::try_from(most).ok()),
            credentials: credentials.unwrap_or(Credentials::Erased),
            mask_headers,
            labels,
        })
    }

    fn labels(&mut self, at: &Key, labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
        for own in OWN_LABELS {
            if labels.contains_key(own) {
                let key = at.child(own);
                let title = format!("`{key}` is a label of Sidegate's own");
                let problem = Diagnostic::new(codes::NO_EFFECT, title, self.keys().value(&key))
                    .label("has no effect")
                    .help("every event has it: the id and the version of the instance");
                self.report(problem);
            }
        }
        labels
    }

    /// Keys of other outputs are mistakes, not settings for another time.
    fn refuse_others(&mut self, at: &Key, kind: DecisionLogKind, raw: &RawDecisionLog) {
        let file = [
            ("path", raw.path.is_some()),
            ("max_size", raw.max_size.is_some()),
            ("keep", raw.keep.is_some()),
        ];
        let http = [
            ("url", raw.url.is_some()),
            ("resource", raw.resource.is_some()),
            ("token_file", raw.token_file.is_some()),
            ("ca_file", raw.ca_file.is_some()),
            ("upload_size_limit", raw.upload_size_limit.is_some()),
            ("min_delay", raw.min_delay.is_some()),
            ("max_delay", raw.max_delay.is_some()),
            ("buffer_size", raw.buffer_size.is_some()),
        ];
        let file = file.map(|(name, is_set)| (name, is_set, DecisionLogKind::File));
        let http = http.map(|(name, is_set)| (name, is_set, DecisionLogKind::Http));
        for (name, is_set, goes_with) in file.into_iter().chain(http) {
            if !is_set || goes_with == kind {
                continue;
            }
            let key = at.child(name);
            let output = at.child("output");
            let problem = Diagnostic::new(
                codes::NO_EFFECT,
                format!("`{key}` with another output"),
                self.keys().value(&key),
            )
            .label("has no effect")
            .related(self.keys().value(&output), "with this")
            .help(match goes_with {
                DecisionLogKind::File => "it goes with `output = \"file\"`",
                DecisionLogKind::Http | DecisionLogKind::Stdout => {
                    "it goes with `output = \"http\"`"
                }
            });
            self.report(problem);
        }
    }

    fn file(&mut self, at: &Key, raw: RawDecisionLog) -> Option<FileOptions> {
        let base = self.base;
        let path = self.required(raw.path, at.child("path"), values::path(base));
        let max_size = self.optional(
            raw.max_size,
            at.child("max_size"),
            values::size(DecisionLog::MAX_SIZE_RANGE),
        );
        let keep = self.optional(
            raw.keep,
            at.child("keep"),
            values::integer(0..=DecisionLog::MOST_KEPT),
        );
        Some(FileOptions {
            path: path?,
            max_size: max_size.unwrap_or(DecisionLog::DEFAULT_MAX_SIZE),
            keep: keep.unwrap_or(DecisionLog::DEFAULT_KEEP),
        })
    }

    fn receiver(&mut self, at: &Key, raw: RawDecisionLog) -> Option<Receiver> {
        let base = self.base;
        let url = self.required(raw.url, at.child("url"), values::receiver);
        let resource = self.optional(raw.resource, at.child("resource"), values::resource);
        let token_file = self.optional(raw.token_file, at.child("token_file"), values::path(base));
        let has_ca_file = raw.ca_file.is_some() || self.is_faulty(&at.child("ca_file"));
        let ca_file = self.optional(raw.ca_file, at.child("ca_file"), values::path(base));
        let chunk_size = self.optional(
            raw.upload_size_limit,
            at.child("upload_size_limit"),
            values::size(DecisionLog::UPLOAD_SIZE_LIMIT_RANGE),
        );
        let max_delay = self.delay(raw.max_delay, at.child("max_delay"));
        let max_delay = max_delay.unwrap_or(DecisionLog::DEFAULT_MAX_DELAY);
        let min_delay = self.delay(raw.min_delay, at.child("min_delay"));
        let min_delay = min_delay.unwrap_or(DecisionLog::DEFAULT_MIN_DELAY.min(max_delay));
        let buffer_size = self.optional(
            raw.buffer_size,
            at.child("buffer_size"),
            values::size(DecisionLog::BUFFER_SIZE_RANGE),
        );
        let chunk_size = chunk_size.unwrap_or(DecisionLog::DEFAULT_UPLOAD_SIZE_LIMIT);
        let buffer_size = buffer_size.unwrap_or(DecisionLog::DEFAULT_BUFFER_SIZE);
        if min_delay > max_delay {
            self.out_of_order(at, "min_delay", "max_delay");
        }
        if chunk_size > buffer_size {
            self.out_of_order(at, "upload_size_limit", "buffer_size");
        }
        let url = url?;
        let is_https = url.scheme_str() == Some("https");
        if is_https && !has_ca_file {
            let key = at.child("ca_file");
            let problem = Diagnostic::new(
                codes::MISSING,
                format!("`{key}` is missing"),
                self.keys().value(&at.child("url")),
            )
            .label("needs the certificates that sign the receiver's")
            .help("nobody is trusted by default; a public receiver's are in the system's file of roots");
            self.report(problem);
        }
        if !is_https && has_ca_file {
            let key = at.child("ca_file");
            let title = format!("`{key}` with a receiver in plain text");
            let problem = Diagnostic::new(codes::NO_EFFECT, title, self.keys().value(&key))
                .label("has no effect")
                .related(self.keys().value(&at.child("url")), "in plain text")
                .help("write the url with https://, or remove the file");
            self.report(problem);
        }
        if !is_https && token_file.is_some() && !values::is_loopback(&url) {
            let title = "`decision_log.token_file` with a receiver in plain text";
            let key = at.child("token_file");
            let problem = Diagnostic::new(values::BAD_RECEIVER, title, self.keys().value(&key))
                .label("the token would cross the network as it is")
                .help("write the url with https://, or a loopback address");
            self.report(problem);
        }
        Some(Receiver {
            uri: joined(&url, resource.as_deref())?,
            token_file,
            ca_file,
            upload: UploadOptions {
                chunk_size: usize::try_from(chunk_size).unwrap_or(usize::MAX),
                min_delay,
                max_delay,
                buffer_size: usize::try_from(buffer_size).unwrap_or(usize::MAX),
            },
        })
    }

    fn delay(&mut self, value: Option<String>, key: Key) -> Option<Duration> {
        self.optional(value, key, values::duration(DecisionLog::DELAY_RANGE))
    }

    fn out_of_order(&mut self, at: &Key, less: &str, more: &str) {
        let (less, more) = (at.child(less), at.child(more));
        let problem = Diagnostic::new(
            codes::OUT_OF_RANGE,
            format!("`{less}` is more than `{more}`"),
            self.keys().value(&less),
        )
        .label(format!("must be at most `{more}`"));
        self.report(problem);
    }
}

/// The resource below the URL.
fn joined(url: &Uri, resource: Option<&str>) -> Option<Uri> {
    let resource = resource.unwrap_or(DecisionLog::DEFAULT_RESOURCE);
    let path = url.path().trim_end_matches('/');
    let resource = resource.trim_start_matches('/');
    let authority = url.authority()?.clone();
    Uri::builder()
        .scheme(url.scheme()?.clone())
        .authority(authority)
        .path_and_query(format!("{path}/{resource}"))
        .build()
        .ok()
}
