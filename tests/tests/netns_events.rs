//! What operators see of single packets: events, and captures of live traffic.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::{
    Backend, Config, Daemon, Lab,
    addresses::{VIP4, VIP6},
    client::Ask,
    process::Process,
    root, wait,
};
use lb_user::{
    api::{EventView, Happening, PacketView, State},
    model::pcapng::{Block, Direction},
};

const CHECK: &str = "type = \"tcp\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";

/// Generous: for waits whose length is not what the test is about.
const SETTLE: Duration = Duration::from_secs(15);

fn start(lab: &Lab) -> Result<Daemon> {
    let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
    let config = Config::new().pool("web", CHECK, &members).service("www", VIP4, &["tcp/80"], "web").service(
        "www6",
        VIP6,
        &["tcp/80"],
        "web",
    );
    let daemon = Daemon::start(lab, &config)?;
    daemon.wait_up(SETTLE)?;
    Ok(daemon)
}

/// A packet of a capture.
#[derive(Debug)]
struct Seen {
    direction: Direction,
    id: u64,
    frame: Vec<u8>,
    length: u32,
    comment: String,
}

/// Packets captured and lost.
type Counts = (u64, u64);

/// Everything in a file, and how many packets it says were captured and lost.
fn read(path: &Path) -> Result<(Vec<Seen>, Option<Counts>)> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let (mut rest, mut seen, mut statistics) = (&bytes[..], Vec::new(), None);
    while let Some(block) = Block::first(rest).map_err(anyhow::Error::msg)? {
        seen.extend(block.packet().map(|packet| Seen {
            direction: packet.direction,
            id: packet.id,
            frame: packet.frame.to_vec(),
            length: packet.length,
            comment: packet.comment.to_owned(),
        }));
        statistics = block.statistics().or(statistics);
        rest = &rest[block.length..];
    }
    ensure!(rest.is_empty(), "{} bytes of half a block", rest.len());
    Ok((seen, statistics))
}

/// Starts a capture and waits until it has begun, which the file's beginning tells.
fn capture(daemon: &Daemon, file: &Path, filter: &[&str]) -> Result<Process> {
    let path = file.display().to_string();
    let arguments = [&["capture", "-w", &path], filter].concat();
    let mut process = Process::spawn(&mut daemon.command(&arguments), &file.with_extension("log"))?;
    wait::until("the capture to begin", SETTLE, || {
        process.check()?;
        ensure!(fs::metadata(file)?.len() > 0, "nothing is written yet");
        Ok(())
    })?;
    Ok(process)
}

#[test]
fn a_capture_shows_packets_as_they_came_and_left() {
    root::required(|| {
        let lab = Lab::builder().l2_backends(1).tunnel_backends(1).build()?;
        let daemon = start(&lab)?;
        let file = lab.directory().join("www.pcapng");
        let mut process = capture(&daemon, &file, &["service", "www", "and", "port", "80", "-c", "40"])?;
        let answers = lab.ask(Ask::Http, VIP4, 30)?;
        ensure!(answers.failed() == 0, "{answers}");
        // Not wanted.
        ensure!(lab.ask(Ask::Http, VIP6, 5)?.failed() == 0);
        let status = process.wait(SETTLE)?;
        ensure!(status.success(), "{status}: {}", process.log());
        ensure!(process.log().starts_with("40 packets, 0 lost"), "{}", process.log());

        let (seen, statistics) = read(&file)?;
        ensure!(statistics == Some((40, 0)), "{statistics:?}");
        let came: Vec<&Seen> = seen.iter().filter(|seen| seen.direction == Direction::In).collect();
        ensure!(came.len() == 40 && seen.len() == 80, "{} came of {}", came.len(), seen.len());
        let mut backends = [0, 0];
        for packet in came {
            let left = seen.iter().find(|seen| seen.direction == Direction::Out && seen.id == packet.id);
            let left = left.with_context(|| format!("{packet:?} did not leave"))?;
            ensure!(packet.comment == left.comment && packet.comment.contains(", service www, backend web/"));
            ensure!(packet.frame.len() == packet.length as usize && left.frame.len() == left.length as usize);
            ensure!(packet.frame[12..14] == [8, 0] && packet.frame[30..34] == [192, 0, 2, 10], "{packet:?}");
            ensure!(packet.frame[..6] != left.frame[..6], "not rewritten: {packet:?}");
            // Behind an outer header of 20 bytes or none; from the addresses on, because its TTL is one less.
            let outer = left.frame.len() - packet.frame.len();
            ensure!(left.frame[26 + outer..] == packet.frame[26..], "{packet:?} left as {left:?}");
            match outer {
                0 => backends[0] += 1,
                20 => backends[1] += 1,
                other => anyhow::bail!("{other} bytes were added"),
            }
        }
        ensure!(backends.iter().all(|&packets| packets > 0), "{backends:?}");

        // Whoever goes away ends his capture, and the next one may begin.
        let other = lab.directory().join("other.pcapng");
        let mut process = capture(&daemon, &other, &["-s", "34"])?;
        let refused = daemon.try_lb(&["capture", "-w", "/dev/null", "-c", "1"])?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(!refused.status.success() && said.contains("one at a time"), "{said}");
        ensure!(lab.ask(Ask::Http, VIP6, 5)?.failed() == 0);
        wait::until("the packets in the file", SETTLE, || {
            let (seen, _) = read(&other)?;
            ensure!(seen.iter().any(|seen| seen.comment.contains("service www6")), "{seen:?}");
            Ok(())
        })?;
        process.crash()?;
        let (seen, _) = read(&other)?;
        ensure!(seen.iter().all(|seen| seen.frame.len() <= 34), "longer than asked for");
        wait::until("the next capture", SETTLE, || {
            daemon.lb(&["capture", "dropped", "-w", "/dev/null", "--seconds", "1"]).map(drop)
        })?;
        // The plain programs are back, and forward.
        ensure!(lab.ask(Ask::Http, VIP4, 20)?.failed() == 0);
        Ok(())
    });
}

fn packets(daemon: &Daemon) -> Result<Vec<PacketView>> {
    let events: Vec<EventView> = serde_json::from_str(&daemon.lb(&["events", "-j"])?)?;
    let packet = |event: EventView| match event.what {
        Happening::Packet(packet) => Some(packet),
        Happening::State(_) | Happening::Log(_) => None,
    };
    Ok(events.into_iter().filter_map(packet).collect())
}

#[test]
fn events_tell_why_packets_were_dropped_and_who_changed_state() {
    root::required(|| {
        let lab = Lab::builder().l2_backends(2).tunnel_backends(0).build()?;
        let daemon = start(&lab)?;
        let log = lab.directory().join("events.log");
        let mut following = Process::spawn(&mut daemon.command(&["events", "-f", "-j"]), &log)?;
        for name in ["b1", "b2"] {
            daemon.lb(&["backend", "disable", "web", name])?;
            daemon.wait_state("www", name, State::Maint, SETTLE)?;
        }
        let answers = lab.ask(Ask::Http, VIP4, 1)?;
        ensure!(answers.answered() == 0, "{answers}");
        wait::until("the drop to be told", SETTLE, || {
            let packets = packets(&daemon)?;
            let dropped = packets.iter().find(|packet| packet.verdict == "drop");
            let dropped = dropped.with_context(|| format!("no drop among {packets:?}"))?;
            ensure!(dropped.reason.as_deref() == Some("no_backend"), "{dropped:?}");
            ensure!(
                dropped.service.as_deref() == Some("www") && dropped.vip == "192.0.2.10:80",
                "{dropped:?}"
            );
            Ok(())
        })?;
        wait::until("the follower to be told", SETTLE, || {
            let lines = following.log();
            let events: Vec<EventView> =
                lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let is_state = |event: &EventView| matches!(&event.what, Happening::State(view) if view.backend == "b2" && view.state == State::Maint);
            ensure!(events.iter().any(is_state), "no state in {lines}");
            let is_packet = |event: &EventView| matches!(event.what, Happening::Packet(_));
            ensure!(events.iter().any(is_packet), "no packet in {lines}");
            Ok(())
        })?;
        following.crash()?;
        let text = daemon.lb(&["events"])?;
        ensure!(text.contains("MAINT") && text.contains("reason no_backend"), "{text}");
        Ok(())
    });
}
