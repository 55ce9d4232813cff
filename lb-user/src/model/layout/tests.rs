//! What runs of a table owe their users: no place twice, and none before it is released.

use super::*;

#[test]
fn runs_are_reused_only_after_release() {
    let mut runs = Runs::new("slots", 100);
    let first = runs.take(60).unwrap();
    assert_eq!(runs.take(40), Ok(60));
    assert!(runs.take(1).is_err());
    runs.retire(first);
    assert!(runs.take(1).is_err(), "a retired run may still be read");
    runs.release();
    assert_eq!(runs.take(10), Ok(0));
    assert_eq!(runs.take(50), Ok(10));
    let full = runs.take(7).unwrap_err();
    assert_eq!((full.needed, full.capacity), (7, 100));
    assert_eq!(runs.peak, 100);
}

#[test]
fn runs_that_may_grow_stand_apart() {
    let mut runs = Runs::new("backends", 1000);
    assert_eq!([10, 10, 10].map(|length| runs.take_apart(length).unwrap()), [0, 500, 250]);
    assert!(runs.extend(0, 250) && !runs.extend(0, 251));
    assert!(runs.extend(250, 100) && runs.extend(500, 500), "up to the end of the table");
    assert!(!runs.extend(500, 501) && !runs.extend(7, 1));
    assert_eq!(runs.take_apart(150), Ok(350), "what is left");
    let full = runs.take_apart(1).unwrap_err();
    assert_eq!((full.needed, full.capacity), (1, 1000));
    runs.retire(250);
    runs.release();
    assert!(runs.extend(0, 350) && runs.take(1).is_err());
}

#[test]
fn tunnel_sources_spread_by_their_host_bits() {
    let outer = Outer::default();
    let v4 = Identity::new("10.0.0.1".parse().unwrap(), Via::Ipip, &outer);
    assert_eq!((v4.encap, v4.spread_bits), (Encap::Ip4, 16));
    let v6 = Identity::new("2001:db8::1".parse().unwrap(), Via::Ipip, &outer);
    assert_eq!((v6.encap, v6.spread_bits), (Encap::Ip6, 32));
    let l2 = Identity::new("10.0.0.1".parse().unwrap(), Via::L2, &outer);
    assert_eq!((l2.encap, l2.spread_bits, l2.outer_source), (Encap::L2, 0, Addr::NONE));
}

/// A flow is remembered with the epoch of its backend's number: it must not be taken for the next one's who has it.
#[test]
fn who_gets_a_number_after_another_has_another_epoch() {
    let identity = |k: u8| Identity::new([10, 0, 0, k].into(), Via::L2, &Outer::default());
    let pool = |members: std::ops::Range<u8>| PoolTarget {
        name: Name::new("web").unwrap(),
        slots: 11,
        is_tracked: true,
        members: members
            .map(|k| crate::model::plan::MemberTarget {
                address: [10, 0, 0, k].into(),
                via: Via::L2,
                hop: None,
                weight: 1,
                keeps: true,
                server_id: None,
            })
            .collect(),
    };
    let mut layout = Layout::new(&Limits::DEFAULT);
    let mut go = |members| {
        layout = layout.placed(&Target { pools: vec![pool(members)], ..Target::default() }).unwrap();
        layout.release();
        let place = layout.pool(&Name::new("web").unwrap()).unwrap().clone();
        let epochs: Vec<u8> = (0..place.capacity).map(|n| layout.epoch(place.backend_base + n)).collect();
        (place, epochs)
    };
    let mut seen = BTreeSet::new();
    for round in 0..40 {
        let (place, epochs) = go(round..round + 5);
        for k in round..round + 5 {
            let number = place.numbers[&identity(k)];
            seen.insert((number, epochs[usize::from(number)], k));
        }
    }
    let distinct: BTreeSet<(u16, u8)> = seen.iter().map(|&(number, epoch, _)| (number, epoch)).collect();
    assert_eq!((seen.len(), distinct.len()), (44, 44), "each of the 44 has its own");
}
