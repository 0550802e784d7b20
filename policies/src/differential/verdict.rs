//! Which engine decides, and why.

use std::fmt;

use serde::Serialize;

/// The engine that decides, found when a policy is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "engine", rename_all = "kebab-case")]
pub enum EngineChoice {
    /// The register machine: many times as fast, and shown to answer as the interpreter does.
    Machine(Examined),
    /// The interpreter.
    Interpreter {
        /// Why the machine does not.
        because: InterpreterReason,
    },
}

/// What the machine was compared with the interpreter on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Examined {
    /// Different inputs that both were asked about.
    pub inputs: usize,
    /// Statements that these inputs reached: all of them.
    pub covered: usize,
    /// Statements of the rules that the entrypoint needs.
    pub statements: usize,
}

/// Why the interpreter decides. `Display` says what the policy's author can do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum InterpreterReason {
    /// There is no program of the policy.
    NoProgram {
        /// What stands against one.
        message: String,
    },
    /// The machine answers otherwise than the interpreter.
    Difference {
        /// What the policy reads of the input.
        input: String,
        /// The machine's answer.
        machine: String,
        /// The interpreter's.
        interpreter: String,
    },
    /// No input was found that reaches some statement, so that nothing is known about it.
    NotReached {
        /// The first such statement, as `file:line`.
        place: String,
        /// How many statements were reached.
        covered: usize,
        /// How many there are.
        statements: usize,
    },
    /// The time was over before all statements were reached.
    OutOfTime {
        /// The first statement that was not reached, as `file:line`.
        place: String,
        /// How many statements were reached.
        covered: usize,
        /// How many there are.
        statements: usize,
    },
    /// The interpreter itself took too long about an input.
    Slow,
    /// In service the machine answered otherwise than the interpreter did afterwards.
    Disproved,
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(Examined {
                inputs, statements, ..
            }) => write!(
                formatter,
                "the machine: it answered as the interpreter did to {inputs} inputs that reach all {statements} statements"
            ),
            Self::Interpreter { because } => write!(formatter, "the interpreter: {because}"),
        }
    }
}

impl fmt::Display for InterpreterReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram { message } => formatter.write_str(message),
            Self::Difference {
                input,
                machine,
                interpreter,
            } => write!(
                formatter,
                "the machine answers {machine} instead of {interpreter} to {input}"
            ),
            Self::NotReached {
                place,
                covered,
                statements,
            } => write!(
                formatter,
                "no input reached {place} ({covered} of {statements} statements were); add a test that does, by `with input as …`"
            ),
            Self::OutOfTime {
                place,
                covered,
                statements,
            } => write!(
                formatter,
                "there was no time to reach {place} ({covered} of {statements} statements were); add a test that does, by `with input as …`"
            ),
            Self::Slow => formatter.write_str(
                "it took too long to answer for the machine to be compared with it; make the policy cheaper",
            ),
            Self::Disproved => formatter.write_str(
                "the machine gave an answer in service that the interpreter does not give",
            ),
        }
    }
}
