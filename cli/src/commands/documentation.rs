//! `sidegate documentation`: pages of the reference that are made from the code.

use std::fmt::Write;

use prometheus_client::encoding::text::encode;

use crate::arguments::DocumentationPage;
use crate::failure::Failure;
use crate::instance::every_metric;
use crate::output;

/// What stands before the table of metrics.
const METRICS: &str = include_str!("documentation/metrics.md.in");

/// Values that stand for what the configuration or a peer names.
const CONFIGURED: [&str; 2] = ["…", "0"];

/// One metric, by the name that queries use.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metric {
    name: String,
    kind: String,
    help: String,
    /// Names with their values, both in the order in which they first come.
    labels: Vec<(String, Vec<String>)>,
}

/// Prints a page.
pub(super) fn execute(page: DocumentationPage) -> Result<(), Failure> {
    match page {
        DocumentationPage::Metrics => output::print(&metrics()?),
    }
}

fn metrics() -> Result<String, Failure> {
    let mut exposed = String::new();
    encode(&mut exposed, &every_metric()).map_err(|error| Failure::new("SG0008", &error))?;
    let mut page = METRICS.to_owned();
    page.push_str("\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for metric in parse(&exposed) {
        let Metric {
            name, kind, help, ..
        } = &metric;
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels(&metric));
    }
    Ok(page)
}

/// Reads the text format of OpenMetrics, as far as it is used here.
fn parse(exposed: &str) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for line in exposed.lines() {
        if let Some((name, help)) = told(line, "# HELP ") {
            metrics.push(Metric {
                name: name.to_owned(),
                help: help.trim_end_matches('.').to_owned(),
                ..Metric::default()
            });
            continue;
        }
        let Some(metric) = metrics.last_mut() else {
            continue;
        };
        if let Some((_, kind)) = told(line, "# TYPE ") {
            kind.clone_into(&mut metric.kind);
            if kind == "counter" {
                metric.name.push_str("_total");
            }
        } else if let Some((labels, _)) =
            line.split_once('{').and_then(|(_, it)| it.split_once('}'))
        {
            for label in labels.split("\",") {
                if let Some((name, value)) = label.split_once("=\"") {
                    metric.add(name, value.trim_end_matches('"'));
                }
            }
        }
    }
    metrics
}

fn told<'t>(line: &'t str, what: &str) -> Option<(&'t str, &'t str)> {
    line.strip_prefix(what)?.split_once(' ')
}

impl Metric {
    fn add(&mut self, name: &str, value: &str) {
        if name == "le" {
            return;
        }
        if !self.labels.iter().any(|(known, _)| known == name) {
            self.labels.push((name.to_owned(), Vec::new()));
        }
        let label = self.labels.iter_mut().find(|(known, _)| known == name);
        if let Some((_, values)) = label {
            let is_new = !values.iter().any(|known| known == value);
            if is_new && !CONFIGURED.contains(&value) {
                values.push(value.to_owned());
            }
        }
    }
}

/// The labels, each with its values behind it in parentheses.
fn labels(metric: &Metric) -> String {
    let quoted = |text: &String| format!("`{text}`");
    let labels = metric.labels.iter().map(|(name, values)| {
        let mut values = values.clone();
        values.sort();
        let values: Vec<_> = values.iter().map(quoted).collect();
        match values.is_empty() {
            true => quoted(name),
            false => format!("{} ({})", quoted(name), values.join(" ")),
        }
    });
    labels.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_metric_is_told_with_its_labels_and_their_values() {
        let exposed = "\
# HELP a_requests Requests.
# TYPE a_requests counter
a_requests_total{listener=\"…\",verdict=\"deny\"} 1
a_requests_total{listener=\"…\",verdict=\"allow\"} 2
# HELP b_seconds Time.
# TYPE b_seconds histogram
b_seconds_bucket{le=\"1.0\",code=\"0\"} 2
# EOF
";
        let metrics = parse(exposed);
        let told: BTreeMap<_, _> = metrics
            .iter()
            .map(|metric| (metric.name.as_str(), (labels(metric), &*metric.help)))
            .collect();
        let requests = "`listener` `verdict` (`allow` `deny`)".to_owned();
        assert_eq!(
            told,
            BTreeMap::from([
                ("a_requests_total", (requests, "Requests")),
                ("b_seconds", ("`code`".to_owned(), "Time")),
            ])
        );
    }
}
