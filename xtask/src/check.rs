//! What is checked before a commit and by CI: the list of steps, and which test runner runs them.

use anyhow::Result;

use crate::{
    dist, process,
    setup::{self, Mode},
    steps::Steps,
    tidy,
    workspace::{Profile, Workspace},
};

/// The package whose tests make namespaces and load programs: a few at a time.
/// `.config/nextest.toml` says the same to nextest.
const PRIVILEGED: &str = "lb-tests";

/// The steps that need no root.
///
/// # Errors
/// The first step that fails.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut steps = Steps::default();
    static_steps(workspace, &mut steps)?;
    let unit_tests = ["--lib", "--bins"];
    if has_nextest(workspace) {
        steps.command("test", workspace.cargo().args(["nextest", "run"]).args(unit_tests))?;
    } else {
        steps.command("test", workspace.cargo().arg("test").args(unit_tests))?;
    }
    steps.finish();
    Ok(())
}

/// All steps and all tests; a test that cannot run is a failure.
///
/// # Errors
/// Not root, set-up fails, or the first step that fails.
pub(crate) fn test(workspace: &Workspace, runner_args: &[String]) -> Result<()> {
    process::require_root(
        "test",
        "tests load programs into the kernel and make network namespaces (`cargo xtask check` is the part \
         that does without)",
    )?;
    setup::run(workspace, Mode::Install)?;
    let fuzzer = setup::fuzzer(workspace)?;
    let mut steps = Steps::default();
    static_steps(workspace, &mut steps)?;

    // The end-to-end tests start the binary, which a test build of another package would not make.
    steps.step("build", "lb, for the end-to-end tests", || {
        workspace.build("lb-user", "lb", Profile::Debug).map(drop)
    })?;
    steps.step("package", "a Debian package, installed and purged", || {
        dist::make(workspace, Profile::Debug).map(drop)
    })?;
    let cargo = || {
        let mut cargo = workspace.cargo();
        cargo.env("LB_REQUIRE_ROOT", "1").env("LB_BIN", workspace.binary("lb", Profile::Debug));
        cargo.env("LB_SCHEMATHESIS", &fuzzer);
        cargo
    };
    // nextest runs no documentation tests.
    steps.command("doctest", cargo().args(["test", "--doc"]))?;
    if has_nextest(workspace) {
        steps.command("test", cargo().args(["nextest", "run", "--no-fail-fast"]).args(runner_args))?;
    } else {
        // No `--all-targets`: that would run the benchmarks.
        let targets = ["--no-fail-fast", "--lib", "--bins", "--tests"];
        let mut others = cargo();
        others.args(["test", "--workspace", "--exclude", "lb-ebpf", "--exclude", PRIVILEGED]).args(targets);
        steps.command("test", others.args(runner_args))?;
        let mut privileged = cargo();
        privileged.args(["test", "--package", PRIVILEGED]).args(targets).args(runner_args);
        steps.command("netns", privileged.args(["--", "--test-threads=1"]))?;
    }
    steps.finish();
    Ok(())
}

/// What reads the sources and runs nothing of them.
fn static_steps(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.command("fmt", workspace.cargo().args(["fmt", "--all", "--", "--check"]))?;
    steps.step("tidy", "structural rules", || tidy::run(workspace))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.command("clippy", workspace.cargo().args(clippy))?;
    let doc = ["doc", "--no-deps", "--document-private-items"];
    // These pages are for us: a link to a private item leads somewhere.
    let flags = "-D warnings -A rustdoc::private-intra-doc-links";
    steps.command("doc", workspace.cargo().args(doc).env("RUSTDOCFLAGS", flags))
}

fn has_nextest(workspace: &Workspace) -> bool {
    process::output(workspace.cargo().args(["nextest", "--version"])).is_ok()
}
