//! `cargo xtask bench`: what the release binary costs, measured by the `bench` crate.

use crate::root;
use crate::step::{cargo, run};

/// Builds the release binary and the bench, and measures the identity plane. `arguments` go to the
/// bench. Standard output has its figures alone.
pub(crate) fn identity(arguments: &[String]) -> anyhow::Result<()> {
    run(&mut cargo(["build", "--release", "--quiet"]))?;
    run(&mut cargo([
        "build",
        "--release",
        "--quiet",
        "--package",
        "sidegate-bench",
    ]))?;
    let built = root().join("target/release");
    let mut bench = std::process::Command::new(built.join("sidegate-bench"));
    bench
        .args(["identity", "--binary"])
        .arg(built.join("sidegate"))
        .args(arguments);
    run(&mut bench)
}
