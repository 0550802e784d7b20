//! `cargo xtask bench`: what the planes cost, measured by the `bench` crate. Standard output has its
//! figures alone.

use std::path::PathBuf;
use std::process::Command;

use crate::root;
use crate::step::{cargo, run};
use crate::tools;

/// Builds the release binary and the bench, and measures the identity plane. `arguments` go to the
/// bench.
pub(crate) fn identity(arguments: &[String]) -> anyhow::Result<()> {
    run(&mut cargo(["build", "--release", "--quiet"]))?;
    let bench = build()?;
    let mut bench = Command::new(bench);
    bench
        .args(["identity", "--binary"])
        .arg(root().join("target/release/sidegate"))
        .args(arguments);
    run(&mut bench)
}

/// Builds the bench and measures decisions, which need no running instance.
pub(crate) fn policy(arguments: &[String]) -> anyhow::Result<()> {
    let bench = build()?;
    run(Command::new(bench).arg("policy").args(arguments))
}

/// Builds the release binary and the bench, and measures the data plane beside other proxies.
pub(crate) fn proxy(arguments: &[String]) -> anyhow::Result<()> {
    run(&mut cargo(["build", "--release", "--quiet"]))?;
    let bench = build()?;
    let mut bench = Command::new(bench);
    bench
        .args(["proxy", "--binary"])
        .arg(root().join("target/release/sidegate"));
    let found = [
        ("--envoy", tools::envoy()),
        ("--haproxy", tools::on_path("haproxy")),
        ("--nginx", tools::on_path("nginx")),
    ];
    for (option, path) in found {
        if let Some(path) = path {
            bench.arg(option).arg(path);
        }
    }
    run(bench.args(arguments))
}

/// Builds the bench and says where it is.
fn build() -> anyhow::Result<PathBuf> {
    let package = ["--package", "sidegate-bench"];
    run(cargo(["build", "--release", "--quiet"]).args(package))?;
    Ok(root().join("target/release/sidegate-bench"))
}
