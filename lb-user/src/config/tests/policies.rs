//! Keys of services beyond their ports, of access lists and of server IDs: what they mean, and every error.

use lb_common::abi::Admission::{self, Allow, Deny};

use super::{super::files_named, parse, parse_with};
use crate::model::{
    limit::{Allowance, Frequency, Period, SourceLimit},
    quic::QuicIds,
    service::Desired,
    source::Files,
};

const POOL: &str = "[[pool]]\nname = \"web\"\n";

/// A service of this VIP; what is given begins at line 8.
fn service(vip: &str, rest: &str) -> String {
    format!(
        "{POOL}[[service]]\nname = \"www\"\npool = \"web\"\nvip = \"{vip}\"\nports = [\"tcp/80\"]\n{rest}\n"
    )
}

/// A list; what is given begins at line 3.
fn list(rest: &str) -> String {
    format!("[[acl]]\nname = \"l\"\n{rest}\n")
}

#[track_caller]
fn says(text: &str, files: &Files, expected: &[&str]) {
    let errors = parse_with(text, files).expect_err(text).0;
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let matches = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| a.starts_with(b));
    assert!(matches, "{text}\ngave\n{}\nnot\n{}", found.join("\n"), expected.join("\n"));
}

#[test]
fn every_error_has_its_place_and_its_words() {
    let v4 = |rest: &str| service("192.0.2.1", rest);
    let v6 = |rest: &str| service("2001:db8::1", rest);
    let affinity = |text: &str| {
        format!(
            "8:12: service \"www\", affinity: \"{text}\" is no affinity: write \"source\", or \"source/24\""
        )
    };
    let cases: Vec<(String, Vec<&str>)> = vec![
        (v4("affinity = \"source/0\""), vec!["8:12: service \"www\", affinity: 0 is not within 1 to 32"]),
        (v4("affinity = \"source/33\""), vec!["8:12: service \"www\", affinity: 33 is not within 1 to 32"]),
        (
            v6("affinity = \"source/129\""),
            vec!["8:12: service \"www\", affinity: 129 is not within 1 to 128"],
        ),
        (v4("affinity = true"), vec!["8:12: service \"www\", affinity: expected a string, found a boolean"]),
        (
            v4("quic = {}\nacl = \"l\""),
            vec![
                "8:8: service \"www\", quic: server_id_length is missing: add server_id_length = 2",
                "9:7: service \"www\", acl: acl \"l\" does not exist",
            ],
        ),
        (
            v4("quic = { server_id_length = 9, config_bits = 4, config = 7 }"),
            vec![
                "8:29: service \"www\", quic, server_id_length: 9 is not within 1 to 8",
                "8:46: service \"www\", quic, config_bits: 4 is not within 0 to 3",
                "8:58: service \"www\", quic, config: 7 is not within 0 to 6",
            ],
        ),
        (
            v4("quic = { server_id_length = 1, config_bits = 2, config = 3 }"),
            vec!["8:58: service \"www\", quic, config: 3 is not within 0 to 2"],
        ),
        (
            v4("limit = { prefix = 33 }"),
            vec![
                "8:9: service \"www\", limit: it limits nothing: add packets = \"10000/s\" or connections = \"100/s\"",
                "8:20: service \"www\", limit, prefix: 33 is not within 1 to 32",
            ],
        ),
        (
            v4("limit = { packets = \"10\", connections = \"0/s\" }"),
            vec![
                "8:21: service \"www\", limit, packets: \"10\" is not a rate: write a number and /s or /m, such as",
                "8:41: service \"www\", limit, connections: \"0/s\" is not a rate",
            ],
        ),
        (
            v4("limit = { packets = \"1000001/s\", connections = \"19/m\" }"),
            vec![
                "8:21: service \"www\", limit, packets: 1000001/s is not within 20/m to 1000000/s",
                "8:48: service \"www\", limit, connections: 19/m is not within 20/m to 1000000/s",
            ],
        ),
        (
            v4("limit = { packets = \"10/s\", packets_burst = 36001, connections_burst = 0 }"),
            vec![
                "8:45: service \"www\", limit, packets_burst: 36001 is not within 1 to 36000",
                "8:52: service \"www\", limit: connections_burst says how much of connections may come at once, which has no limit: add connections, or remove connections_burst",
                "8:72: service \"www\", limit, connections_burst: 0 is not within 1 to 4294967295",
            ],
        ),
        (
            v4("acl = \"freinds\"") + "[[acl]]\nname = \"friends\"\nallow = []\n",
            vec!["8:7: service \"www\", acl: acl \"freinds\" does not exist (did you mean \"friends\"?)"],
        ),
        (
            list(""),
            vec![
                "1:1: acl \"l\": a list names someone: add allow = [\"192.0.2.0/24\"] or deny = [\"192.0.2.0/24\"]",
            ],
        ),
        (
            list("allow = []\ndeny = []"),
            vec![
                "1:1: acl \"l\": a list that both allows and denies says what becomes of all others: add default = \"allow\" or",
            ],
        ),
        (
            list(
                "allow = [\"10.0.0.1/8\", \"10\", \"::ffff:10.0.0.1\", \"10.0.0.0/8\"]\ndeny = [\"10.0.0.0/8\"]\ndefault = \"none\"",
            ),
            vec![
                "3:10: acl \"l\", allow[0]: 10.0.0.1/8 has host bits: write 10.0.0.0/8",
                "3:24: acl \"l\", allow[1]: \"10\" is neither an address nor a prefix",
                "3:30: acl \"l\", allow[2]: ::ffff:10.0.0.1 is IPv4 written as IPv6: write 10.0.0.1",
                "4:9: acl \"l\", deny: 10.0.0.0/8 is both allowed and denied",
                "5:11: acl \"l\", default: \"none\" is not one of \"allow\", \"deny\"",
            ],
        ),
        (
            list("allow = []") + &list("allow = []"),
            vec!["5:8: acl \"l\": there is already an acl \"l\" (line 2)"],
        ),
    ];
    for (text, expected) in cases {
        says(&text, &Files::new(), &expected);
    }
    for text in ["client", "source/", "source/+8", "source24", "source/24,56", ""] {
        says(&v4(&format!("affinity = \"{text}\"")), &Files::new(), &[&affinity(text)]);
    }
}

#[test]
fn server_ids_belong_to_one_and_have_the_length_that_is_read() {
    let backends = |ids: &[&str]| {
        let backend = |(number, id): (usize, &&str)| {
            let id = if id.is_empty() { String::new() } else { format!("server_id = \"{id}\"\n") };
            format!("[[pool.backend]]\nname = \"b{number}\"\naddress = \"10.0.0.{number}\"\n{id}")
        };
        format!("{POOL}{}", ids.iter().enumerate().map(backend).collect::<String>())
    };
    let service = |name: &str, port: u16, length: u8| {
        format!(
            "[[service]]\nname = \"{name}\"\nvip = \"192.0.2.1\"\nports = [\"udp/{port}\"]\npool = \"web\"\nquic = {{ server_id_length = {length} }}\n"
        )
    };
    let none = Files::new();
    let good = backends(&["0x01", "0x02"]) + &service("h3", 443, 1);
    assert_eq!(parse(&good).unwrap().pools[0].backends[1].server_id, Some("0x02".parse().unwrap()));
    assert!(parse(&backends(&["0x0102"])).is_ok(), "nobody reads it");
    says(
        &(backends(&["0x01", "", "0x0101"]) + &service("h3", 443, 1)),
        &none,
        &[
            "7:1: pool \"web\", backend \"b1\": \"h3\" finds backends by QUIC server IDs: add server_id = \"0x2a\", or whichever the server has (line 19)",
            "13:13: pool \"web\", backend \"b2\", server_id: 0x0101 has 2 octets, but \"h3\" reads 1 (server_id_length) (line 19)",
        ],
    );
    says(
        &backends(&["0x2A", "0x2a", "2a"]),
        &none,
        &[
            "10:13: pool \"web\", backend \"b1\", server_id: 0x2a is already the server ID of \"b0\": one backend, one server ID (line 6)",
            "14:13: pool \"web\", backend \"b2\", server_id: \"2a\" is not a server ID: write 1 to 8 octets, each by two",
        ],
    );
    says(
        &(backends(&["0x01"]) + &service("h3", 443, 1) + &service("alt", 444, 2)),
        &none,
        &[
            "18:8: service \"alt\", quic: the server IDs of this pool have 1 octets by \"h3\": a pool's have one length (line 12)",
        ],
    );
    let vlan = |vlan: &str| format!("{}vlan = {vlan}\n", backends(&["0x01"]));
    says(&vlan("0"), &none, &["7:8: pool \"web\", backend \"b0\", vlan: 0 is not within 1 to 4094"]);
    says(&vlan("4095"), &none, &["7:8: pool \"web\", backend \"b0\", vlan: 4095 is not within 1 to 4094"]);
}

#[test]
fn lengths_count_in_the_vips_own_family() {
    let of = |vip: &str, rest: &str| parse(&service(vip, rest)).unwrap().services.remove(0);
    for (vip, text, bits) in [
        ("192.0.2.1", "source", 32),
        ("192.0.2.1", "source/8", 8),
        ("2001:db8::1", "source", 128),
        ("2001:db8::/64", "source/56", 56),
    ] {
        assert_eq!(of(vip, &format!("affinity = \"{text}\"")).affinity, Some(bits), "{vip} {text}");
    }
    let limit = "limit = { packets = \"100/s\", connections = \"30/m\", connections_burst = 7 }";
    for (vip, prefix) in [("192.0.2.1", 32), ("2001:db8::1", 64)] {
        let expected = SourceLimit {
            prefix,
            // As much at once as comes in the time that the rate counts in.
            packets: Some(Allowance { rate: Frequency { count: 100, per: Period::Second }, burst: 100 }),
            connections: Some(Allowance { rate: Frequency { count: 30, per: Period::Minute }, burst: 7 }),
        };
        assert_eq!(of(vip, limit).limit, Some(expected));
    }
    let quic = of("192.0.2.1", "quic = { server_id_length = 8 }").quic;
    assert_eq!(quic, Some(QuicIds { server_id_length: 8, config_bits: 3, config: 0 }));
}

fn entries(desired: &Desired) -> Vec<(String, Admission)> {
    let shown = |&(address, bits, admission): &(lb_common::addr::Addr, u32, Admission)| {
        let bits = if address.is_v4() { bits - 96 } else { bits };
        (format!("{address:?}/{bits}"), admission)
    };
    desired.acls[0].table.entries.iter().map(shown).collect()
}

#[test]
fn what_a_list_says_of_others_follows_from_its_sides_or_is_said() {
    for (text, others) in [
        ("allow = []", Deny),
        ("deny = []", Allow),
        ("deny_file = \"x\"", Allow),
        ("allow = []\ndefault = \"allow\"", Allow),
        ("allow_file = \"x\"\ndeny = []\ndefault = \"allow\"", Allow),
    ] {
        assert_eq!(parse(&list(text)).unwrap().acls[0].others, others, "{text}");
    }
}

#[test]
fn files_continue_a_list() {
    let text = list("allow = [\"198.51.100.0/24\"]\ndeny_file = \"deny.txt\"\ndefault = \"deny\"");
    assert_eq!(files_named(&text).into_iter().collect::<Vec<_>>(), ["deny.txt"]);
    let with = |content: &str| Files::from([("deny.txt".to_owned(), Ok(content.into()))]);
    let content = "\u{feff}# From the registry.\n203.0.113.0/24 ; a reason\r\n\n 198.51.100.7\n203.0.113.0/24 # again\n2001:db8::/32";
    let desired = parse_with(&text, &with(content)).unwrap();
    let expected = [
        ("198.51.100.0/24", Allow),
        ("198.51.100.7/32", Deny),
        ("203.0.113.0/24", Deny),
        ("2001:db8::/32", Deny),
    ];
    assert_eq!(entries(&desired), expected.map(|(prefix, admission)| (prefix.to_owned(), admission)));

    let place = "4:13: acl \"l\", deny_file: ";
    let told = |words: &str| format!("{place}{words}");
    says(
        &text,
        &with("10.0.0.0/8\nx\n\n10.0.0.1/8\n"),
        &[
            &told("deny.txt line 2: \"x\" is neither an address nor a prefix"),
            &told("deny.txt line 4: 10.0.0.1/8 has host bits: write 10.0.0.0/8"),
        ],
    );
    says(&text, &with("198.51.100.0/24"), &[&told("198.51.100.0/24 is both allowed and denied")]);
    let nonsense = "x\n".repeat(25);
    let lines: Vec<String> = (1..=10).map(|line| told(&format!("deny.txt line {line}: "))).collect();
    let more = told("deny.txt: 15 more lines are no prefixes");
    let expected: Vec<&str> = lines.iter().chain([&more]).map(String::as_str).collect();
    says(&text, &with(&nonsense), &expected);
    let missing = Files::from([("deny.txt".to_owned(), Err("No such file or directory".to_owned()))]);
    says(&text, &missing, &[&told("cannot read deny.txt: No such file or directory")]);
    says(&text, &Files::new(), &[&told("cannot read deny.txt: it was not read")]);
}

#[test]
fn files_are_made_out_in_a_text_with_errors_too() {
    let text = "colour = 1\n[[acl]]\nallow_file = \"a\"\ndeny_file = 3\n[[acl]]\ndeny_file = \"/b/c\"\n";
    assert_eq!(files_named(text).into_iter().collect::<Vec<_>>(), ["/b/c", "a"]);
    assert!(files_named("[[acl]\n").is_empty());
}

#[test]
fn fifty_thousand_prefixes_are_read() {
    let content: String = (0..50_000u32).map(|n| format!("10.{}.{}.0/24\n", n >> 8, n & 255)).collect();
    let files = Files::from([("x".to_owned(), Ok(content.into()))]);
    let desired = parse_with(&list("deny_file = \"x\""), &files).unwrap();
    assert_eq!(desired.acls[0].table.entries.len(), 50_000);
}
