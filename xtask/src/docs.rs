//! `cargo xtask docs`: pages of docs/reference that the program prints about itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::root;
use crate::step::{cargo, output_of};

/// Each page, by the name that the program has for it, and its file.
const PAGES: [(&str, &str); 1] = [("metrics", "docs/reference/metrics.md")];

/// Writes the pages, or only checks them.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    each(
        || cargo(["run", "--quiet", "--package", "sidegate", "--"]),
        check,
    )
}

/// Checks the pages against what a built program would print.
pub(crate) fn check(program: &Path) -> anyhow::Result<()> {
    each(|| Command::new(program), true)
}

fn each(program: impl Fn() -> Command, check: bool) -> anyhow::Result<()> {
    for (page, file) in PAGES {
        let printed = output_of(program().args(["documentation", page]))
            .with_context(|| format!("the program does not print the page `{page}`"))?;
        let path = root().join(file);
        if check {
            let written = fs::read_to_string(&path).unwrap_or_default();
            ensure!(
                written == printed,
                "{file} is not what the code says: cargo xtask docs"
            );
        } else {
            fs::write(&path, printed).with_context(|| format!("{file} cannot be written"))?;
        }
    }
    Ok(())
}
