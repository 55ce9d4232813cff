//! Checks that run programs.

use super::*;

fn exec_spec(command: &[&str]) -> ProbeSpec {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    ProbeSpec { mark: None, ..spec("192.0.2.1:80".parse().unwrap(), CheckKind::Exec { command }) }
}

async fn shell(script: &str) -> Result<String, ProbeFailure> {
    once(&exec_spec(&["/bin/sh", "-c", script, "check"])).await
}

fn command(end: &str, said: &str) -> Result<String, ProbeFailure> {
    Err(ProbeFailure::Command { program: "/bin/sh".into(), end: end.into(), said: said.into() })
}

#[tokio::test]
async fn the_exit_code_decides_and_the_first_line_is_shown() {
    for (script, result) in [
        ("exit 0", Ok("exit code 0".to_owned())),
        ("echo; echo ' all well '; echo more", Ok("all well".to_owned())),
        ("echo late >&2; exit 3", command("ended with exit code 3", "late")),
        ("printf 'a\\033[31mb\\n'; exit 1", command("ended with exit code 1", "a[31mb")),
        ("kill -9 $$", command("was ended by signal 9", "")),
        ("head -c 1000000 /dev/zero | tr '\\0' x", Ok("x".repeat(200))),
    ] {
        assert_eq!(shell(script).await, result, "{script}");
    }
}

#[tokio::test]
async fn a_program_gets_its_arguments_and_what_it_is_to_look_at_and_nothing_else() {
    let said = shell("echo $0 $LB_POOL $LB_BACKEND $LB_ADDRESS $LB_VIP $LB_PORT $HOME- $(pwd)").await;
    assert_eq!(said, Ok("check web w1 10.1.0.11 192.0.2.1 80 - /".to_owned()));
    // Nobody takes a word for more than that.
    let said = once(&exec_spec(&["/bin/echo", "a b; $HOME", "*"])).await;
    assert_eq!(said, Ok("a b; $HOME *".to_owned()));
    let said = once(&exec_spec(&["/bin/cat"])).await;
    assert_eq!(said, Ok("exit code 0".to_owned()), "its input is empty");
}

#[tokio::test]
async fn a_program_that_takes_too_long_ends_with_all_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("alive");
    let script = format!("(sleep 1; touch {}) & sleep 60", mark.display());
    let start = Instant::now();
    let too_slow = Err(ProbeFailure::CommandTooSlow { program: "/bin/sh".into(), after: TIMEOUT });
    assert_eq!(shell(&script).await, too_slow);
    assert!(start.elapsed() < TIMEOUT * 3);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(!mark.exists(), "what it started goes on");
}

#[tokio::test]
async fn a_program_that_cannot_be_run_is_not_the_backend_s_fault() {
    for program in ["/no/such/program", "/etc"] {
        let result = once(&exec_spec(&[program])).await;
        assert!(
            matches!(&result, Err(ProbeFailure::Local { error, .. }) if error.contains(program)),
            "{result:?}"
        );
    }
}
