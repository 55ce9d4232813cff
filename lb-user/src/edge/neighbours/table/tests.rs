//! The bookkeeping, by example.

use super::*;

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn eth0(up: bool) -> Link {
    Link { index: 7, name: "eth0".into(), up, mtu: 1500, mac: Some(OWN) }
}

fn on_link(address: IpAddr) -> Route {
    Route::Out { neighbour: Neighbour { interface: 7, address }, mtu: None, local: None }
}

fn heard(state: NeighbourState, mac: Option<[u8; 6]>) -> Option<Heard> {
    Some(Heard { state, mac })
}

/// A table with one on-link target whose route is known.
fn with_target(target: IpAddr) -> (Table, Neighbour) {
    let mut table = Table::default();
    table.link(&eth0(true));
    table.want(&BTreeSet::from([target]));
    assert_eq!(table.take_unrouted(10), [target]);
    table.routed(target, on_link(target));
    let neighbour = Neighbour { interface: 7, address: target };
    assert_eq!(table.take_unread(), BTreeSet::from([neighbour]));
    (table, neighbour)
}

#[test]
fn an_absent_neighbour_is_used_at_once_and_a_change_is_told_once() {
    let now = Instant::now();
    let target = ip("10.0.0.2");
    let (mut table, neighbour) = with_target(target);
    table.heard(now, neighbour, None);
    assert_eq!(table.due(now, 10), [neighbour]);
    assert!(table.due(now, 10).is_empty(), "scheduled anew");
    assert!(matches!(table.take_news()[..], [(_, Err(Unreachable::Resolving { .. }))]));

    table.heard(now, neighbour, heard(NeighbourState::Reachable, Some(PEER)));
    assert!(matches!(&table.take_news()[..], [(_, Ok(hop))] if hop.destination == PEER));
    table.heard(now, neighbour, heard(NeighbourState::Stale, Some(PEER)));
    assert!(table.take_news().is_empty());
    assert!(table.next_due().unwrap() <= now + STALE);
}

#[test]
fn failures_are_retried_ever_slower_up_to_a_limit() {
    let now = Instant::now();
    let (mut table, neighbour) = with_target(ip("10.0.0.2"));
    for seconds in [1, 2, 3, 4, 5, 5, 5] {
        table.heard(now, neighbour, heard(NeighbourState::Failed, None));
        assert_eq!(table.next_due(), Some(now + Duration::from_secs(seconds)));
    }
}

#[test]
fn a_permanent_entry_is_never_used() {
    let now = Instant::now();
    let (mut table, neighbour) = with_target(ip("10.0.0.2"));
    for state in [NeighbourState::Permanent, NeighbourState::Noarp] {
        table.heard(now, neighbour, heard(state, Some(PEER)));
        assert_eq!(table.next_due(), None);
    }
}

#[test]
fn a_link_that_goes_down_silences_its_neighbours_until_it_is_back() {
    let now = Instant::now();
    let target = ip("10.0.0.2");
    let (mut table, neighbour) = with_target(target);
    table.heard(now, neighbour, heard(NeighbourState::Reachable, Some(PEER)));
    table.take_news();
    assert!(table.link(&eth0(false)));
    assert!(!table.link(&eth0(false)), "no news twice");
    assert!(matches!(table.take_news()[..], [(_, Err(Unreachable::LinkDown { .. }))]));
    table.heard(now, neighbour, None);
    assert_eq!(table.next_due(), None);
    assert_eq!(table.take_unrouted(10), [target], "the kernel may have another way now");

    assert!(table.link(&eth0(true)));
    assert_eq!(table.take_unread(), BTreeSet::from([neighbour]));
    table.heard(now, neighbour, heard(NeighbourState::Reachable, Some(PEER)));
    assert!(matches!(table.take_news()[..], [(_, Ok(_))]));
}

#[test]
fn a_route_change_touches_only_its_prefix() {
    let mut table = Table::default();
    let all = ["10.0.0.2", "10.0.1.2", "10.0.1.3", "2001:db8::2"].map(ip);
    table.want(&BTreeSet::from(all));
    table.take_unrouted(10);
    table.routes_changed(Some((ip("10.0.1.0"), ip("10.0.1.255"))));
    assert_eq!(table.take_unrouted(10), ["10.0.1.2", "10.0.1.3"].map(ip));
    table.routes_changed(Some((ip("::"), ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))));
    assert_eq!(table.take_unrouted(10), [ip("2001:db8::2")]);
    table.routes_changed(None);
    assert_eq!(table.take_unrouted(10), all);
}

#[test]
fn a_shared_gateway_lives_as_long_as_a_target_needs_it() {
    let now = Instant::now();
    let gateway = Neighbour { interface: 7, address: ip("10.0.0.1") };
    let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
    let mut table = Table::default();
    table.link(&eth0(true));
    table.want(&BTreeSet::from([a, b]));
    for target in [a, b] {
        table.routed(target, Route::Out { neighbour: gateway, mtu: None, local: None });
    }
    table.heard(now, gateway, heard(NeighbourState::Reachable, Some(PEER)));
    assert_eq!(table.take_news().len(), 2);
    table.want(&BTreeSet::from([b]));
    assert!(table.next_due().is_some());
    table.want(&BTreeSet::new());
    assert_eq!(table.next_due(), None);
    assert!(table.entries.is_empty() && table.take_unread().is_empty());
}
