//! Tarballs, good and hostile, and those that OPA makes.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sidegate_tests::{Tool, tool};

use crate::support::finish;

/// Allows what does not begin with `/no`.
pub(super) const POLICY: &str = r#"package envoy.authz

default allow := false

allow if not startswith(input.attributes.request.http.path, data.envoy.closed)
"#;

pub(super) const DATA: &str = r#"{"envoy": {"closed": "/no"}}"#;

/// A whole bundle with this policy and data.
pub(super) fn good() -> Bytes {
    tarball(&[
        ("/.manifest", r#"{"revision": "r1", "roots": ["envoy"]}"#),
        ("/policy.rego", POLICY),
        ("/data.json", DATA),
    ])
}

pub(crate) fn tarball(files: &[(&str, &str)]) -> Bytes {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, content) in files {
        let mut header = header(path, content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("a file");
    }
    let encoder = builder.into_inner().expect("a tarball");
    encoder.finish().expect("it is compressed").into()
}

/// A gigabyte of white space in files of ten megabytes, compressed to a megabyte.
pub(super) fn bomb() -> Bytes {
    const PART: u64 = 10 << 20;
    let gzip = |content: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).expect("it is in memory");
        encoder.finish().expect("it is compressed")
    };
    let spaces = gzip(&vec![b' '; 10 << 20]);
    let mut bomb = Vec::new();
    for index in 0..super::server::GIGABYTE / PART {
        let mut header = header(&format!("{index}/data.json"), PART);
        header.set_cksum();
        // What is compressed piece by piece is read as a whole.
        bomb.extend_from_slice(&gzip(header.as_bytes()));
        bomb.extend_from_slice(&spaces);
    }
    bomb.into()
}

fn header(path: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    let name = &mut header.as_ustar_mut().expect("a header of that kind").name;
    name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(size);
    header.set_mode(0o644);
    header
}

/// Runs OPA in a folder; `None` where this machine does not have it.
pub(super) fn opa(folder: &Path, arguments: &[&str]) -> Option<()> {
    let mut command = Command::new(tool(Tool::Opa)?);
    let output = finish(command.args(arguments).current_dir(folder));
    assert!(output.status.success(), "{arguments:?}: {}", output.stderr);
    Some(())
}
