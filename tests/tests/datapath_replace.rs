//! Programs are replaced by ones with other features, over the same tables and under traffic.

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use lb_common::abi::{ABI_VERSION, Features, PassReason, Reason, Stage, name};
use lb_tests::{
    datapath::{
        EGRESS, LIMITS, Rig, sh,
        target::{LONG, blank, hop, l2, name_vips, pool, service},
        with_rig, within, xdp,
    },
    packets::tcp,
};
use lb_user::{
    edge::kernel::{
        LoadOptions, pins,
        server::{Program, attach},
    },
    model::{
        plan::{Change, Target},
        service::XdpMode,
    },
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// How often the programs are replaced under traffic.
const REPLACEMENTS: usize = 20;

/// A service on TCP and UDP, with one backend out of [`EGRESS`].
fn target(features: Features) -> Target {
    let mut target = Target {
        pools: vec![pool("p", 31, vec![l2("10.9.0.1", hop(EGRESS, 1))])],
        services: vec![service("s", "192.0.2.1", &["tcp/80", "udp/80"], "p")],
        features,
        fragment_idle: LONG,
        ..blank()
    };
    name_vips(&mut target);
    target
}

/// Instructions that the verifier walked for the programs in use.
fn verified(rig: &mut Rig) -> anyhow::Result<u32> {
    let programs = [name::PROGRAM].into_iter().chain(Stage::ALL.map(|(_, program)| program));
    let count = |program| {
        let info = xdp(rig.kernel(), program)?.info()?;
        info.verified_instruction_count().context("kernel 5.16 or later counts")
    };
    programs.map(count).sum()
}

/// What the configuration does not use is not in the programs, and tables and counters do not notice.
#[test]
fn features_come_and_go_over_the_same_tables() {
    with_rig(|rig| {
        rig.install(&target(Features::ALL))?;
        let frame = tcp("198.51.100.1:40000", "192.0.2.1:80").frame();
        let before = rig.run(&frame)?;
        let with_all = verified(rig)?;
        rig.install(&target(Features::NONE))?;
        let tables = rig.read();
        ensure!(tables.features == Features::NONE, "{:?}", tables.features);
        let with_none = verified(rig)?;
        println!("verified instructions: {with_all} with every feature, {with_none} with none");
        ensure!(3 * with_none < 2 * with_all, "{with_none} of {with_all} instructions are left");
        ensure!(rig.run(&frame)? == before, "not the same frame");
        ensure!(rig.gained().forwarded.iter().map(|counter| counter.packets).sum::<u64>() == 2);
        rig.install(&target(Features::ALL))?;
        ensure!(verified(rig)? == with_all);
        ensure!(rig.run(&frame)? == before, "not the same frame");
        ensure!(rig.gained().forwarded.iter().map(|counter| counter.packets).sum::<u64>() == 1);
        Ok(())
    });
}

/// Log statements are there only if they are asked for, whichever generation it is.
#[test]
fn the_log_stays_as_it_was_asked_for() {
    within(|| {
        let mut verified_with = [0; 2];
        for (log_packets, total) in [false, true].into_iter().zip(&mut verified_with) {
            let mut rig = Rig::load(Features::ALL, log_packets)?;
            let before = verified(&mut rig)?;
            rig.apply(&Change::Features(Features::NONE))?;
            rig.apply(&Change::Features(Features::ALL))?;
            *total = verified(&mut rig)?;
            ensure!(*total == before, "{total} instructions verified, {before} before");
        }
        let [silent, logging] = verified_with;
        ensure!(silent + 1000 < logging, "{silent} without log statements, {logging} with them");
        Ok(())
    });
}

/// Packets that an interface has received.
fn received(device: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    let packets = line.and_then(|line| line.split_whitespace().nth(1)).context("no such device")?;
    Ok(packets.parse()?)
}

/// A bpffs that nobody else sees.
fn private_bpffs(directory: &Path) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let bpffs = directory.join("bpf");
    fs::create_dir(&bpffs)?;
    mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>)?;
    Ok(())
}

/// Small datagrams take the plain way, large ones come in fragments and go by further stages.
struct Sent {
    small: u64,
    large: u64,
}

fn send_until(stop: &AtomicBool) -> anyhow::Result<Sent> {
    /// Three fragments at an MTU of 1500.
    const LARGE: usize = 4000;
    let socket = UdpSocket::bind("198.51.100.1:0")?;
    socket.connect("192.0.2.1:80")?;
    let mut sent = Sent { small: 0, large: 0 };
    while !stop.load(Ordering::Relaxed) {
        socket.send(&[0; 100])?;
        sent.small += 1;
        socket.send(&[0; LARGE])?;
        sent.large += 1;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(sent)
}

/// A steady flow meets one generation of programs after the other, and each packet of it comes back from the balancer.
#[test]
fn no_packet_is_lost_while_programs_are_replaced() {
    within(|| {
        let directory = Path::new("/mnt");
        private_bpffs(directory)?;
        // Out of `third` to the balancer at its peer, which sends it back.
        sh("ip addr add 198.51.100.1/24 dev third
            ip route add 192.0.2.0/24 dev third
            ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev third")?;
        attach(Program::Pass, "third", XdpMode::Native)?;
        let pins: PathBuf = directory.join("bpf/lb");
        let features = Features::NONE;
        let options = LoadOptions { limits: LIMITS, features, log_packets: false, pins };
        let mut rig = Rig::load_with(&options)?;
        rig.install(&target(features))?;
        rig.kernel().attach(&["egress".to_owned()], XdpMode::Native)?;
        rig.kernel().pin_maps()?;
        // Router solicitations and the like are over.
        sh("sysctl -qw net.ipv6.conf.third.disable_ipv6=1 net.ipv6.conf.egress.disable_ipv6=1")?;
        thread::sleep(Duration::from_millis(100));
        rig.gained();
        let received_before = received("third")?;

        let stop = Arc::new(AtomicBool::new(false));
        let sender = thread::spawn({
            let stop = Arc::clone(&stop);
            move || send_until(&stop)
        });
        let start = Instant::now();
        let mut replaced = Ok(());
        for round in 0..REPLACEMENTS {
            let features = if round % 2 == 0 { Features::ALL } else { Features::NONE };
            replaced = replaced.and_then(|()| rig.apply(&Change::Features(features)));
            thread::sleep(Duration::from_millis(20));
        }
        let took = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().expect("the sender does not panic")?;
        replaced?;
        thread::sleep(Duration::from_millis(100));

        let Sent { small, large } = sent;
        println!("{REPLACEMENTS} replacements in {took:?}, {small} small datagrams and {large} in fragments");
        let gained = rig.gained();
        let reason = |reason: Reason| gained.reasons[reason.counter() as usize].packets;
        ensure!(reason(Reason::Pass(PassReason::NoRareProgram)) == 0, "a stage was missing");
        let sent = small + 3 * large;
        // Later fragments are counted where a service counts its reasons.
        let counted: u64 = gained.forwarded.iter().map(|counter| counter.packets).sum();
        ensure!(counted == sent, "{counted} of {sent} packets counted");
        let back = received("third")? - received_before;
        ensure!(back == sent, "{back} of {sent} packets came back");
        let pins: Vec<String> = fs::read_dir(pins::of_version(&options.pins, ABI_VERSION))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<_>>()?;
        ensure!(pins.iter().all(|pin| !pin.contains("next")), "left over: {pins:?}");

        // A link that cannot be had: the programs stay as they are, and say so.
        fs::remove_file(options.pins.join("link-egress"))?;
        let refused = rig.corrupt(&Change::Features(Features::ALL)).expect_err("there is no link to replace");
        let said = format!("{refused:#}");
        ensure!(said.contains("egress") && said.contains("goes on"), "{said}");
        ensure!(rig.read().features == Features::NONE, "{:?}", rig.read().features);
        let socket = UdpSocket::bind("198.51.100.1:0")?;
        socket.send_to(&[0; 100], "192.0.2.1:80")?;
        thread::sleep(Duration::from_millis(100));
        let after: u64 = rig.gained().forwarded.iter().map(|counter| counter.packets).sum();
        ensure!(after == 1, "{after} of 1 packet forwarded");
        rig.kernel().detach()?;
        Ok(())
    });
}
