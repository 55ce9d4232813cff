//! The echo server that runs on each backend: it says its name, then echoes, by TCP and UDP.
//!
//! - TCP: sends its name and a newline, then returns every byte.
//! - UDP: answers `NAME PAYLOAD` from the very address it was asked at. That takes a socket per address: a reply of a
//!   socket bound to the wildcard would leave with the backend's own address, and the client would discard it.

use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

/// The port, TCP and UDP.
pub const PORT: u16 = 7000;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Serves until the process ends. `addresses` are those UDP is answered at; TCP is answered at all.
///
/// # Errors
/// If a socket cannot be bound: the address.
pub fn serve(name: &str, addresses: &[IpAddr]) -> Result<()> {
    let listener = listen().with_context(|| format!("listening on TCP port {PORT}"))?;
    let sockets = addresses
        .iter()
        .map(|&address| {
            UdpSocket::bind((address, PORT))
                .with_context(|| format!("binding UDP {}", SocketAddr::new(address, PORT)))
        })
        .collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        for socket in &sockets {
            scope.spawn(move || answer_datagrams(name, socket));
        }
        for stream in listener.incoming() {
            match stream {
                // The peer may leave at any time; that is its business.
                Ok(stream) => drop(scope.spawn(move || answer_stream(name, stream))),
                Err(error) => eprintln!("accept: {error}"),
            }
        }
    });
    Ok(())
}

/// One listener for both families.
fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn answer_stream(name: &str, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(format!("{name}\n").as_bytes())?;
    let mut input = stream.try_clone()?;
    io::copy(&mut input, &mut stream)?;
    stream.shutdown(std::net::Shutdown::Write)
}

fn answer_datagrams(name: &str, socket: &UdpSocket) {
    let mut buffer = vec![0; 65_535];
    loop {
        let answered = socket.recv_from(&mut buffer).and_then(|(length, client)| {
            let answer = [name.as_bytes(), b" ", &buffer[..length]].concat();
            socket.send_to(&answer, client)
        });
        if let Err(error) = answered {
            eprintln!("UDP: {error}");
        }
    }
}
