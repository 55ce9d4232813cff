//! What is understood, by example.

use super::*;

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 3];

fn eth0() -> Link {
    Link { index: 7, name: "eth0".into(), up: true, mtu: 1500, mac: Some(OWN) }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn out(address: &str, mtu: Option<u32>) -> Route {
    Route::Out { neighbour: Neighbour { interface: 7, address: ip(address) }, mtu, local: None }
}

#[test]
fn only_failure_takes_a_mac_away() {
    use NeighbourState as S;
    let heard = |state, mac| Some(Heard { state, mac });
    let known = Resolution::Mac(PEER);
    for (before, heard, after) in [
        (Resolution::Unknown, None, Resolution::Unknown),
        (Resolution::Unknown, heard(S::Incomplete, None), Resolution::Unknown),
        (Resolution::Unknown, heard(S::None, None), Resolution::Unknown),
        (Resolution::Unknown, heard(S::Failed, None), Resolution::Failed),
        (Resolution::Unknown, heard(S::Reachable, Some(PEER)), known),
        (Resolution::Unknown, heard(S::Permanent, Some(PEER)), known),
        (Resolution::Unknown, heard(S::Noarp, Some(PEER)), known),
        (Resolution::Unknown, heard(S::Noarp, None), Resolution::Failed),
        (known, None, known),
        (known, heard(S::Incomplete, None), known),
        (known, heard(S::Stale, Some(PEER)), known),
        (known, heard(S::Delay, Some(PEER)), known),
        (known, heard(S::Probe, Some(PEER)), known),
        (known, heard(S::Reachable, Some(OTHER)), Resolution::Mac(OTHER)),
        (known, heard(S::Failed, Some(PEER)), Resolution::Failed),
        (Resolution::Failed, heard(S::Incomplete, None), Resolution::Failed),
        (Resolution::Failed, None, Resolution::Failed),
        (Resolution::Failed, heard(S::Reachable, Some(PEER)), known),
    ] {
        assert_eq!(before.after(heard), after, "{before:?} and then {heard:?}");
    }
}

#[test]
fn a_next_hop_or_the_reason() {
    let target = ip("192.0.2.9");
    let via = ip("198.51.100.1");
    let interface = || "eth0".to_owned();
    let down = Link { up: false, ..eth0() };
    let tun = Link { mac: None, ..eth0() };
    let known = Resolution::Mac(PEER);
    let hop = |mtu| NextHop {
        via,
        interface: 7,
        interface_name: "eth0".into(),
        source: OWN,
        destination: PEER,
        mtu,
        local: None,
    };
    let gateway = |mtu| out("198.51.100.1", mtu);
    for (route, link, resolution, expected) in [
        (gateway(None), Some(eth0()), known, Ok(hop(1500))),
        (gateway(Some(1400)), Some(eth0()), known, Ok(hop(1400))),
        (gateway(Some(9000)), Some(eth0()), known, Ok(hop(1500))),
        (
            gateway(None),
            Some(eth0()),
            Resolution::Unknown,
            Err(Unreachable::Resolving { via, interface: interface() }),
        ),
        (
            gateway(None),
            Some(eth0()),
            Resolution::Failed,
            Err(Unreachable::NoMac { via, interface: interface() }),
        ),
        (
            gateway(None),
            Some(eth0()),
            Resolution::Mac(OWN),
            Err(Unreachable::NoMac { via, interface: interface() }),
        ),
        (gateway(None), Some(down.clone()), known, Err(Unreachable::LinkDown { interface: interface() })),
        (gateway(None), Some(tun), known, Err(Unreachable::NotEthernet { interface: interface() })),
        (gateway(None), None, known, Err(Unreachable::NoRoute { target })),
        (Route::None, None, known, Err(Unreachable::NoRoute { target })),
        (Route::None, Some(eth0()), known, Err(Unreachable::NoRoute { target })),
        (Route::None, Some(down), known, Err(Unreachable::LinkDown { interface: interface() })),
        (Route::Local, Some(eth0()), known, Err(Unreachable::Local { target })),
        (
            Route::Bad("blackhole"),
            Some(eth0()),
            known,
            Err(Unreachable::BadRoute { target, kind: "blackhole" }),
        ),
    ] {
        assert_eq!(next_hop(target, route, link.as_ref(), resolution), expected, "{route:?} {link:?}");
    }
}

#[test]
fn errors_of_a_look_up_are_routes_too() {
    for (errno, route) in [
        (libc::ENETUNREACH, Some(Route::None)),
        (libc::EINVAL, Some(Route::Bad("blackhole"))),
        (libc::EHOSTUNREACH, Some(Route::Bad("unreachable"))),
        (libc::EACCES, Some(Route::Bad("prohibit"))),
        (libc::ENOBUFS, None),
    ] {
        assert_eq!(Route::read_error(&io::Error::from_raw_os_error(errno)), route);
    }
}

#[test]
fn a_prefix_spans_its_addresses() {
    for (address, length, first, last) in [
        ("10.1.2.0", 24, "10.1.2.0", "10.1.2.255"),
        ("10.1.2.3", 32, "10.1.2.3", "10.1.2.3"),
        ("0.0.0.0", 0, "0.0.0.0", "255.255.255.255"),
        ("2001:db8::", 64, "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"),
        ("2001:db8::1", 128, "2001:db8::1", "2001:db8::1"),
    ] {
        let mut message = RouteMessage::default();
        message.header.destination_prefix_length = length;
        message.attributes.push(RouteAttribute::Destination(ip(address).into()));
        assert_eq!(prefix(&message), Some((ip(first), ip(last))), "{address}/{length}");
    }
}
