//! Programs in Go, built from the modules in `tests/peers/go`. Their versions are pinned by go.mod
//! and go.sum; a program is built again when its module has changed. SPIRE's are pinned by their
//! version alone: Go checks what it downloads by its database of checksums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use aws_lc_rs::digest;

use super::{attempt, folder, on_path};
use crate::root;
use crate::step::{output_of, run};

const OPA: &str = "github.com/open-policy-agent/opa";
const SPIRE: &str = "1.15.3";
/// Versions of SPIRE that the tests were written for.
const SPIRE_SERIES: &str = "1.15.";

/// A client of the Workload API on go-spiffe.
pub(super) fn spiffe_client() -> Option<PathBuf> {
    build("spiffe-client", "spiffe-client", ".")
}

/// An HTTP server on Go's own library.
pub(super) fn origin() -> Option<PathBuf> {
    build("origin", "go-origin", ".")
}

/// What takes traces, on the data library of OpenTelemetry's collector.
pub(super) fn otlp_receiver() -> Option<PathBuf> {
    build("otlp-receiver", "otlp-receiver", ".")
}

/// spiffe-helper, as it was released.
pub(super) fn spiffe_helper() -> Option<PathBuf> {
    build(
        "spiffe-helper",
        "spiffe-helper",
        "github.com/spiffe/spiffe-helper/cmd/spiffe-helper",
    )
}

/// OPA, as it was released.
pub(super) fn opa() -> Option<PathBuf> {
    build("opa", "opa", OPA)
}

/// OPA's Envoy plugin, on the same OPA.
pub(super) fn opa_envoy_plugin() -> Option<PathBuf> {
    build(
        "opa",
        "opa-envoy-plugin",
        "github.com/open-policy-agent/opa-envoy-plugin/cmd/opa-envoy-plugin",
    )
}

/// The folder of OPA's own test cases: they come with its module.
pub(super) fn opa_cases() -> Option<PathBuf> {
    let module = root().join("tests/peers/go/opa");
    attempt(go(&module).and_then(|mut go| run(go.args(["mod", "download", OPA]))))?;
    let mut list = attempt(go(&module))?;
    let folder = output_of(list.args(["list", "-m", "-f", "{{.Dir}}", OPA]))?;
    let cases = Path::new(folder.trim()).join("v1/test/cases/testdata");
    cases.is_dir().then_some(cases)
}

/// SPIRE's server or agent: the machine's own where its version fits, else as it was released.
pub(super) fn spire(name: &str) -> Option<PathBuf> {
    let installed = folder().join("bin").join(name);
    let found = on_path(name).into_iter().chain([installed.clone()]);
    if let Some(path) = found.into_iter().find(|path| is_fitting_spire(path)) {
        return Some(path);
    }
    attempt(install_spire(name))?;
    is_fitting_spire(&installed).then_some(installed)
}

fn install_spire(name: &str) -> anyhow::Result<()> {
    let bin = folder().join("bin");
    fs::create_dir_all(&bin)?;
    let mut install = go(&bin)?;
    install
        .arg("install")
        .arg(format!("github.com/spiffe/spire/cmd/{name}@v{SPIRE}"))
        .env("GOBIN", &bin)
        // Its own go.mod decides, wherever this is run.
        .env("GOFLAGS", "-trimpath -buildvcs=false")
        // Its database is SQLite, in C.
        .env("CGO_ENABLED", "1");
    run(&mut install)
}

fn is_fitting_spire(program: &Path) -> bool {
    // Which of both it prints its version on has changed before.
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| {
        [output.stdout, output.stderr].iter().any(|text| {
            String::from_utf8_lossy(text)
                .trim()
                .starts_with(SPIRE_SERIES)
        })
    })
}

/// A program from a module.
fn build(module: &str, name: &str, package: &str) -> Option<PathBuf> {
    let module = root().join("tests/peers/go").join(module);
    let program = folder().join("bin").join(name);
    let record = program.with_extension("sha256");
    let source = attempt(digest_of(&module))?;
    let is_built = program.is_file() && fs::read(&record).is_ok_and(|built| built == source);
    if !is_built {
        attempt(compile(&module, package, &program))?;
        attempt(fs::write(&record, source).context("what it was built from is not recorded"))?;
    }
    Some(program)
}

fn compile(module: &Path, package: &str, program: &Path) -> anyhow::Result<()> {
    let mut build = go(module)?;
    fs::create_dir_all(folder().join("bin"))?;
    run(build.args(["build", "-o"]).arg(program).arg(package))
}

/// The `go` command in a module's folder.
fn go(module: &Path) -> anyhow::Result<Command> {
    let program = on_path("go").context("there is no `go` on the PATH")?;
    let mut go = Command::new(program);
    go.current_dir(module)
        // What it does must not depend on the machine's own settings.
        .env("GOFLAGS", "-mod=readonly -trimpath -buildvcs=false")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0");
    Ok(go)
}

/// SHA-256 of a module's files, with their names.
fn digest_of(module: &Path) -> anyhow::Result<Vec<u8>> {
    let entries = fs::read_dir(module)
        .with_context(|| format!("{} cannot be read", module.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<_> = entries.iter().map(fs::DirEntry::file_name).collect();
    names.sort();
    let mut context = digest::Context::new(&digest::SHA256);
    for name in names {
        let content = fs::read(module.join(&name))?;
        for part in [name.as_encoded_bytes(), &content] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
    }
    Ok(context.finish().as_ref().to_vec())
}
