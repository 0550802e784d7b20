//! Compiles rules to a program and makes it ready for the hot path.

use std::sync::Arc;

use regorus::Value;
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::Instruction;
use regorus::rvm::instructions::BuiltinCallParams;
use regorus::rvm::program::{BuiltinInfo, Program, RuleInfo, RuleType};

use crate::builtins::{extension, extensions};
use crate::engine::Interpreter;
use crate::error::EngineMessage;
use crate::syntax::Place;

/// Why a policy stays with the interpreter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoProgram {
    /// The compiler lacks something, `with` for instance.
    #[error("the compiler lacks what the policy uses: {0}")]
    Compiler(EngineMessage),
    /// Where definitions contradict each other, OPA and the interpreter raise an error; the
    /// machine goes on as if the rule were undefined, and `not` would turn that into a yes.
    #[error("the definitions of `{rule}` could contradict each other")]
    Conflict { rule: String },
    /// The machine would not ask the `else`.
    #[error(
        "the machine cannot go on to an `else` from the loop at {place}; write the rules apart, or the loop as a rule of its own"
    )]
    LoopBeforeElse { place: Place },
    /// Two members with the same key are an error; to the machine the last one counts.
    #[error(
        "the machine does not see two members of one key in the object comprehension at {place}"
    )]
    ObjectComprehension { place: Place },
    /// The machine has no values for functions none of whose definitions has one.
    #[error(
        "the machine does not know the default of a function at {place}; use a definition or an `else`"
    )]
    DefaultFunction { place: Place },
    /// The compiler would take the policy's own function for a builtin.
    #[error("the function `{name}` has the name of a builtin")]
    Shadowed { name: String },
}

impl NoProgram {
    pub(super) fn engine(error: impl std::fmt::Display) -> Self {
        // One line: the rest quotes the source.
        let text = error.to_string();
        let line = text.rsplit("error: ").next().unwrap_or_default();
        Self::Compiler(EngineMessage::new(line.lines().next().unwrap_or_default()))
    }
}

/// Compiles `rule` and all that it needs.
pub(super) fn compile(
    interpreter: &mut Interpreter,
    rule: &str,
) -> Result<Arc<Program>, NoProgram> {
    let compiled = interpreter.compiled(rule).map_err(NoProgram::engine)?;
    let ours: Vec<(&str, usize)> = extensions()
        .iter()
        .filter(|extension| !extension.replaces)
        .map(|extension| (extension.name, usize::from(extension.arity)))
        .collect();
    for (name, _) in &ours {
        let suffix = format!(".{name}");
        if compiled
            .get_rules()
            .keys()
            .any(|path| path.ends_with(&suffix))
        {
            return Err(NoProgram::Shadowed {
                name: (*name).to_owned(),
            });
        }
    }
    let program = Compiler::compile_from_policy_with_host_await(&compiled, &[rule], &ours)
        .map_err(NoProgram::engine)?;
    let mut program = Arc::unwrap_or_clone(program);
    refuse_conflicts(&program, rule)?;
    connect_extensions(&mut program)?;
    slim(&mut program);
    Ok(Arc::new(program))
}

/// Rules whose definitions may have different values, but for the one that is asked for: there a
/// contradiction is undefined, and so a denial. Of a partial object any two members may have the same
/// key.
fn refuse_conflicts(program: &Program, rule: &str) -> Result<(), NoProgram> {
    let conflicting = program.rule_infos.iter().find(|info| {
        let contradicts = match info.rule_type {
            RuleType::Complete => info.definitions.len() > 1 && !info.early_exit_on_first_success,
            RuleType::PartialObject => true,
            RuleType::PartialSet => false,
        };
        contradicts && info.name != rule
    });
    match conflicting {
        Some(info) => Err(NoProgram::Conflict {
            rule: info.name.clone(),
        }),
        None => Ok(()),
    }
}

/// Our builtins take the place of the engine's of the same name. For those that the engine has not
/// the compiler asks a host, with the arguments in an array and the name in a register: here that
/// becomes the call of one builtin that takes both.
fn connect_extensions(program: &mut Program) -> Result<(), NoProgram> {
    let called = program.builtin_info_table.iter();
    for (builtin, info) in program.resolved_builtins.iter_mut().zip(called) {
        if let Some(ours) = extension(&info.name) {
            *builtin = ours.native;
        }
    }
    if !program.has_host_await {
        return Ok(());
    }
    let too_many = || NoProgram::engine("too many builtin calls");
    let builtin_index = u16::try_from(program.builtin_info_table.len()).map_err(|_| too_many())?;
    program.builtin_info_table.push(BuiltinInfo {
        name: "extension".to_owned(),
        num_args: 2,
    });
    program
        .resolved_builtins
        .push((|_, _, arguments, _| Ok(call_extension(arguments)), 2));
    for instruction in &mut program.instructions {
        if let Instruction::HostAwait { dest, arg, id } = *instruction {
            let calls = &mut program.instruction_data.builtin_call_params;
            let params_index = u16::try_from(calls.len()).map_err(|_| too_many())?;
            calls.push(BuiltinCallParams {
                dest,
                builtin_index,
                num_args: 2,
                args: [id, arg, 0, 0, 0, 0, 0, 0],
            });
            *instruction = Instruction::BuiltinCall { params_index };
        }
    }
    program.has_host_await = false;
    Ok(())
}

/// Calls the extension that the first argument names with those in the second.
fn call_extension(arguments: &[Value]) -> Value {
    let [Value::String(name), Value::Array(arguments)] = arguments else {
        return Value::Undefined;
    };
    let arguments: Vec<Value> = arguments.iter().cloned().collect();
    extension(name).map_or(Value::Undefined, |extension| (extension.call)(&arguments))
}

/// The machine copies a rule's description at each call: leaves in it only what it looks at.
fn slim(program: &mut Program) {
    for info in &mut program.rule_infos {
        let RuleInfo {
            name,
            function_info,
            destructuring_blocks,
            else_bodies,
            ..
        } = info;
        name.clear();
        name.shrink_to_fit();
        if let Some(function) = function_info {
            function.param_names = Vec::new();
        }
        // Absent means the same as none and no to it.
        if destructuring_blocks.iter().all(Option::is_none) {
            *destructuring_blocks = Vec::new();
        }
        if else_bodies.iter().flatten().all(|is_else| !is_else) {
            *else_bodies = Vec::new();
        }
    }
}
