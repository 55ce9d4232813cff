//! A daemon that records what it is asked and answers from a table, behind a real socket.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use lb_user::{
    api::*,
    client::Client,
    edge::socket::{Call, Socket},
    model::service::XdpMode,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// A socket in a directory of its own, and a daemon behind it that answers with `answer`.
pub(crate) struct Fixture {
    _directory: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) asked: Arc<Mutex<Vec<Request>>>,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) server: JoinHandle<std::io::Result<()>>,
    /// The way to the daemon, for a listener.
    pub(crate) by_tcp: mpsc::Sender<Call>,
}

/// What every stream brings.
pub(crate) const PIECES: [&str; 2] = ["one", "two"];

impl Fixture {
    pub(crate) fn start(answer: impl Fn(&Request) -> Response + Send + 'static) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("run/lb.sock");
        let socket = Socket::bind(&path, None).expect("bind");
        let (calls, mut incoming) = mpsc::channel::<Call>(8);
        let by_tcp = calls.clone();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        tokio::spawn(async move {
            while let Some(Call { request, reply, stream }) = incoming.recv().await {
                let response = answer(&request);
                log.lock().expect("log").push(request);
                let is_streaming = response == Response::Streaming;
                drop(reply.send(response));
                for piece in PIECES {
                    if let Some(stream) = stream.as_ref().filter(|_| is_streaming) {
                        stream.send(piece.into()).await.expect("a client that reads");
                    }
                }
            }
        });
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(socket.serve(calls, async move { drop(stopped.await) }));
        Self { _directory: directory, path, asked, stop: Some(stop), server, by_tcp }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.path).await.expect("connect")
    }

    /// Sends bytes as they are and reads until the other side closes: status and body.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> (u16, String) {
        exchange(UnixStream::connect(&self.path).await.expect("connect"), bytes).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.raw(request(method, path, "", body).as_bytes()).await
    }

    pub(crate) fn asked(&self) -> Vec<Request> {
        self.asked.lock().expect("log").clone()
    }
}

/// A request with further header lines, each with its end.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: lb\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

/// Sends bytes as they are and reads until the other side closes: status and body.
pub(crate) async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> (u16, String) {
    let (head, body) = head_and_body(stream, bytes).await;
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no HTTP answer: {head:?}")), body)
}

/// The same: status line with headers, and body.
pub(crate) async fn head_and_body(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    bytes: &[u8],
) -> (String, String) {
    stream.write_all(bytes).await.expect("write");
    let mut text = String::new();
    timeout(Duration::from_secs(5), stream.read_to_string(&mut text))
        .await
        .expect("an answer in time")
        .expect("an answer");
    let end = text.find("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
    (text[..end + 2].to_owned(), text[end + 4..].to_owned())
}

pub(crate) fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        pid: 1,
        uptime_seconds: 2,
        config: ConfigView::default(),
        interfaces: vec![InterfaceView { name: "eth0".to_owned(), index: 2, mode: XdpMode::Native }],
        services: vec![service()],
        warnings: vec!["careful".to_owned()],
    }
}

fn service() -> ServiceView {
    ServiceView {
        name: "www".to_owned(),
        vip: "192.0.2.10".parse().expect("an address"),
        ports: vec!["tcp/80".to_owned()],
        pool: "web".to_owned(),
        policy: PolicyView::default(),
        state: State::Up,
        traffic: Traffic { packets: u64::MAX, bytes: 1, packets_per_second: 0.1, bytes_per_second: 1e9 },
        backends: Vec::new(),
        reasons: vec![refused()],
    }
}

fn refused() -> ReasonStats {
    ReasonStats {
        reason: "denied".to_owned(),
        verdict: "drop".to_owned(),
        text: "No.".to_owned(),
        traffic: Traffic { packets: 3, ..Traffic::default() },
    }
}

fn pool() -> PoolView {
    PoolView {
        name: "web".to_owned(),
        slots: 11,
        check: None,
        shortage: None,
        services: Vec::new(),
        flows: flows(),
        backends: Vec::new(),
    }
}

fn flows() -> FlowsView {
    let backend = BackendFlows { backend: "w1".to_owned(), is_leaving: true, remembered: 2, slots: 3 };
    FlowsView {
        pool: "web".to_owned(),
        slots_in_transition: 3,
        remembered: 2,
        ends_in_seconds: Some(1),
        backends: vec![backend],
    }
}

fn trace(spec: &TraceSpec) -> TraceView {
    TraceView {
        packet: TracedPacket {
            protocol: spec.protocol,
            client: spec.client,
            client_port: spec.client_port.unwrap_or(40_000),
            vip: spec.vip,
            vip_port: spec.vip_port.unwrap_or(0),
            flags: vec!["SYN".to_owned()],
            length: 40,
            ttl: 64,
            interface: "eth0".to_owned(),
        },
        service: None,
        source: None,
        limits: vec![TracedLimit {
            of: "packets".to_owned(),
            source: "192.0.2.0/24".to_owned(),
            per_second: 1000.0,
            ahead_ms: 0.5,
            tolerance_ms: 100.0,
            passes: true,
        }],
        hash: None,
        quic: None,
        slot: None,
        flow: None,
        backend: None,
        way: None,
        verdict: TracedVerdict {
            verdict: "XDP_PASS".to_owned(),
            reason: Some("not_for_service".to_owned()),
            text: "No.".to_owned(),
        },
    }
}

fn health() -> HealthView {
    HealthView {
        pool: "web".to_owned(),
        backend: "w1".to_owned(),
        address: "2001:db8::1".parse().expect("an address"),
        state: State::Drain,
        reason: "an operator".to_owned(),
        since_seconds: 1,
        check: None,
        agent: None,
        streak: 3,
        last_ms: Some(1.5),
    }
}

fn event() -> EventView {
    let log = LogView { level: "info".to_owned(), text: "hello".to_owned() };
    EventView { number: 3, time: "2023-11-14T22:13:20.000Z".to_owned(), what: Happening::Log(log) }
}

fn plan() -> PlanView {
    let change =
        |name: &str, change| ChangeView { name: name.to_owned(), change, what: vec!["x".to_owned()] };
    PlanView {
        etag: "00ff".to_owned(),
        generation: 3,
        settings: vec!["seed".to_owned()],
        services: vec![change("www", ChangeKind::Added)],
        pools: vec![PoolPlanView {
            name: "web".to_owned(),
            change: ChangeKind::Changed,
            what: Vec::new(),
            backends: vec![change("w1", ChangeKind::Removed)],
            slots: 11,
            slots_moved: 3,
            percent_moved: 27.5,
            remembered: 5,
            remembered_on_leaving: 1,
        }],
        acls: Vec::new(),
        steps: 2,
        writes: 12,
    }
}

fn past() -> PastView {
    PastView {
        number: 4,
        time: "2023-11-14T22:13:20.000Z".to_owned(),
        said: "lb was started".to_owned(),
        in_force: true,
        text: Some("[lb]\n".to_owned()),
    }
}

pub(crate) fn done() -> Done {
    Done { generation: 7, etag: "00ff".to_owned(), message: "done".to_owned() }
}

/// What a daemon might answer.
pub(crate) fn answer(request: &Request) -> Response {
    match request {
        Request::Status => Response::Status(Box::new(status())),
        Request::Services(None) => Response::Services(vec![service()]),
        Request::Services(Some(_)) => Response::Service(Box::new(service())),
        Request::Pools(None) => Response::Pools(vec![pool()]),
        Request::Pools(Some(_)) => Response::Pool(pool()),
        Request::Health => Response::Health(vec![health()]),
        Request::Stats => Response::Stats(Stats::default()),
        Request::Metrics => Response::Metrics(Box::new(metrics::Metrics {
            status: status(),
            health: vec![health()],
            stats: Stats::default(),
            flows: vec![flows()],
            pools: vec![("web".to_owned(), 11)],
        })),
        Request::Flows => Response::Flows(vec![flows()]),
        Request::Trace(spec) => Response::Trace(Box::new(trace(spec))),
        Request::Events(EventsQuery { follow: false, .. }) => Response::Events(vec![event()]),
        Request::Events(_) | Request::Capture(_) => Response::Streaming,
        Request::Config => Response::Config(ConfigText {
            path: "/etc/lb/lb.toml".to_owned(),
            generation: 7,
            etag: "00ff".to_owned(),
            text: "[lb]\n".to_owned(),
        }),
        Request::OnlyIf { request, .. } => answer(request),
        Request::Plan(_) => Response::Plan(Box::new(plan())),
        Request::History(_) => Response::History(vec![past()]),
        Request::Edit(_) | Request::Apply(_) | Request::Confirm | Request::Rollback(_) => {
            Response::Done(done())
        }
    }
}
