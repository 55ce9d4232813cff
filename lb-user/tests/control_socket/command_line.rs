//! The `lb` binary as a client: what it prints where, and its exit codes.

use std::{path::Path, process::Output};

use lb_user::{
    api::{Done, Edit, Refusal, RefusalKind, Request, Response, Status},
    exit::Exit,
};
use tokio::process::Command;

use crate::fixture::{Fixture, answer, done};

async fn lb(socket: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lb"))
        .args(line.split_whitespace())
        .env("LB_SOCKET", socket)
        .output()
        .await
        .expect("lb starts")
}

#[track_caller]
fn ended(output: &Output, exit: Exit) -> (String, String) {
    let stdout = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    let stderr = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(output.status.code(), Some(i32::from(exit as u8)), "{stdout}\n{stderr}");
    (stdout, stderr)
}

#[tokio::test]
async fn people_get_text_and_programs_the_answer_itself() {
    let fixture = Fixture::start(answer);
    let (text, complaints) = ended(&lb(&fixture.path, "status").await, Exit::Ok);
    assert!(text.starts_with("lb 0.1.0  pid 1  up 2s\n"), "{text}");
    assert!(text.contains("WARNING: careful\n"), "{text}");
    assert!(!text.contains('\x1b'), "colour in a pipe: {text}");
    assert_eq!(complaints, "");

    let (text, _) = ended(&lb(&fixture.path, "-j status").await, Exit::Ok);
    let status: Status = serde_json::from_str(&text).expect("JSON");
    assert_eq!(Response::Status(Box::new(status)), answer(&Request::Status));
    assert!(text.lines().count() > 10, "not pretty: {text}");
}

#[tokio::test]
async fn edits_reach_the_daemon() {
    let fixture = Fixture::start(answer);
    let (text, _) = ended(&lb(&fixture.path, "backend rm web w1").await, Exit::Ok);
    assert_eq!(text, "done (generation 7)\n");
    let (text, _) = ended(&lb(&fixture.path, "backend rm web w2 --json").await, Exit::Ok);
    assert_eq!(serde_json::from_str::<Done>(&text).expect("JSON"), done());
    let delete =
        |name: &str| Request::Edit(Edit::DeleteBackend { pool: "web".to_owned(), name: name.to_owned() });
    assert_eq!(fixture.asked(), [delete("w1"), delete("w2")]);
}

#[tokio::test]
async fn refusals_have_reasons_and_exit_codes() {
    for (kind, exit) in [
        (RefusalKind::NotFound, Exit::Failed),
        (RefusalKind::Conflict, Exit::Failed),
        (RefusalKind::Invalid, Exit::Data),
        (RefusalKind::Failed, Exit::Failed),
    ] {
        let refusal = Refusal { kind, errors: vec!["first".to_owned(), "second".to_owned()] };
        let answer = Response::Refused(refusal.clone());
        let fixture = Fixture::start(move |_| answer.clone());
        let (text, complaints) = ended(&lb(&fixture.path, "pool del web").await, exit);
        assert_eq!((text.as_str(), complaints.as_str()), ("", "lb: first\nlb: second\n"));
        let (text, _) = ended(&lb(&fixture.path, "-j pool del web").await, exit);
        assert_eq!(serde_json::from_str::<Refusal>(&text).expect("JSON"), refusal);
    }
}

#[tokio::test]
async fn without_a_daemon_or_a_command_the_exit_code_says_so() {
    let nowhere = Path::new("/nonexistent/lb.sock");
    let (text, complaints) = ended(&lb(nowhere, "health").await, Exit::Unavailable);
    assert_eq!(text, "");
    assert_eq!(complaints, "lb: no daemon listens on /nonexistent/lb.sock: is `lb run` running?\n");
    ended(&lb(nowhere, "health --frobnicate").await, Exit::Usage);
    ended(&lb(nowhere, "check /nonexistent/lb.toml").await, Exit::NoInput);
    let (script, _) = ended(&lb(nowhere, "completions bash").await, Exit::Ok);
    assert!(script.contains("backend"), "{script}");
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_a_watch_quietly() {
    let fixture = Fixture::start(answer);
    let mut child = Command::new(env!("CARGO_BIN_EXE_lb"))
        .args(["stats", "--watch", "--socket"])
        .arg(&fixture.path)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("lb starts");
    drop(child.stdout.take());
    let output = tokio::time::timeout(std::time::Duration::from_secs(10), child.wait_with_output())
        .await
        .expect("ends by itself")
        .expect("ends");
    assert_eq!(ended(&output, Exit::Ok), (String::new(), String::new()));
}
