use serde_json::json;

use super::*;

fn sample(proxy: Proxy, case: Case, round: u16, cost: f64) -> Sample {
    let figures = match case {
        Case::Idle => Figures::of_memory(cost),
        _ => Figures {
            cpu_us: Some(cost),
            ..Figures::default()
        },
    };
    Sample {
        proxy,
        case,
        round,
        figures,
    }
}

#[test]
fn a_quantile_is_the_least_that_so_many_do_not_exceed() {
    let hundred: Vec<u32> = (1..=100).collect();
    for (thousandths, expected) in [(500, 50), (990, 99), (999, 100)] {
        assert_eq!(quantile(&hundred, thousandths), Some(expected));
    }
    assert_eq!(quantile(&[7], 500), Some(7));
    assert_eq!(quantile(&[], 500), None);
}

#[test]
fn figures_of_load_are_for_each_answer() {
    let latencies = vec![3_000, 1_000, 2_000, 4_500];
    let (time, cpu) = (Duration::from_millis(500), Duration::from_micros(100));
    let figures = Figures::of_load(4, time, cpu, latencies).unwrap();
    assert_eq!(
        figures,
        Figures {
            cpu_us: Some(25.0),
            rps: Some(8.0),
            p50_us: Some(2.0),
            p99_us: Some(4.5),
            p999_us: Some(4.5),
            ..Figures::default()
        }
    );
    assert!(Figures::of_load(0, time, cpu, Vec::new()).is_err());
}

#[test]
fn a_ratio_is_the_middle_of_those_to_the_floor_of_the_same_round() {
    let mut report = ProxyReport::new(1, 3);
    // The machine becomes slower in the second round and slower still in the third.
    for (round, floor, ours) in [(0, 10.0, 12.0), (1, 20.0, 26.0), (2, 40.0, 60.0)] {
        report.add(sample(Proxy::Sidegate, Case::H1, round, ours));
        report.add(sample(Proxy::Floor, Case::H1, round, floor));
    }
    let [floor, ours] = report.results.as_slice() else {
        panic!("one row a proxy: {:?}", report.results);
    };
    assert_eq!(floor.proxy, Proxy::Floor);
    assert_eq!((floor.figures.cpu_us, floor.ratio), (Some(20.0), Some(1.0)));
    assert_eq!((ours.figures.cpu_us, ours.ratio), (Some(26.0), Some(1.3)));
    assert_eq!((floor.met, ours.met), (None, Some(false)));
}

#[test]
fn memory_is_judged_by_bytes_and_compared_with_the_floors() {
    let mut report = ProxyReport::new(1, 1);
    report.add(sample(Proxy::Floor, Case::Idle, 0, 40_960.0));
    report.add(sample(Proxy::Sidegate, Case::Idle, 0, 20_480.0));
    let ours = &report.results[1];
    assert_eq!((ours.ratio, ours.met), (Some(0.5), Some(true)));
}

#[test]
fn without_a_floor_there_is_no_ratio_and_no_verdict() {
    let mut report = ProxyReport::new(1, 1);
    report.add(sample(Proxy::Sidegate, Case::H2, 0, 30.0));
    assert_eq!(
        (report.results[0].ratio, report.results[0].met),
        (None, None)
    );
}

#[test]
fn a_report_names_what_is_missing_and_programs_can_read_it() {
    let mut report = ProxyReport::new(1, 1);
    report.add(sample(Proxy::Floor, Case::Body1k, 0, 20.0));
    report.add(sample(Proxy::EnvoyRbac, Case::Body1k, 0, 50.0));
    report.skip("nginx: this machine has none".to_owned());
    report.skip("nginx: this machine has none".to_owned());
    let text = report.to_string();
    assert_eq!(text.matches("SKIPPED: nginx").count(), 1, "{text}");
    assert!(
        text.contains("body-1k     envoy-rbac      50.0     2.50"),
        "{text}"
    );
    let document = serde_json::to_value(&report).unwrap();
    assert_eq!(
        document["results"][1],
        json!({"proxy": "envoy-rbac", "case": "body-1k", "cpu_us": 50.0, "ratio": 2.5})
    );
    assert_eq!(document["skipped"], json!(["nginx: this machine has none"]));
}
