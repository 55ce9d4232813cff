//! The roads that live frames take: a far namespace where they begin and end, and between its interfaces whoever
//! forwards them.
//!
//! ```text
//!   far:  gen ──► in [forwards] ─┐ back out, or by out ──► sink
//! ```

use std::process::Command;

use anyhow::{Context, Result, bail};
use aya::{Ebpf, EbpfLoader, maps::DevMap, programs::XdpMode};
use lb_common::abi::{bench::name, name as balancer};
use lb_tests::{
    datapath::{Rig, sh, xdp},
    lab::{Namespace, namespace},
    packets::LB_MAC,
};
use nix::net::if_::if_nametoindex;

use crate::{
    stand::{self, OBJECT},
    worlds::World,
};

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forwarder {
    /// Nobody: frames are dropped where they arrive. What it takes to send and receive them.
    Nobody,
    /// The least balancer, back out of the interface.
    Swap,
    /// The least balancer, by another interface.
    SwapOver,
    /// lb.
    Balancer,
    /// The kernel's own forwarding.
    Forwarding,
    /// nftables: a destination translated, and every flow tracked.
    Dnat,
    /// IPVS, direct routing.
    IpvsDr,
    /// IPVS, IPv4 in IPv4.
    IpvsTun,
}

/// Index of the balancer's interface, and of the one it sends by: high, so that nobody has them yet.
const BALANCER: [u32; 2] = [250, 251];

/// Where the kernel forwards to, and its Ethernet address.
const NEXT: &str = "10.250.0.2";
const NEXT_MAC: &str = "02:00:00:00:02:01";

impl Forwarder {
    const ALL: [Self; 8] = [
        Self::Nobody,
        Self::Swap,
        Self::SwapOver,
        Self::Balancer,
        Self::Forwarding,
        Self::Dnat,
        Self::IpvsDr,
        Self::IpvsTun,
    ];

    /// What its interfaces' names begin with.
    const fn key(self) -> &'static str {
        match self {
            Self::Nobody => "none",
            Self::Swap => "swap",
            Self::SwapOver => "over",
            Self::Balancer => "lb",
            Self::Forwarding => "ip",
            Self::Dnat => "dnat",
            Self::IpvsDr => "dr",
            Self::IpvsTun => "tun",
        }
    }

    /// The program on the interface that frames come in by. Before the kernel's own stack one that passes everything, without
    /// which a veth pair takes no frames from XDP.
    const fn program(self) -> &'static str {
        match self {
            Self::Nobody => name::SINK,
            Self::Swap => name::SWAP,
            Self::SwapOver => name::SWAP_OVER,
            Self::Balancer | Self::Forwarding | Self::Dnat | Self::IpvsDr | Self::IpvsTun => name::EMPTY,
        }
    }

    /// What the kernel's own stack is told, in a namespace of its own, beside addresses and routes; `None` if it is not asked.
    fn stack(self) -> Option<String> {
        const ALLOW: &str = "sysctl -qw net.netfilter.nf_conntrack_checksum=0";
        // Their addresses are the service's: flows that begin in the middle are taken.
        let ipvs = |way: &str| {
            format!(
                "ip addr add 10.64.0.0/32 dev lo\n\
                 sysctl -qw net.ipv4.vs.sloppy_tcp=1\n\
                 ipvsadm -A -t 10.64.0.0:80 -s rr\n\
                 ipvsadm -a -t 10.64.0.0:80 -r {NEXT}:80 {way}"
            )
        };
        match self {
            Self::Nobody | Self::Swap | Self::SwapOver | Self::Balancer => None,
            Self::Forwarding => Some(String::new()),
            Self::Dnat => Some(format!(
                "nft add table ip bench\n\
                 nft 'add chain ip bench pre {{ type nat hook prerouting priority dstnat; }}'\n\
                 nft add rule ip bench pre ip daddr 10.64.0.0 tcp dport 80 dnat to {NEXT}\n\
                 {ALLOW}"
            )),
            Self::IpvsDr => Some(ipvs("-g")),
            Self::IpvsTun => Some(ipvs("-i")),
        }
    }

    /// Why this machine does not have it.
    fn lacking(self) -> Option<String> {
        let tried = match self {
            Self::Dnat => Command::new("nft").arg("--version").output(),
            Self::IpvsDr | Self::IpvsTun => Command::new("modprobe").arg("ip_vs_rr").output(),
            _ => return None,
        };
        match tried {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(error.to_string()),
        }
    }
}

/// All roads, and the programs on them.
pub(super) struct Roads {
    pub(super) ebpf: Ebpf,
    pub(super) rig: Rig,
    pub(super) far: Namespace,
    /// The namespaces of kernels that forward: for as long as the roads are there.
    _stacks: Vec<Namespace>,
    /// Whose road leads somewhere, and by which of the far interfaces frames are sent onto it.
    gates: Vec<(Forwarder, u32)>,
}

impl Roads {
    /// Builds them. Interfaces of XDP's forwarders are in the calling thread's namespace.
    ///
    /// # Errors
    /// A link cannot be made, or a program not be attached.
    pub(super) fn build() -> Result<Self> {
        namespace::sweep()?;
        let prefix = format!("{}{}-live", namespace::PASSING, std::process::id());
        let mut ebpf = EbpfLoader::new().load(OBJECT).context("load the bench's programs")?;
        for program in [name::EMPTY, name::SWAP, name::SWAP_OVER, name::SEND, name::SINK] {
            stand::xdp(&mut ebpf, program)?.load().with_context(|| format!("load {program}"))?;
        }
        let far = Namespace::create(&format!("{prefix}-far"))?;
        let (mut stacks, mut gates) = (Vec::new(), Vec::new());
        for forwarder in Forwarder::ALL {
            if let Some(why) = forwarder.lacking() {
                println!("SKIPPED: {forwarder:?}: {why}");
                continue;
            }
            let key = forwarder.key();
            let stack = forwarder.stack();
            let own = match &stack {
                Some(_) => Some(Namespace::create(&format!("{prefix}-{key}"))?),
                None => None,
            };
            let index = |way: usize| match forwarder {
                Forwarder::Balancer => format!("index {}", BALANCER[way]),
                _ => String::new(),
            };
            let mac = LB_MAC.map(|byte| format!("{byte:02x}")).join(":");
            let links = format!(
                "ip link add {key}-in {} address {mac} type veth peer name {key}-gen netns {far}\n\
                 ip link add {key}-out {} type veth peer name {key}-sink netns {far}\n\
                 ip link set {key}-in addrgenmode none\n\
                 ip link set {key}-out addrgenmode none\n\
                 ip -n {far} link set {key}-gen addrgenmode none\n\
                 ip -n {far} link set {key}-sink addrgenmode none\n\
                 ip link set {key}-in up\n\
                 ip link set {key}-out up\n\
                 ip -n {far} link set {key}-gen up\n\
                 ip -n {far} link set {key}-sink up",
                index(0),
                index(1),
                far = far.name(),
            );
            let near = |ebpf: &mut Ebpf| -> Result<()> {
                sh(&links)?;
                if forwarder != Forwarder::Balancer {
                    attach(ebpf, forwarder.program(), &format!("{key}-in"))?;
                }
                if let Some(stack) = &stack {
                    sh(&routes(key))?;
                    sh(stack).with_context(|| format!("set {forwarder:?} up"))?;
                }
                Ok(())
            };
            match &own {
                Some(own) => own.enter(|| near(&mut ebpf))??,
                None => near(&mut ebpf)?,
            }
            stacks.extend(own);
            let gate = far.enter(|| {
                for end in ["gen", "sink"] {
                    attach(&mut ebpf, name::SINK, &format!("{key}-{end}"))?;
                }
                Ok::<_, anyhow::Error>(if_nametoindex(format!("{key}-gen").as_str())?)
            })??;
            gates.push((forwarder, gate));
        }
        let over = if_nametoindex(format!("{}-out", Forwarder::SwapOver.key()).as_str())?;
        let map = ebpf.map_mut(name::WAY_OUT).context("no map of ways out")?;
        DevMap::try_from(map)?.set(0, over, None, 0).context("set the least balancer's way out")?;
        let mut rig = World::Plain.load_between(BALANCER[0], BALANCER[1])?;
        xdp(rig.kernel(), balancer::PROGRAM)?.attach("lb-in", XdpMode::Driver).context("attach lb")?;
        Ok(Self { ebpf, rig, far, _stacks: stacks, gates })
    }

    /// By which far interface frames are sent to a forwarder; `None` if it is not there.
    pub(super) fn gate(&self, forwarder: Forwarder) -> Option<u32> {
        self.gates.iter().find(|(known, _)| *known == forwarder).map(|(_, gate)| *gate)
    }
}

fn attach(ebpf: &mut Ebpf, program: &str, interface: &str) -> Result<()> {
    let attached = stand::xdp(ebpf, program)?.attach(interface, XdpMode::Driver);
    match attached {
        Ok(_) => Ok(()),
        Err(error) => bail!("attach {program} to {interface}: {error}"),
    }
}

/// Addresses and routes of a kernel that forwards: the VIPs go out, answers would go back in. Nobody need be asked for an Ethernet
/// address.
fn routes(key: &str) -> String {
    format!(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0\n\
         sysctl -qw net.ipv4.conf.{key}-in.rp_filter=0 net.ipv4.conf.{key}-out.rp_filter=0\n\
         ip addr add 10.251.0.1/24 dev {key}-in\n\
         ip addr add 10.250.0.1/24 dev {key}-out\n\
         ip neigh add {NEXT} lladdr {NEXT_MAC} dev {key}-out nud permanent\n\
         ip neigh add 10.251.0.2 lladdr {NEXT_MAC} dev {key}-in nud permanent\n\
         ip route add default via 10.251.0.2\n\
         ip route add 10.64.0.0/16 via {NEXT}"
    )
}
