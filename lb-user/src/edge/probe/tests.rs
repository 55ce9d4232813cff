//! Against real sockets on the loopback of a network namespace of their own.

mod datagrams;
mod exec;
mod https;

use std::{collections::BTreeMap, net::SocketAddr};

use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

use super::*;
use crate::{
    edge::namespace::{sh, within},
    model::{
        check::Pace,
        probe::{BackendId, Purpose},
        service::Name,
    },
};

const TIMEOUT: Duration = Duration::from_millis(300);
const MARK: u32 = 0x1b00_0001;

fn id(name: &str) -> ProbeId {
    let backend = BackendId { pool: Name::new("web").unwrap(), backend: Name::new(name).unwrap() };
    ProbeId { backend, purpose: Purpose::Check }
}

fn every(millis: u64) -> Pace {
    let interval = Duration::from_millis(millis);
    Pace { interval, fast: interval, jitter: 10, rise: 1, fall: 1 }
}

/// A check through the VIP path.
fn spec(target: SocketAddr, kind: CheckKind) -> ProbeSpec {
    ProbeSpec {
        target,
        backend: "10.1.0.11".parse().unwrap(),
        mark: Some(MARK),
        kind: ProbeKind::Check(Arc::new(kind)),
        pace: every(100),
        timeout: TIMEOUT,
        max_segment: Some(1400),
    }
}

fn tcp_spec(target: SocketAddr) -> ProbeSpec {
    spec(target, CheckKind::Tcp)
}

fn http_spec(target: SocketAddr) -> ProbeSpec {
    spec(target, CheckKind::Http { path: "/healthz?deep=1".into(), host: None, expect: 200, tls: None })
}

fn silent(target: SocketAddr) -> Result<String, ProbeFailure> {
    Err(ProbeFailure::NoReply { target, after: TIMEOUT, through_vip: true })
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn once(spec: &ProbeSpec) -> Result<String, ProbeFailure> {
    let (sender, _) = unbounded_channel();
    probe(&id("w1"), spec, 1, &Probes::start(sender).shared).await
}

/// Reads a request's head.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Probes a server that answers one request with these bytes and closes.
async fn answered(bytes: &'static [u8]) -> (Result<String, ProbeFailure>, String, SocketAddr) {
    let (listener, target) = listener().await;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = head(&mut stream).await;
        stream.write_all(bytes).await.unwrap();
        head
    };
    let spec = http_spec(target);
    let (result, head) = tokio::join!(once(&spec), server);
    (result, head, target)
}

#[test]
fn a_tcp_check_tells_accepting_refusing_and_silent_apart() {
    within(|| async {
        let (listener, target) = listener().await;
        assert_eq!(once(&tcp_spec(target)).await, Ok("connected".into()));
        // It closed with a reset: nothing stays behind.
        let (mut stream, _) = listener.accept().await.unwrap();
        let end = stream.read_u8().await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);

        drop((listener, stream));
        assert_eq!(once(&tcp_spec(target)).await, Err(ProbeFailure::Refused { target }));

        // A queue that is full lets SYNs fall.
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let target = full.local_addr().unwrap().as_socket().unwrap();
        let _first = TcpStream::connect(target).await.unwrap();
        assert_eq!(once(&tcp_spec(target)).await, silent(target));
        assert_eq!(once(&http_spec(target)).await, silent(target));
    });
}

#[test]
fn the_network_s_fault_and_our_own_are_named() {
    within(|| async {
        sh("ip route add unreachable 192.0.2.0/24
            ip route add prohibit 198.51.100.0/24");
        for target in ["192.0.2.1:80", "203.0.113.1:80", "[2001:db8::1]:80"] {
            let target = target.parse().unwrap();
            let result = once(&tcp_spec(target)).await;
            assert!(matches!(result, Err(ProbeFailure::Unreachable { .. })), "{target} {result:?}");
        }
        let result = once(&tcp_spec("198.51.100.1:80".parse().unwrap())).await;
        assert!(matches!(result, Err(ProbeFailure::Local { .. })), "{result:?}");

        let (_listener, target) = listener().await;
        let absurd = ProbeSpec { max_segment: Some(1), ..tcp_spec(target) };
        let result = once(&absurd).await;
        assert!(matches!(result, Err(ProbeFailure::Local { .. })), "{result:?}");
    });
}

#[test]
fn an_http_check_compares_the_status() {
    within(|| async {
        let (result, head, target) = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(result, Ok("200".into()));
        let (line, fields) = head.split_once("\r\n").unwrap();
        assert_eq!(line, "GET /healthz?deep=1 HTTP/1.1");
        for field in [&format!("host: {target}"), "connection: close", "user-agent: lb/0.1.0"] {
            assert!(fields.lines().any(|line| line.eq_ignore_ascii_case(field)), "{field} in {head}");
        }
        let (result, ..) = answered(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
        assert_eq!(result, Ok("200".into()));
        let (result, ..) = answered(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(result, Err(ProbeFailure::Status { got: 503, expected: 200 }));
    });
}

#[test]
fn an_http_check_says_what_is_wrong_with_an_answer() {
    within(|| async {
        for bytes in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"", b"HTTP/1.1 200 O", &[b'x'; 100_000]] {
            let (result, _, target) = answered(bytes).await;
            let bad = matches!(&result, Err(ProbeFailure::BadAnswer { target: of, .. }) if *of == target);
            assert!(bad, "{result:?}");
        }

        let (listener, target) = listener().await;
        let reset = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await;
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        };
        let spec = http_spec(target);
        let (result, ()) = tokio::join!(once(&spec), reset);
        assert_eq!(result, Err(ProbeFailure::BadAnswer { target, error: "the connection was reset".into() }));

        // Accepted by the kernel, and then nothing.
        let no_answer = Err(ProbeFailure::NoAnswer { target, after: TIMEOUT });
        assert_eq!(once(&http_spec(target)).await, no_answer);
    });
}

/// Outcomes by backend and mark over some time.
async fn count(
    events: &mut UnboundedReceiver<ProbeOutcome>,
    time: Duration,
) -> BTreeMap<(ProbeId, u32), u32> {
    let mut counts = BTreeMap::new();
    let end = Instant::now() + time;
    while let Ok(Some(outcome)) = tokio::time::timeout_at(end, events.recv()).await {
        assert_eq!(outcome.result, Ok("connected".into()));
        *counts.entry((outcome.id, outcome.spec.mark.unwrap())).or_default() += 1;
    }
    counts
}

#[test]
fn a_set_of_probes_changes_without_disturbing_the_rest() {
    within(|| async {
        let (_listener, target) = listener().await;
        let (sender, mut events) = unbounded_channel();
        let mut probes = Probes::start(sender);
        let slow = ProbeSpec { pace: every(60_000), ..tcp_spec(target) };
        let set = |pairs: &[(&str, &ProbeSpec)]| {
            pairs.iter().map(|(name, spec)| (id(name), Arc::new((*spec).clone()))).collect::<BTreeMap<_, _>>()
        };
        let fast = tcp_spec(target);
        probes.set(set(&[("fast", &fast), ("slow", &slow)]));
        let counts = count(&mut events, Duration::from_millis(1050)).await;
        assert_eq!(counts[&(id("slow"), MARK)], 1, "soon after the start");
        assert!((5..=12).contains(&counts[&(id("fast"), MARK)]), "{counts:?}");

        // The slow one is not started again; the changed one is, at once.
        let marked = ProbeSpec { mark: Some(MARK + 1), ..fast };
        probes.set(set(&[("fast", &marked), ("slow", &slow)]));
        let counts = count(&mut events, Duration::from_millis(300)).await;
        assert_eq!(counts.keys().collect::<Vec<_>>(), [&(id("fast"), MARK + 1)]);

        probes.set(BTreeMap::new());
        while events.try_recv().is_ok() {}
        assert!(timeout(Duration::from_millis(300), events.recv()).await.is_err());
    });
}

#[test]
fn probes_of_a_backend_never_overlap() {
    within(|| async {
        let (listener, target) = listener().await;
        let (sender, mut events) = unbounded_channel();
        let mut probes = Probes::start(sender);
        let spec = ProbeSpec { pace: every(50), ..http_spec(target) };
        probes.set(BTreeMap::from([(id("w1"), Arc::new(spec))]));
        let mut open = Vec::new();
        for _ in 0..2 {
            open.push(listener.accept().await.unwrap());
            let early = timeout(TIMEOUT - Duration::from_millis(50), listener.accept()).await;
            assert!(early.is_err(), "while the first still waits");
            let outcome = events.recv().await.unwrap();
            assert_eq!(outcome.result, Err(ProbeFailure::NoAnswer { target, after: TIMEOUT }));
            assert!(outcome.took >= TIMEOUT);
        }
    });
}

#[test]
fn a_probe_is_repeated_faster_until_it_is_settled() {
    within(|| async {
        let (listener, target) = listener().await;
        let (sender, mut events) = unbounded_channel();
        let mut probes = Probes::start(sender);
        let pace = Pace { fast: Duration::from_millis(20), rise: 3, fall: 4, ..every(60_000) };
        let spec = Arc::new(ProbeSpec { pace, ..tcp_spec(target) });
        probes.set(BTreeMap::from([(id("w1"), Arc::clone(&spec))]));
        let counts = count(&mut events, Duration::from_millis(600)).await;
        assert_eq!(counts[&(id("w1"), MARK)], 3, "then it is settled");

        drop(listener);
        let other = ProbeSpec { mark: Some(MARK + 1), ..(*spec).clone() };
        probes.set(BTreeMap::from([(id("w1"), Arc::new(other))]));
        let mut failures = 0;
        while timeout(Duration::from_millis(500), events.recv()).await.is_ok() {
            failures += 1;
        }
        assert_eq!(failures, 4);
    });
}

#[test]
fn chances_differ_by_probe_and_round_and_stay_in_range() {
    let chances: Vec<_> = ["a", "b"]
        .into_iter()
        .flat_map(|name| (0..1000).map(move |round| chance(&id(name), round)))
        .collect();
    assert!(chances.iter().all(|chance| (0.0..=1.0).contains(chance)));
    let mean = chances.iter().sum::<f64>() / 2000.0;
    assert!((0.45..0.55).contains(&mean), "{mean}");
    assert_ne!(chances[0], chances[1000]);
}

/// Asks an agent that sends these bytes and closes.
async fn agent(bytes: &'static [u8]) -> Result<String, ProbeFailure> {
    let (listener, target) = listener().await;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(bytes).await.unwrap();
    };
    let spec = ProbeSpec { mark: None, kind: ProbeKind::Agent, ..tcp_spec(target) };
    tokio::join!(once(&spec), server).0
}

#[test]
fn an_agent_says_one_line() {
    within(|| async {
        for (bytes, line) in
            [(&b"75%\n"[..], "75%"), (b"drain #late\r\nmaint\n", "drain #late"), (b"up", "up"), (b"", "")]
        {
            assert_eq!(agent(bytes).await, Ok(line.to_owned()));
        }
        let (listener, target) = listener().await;
        let spec = ProbeSpec { mark: None, kind: ProbeKind::Agent, ..tcp_spec(target) };
        assert_eq!(once(&spec).await, Err(ProbeFailure::NoAnswer { target, after: TIMEOUT }));
        drop(listener);
        assert_eq!(once(&spec).await, Err(ProbeFailure::Refused { target }));
    });
}
