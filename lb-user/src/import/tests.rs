//! What is translated is a valid configuration that asks for the same; what is not is named with its line.

use proptest::prelude::*;

use super::{Format, Imported, import};
use crate::{
    config,
    model::{
        service::{Desired, Via},
        source::Files,
    },
};

fn translated(format: Format, text: &str) -> (Desired, Imported) {
    let imported = import(format, text);
    assert_eq!(imported.errors, [""; 0], "{}", imported.text);
    let desired = config::parse(&imported.text, &Files::new());
    let desired = desired.unwrap_or_else(|errors| panic!("{}\n{}", errors.report("it"), imported.text));
    (desired, imported)
}

fn notes(imported: &Imported) -> Vec<(usize, &str)> {
    imported.notes.iter().map(|note| (note.line, note.text.as_str())).collect()
}

/// Whether there is a note about a line with these words, for each.
fn assert_notes(imported: &Imported, wanted: &[(usize, &str)]) {
    let notes = notes(imported);
    for (line, words) in wanted {
        assert!(
            notes.iter().any(|(at, text)| at == line && text.contains(words)),
            "{line}: {words} in {notes:#?}"
        );
    }
    assert_eq!(notes.len(), wanted.len(), "{notes:#?}");
}

const IPVSADM: &str = "\
-A -t 192.0.2.10:80 -s wrr
-a -t 192.0.2.10:80 -r 10.1.0.11:80 -g -w 100
-a -t 192.0.2.10:80 -r 10.9.0.12:80 -i -w 50
-A -t 192.0.2.10:443 -s wrr
-a -t 192.0.2.10:443 -r 10.1.0.11:443 -g -w 100
-a -t 192.0.2.10:443 -r 10.9.0.12:443 -i -w 50
-A -u [2001:db8::1]:53 -s mh -p 300
-a -u [2001:db8::1]:53 -r [fd00::1]:53 -i -w 0 --tun-type gue --tun-port 6080
";

#[test]
fn ipvs_services_with_the_same_servers_are_one() {
    let (desired, imported) = translated(Format::Ipvsadm, IPVSADM);
    assert_notes(&imported, &[(7, "persistence")]);
    assert_eq!((desired.pools.len(), desired.services.len()), (2, 2), "{}", imported.text);
    let web = &desired.services[0];
    assert_eq!(web.vip.to_string(), "192.0.2.10");
    assert_eq!(web.ports.iter().map(ToString::to_string).collect::<Vec<_>>(), ["tcp/80", "tcp/443"]);
    let backends = &desired.pool(&web.pool).unwrap().backends;
    let seen: Vec<_> = backends.iter().map(|b| (b.address.to_string(), b.via, b.weight)).collect();
    assert_eq!(seen, [("10.1.0.11".to_owned(), Via::L2, 100), ("10.9.0.12".to_owned(), Via::Ipip, 50)]);
    let dns = &desired.services[1];
    assert_eq!((dns.vip.to_string(), dns.affinity), ("2001:db8::1".to_owned(), Some(128)));
    let backend = &desired.pool(&dns.pool).unwrap().backends[0];
    assert_eq!((backend.via, backend.weight), (Via::Gue, 0));
}

#[test]
fn what_ipvs_has_and_lb_has_not_is_named() {
    let text = "\
# by hand
-A -f 5 -s wlc
-a -f 5 -r 10.1.0.11:0 -g
-A -t 192.0.2.10:80 -s lc -p 50 -M 255.255.255.0
-a -t 192.0.2.10:80 -r 10.1.0.11:8080 -g
-a -t 192.0.2.10:80 -r 10.1.0.12:80 -m -w 65000 -x 100
-A -t 192.0.2.11:80 -s rr
-A -t www:http -s rr
-A -t 192.0.2.12:0 -s rr -p
--set 1 2 3
";
    let (desired, imported) = translated(Format::Ipvsadm, text);
    assert_notes(
        &imported,
        &[
            (2, "firewall mark 5"),
            (3, "left out"),
            (4, "scheduler lc"),
            (4, "persistence"),
            (5, "10.1.0.11 is left out: it serves port 8080"),
            (6, "address translation"),
            (6, "limit of connections"),
            (6, "weight 65000"),
            (7, "has no server"),
            (8, "ipvsadm-save -n"),
            (9, "tcp/*"),
            (10, "not understood"),
        ],
    );
    assert_eq!(desired.services.len(), 1);
    assert_eq!(desired.services[0].affinity, Some(24));
    let backends = &desired.pools[0].backends;
    assert_eq!((backends.len(), backends[0].weight, backends[0].via), (1, 10_000, Via::L2));
}

const KEEPALIVED: &str = r#"
! the pair
global_defs { router_id lb1 }
vrrp_instance VI_1 {
    state MASTER
    virtual_ipaddress { 192.0.2.10 }
}
virtual_server 192.0.2.10 80 {
    delay_loop 6          # seconds
    lb_algo wlc
    lb_kind DR
    protocol TCP
    real_server 10.1.0.11 80 {
        weight 3
        HTTP_GET {
            url { path /healthz
                  status_code 200 }
            connect_timeout 3
        }
    }
    real_server 10.1.0.12 80
    {
        weight 1
        HTTP_GET {
            url {
                path "/healthz"
                status_code 200
            }
            connect_timeout 3
        }
    }
    sorry_server 10.1.0.99 80
}
virtual_server fwmark 3 { lb_algo rr }
virtual_server 2001:db8::1 53 {
    lb_algo sh
    lb_kind TUN
    protocol UDP
    real_server fd00::1 53 {
        weight 1
        DNS_CHECK {
            type a
        }
    }
}
"#;

#[test]
fn keepalived_servers_keep_their_checks() {
    let (desired, imported) = translated(Format::Keepalived, KEEPALIVED);
    assert_notes(
        &imported,
        &[
            (4, "vrrp_instance"),
            (8, "scheduler wlc"),
            (32, "sorry_server"),
            (34, "firewall marks"),
            (41, "DNS_CHECK"),
        ],
    );
    assert_eq!((desired.pools.len(), desired.services.len()), (2, 2), "{}", imported.text);
    let pool = desired.pool(&desired.services[0].pool).unwrap();
    assert_eq!(pool.backends.iter().map(|backend| backend.weight).collect::<Vec<_>>(), [3, 1]);
    assert!(imported.text.contains(
        "check = { type = \"http\", path = \"/healthz\", expect = 200, interval = \"6s\", timeout = \"3s\" }"
    ));
    assert_eq!(desired.pool(&desired.services[1].pool).unwrap().backends[0].via, Via::Ipip);
}

#[test]
fn braces_that_do_not_match_are_told() {
    for (text, words) in [
        ("virtual_server 192.0.2.10 80 {\n", "never closed"),
        ("}\n", "never opened"),
        (&*"a {".repeat(100), "too many braces"),
    ] {
        let imported = import(Format::Keepalived, text);
        assert!(imported.notes.iter().any(|note| note.text.contains(words)), "{text}: {:?}", imported.notes);
    }
}

/// Pieces of both languages, so that something comes of some.
fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "-A",
        "-a",
        "-t",
        "-u",
        "-f",
        "-r",
        "-g",
        "-i",
        "-m",
        "-w",
        "-p",
        "-M",
        "192.0.2.1:80",
        "[2001:db8::1]:53",
        "10.1.0.1:80",
        "0",
        "1",
        "70000",
        "255.0.255.0",
        "virtual_server",
        "real_server",
        "192.0.2.1",
        "10.1.0.1",
        "80",
        "{",
        "}",
        "\n",
        "\"",
        "#",
        "protocol",
        "UDP",
        "weight",
        "TCP_CHECK",
        "HTTP_GET",
        "url",
        "path",
        "/\\\"x",
        "status_code",
        "99",
        "delay_loop",
        "0",
        "connect_port",
        "x",
        "persistence_timeout",
        "persistence_granularity",
        "lb_kind",
        "TUN",
        "DR",
        "\u{fc}",
        "\0",
    ];
    let word = proptest::sample::select(words.to_vec());
    proptest::collection::vec(word, 0..60).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn whatever_is_read_what_comes_out_is_a_configuration_or_says_what_it_lacks(text in pieces()) {
        for format in [Format::Ipvsadm, Format::Keepalived] {
            let imported = import(format, &text);
            let is_valid = config::parse(&imported.text, &Files::new()).is_ok();
            assert_eq!(is_valid, imported.errors.is_empty(), "{text:?}");
            // Whatever its values are, it is the right language.
            assert!(imported.text.parse::<toml_edit::DocumentMut>().is_ok(), "{text:?}\n{}", imported.text);
        }
    }
}
