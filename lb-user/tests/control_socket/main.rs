//! The control socket and its client, end to end in one process: the daemon is a task that records what it is
//! asked. No privileges needed but for the test that says so.

mod command_line;
mod fixture;
mod monitoring;
mod openapi;

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use fixture::{Fixture, PIECES, answer, done, head_and_body, request};
use lb_user::{
    api::*,
    client::{Client, ClientError},
    edge::socket::{Socket, SocketError},
    model::service::AdminState,
};
use tokio::{io::AsyncWriteExt, net::UnixStream, sync::mpsc, time::timeout};

/// One request of each kind, with names that need escaping.
fn requests() -> Vec<Request> {
    let name = || "a/b ?%ü".to_owned();
    let pool = || "web".to_owned();
    let check = CheckSpec { kind: "tcp".to_owned(), rise: Some(1), ..CheckSpec::default() };
    let mut requests = vec![
        Request::Status,
        Request::Services(None),
        Request::Services(Some(name())),
        Request::Pools(None),
        Request::Pools(Some(name())),
        Request::Health,
        Request::Stats,
        Request::Flows,
        Request::Trace(TraceSpec {
            protocol: TraceProtocol::Udp,
            client: "2001:db8::7".parse().expect("an address"),
            client_port: None,
            vip: "2001:db8::1".parse().expect("an address"),
            vip_port: Some(443),
            flags: None,
            length: Some(1200),
            ttl: None,
            quic_id: Some("00ff".to_owned()),
            interface: None,
        }),
        Request::Events(EventsQuery { last: Some(7), follow: false }),
        Request::Plan(Proposal { text: "[lb]\n".to_owned() }),
        Request::Apply(ApplySpec {
            text: "[lb]\nseed = \"ü\"\n".to_owned(),
            confirm_seconds: Some(60),
            max_down_percent: Some(20),
        }),
        Request::Confirm,
        Request::Rollback(None),
        Request::Rollback(Some(7)),
        Request::History(None),
        Request::History(Some(7)),
    ];
    requests.extend(
        [
            Edit::AddService(ServiceSpec {
                name: name(),
                vip: "192.0.2.1".to_owned(),
                ports: vec!["tcp/80".to_owned()],
                pool: pool(),
                affinity: Some("source".to_owned()),
                ..ServiceSpec::default()
            }),
            Edit::SetService {
                name: name(),
                patch: ServicePatch { pool: Some(pool()), ..ServicePatch::default() },
            },
            Edit::DeleteService { name: name() },
            Edit::AddPool(PoolSpec { name: name(), slots: Some(11), check: Some(Box::new(check.clone())) }),
            Edit::SetPool { name: name(), patch: PoolPatch { check: Some(Box::new(check)) } },
            Edit::DeletePool { name: name() },
            Edit::AddBackend {
                pool: pool(),
                backend: BackendSpec { name: name(), address: "::1".to_owned(), ..BackendSpec::default() },
            },
            Edit::SetBackend {
                pool: pool(),
                name: name(),
                patch: BackendPatch { state: Some(AdminState::Maint), ..BackendPatch::default() },
            },
            Edit::DeleteBackend { pool: pool(), name: name() },
        ]
        .map(Request::Edit),
    );
    let guarded = Box::new(requests[requests.len() - 1].clone());
    let etags = vec!["00ff".to_owned(), "0100".to_owned()];
    requests.extend([Request::Config, Request::OnlyIf { etags, request: guarded }]);
    requests
}

#[tokio::test]
async fn streams_come_piece_by_piece_and_end() {
    let fixture = Fixture::start(answer);
    let query = CaptureQuery {
        filter: "service a&b=c client 10.0.0.0/8".to_owned(),
        bytes: Some(96),
        count: Some(3),
        seconds: None,
    };
    let captured = fixture.client().await.capture(&query).await.expect("a capture");
    let followed = fixture.client().await.follow(Some(5)).await.expect("events");
    for mut stream in [captured, followed] {
        let mut text = Vec::new();
        while let Some(piece) = stream.next().await.expect("a piece") {
            text.extend_from_slice(&piece);
        }
        assert_eq!(text, PIECES.concat().as_bytes());
    }
    let wanted = [Request::Capture(query), Request::Events(EventsQuery { last: Some(5), follow: true })];
    assert_eq!(*fixture.asked.lock().expect("log"), wanted);
    let (status, body) = fixture.send("GET", "/v1/capture?count=many", "").await;
    assert_eq!(status, 400, "{body}");
}

#[tokio::test]
async fn every_request_arrives_as_sent_and_every_answer_as_given() {
    let fixture = Fixture::start(answer);
    let mut client = fixture.client().await;
    for request in requests() {
        let got = client.call(request.clone()).await.unwrap_or_else(|error| panic!("{request:?}: {error}"));
        assert_eq!(got, answer(&request), "{request:?}");
    }
    assert_eq!(fixture.asked(), requests());
}

#[tokio::test]
async fn whoever_looked_may_order_only_if_nothing_changed() {
    let fixture = Fixture::start(answer);
    let send = async |header: &str, method: &str, path: &str, body: &str| {
        let stream = UnixStream::connect(&fixture.path).await.expect("connect");
        head_and_body(stream, request(method, path, header, body).as_bytes()).await
    };
    for (method, path) in [("GET", "/v1/config"), ("DELETE", "/v1/pools/web")] {
        let (headers, body) = send("", method, path, "").await;
        assert!(headers.contains("\r\netag: \"00ff\"\r\n"), "{headers}");
        assert!(body.contains("\"etag\":\"00ff\""), "{body}");
    }
    assert!(
        !send("", "GET", "/v1/status", "").await.0.contains("etag"),
        "what changes all the time has none"
    );

    let orders = [
        ("PATCH", "/v1/services/www", "{}"),
        ("PUT", "/v1/config", r#"{"text":""}"#),
        ("POST", "/v1/config/confirm", ""),
        ("POST", "/v1/config/rollback", ""),
    ];
    for (method, path, body) in orders {
        let etags = |etags: &[&str]| etags.iter().map(|&etag| etag.to_owned()).collect::<Vec<_>>();
        let cases = [
            ("if-match: \"1\"\r\nif-match: \"2\", W/\"3\"\r\n", Some(etags(&["1", "2"]))),
            ("if-match: W/\"3\"\r\n", Some(etags(&[]))),
            ("if-match: *\r\n", None),
        ];
        for (header, expected) in cases {
            send(header, method, path, body).await;
            let asked = fixture.asked().pop().expect("a request");
            let only_if = match asked {
                Request::OnlyIf { etags, .. } => Some(etags),
                _ => None,
            };
            assert_eq!(only_if, expected, "{method} {path} {header}");
        }
        let before = fixture.asked().len();
        let (headers, body) = send("if-match: 1\r\n", method, path, body).await;
        assert!(headers.starts_with("HTTP/1.1 400 ") && body.contains("If-Match"), "{headers} {body}");
        assert_eq!(fixture.asked().len(), before, "nothing reaches the daemon");
    }
}

#[tokio::test]
async fn refusals_keep_kind_and_reasons() {
    use RefusalKind::{Conflict, Failed, Invalid, NotFound, Outdated};
    for (kind, status) in [(NotFound, 404), (Conflict, 409), (Outdated, 412), (Invalid, 422), (Failed, 500)] {
        let refusal = Refusal { kind, errors: vec!["one".to_owned(), "two".to_owned()] };
        let answer = Response::Refused(refusal.clone());
        let fixture = Fixture::start(move |_| answer.clone());
        let error = fixture.client().await.call(Request::Status).await.expect_err("refused");
        assert_eq!(error.to_string(), "one\ntwo");
        let ClientError::Refused { refusal: got } = error else { panic!("{error:?}") };
        assert_eq!(got, refusal);
        let (code, body) = fixture.send("GET", "/v1/status", "").await;
        assert_eq!(code, status);
        assert_eq!(serde_json::from_str::<Refusal>(&body).expect("JSON"), refusal);
    }
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused_in_json_and_never_reaches_the_daemon() {
    use RefusalKind::{Invalid, NotFound};
    let fixture = Fixture::start(answer);
    let big = format!(r#"{{"name":"{}"}}"#, "x".repeat(1 << 20));
    let deep = "[".repeat(100_000);
    let post = "POST";
    let cases = [
        ("GET", "/", "", 404, NotFound, "no such route"),
        ("GET", "/v2/status", "", 404, NotFound, "no such route"),
        ("GET", "/v1/services/", "", 404, NotFound, "no such route"),
        ("GET", "/v1/services/a/b", "", 404, NotFound, "no such route"),
        ("GET", "/v1/../v1/status", "", 404, NotFound, "no such route"),
        ("DELETE", "/v1/status", "", 405, Invalid, "does not take DELETE"),
        ("PUT", "/v1/services/www", "{}", 405, Invalid, "does not take PUT"),
        ("GET", "/v1/pools/web/backends", "", 405, Invalid, "does not take GET"),
        ("BREW", "/v1/pools", "", 405, Invalid, "does not take BREW"),
        ("DELETE", "/v1/services/%ff", "", 400, Invalid, "cannot read the path"),
        (post, "/v1/services", "", 400, Invalid, "no JSON"),
        (post, "/v1/services", "{\"name\":", 400, Invalid, "no JSON"),
        (post, "/v1/services", "{} trailing", 422, Invalid, "missing field"),
        (post, "/v1/pools", "{\"name\":\"web\"} trailing", 400, Invalid, "no JSON"),
        (post, "/v1/pools", &deep, 422, Invalid, "expected"),
        (post, "/v1/pools", "{\"name\":\"a\",\"colour\":1}", 422, Invalid, "unknown field `colour`"),
        (post, "/v1/pools", "{\"name\":\"a\",\"slots\":-1}", 422, Invalid, "-1"),
        (post, "/v1/pools", &big, 413, Invalid, "limit"),
        ("PATCH", "/v1/pools/web/backends/w1", "{\"state\":\"sleepy\"}", 422, Invalid, "sleepy"),
        ("PATCH", "/v1/pools/web/backends/w1", "{\"weight\":65536}", 422, Invalid, "65536"),
        ("PATCH", "/v1/pools/web/backends/w1", " [null, null]", 422, Invalid, "it is a list"),
        (post, "/v1/pools", "{\"name\":\"a\",\"check\":[\"tcp\"]}", 422, Invalid, "expected a map"),
    ];
    for (method, path, body, status, kind, words) in cases {
        let (got, text) = fixture.send(method, path, body).await;
        let shown = &body[..body.len().min(60)];
        assert_eq!(got, status, "{method} {path} {shown}: {text}");
        let refusal: Refusal =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{method} {path}: {error}: {text}"));
        assert_eq!(refusal.kind, kind, "{method} {path}");
        assert!(
            refusal.errors.len() == 1 && refusal.errors[0].contains(words),
            "{method} {path}: {refusal:?}"
        );
    }
    assert_eq!(fixture.asked(), []);
}

#[tokio::test]
async fn curl_needs_no_content_type() {
    let fixture = Fixture::start(answer);
    let (status, body) = fixture.send("PATCH", "/v1/pools/web/backends/w1", r#"{"state":"drain"}"#).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(serde_json::from_str::<Done>(&body).expect("JSON"), done());
}

#[tokio::test]
async fn bytes_that_are_no_http_hurt_nobody() {
    let fixture = Fixture::start(answer);
    for garbage in [&b"\x16\x03\x01\x02\x00\r\n\r\n"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"] {
        assert_eq!(fixture.raw(garbage).await.0, 400);
    }
    drop(UnixStream::connect(&fixture.path).await.expect("connect"));
    fixture.client().await.status().await.expect("still serving");
}

#[tokio::test]
async fn file_has_the_promised_modes_and_goes_with_the_daemon() {
    let mut fixture = Fixture::start(answer);
    let metadata = fs::symlink_metadata(&fixture.path).expect("socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    assert_eq!(metadata.gid(), nix::unistd::getegid().as_raw(), "the daemon's group, unless told otherwise");
    let directory = fs::metadata(fixture.path.parent().expect("parent")).expect("directory");
    assert_eq!(directory.permissions().mode() & 0o7777, 0o755);
    // An idle connection must not hold the daemon up.
    let _idle = fixture.client().await;
    drop(fixture.stop.take());
    let stopped = timeout(Duration::from_secs(1), &mut fixture.server).await;
    stopped.expect("stops at once").expect("no panic").expect("no error");
    assert!(!fixture.path.exists());
}

#[tokio::test]
async fn half_a_request_does_not_keep_the_daemon_from_stopping() {
    let mut fixture = Fixture::start(answer);
    let mut stuck = UnixStream::connect(&fixture.path).await.expect("connect");
    stuck.write_all(b"POST /v1/pools HTTP/1.1\r\ncontent-length: 10\r\n\r\n{").await.expect("write");
    fixture.client().await.status().await.expect("serving");
    drop(fixture.stop.take());
    let stopped = timeout(Duration::from_secs(5), &mut fixture.server).await;
    stopped.expect("stops").expect("no panic").expect("no error");
}

#[tokio::test]
async fn stale_socket_is_replaced_live_one_and_other_files_are_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("lb.sock");
    // A listener that goes away without removing its file, as after a crash.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
    assert!(path.exists());
    let socket = Socket::bind(&path, None).expect("replaces a stale one");
    assert_eq!(socket.path(), path);

    let error = Socket::bind(&path, None).expect_err("refuses a live one");
    assert!(matches!(error, SocketError::Busy { .. }), "{error:?}");
    assert!(error.to_string().contains("another daemon"), "{error}");

    drop(socket);
    assert!(!path.exists());
    fs::write(&path, "precious").expect("write");
    let error = Socket::bind(&path, None).expect_err("refuses a file");
    assert!(matches!(error, SocketError::NotASocket { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}

#[tokio::test]
async fn a_successor_keeps_its_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("lb.sock");
    let old = Socket::bind(&path, None).expect("bind");
    fs::remove_file(&path).expect("remove");
    let _new = Socket::bind(&path, None).expect("bind again");
    drop(old);
    assert!(path.exists());
}

#[tokio::test]
async fn the_group_may_use_the_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("lb.sock");
    let error = Socket::bind(&path, Some("no-such-group-here")).expect_err("no such group");
    assert!(matches!(error, SocketError::NoGroup { .. }), "{error:?}");
    assert!(!path.exists());

    if !nix::unistd::geteuid().is_root() {
        assert_ne!(std::env::var("LB_REQUIRE_ROOT").as_deref(), Ok("1"), "must run as root");
        println!("SKIPPED: giving a file to another group needs root");
        return;
    }
    let group = nix::unistd::Group::from_name("daemon").expect("look up").expect("group daemon");
    let _socket = Socket::bind(&path, Some("daemon")).expect("bind");
    assert_eq!(fs::metadata(&path).expect("socket").gid(), group.gid.as_raw());
}

#[tokio::test]
async fn a_client_without_a_daemon_is_told_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("lb.sock");
    let no_daemon = |path: &Path| format!("no daemon listens on {}: is `lb run` running?", path.display());
    let error = Client::connect(&path).await.expect_err("nothing there");
    assert_eq!(error.to_string(), no_daemon(&path));
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
    let error = Client::connect(&path).await.expect_err("nobody listens");
    assert_eq!(error.to_string(), no_daemon(&path));
    let error = Client::connect(Path::new("/etc/hostname/lb.sock")).await.expect_err("no directory");
    let ClientError::Connect { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), ErrorKind::NotADirectory);
}

#[tokio::test]
async fn a_daemon_that_stops_in_between_is_unavailable() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("lb.sock");
    let (calls, incoming) = mpsc::channel(1);
    drop(incoming);
    let socket = Socket::bind(&path, None).expect("bind");
    let _server = tokio::spawn(socket.serve(calls, std::future::pending()));
    let mut client = Client::connect(&path).await.expect("connect");
    let error = client.status().await.expect_err("nobody answers");
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error:?}");
}
