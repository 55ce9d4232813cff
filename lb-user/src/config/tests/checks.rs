//! What the parser says to checks.

use super::{
    super::{keys, parse::check::KEYS_OF_TYPES},
    POOL, assert_errors, reference_rows,
};

/// Text, and the errors it must give: all of them, in order.
#[test]
fn every_error_of_a_check_has_its_place_and_its_words() {
    let check = |rest: &str| format!("{POOL}check = {{ {rest} }}\n");
    let cases: Vec<(String, Vec<&str>)> = vec![
        (
            check("type = \"sctp\""),
            vec![
                "3:18: pool \"web\", check, type: \"sctp\" is not one of \"tcp\", \"http\", \"https\", \"udp\", ",
            ],
        ),
        (check("port = 80"), vec!["3:9: pool \"web\", check: type is missing"]),
        (
            check("type = \"tcp\", path = \"/\""),
            vec!["3:25: pool \"web\", check: path does not belong to a check of type \"tcp\""],
        ),
        (
            check("type = \"http\", path = \"x y\", host = \"a b\", expect = 99, port = 0"),
            vec![
                "3:33: pool \"web\", check, path: \"x y\" is not a path",
                "3:47: pool \"web\", check, host: \"a b\" is not a host",
                "3:63: pool \"web\", check, expect: 99 is not within 100 to 599",
                "3:74: pool \"web\", check, port: 0 is not within 1 to 65535",
            ],
        ),
        (
            check("type = \"tcp\", interval = \"2\", timeout = \"5s\", rise = 0, fall = 101"),
            vec![
                "3:36: pool \"web\", check, interval: \"2\" is not a duration",
                "3:64: pool \"web\", check, rise: 0 is not within 1 to 100",
                "3:74: pool \"web\", check, fall: 101 is not within 1 to 100",
            ],
        ),
        (
            check("type = \"tcp\", interval = \"9ms\""),
            vec!["3:36: pool \"web\", check, interval: 9ms is not within 10ms to 1h"],
        ),
        (
            check("type = \"tcp\", timeout = \"3s\""),
            vec!["3:35: pool \"web\", check, timeout: the time-out of 3s is longer than the interval of 2s"],
        ),
        (
            check("type = \"tcp\", fast_interval = \"3s\", jitter = 51, damping = \"1ms\""),
            vec![
                "3:41: pool \"web\", check, fast_interval: the fast interval of 3s is longer than the interval of 2s",
                "3:56: pool \"web\", check, jitter: 51 is not within 0 to 50",
                "3:70: pool \"web\", check, damping: 1ms is not within 1s to 24h",
            ],
        ),
        (
            check("type = \"https\", server_name = \"a:443\", verify = 1, ca = \"ca.pem\", send = \"x\""),
            vec![
                "3:41: pool \"web\", check, server_name: \"a:443\" is not a server name",
                "3:59: pool \"web\", check, verify: expected true or false, found an integer",
                "3:67: pool \"web\", check, ca: \"ca.pem\" is not a full path of a file",
                "3:77: pool \"web\", check: send does not belong to a check of type \"https\": remove it, or write type = \"udp\"",
            ],
        ),
        (
            check("type = \"http\", verify = false"),
            vec![
                "3:26: pool \"web\", check: verify does not belong to a check of type \"http\": remove it, or write type = \"https\"",
            ],
        ),
        (check("type = \"udp\""), vec!["3:9: pool \"web\", check: send is missing: add send = \"PING\""]),
        (
            check("type = \"udp\", send = \"0x1\", expect = \"\""),
            vec![
                "3:32: pool \"web\", check, send: \"0x1\" is not a payload",
                "3:48: pool \"web\", check, expect: 0 bytes, but there must be 1 to 1024",
            ],
        ),
        (check("type = \"dns\""), vec!["3:9: pool \"web\", check: query is missing"]),
        (
            check("type = \"dns\", query = \"a..b\", record = \"a\", expect = 200, answer = \"x\""),
            vec![
                "3:33: pool \"web\", check, query: \"a..b\" is not a domain name: a domain name has labels",
                "3:50: pool \"web\", check, record: \"a\" is not one of \"A\"",
                "3:64: pool \"web\", check, expect: expected a string, found an integer",
                "3:78: pool \"web\", check, answer: \"x\" cannot be compared with the answer to a question for A: write an IPv4 address",
            ],
        ),
        (
            check("type = \"dns\", query = \".\", record = \"SOA\", answer = \"x\""),
            vec![
                "3:63: pool \"web\", check, answer: \"x\" cannot be compared with the answer to a question for SOA: leave it away",
            ],
        ),
        (
            check("type = \"icmp\", port = 7"),
            vec!["3:26: pool \"web\", check: port does not belong to a check of type \"icmp\""],
        ),
        (
            check("type = \"exec\", to = \"vip\""),
            vec![
                "3:9: pool \"web\", check: command is missing",
                "3:26: pool \"web\", check: to does not belong to a check of type \"exec\"",
            ],
        ),
        (
            check("type = \"exec\", command = []"),
            vec!["3:36: pool \"web\", check, command: a check of type \"exec\" needs a program"],
        ),
        (
            check("type = \"exec\", command = [\"check\", 1, \"a\\u0000\"]"),
            vec![
                "3:37: pool \"web\", check, command: \"check\" is not a full path of a file",
                "3:46: pool \"web\", check, command[1]: expected a string, found an integer",
                "3:49: pool \"web\", check, command[2]: an argument must not have a zero byte",
            ],
        ),
        (
            format!(
                "{POOL}check = {{ type = \"udp\", send = \"\" }}\n[[service]]\nname = \"www\"\nvip = \"192.0.2.1\"\nports = [\"tcp/80\"]\npool = \"web\"\n"
            ),
            vec!["3:1: pool \"web\", check: no service of this pool has a UDP port to probe: add port = 53"],
        ),
    ];
    assert_errors(cases);
}

/// A row of the reference says which types of check have the key.
#[test]
fn the_reference_says_which_checks_have_a_key() {
    let rows = reference_rows(&keys::CHECK);
    for (key, types) in KEYS_OF_TYPES {
        let (_, row) = rows.iter().find(|(name, _)| *name == key).unwrap();
        let named = types.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        assert!(row.ends_with(&format!("| {named} |")), "{row}\nshould end with {named}");
    }
}
