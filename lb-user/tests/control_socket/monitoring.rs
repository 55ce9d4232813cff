//! What a monitoring system reads, and the listener that it reads by.

use std::{
    collections::BTreeMap, fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, time::Duration,
};

use lb_user::{api::*, edge::socket::Listener};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use crate::fixture::{Fixture, answer, exchange, status};

/// Every sample by its name and labels; fails for a text that is not in the format (each metric's HELP and TYPE come first,
/// its samples together, each once).
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let (mut helped, mut typed, mut known) = (String::new(), String::new(), Vec::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped = rest.split(' ').next().expect(line).to_owned();
            assert!(rest.len() > helped.len() + 5, "no sentence: {line}");
            assert!(!known.contains(&helped), "a metric is in two pieces: {line}");
            known.push(helped.clone());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert_eq!(name, helped, "{line}");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            typed = name.to_owned();
        } else {
            let (key, value) = line.rsplit_once(' ').expect(line);
            let name = key.split('{').next().expect(line);
            assert_eq!(name, typed, "{line}");
            assert!(name.starts_with("lb_"), "{line}");
            let value = value.parse().expect(line);
            assert!(found.insert(key.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    found
}

#[tokio::test]
async fn metrics_are_in_the_text_format() {
    let fixture = Fixture::start(answer);
    let (code, text) = fixture.send("GET", "/metrics", "").await;
    assert_eq!(code, 200, "{text}");
    let found = samples(&text);
    for (key, value) in [
        (r#"lb_build_info{version="0.1.0"}"#, 1.0),
        ("lb_uptime_seconds", 2.0),
        ("lb_ready", 0.0),
        (r#"lb_interface_attached{interface="eth0",mode="native"}"#, 1.0),
        (r#"lb_service_up{service="www",vip="192.0.2.10"}"#, 1.0),
        (r#"lb_backend_state{pool="web",backend="w1",state="drain"}"#, 1.0),
        (r#"lb_backend_state{pool="web",backend="w1",state="up"}"#, 0.0),
        (r#"lb_check_duration_seconds{pool="web",backend="w1"}"#, 0.0015),
        (r#"lb_pool_slots{pool="web"}"#, 11.0),
        (r#"lb_pool_remembered_flows{pool="web"}"#, 2.0),
    ] {
        assert_eq!(found.get(key), Some(&value), "{key} in\n{text}");
    }
}

#[tokio::test]
async fn a_daemon_is_ready_when_nothing_is_wrong() {
    let fixture = Fixture::start(answer);
    assert_eq!(fixture.send("GET", "/healthz", "").await, (200, "ok\n".to_owned()));
    let (code, why) = fixture.send("GET", "/readyz", "").await;
    assert_eq!((code, &*why), (503, "no configuration is in force yet\ncareful\n"));

    let fixture = Fixture::start(|_| {
        let config = ConfigView { generation: 1, ..ConfigView::default() };
        Response::Status(Box::new(Status { config, warnings: Vec::new(), ..status() }))
    });
    assert_eq!(fixture.send("GET", "/readyz", "").await, (200, "ready\n".to_owned()));
}

/// A listener of this machine's own, on a free port.
fn listen(fixture: &Fixture, token: Option<&Path>) -> (SocketAddr, JoinHandle<()>) {
    let any = "127.0.0.1:0".parse().expect("an address");
    let listener = Listener::bind(any, token).expect("listen");
    let address = listener.address().expect("an address");
    (address, tokio::spawn(listener.serve(fixture.by_tcp.clone())))
}

async fn by_tcp(address: SocketAddr, method: &str, path: &str, header: &str) -> (u16, String) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: lb\r\nconnection: close\r\n{header}content-length: 2\r\n\r\n{{}}"
    );
    exchange(TcpStream::connect(address).await.expect("connect"), request.as_bytes()).await
}

#[tokio::test]
async fn by_tcp_only_questions_are_answered_without_a_token() {
    let fixture = Fixture::start(answer);
    let (address, _server) = listen(&fixture, None);
    for path in ["/metrics", "/healthz", "/v1/status", "/v1/pools"] {
        let (code, body) = by_tcp(address, "GET", path, "").await;
        assert_eq!(code, 200, "{path}: {body}");
    }
    let asked = fixture.asked().len();
    let anything = "authorization: Bearer \r\n";
    for (method, path) in [
        ("DELETE", "/v1/pools/web"),
        ("PATCH", "/v1/pools/web/backends/w1"),
        ("PUT", "/v1/config"),
        ("POST", "/v1/config/rollback"),
        ("GET", "/v1/capture"),
    ] {
        for header in ["", anything] {
            let (code, body) = by_tcp(address, method, path, header).await;
            assert_eq!(code, 403, "{method} {path}: {body}");
            let refusal: Refusal = serde_json::from_str(&body).expect("JSON");
            assert!(refusal.errors[0].contains("--api-token-file"), "{refusal:?}");
        }
    }
    assert_eq!(fixture.asked().len(), asked, "a refused request reached the daemon");
}

#[tokio::test]
async fn by_tcp_the_token_opens_the_rest() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    fs::write(&file, "0123456789abcdef\n").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
    let fixture = Fixture::start(answer);
    let (address, _server) = listen(&fixture, Some(&file));
    for (header, wanted) in [
        ("", 401),
        ("authorization: Bearer 0123456789abcdee\r\n", 401),
        ("authorization: Bearer 0123456789abcdef0\r\n", 401),
        ("authorization: Basic 0123456789abcdef\r\n", 401),
        ("authorization: Bearer 0123456789abcdef\r\n", 200),
    ] {
        let (code, body) = by_tcp(address, "DELETE", "/v1/pools/web", header).await;
        assert_eq!(code, wanted, "{header}: {body}");
    }
    assert_eq!(fixture.asked(), [Request::Edit(Edit::DeletePool { name: "web".to_owned() })]);
    assert_eq!(by_tcp(address, "GET", "/healthz", "").await.0, 200, "questions stay open");
}

#[tokio::test]
async fn a_client_that_dawdles_or_floods_hinders_nobody() {
    let fixture = Fixture::start(answer);
    let (address, _server) = listen(&fixture, None);
    // More than there is room for, each in the middle of its first line.
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        drop(stream.write_all(b"GET /v1/sta").await);
        slow.push(stream);
    }
    // Those that came too late are closed at once, the others are given up after some time.
    let mut rest = Vec::new();
    let closed = timeout(Duration::from_secs(2), slow.pop().expect("a stream").read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the last of a hundred is still open");
    drop(slow);
    let mut code = 0;
    for _ in 0..50 {
        if let Ok((answer, _)) = timeout(Duration::from_secs(1), patiently(address)).await {
            code = answer;
        }
        if code == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(code, 200, "nobody is served any more");

    let head = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let mut stream = TcpStream::connect(address).await.expect("connect");
    drop(stream.write_all(head.as_bytes()).await);
    let mut text = Vec::new();
    drop(timeout(Duration::from_secs(5), stream.read_to_end(&mut text)).await.expect("an end"));
    assert!(!text.starts_with(b"HTTP/1.1 200"), "a head of 100 kB was taken");
}

/// Asks once; 0 if the connection is closed without an answer.
async fn patiently(address: SocketAddr) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return (0, String::new()) };
    let request = b"GET /healthz HTTP/1.1\r\nhost: lb\r\nconnection: close\r\n\r\n";
    if stream.write_all(request).await.is_err() {
        return (0, String::new());
    }
    let mut text = String::new();
    drop(stream.read_to_string(&mut text).await);
    (text.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0), text)
}
