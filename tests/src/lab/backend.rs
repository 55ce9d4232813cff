//! A backend of the lab and the servers on it.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context as _, Result};

use super::{Namespace, Process, addresses::VIPS, config::Member, server};

/// A backend: its namespace, its addresses, its servers.
#[derive(Debug)]
pub struct Backend {
    /// `b1`, `b2`, …: what it answers with.
    pub name: String,
    /// Its own IPv4 address.
    pub address4: IpAddr,
    /// Its own IPv6 address.
    pub address6: IpAddr,
    /// Whether it stands in the other subnet, reached by a tunnel.
    pub tunnelled: bool,
    pub(super) nginx: Option<Process>,
    pub(super) echo: Option<Process>,
    pub(super) directory: PathBuf,
    /// Where it lives; after the processes, which end first.
    pub namespace: Namespace,
}

impl Backend {
    /// Starts those of its servers that do not run.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start(&mut self) -> Result<()> {
        if self.nginx.is_none() {
            self.nginx = Some(server::nginx(&self.namespace, &self.name, &self.directory)?);
        }
        if self.echo.is_none() {
            self.echo = Some(server::echo(&self.namespace, &self.name, &VIPS, &self.directory)?);
        }
        Ok(())
    }

    /// Kills its servers without warning; its kernel then answers connections with RST.
    ///
    /// # Errors
    /// If they were gone already.
    pub fn crash(&mut self) -> Result<()> {
        for process in [self.nginx.take(), self.echo.take()] {
            process.with_context(|| format!("{} runs no servers", self.name))?.crash()?;
        }
        Ok(())
    }

    /// As a pool names it, by its IPv4 address.
    pub fn member(&self) -> Member {
        let via = if self.tunnelled { "ipip" } else { "l2" };
        Member { name: self.name.clone(), address: self.address4, via, weight: 100, server_id: None }
    }

    /// As a pool names it, by its IPv6 address.
    pub fn member6(&self) -> Member {
        Member { address: self.address6, ..self.member() }
    }
}
