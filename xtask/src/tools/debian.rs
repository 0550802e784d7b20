//! Programs from the distribution's packages, taken apart under `target/tools`: nothing of the
//! machine's own is changed, and no service is started. A distribution keeps one version of each
//! package, so this is the one that there is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::{attempt, folder, on_path};
use crate::step::{output_of, run};

const PACKAGES: [&str; 3] = ["nginx", "nghttp2-client", "slowhttptest"];

/// A program of the machine's own, or else one from the packages.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    if let Some(path) = on_path(name) {
        return Some(path);
    }
    let root = folder().join("debian/root");
    if !root.is_dir() {
        attempt(unpack(&root))?;
    }
    let inside = ["usr/bin", "usr/sbin"].map(|bin| Path::new(bin).join(name));
    let inside = inside.into_iter().find(|path| root.join(path).is_file())?;
    attempt(with_libraries(name, &inside))
}

/// Downloads the packages with what they need and the machine lacks, and unpacks them.
fn unpack(root: &Path) -> anyhow::Result<()> {
    on_path("apt-get").context("there is no `apt-get` on the PATH")?;
    let debian = folder().join("debian");
    let (lists, cache) = (debian.join("lists"), debian.join("cache"));
    let archives = cache.join("archives");
    fs::create_dir_all(lists.join("partial"))?;
    fs::create_dir_all(archives.join("partial"))?;
    let apt = || {
        let mut apt = Command::new("apt-get");
        // Lists and files of its own, so that nobody else's are needed or locked.
        apt.arg("-qq")
            .arg("-o")
            .arg(format!("Dir::State::lists={}", lists.display()))
            .arg("-o")
            .arg(format!("Dir::Cache={}", cache.display()))
            .args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]);
        apt
    };
    run(apt().arg("update"))?;
    run(apt()
        .args([
            "install",
            "--download-only",
            "--no-install-recommends",
            "-y",
        ])
        .args(PACKAGES))?;
    let unpacking = debian.join("unpacking");
    for archive in fs::read_dir(&archives)? {
        let archive = archive?.path();
        if archive.extension().is_some_and(|it| it == "deb") {
            run(Command::new("dpkg")
                .arg("--extract")
                .arg(archive)
                .arg(&unpacking))?;
        }
    }
    fs::rename(&unpacking, root).context("the packages were empty")
}

/// A script that starts a program with the libraries that came with it, wherever the folder is.
fn with_libraries(name: &str, program: &Path) -> anyhow::Result<PathBuf> {
    let triplet = output_of(Command::new("gcc").arg("-print-multiarch")).unwrap_or_default();
    let script = folder().join("bin").join(name);
    fs::create_dir_all(folder().join("bin"))?;
    let text = format!(
        "#!/bin/sh\nroot=$(dirname \"$(readlink -f \"$0\")\")/../debian/root\n\
         LD_LIBRARY_PATH=\"$root/usr/lib/{}\" exec \"$root/{}\" \"$@\"\n",
        triplet.trim(),
        program.display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script)
}
