use std::io;

use super::*;
use crate::bundle::testing::{ALLOW, gzip, tar, tarball};

fn read(archive: &[u8]) -> Result<Files, BundleError> {
    read_archive(archive, &Limits::default())
}

#[test]
fn files_are_read_by_their_paths_however_the_root_is_written() {
    let data = "{}";
    let expected: Vec<(&str, &str)> = vec![("a/data.json", data), ("policy.rego", ALLOW)];
    for start in ["", "/", "./"] {
        let policy = format!("{start}policy.rego");
        let document = format!("{start}a/data.json");
        let entries = [
            (start, EntryType::Directory, ""),
            ("a/", EntryType::Directory, ""),
            (policy.as_str(), EntryType::Regular, ALLOW),
            (document.as_str(), EntryType::Regular, data),
        ];
        let entries = entries.iter().filter(|(path, ..)| !path.is_empty());
        let entries = entries.map(|(path, kind, content)| (*path, *kind, content.as_bytes()));
        let files = read(&gzip(&tar(entries))).unwrap();
        let found: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, content)| (path.as_str(), std::str::from_utf8(content).unwrap()))
            .collect();
        assert_eq!(found, expected, "{start:?}");
    }
}

#[test]
fn long_paths_are_read_whole() {
    let long = format!("{}/policy.rego", vec!["directory"; 30].join("/"));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(ALLOW.len() as u64);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, &long, ALLOW.as_bytes())
        .unwrap();
    let files = read(&gzip(&builder.into_inner().unwrap())).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), [&long]);
}

#[test]
fn what_is_no_bundle_is_refused_by_name() {
    let regular = |path: &'static str| (path, EntryType::Regular, b"x".as_slice());
    let one = |path| gzip(&tar([regular(path)].into_iter()));
    let special = |kind| gzip(&tar([("odd", kind, &b""[..])].into_iter()));
    let whole = tarball(&[("policy.rego", &"x".repeat(5000))]);
    let open = tar([regular("policy.rego")].into_iter());
    let without_end = &open[..open.len() - 1024];
    let deep = "a/".repeat(40) + "data.json";
    let deep: &'static str = deep.leak();
    let mut garbage = whole.clone();
    garbage.extend_from_slice(b"garbage");
    let hidden = [open.as_slice(), b"hidden"].concat();

    for (name, archive, code, message) in [
        ("nothing", Vec::new(), "SG0231", "whole gzip tarball"),
        ("no gzip", b"<html>".to_vec(), "SG0231", "gzip"),
        ("no tar", gzip(&[b'x'; 2000]), "SG0231", "gzip tarball"),
        ("an empty tar", gzip(b""), "SG0231", "gzip tarball"),
        (
            "cut gzip",
            whole[..whole.len() / 2].to_vec(),
            "SG0231",
            "gzip",
        ),
        (
            "no checksum",
            whole[..whole.len() - 8].to_vec(),
            "SG0231",
            "gzip",
        ),
        ("garbage after it", garbage, "SG0231", "gzip"),
        ("hidden after it", gzip(&hidden), "SG0231", "gzip"),
        ("cut tar", gzip(&open[..520]), "SG0231", "gzip tarball"),
        ("no end", gzip(without_end), "SG0231", "gzip tarball"),
        ("climbs", one("../policy.rego"), "SG0233", "climbs"),
        ("climbs back", one("a/../../b.rego"), "SG0233", "climbs"),
        (
            "escapes",
            one("a/\x1b[2J.rego"),
            "SG0233",
            "\\u{1b}[2J.rego\" holds a control",
        ),
        ("root twice", one("//etc/passwd"), "SG0233", "shortest"),
        ("a dot", one("a/./b.rego"), "SG0233", "shortest"),
        ("deep", one(deep), "SG0232", "32 directories"),
        ("symlink", special(EntryType::Symlink), "SG0234", "odd"),
        ("hard link", special(EntryType::Link), "SG0234", "odd"),
        ("device", special(EntryType::Char), "SG0234", "odd"),
        ("pipe", special(EntryType::Fifo), "SG0234", "odd"),
        (
            "the same file by another name",
            tarball(&[("/policy.rego", ""), ("./policy.rego", "")]),
            "SG0235",
            "policy.rego",
        ),
    ] {
        let error = read(&archive).expect_err(name);
        let text = error.to_string();
        assert_eq!(error.code(), code, "{name}: {text}");
        assert!(text.contains(message), "{name}: {text}");
    }
}

/// A gzip stream of zeros without end, of which is counted how much was asked for.
struct Endless {
    block: Vec<u8>,
    position: usize,
    read: u64,
}

impl Read for &mut Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.block[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position = (self.position + count) % self.block.len();
        self.read += count as u64;
        Ok(count)
    }
}

#[test]
fn of_what_never_ends_no_more_is_read_than_a_bundle_may_have() {
    let limits = Limits {
        unpacked: 1 << 20,
        files: 100,
        path: 20,
        ..Limits::default()
    };
    // Files of a hundred kilobytes, one after the other.
    let mut header = tar::Header::new_gnu();
    header.set_path("data.json").unwrap();
    header.set_size(102_400);
    header.set_mode(0o644);
    let mut stream = Vec::new();
    for index in 0..50 {
        header.set_path(format!("{index}/data.json")).unwrap();
        header.set_cksum();
        stream.extend_from_slice(header.as_bytes());
        stream.extend_from_slice(&[b' '; 102_400]);
    }
    let mut endless = Endless {
        block: gzip(&stream),
        position: 0,
        read: 0,
    };
    let error = read_archive(&mut endless, &limits).unwrap_err();
    let text = "the bundle has more than 1048576 unpacked bytes";
    assert_eq!(error.to_string(), text);
    assert!(endless.read < 1 << 20, "{}", endless.read);
    // One of a terabyte: it is not even begun.
    header.set_size(1 << 40);
    header.set_cksum();
    let error = read_archive(gzip(header.as_bytes()).as_slice(), &limits).unwrap_err();
    assert_eq!(error.to_string(), text);

    let many = (0..101).map(|_| ("empty", EntryType::Directory, &b""[..]));
    let error = read_archive(gzip(&tar(many)).as_slice(), &limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the bundle has more than 100 files and directories"
    );
    let stream = tarball(&[("a-name-that-is-longer.json", "")]);
    let error = read_archive(stream.as_slice(), &limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the bundle has more than 20 bytes in a path"
    );
}

#[test]
fn a_bundle_of_exactly_the_size_is_read() {
    let open = tar([("policy.rego", EntryType::Regular, ALLOW.as_bytes())].into_iter());
    let mut limits = Limits {
        unpacked: open.len() as u64,
        ..Limits::default()
    };
    let compressed = gzip(&open);
    assert!(read_archive(compressed.as_slice(), &limits).is_ok());
    limits.unpacked -= 1;
    let error = read_archive(compressed.as_slice(), &limits).unwrap_err();
    assert_eq!(error.code(), "SG0232");
}

#[test]
fn a_directory_is_read_like_a_tarball_and_within_the_same_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("a/b")).unwrap();
    fs::create_dir_all(path(".git")).unwrap();
    for name in ["a/b/data.yaml", "policy.rego", ".manifest", ".git/x.rego"] {
        fs::write(path(name), name).unwrap();
    }
    let read = |limits: &Limits| read_directory(folder.path(), limits);
    let all = Limits::default();
    let files = read(&all).unwrap();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, [".manifest", "a/b/data.yaml", "policy.rego"]);
    for (limits, what) in [
        (
            Limits {
                unpacked: 10,
                ..all
            },
            "unpacked bytes",
        ),
        (Limits { files: 4, ..all }, "files"),
        (Limits { path: 12, ..all }, "path"),
        (Limits { depth: 1, ..all }, "directories above"),
    ] {
        let error = read(&limits).expect_err(what);
        assert_eq!(error.code(), "SG0232", "{what}: {error}");
        assert!(error.to_string().contains(what), "{error}");
    }
    std::os::unix::fs::symlink(folder.path(), path("a/around")).unwrap();
    assert_eq!(read(&all).unwrap_err().code(), "SG0233");
    fs::remove_file(path("a/around")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    assert_eq!(read(&all).unwrap_err().code(), "SG0234");
}
