//! A Rust compiler with the sources of its `core`: the BPF target has no prebuilt one.
//!
//! The kernel programs are compiled with `RUSTC_BOOTSTRAP=1 -Z build-std=core`, so a stable compiler will do.
//! `lb-user/build.rs` makes the same search in the same order.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{apt::Apt, installing, note};
use crate::process;

/// What to say when there is none.
pub(crate) const LACKING: &str =
    "no compiler with its library sources: component rust-src, or Debian's rustc-web and rust-web-src";

/// Debian's packages of a current compiler and of its sources.
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// Where they put it.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that has its library sources.
pub(crate) struct Compiler {
    rustc: PathBuf,
    version: Version,
    library: PathBuf,
}

impl Compiler {
    /// The compiler's LLVM, major version.
    pub(crate) fn llvm(&self) -> Result<u32> {
        self.version.llvm.with_context(|| format!("`{} -vV` names no LLVM version", self.rustc.display()))
    }

    fn at(rustc: &Path) -> Option<Self> {
        let sysroot = process::output(Command::new(rustc).args(["--print", "sysroot"])).ok()?;
        let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
        // Debian links the sources; a dangling link is no source.
        library.join("core/src/lib.rs").is_file().then_some(())?;
        let version = Version::of(rustc).ok()?;
        Some(Self { rustc: rustc.to_owned(), version, library })
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, library, .. } = self;
        write!(f, "rustc {} ", version.release)?;
        if let Some(llvm) = version.llvm {
            write!(f, "(LLVM {llvm}) ")?;
        }
        write!(f, "with sources in {}", library.display())
    }
}

/// What `rustc -vV` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// `1.95.0`.
    pub(crate) release: String,
    /// LLVM's major version; absent with another code generator.
    pub(crate) llvm: Option<u32>,
}

impl Version {
    /// # Errors
    /// The compiler cannot be started.
    pub(crate) fn of(rustc: &Path) -> Result<Self> {
        Ok(Self::parse(&process::output(Command::new(rustc).arg("-vV"))?))
    }

    fn parse(text: &str) -> Self {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Self {
            release: field("release:").unwrap_or("of unknown version").to_owned(),
            llvm: field("LLVM version:").and_then(|version| version.split('.').next()?.parse().ok()),
        }
    }
}

/// The compiler that cargo uses.
pub(crate) fn active() -> PathBuf {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()).into()
}

/// The first compiler with sources: the active one, then the system's.
pub(crate) fn find() -> Option<Compiler> {
    [active(), DEBIAN_RUSTC.into()].iter().find_map(|rustc| Compiler::at(rustc))
}

/// Installs the sources of the active compiler or, where rustup cannot, Debian's compiler with its own.
///
/// # Errors
/// Neither way works.
pub(crate) fn install(apt: &mut Apt) -> Result<Compiler> {
    installing("rust-src", "rustup component add rust-src");
    match process::run(Command::new("rustup").args(["component", "add", "rust-src"])) {
        Ok(()) => {
            if let Some(compiler) = find() {
                return Ok(compiler);
            }
            note(
                "rust-src",
                &format!(
                    "is installed, but not for {}; Debian has a compiler with sources, too",
                    active().display()
                ),
            );
        }
        Err(error) => note("rust-src", &format!("{error:#}; Debian has a compiler with sources, too")),
    }
    apt.install(&DEBIAN_PACKAGES).with_context(|| {
        format!(
            "no compiler with its library sources could be installed; by hand, either of these will do: \
             `rustup component add rust-src`, or `sudo apt-get update && sudo apt-get install -y {}`; the last \
             attempt",
            DEBIAN_PACKAGES.join(" ")
        )
    })?;
    match Compiler::at(Path::new(DEBIAN_RUSTC)) {
        Some(compiler) => Ok(compiler),
        None => bail!("{} are installed, but {DEBIAN_RUSTC} has no sources", DEBIAN_PACKAGES.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read() {
        let cases = [
            ("rustc 1.95.0\nrelease: 1.95.0\nLLVM version: 22.1.2\n", "1.95.0", Some(22)),
            ("release: 1.80.0-nightly\nLLVM version: 18.1\n", "1.80.0-nightly", Some(18)),
            ("release: 1.95.0\n", "1.95.0", None),
            ("", "of unknown version", None),
        ];
        for (text, release, llvm) in cases {
            assert_eq!(Version::parse(text), Version { release: release.to_owned(), llvm }, "{text:?}");
        }
    }

    #[test]
    fn a_program_that_is_no_compiler_is_not_one() {
        assert!(Compiler::at(Path::new("/bin/true")).is_none());
        assert!(Compiler::at(Path::new("/nowhere/rustc")).is_none());
    }
}
