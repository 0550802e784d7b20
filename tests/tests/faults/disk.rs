//! A disk that can be full.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;
use sidegate_tests::{Tool, skip, tool};

use crate::support::finish;

/// What a file takes at least.
const PAGE: u64 = 4096;

/// A small file system of its own, gone with this.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    unmount: PathBuf,
}

impl Disk {
    /// Mounts it, where this machine lets us; says so where it does not.
    pub(crate) fn mount(path: PathBuf, test: &str) -> Option<Self> {
        let mounted = tool(Tool::Mount)
            .filter(|_| geteuid().is_root())
            .and_then(|mount| {
                fs::create_dir(&path).expect("a folder");
                let mut command = Command::new(&mount);
                command.args(["-t", "tmpfs", "-o", "size=256k,mode=755", "sidegate-test"]);
                let output = finish(command.arg(&path));
                let unmount = mount.with_file_name("umount");
                output.status.success().then_some(Self { path, unmount })
            });
        if mounted.is_none() {
            skip(test, Tool::Mount);
        }
        mounted
    }

    /// Fills it, but for so many pages.
    pub(crate) fn fill(&self, free: u64) {
        let mut ballast = self.ballast();
        let page = [0; 4096];
        let full = loop {
            if let Err(error) = ballast.write_all(&page) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        let length = ballast.metadata().expect("it is there").len();
        let length = length - length % PAGE - free * PAGE;
        ballast.set_len(length).expect("it is cut");
    }

    /// Makes room again.
    pub(crate) fn free(&self) {
        self.ballast().set_len(0).expect("it is cut");
    }

    fn ballast(&self) -> File {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        options.open(self.path.join("ballast")).expect("a file")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there ends soon.
        unmount(&self.unmount, &self.path);
    }
}

fn unmount(program: &Path, path: &Path) {
    let output = finish(Command::new(program).arg("--lazy").arg(path));
    if !output.status.success() && !std::thread::panicking() {
        panic!("{} stays mounted: {}", path.display(), output.stderr);
    }
}
