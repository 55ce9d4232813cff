//! Where this repository is, where cargo puts what it builds, and cargo itself.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::process;

/// How code is compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Fast to compile.
    Debug,
    /// Fast to run.
    Release,
}

/// The repository that this program was compiled from.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// # Errors
    /// The working directory is gone, while `CARGO_TARGET_DIR` is relative to it.
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().unwrap_or(manifest).to_owned();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => std::path::absolute(&dir)
                .with_context(|| format!("find CARGO_TARGET_DIR {}", Path::new(&dir).display()))?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The directory of the root `Cargo.toml`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Cargo, run at the root, with the programs it has installed on its `PATH`.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("PATH", path_with_cargo_bin());
        cargo
    }

    /// Where a binary is, or will be.
    pub(crate) fn binary(&self, name: &str, profile: Profile) -> PathBuf {
        let dir = match profile {
            Profile::Debug => "debug",
            Profile::Release => "release",
        };
        self.target.join(dir).join(name)
    }

    /// Builds a binary and returns where it is.
    ///
    /// # Errors
    /// Cargo's.
    pub(crate) fn build(&self, package: &str, binary: &str, profile: Profile) -> Result<PathBuf> {
        let mut cargo = self.cargo();
        cargo.args(["build", "--package", package, "--bin", binary]);
        if profile == Profile::Release {
            cargo.arg("--release");
        }
        process::run(&mut cargo)?;
        Ok(self.binary(binary, profile))
    }
}

/// Where `cargo install` puts programs.
pub(crate) fn cargo_bin() -> PathBuf {
    let home = || std::env::home_dir().unwrap_or_default().join(".cargo");
    let root = std::env::var_os("CARGO_INSTALL_ROOT").or_else(|| std::env::var_os("CARGO_HOME"));
    root.map_or_else(home, PathBuf::from).join("bin")
}

fn path_with_cargo_bin() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([cargo_bin()]);
    std::env::join_paths(dirs).unwrap_or(path)
}
