//! `lb capture`: packets and what became of them, into a file that Wireshark and tcpdump read.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::{Global, ask::on_runtime, print};
use crate::{
    api::CaptureQuery,
    client::{Client, Stream},
    model::{
        capture::Filter,
        pcapng::{Block, Direction},
    },
};

/// Options of `lb capture`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:
  lb capture -w all.pcapng --seconds 10
  lb capture service www client 198.51.100.0/24 -w www.pcapng -c 100
  lb capture dropped and reason no_backend -w drops.pcapng
  lb capture vip 192.0.2.10 port 443 -w -",
    after_long_help = "Examples:
  lb capture -w all.pcapng --seconds 10
  lb capture service www client 198.51.100.0/24 -w www.pcapng -c 100
  lb capture dropped and reason no_backend -w drops.pcapng
  lb capture vip 192.0.2.10 port 443 -w -

Each packet is in the file as it came, and as it left if it was sent on. Its comment says what became of it and why,
for which service and to which backend. While the capture runs, packets go through programs that can capture; without
one, nothing is paid for it. If more packets come than the machine can write down, some are left out, and the end of
the file says how many."
)]
pub(super) struct CaptureOptions {
    #[arg(value_name = "FILTER", help = format!("Terms that all must hold of a packet: {}", Filter::TERMS))]
    filter: Vec<String>,
    /// The file to write; - is standard output
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// End after so many packets
    #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Most bytes of a frame that are written [default: all]
    #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    snap_length: Option<u32>,
}

/// What was written.
#[derive(Debug, Default)]
struct Written {
    packets: u64,
    lost: Option<u64>,
}

impl CaptureOptions {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        on_runtime(self.capture(global))
    }

    async fn capture(self, global: &Global) -> anyhow::Result<()> {
        let Self { filter, write, count, seconds, snap_length } = self;
        let query = CaptureQuery { filter: filter.join(" "), bytes: snap_length, count, seconds };
        let mut stream = Client::connect(&global.socket).await?.capture(&query).await?;
        let is_stdout = write == Path::new("-");
        let mut out: Box<dyn Write> = if is_stdout {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(&write).with_context(|| format!("cannot create {}", write.display()))?)
        };
        let mut written = Written::default();
        tokio::select! {
            result = copy(&mut stream, &mut out, &mut written) => {
                result.with_context(|| format!("cannot write the capture to {}", write.display()))?;
            }
            // The file has whole packets, whenever that comes.
            result = tokio::signal::ctrl_c() => result.context("cannot wait for an interrupt")?,
        }
        let lost = written.lost.map(|lost| format!(", {lost} lost")).unwrap_or_default();
        let said = format!("{} packets{lost}\n", written.packets);
        if is_stdout {
            io::stderr().write_all(said.as_bytes()).ok();
        } else if global.json {
            print(&format!(
                "{{\"packets\": {}, \"lost\": {}}}\n",
                written.packets,
                written.lost.unwrap_or(0)
            ))?;
        } else {
            print(&said)?;
        }
        Ok(())
    }
}

/// Copies whole blocks, and counts.
async fn copy(stream: &mut Stream, out: &mut impl Write, written: &mut Written) -> anyhow::Result<()> {
    let mut waiting = Vec::new();
    while let Some(piece) = stream.next().await? {
        waiting.extend_from_slice(&piece);
        let mut done = 0;
        loop {
            let block = match Block::first(&waiting[done..]) {
                Ok(Some(block)) => block,
                Ok(None) => break,
                Err(what) => bail!("{what}; do lb and its daemon have one version?"),
            };
            if block.packet().is_some_and(|packet| packet.direction == Direction::In) {
                written.packets += 1;
            }
            written.lost = block.statistics().map(|(_, lost)| lost).or(written.lost);
            done += block.length;
        }
        match out.write_all(&waiting[..done]).and_then(|()| out.flush()) {
            // Who reads standard output has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
        waiting.drain(..done);
    }
    Ok(())
}
