//! Standard output is data; standard error is talk.

use std::io::{self, Write};

use crate::failure::Failure;

/// Writes data to standard output. A reader that has gone away wants no more: that is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new("SG0009", &error))
        }
        _ => Ok(()),
    }
}

/// Writes one JSON document as a line.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string(value).map_err(|error| Failure::new("SG0009", &error))?;
    text.push('\n');
    print(&text)
}

/// Whether to color what goes to a terminal; `NO_COLOR` says no (<https://no-color.org>).
#[expect(
    clippy::disallowed_methods,
    reason = "the cli is where the environment is read"
)]
pub(crate) fn colored(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
