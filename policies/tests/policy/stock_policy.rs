//! The policy that Sidegate brings along passes its own tests and loads.

use sidegate_policy::{DecisionPoint, Policy, PolicyOptions, PolicySources, test_runner};

#[test]
fn the_stock_policy_passes_its_own_tests() {
    let report = test_runner::run_tests(&PolicySources::stock().unwrap()).unwrap();
    let failures: Vec<_> = report.failures().collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(report.results.len(), 24, "{:#?}", report.results);
}

#[test]
fn the_stock_policy_loads_with_default_options() {
    let policy = Policy::load(PolicySources::stock().unwrap(), &PolicyOptions::default()).unwrap();
    assert_eq!(policy.status().entrypoint, "envoy/authz/allow");
    assert_eq!((policy.status().modules, policy.status().tests), (9, 24));
}

#[test]
fn the_stock_policy_has_a_rule_for_every_decision_point() {
    for point in DecisionPoint::ALL {
        let options = PolicyOptions {
            entrypoint: point.entrypoint().to_owned(),
            ..PolicyOptions::default()
        };
        let loaded = Policy::load(PolicySources::stock().unwrap(), &options);
        assert!(loaded.is_ok(), "{}: {:?}", point.name(), loaded.err());
    }
}
