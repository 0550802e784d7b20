//! What `/metrics` exposes, and what `docs/reference/metrics.md` says that it does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use http::Request;
use sidegate_tests::{Sidegate, root, until};

use crate::support::{
    Client, Configuration, Upstream, admin, body, counter, finish, folder, write,
};

const POLICY: &str = r#"
package envoy.authz

allow := true
"#;

const CONNECT: &str = r#"
package sidegate.connect

allow := true
"#;

/// What gives a listener without a target of its own an identity.
const ENTRY: &str = r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/main"
selectors = ["listener:name:main"]
dns_names = ["localhost"]
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

const SERVER: &str = "http_server_request_duration_seconds";
const CLIENT: &str = "http_client_request_duration_seconds";

/// What is told of one metric: its type, and its labels with their values. Of a label that is
/// documented without values there may be any.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The rows of the table of metrics, by the names that queries use.
fn documented() -> BTreeMap<String, Metric> {
    let text = fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap();
    let (_, table) = text.split_once("| metric | type |").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<_> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [_, name, kind, labels, meaning, _] = cells.as_slice() else {
                panic!("a row of the table: {row}");
            };
            assert!(!meaning.is_empty(), "{row}");
            let metric = Metric {
                kind: (*kind).to_owned(),
                labels: labels_of(labels),
            };
            (name.trim_matches('`').to_owned(), metric)
        })
        .collect();
    let metrics: BTreeMap<_, _> = rows.iter().cloned().collect();
    assert_eq!(metrics.len(), rows.len(), "a metric has two rows: {rows:?}");
    metrics
}

/// The labels of a cell, each with the values in parentheses behind it.
fn labels_of(cell: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut labels = BTreeMap::new();
    let mut name = String::new();
    let mut are_values = false;
    for word in cell.split(' ').filter(|word| !word.is_empty()) {
        are_values |= word.starts_with('(');
        let text = word.trim_matches(['(', ')', '`']).to_owned();
        if are_values {
            let values: &mut BTreeSet<_> = labels.get_mut(&name).unwrap();
            values.insert(text);
        } else {
            labels.insert(text.clone(), BTreeSet::new());
            name = text;
        }
        are_values &= !word.ends_with(')');
    }
    labels
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
                labels: BTreeMap::new(),
            };
            let known = metrics.insert(name.clone(), metric);
            assert_eq!(known, None, "{name} is there twice");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(family), "{line} is not of {family}");
            let labels = line
                .split_once('{')
                .and_then(|(_, rest)| rest.rsplit_once('}'));
            let metric: &mut Metric = metrics.get_mut(&name).expect("its type comes before");
            for label in labels.map_or("", |(labels, _)| labels).split("\",") {
                let Some((label, value)) = label.split_once("=\"") else {
                    continue;
                };
                if label != "le" {
                    let values = metric.labels.entry(label.to_owned()).or_default();
                    values.insert(value.trim_end_matches('"').to_owned());
                }
            }
        }
    }
    metrics
}

/// Routes to the probe, to a server and to nobody, and nowhere for all other requests.
fn routes(server: &str) -> String {
    format!(
        r#"
[[listener]]
name = "main"
listen = "127.0.0.1:0"

[[listener.route]]
name = "probe"
path_prefix = "/status"
component = "probe"

[[listener.route]]
path_prefix = "/server"
upstream = "{server}"

[[listener.route]]
path_prefix = "/nobody"
upstream = "http://127.0.0.1:1"
"#
    )
}

/// One request of each kind.
async fn ask(client: &Client) {
    assert_eq!(client.get("/status/200").await.status, 200);
    assert_eq!(client.get("/status/503").await.status, 503);
    assert_eq!(client.get("/server").await.status, 200);
    let unknown = Request::builder().method("BREW").uri("/server");
    assert_eq!(client.send(unknown, body("")).await.status, 200);
    assert_eq!(client.get("/nobody").await.status, 502);
    assert_eq!(client.get("/elsewhere").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_documented_metric_is_exposed() {
    let folder = folder();
    write(folder.path(), "bundle/policy.rego", POLICY);
    write(folder.path(), "bundle/connect.rego", CONNECT);
    write(folder.path(), "candidate/policy.rego", POLICY);
    let upstream = Upstream::start().await;
    let tcp = format!(
        "[[listener]]\nname = \"tcp\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         upstream = \"{}\"\n[[identity.entry]]\nspiffe_id = \"spiffe://sidegate.local/tcp\"\n\
         selectors = [\"listener:name:tcp\"]\ndns_names = [\"localhost\"]\n",
        upstream.url.replace("http://", "tcp://")
    );
    let mut configuration = Configuration::new()
        .listener(&routes(&upstream.url))
        .rest(&format!("{EVERYTHING}{tcp}"));
    configuration.entries.push_str(ENTRY);
    let sidegate = Sidegate::run(&configuration.write(folder.path()));
    let [http, tcp] = sidegate.ready.listeners.as_slice() else {
        panic!("two listeners");
    };
    let file = |name: &str| folder.path().join("demo").join(name);
    let [bundle, svid, key] = ["bundle.pem", "svid.pem", "key.pem"].map(file);
    let client = Client::new(&http.address, &bundle, &svid, &key);
    let asked = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = client.clone().at(&tcp.address).exchange(asked).await;
    assert!(answer.contains("x-upstream: yes"), "{answer}");
    // What is counted by who asked is there only once somebody has.
    ask(&client).await;
    let mut svid = Sidegate::command("svid");
    svid.args(["fetch", "x509", "--socket", &sidegate.ready.workload_socket]);
    let fetched = finish(&mut svid);
    assert_eq!(fetched.status.code(), Some(0), "{fetched:?}");
    // A request counts when its response and its instance have ended.
    until("all requests count", || {
        let requests = counter(&sidegate, &format!("{SERVER}_count"), &[]);
        let instances = "sidegate_component_duration_seconds_count";
        (requests > 5.5 && counter(&sidegate, instances, &[]) > 1.5).then_some(())
    });
    let (documented, found) = (documented(), exposed(&sidegate));
    let names = |metrics: &BTreeMap<String, Metric>| -> Vec<_> {
        let metrics = metrics.iter();
        let told = metrics.map(|(name, metric)| {
            let labels: Vec<_> = metric.labels.keys().cloned().collect();
            (name.clone(), metric.kind.clone(), labels)
        });
        told.collect()
    };
    assert_eq!(names(&documented), names(&found));
    for (name, metric) in &found {
        for (label, values) in &metric.labels {
            let allowed = &documented[name].labels[label];
            assert!(
                allowed.is_empty() || values.is_subset(allowed),
                "{label} of {name} is one of {values:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_count_by_route_upstream_verdict_and_what_was_wrong_with_them() {
    let folder = folder();
    let policy = write(
        folder.path(),
        "policy/policy.rego",
        r#"package envoy.authz

        default allow := false

        allow if not startswith(input.attributes.request.http.path, "/server/denied")
        "#,
    );
    let upstream = Upstream::start().await;
    let mut configuration = Configuration::new()
        .listener(&routes(&upstream.url))
        .rest(&format!(
            "[policy]\npath = {:?}\n",
            policy.parent().unwrap()
        ));
    configuration.entries.push_str(ENTRY);
    let (sidegate, client) = configuration.start(folder.path());
    ask(&client).await;
    assert_eq!(client.get("/server/denied").await.status, 403);
    let http2 = client.send_http2(Request::builder(), "/server").await;
    assert_eq!(http2.status, 200);
    let port = format!(
        "server_port=\"{}\"",
        upstream.url.rsplit(':').next().unwrap()
    );
    let get = "http_request_method=\"GET\"";
    for (metric, labels, expected) in [
        (SERVER, vec![], 8),
        (SERVER, vec!["listener=\"main\"", "url_scheme=\"https\""], 8),
        (SERVER, vec!["network_protocol_version=\"2\""], 1),
        (SERVER, vec!["http_request_method=\"_OTHER\""], 1),
        (SERVER, vec!["route=\"probe\"", get], 2),
        (SERVER, vec!["route=\"route-2\"", "verdict=\"allow\""], 3),
        (
            SERVER,
            vec!["verdict=\"deny\"", "http_response_status_code=\"403\""],
            1,
        ),
        (
            SERVER,
            vec!["route=\"route-3\"", "error_type=\"connect_failed\""],
            1,
        ),
        (SERVER, vec!["route=\"probe\"", "error_type=\"503\""], 1),
        (SERVER, vec!["error_type=\"no_route\""], 1),
        (SERVER, vec!["error_type="], 3),
        (SERVER, vec!["route="], 7),
        // What is denied or has no route goes nowhere.
        (CLIENT, vec![], 6),
        (CLIENT, vec!["server_address=\"probe\""], 2),
        (CLIENT, vec!["server_address=\"127.0.0.1\"", &port], 3),
        (
            CLIENT,
            vec!["network_protocol_version=\"1.1\"", "route=\"route-2\""],
            3,
        ),
        (
            CLIENT,
            vec!["server_port=\"1\"", "error_type=\"connect_failed\""],
            1,
        ),
        (
            CLIENT,
            vec![
                "route=\"probe\"",
                "http_response_status_code=\"503\"",
                "error_type=\"503\"",
            ],
            1,
        ),
        (CLIENT, vec!["http_response_status_code="], 5),
    ] {
        until(&format!("{expected} of {metric} {labels:?}"), || {
            let count = counter(&sidegate, &format!("{metric}_count"), &labels);
            ((count - f64::from(expected)).abs() < 0.5).then_some(())
        });
    }
}
