//! Configurations as tests and the demo write them.

use std::{
    fmt::{Display, Write as _},
    net::IpAddr,
};

/// The text of a configuration.
#[derive(Clone, Debug)]
pub struct Config {
    text: String,
}

impl Config {
    /// One that attaches to the lab's `eth0`.
    pub fn new() -> Self {
        Self::on(&["eth0"])
    }

    /// One that attaches to these interfaces.
    pub fn on(interfaces: &[&str]) -> Self {
        Self { text: format!("# A laboratory's configuration.\n[lb]\ninterfaces = {interfaces:?}\n") }
    }

    /// Adds a pool; `check` is its inline table, empty for none.
    pub fn pool(self, name: &str, check: &str, members: &[Member]) -> Self {
        self.pool_with(name, check, "", members)
    }

    /// Adds a pool with further keys.
    pub fn pool_with(mut self, name: &str, check: &str, keys: &str, members: &[Member]) -> Self {
        self.line("");
        self.line("[[pool]]");
        self.line(&format!("name = \"{name}\""));
        if !check.is_empty() {
            self.line(&format!("check = {{ {check} }}"));
        }
        if !keys.is_empty() {
            self.line(keys);
        }
        for Member { name, address, via, weight, server_id } in members {
            self.line("");
            self.line("[[pool.backend]]");
            self.line(&format!("name = \"{name}\""));
            self.line(&format!("address = \"{address}\""));
            self.line(&format!("via = \"{via}\""));
            self.line(&format!("weight = {weight}"));
            if let Some(id) = server_id {
                self.line(&format!("server_id = \"{id}\""));
            }
        }
        self
    }

    /// Adds a service of a VIP or a prefix of them.
    pub fn service(mut self, name: &str, vip: impl Display, ports: &[&str], pool: &str) -> Self {
        self.line("");
        self.line("[[service]]");
        self.line(&format!("name = \"{name}\""));
        self.line(&format!("vip = \"{vip}\""));
        self.line(&format!("ports = {ports:?}"));
        self.line(&format!("pool = \"{pool}\""));
        self
    }

    /// Adds lines: further keys of what was added last, or tables.
    pub fn lines(mut self, lines: &str) -> Self {
        self.line(lines);
        self
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("a String takes everything");
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

/// A backend as a pool names it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its own address.
    pub address: IpAddr,
    /// `l2` or `ipip`.
    pub via: &'static str,
    /// Its weight.
    pub weight: u16,
    /// Its QUIC server ID.
    pub server_id: Option<String>,
}

impl Member {
    /// With this weight.
    pub fn weight(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }

    /// With this QUIC server ID.
    pub fn server_id(mut self, id: &str) -> Self {
        self.server_id = Some(id.to_owned());
        self
    }
}
