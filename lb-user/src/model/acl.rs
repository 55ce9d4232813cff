//! Access lists: which clients may use a service.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use lb_common::abi::Admission;

use super::{plan::ListTarget, prefix::Prefix, service::Name};

/// An access list. Of the prefixes that hold a client the longest counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessList {
    /// What becomes of clients that no prefix holds.
    pub others: Admission,
    /// Its name, unique among lists, and its prefixes. Shared: there may be tens of thousands.
    pub table: Arc<ListTarget>,
}

impl AccessList {
    /// A list of these prefixes.
    pub fn new(name: Name, mut entries: BTreeMap<Prefix, Admission>, others: Admission) -> Self {
        // In the tables IPv4 addresses are among those of IPv6 (`::ffff:0:0/96`). A short prefix of IPv6 must not speak
        // for them: they have an entry of their own then.
        let v4_mapped = Prefix::host(IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()));
        if entries.keys().any(|prefix| prefix.covers(&v4_mapped)) {
            entries.entry(Prefix::EVERY_V4).or_insert(others);
        }
        let entries = entries.into_iter().map(|(prefix, admission)| {
            let (address, bits) = prefix.bits();
            (address, bits, admission)
        });
        Self { others, table: Arc::new(ListTarget { name, entries: entries.collect() }) }
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.table.name
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use lb_common::addr::Addr;

    use super::*;

    fn list(entries: &[(&str, Admission)], others: Admission) -> Vec<(Addr, u32, Admission)> {
        let entries = entries.iter().map(|(prefix, admission)| (prefix.parse().unwrap(), *admission));
        AccessList::new(Name::new("l").unwrap(), entries.collect(), others).table.entries.clone()
    }

    #[test]
    fn a_prefix_of_one_family_says_nothing_of_the_other() {
        use Admission::{Allow, Deny};
        let v4 = (Addr::v4([0; 4]), 96);
        let v6 = Addr::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        assert_eq!(list(&[("0.0.0.0/0", Allow)], Deny), [(v4.0, 96, Allow)]);
        assert_eq!(list(&[("::/0", Deny)], Allow), [(v4.0, 96, Allow), (v6, 0, Deny)]);
        assert_eq!(list(&[("::/64", Allow)], Deny), [(v4.0, 96, Deny), (v6, 64, Allow)]);
        let both = [(v4.0, 96, Deny), (v6, 0, Allow)];
        assert_eq!(list(&[("::/0", Allow), ("0.0.0.0/0", Deny)], Allow), both);
        assert_eq!(list(&[("2001:db8::/32", Allow)], Deny).len(), 1);
    }
}
