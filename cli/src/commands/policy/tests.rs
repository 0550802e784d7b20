//! What `check` and `test` print, as golden files.

use std::path::{Path, PathBuf};

use sidegate_policy::PolicyFiles;
use sidegate_policy::lint;
use sidegate_policy::question::BenchReport;
use sidegate_policy::test_runner::{TestOptions, run_tests_with};

use super::{bench, check, test, usable};

/// Where the golden files are, from the crate's own folder, in which its tests run.
const FOLDER: &str = "src/commands/policy/golden";

pub(super) fn files(name: &str) -> PolicyFiles {
    PolicyFiles::read(&[Path::new(FOLDER).join(name)]).unwrap()
}

/// Compares with a golden file, and leaves what was found beside it.
pub(super) fn compare(golden: &str, found: &str) {
    let path: PathBuf = Path::new(FOLDER).join(golden);
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if found != expected {
        // Never over the golden text itself: a person looks first, then renames.
        let beside = path.with_added_extension("new");
        std::fs::write(&beside, found).unwrap();
        panic!(
            "{golden}\n--- expected\n{expected}\n--- found (also in {})\n{found}",
            beside.display()
        );
    }
}

pub(super) fn pretty(document: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(document).unwrap();
    text.push('\n');
    text
}

/// Without times, which differ from run to run.
fn masked(text: &str) -> String {
    let duration = regex::Regex::new(r#"\([0-9.]+(ns|µs|ms|s)\)|"duration_ns": [0-9]+"#).unwrap();
    let masked = duration.replace_all(text, |found: &regex::Captures<'_>| {
        let is_json = found[0].starts_with('"');
        if is_json {
            r#""duration_ns": 0"#
        } else {
            "(…)"
        }
        .to_owned()
    });
    masked.into_owned()
}

#[test]
fn findings_are_shown_as_the_golden_texts_say() {
    for name in ["errors", "warnings", "sound"] {
        let files = files(name);
        let report = lint::check(&files, &["envoy/authz/allow".to_owned()]);
        compare(
            &format!("{name}.check"),
            &check::text(&report, &files, false),
        );
        let document = check::Document::new(&report, false);
        compare(&format!("{name}.check.json"), &pretty(&document));
    }
}

#[test]
fn test_results_are_shown_as_the_golden_texts_say() {
    for (name, verbose) in [("sound", true), ("failing", false)] {
        let sources = usable(&files(name)).unwrap();
        let options = TestOptions {
            filter: None,
            coverage: true,
        };
        let report = run_tests_with(&sources, &options).unwrap();
        let found = masked(&test::text(&report, verbose, false));
        compare(&format!("{name}.test"), &found);
        let document = test::Document::new(&report, report.passed());
        compare(&format!("{name}.test.json"), &masked(&pretty(&document)));
    }
}

#[test]
fn colour_is_added_only_when_asked_for_and_changes_no_word() {
    let strip = |text: &str| {
        let style = regex::Regex::new("\x1b\\[[0-9;]*m").unwrap();
        style.replace_all(text, "").into_owned()
    };
    let files = files("errors");
    let report = lint::check(&files, &[]);
    let styled = check::text(&report, &files, true);
    assert!(styled.contains('\x1b'));
    assert_eq!(strip(&styled), check::text(&report, &files, false));

    let sources = usable(&self::files("failing")).unwrap();
    let report = run_tests_with(&sources, &TestOptions::default()).unwrap();
    let styled = test::text(&report, false, true);
    assert!(styled.contains('\x1b'));
    assert_eq!(strip(&styled), test::text(&report, false, false));
}

#[test]
fn a_bench_is_shown_in_microseconds() {
    let report = BenchReport {
        asked: "data.envoy.authz.allow".to_owned(),
        engine: "machine",
        because: None,
        evaluations: 1000,
        mean_ns: 2_345,
        p50_ns: 2_000,
        p90_ns: 3_000,
        p99_ns: 10_004,
        max_ns: 1_000_000,
        per_second: 426_439.2,
        cpu_ns: 2_400,
    };
    compare("bench.text", &bench::text(&report));
    let report = BenchReport {
        engine: "interpreter",
        because: Some("the policy would be refused, see `sidegate policy check`".to_owned()),
        ..report
    };
    compare("bench.interpreter.text", &bench::text(&report));
    compare("bench.interpreter.json", &pretty(&report));
}
