//! A daemon with traffic is asked and ordered whatever its own description of the API allows, and what it does not.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Backend, Config, Daemon, Lab, Namespace, addresses::VIPS, client::Ask, root, wait};

const LISTEN: &str = "127.0.0.1:9900";
const TOKEN: &str = "a-secret-for-this-test-alone-0123456789";

/// What must hold of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,negative_data_rejection,unsupported_method,\
    missing_required_header,use_after_free,ensure_resource_availability";

/// Streams do not end; their own tests read them.
const STREAMS: [&str; 2] = ["/v1/capture", "/v1/events"];

/// Requests of each operation, about, in each of the phases.
const EXAMPLES: &str = "30";

#[test]
fn whatever_is_asked_for_nothing_breaks_and_nothing_is_half_done() {
    root::required(|| {
        let lab = Lab::builder().l2_backends(2).tunnel_backends(0).build()?;
        let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
        let check = "type = \"tcp\", interval = \"300ms\", timeout = \"200ms\", rise = 1, fall = 2";
        let config = Config::new().pool("web", check, &members).service("www", VIPS[0], &["tcp/80"], "web");
        let token = lab.directory().join("token");
        private(&token, TOKEN)?;
        let token = token.to_str().context("a path that is text")?;
        let mut daemon =
            Daemon::start_with(&lab, &config, &["--api-listen", LISTEN, "--api-token-file", token])?;
        daemon.wait_up(Duration::from_secs(10))?;

        println!("{}", fuzz(&lab)?);

        let log = daemon.log();
        ensure!(!log.contains("panicked"), "it panicked:\n{log}");
        let orders = log.lines().filter(|line| line.contains(" edited: ")).count();
        println!("{orders} orders were carried out");
        ensure!(orders >= 5, "too few orders were carried out for the test to mean anything: {orders}");
        // What stands in the file is in force, and the tables are as it wants them.
        let file = std::fs::read_to_string(&daemon.config)?;
        let balancer = Namespace::find(lab.balancer.name())?;
        let get = |path: &str| balancer.run("curl", &["-sS", "-f", &format!("http://{LISTEN}{path}")]);
        let shown: serde_json::Value = serde_json::from_str(&get("/v1/config")?)?;
        ensure!(shown["text"] == file.as_str(), "the file says\n{file}\nand the daemon\n{shown}");
        let path = daemon.config.to_str().context("a path that is text")?.to_owned();
        daemon.lb(&["check", &path])?;
        wait::until("a plan without steps", Duration::from_secs(10), || {
            let plan: serde_json::Value = serde_json::from_str(&daemon.lb(&["--json", "plan", &path])?)?;
            ensure!(plan["steps"] == 0, "{plan}");
            anyhow::Ok(())
        })?;
        // It is as able as before, and so is one that starts with what it left.
        daemon.write_config(config.text())?;
        daemon.wait_up(Duration::from_secs(10))?;
        ensure!(lab.ask(Ask::Http, VIPS[0], 100)?.failed() == 0, "requests failed");
        daemon.crash()?;
        daemon.restart(&[])?;
        daemon.wait_up(Duration::from_secs(10))?;
        ensure!(lab.ask(Ask::Http, VIPS[0], 100)?.failed() == 0, "requests failed after a restart");
        Ok(())
    });
}

/// Runs schemathesis against the daemon: what it says at its end.
fn fuzz(lab: &Lab) -> Result<String> {
    let program = std::env::var("LB_SCHEMATHESIS").unwrap_or_else(|_| "schemathesis".to_owned());
    let mut command = lab.balancer.command(&program);
    command.args(["run", &format!("http://{LISTEN}/v1/openapi.json")]);
    command.args(["--header", &format!("Authorization: Bearer {TOKEN}")]);
    command.args(["--checks", CHECKS, "--max-examples", EXAMPLES, "--seed", "1", "--request-timeout", "10"]);
    command.args(["--suppress-health-check", "all", "--warnings", "off", "--no-color"]);
    // It leaves what it found where it runs.
    command.current_dir(lab.directory()).args(["--generation-database", "none"]);
    for stream in STREAMS {
        command.args(["--exclude-path", stream]);
    }
    let output = command.output().with_context(|| {
        format!("starting {program}: `cargo xtask test` installs it and says in LB_SCHEMATHESIS where it is")
    })?;
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{words}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(words.contains(" passed"), "nothing was tested: {words}");
    Ok(words)
}

/// A file that nobody else may read.
fn private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
}
