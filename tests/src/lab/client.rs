//! Clients: they ask who answers, or compare every byte that comes back.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Namespace, Tally, echo, interrupt};

/// How long a client waits for one answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The source port that leaves the choice to the kernel.
const ANY_PORT: u16 = 0;

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
        self.once_from(ANY_PORT, vip)
    }

    /// The same from a given source port.
    ///
    /// # Errors
    /// As [`Ask::once`].
    pub fn once_from(self, source: u16, vip: IpAddr) -> io::Result<String> {
        self.once_as(SocketAddr::new(any(vip), source), vip)
    }

    /// The same from a given address, or the unspecified one, and port, or 0.
    ///
    /// # Errors
    /// As [`Ask::once`].
    pub fn once_as(self, source: SocketAddr, vip: IpAddr) -> io::Result<String> {
        let target = SocketAddr::new(vip, self.port());
        match self {
            Self::Http => {
                let mut answer = request(source, target, "/")?;
                let mut name = String::new();
                answer.read_to_string(&mut name)?;
                Ok(name.trim().to_owned())
            }
            Self::Tcp => {
                let mut name = String::new();
                BufReader::new(connect(source, target)?).read_line(&mut name)?;
                if name.ends_with('\n') {
                    Ok(name.trim().to_owned())
                } else {
                    Err(wrong("closed before its name"))
                }
            }
            Self::Udp => datagram(source, target, b"to be or not to be"),
        }
    }
}

/// Asks `count` times from a namespace, `workers` at a time.
///
/// # Errors
/// If the namespace cannot be entered, or the process was interrupted. Failed requests are in the tally.
pub fn ask(client: &Namespace, how: Ask, vip: IpAddr, count: usize, workers: usize) -> Result<Tally> {
    ask_from(client, how, vip, std::iter::repeat_n(ANY_PORT, count), workers)
}

/// Asks once from each of these source ports: the same ports make the same flows, so the same choice of backends.
///
/// # Errors
/// As [`ask`].
pub fn ask_from(
    client: &Namespace,
    how: Ask,
    vip: IpAddr,
    sources: impl Iterator<Item = u16> + Send,
    workers: usize,
) -> Result<Tally> {
    ask_as(client, how, vip, sources.map(|port| SocketAddr::new(any(vip), port)), workers)
}

/// Asks once from each of these addresses and ports.
///
/// # Errors
/// As [`ask`].
pub fn ask_as(
    client: &Namespace,
    how: Ask,
    vip: IpAddr,
    sources: impl Iterator<Item = SocketAddr> + Send,
    workers: usize,
) -> Result<Tally> {
    let sources = Mutex::new(sources);
    let take = || sources.lock().expect("no client panicked").next();
    let work = || {
        let mut tally = Tally::default();
        while let Some(source) = take().filter(|_| !interrupt::requested()) {
            let start = Instant::now();
            tally.count(&how.once_as(source, vip), start.elapsed());
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

/// Sends `length` patterned bytes to the TCP echo server and compares what comes back; gives the backend's name.
///
/// # Errors
/// The first difference, or what broke the connection.
pub fn echo_bytes(client: &Namespace, vip: IpAddr, length: usize) -> Result<String> {
    let target = SocketAddr::new(vip, echo::PORT);
    client
        .enter(|| {
            let mut output = connect(anywhere(target), target)?;
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
            request(anywhere(target), target, "/blob")?.read_to_end(&mut received)?;
            same(&pattern(super::server::BLOB), &received)?;
            anyhow::Ok(received.len())
        })?
        .with_context(|| format!("downloading http://{target}/blob"))
}

/// Downloads `/blob` by HTTP from the namespace of the calling thread and looks at none of it; gives its length in bytes.
///
/// # Errors
/// What broke the connection.
pub fn fetch(vip: IpAddr) -> io::Result<u64> {
    let target = SocketAddr::new(vip, Ask::Http.port());
    io::copy(&mut request(anywhere(target), target, "/blob")?, &mut io::sink())
}

/// Sends a datagram of `length` patterned bytes and compares what comes back; gives the backend's name.
///
/// # Errors
/// No answer, an answer from elsewhere than the VIP, or with another payload.
pub fn echo_datagram(client: &Namespace, vip: IpAddr, length: usize) -> Result<String> {
    let target = SocketAddr::new(vip, echo::PORT);
    client
        .enter(|| datagram(anywhere(target), target, &pattern(length)))?
        .with_context(|| format!("echo of a datagram of {length} bytes through {target}"))
}

/// Sends a datagram with this payload from a port; gives the name of the backend that returned it.
///
/// # Errors
/// No answer, an answer from elsewhere than the VIP, or with another payload.
pub fn send_datagram(client: &Namespace, source: u16, vip: IpAddr, payload: &[u8]) -> Result<String> {
    let target = SocketAddr::new(vip, echo::PORT);
    client
        .enter(|| datagram(SocketAddr::new(any(vip), source), target, payload))?
        .with_context(|| format!("a datagram from port {source} to {target}"))
}

/// Sends an echo request to a VIP and waits for the reply.
///
/// # Errors
/// No reply from there in time.
pub fn ping(client: &Namespace, vip: IpAddr) -> Result<()> {
    client.enter(|| echo_request(vip))?.with_context(|| format!("pinging {vip}"))
}

fn echo_request(vip: IpAddr) -> io::Result<()> {
    /// Behind type, code and checksum: an identifier and a number.
    const MARK: [u8; 4] = [0x6c, 0x62, 0, 1];
    // Of ICMP the checksum is known, of ICMPv6 the kernel fills it in.
    let (protocol, request, reply) = match vip {
        IpAddr::V4(_) => (Protocol::ICMPV4, [8, 0, 0x8b, 0x9c], 0),
        IpAddr::V6(_) => (Protocol::ICMPV6, [128, 0, 0, 0], 129),
    };
    let target = SocketAddr::new(vip, 0);
    let socket = UdpSocket::from(Socket::new(Domain::for_address(target), Type::RAW, Some(protocol))?);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(&[request, MARK].concat(), target)?;
    let end = Instant::now() + PATIENCE;
    let mut buffer = [0; 128];
    // Neighbour discovery comes by here, too.
    while Instant::now() < end {
        let (length, replier) = socket.recv_from(&mut buffer)?;
        // A raw socket of IPv4 gets the IP header as well.
        let header = if vip.is_ipv4() { usize::from(buffer[0] & 0xf) * 4 } else { 0 };
        let message = buffer.get(header..length).unwrap_or_default();
        if replier.ip() == vip && message.first() == Some(&reply) && message.get(4..8) == Some(&MARK) {
            return Ok(());
        }
    }
    Err(wrong("no echo reply"))
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
                let mut stream = BufReader::new(connect(anywhere(target), target)?);
                let mut backend = String::new();
                stream.read_line(&mut backend)?;
                io::Result::Ok(Self { stream, backend: backend.trim().to_owned() })
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
        if &answer == b"ping" { Ok(()) } else { Err(wrong("another payload than was sent")) }
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
    ensure!(sent.len() == received.len(), "{} bytes came, expected {}", received.len(), sent.len());
    Ok(())
}

fn connect(source: SocketAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    if source != anywhere(target) {
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    socket.connect_timeout(&target.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Any address and port of a target's family.
fn anywhere(target: SocketAddr) -> SocketAddr {
    SocketAddr::new(any(target.ip()), ANY_PORT)
}

/// The unspecified address of a target's family.
fn any(target: IpAddr) -> IpAddr {
    if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Sends an HTTP/1.0 request and gives the body of a 200.
fn request(source: SocketAddr, target: SocketAddr, path: &str) -> io::Result<impl io::Read> {
    let mut stream = connect(source, target)?;
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

fn datagram(source: SocketAddr, target: SocketAddr, payload: &[u8]) -> io::Result<String> {
    let socket = UdpSocket::bind(source)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Not connected on purpose: a reply from a wrong address must be seen, not filtered.
    socket.send_to(payload, target)?;
    let mut buffer = vec![0; 65_535];
    let (length, replier) = socket.recv_from(&mut buffer)?;
    if replier != target {
        return Err(wrong(&format!("the reply came from {replier}, not from {target}")));
    }
    let answer = &buffer[..length];
    let space = answer.iter().position(|&byte| byte == b' ').ok_or_else(|| wrong("no name in the reply"))?;
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
        assert!(same(&sent, &sent[..999]).unwrap_err().to_string().contains("999 bytes"));
    }
}
