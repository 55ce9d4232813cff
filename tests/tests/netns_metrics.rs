//! A monitoring system reads a real daemon's metrics by TCP.

use std::{io::Write as _, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Backend, Config, Daemon, Lab, Namespace, addresses::VIPS, client::Ask, root, wait};

const LISTEN: &str = "127.0.0.1:9900";
const REQUESTS: usize = 200;

/// The sum of a metric's samples whose labels have all of these in them.
fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let samples = text.lines().filter_map(|line| line.rsplit_once(' ')).filter(|(key, _)| {
        key.split('{').next() == Some(name) && labels.iter().all(|label| key.contains(label))
    });
    samples.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
}

#[test]
fn metrics_tell_what_was_forwarded_and_who_is_up() {
    root::required(|| {
        let mut lab = Lab::builder().l2_backends(2).tunnel_backends(0).build()?;
        let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
        let check = "type = \"tcp\", interval = \"300ms\", timeout = \"200ms\", rise = 1, fall = 2";
        let config = Config::new().pool("web", check, &members).service("www", VIPS[0], &["tcp/80"], "web");
        let daemon = Daemon::start_with(&lab, &config, &["--api-listen", LISTEN])?;
        daemon.wait_up(Duration::from_secs(10))?;

        let balancer = Namespace::find(lab.balancer.name())?;
        let get = |path: &str| balancer.run("curl", &["-sS", "-f", &format!("http://{LISTEN}{path}")]);
        ensure!(get("/healthz")? == "ok\n" && get("/readyz")? == "ready\n", "it is not ready");
        let tally = lab.ask(Ask::Http, VIPS[0], REQUESTS)?;
        ensure!(tally.failed() == 0, "{tally}");
        // Counters are read each second.
        let text = wait::until("the requests in the metrics", Duration::from_secs(5), || {
            let text = get("/metrics")?;
            let packets = sum(&text, "lb_service_forwarded_packets_total", &["service=\"www\""]);
            // At least SYN, ACK, request and FIN of each.
            ensure!(packets >= (4 * REQUESTS) as f64, "{packets} packets");
            anyhow::Ok(text)
        })?;
        println!("{text}");
        let all = sum(&text, "lb_service_forwarded_packets_total", &[]);
        let each = sum(&text, "lb_backend_forwarded_packets_total", &[]);
        ensure!(all == each, "{all} packets of the service, {each} of its backends");
        ensure!(sum(&text, "lb_backend_state", &["state=\"up\""]) == 2.0, "two are up");
        ensure!(sum(&text, "lb_ready", &[]) == 1.0, "it is ready");
        check_with_promtool(&text)?;

        lab.backend("b1").crash()?;
        wait::until("b1 to be down in the metrics", Duration::from_secs(10), || {
            let text = get("/metrics")?;
            ensure!(sum(&text, "lb_backend_state", &["backend=\"b1\"", "state=\"down\""]) == 1.0, "still up");
            ensure!(sum(&text, "lb_backend_slots", &["backend=\"b1\""]) == 0.0, "it has slots");
            anyhow::Ok(())
        })?;
        // Nobody changes anything this way.
        let refused =
            lab.balancer.run("curl", &["-sS", "-X", "DELETE", &format!("http://{LISTEN}/v1/pools/web")])?;
        ensure!(refused.contains("--api-token-file"), "{refused}");
        ensure!(daemon.status()?.services.len() == 1, "something changed");
        Ok(())
    });
}

/// Prometheus' own opinion, where its tool is installed.
fn check_with_promtool(text: &str) -> Result<()> {
    let child = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            println!("promtool is not here ({error}): its opinion is not asked");
            return Ok(());
        }
    };
    child.stdin.take().context("promtool has an input")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    println!("promtool: {} {said}", output.status);
    ensure!(output.status.success() && said.trim().is_empty(), "promtool: {said}");
    Ok(())
}
