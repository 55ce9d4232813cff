//! A package for Debian: the binary, its unit, manual pages, completions and documents, as `dpkg` installs and purges them.
//!
//! The tree is laid out here and `dpkg-deb` packs it. What was packed is then installed below a directory of its own and
//! purged again, so that a package that does not install is never called done.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    process,
    setup::{self, Mode},
    workspace::{Profile, Workspace},
};

/// The configuration that a new machine starts with: it attaches to nothing.
const CONFIG: &str = "\
# What lb balances: /usr/share/doc/lb/config.md has every key, /usr/share/doc/lb/example.toml an example of each.
# `lb check /etc/lb/lb.toml` tells what is wrong with this file. When it is right: systemctl enable --now lb

[lb]
interfaces = []                    # for example [\"eth0\"]
";

/// Run after unpacking. A daemon that runs is replaced by the new one; packets are forwarded all the while.
const POSTINST: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = configure ] && [ -z \"$DPKG_ROOT\" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if [ -n \"$2\" ]; then
        systemctl try-restart lb.service
    fi
fi
";

/// Run before files go. An upgrade leaves the daemon alone until its successor is there.
const PRERM: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = remove ] && [ -z \"$DPKG_ROOT\" ]; then
    if [ -d /run/systemd/system ]; then
        systemctl disable --now lb.service || true
    fi
    # The unit has the kernel go on forwarding without a daemon; without lb on the machine it must not.
    if [ -d /sys/fs/bpf/lb ]; then
        rm -r /sys/fs/bpf/lb
    fi
fi
";

/// Run after files are gone.
const POSTRM: &str = "\
#!/bin/sh
set -e
if [ -z \"$DPKG_ROOT\" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
if [ \"$1\" = purge ]; then
    rm -rf \"$DPKG_ROOT/var/lib/lb\"
fi
";

/// What `dist` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// Pack the binary that is not optimised: faster to try, not for use.
    #[arg(long)]
    debug: bool,
}

/// Builds lb and packs it; prints where the package is.
///
/// # Errors
/// The build fails, `dpkg-deb` is not there, or the package does not install or purge.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    process::require_root("dist", "it tries the package out as dpkg does, below a directory of its own")?;
    setup::run(workspace, Mode::Install)?;
    let profile = if options.debug { Profile::Debug } else { Profile::Release };
    workspace.build("lb-user", "lb", profile)?;
    let package = make(workspace, profile)?;
    println!("package  {}", package.display());
    println!("install  apt install {}", package.display());
    Ok(())
}

/// Packs the binary that was built, and tries the package out.
///
/// # Errors
/// A program of Debian's is missing, or the package does not install or purge.
pub(crate) fn make(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    let package = pack(workspace, profile)?;
    installs_and_purges(&package)?;
    Ok(package)
}

/// Lays out what is packed, and packs it.
fn pack(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    let lb = &workspace.binary("lb", profile);
    let directory = workspace.target().join("dist");
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let staging = tempfile::tempdir_in(&directory).context("make a directory to pack")?;
    let tree = Tree { root: staging.path().join("lb") };
    fs::create_dir_all(&tree.root).context("make a directory to pack")?;

    tree.copy(lb, "usr/sbin/lb", 0o755)?;
    process::output(Command::new("strip").arg("--strip-debug").arg(tree.root.join("usr/sbin/lb")))
        .context("take the debugging symbols off")?;
    tree.copy(&workspace.root().join("scripts/lb.service"), "usr/lib/systemd/system/lb.service", 0o644)?;
    tree.write("etc/lb/lb.toml", CONFIG, 0o644)?;
    tree.copy(&workspace.root().join("LICENSE"), "usr/share/doc/lb/copyright", 0o644)?;
    for licence in ["LICENSE-MIT", "LICENSE-APACHE", "LICENSE-GPL-2.0"] {
        tree.copy(&workspace.root().join(licence), &format!("usr/share/doc/lb/{licence}"), 0o644)?;
    }
    tree.copy(
        &workspace.root().join("lb-user/src/config/example.toml"),
        "usr/share/doc/lb/example.toml",
        0o644,
    )?;
    for document in markdown(&workspace.root().join("docs"))? {
        let name = document.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tree.copy(&document, &format!("usr/share/doc/lb/{name}"), 0o644)?;
    }
    let pages = tree.root.join("usr/share/man/man8");
    process::output(Command::new(lb).arg("manual").arg("--dir").arg(&pages))?;
    for page in files(&pages)? {
        process::output(Command::new("gzip").args(["-9", "--no-name"]).arg(&page))?;
    }
    for (shell, file) in [
        ("bash", "usr/share/bash-completion/completions/lb"),
        ("zsh", "usr/share/zsh/vendor-completions/_lb"),
        ("fish", "usr/share/fish/vendor_completions.d/lb.fish"),
    ] {
        tree.write(file, &process::output(Command::new(lb).args(["completions", shell]))?, 0o644)?;
    }
    // dpkg -V compares with them.
    let mut sums = Command::new("md5sum");
    let packed = files(&tree.root)?;
    let packed = packed.iter().filter_map(|file| file.strip_prefix(&tree.root).ok());
    let sums =
        process::output(sums.current_dir(&tree.root).args(packed.filter(|file| !file.starts_with("etc"))))?;
    tree.write("DEBIAN/md5sums", &sums, 0o644)?;
    tree.write("DEBIAN/conffiles", "/etc/lb/lb.toml\n", 0o644)?;
    for (script, text) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        tree.write(&format!("DEBIAN/{script}"), text, 0o755)?;
    }
    let architecture = process::output(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    tree.write("DEBIAN/control", &control(architecture)?, 0o644)?;

    let package = directory.join(format!("lb_{}_{architecture}.deb", env!("CARGO_PKG_VERSION")));
    let mut pack = Command::new("dpkg-deb");
    if profile == Profile::Debug {
        // Large, and not for anybody.
        pack.arg("-Znone");
    }
    pack.args(["--build", "--root-owner-group"]).arg(&tree.root).arg(&package);
    process::output(&mut pack)?;
    Ok(package)
}

/// What dpkg is told of the package.
fn control(architecture: &str) -> Result<String> {
    // Any older library might lack what this one has.
    let libc =
        process::output(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", "libc6"]))?;
    let libc = libc.split('-').next().unwrap_or_default();
    Ok(format!(
        "\
Package: lb
Version: {}
Architecture: {architecture}
Maintainer: The lb developers <lb@localhost>
Section: net
Priority: optional
Depends: libc6 (>= {libc}), libgcc-s1
Description: layer-4 load balancer in XDP, by direct server return
 A program in the network driver's path picks a backend for each packet to a
 virtual address and sends it there, by a new MAC address or in a tunnel;
 backends answer clients directly. A daemon checks backends through the same
 path, and takes orders from a command line.
",
        env!("CARGO_PKG_VERSION")
    ))
}

/// Installs the package below an empty directory, runs what it brought, and purges it: nothing may be left.
fn installs_and_purges(package: &Path) -> Result<()> {
    let root = tempfile::tempdir().context("make a directory to install into")?;
    let root = root.path();
    for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        fs::create_dir_all(root.join(directory)).context("make an empty package database")?;
    }
    fs::write(root.join("var/lib/dpkg/status"), "").context("make an empty package database")?;
    let dpkg = |action: &[&str], what: &Path| {
        let mut dpkg = Command::new("dpkg");
        // Scripts see the directory as DPKG_ROOT. The libraries are this machine's, which that database does not know.
        dpkg.arg(format!("--root={}", root.display())).args(["--force-script-chrootless", "--force-depends"]);
        process::output(dpkg.args(action).arg(what))
    };
    dpkg(&["--install"], package)?;
    let version = process::output(Command::new(root.join("usr/sbin/lb")).arg("--version"))?;
    ensure!(version.contains(env!("CARGO_PKG_VERSION")), "the installed lb says it is {version}");
    let check = Command::new(root.join("usr/sbin/lb")).arg("check").arg(root.join("etc/lb/lb.toml")).output();
    let check = check.context("run the installed lb")?;
    ensure!(
        check.status.success(),
        "the installed configuration: {}",
        String::from_utf8_lossy(&check.stderr)
    );
    dpkg(&["--verify"], Path::new("lb"))?;
    dpkg(&["--purge"], Path::new("lb"))?;
    let left: Vec<PathBuf> =
        files(root)?.into_iter().filter(|file| !file.starts_with(root.join("var/lib/dpkg"))).collect();
    ensure!(left.is_empty(), "left behind by a purge: {left:?}");
    Ok(())
}

/// What is to be packed.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn place(&self, path: &str) -> Result<PathBuf> {
        let place = self.root.join(path);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        Ok(place)
    }

    fn copy(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let place = self.place(to)?;
        fs::copy(from, &place).with_context(|| format!("copy {} to {to}", from.display()))?;
        set_mode(&place, mode)
    }

    fn write(&self, to: &str, text: &str, mode: u32) -> Result<()> {
        let place = self.place(to)?;
        fs::write(&place, text).with_context(|| format!("write {to}"))?;
        set_mode(&place, mode)
    }
}

fn set_mode(file: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(file, Permissions::from_mode(mode))
        .with_context(|| format!("open up {}", file.display()))
}

/// Every file below a directory, in order.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", directory.display()))?;
        let kind = entry.file_type().with_context(|| format!("look at {}", entry.path().display()))?;
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The documents of a directory itself.
fn markdown(directory: &Path) -> Result<Vec<PathBuf>> {
    let is_document = |file: &PathBuf| {
        file.parent() == Some(directory) && file.extension().is_some_and(|extension| extension == "md")
    };
    Ok(files(directory)?.into_iter().filter(is_document).collect())
}
