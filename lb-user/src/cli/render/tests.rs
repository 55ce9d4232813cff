//! Views and the text expected of them.

use super::*;
use crate::{
    api::*,
    model::service::{Via, XdpMode},
};

fn traffic(packets: u64, bytes: u64, packets_per_second: f64, bytes_per_second: f64) -> Traffic {
    Traffic { packets, bytes, packets_per_second, bytes_per_second }
}

fn backend(name: &str, address: &str, state: State, reason: &str) -> BackendView {
    BackendView {
        name: name.to_owned(),
        address: address.parse().expect("an address"),
        via: Via::L2,
        weight: 100,
        weight_percent: 100,
        state,
        reason: reason.to_owned(),
        since_seconds: 0,
        slots: 0,
        share_percent: 0.0,
        mac: None,
        interface: None,
        vlan: None,
        server_id: None,
        drain_ends_in_seconds: None,
        traffic: Traffic::default(),
    }
}

fn backends_of_web() -> Vec<BackendView> {
    vec![
        BackendView {
            since_seconds: 3 * 3600,
            slots: 10921,
            share_percent: 66.67,
            mac: Some("52:54:00:00:00:11".to_owned()),
            interface: Some("eth0".to_owned()),
            traffic: traffic(7_200_000_000, 2_550_000_000_000, 1.2e6, 425e6),
            ..backend("w1", "10.1.0.11", State::Up, "check 200 in 1.2 ms")
        },
        BackendView {
            via: Via::Ipip,
            weight: 50,
            since_seconds: 12,
            slots: 5460,
            share_percent: 33.33,
            mac: Some("52:54:00:00:00:01".to_owned()),
            interface: Some("eth0".to_owned()),
            traffic: traffic(3_600_000_000, 1_275_000_000_000, 0.6e6, 212.5e6),
            ..backend("w2", "10.9.0.12", State::Up, "check 200 in 4.0 ms")
        },
        BackendView {
            via: Via::Ipip,
            weight: 100,
            since_seconds: 150,
            ..backend("w3", "10.9.0.13", State::Down, "TCP RST from 192.0.2.10:80: nothing listens there")
        },
    ]
}

fn www() -> ServiceView {
    ServiceView {
        name: "www".to_owned(),
        vip: "192.0.2.10".parse().expect("an address"),
        ports: ["tcp/80", "tcp/443", "udp/443", "udp/6970-6999"].map(str::to_owned).to_vec(),
        pool: "web".to_owned(),
        policy: PolicyView::default(),
        state: State::Up,
        traffic: traffic(10_800_000_000, 3_825_000_000_000, 1.8e6, 637.5e6),
        backends: backends_of_web(),
        reasons: Vec::new(),
    }
}

fn empty() -> ServiceView {
    ServiceView {
        name: "dns".to_owned(),
        vip: "2001:db8::53".parse().expect("an address"),
        ports: vec!["udp/53".to_owned()],
        pool: "dns".to_owned(),
        policy: PolicyView::default(),
        state: State::Down,
        traffic: Traffic::default(),
        backends: Vec::new(),
        reasons: Vec::new(),
    }
}

fn reason(reason: &str, verdict: &str, packets: u64) -> ReasonStats {
    ReasonStats {
        reason: reason.to_owned(),
        verdict: verdict.to_owned(),
        text: "One sentence.".to_owned(),
        traffic: traffic(packets, packets * 100, 2.0, 200.0),
    }
}

fn web() -> PoolView {
    PoolView {
        name: "web".to_owned(),
        slots: 16381,
        check: Some("http GET /healthz -> 200 every 2s".to_owned()),
        shortage: None,
        services: vec!["www".to_owned()],
        flows: FlowsView { pool: "web".to_owned(), ..FlowsView::default() },
        backends: backends_of_web(),
    }
}

fn status_of(services: Vec<ServiceView>) -> Status {
    Status {
        version: "0.1.0".to_owned(),
        pid: 4711,
        uptime_seconds: 2 * 86_400 + 5,
        config: ConfigView { path: "/etc/lb/lb.toml".to_owned(), generation: 7, errors: Vec::new() },
        interfaces: vec![InterfaceView { name: "eth0".to_owned(), index: 2, mode: XdpMode::Native }],
        services,
        warnings: Vec::new(),
    }
}

#[track_caller]
fn shows(answer: &Response, want: &str) {
    let text = response(answer, Paint::Plain);
    assert!(text == want, "got:\n{text}\nwant:\n{want}");
}

#[test]
fn status_of_a_good_day() {
    shows(
        &Response::Status(Box::new(status_of(vec![www(), empty()]))),
        "\
lb 0.1.0  pid 4711  up 2d
interface eth0 (index 2)  native
config /etc/lb/lb.toml  generation 7

www 192.0.2.10 tcp/80,443,udp/443,6970-6999  UP 2/3  pool web  1.8 Mpps  5.1 Gbit/s
  -> w1  10.1.0.11  l2    UP     3h  w100  66.7%  1.2 Mpps  3.4 Gbit/s  check 200 in 1.2 ms
  -> w2  10.9.0.12  ipip  UP    12s  w50   33.3%  600 kpps  1.7 Gbit/s  check 200 in 4.0 ms
  -> w3  10.9.0.13  ipip  DOWN   2m  w100     0%     0 pps     0 bit/s  TCP RST from 192.0.2.10:80: nothing listens there
dns 2001:db8::53 udp/53  DOWN 0/0  pool dns  0 pps  0 bit/s
  -> none: lb backend add dns NAME ADDRESS
",
    );
}

#[test]
fn status_of_a_bad_day() {
    let view = Status {
        config: ConfigView {
            errors: vec![
                "line 3: pool.web.check.type: \"htp\" is no check\n  did you mean http?".to_owned(),
                "line 9: service.www: no pool \"wbe\"".to_owned(),
            ],
            ..status_of(vec![]).config
        },
        interfaces: Vec::new(),
        warnings: vec!["eth1 is gone: plug it in or take it out of [lb] interfaces".to_owned()],
        ..status_of(vec![])
    };
    shows(
        &Response::Status(Box::new(view)),
        "\
lb 0.1.0  pid 4711  up 2d
attached nowhere: no packet is forwarded
config /etc/lb/lb.toml  generation 7
CONFIG REFUSED: /etc/lb/lb.toml as it stands now is not in force, generation 7 still is
  line 3: pool.web.check.type: \"htp\" is no check
    did you mean http?
  line 9: service.www: no pool \"wbe\"
WARNING: eth1 is gone: plug it in or take it out of [lb] interfaces

no services; add a pool, backends, then a service: lb service add --help
",
    );
}

#[test]
fn lists_have_a_line_each() {
    shows(
        &Response::Services(vec![www(), empty()]),
        "\
SERVICE  VIP           PORTS                         POOL  STATE  UP    PACKETS        BITS
www      192.0.2.10    tcp/80,443,udp/443,6970-6999  web   UP     2/3  1.8 Mpps  5.1 Gbit/s
dns      2001:db8::53  udp/53                        dns   DOWN   0/0     0 pps     0 bit/s
",
    );
    let bare = PoolView { name: "dns".to_owned(), check: None, services: vec![], backends: vec![], ..web() };
    shows(
        &Response::Pools(vec![web(), bare]),
        "\
POOL  UP   SLOTS  SERVICES  CHECK
web   2/3  16381  www       http GET /healthz -> 200 every 2s
dns   0/0  16381  none      none
",
    );
}

#[test]
fn a_pool_shows_where_its_backends_are() {
    let want = "\
web  UP 2/3  16381 slots  services www  check http GET /healthz -> 200 every 2s
  -> w1  10.1.0.11  l2    UP     3h  w100  66.7%  10921 slots  52:54:00:00:00:11  eth0  1.2 Mpps  3.4 Gbit/s  check 200 in 1.2 ms
  -> w2  10.9.0.12  ipip  UP    12s  w50   33.3%   5460 slots  52:54:00:00:00:01  eth0  600 kpps  1.7 Gbit/s  check 200 in 4.0 ms
  -> w3  10.9.0.13  ipip  DOWN   2m  w100     0%      0 slots  no MAC                      0 pps     0 bit/s  TCP RST from 192.0.2.10:80: nothing listens there
";
    shows(&Response::Pool(web()), want);
    assert_eq!(backends(&Response::Pools(vec![web()]), Paint::Plain), want);
    assert_eq!(backends(&Response::Pool(web()), Paint::Plain), want);
}

#[test]
fn health_says_why() {
    let view = |backend: &str, state, reason: &str| HealthView {
        pool: "web".to_owned(),
        backend: backend.to_owned(),
        address: "10.1.0.11".parse().expect("an address"),
        state,
        reason: reason.to_owned(),
        since_seconds: 150,
        check: Some("tcp on 192.0.2.10:80".to_owned()),
        streak: 12,
        agent: None,
        last_ms: Some(1.25),
    };
    shows(
        &Response::Health(vec![
            view("w1", State::Up, "connected in 1.2 ms"),
            HealthView {
                last_ms: None,
                check: None,
                streak: 0,
                ..view("w2", State::Maint, "disabled by an operator")
            },
        ]),
        "\
POOL  BACKEND  ADDRESS    STATE  SINCE  STREAK    LAST  REASON                   CHECK
web   w1       10.1.0.11  UP        2m      12  1.2 ms  connected in 1.2 ms      tcp on 192.0.2.10:80
web   w2       10.1.0.11  MAINT     2m       0          disabled by an operator  no check
",
    );
    shows(&Response::Health(vec![]), "no backends\n");
}

#[test]
fn stats_show_only_reasons_that_happened() {
    let stats = |backend: BackendView, is_leaving| BackendStats {
        backend: backend.name,
        is_leaving,
        traffic: backend.traffic,
    };
    let gone = stats(backend("10.1.0.14", "10.1.0.14", State::Up, ""), true);
    let view = Stats {
        services: vec![ServiceStats {
            service: "www".to_owned(),
            traffic: www().traffic,
            backends: backends_of_web()
                .into_iter()
                .map(|backend| stats(backend, false))
                .chain([gone])
                .collect(),
            reasons: vec![reason("no_backend", "drop", 5), reason("echo_answered", "note", 7)],
        }],
        reasons: vec![
            reason("not_ip", "pass", 1234),
            reason("truncated", "pass", 0),
            reason("no_backend", "drop", 5),
            reason("echo_answered", "note", 7),
        ],
    };
    shows(
        &Response::Stats(view),
        "\
SERVICE                   PACKETS   BYTES      RATE              BECAUSE
www                          11 G  3.8 TB  1.8 Mpps  5.1 Gbit/s
  -> w1                     7.2 G  2.5 TB  1.2 Mpps  3.4 Gbit/s
  -> w2                     3.6 G  1.3 TB  600 kpps  1.7 Gbit/s
  -> w3                         0     0 B     0 pps     0 bit/s
  -> 10.1.0.14 (leaving)        0     0 B     0 pps     0 bit/s
  drop no_backend               5   500 B     2 pps  1.6 kbit/s  One sentence.
  note echo_answered            7   700 B     2 pps  1.6 kbit/s  One sentence.

NOT FORWARDED        PACKETS   BYTES   RATE              BECAUSE
not_ip         pass    1.2 k  123 kB  2 pps  1.6 kbit/s  One sentence.
no_backend     drop        5   500 B  2 pps  1.6 kbit/s  One sentence.

NOTED                PACKETS  BYTES   RATE              BECAUSE
echo_answered  note        7  700 B  2 pps  1.6 kbit/s  One sentence.
",
    );
    shows(
        &Response::Stats(Stats::default()),
        "\
SERVICE  PACKETS  BYTES  RATE
no services

NOT FORWARDED  PACKETS  BYTES  RATE  BECAUSE
none
",
    );
}

#[test]
fn a_service_shows_what_it_refused() {
    let view = ServiceView {
        reasons: vec![reason("denied", "drop", 1234), reason("too_big_answered", "note", 1)],
        backends: Vec::new(),
        ..www()
    };
    shows(
        &Response::Service(Box::new(view)),
        "\
www 192.0.2.10 tcp/80,443,udp/443,6970-6999  UP 0/0  pool web  1.8 Mpps  5.1 Gbit/s
  -> none: lb backend add web NAME ADDRESS
  drop denied            1.2 k  123 kB  2 pps  1.6 kbit/s  One sentence.
  note too_big_answered      1   100 B  2 pps  1.6 kbit/s  One sentence.
",
    );
}

#[test]
fn edits_say_what_they_did() {
    let done = Done { generation: 8, etag: String::new(), message: "added backend web/w4".to_owned() };
    shows(&Response::Done(done), "added backend web/w4 (generation 8)\n");
}

#[test]
fn colour_marks_states_and_moves_nothing() {
    let answer = Response::Status(Box::new(status_of(vec![www()])));
    let coloured = response(&answer, Paint::Colour);
    assert!(coloured.contains("\x1b[32mUP\x1b[0m"), "{coloured}");
    assert!(coloured.contains("\x1b[1;31mDOWN\x1b[0m"), "{coloured}");
    let mut stripped = coloured;
    for sgr in ["\x1b[0m", "\x1b[1m", "\x1b[32m", "\x1b[33m", "\x1b[1;31m"] {
        stripped = stripped.replace(sgr, "");
    }
    assert_eq!(stripped, response(&answer, Paint::Plain));
}

#[test]
fn flows_show_what_is_in_transition_and_until_when() {
    let quiet = FlowsView { pool: "dns".to_owned(), ..FlowsView::default() };
    let backend = |name: &str, is_leaving, remembered, slots| BackendFlows {
        backend: name.to_owned(),
        is_leaving,
        remembered,
        slots,
    };
    let moving = FlowsView {
        pool: "web".to_owned(),
        slots_in_transition: 5460,
        remembered: 1234,
        ends_in_seconds: Some(290),
        backends: vec![backend("w1", false, 1000, 0), backend("10.1.0.13", true, 234, 5460)],
    };
    shows(
        &Response::Flows(vec![quiet, moving.clone()]),
        "\
POOL                      SLOTS IN TRANSITION  FLOWS REMEMBERED  ENDS IN
dns                                         0                 0
web                                     5.5 k             1.2 k       4m
  -> w1                                     0             1.0 k
  -> 10.1.0.13 (leaving)                5.5 k               234
",
    );
    shows(&Response::Flows(Vec::new()), "no pools\n");
    let second = |flows: FlowsView| {
        let pool = response(&Response::Pool(PoolView { flows, ..web() }), Paint::Plain);
        pool.lines().nth(1).map(str::to_owned).unwrap_or_default()
    };
    let still = FlowsView { slots_in_transition: 0, ends_in_seconds: None, ..moving.clone() };
    assert_eq!(second(moving), "  5.5 k slots in transition, 1.2 k flows remembered, ends in 4m");
    assert_eq!(second(still), "  1.2 k flows remembered");
    assert!(second(FlowsView::default()).starts_with("  -> w1"));
}

fn traced() -> TraceView {
    TraceView {
        packet: TracedPacket {
            protocol: TraceProtocol::Tcp,
            client: "198.51.100.7".parse().expect("an address"),
            client_port: 4711,
            vip: "192.0.2.10".parse().expect("an address"),
            vip_port: 80,
            flags: vec!["ACK".to_owned()],
            length: 40,
            ttl: 64,
            interface: "eth0".to_owned(),
        },
        service: Some(TracedService {
            name: Some("www".to_owned()),
            number: 3,
            found_by: TracedKey::Port,
            prefix: None,
        }),
        source: Some(TracedSource {
            list: Some("clients".to_owned()),
            admitted: true,
            is_listed: true,
            prefix: Some("198.51.100.0/24".to_owned()),
        }),
        limits: vec![TracedLimit {
            of: "packets".to_owned(),
            source: "198.51.100.7".to_owned(),
            per_second: 1000.0,
            ahead_ms: 12.0,
            tolerance_ms: 100.0,
            passes: true,
        }],
        hash: Some(TracedHash { hash: "20b413c53c4edf3f".to_owned(), affinity: None }),
        quic: None,
        slot: Some(TracedSlot {
            number: 2092,
            of: 16381,
            place: 2092,
            pool: Some("web".to_owned()),
            owner: Some("w1".to_owned()),
            in_transition: true,
            previous: Some("w3".to_owned()),
            previous_takes: true,
        }),
        flow: Some(TracedFlow {
            tracking: Some("transition".to_owned()),
            asked: true,
            entry: None,
            others: None,
            remembers: true,
            is_full: false,
        }),
        backend: Some(TracedBackend {
            pool: Some("web".to_owned()),
            name: "w3".to_owned(),
            index: 2,
            address: Some("10.9.0.13".parse().expect("an address")),
            state: Some(State::Drain),
            is_leaving: false,
            why: "previous_owner".to_owned(),
        }),
        way: Some(TracedWay {
            encap: "ipip".to_owned(),
            outer_source: Some("172.16.223.63".parse().expect("an address")),
            outer_destination: Some("10.9.0.13".parse().expect("an address")),
            length: 60,
            mtu: 1500,
            mac: "52:54:00:00:00:01".to_owned(),
            interface: Some("eth0".to_owned()),
            source_mac: "52:54:00:00:00:02".to_owned(),
            vlan: Some(7),
        }),
        verdict: TracedVerdict {
            verdict: "XDP_TX".to_owned(),
            reason: None,
            text: "It leaves by the interface it came by.".to_owned(),
        },
    }
}

#[test]
fn a_trace_has_a_line_for_each_step() {
    shows(
        &Response::Trace(Box::new(traced())),
        "\
packet   tcp 198.51.100.7:4711 -> 192.0.2.10:80 ACK, 40 bytes, ttl 64, in by eth0
service  www, by address and port
source   admitted by 198.51.100.0/24 in clients
limit    passes: 1000.0 packets a second from 198.51.100.7, ahead by 12.0 ms of 100.0 ms
hash     20b413c53c4edf3f
slot     2092 of 16381 of web: w1's, in transition from w3
flow     not known yet; this packet would be remembered
backend  web/w3 10.9.0.13 (DRAIN), because the slot was its own when the flow began
way      ipip 172.16.223.63 -> 10.9.0.13, 60 of at most 1500 bytes, to 52:54:00:00:00:01 by eth0 vlan 7, from 52:54:00:00:00:02
ttl      64 -> 63
verdict  XDP_TX: It leaves by the interface it came by.
",
    );
    let denied = TraceView {
        source: Some(TracedSource { list: None, admitted: false, is_listed: false, prefix: None }),
        limits: Vec::new(),
        hash: None,
        slot: None,
        flow: None,
        backend: None,
        way: None,
        verdict: TracedVerdict {
            verdict: "XDP_DROP".to_owned(),
            reason: Some("denied".to_owned()),
            text: "No.".to_owned(),
        },
        ..traced()
    };
    shows(
        &Response::Trace(Box::new(denied)),
        "\
packet   tcp 198.51.100.7:4711 -> 192.0.2.10:80 ACK, 40 bytes, ttl 64, in by eth0
service  www, by address and port
source   denied: its list does not name it
verdict  XDP_DROP, denied: No.
",
    );
}

#[test]
fn a_trace_tells_all_that_is_remembered() {
    let line = |flow: TracedFlow| {
        let text =
            response(&Response::Trace(Box::new(TraceView { flow: Some(flow), ..traced() })), Paint::Plain);
        text.lines().find_map(|line| line.strip_prefix("flow     ").map(str::to_owned)).expect("a line")
    };
    let flow = |asked, entry| TracedFlow {
        tracking: Some("always".to_owned()),
        asked,
        entry,
        others: None,
        remembers: false,
        is_full: false,
    };
    let entry = |ignored: Option<&str>| {
        Some(TracedEntry {
            backend: "w2".to_owned(),
            age_ms: 1250,
            is_confirmed: ignored.is_none(),
            ignored: ignored.map(str::to_owned),
        })
    };
    for (flow, want) in [
        (flow(false, None), "not remembered: its slot is not in transition"),
        (flow(true, entry(None)), "remembered on w2, confirmed, 1.2 s ago"),
        (
            TracedFlow { remembers: true, ..flow(true, entry(None)) },
            "remembered on w2, confirmed, 1.2 s ago; this packet would mark it as seen",
        ),
        (
            TracedFlow { remembers: true, ..flow(true, entry(Some("gone"))) },
            "remembered on w2, seen once, 1.2 s ago, but that one is gone; this packet would be remembered",
        ),
        (
            TracedFlow { others: Some("w3".to_owned()), is_full: true, ..flow(true, None) },
            "not known yet; the source's others are on w3; no room to remember it",
        ),
        (
            TracedFlow { tracking: Some("never".to_owned()), ..flow(false, None) },
            "not remembered: this service's never are",
        ),
        (TracedFlow { tracking: None, ..flow(true, None) }, "its first fragment is not remembered"),
    ] {
        assert_eq!(line(flow), want);
    }
}
