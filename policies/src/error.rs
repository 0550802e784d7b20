//! Why a set of policy sources was refused.
//!
//! These errors are for the operator. Nothing here reaches a caller of the
//! proxy: what a caller may learn is in [`Denial`](crate::Denial).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::test_runner::TestResult;

/// A message of the Rego engine, with file, line, column and source excerpt
/// where the engine has them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EngineMessage(String);

impl EngineMessage {
    /// Wraps what the engine said, without leading or trailing blank lines.
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self(message.to_string().trim().to_owned())
    }
}

/// A module that is not valid Rego v1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseFailure {
    /// The module's name as it was given.
    pub file: String,
    /// What the parser said, with line, column and excerpt.
    pub message: EngineMessage,
}

/// Why one function call can never be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallProblem {
    /// Neither a builtin of this engine nor a function of the modules.
    Unknown {
        /// What to do about it, where something useful is known.
        hint: Option<String>,
    },
    /// The function exists but takes another number of arguments.
    Arity {
        /// How many arguments the function takes.
        expected: usize,
        /// How many arguments the call passes.
        found: usize,
    },
}

/// A call that the engine cannot evaluate, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedCall {
    /// The function as it is called, e.g. `io.jwt.decode`.
    pub function: String,
    /// The module's name as it was given.
    pub file: String,
    /// Line of the function's name, from 1.
    pub line: usize,
    /// Column of the function's name in characters, from 1.
    pub column: usize,
    /// What is wrong with it.
    pub problem: CallProblem,
}

impl fmt::Display for UnsupportedCall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            function,
            file,
            line,
            column,
            problem,
        } = self;
        write!(formatter, "{file}:{line}:{column}: ")?;
        match problem {
            CallProblem::Unknown { hint: None } => {
                write!(formatter, "unknown function `{function}`")
            }
            CallProblem::Unknown { hint: Some(hint) } => {
                write!(formatter, "unknown function `{function}`: {hint}")
            }
            CallProblem::Arity { expected, found } => {
                write!(
                    formatter,
                    "`{function}` takes {expected} arguments, {found} are given"
                )
            }
        }
    }
}

/// A rule that refers to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recursion {
    /// The rule, e.g. `data.roles.reaches`.
    pub rule: String,
    /// The module that declares it first, as it was given.
    pub file: String,
    /// Line of the rule, from 1.
    pub line: usize,
    /// Column of the rule in characters, from 1.
    pub column: usize,
    /// The rules between it and itself.
    pub through: Vec<String>,
}

impl Recursion {
    /// What is wrong, without the place.
    #[must_use]
    pub fn problem(&self) -> String {
        let Self { rule, through, .. } = self;
        match through.is_empty() {
            true => format!("{rule} refers to itself"),
            false => format!("{rule} refers to itself, by {}", through.join(" and ")),
        }
    }
}

impl fmt::Display for Recursion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file, line, column, ..
        } = self;
        write!(formatter, "{file}:{line}:{column}: {}", self.problem())
    }
}

/// Something that OPA refuses or understands otherwise than this engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlike {
    /// The module, as it was given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What it is.
    pub problem: &'static str,
    /// What to write instead.
    pub help: &'static str,
}

impl fmt::Display for Unlike {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            problem,
            help,
        } = self;
        write!(formatter, "{file}:{line}:{column}: {problem}: {help}")
    }
}

/// Why sources do not become a policy. The previous policy, if there is one,
/// stays in service: loading has no effect of its own.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file or directory could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A name that is not UTF-8 cannot become a data path or a module name.
    #[error("the name of {} is not UTF-8", path.display())]
    FileName {
        /// The file or directory.
        path: PathBuf,
    },
    /// Directories that link into themselves, or that are nested too deep.
    #[error("{} links back into itself or is nested more than {limit} directories deep", path.display())]
    DirectoryDepth {
        /// The directory at which reading stopped.
        path: PathBuf,
        /// How many levels are read.
        limit: usize,
    },
    /// There is no Rego module, so nothing could ever be decided.
    #[error("no .rego file in {origin}")]
    NoModules {
        /// Where modules were looked for.
        origin: String,
    },
    /// Two modules have the same name.
    #[error("the module {file} is there twice")]
    DuplicateModule {
        /// The name.
        file: String,
    },
    /// A data document does not parse, or contradicts another one.
    #[error("the data document {file} cannot be used")]
    Data {
        /// The document's name as it was given.
        file: String,
        /// What is wrong with it.
        #[source]
        source: EngineMessage,
    },
    /// Modules that are not Rego v1; all of them.
    #[error("{}", list("modules that do not parse", failures.iter().map(|failure| &failure.message)))]
    Parse {
        /// Every module that does not parse.
        failures: Vec<ParseFailure>,
    },
    /// The modules parse, but the engine cannot prepare them (unsafe
    /// variables, recursion, conflicting rules).
    #[error("the modules cannot be compiled")]
    Compile {
        /// What the engine said.
        #[source]
        source: EngineMessage,
    },
    /// The entrypoint is not a path such as `envoy/authz/allow`.
    #[error(
        "`{entrypoint}` is no entrypoint: expected a package and a rule, such as envoy/authz/allow"
    )]
    EntrypointSyntax {
        /// The entrypoint as it was configured.
        entrypoint: String,
    },
    /// No module declares the entrypoint's rule.
    #[error("no module declares the rule {rule} of the entrypoint {entrypoint}")]
    EntrypointMissing {
        /// The entrypoint as it was configured.
        entrypoint: String,
        /// The rule that it names.
        rule: String,
    },
    /// Calls that the engine cannot evaluate; all of them.
    #[error("{}", list("calls that this engine cannot evaluate", calls))]
    UnsupportedCalls {
        /// Every such call, in the order of files and lines.
        calls: Vec<UnsupportedCall>,
    },
    /// Expressions are nested so deep that the calls in them cannot be seen.
    #[error("the modules nest expressions too deep to be checked")]
    NestingDepth {
        /// What the reader of the syntax tree said.
        #[source]
        source: serde_json::Error,
    },
    /// The modules' own tests fail.
    #[error("{}", list("tests of the policy that fail", failures.iter().map(|failure| &failure.name)))]
    TestsFailed {
        /// The tests that fail.
        failures: Vec<TestResult>,
    },
    /// Rules that refer to themselves; all of them. The engine would follow
    /// them until its stack ends.
    #[error("{}", list("rules that refer to themselves", rules))]
    Recursive {
        /// Every such rule, in the order of modules.
        rules: Vec<Recursion>,
    },
    /// Expressions that OPA refuses or understands otherwise; all of them.
    #[error("{}", list("expressions that mean something else in OPA", places))]
    Unlike {
        /// Every such expression, in the order of modules.
        places: Vec<Unlike>,
    },
    /// Data where a rule is: whichever counted, the other would be lost.
    #[error("{}", list("rules with data in their place", rules))]
    RuleAndData {
        /// The rules, e.g. `data.envoy.authz.allow`.
        rules: Vec<String>,
    },
    /// Brackets in brackets, which take the parser twice as long with each level.
    #[error("{file}:{line}: brackets are nested more than {limit} deep")]
    Brackets {
        /// The module, as it was given.
        file: String,
        /// The line where they are too deep, from 1.
        line: usize,
        /// How deep they may be.
        limit: usize,
    },
    /// A file that is named itself is neither a module nor data.
    #[error("{} is neither a .rego file nor data (.json or .yaml)", path.display())]
    FileType {
        /// The file.
        path: PathBuf,
    },
    /// A decision must have some time.
    #[error("a decision timeout of {timeout:?} leaves no time to decide")]
    DecisionTimeout {
        /// The timeout as it was configured.
        timeout: Duration,
    },
}

impl PolicyError {
    /// The stable diagnostic code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "SG0201",
            Self::FileName { .. } => "SG0202",
            Self::DirectoryDepth { .. } => "SG0203",
            Self::NoModules { .. } => "SG0204",
            Self::DuplicateModule { .. } => "SG0205",
            Self::Data { .. } => "SG0206",
            Self::Parse { .. } => "SG0207",
            Self::Compile { .. } => "SG0208",
            Self::EntrypointSyntax { .. } => "SG0209",
            Self::EntrypointMissing { .. } => "SG0210",
            Self::UnsupportedCalls { .. } => "SG0211",
            Self::NestingDepth { .. } | Self::Brackets { .. } => "SG0212",
            Self::TestsFailed { .. } => "SG0213",
            Self::DecisionTimeout { .. } => "SG0214",
            Self::Recursive { .. } => "SG0285",
            Self::FileType { .. } => "SG0287",
            Self::Unlike { .. } => "SG0291",
            Self::RuleAndData { .. } => "SG0292",
        }
    }
}

/// A heading with one line for each item.
fn list(heading: &str, items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    items.into_iter().fold(format!("{heading}:"), |text, item| {
        format!("{text}\n{item}")
    })
}
