//! What differs between two configurations, in words.

use std::{collections::BTreeMap, fmt::Display};

use super::service::{Backend, Desired, Name, Pool, Service, Settings};

/// Something with a name that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub name: Name,
    /// What becomes of it.
    pub kind: Kind,
    /// What differs of it, a few words each.
    pub what: Vec<String>,
}

/// What becomes of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It comes.
    Added,
    /// It goes.
    Removed,
    /// It becomes different.
    Changed,
}

/// What differs of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolDifference {
    /// The pool itself.
    pub pool: Difference,
    /// Its backends.
    pub backends: Vec<Difference>,
}

/// Settings that differ.
pub fn of_settings(before: &Settings, after: &Settings) -> Vec<String> {
    let mut words = Words::default();
    words.list("interfaces", &before.interfaces, &after.interfaces);
    words.debug("xdp", &before.xdp, &after.xdp);
    words.prefix("tunnel source", &before.tunnel_source_v4, &after.tunnel_source_v4);
    words.prefix("tunnel source", &before.tunnel_source_v6, &after.tunnel_source_v6);
    words.shown("gue_port", &before.gue_port, &after.gue_port);
    words.debug("transition_max", &before.transition_max, &after.transition_max);
    words.shown("drop_events", &before.drop_events, &after.drop_events);
    words.shown("flow_events", &before.flow_events, &after.flow_events);
    words.shown("drop_alarm", &before.drop_alarm, &after.drop_alarm);
    // With another seed nearly every flow has another slot.
    if before.seed != after.seed {
        words.0.push("seed: flows are hashed anew, nearly all move".to_owned());
    }
    words.rest("another setting", before == after)
}

/// Services that differ.
pub fn of_services(before: &Desired, after: &Desired) -> Vec<Difference> {
    let named = |desired: &Desired| -> BTreeMap<Name, Service> {
        desired.services.iter().map(|service| (service.name.clone(), service.clone())).collect()
    };
    differences(&named(before), &named(after), |before, after| {
        let mut words = Words::default();
        words.shown("vip", &before.vip, &after.vip);
        words.list("ports", &before.ports, &after.ports);
        words.shown("pool", &before.pool, &after.pool);
        words.debug("echo", &before.echo, &after.echo);
        words.rest("policy", before == after)
    })
}

/// Access lists that differ.
pub fn of_lists(before: &Desired, after: &Desired) -> Vec<Difference> {
    let named = |desired: &Desired| -> BTreeMap<Name, super::acl::AccessList> {
        desired.acls.iter().map(|acl| (acl.name().clone(), acl.clone())).collect()
    };
    differences(&named(before), &named(after), |before, after| {
        let mut words = Words::default();
        words.shown("entries", &before.table.entries.len(), &after.table.entries.len());
        words.rest("entries or default", before == after)
    })
}

/// Pools that differ, by name.
pub fn of_pools(before: &Desired, after: &Desired) -> Vec<PoolDifference> {
    let named = |desired: &Desired| -> BTreeMap<Name, Pool> {
        desired.pools.iter().map(|pool| (pool.name.clone(), pool.clone())).collect()
    };
    let (before, after) = (named(before), named(after));
    let pools = differences(&before, &after, |before, after| {
        let mut words = Words::default();
        words.shown("slots", &before.slots, &after.slots);
        if before.check != after.check {
            words.0.push("check".to_owned());
        }
        words.debug("on_down", &before.on_down, &after.on_down);
        let (was, is) = (&before.shortage, &after.shortage);
        words.shown("min_up", &was.min_up, &is.min_up);
        words.debug("fallback", &was.fallback, &is.fallback);
        words.shown("on_all_down", &was.then, &is.then);
        let (was, is) = (&before.shares, &after.shares);
        words.debug("slow_start", &was.slow_start, &is.slow_start);
        words.debug("weights", &was.weights, &is.weights);
        if was.agent != is.agent {
            words.0.push("agent".to_owned());
        }
        let backends = before.backends == after.backends;
        let same =
            Pool { backends: Vec::new(), ..before.clone() } == Pool { backends: Vec::new(), ..after.clone() };
        if !backends {
            words.0.push("backends".to_owned());
        }
        words.rest("policy", same && backends)
    });
    let with_backends = |mut pool: Difference| {
        let backends = of_backends(before.get(&pool.name), after.get(&pool.name));
        pool.what.retain(|word| word != "backends");
        PoolDifference { pool, backends }
    };
    pools.into_iter().map(with_backends).collect()
}

fn of_backends(before: Option<&Pool>, after: Option<&Pool>) -> Vec<Difference> {
    let named = |pool: Option<&Pool>| -> BTreeMap<Name, Backend> {
        let backends = pool.iter().flat_map(|pool| &pool.backends);
        backends.map(|backend| (backend.name.clone(), backend.clone())).collect()
    };
    differences(&named(before), &named(after), |before, after| {
        let mut words = Words::default();
        words.shown("address", &before.address, &after.address);
        words.shown("via", &before.via, &after.via);
        words.shown("weight", &before.weight, &after.weight);
        words.debug("state", &before.state, &after.state);
        words.debug("vlan", &before.vlan, &after.vlan);
        words.rest("server_id", before == after)
    })
}

fn differences<T: PartialEq>(
    before: &BTreeMap<Name, T>,
    after: &BTreeMap<Name, T>,
    words: impl Fn(&T, &T) -> Vec<String>,
) -> Vec<Difference> {
    let gone = before.keys().filter(|name| !after.contains_key(name)).map(|name| Difference {
        name: name.clone(),
        kind: Kind::Removed,
        what: Vec::new(),
    });
    let come = after.iter().filter_map(|(name, after)| {
        let (kind, what) = match before.get(name) {
            None => (Kind::Added, Vec::new()),
            Some(before) if before == after => return None,
            Some(before) => (Kind::Changed, words(before, after)),
        };
        Some(Difference { name: name.clone(), kind, what })
    });
    gone.chain(come).collect()
}

/// Words on what differs between two things.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn shown<T: Display + PartialEq>(&mut self, what: &str, before: &T, after: &T) {
        if before != after {
            self.0.push(format!("{what} {before} -> {after}"));
        }
    }

    fn debug<T: std::fmt::Debug + PartialEq>(&mut self, what: &str, before: &T, after: &T) {
        if before != after {
            self.0.push(format!("{what} {before:?} -> {after:?}").to_lowercase());
        }
    }

    fn prefix<A: Display + PartialEq>(&mut self, what: &str, before: &(A, u8), after: &(A, u8)) {
        self.shown(what, &format!("{}/{}", before.0, before.1), &format!("{}/{}", after.0, after.1));
    }

    fn list<T: Display + PartialEq>(&mut self, what: &str, before: &[T], after: &[T]) {
        let only = |these: &[T], those: &[T], sign| -> String {
            these.iter().filter(|one| !those.contains(one)).map(|one| format!(" {sign}{one}")).collect()
        };
        if before != after {
            self.0.push(format!("{what}{}{}", only(before, after, '-'), only(after, before, '+')));
        }
    }

    /// All words; one more if there is none though something differs.
    fn rest(mut self, what: &str, same: bool) -> Vec<String> {
        if self.0.is_empty() && !same {
            self.0.push(what.to_owned());
        }
        self.0
    }
}
