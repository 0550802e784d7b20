//! What `/metrics` exposes, and what `docs/metrics.md` says that it does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use sidegate_tests::{Sidegate, root, until};

use crate::support::{Configuration, admin, finish, folder, write};

const POLICY: &str = r#"
package envoy.authz

allow := true
"#;

const CONNECT: &str = r#"
package sidegate.connect

allow := true
"#;

/// Everything that has metrics of its own.
const EVERYTHING: &str = r#"
[policy]
timeout = "5s"

[[policy.bundle]]
name = "authz"
path = "bundle"

[policy.shadow]
path = "candidate"

[decision_log]
output = "file"
path = "decisions.log"
"#;

/// What is told of one metric: its type, and the names of its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

/// The rows of the table, by the names that queries use.
fn documented() -> BTreeMap<String, Metric> {
    let text = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `sidegate_"));
    let rows: Vec<_> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [_, name, kind, labels, ..] = cells.as_slice() else {
                panic!("a row of the table: {row}");
            };
            let metric = Metric {
                kind: (*kind).to_owned(),
                labels: named(labels),
            };
            (name.trim_matches('`').to_owned(), metric)
        })
        .collect();
    let metrics: BTreeMap<_, _> = rows.iter().cloned().collect();
    assert_eq!(metrics.len(), rows.len(), "a metric has two rows: {rows:?}");
    metrics
}

/// The labels of a cell, without the values in parentheses.
fn named(cell: &str) -> BTreeSet<String> {
    let outside = cell.split('(').flat_map(|part| part.rsplit(')').next());
    let outside: Vec<&str> = outside.collect();
    let names = outside.iter().flat_map(|part| part.split('`'));
    let names = names.map(str::trim).filter(|name| !name.is_empty());
    names.map(ToOwned::to_owned).collect()
}

/// What an instance exposes now, by the same names.
fn exposed(sidegate: &Sidegate) -> BTreeMap<String, Metric> {
    let (status, text) = admin(sidegate, "/metrics").expect("metrics are served");
    assert_eq!(status, 200);
    let mut metrics = BTreeMap::new();
    let mut family = "";
    let mut name = String::new();
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("# TYPE ") {
            let kind;
            (family, kind) = told.split_once(' ').expect("a name and a type");
            name = match kind {
                "counter" => format!("{family}_total"),
                _ => family.to_owned(),
            };
            let metric = Metric {
                kind: kind.to_owned(),
                labels: BTreeSet::new(),
            };
            let known = metrics.insert(name.clone(), metric);
            assert_eq!(known, None, "{name} is there twice");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(family), "{line} is not of {family}");
            let labels = line
                .split_once('{')
                .and_then(|(_, rest)| rest.rsplit_once('}'));
            let metric = metrics.get_mut(&name).expect("its type comes before");
            let labels = labels.map_or("", |(labels, _)| labels).split("\",");
            let labels = labels.filter_map(|label| Some(label.split_once('=')?.0));
            let labels = labels.filter(|label| *label != "le");
            metric.labels.extend(labels.map(ToOwned::to_owned));
        }
    }
    metrics
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_documented_metric_is_exposed() {
    let folder = folder();
    write(folder.path(), "bundle/policy.rego", POLICY);
    write(folder.path(), "bundle/connect.rego", CONNECT);
    write(folder.path(), "candidate/policy.rego", POLICY);
    let configuration = Configuration::new().rest(EVERYTHING);
    let (sidegate, client) = configuration.start(folder.path());
    // What is counted by who asked is there only once somebody has.
    assert_eq!(client.get("/status/200").await.status, 200);
    let mut svid = Sidegate::command("svid");
    svid.args(["fetch", "x509", "--socket", &sidegate.ready.workload_socket]);
    let fetched = finish(&mut svid);
    assert_eq!(fetched.status.code(), Some(0), "{fetched:?}");
    // A request counts when its response and its instance have ended.
    let found = until("a request that counts", || {
        let found = exposed(&sidegate);
        let ended = ["requests_total", "component_duration_seconds"];
        let mut ended = ended.iter().map(|name| format!("sidegate_{name}"));
        ended.all(|name| found.contains_key(&name)).then_some(found)
    });
    assert_eq!(documented(), found);
}
