//! What `ipvsadm-save -n` writes: one option line for each service and each server (ipvsadm(8)).

use std::net::{IpAddr, SocketAddr};

use super::{BY_NAT, Read, Real, Virtual, via};
use crate::model::service::Protocol;

pub(super) fn read(text: &str, read: &mut Read) {
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let line = number + 1;
        match words.first() {
            Some(&"-A" | &"--add-service") => service(line, &words[1..], read),
            Some(&"-a" | &"--add-server") => server(line, &words[1..], read),
            None => {}
            Some(word) if word.starts_with('#') => {}
            Some(_) => read.note(line, format!("not understood: {}", words.join(" "))),
        }
    }
}

/// The word behind an option.
fn value<'a>(words: &[&'a str], names: [&str; 2]) -> Option<&'a str> {
    let at = words.iter().position(|word| names.contains(word))?;
    words.get(at + 1).copied()
}

fn has(words: &[&str], names: [&str; 2]) -> bool {
    words.iter().any(|word| names.contains(word))
}

/// Which service a line is about; without one that lb can have, why.
fn key(words: &[&str]) -> Result<(Protocol, SocketAddr), String> {
    let kinds = [
        (Protocol::Tcp, ["-t", "--tcp-service"]),
        (Protocol::Udp, ["-u", "--udp-service"]),
        (Protocol::Sctp, ["--sctp-service", "--sctp-service"]),
    ];
    if let Some(mark) = value(words, ["-f", "--fwmark-service"]) {
        return Err(format!("firewall mark {mark} is no address: write a service with its VIP and ports"));
    }
    for (protocol, names) in kinds {
        if let Some(address) = value(words, names) {
            let address: SocketAddr = address.parse().map_err(|_| {
                format!("{address} is no address and port (was it written by ipvsadm-save -n?)")
            })?;
            if address.port() == 0 {
                return Err(format!(
                    "{address}: a service on every port is ports = [\"tcp/*\"], write it by hand"
                ));
            }
            return Ok((protocol, address));
        }
    }
    Err(format!("names no service: {}", words.join(" ")))
}

fn service(line: usize, words: &[&str], read: &mut Read) {
    let (protocol, address) = match key(words) {
        Ok(key) => key,
        Err(why) => return read.note(line, why),
    };
    let vip = address.ip();
    if let Some(scheduler) = value(words, ["-s", "--scheduler"])
        && !["rr", "wrr", "mh", "sh"].contains(&scheduler)
    {
        read.note(
            line,
            format!("scheduler {scheduler}: lb spreads flows by a hash and by weight, whatever their number"),
        );
    }
    let persistence = has(words, ["-p", "--persistent"]).then(|| {
        let whole = if vip.is_ipv4() { 32 } else { 128 };
        read.note(
            line,
            "persistence: affinity = \"source\" lasts as long as the table stays, not for a time",
        );
        match value(words, ["-M", "--netmask"]).map(str::parse::<IpAddr>) {
            Some(Ok(IpAddr::V4(mask))) if !mask.is_unspecified() => mask.to_bits().leading_ones() as u8,
            _ => {
                let bits = value(words, ["-M", "--netmask"]).and_then(|bits| bits.parse().ok());
                bits.filter(|bits| (1..=whole).contains(bits)).unwrap_or(whole)
            }
        }
    });
    if has(words, ["-o", "--ops"]) {
        read.note(line, "one-packet scheduling: tracking = \"never\" comes closest, write it by hand");
    }
    let service = Virtual { line, vip, protocol, port: address.port(), persistence, servers: Vec::new() };
    read.services.push(service);
}

fn server(line: usize, words: &[&str], read: &mut Read) {
    let Ok((protocol, address)) = key(words) else {
        return read.note(line, "a server of a service that is left out");
    };
    let is_same = |known: &Virtual| {
        known.protocol == protocol && known.vip == address.ip() && known.port == address.port()
    };
    let Some(service) = read.services.iter().position(is_same) else {
        return read.note(line, "a server of a service that is not there");
    };
    let Some(Ok(real)) = value(words, ["-r", "--real-server"]).map(str::parse::<SocketAddr>) else {
        return read.note(line, "names no address and port of a server");
    };
    let weight = value(words, ["-w", "--weight"]).and_then(|weight| weight.parse().ok()).unwrap_or(1);
    let method = if has(words, ["-i", "--ipip"]) { "TUN" } else { "DR" };
    if has(words, ["-m", "--masquerading"]) {
        read.note(line, format!("server {} {BY_NAT}", real.ip()));
    }
    let mut way = via(method);
    match value(words, ["--tun-type", "--tun-type"]) {
        None | Some("ipip") => {}
        Some("gue") => way = "gue",
        Some(other) => read.note(line, format!("tunnels of type {other}: taken as ipip")),
    }
    for option in ["-x", "-y"] {
        if value(words, [option, option]).is_some_and(|limit| limit != "0") {
            read.note(line, "a server's limit of connections is not carried over");
            break;
        }
    }
    let weight = read.weight(line, weight);
    let real = Real { address: real.ip(), port: real.port(), weight, via: way, check: None };
    read.server(line, service, real);
}
