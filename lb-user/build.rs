//! Compiles the eBPF programs and leaves the object where `edge::kernel` embeds it from. Beside it: the same programs
//! without what most configurations do not use, and those that only the bench runs.
//!
//! The BPF target has no prebuilt `core`, so it is built from its sources: those of the active toolchain, else
//! those of Debian's compiler. `cargo xtask setup` sees to it that one of them is there. `RUSTC_BOOTSTRAP` allows
//! `-Z build-std` on a stable compiler, so that one toolchain serves for everything.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const TARGET: &str = "bpfel-unknown-none";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("cannot build the eBPF programs: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A compiler that has the sources of `core` beside it.
struct Compiler {
    rustc: PathBuf,
    libraries: PathBuf,
}

fn build() -> Result<(), String> {
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    for path in ["lb-ebpf/src", "lb-ebpf/Cargo.toml", "lb-common/src", "lb-common/Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", workspace.join(path).display());
    }
    println!("cargo:rerun-if-env-changed=LB_EBPF_RUSTC");

    let compiler = compiler()?;
    let target_dir = PathBuf::from(variable("OUT_DIR")?).join("ebpf");
    let flags = [
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        // Atomics and 32-bit jumps: kernels from 5.12 on.
        "-Ctarget-cpu=v3",
    ];
    let objects = target_dir.join(TARGET).join("release");
    let build = |features: &[&str]| {
        let mut cargo = Command::new(variable("CARGO")?);
        cargo
            .current_dir(workspace.join("lb-ebpf"))
            .args([
                "build",
                "--release",
                "--bins",
                "-Z",
                "build-std=core",
                "--target",
                TARGET,
                "--target-dir",
            ])
            .arg(&target_dir)
            .args(features)
            // The wrappers and flags are those of the host's build (clippy, coverage): they are not meant for this one.
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("RUSTC", &compiler.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("PATH", path_with_cargo_bin())
            .env("LD_LIBRARY_PATH", library_path(&compiler.libraries));
        let output = cargo.output().map_err(|error| format!("cannot run cargo: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!(
            "{}\nIf it is the compiler's sources or bpf-linker that are missing: cargo xtask setup",
            String::from_utf8_lossy(&output.stderr)
        ))
    };
    // Cargo puts both in the same place.
    build(&["--features", "lean"])?;
    let (object, lean) = (objects.join("lb-ebpf"), objects.join("lb-ebpf-lean"));
    fs::copy(&object, &lean).map_err(|error| format!("{}: {error}", lean.display()))?;
    build(&[])?;
    println!("cargo:rustc-env=LB_EBPF_LEAN_OBJECT={}", lean.display());
    println!("cargo:rustc-env=LB_EBPF_OBJECT={}", object.display());
    // Not for this package: the bench's build script gets it as DEP_LB_EBPF_BENCH.
    println!("cargo:bench={}", objects.join("lb-ebpf-bench").display());
    Ok(())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}

/// The active compiler, else Debian's; whichever has the sources of `core`.
fn compiler() -> Result<Compiler, String> {
    let active =
        env::var_os("LB_EBPF_RUSTC").or_else(|| env::var_os("RUSTC")).unwrap_or_else(|| "rustc".into());
    let candidates = [PathBuf::from(active), PathBuf::from("/usr/bin/rustc")];
    for rustc in &candidates {
        let Some(sysroot) = sysroot(rustc) else { continue };
        if sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
            return Ok(Compiler { rustc: rustc.clone(), libraries: sysroot.join("lib") });
        }
    }
    Err("no Rust compiler here has the sources of `core`; run: cargo xtask setup".to_owned())
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

/// `cargo install` puts bpf-linker beside cargo, which need not be on the path.
fn path_with_cargo_bin() -> OsString {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    let bins = home.map(|home| home.join("bin"));
    env::join_paths(env::split_paths(&path).chain(bins)).unwrap_or(path)
}

/// bpf-linker loads the libLLVM of the toolchain it was installed by, which cargo's rustup proxy puts on this path;
/// a cargo that was started otherwise does not.
fn library_path(libraries: &Path) -> OsString {
    let present = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let cargo = env::var_os("CARGO").map(PathBuf::from);
    let beside_cargo =
        cargo.as_deref().and_then(Path::parent).and_then(Path::parent).map(|root| root.join("lib"));
    let all = env::split_paths(&present).chain(beside_cargo).chain([libraries.to_path_buf()]);
    env::join_paths(all).unwrap_or(present)
}
