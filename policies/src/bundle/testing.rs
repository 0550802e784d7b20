//! What the tests of bundles share.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

pub(super) const ALLOW: &str = "package envoy.authz\nallow := true\n";

/// A gzip tarball of regular files.
pub(super) fn tarball(files: &[(&str, &str)]) -> Vec<u8> {
    let entries = files.iter();
    let entries = entries.map(|(path, content)| (*path, EntryType::Regular, content.as_bytes()));
    gzip(&tar(entries))
}

/// A tarball, with paths exactly as they are written.
pub(super) fn tar<'a>(entries: impl Iterator<Item = (&'a str, EntryType, &'a [u8])>) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        let name = &mut header.as_ustar_mut().unwrap().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        if kind.is_symlink() || kind.is_hard_link() {
            header.set_link_name("policy.rego").unwrap();
        }
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(super) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}
