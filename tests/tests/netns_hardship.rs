//! What a balancer meets in a long life: interfaces that go down, vanish, or change, a disk that is full, a kernel that has
//! more to tell than a socket holds. Each has a behaviour, and words for it.

use std::{ffi::OsStr, io::Write as _, net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use lb_common::abi::{ABI_VERSION, SlotLine, name};
use lb_tests::lab::{
    Backend, Config, Daemon, Lab,
    addresses::VIPS,
    client::Ask,
    load::{load, under_load},
    process, root, wait,
};
use lb_user::{api::State, edge::kernel::mapped::MappedArray};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};

const CHECK: &str = "type = \"tcp\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";
/// Another MAC address for a backend.
const MOVED: &str = "02:00:00:00:be:ef";
const PORTS: [&str; 3] = ["tcp/80", "tcp/7000", "udp/7000"];

fn start() -> Result<(Lab, Daemon)> {
    let lab = Lab::builder().l2_backends(2).tunnel_backends(0).build()?;
    let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
    let config = Config::new()
        .pool("web", CHECK, &members)
        .service("www", VIPS[0], &PORTS, "web")
        .service("six", VIPS[3], &PORTS, "web");
    let daemon = Daemon::start(&lab, &config)?;
    daemon.wait_up(Duration::from_secs(10))?;
    Ok((lab, daemon))
}

fn serves(lab: &Lab) -> Result<()> {
    let tally = lab.ask(Ask::Http, VIPS[0], 100)?;
    ensure!(tally.failed() == 0, "{tally}");
    Ok(())
}

/// Waits for a warning of the daemon's that has these words.
fn warned(daemon: &Daemon, words: &str) -> Result<()> {
    wait::until(format!("the warning \"{words}\""), Duration::from_secs(5), || {
        let warnings = daemon.status()?.warnings;
        ensure!(warnings.iter().any(|warning| warning.contains(words)), "{warnings:?}");
        Ok(())
    })
}

#[test]
fn an_interface_that_vanishes_is_told_of_and_one_that_takes_its_name_is_attached_to() {
    root::required(|| {
        let (lab, mut daemon) = start()?;
        serves(&lab)?;
        let before = daemon.status()?.interfaces;
        for round in 1..=2 {
            lab.unplug()?;
            warned(&daemon, "eth0: the interface is gone")?;
            ensure!(daemon.status()?.interfaces.is_empty(), "it says it is attached");
            wait::until("the backends to be down", Duration::from_secs(5), || {
                daemon.wait_state("www", "b1", State::Down, Duration::from_millis(100)).map(drop)
            })?;
            let reason = daemon.backend("www", "b1")?.reason;
            println!("round {round}: b1 is down: {reason}");

            lab.plug()?;
            wait::until("an interface", Duration::from_secs(5), || {
                ensure!(daemon.status()?.interfaces.len() == 1, "none");
                anyhow::Ok(())
            })?;
            daemon.wait_up(Duration::from_secs(10))?;
            serves(&lab)?;
            let status = daemon.status()?;
            ensure!(status.warnings.is_empty(), "{:?}", status.warnings);
            ensure!(
                status.interfaces.len() == 1 && status.interfaces[0].index != before[0].index,
                "{status:?}"
            );
        }
        ensure!(daemon.log().contains("attached to eth0 again"), "{}", daemon.log());
        // What is pinned is of the new one: a daemon that is killed leaves it forwarding, and the next one adopts it.
        daemon.crash()?;
        serves(&lab)?;
        daemon.restart(&[])?;
        daemon.wait_up(Duration::from_secs(10))?;
        serves(&lab)?;
        daemon.stop()?;
        let shown = lab.balancer.ip(&["link", "show", "eth0"])?;
        ensure!(!shown.contains("xdp"), "the program is still attached: {shown}");
        Ok(())
    });
}

#[test]
fn an_interface_that_is_down_for_a_while_comes_back_by_itself() {
    root::required(|| {
        let (lab, daemon) = start()?;
        lab.down()?;
        let down = daemon.wait_state("www", "b1", State::Down, Duration::from_secs(5));
        down.context("b1 cannot be reached")?;
        let reason = daemon.backend("www", "b1")?.reason;
        println!("b1 is down: {reason}");
        ensure!(reason.contains("eth0") || reason.contains("route"), "{reason}");
        lab.up()?;
        daemon.wait_up(Duration::from_secs(10))?;
        serves(&lab)?;
        // Who has a connection waits for it; what was on its way is sent again.
        let outcome = load(&lab, "an interface that is down for a second", || {
            lab.down()?;
            daemon.wait_state("www", "b1", State::Down, Duration::from_secs(5))?;
            std::thread::sleep(Duration::from_millis(500));
            lab.up()?;
            daemon.wait_up(Duration::from_secs(10))?;
            std::thread::sleep(Duration::from_secs(6));
            Ok(())
        })?;
        ensure!(outcome.lost.is_empty(), "held connections broke: {}", outcome.lost.join("; "));
        // Datagrams that were under way are not sent again.
        ensure!(outcome.http.failed() == 0, "requests failed: {}", outcome.http);
        Ok(())
    });
}

#[test]
fn addresses_and_the_mtu_may_change_under_traffic() {
    root::required(|| {
        let (lab, daemon) = start()?;
        under_load(&lab, "another address, and another MTU, and back", || {
            let balancer = |words: &str| lab.balancer.ip(&words.split(' ').collect::<Vec<_>>());
            // Else the second address of a subnet goes with the first.
            lab.balancer.sysctl(&[("ipv4/conf/all/promote_secondaries", "1")])?;
            let own = balancer("-4 -o addr show dev eth0")?;
            let own = own.split_whitespace().skip_while(|&word| word != "inet").nth(1);
            let own = own.context("an address")?.to_owned();
            let (address, length) = own.split_once('/').context("a prefix")?;
            let address: Ipv4Addr = address.parse()?;
            let other = Ipv4Addr::from_bits(address.to_bits() + 100);
            balancer(&format!("addr add {other}/{length} dev eth0"))?;
            balancer(&format!("addr del {own} dev eth0"))?;
            std::thread::sleep(Duration::from_secs(1));
            balancer(&format!("addr add {own} dev eth0"))?;
            balancer(&format!("addr del {other}/{length} dev eth0"))?;
            let mtu = balancer("-o link show eth0")?;
            let mtu = mtu.split_whitespace().skip_while(|&word| word != "mtu").nth(1).context("an MTU")?;
            balancer("link set eth0 mtu 1400")?;
            std::thread::sleep(Duration::from_secs(1));
            balancer(&format!("link set eth0 mtu {mtu}")).map(drop)
        })?;
        daemon.wait_up(Duration::from_secs(5))?;
        serves(&lab)
    });
}

/// A file system of its own for the daemon's files, so small that it can be filled. Dropping it unmounts it.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Result<Self> {
        std::fs::create_dir(&path)?;
        mount(Some("disk"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))?;
        Ok(Self(path))
    }

    fn read_only(&self, is_read_only: bool) -> Result<()> {
        let flags = if is_read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        let remount = MsFlags::MS_REMOUNT | flags;
        Ok(mount(None::<&str>, &self.0, None::<&str>, remount, None::<&str>)?)
    }

    /// Writes until nothing more fits.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path)?;
        let full = std::iter::repeat_with(|| file.write_all(&[0; 4096])).take(100).find_map(Result::err);
        let full = full.context("the disk takes everything")?;
        ensure!(full.kind() == std::io::ErrorKind::StorageFull, "{full}");
        Ok(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
}

#[test]
fn a_disk_that_is_full_or_read_only_keeps_edits_out_and_nothing_else() {
    root::required(|| {
        let lab = Lab::builder().l2_backends(2).tunnel_backends(0).build()?;
        let disk = Disk::mount(lab.directory().join("disk"))?;
        let file = disk.0.join("lb.toml");
        std::fs::write(&file, "")?;
        std::fs::create_dir(disk.0.join("state"))?;
        for name in ["lb.toml", "state"] {
            std::os::unix::fs::symlink(disk.0.join(name), lab.directory().join(name))?;
        }
        let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
        let config = Config::new().pool("web", CHECK, &members).service("www", VIPS[0], &PORTS, "web");
        let daemon = Daemon::start(&lab, &config)?;
        daemon.wait_up(Duration::from_secs(10))?;
        let drain = || daemon.try_lb(&["backend", "drain", "web", "b1"]);
        let refused = |words: &str| -> Result<()> {
            let before = std::fs::read_to_string(&file)?;
            let output = drain()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            println!("{said}");
            ensure!(!output.status.success() && said.contains(words), "{:?}: {said}", output.status);
            ensure!(std::fs::read_to_string(&file)? == before, "the file changed");
            ensure!(std::fs::read_dir(&disk.0)?.count() <= 3, "something was left on the disk");
            ensure!(daemon.backend("www", "b1")?.state == State::Up, "it is drained all the same");
            serves(&lab)
        };

        let filler = disk.fill()?;
        refused("No space left on device")?;
        std::fs::remove_file(&filler)?;
        disk.read_only(true)?;
        refused("Read-only file system")?;
        disk.read_only(false)?;
        ensure!(drain()?.status.success(), "an edit once there is room");
        daemon.wait_state("www", "b1", State::Drain, Duration::from_secs(2))?;
        ensure!(std::fs::read_to_string(&file)?.contains("drain"), "the file has it");
        Ok(())
    });
}

#[test]
fn pins_need_a_bpffs_and_it_is_mounted_if_there_is_none() {
    root::required(|| {
        let lab = Lab::builder().l2_backends(1).tunnel_backends(0).build()?;
        let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
        let config = Config::new().pool("web", CHECK, &members).service("www", VIPS[0], &PORTS, "web");
        // Alone with its mounts, the daemon finds nothing at /sys/fs/bpf.
        let without = "umount -a -t bpf && exec \"$@\"";
        let wrapper = ["unshare", "--mount", "--propagation", "private", "sh", "-c", without, "sh"];
        let daemon = Daemon::start_under(&lab, &config, &[], &wrapper, &[])?;
        daemon.wait_up(Duration::from_secs(10))?;
        serves(&lab)?;
        let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", daemon.id()))?;
        ensure!(mounts.contains(" /sys/fs/bpf bpf "), "{mounts}");
        drop(daemon);

        let elsewhere = lab.directory().join("pins");
        std::fs::create_dir(&elsewhere)?;
        let output = lab
            .balancer
            .command(process::binary("lb")?)
            .arg("run")
            .args([OsStr::new("--config"), lab.directory().join("lb.toml").as_os_str()])
            .args([OsStr::new("--socket"), lab.directory().join("lb.sock").as_os_str()])
            .args([OsStr::new("--pins"), elsewhere.as_os_str()])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        println!("{said}");
        ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
        ensure!(said.contains("pins is on no bpffs: choose a directory below /sys/fs/bpf"), "{said}");
        Ok(())
    });
}

/// Notices that a netlink socket has no room for are lost: what they would have told must be found out otherwise.
#[test]
fn more_news_than_the_kernel_can_keep_leave_nothing_unseen() {
    root::required(|| {
        let (lab, daemon) = start()?;
        let backend = &lab.backends[0];
        daemon.signal(Signal::SIGSTOP)?;
        // Of neighbours that nobody asked for, more than a receive buffer holds.
        let mut news: Vec<String> = (0..40_000)
            .map(|n| {
                format!(
                    "neigh replace 10.1.0.{} lladdr 02:00:00:00:{:02x}:{:02x} dev eth0",
                    150 + n % 50,
                    n >> 8,
                    n & 255
                )
            })
            .collect();
        backend.namespace.ip(&["link", "set", "eth0", "address", MOVED])?;
        news.push(format!("neigh replace {} lladdr {MOVED} dev eth0", backend.address4));
        let file = lab.directory().join("news");
        std::fs::write(&file, news.join("\n"))?;
        lab.balancer.ip(&["-batch", file.to_str().context("a path that is text")?])?;
        daemon.signal(Signal::SIGCONT)?;
        wait::until("the MAC address that was told of last", Duration::from_secs(5), || {
            let mac = daemon.backend("www", "b1")?.mac;
            ensure!(mac.as_deref() == Some(MOVED), "{mac:?}");
            anyhow::Ok(())
        })?;
        let log = daemon.log();
        ensure!(
            log.contains("netlink notifications were lost"),
            "nothing was lost, which makes this no test:\n{log}"
        );
        serves(&lab)
    });
}

/// What a plan wrote is read back, and so is everything now and then: whoever else writes there is found out.
#[test]
fn tables_in_which_somebody_else_wrote_are_mended() {
    root::required(|| {
        let (lab, mut daemon) = start()?;
        daemon.tampered = true;
        serves(&lab)?;
        let path = daemon.pins.join(format!("v{ABI_VERSION}")).join(name::SLOTS);
        let map = MapData::from_pin(&path)?;
        let lines = map.info()?.value_size() / u32::try_from(size_of::<SlotLine>())?;
        let slots = MappedArray::<SlotLine>::map(map.fd(), lines)?;
        (0..slots.len()).for_each(|line| slots.store(line, &SlotLine::default()));
        wait::until("the slots to be found empty", Duration::from_secs(5), || {
            let log = daemon.log();
            ensure!(log.contains("the tables (slots) are not what lb wrote"), "{log}");
            anyhow::Ok(())
        })?;
        wait::until("no warning", Duration::from_secs(5), || {
            let warnings = daemon.status()?.warnings;
            ensure!(warnings.is_empty(), "{warnings:?}");
            anyhow::Ok(())
        })?;
        serves(&lab)?;
        Ok(())
    });
}
