//! What ends a command, told to its user.

use std::borrow::Cow;
use std::error::Error;
use std::io::{IsTerminal, Write};

use sidegate_policy::lint::Finding;

use crate::admin::Refusal;
use crate::config::{ConfigError, Diagnostics};

/// The command did its work, and the answer is no.
pub(crate) const ANSWER_IS_NO: u8 = 1;

/// Usage, configuration or the machine is at fault.
pub(crate) const COULD_NOT: u8 = 2;

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Problems in a configuration file, each at its place.
    Config(Diagnostics),
    /// Anything else.
    Other(Reason),
}

/// A message with its code, and what to do about it.
#[derive(Debug)]
pub(crate) struct Reason {
    pub(crate) code: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    /// What is wrong with a policy, each at its place.
    pub(crate) findings: Vec<Finding>,
}

impl Failure {
    /// An error, with all of its causes.
    pub(crate) fn new(code: &'static str, error: &dyn Error) -> Self {
        Self::Other(Reason {
            code: code.into(),
            message: chain(error),
            help: None,
            findings: Vec::new(),
        })
    }

    /// A message of our own.
    pub(crate) fn message(code: &'static str, message: impl Into<String>) -> Self {
        Self::Other(Reason {
            code: code.into(),
            message: message.into(),
            help: None,
            findings: Vec::new(),
        })
    }

    /// Says what to do about it.
    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        if let Self::Other(reason) = &mut self {
            reason.help = Some(text.into());
        }
        self
    }

    /// Says what is wrong with a policy, for whoever reads documents.
    pub(crate) fn findings(mut self, findings: Vec<Finding>) -> Self {
        if let Self::Other(reason) = &mut self {
            reason.findings = findings;
        }
        self
    }

    /// Tells it on standard error. That nobody reads there is no reason to fail otherwise.
    pub(crate) fn print(&self) {
        let mut stderr = std::io::stderr().lock();
        let text = self.render(crate::output::colored(stderr.is_terminal()));
        let _ = stderr.write_all(text.as_bytes());
    }

    /// Its text without colors and without the end of its last line.
    pub(crate) fn plain(&self) -> String {
        self.render(false).trim_end().to_owned()
    }

    fn render(&self, color: bool) -> String {
        match self {
            Self::Config(diagnostics) => diagnostics.render(color),
            Self::Other(reason) => {
                let (red, bold, plain) = match color {
                    true => ("\x1b[1;31m", "\x1b[1m", "\x1b[0m"),
                    false => ("", "", ""),
                };
                let Reason {
                    code,
                    message,
                    help,
                    ..
                } = reason;
                let help = help.as_ref().map(|help| format!("  help: {help}\n"));
                let help = help.unwrap_or_default();
                format!("{red}error[{code}]{plain}{bold}: {message}{plain}\n{help}")
            }
        }
    }
}

impl From<Refusal> for Failure {
    /// What a running instance refuses is told in its words.
    fn from(refusal: Refusal) -> Self {
        Self::Other(Reason {
            code: refusal.code.into(),
            message: refusal.message,
            help: refusal.hint,
            findings: Vec::new(),
        })
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Invalid(diagnostics) => Self::Config(diagnostics),
            ConfigError::Read { .. } => Self::new(error.code(), &error),
        }
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their source in their own message.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
