//! The namespaces of a lab, their links, addresses and routes, and the servers on its backends.

use std::{
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Backend, Namespace, Tally,
    addresses::{FIRST, ROUTER, Subnet, VIPS},
    client::{self, Ask},
    interrupt, namespace, process,
};

/// MTU between the client and the router.
pub const CLIENT_MTU: u16 = 1500;

/// MTU behind the router: room for an outer header, so that tunnels need no smaller segments.
pub const INNER_MTU: u16 = 1600;

/// What a lab is to have.
#[derive(Clone, Debug)]
pub struct Builder {
    l2: u8,
    tunnel: u8,
    balancer: bool,
    two_armed: bool,
    standing: Option<(String, PathBuf)>,
}

impl Builder {
    /// Backends next to the balancer.
    pub fn l2_backends(mut self, count: u8) -> Self {
        self.l2 = count;
        self
    }

    /// Backends in the other subnet.
    pub fn tunnel_backends(mut self, count: u8) -> Self {
        self.tunnel = count;
        self
    }

    /// Without a balancer the router routes the VIPs straight to `b1`: to try the lab itself.
    pub fn balancer(mut self, balancer: bool) -> Self {
        self.balancer = balancer;
        self
    }

    /// The balancer gets clients' packets by `eth0`, from a subnet of its own, and reaches every backend by `eth1`.
    /// Its default route is by `eth0`.
    pub fn two_armed(mut self) -> Self {
        self.two_armed = true;
        self
    }

    /// Names the namespaces `PREFIX-ROLE` and keeps files in this directory, so that the lab can be left standing.
    pub fn standing(mut self, prefix: &str, directory: &Path) -> Self {
        self.standing = Some((prefix.to_owned(), directory.to_owned()));
        self
    }

    /// Builds it and starts the servers.
    ///
    /// # Errors
    /// What could not be made; what was made until then is removed.
    pub fn build(self) -> Result<Lab> {
        ensure!(nix::unistd::geteuid().is_root(), "a lab of network namespaces needs root");
        ensure!(u32::from(self.l2) + u32::from(self.tunnel) <= 80, "a lab has room for 80 backends");
        interrupt::watch();
        interrupt::check()?;
        namespace::sweep()?;
        let (prefix, path) = self.standing.clone().unwrap_or_else(|| {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let prefix = format!("{}{}-{number}", namespace::PASSING, std::process::id());
            // Named as the namespaces are, so that `sweep` finds it.
            let path = std::env::temp_dir().join(&prefix);
            (prefix, path)
        });
        let directory = Directory::create(path)?;
        let make = |role: &str| Namespace::create(&format!("{prefix}-{role}"));
        let (client, router, balancer) = (make("client")?, make("router")?, make("lb")?);
        let mut backends = Vec::new();
        for number in 1..=self.l2 + self.tunnel {
            let tunnelled = number > self.l2;
            let subnet = if tunnelled { Subnet::TUNNEL } else { Subnet::L2 };
            let name = format!("b{number}");
            backends.push(Backend {
                namespace: make(&name)?,
                name,
                address4: subnet.v4(10 + number).into(),
                address6: subnet.v6(10 + number).into(),
                tunnelled,
                nginx: None,
                echo: None,
                directory: directory.path.clone(),
            });
        }
        let mut lab = Lab { backends, client, router, balancer, arms: self.arms(), directory, prefix };
        lab.connect(&self)?;
        if self.balancer {
            lab.attach()?;
        }
        for backend in &mut lab.backends {
            backend.start()?;
        }
        Ok(lab)
    }

    fn arms(&self) -> &'static [Arm] {
        if self.two_armed { &TWO_ARMS } else { &ONE_ARM }
    }
}

/// A link between the balancer and the router. The first of a balancer is the one that clients' packets come by.
#[derive(Debug)]
struct Arm {
    /// The balancer's interface.
    near: &'static str,
    /// The router's.
    far: &'static str,
    /// What it leads to. The router bridges the backends' subnets; the others end on its interface.
    subnet: Subnet,
}

const ONE_ARM: [Arm; 1] = [Arm { near: "eth0", far: "lb", subnet: Subnet::L2 }];

/// The Ethernet address of the bridge that the backends and the balancer are on.
const BRIDGE: &str = "02:00:00:00:00:01";

const TWO_ARMS: [Arm; 2] = [
    Arm { near: "eth0", far: "lb", subnet: Subnet::FRONT },
    Arm { near: "eth1", far: "lb-back", subnet: Subnet::L2 },
];

/// A directory of the lab's files; dropping it removes it.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    owned: bool,
}

impl Directory {
    fn create(path: PathBuf) -> Result<Self> {
        std::fs::create_dir(&path).with_context(|| {
            format!("making {} (`lb-lab clean` removes what is left of others)", path.display())
        })?;
        Ok(Self { path, owned: true })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = namespace::remove(&self.path)
        {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// A standing laboratory; dropping it removes it.
#[derive(Debug)]
pub struct Lab {
    /// `b1`, `b2`, …: first those next to the balancer, then those behind a tunnel.
    pub backends: Vec<Backend>,
    /// Where requests come from.
    pub client: Namespace,
    /// Joins the subnets; knows the way to the VIPs.
    pub router: Namespace,
    /// Where `lb` runs, on `eth0` (and `eth1`, if it has [two arms](Builder::two_armed)).
    pub balancer: Namespace,
    /// What its namespaces' names start with.
    pub prefix: String,
    arms: &'static [Arm],
    directory: Directory,
}

impl Lab {
    /// A lab of two backends next to the balancer and one behind a tunnel, unless told otherwise.
    pub fn builder() -> Builder {
        Builder { l2: 2, tunnel: 1, balancer: true, two_armed: false, standing: None }
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory.path
    }

    /// The backend of this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn backend(&mut self, name: &str) -> &mut Backend {
        self.backends.iter_mut().find(|backend| backend.name == name).expect("a backend of this lab")
    }

    /// Asks `count` times from the client, 16 at a time.
    ///
    /// # Errors
    /// If the client's namespace is gone or the process was interrupted; failed requests are in the tally.
    pub fn ask(&self, how: Ask, vip: IpAddr, count: usize) -> Result<Tally> {
        client::ask(&self.client, how, vip, count, 16)
    }

    /// Leaves everything standing and gives the ids of the processes that run on.
    pub fn leave(mut self) -> Vec<u32> {
        let mut ids = Vec::new();
        self.directory.owned = false;
        for namespace in [&mut self.client, &mut self.router, &mut self.balancer] {
            namespace.leave();
        }
        for backend in &mut self.backends {
            backend.namespace.leave();
            for process in [&mut backend.nginx, &mut backend.echo].into_iter().flatten() {
                process.leave();
                ids.push(process.id());
            }
        }
        ids
    }

    fn connect(&self, wanted: &Builder) -> Result<()> {
        self.settings()?;
        let inner = INNER_MTU;
        let mut router = vec![
            // An address of its own: else it has that of one of its ports, and another one when the ports change.
            format!("link add l2 address {BRIDGE} mtu {inner} type bridge"),
            format!("link add tunnel mtu {inner} type bridge"),
        ];
        router.extend(wire("client", (&self.client, "eth0"), CLIENT_MTU, None));
        for Arm { near, far, subnet } in self.arms {
            let bridge = (*subnet == Subnet::L2).then_some("l2");
            router.extend(wire(far, (&self.balancer, near), inner, bridge));
            if bridge.is_none() {
                router.extend(addresses(far, *subnet, ROUTER));
            }
        }
        for Backend { name, namespace, tunnelled, .. } in &self.backends {
            let bridge = if *tunnelled { "tunnel" } else { "l2" };
            router.extend(wire(name, (namespace, "eth0"), inner, Some(bridge)));
        }
        for (interface, subnet) in
            [("client", Subnet::CLIENT), ("l2", Subnet::L2), ("tunnel", Subnet::TUNNEL)]
        {
            router.extend(addresses(interface, subnet, ROUTER));
        }
        let front = self.arms[0].subnet;
        let (next4, next6) = match self.backends.first() {
            Some(first) if !wanted.balancer => (first.address4, first.address6),
            _ => (front.v4(FIRST).into(), front.v6(FIRST).into()),
        };
        for vip in VIPS {
            let next = if vip.is_ipv4() { next4 } else { next6 };
            router.push(format!("route add {vip} via {next}"));
        }
        batch(&self.router, &router)?;

        batch(&self.client, &host(Subnet::CLIENT, FIRST))?;
        batch(&self.balancer, &self.balancer_routes())?;
        for (Backend { namespace, tunnelled, .. }, number) in self.backends.iter().zip(11..) {
            let subnet = if *tunnelled { Subnet::TUNNEL } else { Subnet::L2 };
            let mut commands = host(subnet, number);
            commands.extend(VIPS.map(|vip| match vip {
                IpAddr::V4(_) => format!("addr add {vip}/32 dev lo"),
                IpAddr::V6(_) => format!("addr add {vip}/128 dev lo nodad"),
            }));
            batch(namespace, &commands)?;
        }
        self.offloads()
    }

    /// Takes the balancer's `eth0` away, as when a driver is unloaded. For a balancer with one arm.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn unplug(&self) -> Result<()> {
        self.balancer.ip(&["link", "del", self.arms[0].near]).map(drop)
    }

    /// Takes the balancer's `eth0` down.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn down(&self) -> Result<()> {
        self.balancer.ip(&["link", "set", self.arms[0].near, "down"]).map(drop)
    }

    /// Takes it up again and gives it back what the kernel forgot of it: routes, IPv6 addresses. A host's network
    /// configuration does no less.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn up(&self) -> Result<()> {
        batch(&self.balancer, &self.balancer_routes())
    }

    /// Gives the balancer a new `eth0` in the place of the one that was taken away.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn plug(&self) -> Result<()> {
        let Arm { near, far, .. } = self.arms[0];
        let mut router = wire(far, (&self.balancer, near), INNER_MTU, Some("l2"));
        // It has another MAC address, which the router would find out in half a minute.
        router.push("neigh flush dev l2".to_owned());
        batch(&self.router, &router)?;
        batch(&self.balancer, &self.balancer_routes())?;
        self.offloads()?;
        let lb = process::binary("lb")?;
        namespace::run(self.router.command(&lb).args(["server", "pass", "--interface", far])).map(drop)
    }

    /// Settings that interfaces inherit when they are made, so before the links.
    fn settings(&self) -> Result<()> {
        let backends = || self.backends.iter().map(|backend| &backend.namespace);
        for namespace in [&self.client, &self.router, &self.balancer].into_iter().chain(backends()) {
            namespace.sysctl(&[
                // Duplicate address detection would hold every IPv6 address back for over a second.
                ("ipv6/conf/all/accept_dad", "0"),
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/default/accept_ra", "0"),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
            ])?;
        }
        self.router.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
        ])?;
        for namespace in backends() {
            // Nobody but the balancer answers ARP for a VIP.
            namespace.sysctl(&[("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")])?;
        }
        Ok(())
    }

    /// Its first arm is its way out; the tunnels' subnet is behind the last one, as the backends next to it are.
    fn balancer_routes(&self) -> Vec<String> {
        let mut commands = host(self.arms[0].subnet, FIRST);
        for Arm { near, subnet, .. } in &self.arms[1..] {
            commands.extend(addresses(near, *subnet, FIRST));
            commands.push(format!("route add {}/24 via {}", Subnet::TUNNEL.v4(0), subnet.v4(ROUTER)));
            commands.push(format!("route add {}/64 via {}", Subnet::TUNNEL.v6(0), subnet.v6(ROUTER)));
        }
        commands
    }

    /// XDP forwards packets as they are: a checksum left to hardware would never be filled in.
    fn offloads(&self) -> Result<()> {
        let off = |namespace: &Namespace, interface: &str| {
            namespace.run("ethtool", &["-K", interface, "tx", "off"]).map(drop)
        };
        off(&self.client, "eth0")?;
        off(&self.router, "client")?;
        for Arm { near, far, .. } in self.arms {
            off(&self.balancer, near)?;
            off(&self.router, far)?;
        }
        self.backends.iter().try_for_each(|Backend { name, namespace, .. }| {
            off(namespace, "eth0")?;
            off(&self.router, name)
        })
    }

    /// The XDP programs that are not the balancer's own.
    fn attach(&self) -> Result<()> {
        let lb = process::binary("lb")?;
        // veth receives XDP_TX frames only where the peer has a native XDP program too; for redirected ones, GRO
        // would do, which it has not by itself either.
        for Arm { far, .. } in self.arms {
            namespace::run(self.router.command(&lb).args(["server", "pass", "--interface", far]))?;
        }
        for backend in self.backends.iter().filter(|backend| backend.tunnelled) {
            namespace::run(backend.namespace.command(&lb).args(["server", "decap", "--interface", "eth0"]))?;
        }
        Ok(())
    }
}

/// A link from a new interface of the router to one of another namespace.
fn wire(name: &str, (to, far): (&Namespace, &str), mtu: u16, bridge: Option<&str>) -> Vec<String> {
    let to = to.name();
    let mut commands =
        vec![format!("link add {name} mtu {mtu} type veth peer name {far} mtu {mtu} netns {to}")];
    commands.extend(bridge.map(|bridge| format!("link set {name} master {bridge}")));
    commands.push(format!("link set {name} up"));
    commands
}

/// Address of a namespace's `eth0`, and its default route.
fn host(subnet: Subnet, number: u8) -> Vec<String> {
    let mut commands = addresses("eth0", subnet, number);
    commands.push(format!("route replace default via {}", subnet.v4(ROUTER)));
    commands.push(format!("route replace default via {}", subnet.v6(ROUTER)));
    commands
}

fn addresses(interface: &str, subnet: Subnet, number: u8) -> Vec<String> {
    vec![
        format!("link set {interface} up"),
        format!("addr replace {}/24 dev {interface}", subnet.v4(number)),
        format!("addr replace {}/64 dev {interface} nodad", subnet.v6(number)),
    ]
}

/// Many `ip` commands in one process.
fn batch(namespace: &Namespace, commands: &[String]) -> Result<()> {
    let name = namespace.name();
    let mut ip = Command::new("ip")
        .args(["-n", name, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting `ip`")?;
    let mut input = ip.stdin.take().context("`ip` has an input")?;
    // If `ip` gave up early, its words below say why.
    drop(input.write_all((commands.join("\n") + "\n").as_bytes()));
    drop(input);
    let output = ip.wait_with_output().context("waiting for `ip`")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("`ip` in namespace {name}: {}; the commands were:\n{}", words.trim(), commands.join("\n"));
    }
    Ok(())
}
