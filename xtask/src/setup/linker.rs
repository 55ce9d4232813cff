//! `bpf-linker`: makes one BPF object of the compiler's bitcode, by the LLVM that the compiler brings.

use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use super::{
    compiler::{self, Compiler},
    installing,
};
use crate::{process, workspace, workspace::Workspace};

/// The version lb is tested with, and the last line that needs no LLVM of its own.
pub(crate) const VERSION: &str = "0.10.4";

/// Where it is and which version, in words; `None` if there is none or an older one.
pub(crate) fn find() -> Option<String> {
    let installed = workspace::cargo_bin().join("bpf-linker");
    [PathBuf::from("bpf-linker"), installed].iter().find_map(|program| {
        let version = version_of(program)?;
        let note = match parse(&version)?.cmp(&parse(VERSION)?) {
            Ordering::Less => return None,
            Ordering::Equal => String::new(),
            Ordering::Greater => format!(", newer than {VERSION} that lb is tested with"),
        };
        let place = process::find_program("bpf-linker").unwrap_or_else(|| program.clone());
        Some(format!("{version}{note} ({})", place.display()))
    })
}

/// Compiles and installs it.
///
/// # Errors
/// The compiler's LLVM is one it does not know, or cargo's error.
pub(crate) fn install(workspace: &Workspace, target: Option<&Compiler>) -> Result<String> {
    let Some(llvm) = compiler::Version::of(&compiler::active())?.llvm else {
        bail!("install bpf-linker: `{} -vV` names no LLVM version", compiler::active().display());
    };
    if let Some(target) = target
        && target.llvm()? > llvm
    {
        bail!(
            "install bpf-linker: the kernel programs are compiled by {target}, but bpf-linker would use LLVM \
             {llvm} of the active compiler, which cannot read newer bitcode. Update the active compiler \
             (`rustup update stable`), or run this with RUSTC set to that compiler"
        );
    }
    let mut cargo = workspace.cargo();
    // Its own target directory: an lb build that runs beside this need not wait for it.
    cargo.env_remove("CARGO_TARGET_DIR");
    cargo.args(["install", "bpf-linker", "--version", VERSION, "--locked"]).args(features(llvm)?);
    installing(
        "bpf-linker",
        &format!("cargo install bpf-linker --version {VERSION} --locked (a minute or two)"),
    );
    process::run(&mut cargo)?;
    match find() {
        Some(linker) => Ok(linker),
        None => bail!("bpf-linker {VERSION} is installed, but `bpf-linker --version` does not say so"),
    }
}

/// What cargo must be told so that it links against the compiler's own LLVM.
fn features(llvm: u32) -> Result<&'static [&'static str]> {
    match llvm {
        20 => Ok(&["--no-default-features", "--features", "rust-llvm-20"]),
        21 => Ok(&["--no-default-features", "--features", "rust-llvm-21"]),
        22 => Ok(&[]),
        ..20 => bail!(
            "install bpf-linker: the active compiler has LLVM {llvm}, bpf-linker {VERSION} needs 20 to 22. \
             Update the compiler: `rustup update stable`"
        ),
        _ => bail!(
            "install bpf-linker: the active compiler has LLVM {llvm}, bpf-linker {VERSION} knows 20 to 22. \
             Use Rust 1.95 to 1.97 (`rustup toolchain install 1.95.0`, then `cargo +1.95.0 xtask setup`), or \
             install a later bpf-linker with LLVM {llvm}'s development packages yourself: one that is there \
             is used"
        ),
    }
}

fn version_of(program: &Path) -> Option<String> {
    let text = process::output(Command::new(program).arg("--version")).ok()?;
    Some(text.split_whitespace().nth(1)?.to_owned())
}

/// Major, minor, patch, to be compared.
fn parse(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split(['.', '-', '+']).map(str::parse);
    Some([parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(parse("0.10.4") > parse("0.9.15"));
        assert!(parse("0.11.0") > parse(VERSION));
        assert_eq!(parse("0.10.4-dev"), parse(VERSION));
        assert_eq!(parse("unknown"), None);
    }

    #[test]
    fn every_llvm_has_features_or_a_way_out() {
        assert_eq!(features(22).ok(), Some([].as_slice()));
        assert!(features(21).is_ok_and(|words| words.contains(&"rust-llvm-21")));
        assert!(features(20).is_ok_and(|words| words.contains(&"rust-llvm-20")));
        for (llvm, advice) in [(19, "rustup update"), (23, "1.95.0")] {
            let error = features(llvm).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(advice), "LLVM {llvm}: {error}");
        }
    }
}
