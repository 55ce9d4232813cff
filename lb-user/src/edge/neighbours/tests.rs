//! Against the kernel, in network namespaces of their own.

use std::{collections::HashMap, time::Duration};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::edge::namespace::{Peer, sh, within};

type State = Result<NextHop, Unreachable>;

/// The edge and what it told so far.
struct Watch {
    edge: Neighbours,
    events: UnboundedReceiver<NeighbourEvent>,
    targets: HashMap<IpAddr, State>,
    links: HashMap<String, Link>,
}

impl Watch {
    fn start<const N: usize>(targets: [&str; N]) -> Self {
        let (sender, events) = unbounded_channel();
        let edge = Neighbours::start(sender).unwrap();
        edge.want(targets.map(ip).into());
        Self { edge, events, targets: HashMap::new(), links: HashMap::new() }
    }

    async fn next(&mut self) {
        match self.events.recv().await.expect("the edge ended") {
            NeighbourEvent::Target { target, state } => {
                let before = self.targets.insert(target, state.clone());
                assert_ne!(before, Some(state), "{target} told twice");
            }
            NeighbourEvent::Link(link) => {
                self.links.insert(link.name.clone(), link);
            }
            NeighbourEvent::LinkGone { name, .. } => {
                self.links.remove(&name);
            }
        }
    }

    /// Waits until `done` holds, 8 seconds at most.
    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(8);
        while !done(self) {
            let next = tokio::time::timeout_at(deadline, self.next()).await;
            assert!(next.is_ok(), "waiting for {what}: {:?} {:?}", self.targets, self.links);
        }
    }

    async fn until_target(&mut self, target: &str, done: impl Fn(&State) -> bool) {
        self.until(target, |watch| watch.targets.get(&ip(target)).is_some_and(&done)).await;
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn has_mac(mac: [u8; 6]) -> impl Fn(&State) -> bool {
    move |state| state.as_ref().is_ok_and(|hop| hop.destination == mac)
}

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// `lb0` with MAC [`OWN`], 10.0.0.1 and fd00::1; and beyond it [`PEER`], 10.0.0.2, 10.0.0.3 and fd00::2.
fn peer() -> Peer {
    let peer = Peer::new();
    peer.join("lb0", &["10.0.0.1/24", "fd00::1/64"], &["10.0.0.2/24", "10.0.0.3/24", "fd00::2/64"]);
    sh("ip link set lb0 address 02:00:00:00:00:01");
    peer.sh("ip link set eth0 address 02:00:00:00:00:02");
    peer
}

#[test]
fn resolves_and_says_why_not() {
    within(|| async {
        let _peer = peer();
        sh("ip route add blackhole 198.51.100.0/24
            ip route add unreachable 2001:db8:1::/48
            ip route add 192.0.2.0/24 via inet6 fd00::2");
        let (near, near6) = ("10.0.0.2", "fd00::2");
        let (own, lost, lost6) = ("10.0.0.1", "203.0.113.1", "2001:db8:2::1");
        let (silent, silent6, black, black6) = ("10.0.0.99", "fd00::99", "198.51.100.1", "2001:db8:1::1");
        let behind6 = "192.0.2.1";
        let mut watch = Watch::start([
            near,
            near6,
            own,
            lost,
            lost6,
            silent,
            silent6,
            black,
            black6,
            behind6,
            "10.0.0.255",
        ]);

        for target in [near, near6] {
            watch.until_target(target, has_mac(PEER)).await;
            let hop = watch.targets[&ip(target)].clone().unwrap();
            assert!(hop.is_on_link(ip(target)));
            assert_eq!((hop.source, hop.mtu, hop.interface_name.as_str()), (OWN, 1500, "lb0"));
            assert_eq!(hop.local, Some(ip(if target == near { own } else { "fd00::1" })));
        }
        watch.until_target(behind6, has_mac(PEER)).await;
        assert_eq!(watch.targets[&ip(behind6)].clone().unwrap().via, ip(near6));
        for (target, kind) in [(black, "blackhole"), (black6, "unreachable"), ("10.0.0.255", "broadcast")] {
            watch.until_target(target, |_| true).await;
            assert_eq!(watch.targets[&ip(target)], Err(Unreachable::BadRoute { target: ip(target), kind }));
        }
        for target in [lost, lost6] {
            watch.until_target(target, |_| true).await;
            assert_eq!(watch.targets[&ip(target)], Err(Unreachable::NoRoute { target: ip(target) }));
        }
        assert_eq!(watch.targets[&ip(own)], Err(Unreachable::Local { target: ip(own) }));
        for target in [silent, silent6] {
            assert!(matches!(watch.targets[&ip(target)], Err(Unreachable::Resolving { .. })));
            watch.until_target(target, |state| matches!(state, Err(Unreachable::NoMac { .. }))).await;
        }

        let link = &watch.links["lb0"];
        assert_eq!((link.up, link.mtu, link.mac), (true, 1500, Some(OWN)));
        assert_eq!(watch.links["lo"].mac, None);
    });
}

#[test]
fn follows_macs_routes_and_mtus() {
    within(|| async {
        let peer = peer();
        sh("ip route add 192.0.2.0/24 via 10.0.0.2");
        let (near, far) = ("10.0.0.2", "192.0.2.1");
        let mut watch = Watch::start([near, far]);
        watch.until_target(near, has_mac(PEER)).await;
        watch.until_target(far, has_mac(PEER)).await;

        // The datagram makes the peer ask for our MAC with its new one.
        peer.sh("ip link set eth0 address 02:00:00:00:00:42
                 bash -c 'echo > /dev/udp/10.0.0.1/9'");
        watch.until_target(near, has_mac([2, 0, 0, 0, 0, 0x42])).await;
        watch.until_target(far, has_mac([2, 0, 0, 0, 0, 0x42])).await;

        sh("ip route replace 192.0.2.0/24 via 10.0.0.3 mtu 1400");
        watch
            .until_target(far, |state| {
                state.as_ref().is_ok_and(|hop| (hop.via, hop.mtu) == (ip("10.0.0.3"), 1400))
            })
            .await;

        sh("ip link set lb0 mtu 1300");
        watch.until_target(near, |state| state.as_ref().is_ok_and(|hop| hop.mtu == 1300)).await;
        watch.until("the link's mtu", |watch| watch.links["lb0"].mtu == 1300).await;

        sh("ip neigh replace 10.0.0.2 lladdr 02:00:00:00:00:77 nud permanent dev lb0");
        watch.until_target(near, has_mac([2, 0, 0, 0, 0, 0x77])).await;

        // Neither is told about any more.
        watch.edge.want(BTreeSet::new());
        tokio::time::sleep(Duration::from_millis(100)).await;
        sh("ip neigh replace 10.0.0.2 lladdr 02:00:00:00:00:78 nud permanent dev lb0");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(watch.events.try_recv().is_err());
    });
}

#[test]
fn follows_links_and_a_neighbour_that_dies() {
    within(|| async {
        let peer = peer();
        let (near, near6) = ("10.0.0.2", "fd00::2");
        let down = |state: &State| matches!(state, Err(Unreachable::LinkDown { .. }));
        let mut watch = Watch::start([near, near6]);
        watch.until_target(near, has_mac(PEER)).await;
        watch.until_target(near6, has_mac(PEER)).await;

        // Without carrier.
        peer.sh("ip link set eth0 down");
        watch.until_target(near, down).await;
        watch.until_target(near6, down).await;
        assert!(!watch.links["lb0"].up);
        peer.sh("ip link set eth0 up");
        watch.until_target(near, has_mac(PEER)).await;

        // Switched off: the kernel takes the routes away.
        sh("ip link set lb0 down");
        watch.until_target(near, down).await;
        sh("ip link set lb0 up");
        watch.until_target(near, has_mac(PEER)).await;
        assert!(watch.links["lb0"].up);

        // A flushed table disturbs nothing; a neighbour that no longer answers is found out.
        sh("ip neigh flush dev lb0");
        tokio::time::sleep(Duration::from_millis(100)).await;
        peer.sh("ip addr del 10.0.0.2/24 dev eth0
                 ip addr add 10.0.0.3/24 dev eth0");
        assert!(watch.targets[&ip(near)].is_ok());
        sh("ip neigh flush dev lb0");
        watch.until_target(near, |state| matches!(state, Err(Unreachable::NoMac { .. }))).await;
        peer.sh("ip addr add 10.0.0.2/24 dev eth0");
        watch.until_target(near, has_mac(PEER)).await;

        sh("ip link del lb0");
        watch.until_target(near, |state| matches!(state, Err(Unreachable::NoRoute { .. }))).await;
        assert!(!watch.links.contains_key("lb0"));
    });
}

#[test]
fn verifies_a_neighbour_nobody_talks_to() {
    within(|| async {
        let peer = peer();
        // Everything takes a tenth of its time, but for the edge.
        sh("cd /proc/sys/net/ipv4/neigh/lb0
            echo 2000 > base_reachable_time_ms
            echo 1 > delay_first_probe_time
            echo 100 > retrans_time_ms");
        let near = "10.0.0.2";
        let mut watch = Watch::start([near]);
        watch.until_target(near, has_mac(PEER)).await;
        peer.sh("ip addr del 10.0.0.2/24 dev eth0");
        watch.until_target(near, |state| matches!(state, Err(Unreachable::NoMac { .. }))).await;
    });
}

#[test]
fn lost_notifications_are_made_good() {
    within(|| async {
        let _peer = peer();
        let near = "10.0.0.2";
        let mut watch = Watch::start([near]);
        watch.until_target(near, has_mac(PEER)).await;
        // More than the socket holds, while this thread does not read: the last are lost.
        sh("for n in $(seq 1 40000); do
                printf 'neigh replace 10.0.0.2 lladdr 02:00:00:00:%02x:%02x nud permanent dev lb0\\n' \\
                    $((n / 256)) $((n % 256))
            done | ip -batch -");
        let [high, low] = 40_000_u16.to_be_bytes();
        watch.until_target(near, has_mac([2, 0, 0, 0, high, low])).await;
    });
}

#[test]
fn resolves_a_rack_at_once() {
    within(|| async {
        let peer = peer();
        // The peer answers for all of these. Neighbour tables share one limit, so not too many.
        peer.sh("ip route add local 10.0.0.128/25 dev lo");
        let rack: BTreeSet<_> = (128..255).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let mut watch = Watch::start([]);
        watch.edge.want(rack.clone());
        watch
            .until("the rack", |watch| {
                watch.targets.len() == rack.len() && watch.targets.values().all(has_mac(PEER))
            })
            .await;
        // Another edge finds them resolved and is never in doubt.
        let mut second = Watch::start([]);
        second.edge.want(rack.clone());
        while second.targets.len() < rack.len() {
            second.next().await;
            assert!(second.targets.values().all(has_mac(PEER)), "{:?}", second.targets);
        }
    });
}

#[test]
fn ten_thousand_targets_share_a_gateway() {
    within(|| async {
        let _peer = peer();
        let started = Instant::now();
        let mut watch = Watch::start([]);
        watch.edge.want((0..10_000_u32).map(|n| IpAddr::V4((0xac10_0000 + n).into())).collect());
        for gateway in ["10.0.0.2", "10.0.0.3"] {
            sh(&format!("ip route replace 172.16.0.0/12 via {gateway}"));
            let mut there = 0;
            while there < 10_000 {
                if let NeighbourEvent::Target { state: Ok(hop), .. } = watch.events.recv().await.unwrap() {
                    there += usize::from(hop.via == ip(gateway));
                }
            }
        }
        // Ample for 20,000 look-ups in a debug build on a busy machine; far too short for quadratic work.
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    });
}
