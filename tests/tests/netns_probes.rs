//! Checks of every type, through the VIP, with each backend's own encap: what they find is what is there.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::{
    Backend, Config, Daemon, Lab, Namespace,
    addresses::{VIP4, VIP6},
    root, wait,
};
use lb_user::api::State;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};

const SETTLE: Duration = Duration::from_secs(30);

/// Short, so that what is wrong is seen soon, and long enough for a busy machine.
const TIMES: &str = "interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 2";

/// What answers where.
const UDP: u16 = 7100;
const DNS: u16 = 5300;
const TLS: u16 = 8443;

/// A datagram server of a backend: what it answers by, so that its answers may come from another address.
fn datagrams(
    namespace: &Namespace,
    (at, by): (SocketAddr, Option<SocketAddr>),
    answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
) -> Result<()> {
    let bind = |address| {
        let bound: io::Result<UdpSocket> = namespace.enter(|| UdpSocket::bind(address))?;
        bound.with_context(|| format!("binding UDP {address} in {}", namespace.name()))
    };
    let socket = bind(at)?;
    let other = by.map(bind).transpose()?;
    // Ends with the process: the namespace may be gone before.
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            other.as_ref().unwrap_or(&socket).send_to(&answer(&buffer[..length]), client).ok();
        }
    });
    Ok(())
}

/// The server that the checks of the test `udp` ask: of `b1` it answers as it should, of `b2` from the backend's own
/// address, and of `b3` there is none.
fn udp_servers(lab: &Lab) -> Result<()> {
    for (vip, own) in [(VIP4, lab.backends[1].address4), (VIP6, lab.backends[1].address6)] {
        let answer = |asked: &[u8]| [b"re: ", asked].concat();
        datagrams(&lab.backends[0].namespace, (SocketAddr::new(vip, UDP), None), answer)?;
        let wildcard: IpAddr =
            if vip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // As a server that is bound to every address, and lets the kernel choose the source of its answers.
        let at = if vip.is_ipv4() { SocketAddr::new(wildcard, UDP) } else { SocketAddr::new(vip, UDP) };
        datagrams(&lab.backends[1].namespace, (at, Some(SocketAddr::new(own, UDP + 1))), answer)?;
    }
    Ok(())
}

/// A name server of each backend with this response code.
fn name_servers(lab: &Lab, codes: [u8; 3]) -> Result<()> {
    for (backend, code) in lab.backends.iter().zip(codes) {
        for vip in [VIP4, VIP6] {
            let answer = move |query: &[u8]| {
                let mut message = query.to_vec();
                if let Some(flags) = message.get_mut(2..4) {
                    flags.copy_from_slice(&[0x81, 0x80 | code]);
                }
                message
            };
            datagrams(&backend.namespace, (SocketAddr::new(vip, DNS), None), answer)?;
        }
    }
    Ok(())
}

/// An HTTPS server of each backend whose certificate is valid until that year; writes the authority's to a file.
fn https_servers(lab: &Lab, years: [i32; 3]) -> Result<String> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let file = lab.directory().join("ca.pem");
    fs::write(&file, authority.pem())?;
    for (backend, year) in lab.backends.iter().zip(years) {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["shop.example".to_owned()])?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 31);
        let certificate = params.signed_by(&key, &authority)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?,
            )?;
        let config = Arc::new(config);
        let listener = backend.namespace.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, TLS)))??;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_read_timeout(Some(Duration::from_secs(2))).ok();
                let Ok(connection) = ServerConnection::new(Arc::clone(&config)) else { return };
                let mut stream = StreamOwned::new(connection, stream);
                let mut head = [0; 1024];
                if stream.read(&mut head).is_ok_and(|length| length > 0) {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                        .ok();
                    stream.conn.send_close_notify();
                    stream.flush().ok();
                }
            }
        });
    }
    Ok(file.display().to_string())
}

/// Pools of all backends, one for each check and family, each with a service.
fn config(lab: &Lab, checks: &[(&str, String, &str)]) -> Config {
    let members: Vec<_> = lab.backends.iter().map(Backend::member).collect();
    checks.iter().fold(Config::new(), |config, (name, check, port)| {
        [(VIP4, "4"), (VIP6, "6")].into_iter().fold(config, |config, (vip, family)| {
            let name = format!("{name}{family}");
            config.pool(&name, &format!("{check}, {TIMES}"), &members).service(&name, vip, &[port], &name)
        })
    })
}

/// Waits until a backend of both families' services is in a state, with these words in its reason.
fn expect(daemon: &Daemon, service: &str, backend: &str, state: State, words: &str) -> Result<()> {
    ["4", "6"]
        .iter()
        .try_for_each(|family| says(daemon, &format!("{service}{family}"), backend, state, words))
}

/// The same of one service.
fn says(daemon: &Daemon, service: &str, backend: &str, state: State, words: &str) -> Result<()> {
    wait::until(format!("{service} {backend} {state} saying \"{words}\""), SETTLE, || {
        let view = daemon.wait_state(service, backend, state, SETTLE)?;
        ensure!(view.reason.contains(words), "it says: {}", view.reason);
        Ok(())
    })
}

#[test]
fn a_datagram_must_be_answered_by_the_vip() {
    root::required(|| {
        let lab = Lab::builder().build()?;
        udp_servers(&lab)?;
        // b3, behind a tunnel, has a name server that says SERVFAIL.
        name_servers(&lab, [0, 3, 2])?;
        let checks = [
            ("udp", "type = \"udp\", send = \"PING\", expect = \"re: PING\"".to_owned(), "udp/7100"),
            ("dns", "type = \"dns\", query = \"www.example\"".to_owned(), "udp/5300"),
            ("icmp", "type = \"icmp\"".to_owned(), "udp/9"),
            // The lab's echo server, through the tunnel as well.
            ("echo", "type = \"udp\", send = \"0x00ff\", expect = \"0x2000ff\"".to_owned(), "udp/7000"),
        ];
        let daemon = Daemon::start(&lab, &config(&lab, &checks))?;
        expect(&daemon, "udp", "b1", State::Up, "check \"re: PING\" in")?;
        for (service, own) in [("udp4", lab.backends[1].address4), ("udp6", lab.backends[1].address6)] {
            says(&daemon, service, "b2", State::Down, &format!("reply came from {own}, not the VIP"))?;
        }
        expect(&daemon, "udp", "b3", State::Down, "UDP port 7100 is closed on")?;

        expect(&daemon, "dns", "b1", State::Up, "check NOERROR, 0 answers in")?;
        expect(&daemon, "dns", "b2", State::Down, "DNS answered NXDOMAIN, expected NOERROR")?;
        expect(&daemon, "dns", "b3", State::Down, "DNS answered SERVFAIL, expected NOERROR")?;

        for backend in ["b1", "b2", "b3"] {
            expect(&daemon, "icmp", backend, State::Up, "check echo in")?;
            expect(&daemon, "echo", backend, State::Up, "\\x00\\xff\" in")?;
        }
        // It is the VIP that is asked, on each backend by its own way: not the backend, and not the balancer.
        for backend in [&lab.backends[0], &lab.backends[2]] {
            backend.namespace.ip(&["addr", "del", &format!("{VIP4}/32"), "dev", "lo"])?;
            backend.namespace.ip(&["addr", "del", &format!("{VIP6}/128"), "dev", "lo"])?;
            expect(&daemon, "icmp", &backend.name, State::Down, "no reply from")?;
            expect(&daemon, "echo", &backend.name, State::Down, "no reply from")?;
        }
        expect(&daemon, "icmp", "b2", State::Up, "check echo in")
    });
}

#[test]
fn certificates_programs_and_own_addresses() {
    root::required(|| {
        let lab = Lab::builder().build()?;
        let ca = https_servers(&lab, [2120, 2021, 2120])?;
        let program = lab.directory().join("check");
        fs::write(&program, "#!/bin/sh\necho \"$LB_BACKEND at $LB_ADDRESS\"\n[ \"$LB_BACKEND\" != b2 ]\n")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let tls = format!("type = \"https\", path = \"/\", host = \"shop.example\", ca = \"{ca}\"");
        let checks = [
            ("tls", tls.replace(", ca", ", verify = true, ca"), "tcp/8443"),
            ("any", "type = \"https\", path = \"/\", verify = false".to_owned(), "tcp/8443"),
            ("exec", format!("type = \"exec\", command = [\"{}\"]", program.display()), "tcp/9"),
            ("own", "type = \"http\", path = \"/healthz\", to = \"backend\", port = 80".to_owned(), "tcp/10"),
        ];
        // One service for a port and VIP: the one that ignores certificates is probed at that port, and serves another.
        let checks = checks.map(|(name, check, port)| match name {
            "any" => (name, format!("{check}, port = 8443"), "tcp/11"),
            _ => (name, check, port),
        });
        let daemon = Daemon::start(&lab, &config(&lab, &checks))?;
        for backend in ["b1", "b3"] {
            expect(&daemon, "tls", backend, State::Up, "check 200 in")?;
            expect(&daemon, "exec", backend, State::Up, &format!("check {backend} at 10."))?;
        }
        expect(&daemon, "tls", "b2", State::Down, "certificate expired 2021-01-31")?;
        expect(&daemon, "any", "b2", State::Up, "check 200 in")?;
        let words = format!("ended with exit code 1: b2 at {}", lab.backends[1].address4);
        expect(&daemon, "exec", "b2", State::Down, &words)?;

        // A check of the backend's own address does not see that the VIP is missing.
        lab.backends[0].namespace.ip(&["addr", "del", &format!("{VIP4}/32"), "dev", "lo"])?;
        lab.backends[0].namespace.ip(&["addr", "del", &format!("{VIP6}/128"), "dev", "lo"])?;
        expect(&daemon, "tls", "b1", State::Down, "no reply from")?;
        expect(&daemon, "own", "b1", State::Up, "check 200 in")
    });
}
