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
        let mut lab = Lab { backends, client, router, balancer, directory, prefix };
        lab.connect(self.balancer)?;
        if self.balancer {
            lab.attach()?;
        }
        for backend in &mut lab.backends {
            backend.start()?;
        }
        Ok(lab)
    }
}

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
    /// Where `lb` runs, on `eth0`.
    pub balancer: Namespace,
    /// What its namespaces' names start with.
    pub prefix: String,
    directory: Directory,
}

impl Lab {
    /// A lab of two backends next to the balancer and one behind a tunnel, unless told otherwise.
    pub fn builder() -> Builder {
        Builder { l2: 2, tunnel: 1, balancer: true, standing: None }
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

    fn connect(&self, balancer: bool) -> Result<()> {
        self.settings()?;
        let inner = INNER_MTU;
        let mut router = vec![
            format!("link add l2 mtu {inner} type bridge"),
            format!("link add tunnel mtu {inner} type bridge"),
        ];
        router.extend(self.wire("client", &self.client, CLIENT_MTU, None));
        router.extend(self.wire("lb", &self.balancer, inner, Some("l2")));
        for Backend { name, namespace, tunnelled, .. } in &self.backends {
            router.extend(self.wire(name, namespace, inner, Some(if *tunnelled { "tunnel" } else { "l2" })));
        }
        for (interface, subnet) in
            [("client", Subnet::CLIENT), ("l2", Subnet::L2), ("tunnel", Subnet::TUNNEL)]
        {
            router.extend(addresses(interface, subnet, ROUTER));
        }
        let (next4, next6) = match self.backends.first() {
            Some(first) if !balancer => (first.address4, first.address6),
            _ => (Subnet::L2.v4(FIRST).into(), Subnet::L2.v6(FIRST).into()),
        };
        for vip in VIPS {
            let next = if vip.is_ipv4() { next4 } else { next6 };
            router.push(format!("route add {vip} via {next}"));
        }
        batch(&self.router, &router)?;

        batch(&self.client, &host(Subnet::CLIENT, FIRST))?;
        batch(&self.balancer, &host(Subnet::L2, FIRST))?;
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

    /// A link from the router to a namespace's `eth0`.
    fn wire(&self, name: &str, to: &Namespace, mtu: u16, bridge: Option<&str>) -> Vec<String> {
        let to = to.name();
        let mut commands =
            vec![format!("link add {name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {to}")];
        commands.extend(bridge.map(|bridge| format!("link set {name} master {bridge}")));
        commands.push(format!("link set {name} up"));
        commands
    }

    /// XDP forwards packets as they are: a checksum left to hardware would never be filled in.
    fn offloads(&self) -> Result<()> {
        let off = |namespace: &Namespace, interface: &str| {
            namespace.run("ethtool", &["-K", interface, "tx", "off"]).map(drop)
        };
        let backends = self.backends.iter();
        for namespace in [&self.client, &self.balancer].into_iter().chain(backends.map(|b| &b.namespace)) {
            off(namespace, "eth0")?;
        }
        off(&self.router, "client")?;
        off(&self.router, "lb")?;
        self.backends.iter().try_for_each(|backend| off(&self.router, &backend.name))
    }

    /// The XDP programs that are not the balancer's own.
    fn attach(&self) -> Result<()> {
        let lb = process::binary("lb")?;
        // veth receives XDP_TX frames only where the peer has a native XDP program too.
        namespace::run(self.router.command(&lb).args(["server", "pass", "--interface", "lb"]))?;
        for backend in self.backends.iter().filter(|backend| backend.tunnelled) {
            namespace::run(backend.namespace.command(&lb).args(["server", "decap", "--interface", "eth0"]))?;
        }
        Ok(())
    }
}

/// Address and default route of a namespace that has one interface.
fn host(subnet: Subnet, number: u8) -> Vec<String> {
    let mut commands = addresses("eth0", subnet, number);
    commands.push(format!("route add default via {}", subnet.v4(ROUTER)));
    commands.push(format!("route add default via {}", subnet.v6(ROUTER)));
    commands
}

fn addresses(interface: &str, subnet: Subnet, number: u8) -> Vec<String> {
    vec![
        format!("link set {interface} up"),
        format!("addr add {}/24 dev {interface}", subnet.v4(number)),
        format!("addr add {}/64 dev {interface} nodad", subnet.v6(number)),
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
