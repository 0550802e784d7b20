//! The properties.

use prometheus_client::registry::Registry;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sidegate_policy::{Evaluator, Policy, PolicyMetrics};

use crate::policies::{Written, policy, table};
use crate::requests::{Asked, asked, sequence};

/// Makes the interpreter decide, and leaves what the policy reads as it is: the machine has no
/// rules that might contradict each other.
const INTERPRETED: &str = "
either := 1 if input.neither
either := 2 if input.nor
allow if { false; either == 3 }
";

/// Makes the interpreter decide on the whole document: of a policy that replaces parts of its input
/// nothing is known.
const WHOLE: &str = "allow if { false; input.neither with input.neither as true }";

/// The same cases each time. To look further, take another seed and more cases.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 400,
        rng_seed: RngSeed::Fixed(0x51de),
        ..ProptestConfig::default()
    }
}

fn evaluator(policy: &Policy) -> Evaluator {
    policy
        .evaluator(&PolicyMetrics::register(&mut Registry::default()))
        .unwrap()
}

/// What becomes of a request, as its caller and the upstream see it.
fn decided(evaluator: &mut Evaluator, asked: &Asked) -> String {
    match evaluator.decide(&asked.connection(), asked.request()) {
        Ok(permit) => format!("allowed: {:?}", permit.into_forwardable().head.headers),
        Err(denial) => format!("{}: {:?} {:?}", denial.status, denial.headers, denial.body),
    }
}

/// Asks both about the same requests.
fn compare(
    written: &Written,
    requests: &[Asked],
    first: &mut Evaluator,
    second: &mut Evaluator,
) -> Result<(), TestCaseError> {
    for asked in requests {
        let (first, second) = (decided(first, asked), decided(second, asked));
        prop_assert_eq!(first, second, "{:?}\n{:?}", asked, written);
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(20))]

    #[test]
    fn a_remembered_decision_is_the_one_that_would_be_made_again(
        written in policy(),
        requests in sequence(),
    ) {
        let mut remembering = evaluator(&written.load(INTERPRETED, 1024 * 1024));
        let mut forgetful = evaluator(&written.load(INTERPRETED, 0));
        compare(&written, &requests, &mut remembering, &mut forgetful)?;
    }

    #[test]
    fn what_a_policy_does_not_read_does_not_decide(
        written in policy(),
        requests in vec(asked(), 16),
    ) {
        let mut projected = evaluator(&written.load(INTERPRETED, 0));
        let mut whole = evaluator(&written.load(WHOLE, 0));
        compare(&written, &requests, &mut projected, &mut whole)?;
    }
}

proptest! {
    #![proptest_config(config(36))]

    #[test]
    fn the_machine_decides_as_the_interpreter_does(
        written in policy(),
        requests in vec(asked(), 64),
    ) {
        let policy = written.load("", 0);
        let mut chosen = evaluator(&policy);
        let mut interpreted = evaluator(&written.load(INTERPRETED, 0));
        compare(&written, &requests, &mut chosen, &mut interpreted)?;
    }
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn a_long_table_is_the_same_to_the_machine(
        written in table(),
        requests in vec(asked(), 64),
    ) {
        let mut chosen = evaluator(&written.load("", 0));
        let mut interpreted = evaluator(&written.load(INTERPRETED, 0));
        compare(&written, &requests, &mut chosen, &mut interpreted)?;
    }
}
