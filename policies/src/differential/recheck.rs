//! Asks the interpreter again about some of the machine's answers in service, on a thread of its
//! own.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use regorus::Value;

use crate::engine::{EvaluationError, Interpreter};
use crate::metrics::RecheckRecorder;
use crate::policy::Policy;

/// Of so many answers of the machine one is checked.
pub(crate) const ONE_IN: u32 = 1_000;

/// Answers that may wait to be checked. More are skipped: a request never waits.
const WAITING: usize = 64;

/// The way to the thread, which ends with the last of those who hold this.
pub(crate) struct Rechecks {
    queue: SyncSender<Answered>,
    recorder: RecheckRecorder,
}

/// What the machine said. Both values share reference counts with the worker's until they are
/// checked; one in a thousand does no harm.
struct Answered {
    input: Value,
    /// `None` for an error.
    answer: Option<Value>,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recheck {
    Same,
    Different,
    /// Not checked: too many waited, or no answer is the right one at another time.
    Skipped,
}

impl Rechecks {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system said if it has no thread left.
    pub(crate) fn start(policy: Policy, recorder: RecheckRecorder) -> std::io::Result<Self> {
        let (queue, answers) = sync_channel(WAITING);
        let counters = recorder.clone();
        thread::Builder::new()
            .name("policy-recheck".to_owned())
            .spawn(move || check_all(&policy, &answers, &counters))?;
        Ok(Self { queue, recorder })
    }

    /// Has an answer checked when there is time. Never blocks.
    pub(crate) fn check(&self, input: Value, answer: &Result<Value, EvaluationError>) {
        let answer = match answer {
            Ok(value) => Some(value.clone()),
            Err(EvaluationError::Failed(_)) => None,
            // The interpreter is slower: it can only agree.
            Err(EvaluationError::Timeout) => return,
        };
        match self.queue.try_send(Answered { input, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.recorder.record(Recheck::Skipped);
            }
        }
    }
}

fn check_all(policy: &Policy, answers: &Receiver<Answered>, recorder: &RecheckRecorder) {
    let mut interpreter = None;
    for answered in answers {
        if policy.is_disproved() {
            continue;
        }
        let result = check(policy, &mut interpreter, &answered);
        recorder.record(result);
        if result == Recheck::Different && policy.disprove() {
            let status = policy.status();
            // Neither the input nor the answers: they may hold secrets of a request.
            tracing::error!(
                code = "SG0290",
                generation = status.generation,
                entrypoint = %status.entrypoint,
                "the machine decided a request otherwise than the interpreter: from now on the interpreter decides for this generation, more slowly"
            );
        }
    }
}

fn check(policy: &Policy, place: &mut Option<Interpreter>, answered: &Answered) -> Recheck {
    let mut interpret = || {
        // Out of its place while it works: only success puts it back.
        let mut interpreter = match place.take() {
            Some(interpreter) => interpreter,
            None => policy.interpreter().map_err(EvaluationError::unusable)?,
        };
        let value = interpreter.evaluate(policy.rule(), answered.input.clone());
        interpreter.take_prints();
        if value.is_ok() {
            *place = Some(interpreter);
        }
        value
    };
    let same = |expected: &Result<Value, EvaluationError>, answer: &Option<Value>| match expected {
        Ok(expected) => answer.as_ref() == Some(expected),
        Err(_) => answer.is_none(),
    };
    let expected = interpret();
    if expected == Err(EvaluationError::Timeout) {
        return Recheck::Skipped;
    }
    if same(&expected, &answered.answer) {
        return Recheck::Same;
    }
    if policy.is_pure() {
        return Recheck::Different;
    }
    // The clock may have moved on: then the machine too has another answer now.
    let Some(mut machine) = policy.machine() else {
        return Recheck::Skipped;
    };
    let answer = match machine.evaluate(answered.input.clone()) {
        Ok(value) => Some(value),
        Err(EvaluationError::Failed(_)) => None,
        Err(EvaluationError::Timeout) => return Recheck::Skipped,
    };
    match same(&interpret(), &answer) {
        true => Recheck::Skipped,
        false => Recheck::Different,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::PolicyMetrics;
    use prometheus_client::registry::Registry;

    #[test]
    fn what_finds_no_room_is_skipped_at_once() {
        let mut registry = Registry::default();
        let recorder = PolicyMetrics::register(&mut registry).recheck_recorder();
        let (queue, answers) = sync_channel(1);
        let rechecks = Rechecks { queue, recorder };
        let check = || rechecks.check(Value::Null, &Ok(Value::Null));
        [check(), check(), check()].into_iter().for_each(drop);
        drop(answers);
        check();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(
            text.contains("policy_rechecks_total{result=\"skipped\"} 3\n"),
            "{text}"
        );
    }
}
