//! Tables in memory.

use super::*;
use std::net::IpAddr;

/// The longest prefix, found by trying every length.
fn longest(memory: &Memory, list: u32, address: Addr) -> Option<u32> {
    (0..=128).rev().find_map(|bits| memory.prefixes.get(&PrefixKey::new(list, address, bits)).copied())
}

#[test]
fn the_longest_prefix_is_found_among_others() {
    let mut memory = Memory::new(Limits { slots: 32, flow_buckets: 1, limiters: 1, ..Limits::DEFAULT });
    let address = |number: u64| {
        let low = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Addr::from_words([low >> 60 & number, low & 0xff00_0000_0000_00ff])
    };
    for number in 0..400 {
        let bits = (number * 7 % 129) as u32;
        memory.prefixes.insert(PrefixKey::new(number as u32 % 3, address(number), bits), number as u32);
    }
    let mut found = 0;
    for (number, list) in (0..3000).map(|number| (number, number as u32 % 4)) {
        let expected = longest(&memory, list, address(number));
        assert_eq!(memory.prefix(list, address(number)), expected, "{:?}", IpAddr::from(address(number)));
        found += usize::from(expected.is_some());
    }
    assert!((100..2900).contains(&found), "{found} found");
}

#[test]
fn what_was_looked_up_can_be_taken_back() {
    use lb_common::{abi::Flow, tables::FlowBucket};
    let mut memory = Memory::new(Limits { slots: 32, flow_buckets: 4, limiters: 1, ..Limits::DEFAULT });
    let flow = |id| Flow { id, value: 1 };
    memory.bucket(1).unwrap().replace(0, flow(1));
    memory.flows.watch();
    memory.bucket(1).unwrap().replace(0, flow(2));
    memory.bucket(6).unwrap().replace(3, flow(3));
    memory.bucket(1).unwrap().replace(1, flow(4));
    assert_eq!(memory.flows.looked_up().iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 1]);
    memory.flows.rewind();
    assert_eq!(memory.flows.iter().collect::<Vec<_>>(), [flow(1)]);
    assert!(memory.flows.looked_up().is_empty());
    memory.bucket(1).unwrap().replace(0, flow(5));
    memory.flows.forget();
    memory.flows.rewind();
    assert_eq!(memory.flows.iter().collect::<Vec<_>>(), [flow(5)]);
}

#[test]
fn an_allowance_runs_out() {
    let memory = Memory::new(Limits { slots: 32, flow_buckets: 1, limiters: 1, ..Limits::DEFAULT });
    assert!((0..1000).all(|_| memory.may(Window::Answer)));
    memory.allowances[Window::Answer as usize].set(2);
    assert_eq!([0; 4].map(|_| memory.may(Window::Answer)), [true, true, false, false]);
    assert!(memory.may(Window::Remember));
}
