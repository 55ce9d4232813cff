//! How large packets may be: a client learns what fits a tunnel, and frames far larger than a page go their way whole.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, ensure};
use lb_common::abi::Note;
use lb_tests::lab::{
    Config, Daemon, Lab, addresses::VIPS, client, counters::Counters, root, topology::CLIENT_MTU, wait,
};
use lb_user::model::service::XdpMode;

const CHECK: &str = "type = \"tcp\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 3";

/// Time for the first probes and neighbours.
const SETTLE: Duration = Duration::from_secs(15);

const ONE_MIB: usize = 1 << 20;

/// What the way to the backends behind tunnels carries, outer header included.
const TUNNEL_MTU: u16 = 1400;

/// A VIP, the pool behind it, and what fits beside the pool's outer header.
const TUNNELS: [(IpAddr, &str, u16); 4] = [
    (VIPS[1], "four", TUNNEL_MTU - 20),
    (VIPS[4], "four", TUNNEL_MTU - 20),
    (VIPS[2], "six", TUNNEL_MTU - 40),
    (VIPS[5], "six", TUNNEL_MTU - 40),
];

/// The client's own link has 1,500 bytes, the tunnel fewer. Nothing on the way makes segments smaller: it completes
/// because the balancer says what fits.
#[test]
fn a_client_learns_what_fits_the_tunnel() {
    root::required(|| {
        let lab = Lab::builder().l2_backends(0).tunnel_backends(1).build()?;
        let backend = &lab.backends[0];
        // The router forwards no more than that, and the balancer's route says so. The backend knows nothing of it, and
        // its answers take another way.
        let mtu = TUNNEL_MTU.to_string();
        for (to, via) in [("10.9.0.0/24", "10.1.0.1"), ("fd00:9::/64", "fd00:1::1")] {
            lab.router
                .ip(&["route", "replace", to, "dev", "tunnel", "proto", "kernel", "mtu", "lock", &mtu])?;
            lab.balancer.ip(&["route", "add", to, "via", via, "mtu", &mtu])?;
        }
        let config =
            Config::new().pool("four", CHECK, &[backend.member()]).pool("six", CHECK, &[backend.member6()]);
        let config = TUNNELS.iter().zip(["4in4", "6in4", "4in6", "6in6"]).fold(
            config,
            |config, ((vip, pool, _), name)| {
                config.service(name, *vip, &["tcp/80", "tcp/7000", "udp/7000"], pool)
            },
        );
        let daemon = Daemon::start(&lab, &config)?;
        daemon.wait_up(SETTLE)?;
        for (vip, pool, room) in TUNNELS {
            let about = || format!("{vip} behind pool {pool}");
            let before = daemon.counted(Note::TooBigAnswered.name())?;
            let posted = client::echo_bytes(&lab.client, vip, ONE_MIB).with_context(about)?;
            ensure!(posted == backend.name, "{posted} echoed");
            let known = lab.client.ip(&["route", "get", &vip.to_string()])?;
            ensure!(
                known.contains(&format!("mtu {room}")),
                "{}: the client did not learn {room}: {known}",
                about()
            );
            // The daemon reads the counters each second.
            wait::until("an answer in the counters", SETTLE, || {
                let now = daemon.counted(Note::TooBigAnswered.name())?;
                ensure!(now > before, "{}: {before} answers before, {now} now", about());
                Ok(())
            })?;
            // Now that it knows, the client cuts datagrams to what fits. By IPv6 the backend's first long answer is lost:
            // it has more room than the client, and must be told.
            let echo = || client::echo_datagram(&lab.client, vip, 8192);
            echo().or_else(|_| echo()).with_context(about)?;
        }
        Ok(())
    });
}

/// Links of 9,000 bytes and native XDP: each frame lies in several buffers.
#[test]
fn jumbo_frames_go_both_ways() {
    const JUMBO: &str = "9000";
    root::required(|| {
        let lab = Lab::builder().l2_backends(2).tunnel_backends(0).build()?;
        for interface in ["client", "lb", "b1", "b2", "l2"] {
            lab.router.ip(&["link", "set", interface, "mtu", JUMBO])?;
        }
        let backends = lab.backends.iter().map(|backend| &backend.namespace);
        for namespace in [&lab.client, &lab.balancer].into_iter().chain(backends) {
            namespace.ip(&["link", "set", "eth0", "mtu", JUMBO])?;
        }
        let members = [lab.backends[0].member(), lab.backends[1].member()];
        let config = Config::new().pool("web", CHECK, &members);
        let ports = ["tcp/80", "tcp/7000", "udp/7000"];
        let config = config.service("four", VIPS[0], &ports, "web").service("six", VIPS[3], &ports, "web");
        let daemon = Daemon::start(&lab, &config)?;
        daemon.wait_up(SETTLE)?;
        for interface in daemon.status()?.interfaces {
            ensure!(interface.mode == XdpMode::Native, "not attached natively: {interface:?}");
        }
        for vip in [VIPS[0], VIPS[3]] {
            let before = Counters::read(&lab.balancer, "eth0")?;
            client::echo_bytes(&lab.client, vip, 10 * ONE_MIB)?;
            let moved = Counters::read(&lab.balancer, "eth0")? - before;
            // The client's data come by; acknowledgements of what is echoed are small and as many again.
            ensure!(
                moved.rx_bytes > 10 * ONE_MIB as u64
                    && moved.rx_bytes / moved.rx_packets > u64::from(CLIENT_MTU),
                "{vip}: no large frames came by: {moved:?}"
            );
            client::download(&lab.client, vip)?;
            for length in [4000, 8192, 8900] {
                client::echo_datagram(&lab.client, vip, length)?;
            }
        }
        Ok(())
    });
}
