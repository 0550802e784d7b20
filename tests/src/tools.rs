//! Where programs and files are.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A real peer that `cargo xtask test` installs, or that the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Envoy 1.40.
    Envoy,
    /// Python with py-spiffe, grpcio, gunicorn and uvicorn.
    Python,
    /// nginx.
    Nginx,
    /// nghttp, of nghttp2.
    Nghttp,
    /// h2load, of nghttp2.
    H2load,
    /// slowhttptest.
    Slowhttptest,
    /// Node.js.
    Node,
    /// Java, with its compiler.
    Java,
    /// The server on Go's library that stands in `peers/go/origin`.
    GoOrigin,
    /// curl.
    Curl,
    /// openssl.
    Openssl,
    /// setpriv, of util-linux.
    Setpriv,
    /// The client on go-spiffe that stands in `peers/go/spiffe-client`.
    GoClient,
    /// spiffe-helper 0.11.
    SpiffeHelper,
    /// SPIRE's server 1.15.
    SpireServer,
    /// SPIRE's agent 1.15.
    SpireAgent,
    /// OPA.
    Opa,
    /// OPA with its Envoy plugin.
    OpaEnvoyPlugin,
    /// What takes traces as a collector does, and stands in `peers/go/otlp-receiver`.
    OtlpReceiver,
    /// strace.
    Strace,
    /// mount, of util-linux.
    Mount,
    /// systemd-socket-activate, of systemd.
    SocketActivate,
}

impl Tool {
    fn variable(self) -> &'static str {
        match self {
            Self::Envoy => "SIDEGATE_TEST_ENVOY",
            Self::Python => "SIDEGATE_TEST_PYTHON",
            Self::Nginx => "SIDEGATE_TEST_NGINX",
            Self::Nghttp => "SIDEGATE_TEST_NGHTTP",
            Self::H2load => "SIDEGATE_TEST_H2LOAD",
            Self::Slowhttptest => "SIDEGATE_TEST_SLOWHTTPTEST",
            Self::Node => "SIDEGATE_TEST_NODE",
            Self::Java => "SIDEGATE_TEST_JAVA",
            Self::GoOrigin => "SIDEGATE_TEST_GO_ORIGIN",
            Self::Curl => "SIDEGATE_TEST_CURL",
            Self::Openssl => "SIDEGATE_TEST_OPENSSL",
            Self::Setpriv => "SIDEGATE_TEST_SETPRIV",
            Self::GoClient => "SIDEGATE_TEST_GO_CLIENT",
            Self::SpiffeHelper => "SIDEGATE_TEST_SPIFFE_HELPER",
            Self::SpireServer => "SIDEGATE_TEST_SPIRE_SERVER",
            Self::SpireAgent => "SIDEGATE_TEST_SPIRE_AGENT",
            Self::Opa => "SIDEGATE_TEST_OPA",
            Self::OpaEnvoyPlugin => "SIDEGATE_TEST_OPA_ENVOY",
            Self::OtlpReceiver => "SIDEGATE_TEST_OTLP_RECEIVER",
            Self::Strace => "SIDEGATE_TEST_STRACE",
            Self::Mount => "SIDEGATE_TEST_MOUNT",
            Self::SocketActivate => "SIDEGATE_TEST_SOCKET_ACTIVATE",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Python => "python",
            Self::Nginx => "nginx",
            Self::Nghttp => "nghttp",
            Self::H2load => "h2load",
            Self::Slowhttptest => "slowhttptest",
            Self::Node => "node",
            Self::Java => "java",
            Self::GoOrigin => "go-origin",
            Self::Curl => "curl",
            Self::Openssl => "openssl",
            Self::Setpriv => "setpriv",
            Self::GoClient => "spiffe-client",
            Self::SpiffeHelper => "spiffe-helper",
            Self::SpireServer => "spire-server",
            Self::SpireAgent => "spire-agent",
            Self::Opa => "opa",
            Self::OpaEnvoyPlugin => "opa-envoy-plugin",
            Self::OtlpReceiver => "otlp-receiver",
            Self::Strace => "strace",
            Self::Mount => "mount",
            Self::SocketActivate => "systemd-socket-activate",
        }
    }
}

/// The folder of the project.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// The binary under test.
///
/// # Panics
/// When it has not been built.
pub fn sidegate() -> PathBuf {
    let path = variable("SIDEGATE_TEST_BINARY")
        .map_or_else(|| root().join("target/release/sidegate"), PathBuf::from);
    assert!(
        path.exists(),
        "{} is not built: cargo xtask test",
        path.display()
    );
    path
}

/// A component of `guests/components`, such as `probe`.
pub fn guest(name: &str) -> PathBuf {
    root()
        .join("guests/components")
        .join(name)
        .with_extension("wasm")
}

/// A program, or `None` where this machine cannot have it: the test then says so by [`skip`].
pub fn tool(tool: Tool) -> Option<PathBuf> {
    if let Some(path) = variable(tool.variable()) {
        // Empty: `cargo xtask test` looked for it in vain.
        return (!path.is_empty()).then(|| PathBuf::from(path));
    }
    if tool == Tool::Python {
        // Any other Python lacks the package.
        return wheel("spiffe").map(|_| venv().join("bin/python"));
    }
    let installed = root().join("target/tools/bin").join(tool.program());
    let path = variable("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(tool.program()))
        .chain([installed])
        .find(|path| path.exists())
        .or_else(|| wheel("envoy/_bin/envoy").filter(|_| tool == Tool::Envoy))
}

/// Where a package of Python is, in the environment that `cargo xtask test` makes.
fn wheel(content: &str) -> Option<PathBuf> {
    let libraries = std::fs::read_dir(venv().join("lib")).ok()?;
    libraries
        .filter_map(Result::ok)
        .map(|python| python.path().join("site-packages").join(content))
        .find(|path| path.exists())
}

fn venv() -> PathBuf {
    root().join("target/tools/venv")
}

/// Says loudly that a test did not run, and why.
pub fn skip(test: &str, tool: Tool) {
    let line = format!("{test}: {} is missing\n", tool.program());
    eprint_line(&line);
    let Some(file) = variable("SIDEGATE_TEST_SKIPPED") else {
        return;
    };
    let opened = OpenOptions::new().append(true).create(true).open(file);
    let written = opened.and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprint_line(&format!("the skipped test cannot be noted: {error}\n"));
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn eprint_line(line: &str) {
    eprint!("SKIPPED {line}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by the environment where programs are"
)]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
