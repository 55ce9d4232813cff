//! Checks that have no connection: UDP, DNS, ICMP.

use tokio::net::UdpSocket;

use super::*;
use crate::model::dns::{self, Code, Record};

fn udp_spec(target: SocketAddr, expect: Option<&[u8]>) -> ProbeSpec {
    spec(target, CheckKind::Udp { send: b"PING".to_vec(), expect: expect.map(<[u8]>::to_vec) })
}

async fn server(address: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(address).await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Receives a datagram and answers it by way of another socket, or not at all.
async fn answer(socket: &UdpSocket, by: Option<&UdpSocket>, bytes: &[u8]) -> Vec<u8> {
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
    if let Some(by) = by {
        by.send_to(bytes, from).await.unwrap();
    }
    buffer[..length].to_vec()
}

#[test]
fn a_udp_check_wants_an_answer_with_the_text_in_it() {
    within(|| async {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (socket, target) = server(address).await;
            for (expect, said, result) in [
                (None, &b"\x00\xff"[..], Ok("\"\\x00\\xff\"".to_owned())),
                (Some(&b"ON"[..]), b"PONG", Ok("\"PONG\"".to_owned())),
                (
                    Some(b"PONG!"),
                    b"PONG",
                    Err(ProbeFailure::OtherReply { got: b"PONG".to_vec(), expected: b"PONG!".to_vec() }),
                ),
            ] {
                let spec = udp_spec(target, expect);
                let (got, asked) = tokio::join!(once(&spec), answer(&socket, Some(&socket), said));
                assert_eq!((got, asked), (result, b"PING".to_vec()), "{address}");
            }
            let spec = udp_spec(target, None);
            let (got, _) = tokio::join!(once(&spec), answer(&socket, None, b""));
            assert_eq!(got, silent(target));

            drop(socket);
            let got = once(&udp_spec(target, None)).await;
            assert_eq!(got, Err(ProbeFailure::PortClosed { target }), "{address}");
        }
    });
}

#[test]
fn an_answer_from_another_address_is_no_answer() {
    within(|| async {
        sh("ip addr add 10.1.0.11/32 dev lo
            ip -6 addr add 2001:db8::11/128 dev lo nodad");
        for (vip, own) in [("127.0.0.1:0", "10.1.0.11:0"), ("[::1]:0", "[2001:db8::11]:0")] {
            let (socket, target) = server(vip).await;
            let (other, from) = server(own).await;
            let spec = udp_spec(target, None);
            let (got, _) = tokio::join!(once(&spec), answer(&socket, Some(&other), b"PONG"));
            assert_eq!(got, Err(ProbeFailure::OtherSource { target, from: from.ip(), through_vip: true }));
            // From the right address, but from another port.
            let (other, _) = server(vip).await;
            let (got, _) = tokio::join!(once(&spec), answer(&socket, Some(&other), b"PONG"));
            assert!(matches!(got, Err(ProbeFailure::OtherSource { .. })), "{got:?}");
        }
    });
}

fn dns_spec(target: SocketAddr, expect: Code, answer: Option<&str>) -> ProbeSpec {
    let query = dns::Query { name: "www.example".parse().unwrap(), record: Record::A };
    let answer = answer.map(|answer| Record::A.data(answer).unwrap());
    spec(target, CheckKind::Dns { query, expect, answer })
}

/// Answers a query with a response code and addresses.
async fn name_server(socket: &UdpSocket, code: u8, addresses: &[[u8; 4]]) {
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
    let mut message = buffer[..length].to_vec();
    message[2..4].copy_from_slice(&[0x81, 0x80 | code]);
    message[7] = addresses.len() as u8;
    for address in addresses {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
        message.extend(address);
    }
    // Somebody else's answer comes first.
    let other = [&[message[0] ^ 1], &message[1..]].concat();
    socket.send_to(&other, from).await.unwrap();
    socket.send_to(&message, from).await.unwrap();
}

#[test]
fn a_dns_check_compares_code_and_answer() {
    within(|| async {
        let (socket, target) = server("127.0.0.1:0").await;
        let query = dns::Query { name: "www.example".parse().unwrap(), record: Record::A };
        let data = |text: &str| Record::A.data(text).unwrap();
        let one = &[[192, 0, 2, 1]][..];
        let cases = [
            (Code::NO_ERROR, None, 0, one, Ok("NOERROR, 1 answer".to_owned())),
            (Code::NO_ERROR, None, 0, &[], Ok("NOERROR, 0 answers".to_owned())),
            (Code::NO_ERROR, Some("192.0.2.1"), 0, one, Ok("NOERROR 192.0.2.1".to_owned())),
            (Code(3), None, 3, &[], Ok("NXDOMAIN, 0 answers".to_owned())),
            (
                Code::NO_ERROR,
                None,
                2,
                &[],
                Err(ProbeFailure::DnsCode { got: Code(2), expected: Code::NO_ERROR }),
            ),
            (
                Code::NO_ERROR,
                Some("192.0.2.9"),
                0,
                one,
                Err(ProbeFailure::DnsAnswer {
                    query,
                    got: vec![data("192.0.2.1")],
                    is_truncated: false,
                    expected: data("192.0.2.9"),
                }),
            ),
        ];
        for (expect, answer, code, addresses, result) in cases {
            let spec = dns_spec(target, expect, answer);
            let (got, ()) = tokio::join!(once(&spec), name_server(&socket, code, addresses));
            assert_eq!(got, result);
        }
        let spec = dns_spec(target, Code(0), None);
        let (got, _) = tokio::join!(once(&spec), answer(&socket, Some(&socket), b"no"));
        let error = "it is no whole DNS message".to_owned();
        assert_eq!(got, Err(ProbeFailure::BadAnswer { target, error }));
        let (got, _) = tokio::join!(once(&spec), answer(&socket, None, b""));
        assert_eq!(got, silent(target));
    });
}

#[test]
fn an_icmp_check_wants_an_echo() {
    within(|| async {
        sh("ip route add unreachable 192.0.2.0/24");
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let icmp = spec(address.parse().unwrap(), CheckKind::Icmp);
            assert_eq!(once(&icmp).await, Ok("echo".to_owned()), "{address}");
        }
        let nowhere = spec("192.0.2.1:0".parse().unwrap(), CheckKind::Icmp);
        let got = once(&nowhere).await;
        assert!(matches!(got, Err(ProbeFailure::Unreachable { .. })), "{got:?}");

        sh("echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all");
        let target = "127.0.0.1:0".parse().unwrap();
        assert_eq!(once(&spec(target, CheckKind::Icmp)).await, silent(target));
    });
}
