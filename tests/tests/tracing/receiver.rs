//! A collector's side of OTLP, by others.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sidegate_tests::{Running, until};

/// A running receiver. It is killed when this is dropped.
pub(super) struct Receiver {
    process: Running,
    pub(super) grpc: String,
    pub(super) http: String,
}

/// One span, as it was received.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) protocol: String,
    pub(super) headers: Value,
    pub(super) resource: BTreeMap<String, String>,
    pub(super) attributes: BTreeMap<String, String>,
    span: Value,
}

impl Receiver {
    /// Starts it in plain text, or with a certificate and its key.
    pub(super) fn start(program: &Path, tls: Option<(&Path, &Path)>) -> Self {
        let mut command = Command::new(program);
        command.args(tls.into_iter().flat_map(|(chain, key)| [chain, key]));
        let mut process = Running::start(&mut command);
        let addresses = process.json_line();
        let address = |name| addresses[name].as_str().unwrap().to_owned();
        Self {
            grpc: address("grpc"),
            http: address("http"),
            process,
        }
    }

    /// Waits for so many spans.
    pub(super) fn spans(&self, count: usize) -> Vec<Received> {
        until(&format!("{count} spans"), || {
            let spans = self.received();
            (spans.len() >= count).then_some(spans)
        })
    }

    fn received(&self) -> Vec<Received> {
        let written = self.process.stdout();
        let exports = written.lines().skip(1);
        let exports = exports.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        exports.flat_map(|export| spans(&export)).collect()
    }
}

impl Received {
    pub(super) fn text(&self, field: &str) -> &str {
        self.span[field].as_str().unwrap_or_default()
    }

    /// `server` or `client`.
    pub(super) fn kind(&self) -> &str {
        match self.span["kind"].as_i64() {
            Some(2) => "server",
            Some(3) => "client",
            other => panic!("a kind: {other:?}"),
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.span["status"]["code"] == 2
    }

    pub(super) fn nanoseconds(&self, field: &str) -> u64 {
        self.text(field).parse().unwrap()
    }
}

fn spans(export: &Value) -> Vec<Received> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for resource in list(&export["traces"]["resourceSpans"]) {
        for scope in list(&resource["scopeSpans"]) {
            assert_eq!(scope["scope"]["name"], "sidegate");
            for span in list(&scope["spans"]) {
                all.push(Received {
                    protocol: export["protocol"].as_str().unwrap().to_owned(),
                    headers: export["headers"].clone(),
                    resource: attributes(&resource["resource"]),
                    attributes: attributes(&span),
                    span,
                });
            }
        }
    }
    all
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    let attributes = of["attributes"].as_array().cloned().unwrap_or_default();
    let attributes = attributes.iter().map(|attribute| {
        let value = &attribute["value"];
        let text = value["stringValue"].as_str().or(value["intValue"].as_str());
        let key = attribute["key"].as_str().unwrap();
        (key.to_owned(), text.unwrap().to_owned())
    });
    attributes.collect()
}
