//! A policy as a program for regorus's register machine: ten times as fast as the interpreter, and
//! used only where [`differential`](crate::differential) found no difference to it.

mod guards;
mod index;
mod negations;
mod program;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use regorus::Value;
use regorus::rvm::RegoVM;
use regorus::rvm::program::Program;
use regorus::rvm::vm::VmError;
use regorus::utils::limits::ExecutionTimerConfig;

use crate::engine::{EvaluationError, Interpreter, unbroken};
use crate::error::EngineMessage;

pub(crate) use guards::{Guarded, apply, guarded, guarded_members, unlike};
pub(crate) use program::NoProgram;

/// Instructions that one decision may take. An instruction costs some 20 ns, so the time limit ends
/// most decisions before; this ends those whose clock does not run.
const INSTRUCTIONS: usize = 10_000_000;

/// Instructions between two looks at the clock.
const CHECK_INTERVAL: u32 = 512;

/// A program with its data, and the machine that runs it. Shares no reference count with another.
pub(crate) struct Machine {
    vm: RegoVM,
    program: Arc<Program>,
    data: Value,
    limit: Duration,
}

impl Machine {
    /// Compiles the rule and all that it needs, of [guarded](apply) sources.
    ///
    /// # Errors
    /// [`NoProgram`] where the policy has something that the machine cannot do, or does otherwise
    /// than the interpreter.
    pub(crate) fn compile(
        interpreter: &mut Interpreter,
        rule: &str,
        limit: Duration,
    ) -> Result<Self, NoProgram> {
        let program = program::compile(interpreter, rule)?;
        let data = interpreter.data();
        let vm = fresh(&program, &data, limit)?;
        Ok(Self {
            vm,
            program,
            data,
            limit,
        })
    }

    /// The rule's value, [`Value::Undefined`] included.
    pub(crate) fn evaluate(&mut self, input: Value) -> Result<Value, EvaluationError> {
        self.vm.set_input(input);
        let result = unbroken(|| self.vm.execute_entry_point_by_index(0));
        // The document is filled anew for the next request: nobody else may hold it then.
        self.vm.set_input(Value::Undefined);
        let error = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => match error {
                VmError::TimeLimitExceeded { .. } | VmError::InstructionLimitExceeded { .. } => {
                    EvaluationError::Timeout
                }
                other => EvaluationError::Failed(EngineMessage::new(other)),
            },
            Err(panicked) => panicked,
        };
        // What a failed run leaves behind is nobody's business: a new machine costs a microsecond.
        if let Ok(vm) = fresh(&self.program, &self.data, self.limit) {
            self.vm = vm;
        }
        Err(error)
    }
}

/// A machine that has run nothing yet.
fn fresh(program: &Arc<Program>, data: &Value, limit: Duration) -> Result<RegoVM, NoProgram> {
    let mut vm = RegoVM::new();
    vm.set_max_instructions(INSTRUCTIONS);
    // Also keeps the machine from asking for a process-wide default, behind a lock.
    vm.set_execution_timer_config(Some(ExecutionTimerConfig {
        limit,
        check_interval: NonZeroU32::new(CHECK_INTERVAL).unwrap_or(NonZeroU32::MIN),
    }));
    vm.load_program(Arc::clone(program));
    vm.set_data(data.clone()).map_err(NoProgram::engine)?;
    Ok(vm)
}
