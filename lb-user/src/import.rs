//! Configurations of other balancers, turned into one of lb: what can be translated is, and what cannot is named.
//!
//! Pure: text comes in, text and notes go out.

mod ipvsadm;
mod keepalived;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use crate::{
    config,
    model::{
        service::{MAX_WEIGHT, Protocol, Via},
        source::Files,
    },
};

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What `ipvsadm-save -n` writes.
    Ipvsadm,
    /// `keepalived.conf`.
    Keepalived,
}

/// What became of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// A configuration file of lb.
    pub text: String,
    /// What is not in it, or otherwise than it was; by line of what was read.
    pub notes: Vec<Note>,
    /// What lb does not take of it as it stands: a VIP that is no address for one, a check beyond its ranges.
    pub errors: Vec<String>,
}

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The line it is about, from 1.
    pub line: usize,
    /// One sentence.
    pub text: String,
}

/// Translates a configuration.
pub fn import(format: Format, text: &str) -> Imported {
    let mut read = Read::default();
    match format {
        Format::Ipvsadm => ipvsadm::read(text, &mut read),
        Format::Keepalived => keepalived::read(text, &mut read),
    }
    read.finish()
}

/// What was read so far.
#[derive(Debug, Default)]
struct Read {
    services: Vec<Virtual>,
    notes: Vec<Note>,
}

/// A virtual service.
#[derive(Clone, Debug)]
struct Virtual {
    line: usize,
    vip: IpAddr,
    protocol: Protocol,
    port: u16,
    /// Bits of the client's address that choose a server for some time; `None` if each connection has its own.
    persistence: Option<u8>,
    servers: Vec<Real>,
}

/// A real server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Real {
    address: IpAddr,
    port: u16,
    weight: u16,
    via: &'static str,
    /// The inline table of its check.
    check: Option<String>,
}

impl Read {
    fn note(&mut self, line: usize, text: impl Into<String>) {
        self.notes.push(Note { line, text: text.into() });
    }

    /// A weight, as far as lb has it.
    fn weight(&mut self, line: usize, weight: u32) -> u16 {
        u16::try_from(weight).ok().filter(|weight| *weight <= MAX_WEIGHT).unwrap_or_else(|| {
            self.note(
                line,
                format!("weight {weight} is above {MAX_WEIGHT}, the most there is: taken as that"),
            );
            MAX_WEIGHT
        })
    }

    /// A real server of a service. Direct return keeps ports, so one with another port cannot be.
    fn server(&mut self, line: usize, service: usize, real: Real) {
        let port = self.services[service].port;
        if real.port != port {
            let Real { address, port: other, .. } = real;
            self.note(
                line,
                format!("server {address} is left out: it serves port {other}, and packets for port {port} arrive there as they are"),
            );
            return;
        }
        self.services[service].servers.push(real);
    }

    fn finish(mut self) -> Imported {
        let mut text = "# Translated: read it before you use it. Each server must carry the VIPs on its loopback, and answer nobody who asks for\n\
                        # their MAC address: see docs/backend-setup.md.\n\
                        [lb]\n\
                        interfaces = [\"eth0\"]\n"
            .to_owned();
        // Services of one address, kind and set of servers are one service of several ports.
        let mut pools: BTreeMap<Vec<Real>, usize> = BTreeMap::new();
        let mut merged: Vec<(Virtual, usize, Vec<String>)> = Vec::new();
        for service in std::mem::take(&mut self.services) {
            let Virtual { line, vip, protocol, port, persistence, mut servers } = service;
            if servers.is_empty() {
                self.note(line, format!("{vip} port {port} has no server that lb can send to: left out"));
                continue;
            }
            servers.sort();
            let before = servers.len();
            servers.dedup_by_key(|real| real.address);
            if servers.len() < before {
                self.note(line, format!("{vip} port {port} names a server twice: taken once"));
            }
            let mixed = servers.iter().any(|real| real.check != servers[0].check);
            if mixed {
                self.note(
                    line,
                    "its servers are checked in different ways, a pool in one: taken as the first one is",
                );
            }
            // Ports are the service's own: pools know none.
            let key: Vec<Real> = servers
                .iter()
                .map(|real| Real { port: 0, check: servers[0].check.clone(), ..real.clone() })
                .collect();
            let next = pools.len() + 1;
            let pool = *pools.entry(key).or_insert(next);
            let word = match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            };
            let port = format!("{word}/{port}");
            let same = |(known, of, _): &&mut (Virtual, usize, Vec<String>)| {
                known.vip == vip && *of == pool && known.persistence == persistence
            };
            match merged.iter_mut().find(same) {
                Some((_, _, ports)) => ports.push(port),
                None => {
                    let service = Virtual { line, vip, protocol, port: 0, persistence, servers: Vec::new() };
                    merged.push((service, pool, vec![port]));
                }
            }
        }
        let mut ordered: Vec<_> = pools.into_iter().collect();
        ordered.sort_by_key(|(_, number)| *number);
        // A String takes everything.
        for (servers, number) in ordered {
            write!(text, "\n[[pool]]\nname = \"pool{number}\"\n").ok();
            match servers.first().and_then(|real| real.check.as_ref()) {
                Some(check) => writeln!(text, "check = {check}").ok(),
                None => {
                    writeln!(text, "# Nobody checks these servers yet:\n# check = {{ type = \"tcp\" }}").ok()
                }
            };
            for (place, Real { address, weight, via, .. }) in servers.iter().enumerate() {
                write!(
                    text,
                    "\n[[pool.backend]]\nname = \"s{}\"\naddress = \"{address}\"\nvia = \"{via}\"\nweight = {weight}\n",
                    place + 1
                )
                .ok();
            }
        }
        for (number, (service, pool, ports)) in merged.iter().enumerate() {
            write!(
                text,
                "\n[[service]]\nname = \"service{}\"\nvip = \"{}\"\nports = {ports:?}\npool = \"pool{pool}\"\n",
                number + 1,
                service.vip
            )
            .ok();
            if let Some(bits) = service.persistence {
                let whole = if service.vip.is_ipv4() { 32 } else { 128 };
                let affinity = if bits == whole { "source".to_owned() } else { format!("source/{bits}") };
                writeln!(text, "affinity = \"{affinity}\"").ok();
            }
        }
        self.notes.sort_by_key(|note| note.line);
        let errors = match config::parse(&text, &Files::new()) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.report("the translation").lines().map(str::to_owned).collect(),
        };
        Imported { text, notes: self.notes, errors }
    }
}

/// How packets get to a server, by IPVS's forwarding methods.
fn via(method: &str) -> &'static str {
    let via = if method == "TUN" { Via::Ipip } else { Via::L2 };
    Via::ALL.iter().find(|(_, known)| *known == via).map_or("l2", |(word, _)| word)
}

/// What is said of a server that is reached by address translation.
const BY_NAT: &str = "is reached by address translation, which lb has not: taken as via = \"l2\", so it must carry the VIP and answer by itself";
