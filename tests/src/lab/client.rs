//! Clients that count: who answered, how often, how fast, and what went wrong.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{Namespace, echo, interrupt};

/// How long a client waits for one answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a backend is asked for its name; each time on a new connection (or from a new UDP port).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `GET /` from nginx.
    Http,
    /// The first line of the TCP echo server.
    Tcp,
    /// A datagram to the UDP echo server.
    Udp,
}

impl Ask {
    /// The port it goes to.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => super::server::HTTP_PORT,
            Self::Tcp | Self::Udp => echo::PORT,
        }
    }

    /// Asks once, from the namespace of the calling thread.
    ///
    /// # Errors
    /// The system's, or `InvalidData` if the answer is not what it should be or does not come from the VIP.
    pub fn once(self, vip: IpAddr) -> io::Result<String> {
        let target = SocketAddr::new(vip, self.port());
        match self {
            Self::Http => {
                let mut answer = request(target, "/")?;
                let mut name = String::new();
                answer.read_to_string(&mut name)?;
                Ok(name.trim().to_owned())
            }
            Self::Tcp => {
                let mut name = String::new();
                BufReader::new(connect(target)?).read_line(&mut name)?;
                if name.ends_with('\n') {
                    Ok(name.trim().to_owned())
                } else {
                    Err(wrong("closed before its name"))
                }
            }
            Self::Udp => datagram(target, b"to be or not to be"),
        }
    }
}

/// The outcome of many requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers by the name of the backend.
    pub answers: BTreeMap<String, u64>,
    /// What went wrong, by its words.
    pub errors: BTreeMap<String, u64>,
    /// The slowest answer.
    pub slowest: Duration,
}

impl Tally {
    /// Requests answered.
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Requests not answered, or wrongly.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Answers of one backend.
    pub fn of(&self, backend: &str) -> u64 {
        self.answers.get(backend).copied().unwrap_or(0)
    }

    /// Counts one more.
    pub fn count(&mut self, answer: &io::Result<String>, took: Duration) {
        match answer {
            Ok(name) => {
                *self.answers.entry(name.clone()).or_default() += 1;
                self.slowest = self.slowest.max(took);
            }
            Err(error) => *self.errors.entry(error.to_string()).or_default() += 1,
        }
    }

    fn merge(mut self, other: Self) -> Self {
        for (name, count) in other.answers {
            *self.answers.entry(name).or_default() += count;
        }
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        self.slowest = self.slowest.max(other.slowest);
        self
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers = self.answers.iter().map(|(name, count)| format!("{name} {count}"));
        let errors = self
            .errors
            .iter()
            .map(|(error, count)| format!("{count} failed ({error})"));
        f.write_str(&answers.chain(errors).collect::<Vec<_>>().join(", "))
    }
}

/// Asks `count` times from a namespace, `workers` at a time.
///
/// # Errors
/// If the namespace cannot be entered, or the process was interrupted. Failed requests are in the tally.
pub fn ask(client: &Namespace, how: Ask, vip: IpAddr, count: usize, workers: usize) -> Result<Tally> {
    let left = AtomicUsize::new(count);
    let take = || {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
    };
    let work = || {
        let mut tally = Tally::default();
        while take() && !interrupt::requested() {
            let start = Instant::now();
            tally.count(&how.once(vip), start.elapsed());
        }
        tally
    };
    let tally = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(|| client.enter(work))).collect();
        threads.into_iter().try_fold(Tally::default(), |sum, thread| {
            let part = thread.join().map_err(|_| anyhow!("a client panicked"))??;
            anyhow::Ok(sum.merge(part))
        })
    })?;
    interrupt::check()?;
    Ok(tally)
}

/// One request of a [`Stream`].
#[derive(Clone, Debug)]
pub struct Record {
    /// When it was sent.
    pub sent: Instant,
    /// How long it took.
    pub took: Duration,
    /// Who answered, or what went wrong.
    pub answer: std::result::Result<String, String>,
}

/// A client that asks without a pause until it is stopped.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    records: Arc<Mutex<Vec<Record>>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Stream {
    /// Starts `workers` that each ask, wait for the answer, rest for `pause`, and ask again.
    ///
    /// # Errors
    /// If the namespace is gone.
    pub fn start(client: &Namespace, how: Ask, vip: IpAddr, workers: usize, pause: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let records = Arc::new(Mutex::new(Vec::new()));
        let mut threads = Vec::new();
        for _ in 0..workers {
            let (stop, records) = (Arc::clone(&stop), Arc::clone(&records));
            let client = Namespace::find(client.name())?;
            threads.push(std::thread::spawn(move || {
                client.enter(|| {
                    while !stop.load(Ordering::Relaxed) && !interrupt::requested() {
                        let sent = Instant::now();
                        let answer = how.once(vip).map_err(|error| error.to_string());
                        let record = Record {
                            sent,
                            took: sent.elapsed(),
                            answer,
                        };
                        records.lock().expect("no client panicked").push(record);
                        std::thread::sleep(pause);
                    }
                })
            }));
        }
        Ok(Self {
            stop,
            records,
            threads,
        })
    }

    /// Requests ended so far.
    ///
    /// # Panics
    /// If a client did.
    pub fn len(&self) -> usize {
        self.records.lock().expect("no client panicked").len()
    }

    /// Whether none ended yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stops and gives every request in the order of sending.
    ///
    /// # Errors
    /// If the namespace could not be entered, or the process was interrupted.
    ///
    /// # Panics
    /// If a client did.
    pub fn stop(mut self) -> Result<Vec<Record>> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        interrupt::check()?;
        let mut records = std::mem::take(&mut *self.records.lock().expect("no client panicked"));
        records.sort_by_key(|record| record.sent);
        Ok(records)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of a client has been printed; this drop may itself be part of an unwinding.
            drop(thread.join());
        }
    }
}

/// Puts records into a tally.
pub fn tally<'a>(records: impl IntoIterator<Item = &'a Record>) -> Tally {
    let mut tally = Tally::default();
    for record in records {
        tally.count(&record.answer.clone().map_err(io::Error::other), record.took);
    }
    tally
}

/// Sends `length` patterned bytes to the TCP echo server and compares what comes back; gives the backend's name.
///
/// # Errors
/// The first difference, or what broke the connection.
pub fn echo_bytes(client: &Namespace, vip: IpAddr, length: usize) -> Result<String> {
    let target = SocketAddr::new(vip, echo::PORT);
    client
        .enter(|| {
            let mut output = connect(target)?;
            let mut input = BufReader::new(output.try_clone()?);
            let mut name = String::new();
            input.read_line(&mut name)?;
            let sent = pattern(length);
            let received = std::thread::scope(|scope| {
                let sender = scope.spawn(|| {
                    output.write_all(&sent)?;
                    output.shutdown(std::net::Shutdown::Write)
                });
                let mut received = Vec::with_capacity(length);
                input.read_to_end(&mut received)?;
                sender.join().map_err(|_| anyhow!("the sender panicked"))??;
                anyhow::Ok(received)
            })?;
            same(&sent, &received)?;
            anyhow::Ok(name.trim().to_owned())
        })?
        .with_context(|| format!("echo of {length} bytes through {target}"))
}

/// Downloads `/blob` by HTTP and compares it with what it should be; gives its length.
///
/// # Errors
/// The first difference, or what broke the connection.
pub fn download(client: &Namespace, vip: IpAddr) -> Result<usize> {
    let target = SocketAddr::new(vip, Ask::Http.port());
    client
        .enter(|| {
            let mut received = Vec::new();
            request(target, "/blob")?.read_to_end(&mut received)?;
            same(&pattern(super::server::BLOB), &received)?;
            anyhow::Ok(received.len())
        })?
        .with_context(|| format!("downloading http://{target}/blob"))
}

/// Sends a datagram of `length` patterned bytes and compares what comes back; gives the backend's name.
///
/// # Errors
/// No answer, an answer from elsewhere than the VIP, or with another payload.
pub fn echo_datagram(client: &Namespace, vip: IpAddr, length: usize) -> Result<String> {
    let target = SocketAddr::new(vip, echo::PORT);
    client
        .enter(|| datagram(target, &pattern(length)))?
        .with_context(|| format!("echo of a datagram of {length} bytes through {target}"))
}

/// A connection to the TCP echo server that stays open.
#[derive(Debug)]
pub struct Held {
    stream: BufReader<TcpStream>,
    /// The backend that holds the other end.
    pub backend: String,
}

impl Held {
    /// Connects from a namespace.
    ///
    /// # Errors
    /// What broke.
    pub fn open(client: &Namespace, vip: IpAddr) -> Result<Self> {
        let target = SocketAddr::new(vip, echo::PORT);
        client
            .enter(|| {
                let mut stream = BufReader::new(connect(target)?);
                let mut backend = String::new();
                stream.read_line(&mut backend)?;
                io::Result::Ok(Self {
                    stream,
                    backend: backend.trim().to_owned(),
                })
            })?
            .with_context(|| format!("connecting to {target}"))
    }

    /// Whether the other end still echoes.
    ///
    /// # Errors
    /// What broke.
    pub fn ping(&mut self) -> io::Result<()> {
        self.stream.get_mut().write_all(b"ping")?;
        let mut answer = [0; 4];
        self.stream.read_exact(&mut answer)?;
        if &answer == b"ping" {
            Ok(())
        } else {
            Err(wrong("another payload than was sent"))
        }
    }
}

/// Bytes that differ from place to place, so that a swapped or repeated segment shows.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut bytes = Vec::with_capacity(length + 3);
    while bytes.len() < length {
        // xorshift32 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn same(sent: &[u8], received: &[u8]) -> Result<()> {
    if let Some(place) = sent.iter().zip(received).position(|(a, b)| a != b) {
        anyhow::bail!("byte {place} differs");
    }
    ensure!(
        sent.len() == received.len(),
        "{} bytes came, expected {}",
        received.len(),
        sent.len()
    );
    Ok(())
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends an HTTP/1.0 request and gives the body of a 200.
fn request(target: SocketAddr, path: &str) -> io::Result<impl io::Read> {
    let mut stream = connect(target)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {target}\r\n\r\n").as_bytes())?;
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    if line.split(' ').nth(1) != Some("200") {
        return Err(wrong(&format!("answered {:?}", line.trim())));
    }
    while line.trim() != "" {
        line.clear();
        answer.read_line(&mut line)?;
    }
    Ok(answer)
}

fn datagram(target: SocketAddr, payload: &[u8]) -> io::Result<String> {
    let any: IpAddr = if target.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0_u16; 8].into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Not connected on purpose: a reply from a wrong address must be seen, not filtered.
    socket.send_to(payload, target)?;
    let mut buffer = vec![0; 65_535];
    let (length, source) = socket.recv_from(&mut buffer)?;
    if source != target {
        return Err(wrong(&format!("the reply came from {source}, not from {target}")));
    }
    let answer = &buffer[..length];
    let space = answer
        .iter()
        .position(|&byte| byte == b' ')
        .ok_or_else(|| wrong("no name in the reply"))?;
    if &answer[space + 1..] != payload {
        return Err(wrong("another payload than was sent"));
    }
    Ok(String::from_utf8_lossy(&answer[..space]).into_owned())
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_found() {
        let sent = pattern(1000);
        assert!(same(&sent, &sent).is_ok());
        assert_ne!(sent[..4], sent[4..8], "the pattern repeats");
        let mut swapped = sent.clone();
        swapped.swap(10, 500);
        assert_eq!(same(&sent, &swapped).unwrap_err().to_string(), "byte 10 differs");
        assert!(
            same(&sent, &sent[..999])
                .unwrap_err()
                .to_string()
                .contains("999 bytes")
        );
    }
}
