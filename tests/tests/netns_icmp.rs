//! ICMP as real programs see it: ping gets its answer from the VIP, and what routers say about a backend's packets
//! reaches the backend that sent them.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_common::abi::Note;
use lb_tests::lab::{Backend, Config, Daemon, Lab, addresses::VIPS, root, wait};
use nix::sys::socket::{setsockopt, sockopt};

const CHECK: &str = "type = \"tcp\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";

/// Time for the first probes and neighbours.
const SETTLE: Duration = Duration::from_secs(15);

/// The VIP of each family.
const BOTH: [IpAddr; 2] = [VIPS[0], VIPS[3]];

/// Served by nobody but this test's own sockets.
const PORT: u16 = 9000;

fn config(lab: &Lab) -> Config {
    let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
    let ports = ["tcp/80", "tcp/7000", "udp/9000"];
    let config = Config::new().pool("web", CHECK, &members);
    config.service("four", BOTH[0], &ports, "web").service("six", BOTH[1], &ports, "web")
}

#[test]
fn ping_is_answered_by_the_balancer() {
    root::required(|| {
        let lab = Lab::builder().build()?;
        let daemon = Daemon::start(&lab, &config(&lab))?;
        daemon.wait_up(SETTLE)?;
        let mut sent = 0;
        for vip in BOTH {
            // No data, the usual, all that fits the link, and all that a page takes.
            let largest = if vip.is_ipv4() { 1472 } else { 1452 };
            for size in [0, 56, 1000, largest] {
                let (vip, size) = (vip.to_string(), size.to_string());
                let arguments = ["-n", "-c", "5", "-i", "0.05", "-W", "2", "-M", "do", "-s", &size, &vip];
                let said = lab.client.run("ping", &arguments)?;
                // It compares the data, and says so if it differs.
                ensure!(said.contains("5 received") && !said.contains("wrong data"), "{said}");
                sent += 5;
            }
        }
        wait::until("the answers in the counters", SETTLE, || {
            let answered = daemon.counted(Note::EchoAnswered.name())?;
            ensure!(answered >= sent, "{answered} of {sent} counted");
            Ok(())
        })?;
        // An address that is no service's has nobody to answer.
        for vip in [VIPS[1], VIPS[4]] {
            let mut ping = lab.client.command("ping");
            let output =
                ping.args(["-n", "-c", "2", "-i", "0.2", "-W", "1"]).arg(vip.to_string()).output()?;
            ensure!(!output.status.success(), "{vip}: {}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(())
    });
}

/// A backend's socket at the VIP, which is told of errors.
fn at_vip(backend: &Backend, vip: IpAddr) -> Result<UdpSocket> {
    backend
        .namespace
        .enter(|| {
            let socket = UdpSocket::bind((vip, PORT))?;
            match vip {
                IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
                IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
            }
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            io::Result::Ok(socket)
        })?
        .with_context(|| format!("a socket of {} at {vip}", backend.name))
}

/// The error that a socket is told within some time.
fn told(socket: &UdpSocket) -> Option<io::Error> {
    let quiet =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    (0..100).find_map(|_| socket.recv(&mut [0; 64]).err().filter(|error| !quiet(error)))
}

/// As traceroute does: an answer that dies on its way, and one that is too large for it. The router's word goes to the
/// VIP, so to the balancer, and from there to the one backend that sent the packet.
#[test]
fn what_routers_say_reaches_the_backend_that_sent_the_packet() {
    root::required(|| {
        let lab = Lab::builder().l2_backends(2).tunnel_backends(2).build()?;
        // A router would say so but once in a second to the same address.
        lab.router.sysctl(&[("ipv4/icmp_ratelimit", "0"), ("ipv6/icmp/ratelimit", "0")])?;
        let daemon = Daemon::start(&lab, &config(&lab))?;
        daemon.wait_up(SETTLE)?;
        for vip in BOTH {
            let sockets: Vec<UdpSocket> =
                lab.backends.iter().map(|backend| at_vip(backend, vip)).collect::<Result<_>>()?;
            let mut owners = vec![0; sockets.len()];
            for _ in 0..24 {
                let client = lab.client.enter(|| {
                    let any: IpAddr = if vip.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
                    let client = UdpSocket::bind((any, 0))?;
                    client.send_to(b"who has this?", (vip, PORT))?;
                    io::Result::Ok(client)
                })??;
                let (owner, peer) =
                    owner(&sockets).with_context(|| format!("nobody got it from {client:?}"))?;
                owners[owner] += 1;
                let socket = &sockets[owner];
                last_hop(socket, vip, 1)?;
                socket.send_to(b"dies at the router", peer)?;
                let error = told(socket).with_context(|| format!("b{} was not told", owner + 1))?;
                last_hop(socket, vip, 64)?;
                // EHOSTUNREACH, which is what ICMP's time exceeded means to a socket.
                ensure!(error.kind() == io::ErrorKind::HostUnreachable, "b{}: {error}", owner + 1);
                for other in (0..sockets.len()).filter(|other| *other != owner) {
                    let error = sockets[other].take_error()?;
                    ensure!(error.is_none(), "b{} was told of another's packet: {error:?}", other + 1);
                }
            }
            ensure!(owners.iter().all(|&count| count > 0), "{vip}: {owners:?} flows of each backend");
        }
        Ok(())
    });
}

/// Who received a datagram, and from whom.
fn owner(sockets: &[UdpSocket]) -> Option<(usize, SocketAddr)> {
    (0..50).find_map(|_| {
        let received = |socket: &UdpSocket| socket.recv_from(&mut [0; 64]).ok();
        sockets.iter().enumerate().find_map(|(at, socket)| Some((at, received(socket)?.1)))
    })
}

/// Sets how many hops packets have to live.
fn last_hop(socket: &UdpSocket, vip: IpAddr, hops: u32) -> Result<()> {
    match vip {
        IpAddr::V4(_) => socket.set_ttl(hops)?,
        IpAddr::V6(_) => socket2::SockRef::from(socket).set_unicast_hops_v6(hops)?,
    }
    Ok(())
}
