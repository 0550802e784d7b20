//! From bytes to a component that is compiled and linked, or a precise reason why not.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest as hash};
use wasmtime::Engine;
use wasmtime::component::{self, Linker};
use wasmtime::wasmparser::{Validator, WasmFeatures};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::guest::{Guest, PROVIDED};

/// What every WebAssembly file starts with.
const MAGIC: [u8; 4] = *b"\0asm";
/// Version and layer of a core module, and of a component.
const CORE_MODULE: [u8; 4] = [0x01, 0x00, 0x00, 0x00];
const COMPONENT: [u8; 4] = [0x0d, 0x00, 0x01, 0x00];

/// The interface that a component must export, in any 0.2 version.
const HANDLER: &str = "wasi:http/incoming-handler";

/// Bytes could not be loaded as a component.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LoadError {
    /// There are no bytes.
    #[error("the file is empty")]
    Empty,
    /// The bytes are text.
    #[error("this is {what}, not a compiled component{hint}")]
    Text {
        /// What the text looks like.
        what: &'static str,
        /// What to do about it, or nothing.
        hint: &'static str,
    },
    /// The bytes are something else.
    #[error("this is not WebAssembly: it starts with the bytes {start}")]
    NotWebAssembly {
        /// The first bytes in hexadecimal.
        start: String,
    },
    /// The bytes are a WebAssembly module of the kind that components are made of.
    #[error(
        "this is a core WebAssembly module, not a component: build it for a component target \
         (Rust: `cargo build --target wasm32-wasip2`), or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    /// The bytes begin as a component but do not go on as one.
    #[error("the component is cut off or corrupt: {reason}")]
    Corrupt {
        /// What is wrong, with the offset.
        reason: String,
    },
    /// The component is valid, but not one that answers HTTP requests.
    #[error("the component does not export wasi:http/incoming-handler@0.2, {}", exports_text(.exports))]
    NoHandler {
        /// The names of what it does export.
        exports: Vec<String>,
    },
    /// The component needs what this host does not have.
    #[error("the component imports what this host does not provide: {}", .imports.join(", "))]
    MissingImports {
        /// The names of all such imports.
        imports: Vec<String>,
    },
    /// An import or the handler has the right name, but other functions or types.
    #[error("the component does not fit this host's WASI 0.2: {reason}")]
    Link {
        /// The first difference.
        reason: String,
    },
    /// The component is valid, but needs more than this host's limits allow, or uses a feature
    /// that the engine does not compile.
    #[error("the component cannot run within this host's limits: {reason}")]
    Limits {
        /// The limit or feature.
        reason: String,
    },
}

impl LoadError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "SG0401",
            Self::Text { .. } => "SG0402",
            Self::NotWebAssembly { .. } => "SG0403",
            Self::CoreModule => "SG0404",
            Self::Corrupt { .. } => "SG0405",
            Self::NoHandler { .. } => "SG0406",
            Self::MissingImports { .. } => "SG0407",
            Self::Link { .. } => "SG0408",
            Self::Limits { .. } => "SG0409",
        }
    }
}

/// `sha256:<hex>` of a component's bytes.
pub fn digest(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in hash(&SHA256, bytes).as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Compiles and links a component, once for all of its instances.
pub(crate) fn compile(
    engine: &Engine,
    linker: &Linker<Guest>,
    bytes: &[u8],
) -> Result<ProxyPre<Guest>, LoadError> {
    check_header(bytes)?;
    let component = component::Component::from_binary(engine, bytes)
        .map_err(|error| compile_error(bytes, &error))?;

    let component_type = component.component_type();
    let mut exports = component_type.exports(engine).map(|(name, _)| name);
    if !exports.any(|name| is_wasi_0_2(name, |interface| interface == HANDLER)) {
        let exports = component_type
            .exports(engine)
            .map(|(name, _)| name.to_owned())
            .collect();
        return Err(LoadError::NoHandler { exports });
    }
    let missing: Vec<String> = component_type
        .imports(engine)
        .map(|(name, _)| name)
        .filter(|name| !is_wasi_0_2(name, |interface| PROVIDED.contains(&interface)))
        .map(str::to_owned)
        .collect();
    if !missing.is_empty() {
        return Err(LoadError::MissingImports { imports: missing });
    }

    let link_error = |error: wasmtime::Error| LoadError::Link {
        reason: format!("{error:#}"),
    };
    let pre = linker.instantiate_pre(&component).map_err(link_error)?;
    ProxyPre::new(pre).map_err(link_error)
}

/// Tells what the bytes are by how they begin.
fn check_header(bytes: &[u8]) -> Result<(), LoadError> {
    let cut_off = || LoadError::Corrupt {
        reason: "it ends within its header".to_owned(),
    };
    match bytes.split_first_chunk::<4>() {
        Some((&MAGIC, rest)) => match rest.first_chunk::<4>() {
            Some(&COMPONENT) => Ok(()),
            Some(&CORE_MODULE) => Err(LoadError::CoreModule),
            Some(version) => Err(LoadError::Corrupt {
                reason: format!("unknown version {}", hex(version)),
            }),
            None => Err(cut_off()),
        },
        _ if bytes.is_empty() => Err(LoadError::Empty),
        _ if MAGIC.starts_with(bytes) => Err(cut_off()),
        _ => Err(not_webassembly(bytes)),
    }
}

fn not_webassembly(bytes: &[u8]) -> LoadError {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.trim_start().starts_with(['(', ';']) => LoadError::Text {
            what: "WebAssembly text",
            hint: ": translate it with `wasm-tools parse`",
        },
        Ok(text) if !text.contains('\0') => LoadError::Text {
            what: "text",
            hint: "",
        },
        _ => LoadError::NotWebAssembly {
            start: hex(bytes.get(..8).unwrap_or(bytes)),
        },
    }
}

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}

/// Tells bytes that no engine could read from a component that is too much for this one.
fn compile_error(bytes: &[u8], error: &wasmtime::Error) -> LoadError {
    match Validator::new_with_features(WasmFeatures::all()).validate_all(bytes) {
        Err(invalid) => LoadError::Corrupt {
            reason: invalid.to_string(),
        },
        Ok(_) => LoadError::Limits {
            reason: format!("{error:#}"),
        },
    }
}

/// Whether a name such as `wasi:io/poll@0.2.3` is of WASI 0.2 and its interface is `wanted`.
fn is_wasi_0_2(name: &str, wanted: impl Fn(&str) -> bool) -> bool {
    name.split_once('@')
        .is_some_and(|(interface, version)| version.starts_with("0.2.") && wanted(interface))
}

fn exports_text(exports: &[String]) -> String {
    if exports.is_empty() {
        "it exports nothing".to_owned()
    } else {
        format!("it exports {}", exports.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_names_its_algorithm() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
    }

    #[test]
    fn only_versions_of_wasi_0_2_are_recognized() {
        let table = [
            ("wasi:http/incoming-handler@0.2.0", true),
            ("wasi:http/incoming-handler@0.2.12", true),
            ("wasi:http/incoming-handler@0.3.0", false),
            ("wasi:http/incoming-handler@0.20.0", false),
            ("wasi:http/incoming-handler", false),
            ("acme:http/incoming-handler@0.2.0", false),
        ];
        for (name, expected) in table {
            assert_eq!(
                is_wasi_0_2(name, |interface| interface == HANDLER),
                expected,
                "{name}"
            );
        }
    }
}
