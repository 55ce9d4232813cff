//! The backend's side: attaches small programs that need no daemon. They hang on the interface itself, by netlink,
//! so they go with it, and `ip link set dev IF xdp off` removes them.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, bail};
use aya::{EbpfLoader, programs::Xdp};
use lb_common::abi::name;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};

use super::OBJECT;
use crate::model::service::XdpMode;

/// A program for a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Strips outer headers.
    Decap {
        /// UDP port whose packets are taken for GUE.
        gue_port: u16,
    },
    /// Passes everything.
    Pass,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Decap { .. } => name::DECAP,
            Self::Pass => name::NOOP,
        }
    }
}

// linux/if_link.h
const UPDATE_IF_NOEXIST: u32 = 1 << 0;
const SKB_MODE: u32 = 1 << 1;
const DRV_MODE: u32 = 1 << 2;

/// Attaches a program to an interface; it stays when this process ends.
///
/// # Errors
/// No such interface, a kernel that refuses the program, a driver without native XDP where it was demanded, or
/// another program attached there already.
pub fn attach(program: Program, interface: &str, mode: XdpMode) -> anyhow::Result<()> {
    let index = index_of(interface)?;
    let mut loader = EbpfLoader::new();
    if let Program::Decap { gue_port } = &program {
        loader.override_global(name::GUE_PORT, gue_port, true);
    }
    let mut ebpf =
        loader.load(OBJECT).context("cannot load the eBPF programs (root and kernel 6.1 are needed)")?;
    let xdp: &mut Xdp =
        ebpf.program_mut(program.name()).context("the eBPF object lacks the program")?.try_into()?;
    xdp.load().with_context(|| format!("the kernel refused program {}", program.name()))?;
    let fd = xdp.fd()?.as_fd().as_raw_fd();
    let set = |mode: u32| set_xdp(index, fd, UPDATE_IF_NOEXIST | mode);
    match mode {
        XdpMode::Native => set(DRV_MODE),
        XdpMode::Generic => set(SKB_MODE),
        XdpMode::Auto => set(DRV_MODE).or_else(|native| {
            set(SKB_MODE).inspect(|()| {
                tracing::warn!(interface, error = %native, "no native XDP here: attached in generic mode, which is slower");
            })
        }),
    }
    .with_context(|| {
        format!("cannot attach to {interface} (if another program is there: ip link set dev {interface} xdp off)")
    })
}

/// Detaches whatever XDP program the interface has.
///
/// # Errors
/// No such interface, or no right to.
pub fn detach(interface: &str) -> anyhow::Result<()> {
    let index = index_of(interface)?;
    for mode in [DRV_MODE, SKB_MODE] {
        set_xdp(index, -1, mode).with_context(|| format!("cannot detach from {interface}"))?;
    }
    Ok(())
}

fn index_of(interface: &str) -> anyhow::Result<u32> {
    if_nametoindex(interface).map_err(|_| anyhow::anyhow!("there is no interface {interface} (see: ip link)"))
}

fn set_xdp(index: u32, fd: i32, flags: u32) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Xdp(vec![LinkXdp::Fd(fd), LinkXdp::Flags(flags)]));
        let result = handle.link().set(message).execute().await;
        connection.abort();
        if let Err(error) = result {
            bail!("{error}");
        }
        Ok(())
    })
}
