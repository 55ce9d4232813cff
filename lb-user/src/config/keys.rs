//! Every key of the file, once. The parser, its suggestions and the test that holds `docs/config.md` to the
//! parser all read this.

/// A kind of table.
#[derive(Debug)]
pub struct TableKeys {
    /// Its name in the file; the whole file is `file`.
    pub name: &'static str,
    /// Its keys, in the order people write them.
    pub keys: &'static [Key],
}

/// A key of a table.
#[derive(Debug)]
pub struct Key {
    /// As it stands in the file.
    pub name: &'static str,
    /// How it is written, for those who left out a key that is needed.
    pub example: &'static str,
}

/// The file itself.
pub static FILE: TableKeys = TableKeys {
    name: "file",
    keys: &[
        Key { name: "lb", example: "[lb]" },
        Key { name: "pool", example: "[[pool]]" },
        Key { name: "service", example: "[[service]]" },
        Key { name: "acl", example: "[[acl]]" },
    ],
};

/// `[lb]`.
pub static LB: TableKeys = TableKeys {
    name: "lb",
    keys: &[
        Key { name: "interfaces", example: "interfaces = [\"eth0\"]" },
        Key { name: "xdp", example: "xdp = \"auto\"" },
        Key { name: "seed", example: "seed = \"0x5eed0f1ee7\"" },
        Key { name: "tunnel_source", example: "tunnel_source = \"172.16.0.0/16\"" },
        Key { name: "tunnel_source6", example: "tunnel_source6 = \"100::/64\"" },
        Key { name: "gue_port", example: "gue_port = 6080" },
        Key { name: "transition_max", example: "transition_max = \"1h\"" },
        Key { name: "drop_events", example: "drop_events = 10" },
        Key { name: "flow_events", example: "flow_events = 0" },
        Key { name: "drop_alarm", example: "drop_alarm = 1000" },
    ],
};

/// `[[pool]]`.
pub static POOL: TableKeys = TableKeys {
    name: "pool",
    keys: &[
        Key { name: "name", example: "name = \"web\"" },
        Key { name: "slots", example: "slots = 16381" },
        Key { name: "check", example: "check = { type = \"tcp\" }" },
        Key { name: "on_down", example: "on_down = \"reset\"" },
        Key { name: "min_up", example: "min_up = 2" },
        Key { name: "fallback", example: "fallback = \"spare\"" },
        Key { name: "on_all_down", example: "on_all_down = \"drop\"" },
        Key { name: "slow_start", example: "slow_start = \"30s\"" },
        Key { name: "weights", example: "weights = \"fixed\"" },
        Key { name: "agent", example: "agent = { port = 9999 }" },
        Key { name: "backend", example: "[[pool.backend]]" },
    ],
};

/// `[[pool.backend]]`.
pub static BACKEND: TableKeys = TableKeys {
    name: "backend",
    keys: &[
        Key { name: "name", example: "name = \"w1\"" },
        Key { name: "address", example: "address = \"10.1.0.11\"" },
        Key { name: "via", example: "via = \"l2\"" },
        Key { name: "weight", example: "weight = 100" },
        Key { name: "state", example: "state = \"drain\"" },
        Key { name: "drain_until", example: "drain_until = \"2026-01-31T12:00:00Z\"" },
        Key { name: "vlan", example: "vlan = 100" },
        Key { name: "server_id", example: "server_id = \"0x2a01\"" },
    ],
};

/// `agent = { … }`.
pub static AGENT: TableKeys = TableKeys {
    name: "agent",
    keys: &[
        Key { name: "port", example: "port = 9999" },
        Key { name: "interval", example: "interval = \"2s\"" },
        Key { name: "timeout", example: "timeout = \"1s\"" },
    ],
};

/// `check = { … }`.
pub static CHECK: TableKeys = TableKeys {
    name: "check",
    keys: &[
        Key { name: "type", example: "type = \"tcp\"" },
        Key { name: "to", example: "to = \"vip\"" },
        Key { name: "port", example: "port = 80" },
        Key { name: "path", example: "path = \"/healthz\"" },
        Key { name: "host", example: "host = \"www.example.com\"" },
        Key { name: "expect", example: "expect = 200" },
        Key { name: "server_name", example: "server_name = \"www.example.com\"" },
        Key { name: "verify", example: "verify = true" },
        Key { name: "ca", example: "ca = \"/etc/lb/ca.pem\"" },
        Key { name: "send", example: "send = \"PING\"" },
        Key { name: "query", example: "query = \"www.example.com\"" },
        Key { name: "record", example: "record = \"A\"" },
        Key { name: "answer", example: "answer = \"192.0.2.80\"" },
        Key { name: "command", example: "command = [\"/usr/local/bin/check\"]" },
        Key { name: "interval", example: "interval = \"2s\"" },
        Key { name: "fast_interval", example: "fast_interval = \"500ms\"" },
        Key { name: "timeout", example: "timeout = \"1s\"" },
        Key { name: "jitter", example: "jitter = 10" },
        Key { name: "rise", example: "rise = 2" },
        Key { name: "fall", example: "fall = 3" },
        Key { name: "damping", example: "damping = \"10m\"" },
    ],
};

/// `[[service]]`.
pub static SERVICE: TableKeys = TableKeys {
    name: "service",
    keys: &[
        Key { name: "name", example: "name = \"www\"" },
        Key { name: "vip", example: "vip = \"192.0.2.10\"" },
        Key { name: "ports", example: "ports = [\"tcp/80\"]" },
        Key { name: "pool", example: "pool = \"web\"" },
        Key { name: "tracking", example: "tracking = \"transition\"" },
        Key { name: "idle", example: "idle = \"5m\"" },
        Key { name: "udp_idle", example: "udp_idle = \"30s\"" },
        Key { name: "echo", example: "echo = true" },
        Key { name: "affinity", example: "affinity = \"source\"" },
        Key { name: "quic", example: "quic = { server_id_length = 2 }" },
        Key { name: "acl", example: "acl = \"office\"" },
        Key { name: "limit", example: "limit = { packets = \"10000/s\" }" },
    ],
};

/// `quic = { … }`.
pub static QUIC: TableKeys = TableKeys {
    name: "quic",
    keys: &[
        Key { name: "server_id_length", example: "server_id_length = 2" },
        Key { name: "config_bits", example: "config_bits = 3" },
        Key { name: "config", example: "config = 0" },
    ],
};

/// `limit = { … }`.
pub static LIMIT: TableKeys = TableKeys {
    name: "limit",
    keys: &[
        Key { name: "packets", example: "packets = \"10000/s\"" },
        Key { name: "packets_burst", example: "packets_burst = 20000" },
        Key { name: "connections", example: "connections = \"100/s\"" },
        Key { name: "connections_burst", example: "connections_burst = 200" },
        Key { name: "prefix", example: "prefix = 24" },
    ],
};

/// `[[acl]]`.
pub static ACL: TableKeys = TableKeys {
    name: "acl",
    keys: &[
        Key { name: "name", example: "name = \"office\"" },
        Key { name: "allow", example: "allow = [\"198.51.100.0/24\"]" },
        Key { name: "allow_file", example: "allow_file = \"allowed.txt\"" },
        Key { name: "deny", example: "deny = [\"203.0.113.0/24\"]" },
        Key { name: "deny_file", example: "deny_file = \"/etc/lb/denied.txt\"" },
        Key { name: "default", example: "default = \"deny\"" },
    ],
};

/// All kinds of tables.
pub static ALL: [&TableKeys; 10] =
    [&FILE, &LB, &POOL, &BACKEND, &AGENT, &CHECK, &SERVICE, &QUIC, &LIMIT, &ACL];

impl TableKeys {
    /// The entry of a key.
    ///
    /// # Panics
    /// If there is none: the parser asked for a key that is not in the table, which its tests would show.
    pub(super) fn key(&self, name: &str) -> &'static Key {
        self.keys.iter().find(|key| key.name == name).expect("every key the parser reads is in the table")
    }

    /// The names of all keys.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }
}

/// The candidate most similar to `word`, if similar enough to be what was meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Far longer than any key or name: not worth the quadratic work.
    if word.len() > 100 {
        return None;
    }
    let tolerance = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= tolerance)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, substitutions and swaps of neighbours that lead from one word to the other
/// (optimal string alignment), whatever the case of letters.
fn edit_distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.to_lowercase().chars().collect();
    let to: Vec<char> = to.to_lowercase().chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for (i, &a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &b) in to.iter().enumerate() {
            let mut best = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a == to[j - 1] && from[i - 1] == b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood_and_nonsense_is_not() {
        let cases = [
            ("adress", Some("address")),
            ("wieght", Some("weight")),
            ("Via", Some("via")),
            ("wight", Some("weight")),
            ("metrics", None),
            ("x", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, BACKEND.names()), expected, "{word}");
        }
    }
}
