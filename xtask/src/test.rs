//! `cargo xtask test`: everything that must hold before a change lands.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::step::{cargo, run, step};
use crate::tools::{self, Tool};
use crate::{docs, guests, root};

/// Runs everything, or the tests whose name contains `only`.
pub(crate) fn run_all(only: Option<&str>) -> anyhow::Result<()> {
    let mut skipped = Vec::new();
    if only.is_none() {
        step("format", || run(&mut cargo(["fmt", "--all", "--check"])))?;
        step("guests are those of their sources", || guests::run(true))?;
        step("clippy", || {
            run(&mut cargo([
                "clippy",
                "--workspace",
                "--all-targets",
                "--quiet",
                "--",
                "--deny",
                "warnings",
            ]))
        })?;
        step("dependencies", || dependencies(&mut skipped))?;
    }
    let tools = step("tools", || Ok(tools::provide()))?;
    for tool in tools.iter().filter(|tool| tool.path.is_none()) {
        skipped.push(format!("tests with {}: {}", tool.name, tool.advice));
    }
    step("release build", || run(&mut cargo(["build", "--release"])))?;
    if only.is_none() {
        step("reference pages are those of the code", || {
            docs::check(&root().join("target/release/sidegate"))
        })?;
    }
    step("unit tests", || unit_tests(only, &tools))?;
    step("black-box tests", || {
        black_box_tests(only, &tools, &mut skipped)
    })?;
    if skipped.is_empty() {
        println!("== everything ran");
    } else {
        println!("== SKIPPED on this machine:");
        for line in skipped {
            println!("   {line}");
        }
    }
    Ok(())
}

fn dependencies(skipped: &mut Vec<String>) -> anyhow::Result<()> {
    let Some(deny) = tools::cargo_deny() else {
        skipped.push("deny.toml: cargo install --locked cargo-deny".to_owned());
        return Ok(());
    };
    // The advisories' database is not to be had on every machine.
    let mut command = Command::new(deny);
    command.current_dir(root());
    run(command.args([
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}

fn unit_tests(only: Option<&str>, tools: &[Tool]) -> anyhow::Result<()> {
    let mut command = cargo([
        "test",
        "--workspace",
        "--exclude",
        "sidegate-tests",
        "--quiet",
    ]);
    command.arg("--").args(only);
    name_tools(&mut command, tools);
    run(&mut command)
}

fn black_box_tests(
    only: Option<&str>,
    tools: &[Tool],
    skipped: &mut Vec<String>,
) -> anyhow::Result<()> {
    let list = root().join("target/skipped-tests");
    if list.exists() {
        fs::remove_file(&list).context("the old list of skipped tests stays")?;
    }
    let mut command = cargo(["test", "--package", "sidegate-tests", "--"]);
    command
        .args(only)
        .env(
            "SIDEGATE_TEST_BINARY",
            root().join("target/release/sidegate"),
        )
        .env("SIDEGATE_TEST_SKIPPED", &list);
    name_tools(&mut command, tools);
    run(&mut command)?;
    let lines = fs::read_to_string(&list).unwrap_or_default();
    skipped.extend(lines.lines().map(ToOwned::to_owned));
    Ok(())
}

/// Tells the tests where everything is; what is missing has an empty path.
fn name_tools(command: &mut Command, tools: &[Tool]) {
    for tool in tools {
        let path = tool.path.as_deref().unwrap_or(Path::new(""));
        command.env(tool.variable, path);
    }
}
