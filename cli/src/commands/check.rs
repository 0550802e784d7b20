//! `sidegate check`: is all well, or would it be?

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::block_on;
use crate::arguments::{CheckArguments, OutputFormat};
use crate::check::{Category, Check, Report, running};
use crate::config::{self, ConfigError};
use crate::failure::Failure;
use crate::{instance, output};

/// Checks, and prints the rows. `false` where something is not well.
pub(super) fn execute(arguments: &CheckArguments) -> Result<bool, Failure> {
    let categories = block_on(async {
        match &arguments.config {
            Some(file) => configuration(file).await,
            None => running(&state(arguments.state.as_deref())).await,
        }
    })?;
    let report = Report::new(categories, arguments.strict);
    match arguments.output {
        OutputFormat::Json => output::print_json(&report)?,
        OutputFormat::Text => {
            let color = output::colored(std::io::stdout().is_terminal());
            output::print(&report.text(color))?;
        }
    }
    Ok(report.is_success())
}

async fn configuration(file: &Path) -> Result<Vec<Category>, Failure> {
    let loaded = match config::load(file) {
        Err(error @ ConfigError::Read { .. }) => return Err(error.into()),
        loaded => loaded.map_err(Failure::from),
    };
    let row = Check::ok(
        "configuration",
        "configuration is valid",
        file.display().to_string(),
    );
    let (rows, more) = match loaded {
        Ok((config, source)) => (vec![row], instance::examine(&config, &source).await?),
        refused => (row.unless(refused), Vec::new()),
    };
    let category = Category::new("configuration", rows);
    Ok(category.into_iter().chain(more).collect())
}

/// As for the other commands. With `--config` the variable means nothing, so it is not the argument's.
#[expect(
    clippy::disallowed_methods,
    reason = "the cli is where the environment is read"
)]
fn state(argument: Option<&Path>) -> PathBuf {
    let variable = || std::env::var_os("SIDEGATE_STATE").map(PathBuf::from);
    let named = argument.map(Path::to_owned).or_else(variable);
    named.unwrap_or_else(|| PathBuf::from(".sidegate"))
}
