//! `keepalived.conf` (keepalived.conf(5)): its virtual servers and their checks. What it does beside that, VRRP most of all, goes
//! on without lb.

use std::net::IpAddr;

use super::{BY_NAT, Read, Real, Virtual, via};
use crate::model::service::Protocol;

/// A line with what stands between its braces.
#[derive(Debug)]
struct Item {
    line: usize,
    words: Vec<String>,
    inside: Vec<Item>,
}

impl Item {
    fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The first word behind a name, of what is inside.
    fn value(&self, name: &str) -> Option<&str> {
        self.inside.iter().find(|item| item.name() == name)?.words.get(1).map(String::as_str)
    }

    fn child(&self, name: &str) -> Option<&Self> {
        self.inside.iter().find(|item| item.name() == name)
    }
}

pub(super) fn read(text: &str, read: &mut Read) {
    let mut tokens = tokens(text).into_iter().peekable();
    let items = items(&mut tokens, read);
    for item in &items {
        match item.name() {
            "virtual_server" => service(item, read),
            "global_defs" => {}
            name => read.note(item.line, format!("{name}: not lb's business; leave it with keepalived")),
        }
    }
}

/// Words, braces and line ends, with their lines.
fn tokens(text: &str) -> Vec<(usize, String)> {
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut word = String::new();
        let mut quoted = false;
        let mut end = |word: &mut String| {
            if !word.is_empty() {
                tokens.push((number + 1, std::mem::take(word)));
            }
        };
        for character in line.chars() {
            match character {
                '"' => quoted = !quoted,
                _ if quoted => word.push(character),
                '#' | '!' => break,
                '{' | '}' => {
                    end(&mut word);
                    word.push(character);
                    end(&mut word);
                }
                _ if character.is_whitespace() => end(&mut word),
                _ => word.push(character),
            }
        }
        end(&mut word);
        tokens.push((number + 1, "\n".to_owned()));
    }
    tokens
}

/// How deep braces may stand in each other.
const DEEPEST: usize = 16;

fn items(
    tokens: &mut std::iter::Peekable<std::vec::IntoIter<(usize, String)>>,
    read: &mut Read,
) -> Vec<Item> {
    let mut open: Vec<Vec<Item>> = vec![Vec::new()];
    let mut heads: Vec<(usize, Vec<String>)> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut first = 0;
    for (line, token) in tokens {
        let last = open.len() - 1;
        match token.as_str() {
            "{" if open.len() == DEEPEST => {
                read.note(line, "too many braces in each other: nothing is read from here on");
                break;
            }
            "{" => {
                // The name of a block may stand on the line before its brace.
                let before =
                    if words.is_empty() { open[last].pop_if(|item| item.inside.is_empty()) } else { None };
                heads.push(match before {
                    Some(Item { line, words, .. }) => (line, words),
                    None => (first, std::mem::take(&mut words)),
                });
                open.push(Vec::new());
            }
            "}" | "\n" => {
                if !words.is_empty() {
                    open[last].push(Item {
                        line: first,
                        words: std::mem::take(&mut words),
                        inside: Vec::new(),
                    });
                }
                if token == "}" {
                    match (heads.pop(), open.len() > 1) {
                        (Some((line, words)), true) => {
                            let inside = open.pop().unwrap_or_default();
                            let outer = open.len() - 1;
                            open[outer].push(Item { line, words, inside });
                        }
                        _ => read.note(line, "a brace closes what was never opened"),
                    }
                }
            }
            _ => {
                if words.is_empty() {
                    first = line;
                }
                words.push(token);
            }
        }
    }
    if let Some((line, words)) = heads.first() {
        read.note(*line, format!("{}: its brace is never closed, it is left out", words.join(" ")));
    }
    open.swap_remove(0)
}

fn service(item: &Item, read: &mut Read) {
    let line = item.line;
    let (vip, port) = match item.words.get(1..).unwrap_or_default() {
        [address, port] => match (address.parse::<IpAddr>(), port.parse::<u16>()) {
            (Ok(address), Ok(port)) if port > 0 => (address, port),
            _ => return read.note(
                line,
                format!(
                    "virtual_server {address} {port} is left out: firewall marks and groups are no addresses"
                ),
            ),
        },
        words => {
            return read.note(
                line,
                format!("virtual_server {} is left out: it names no address and port", words.join(" ")),
            );
        }
    };
    let protocol = match item.value("protocol").unwrap_or("TCP") {
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    let algorithm = item.value("lb_algo").or_else(|| item.value("lvs_sched")).unwrap_or("wlc");
    if !["rr", "wrr", "mh", "sh"].contains(&algorithm) {
        read.note(
            line,
            format!("scheduler {algorithm}: lb spreads flows by a hash and by weight, whatever their number"),
        );
    }
    let persistence = item.value("persistence_timeout").map(|_| {
        read.note(
            line,
            "persistence: affinity = \"source\" lasts as long as the table stays, not for a time",
        );
        let whole = if vip.is_ipv4() { 32 } else { 128 };
        match item.value("persistence_granularity").map(str::parse::<IpAddr>) {
            Some(Ok(IpAddr::V4(mask))) if !mask.is_unspecified() => mask.to_bits().leading_ones() as u8,
            _ => whole,
        }
    });
    if let Some(sorry) = item.child("sorry_server") {
        read.note(sorry.line, "sorry_server: lb has nothing for when all servers are down");
    }
    let pace = item.value("delay_loop").and_then(|seconds| seconds.parse::<u32>().ok());
    let method = item.value("lb_kind").or_else(|| item.value("lvs_method")).unwrap_or("NAT");
    read.services.push(Virtual { line, vip, protocol, port, persistence, servers: Vec::new() });
    let place = read.services.len() - 1;
    for server in item.inside.iter().filter(|inside| inside.name() == "real_server") {
        let (Some(Ok(address)), Some(Ok(port))) = (
            server.words.get(1).map(|word| word.parse::<IpAddr>()),
            server.words.get(2).map(|word| word.parse::<u16>()),
        ) else {
            read.note(server.line, "real_server names no address and port: left out");
            continue;
        };
        let method = server.value("lvs_method").unwrap_or(method);
        if method == "NAT" {
            read.note(server.line, format!("server {address} {BY_NAT}"));
        }
        let weight = server.value("weight").and_then(|weight| weight.parse().ok()).unwrap_or(1);
        let weight = read.weight(server.line, weight);
        let check = check(server, pace, (protocol, port), read);
        read.server(server.line, place, Real { address, port, weight, via: via(method), check });
    }
}

/// The inline table of a server's check.
fn check(
    server: &Item,
    pace: Option<u32>,
    (protocol, port_of_server): (Protocol, u16),
    read: &mut Read,
) -> Option<String> {
    const KINDS: [&str; 8] = [
        "TCP_CHECK",
        "HTTP_GET",
        "SSL_GET",
        "UDP_CHECK",
        "DNS_CHECK",
        "PING_CHECK",
        "MISC_CHECK",
        "SMTP_CHECK",
    ];
    let mut checks = server.inside.iter().filter(|item| KINDS.contains(&item.name()));
    let check = checks.next()?;
    if let Some(more) = checks.next() {
        read.note(more.line, format!("{}: a pool has one check, and this would be another", more.name()));
    }
    let mut keys = Vec::new();
    match check.name() {
        "TCP_CHECK" => keys.push("type = \"tcp\"".to_owned()),
        name @ ("HTTP_GET" | "SSL_GET") => {
            keys.push(format!("type = \"{}\"", if name == "HTTP_GET" { "http" } else { "https" }));
            if let Some(url) = check.child("url") {
                let path = url.value("path").unwrap_or("/");
                keys.push(format!("path = {}", toml_edit::Value::from(path)));
                if let Some(status) = url.value("status_code").and_then(|code| code.parse::<u16>().ok()) {
                    keys.push(format!("expect = {status}"));
                }
                if url.value("digest").is_some() {
                    read.note(url.line, "the digest of an answer is not compared");
                }
            }
            if name == "SSL_GET" {
                keys.push("verify = false".to_owned());
            }
        }
        "PING_CHECK" => keys.push("type = \"icmp\"".to_owned()),
        other => {
            read.note(check.line, format!("{other}: write a check of type udp, dns or exec by hand"));
            return None;
        }
    }
    let port = check.value("connect_port").and_then(|port| port.parse::<u16>().ok());
    // A service without TCP has no port that such a check could take for itself.
    let own = (protocol != Protocol::Tcp && check.name() != "PING_CHECK").then_some(port_of_server);
    if let Some(port) = port.or(own) {
        keys.push(format!("port = {port}"));
    }
    if let Some(seconds) = pace.filter(|seconds| *seconds > 0) {
        keys.push(format!("interval = \"{seconds}s\""));
    }
    if let Some(seconds) = check.value("connect_timeout").and_then(|seconds| seconds.parse::<u32>().ok())
        && pace.is_some_and(|pace| seconds <= pace)
        && seconds > 0
    {
        keys.push(format!("timeout = \"{seconds}s\""));
    }
    Some(format!("{{ {} }}", keys.join(", ")))
}
