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
fn tunnel_sources_spread_by_their_host_bits() {
    let outer = Outer::default();
    let v4 = Identity::new("10.0.0.1".parse().unwrap(), true, &outer);
    assert_eq!((v4.encap, v4.spread_bits), (Encap::Ip4, 16));
    let v6 = Identity::new("2001:db8::1".parse().unwrap(), true, &outer);
    assert_eq!((v6.encap, v6.spread_bits), (Encap::Ip6, 32));
    let l2 = Identity::new("10.0.0.1".parse().unwrap(), false, &outer);
    assert_eq!((l2.encap, l2.spread_bits, l2.outer_source), (Encap::L2, 0, Addr::NONE));
}
