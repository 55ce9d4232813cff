//! The kernel edge: loads the programs, makes the maps, attaches, and carries out changes. It decides nothing.

mod attach;
mod follow;
mod found;
pub mod mapped;
pub mod pins;
mod programs;
mod read;
pub mod server;
#[cfg(test)]
mod stack;
mod tables;

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{DevMap, LpmTrie, Map, MapData, MapError, RingBuf, lpm_trie::Key},
    programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp, tc::SchedClassifierLink},
    util::nr_cpus,
};
use lb_common::abi::{
    ABI_VERSION, Backend, Config, Counter, Features, Limits, PrefixKey, Reason, Ticks, Window, name,
};
use tokio::io::{Interest, unix::AsyncFd};

use self::{
    attach::Attached,
    mapped::MappedArray,
    programs::{PacketPath, SharedMaps, refusal},
    tables::{MappedTables, Sizes},
};
pub use self::{
    attach::Withdrawn,
    follow::Fate,
    found::{Found, Left, Unusable, left},
};
use crate::model::{plan::Change, traffic::Counters};

/// The object with all programs and maps.
pub static OBJECT: &[u8] = include_bytes_aligned!(env!("LB_EBPF_OBJECT"));
/// The same programs, compiled for [`Features::LEAN`] alone.
static LEAN_OBJECT: &[u8] = include_bytes_aligned!(env!("LB_EBPF_LEAN_OBJECT"));

/// What the kernel edge cannot do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The object did not load: an old kernel, missing rights, or a refusal of the verifier.
    #[error(
        "cannot load the eBPF programs (root, or CAP_BPF and CAP_NET_ADMIN, and kernel 6.1 or later are needed)"
    )]
    Load(#[source] Box<aya::EbpfError>),
    /// A program did not pass the verifier, or the kernel lacks what it needs.
    #[error("the kernel refused program {program}: {said}")]
    Program {
        /// Name of the program.
        program: &'static str,
        /// What the kernel said, in a line.
        said: String,
    },
    /// The maps of the balancer cannot be given to new programs.
    #[error("cannot let the programs use the balancer's maps")]
    SharedMaps(#[source] io::Error),
    /// The programs cannot be replaced; the ones before go on.
    #[error("cannot replace the program at {interface}: {said}; the one before goes on")]
    Replace {
        /// Interface name.
        interface: String,
        /// What the kernel said.
        said: String,
    },
    /// The object lacks a program or map: it was built from other sources.
    #[error("the eBPF object has no {0}: build again with cargo xtask build")]
    Missing(&'static str),
    /// A map cannot be used.
    #[error("cannot use map {map}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The interface does not exist.
    #[error("there is no interface {0} (see: ip link)")]
    NoInterface(String),
    /// The driver has no native XDP, and native was demanded.
    #[error("{interface} cannot run XDP natively: {source}; xdp = \"auto\" falls back to generic mode")]
    NoNative {
        /// Interface name.
        interface: String,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
    /// The program cannot be attached.
    #[error("cannot attach to {interface}{}", busy(.source))]
    Attach {
        /// Interface name.
        interface: String,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// The tables that a newer daemon pinned.
    #[error(
        "a newer lb (tables of version {version}, this one makes version {ABI_VERSION}) has its maps pinned under {path}, \
         and its programs may be forwarding: run that one, or end its forwarding first (stop it, or remove {path})"
    )]
    Newer {
        /// Their version.
        version: u32,
        /// Where.
        path: PathBuf,
    },
    /// The maps that an earlier daemon pinned cannot be gone on with.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// Pins cannot be made or removed.
    #[error(transparent)]
    Pins(#[from] pins::PinsError),
    /// A port's device cannot be set.
    #[error("cannot set the device of port {number} to interface {ifindex}")]
    Device {
        /// Port number.
        number: u32,
        /// Interface index.
        ifindex: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn busy(error: &ProgramError) -> &'static str {
    match error {
        ProgramError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::EBUSY) => {
            ": another XDP program is attached there (see: ip link, bpftool net)"
        }
        _ => "",
    }
}

/// How to load.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Sizes of the tables.
    pub limits: Limits,
    /// What the programs are to be able to do.
    pub features: Features,
    /// Whether the programs log packets (aya-log at debug level): slow.
    pub log_packets: bool,
    /// Directory under a bpffs for pins.
    pub pins: PathBuf,
}

/// The programs and maps of one balancer.
pub struct Kernel {
    /// The maps, and the programs that stay: those of the packet path stand in `path`.
    ebpf: Ebpf,
    shared: SharedMaps,
    path: PacketPath,
    /// Generations that could not be taken off every interface.
    stale: Vec<PacketPath>,
    tables: MappedTables,
    options: LoadOptions,
    cpus: u32,
    sizes: Sizes,
    /// The directory of all versions' pins, and that of ours.
    pins: (PathBuf, PathBuf),
    /// Whether the maps are pinned there.
    pinned: bool,
    /// Whether the maps are those of an earlier daemon.
    found: bool,
    /// The probes' steering, by interface. It detaches when this is dropped.
    probes: BTreeMap<String, SchedClassifierLink>,
    attached: Vec<Attached>,
}

impl Kernel {
    /// Loads the programs and makes their maps, all zero.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn load(options: &LoadOptions) -> Result<Self, KernelError> {
        Self::make(options.clone(), None)
    }

    /// Loads the programs over the maps of an earlier daemon. They are able to do what is wanted and what that daemon's
    /// were.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn load_over(options: &LoadOptions, found: &Found) -> Result<Self, KernelError> {
        let (limits, features) = (found.limits, options.features.with(found.features));
        // The daemon before may have been killed between two steps of a plan: what began before is done with.
        settle();
        Self::make(LoadOptions { limits, features, ..options.clone() }, Some(found))
    }

    fn make(options: LoadOptions, found: Option<&Found>) -> Result<Self, KernelError> {
        let limits = options.limits;
        let cpus = nr_cpus().map_err(|(_, source)| KernelError::Map { map: name::COUNTERS, source })?;
        let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
        let sizes = Sizes::new(&limits, cpus);
        let log_level = log_level(&options);
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries(name::BUDGETS, cpus * Window::COUNT)
            .map_max_entries(name::PREFIXES, limits.prefixes)
            .override_global(aya_log::LEVEL, &log_level, true);
        sizes.tell(&mut loader, true);
        let mut ebpf = loader.load(OBJECT).map_err(|error| KernelError::Load(Box::new(error)))?;
        let tables = if let Some(found) = found {
            found.check(&ebpf, &pins::of_version(&options.pins, ABI_VERSION))?;
            SharedMaps::found(found)?
        } else {
            sizes.make()?
        };
        tables.take_places(&ebpf)?;
        classifier(&mut ebpf, name::PROBE)?.load().map_err(|error| refused(name::PROBE, &error))?;
        xdp(&mut ebpf, name::CLOCK)?.load().map_err(|error| refused(name::CLOCK, &error))?;
        let shared = SharedMaps::of(&ebpf)?;
        let path = PacketPath::load(&options, options.features, (&shared, &sizes))?;
        let tables = MappedTables::of(&ebpf, &sizes)?;
        let pins = (options.pins.clone(), pins::of_version(&options.pins, ABI_VERSION));
        Ok(Self {
            ebpf,
            shared,
            path,
            stale: Vec::new(),
            tables,
            options,
            cpus,
            sizes,
            pins,
            pinned: false,
            found: found.is_some(),
            probes: BTreeMap::new(),
            attached: Vec::new(),
        })
    }

    /// The maps, and the programs beside the packet path.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// An XDP program, of those that are in use now: for whoever runs it by `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    /// [`KernelError::Missing`].
    pub fn program(&mut self, program: &'static str) -> Result<&mut Xdp, KernelError> {
        if PacketPath::programs().any(|known| known == program) {
            return self.path.program(program);
        }
        xdp(&mut self.ebpf, program)
    }

    /// What the programs tell of single packets: a buffer that one may read. Within a tokio runtime.
    ///
    /// # Errors
    /// [`KernelError::Missing`] or [`KernelError::Map`].
    pub fn events(&self) -> Result<AsyncFd<RingBuf<MapData>>, KernelError> {
        let failed = |error| KernelError::Map { map: name::EVENTS, source: io::Error::other(error) };
        let Some(Map::RingBuf(data)) = self.ebpf.map(name::EVENTS) else {
            return Err(KernelError::Missing(name::EVENTS));
        };
        let fd = data.fd().as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| KernelError::Map { map: name::EVENTS, source })?;
        let data = MapData::from_fd(fd).map_err(failed)?;
        let ring = RingBuf::try_from(Map::RingBuf(data)).map_err(failed)?;
        // SAFETY: the buffer owns its descriptor and gives no other from its `as_raw_fd`.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        ring.map_err(|error| KernelError::Map { map: name::EVENTS, source: error.into() })
    }

    /// The clock that flows are remembered by.
    ///
    /// # Errors
    /// [`KernelError::Program`].
    pub fn now(&mut self) -> Result<Ticks, KernelError> {
        self.jiffies().map(|jiffies| Ticks::new(u64::from(jiffies)))
    }

    fn jiffies(&mut self) -> Result<u32, KernelError> {
        let options = TestRunOptions { data_in: Some(&[0; 64]), ..TestRunOptions::default() };
        let run = xdp(&mut self.ebpf, name::CLOCK)?.test_run(options);
        run.map(|run| run.return_value).map_err(|error| refused(name::CLOCK, &error))
    }

    /// How fast that clock is: a constant of the kernel's build, which no interface tells. Takes a moment.
    ///
    /// # Errors
    /// [`KernelError::Program`].
    pub fn ticks_per_second(&mut self) -> Result<u32, KernelError> {
        /// Every choice of CONFIG_HZ.
        const CHOICES: [u32; 5] = [100, 250, 300, 1000, 1024];
        let start = (Instant::now(), self.jiffies()?);
        std::thread::sleep(Duration::from_millis(120));
        let ticks = self.jiffies()?.wrapping_sub(start.1);
        let measured = f64::from(ticks) / start.0.elapsed().as_secs_f64();
        let nearest = CHOICES
            .into_iter()
            .min_by(|a, b| (f64::from(*a) - measured).abs().total_cmp(&(f64::from(*b) - measured).abs()));
        Ok(nearest.unwrap_or(250))
    }

    /// Sizes of the tables.
    pub fn limits(&self) -> Limits {
        self.options.limits
    }

    /// Carries out one change.
    ///
    /// # Errors
    /// [`KernelError::Device`] or [`KernelError::Map`]: tables that are no shared memory. And whatever keeps programs
    /// with other features from being loaded or attached; then those before go on.
    ///
    /// # Panics
    /// If the change is outside the tables: plans are made for these limits.
    pub fn apply(&mut self, change: &Change) -> Result<(), KernelError> {
        let tables = &self.tables;
        match change {
            Change::Features(features) => self.specialise(*features)?,
            Change::Capture(filter) => tables.capture.store(0, filter),
            Change::Port { number, port } => {
                self.set_device(*number, port.ifindex)?;
                self.tables.ports.store(*number as usize, port);
            }
            Change::Prefixes { set, remove } => self.change_prefixes(set, remove)?,
            Change::Backend { index, backend } => tables.backends.store(*index as usize, backend),
            Change::Hop { index, hop } => {
                for (word, value) in hop.to_words().into_iter().enumerate() {
                    tables.backends.store_word(*index as usize, word, value);
                }
            }
            Change::Standing { index, standing } => {
                tables.backends.store_word(*index as usize, Backend::STANDING_WORD, standing.to_word());
            }
            Change::Previous(slots) => {
                for &(place, slot) in slots {
                    tables.previous.store_half(place as usize, slot.0);
                }
            }
            Change::Slots(slots) => {
                for &(place, slot) in slots {
                    tables.slots.store_half(place as usize, slot.0);
                }
            }
            Change::Service { number, service } => tables.services.store(*number as usize, service),
            Change::Index { copy, entries } => {
                let base = copy * self.options.limits.index;
                for (position, entry) in entries {
                    tables.index.store((base + position) as usize, entry);
                }
            }
            Change::Config(config) => tables.config.store(0, config),
            Change::Settle => settle(),
        }
        Ok(())
    }

    fn set_device(&mut self, number: u32, ifindex: u32) -> Result<(), KernelError> {
        let map = self.ebpf.map_mut(name::DEVICES).ok_or(KernelError::Missing(name::DEVICES))?;
        let failed = |source| KernelError::Device { number, ifindex, source };
        let mut devices: DevMap<_> = map.try_into().map_err(|_| KernelError::Missing(name::DEVICES))?;
        devices.set(number, ifindex, None, 0).map_err(|error| failed(io::Error::other(error)))
    }

    /// Replaces the programs by ones that have these features, over the same maps.
    fn specialise(&mut self, features: Features) -> Result<(), KernelError> {
        if self.path.features() == features {
            self.tell_features(features);
            return Ok(());
        }
        let start = Instant::now();
        let next = PacketPath::load(&self.options, features, (&self.shared, &self.sizes))?;
        self.replace(next)?;
        self.tell_features(features);
        tracing::debug!(?features, took = ?start.elapsed(), "programs replaced");
        Ok(())
    }

    /// For who finds the tables.
    fn tell_features(&self, features: Features) {
        self.tables.config.store_word(0, Config::FEATURES_WORD, u64::from(features.0));
    }

    fn change_prefixes(&mut self, set: &[(PrefixKey, u32)], remove: &[PrefixKey]) -> Result<(), KernelError> {
        let failed = |error| KernelError::Map { map: name::PREFIXES, source: io::Error::other(error) };
        let map = self.ebpf.map_mut(name::PREFIXES).ok_or(KernelError::Missing(name::PREFIXES))?;
        let mut trie: LpmTrie<_, [u32; 5], u32> =
            map.try_into().map_err(|_| KernelError::Missing(name::PREFIXES))?;
        for (key, value) in set {
            trie.insert(&lpm_key(key), value, 0).map_err(failed)?;
        }
        for key in remove {
            match trie.remove(&lpm_key(key)) {
                Err(MapError::KeyNotFound) | Ok(()) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Reads the first `count` forwarding counters and every reason's, summed over the CPUs.
    pub fn counters(&self, count: u32) -> Counters {
        let sum = |array: &MappedArray<Counter>, stride: u32, place: u32| {
            (0..self.cpus)
                .map(|cpu| array.load((cpu * stride + place) as usize))
                .fold(Counter::default(), |sum, counter| sum + counter)
        };
        let count = count.min(self.options.limits.counters);
        Counters {
            forwarded: (0..count)
                .map(|at| sum(&self.tables.counters, self.options.limits.counters, at))
                .collect(),
            reasons: (0..Reason::COUNT).map(|at| sum(&self.tables.reasons, Reason::COUNT, at)).collect(),
        }
    }
}

fn lpm_key(key: &PrefixKey) -> Key<[u32; 5]> {
    let PrefixKey { bits, list, address: [a, b, c, d] } = *key;
    Key::new(bits, [list, a, b, c, d])
}

fn refused(program: &'static str, error: &ProgramError) -> KernelError {
    KernelError::Program { program, said: refusal(error) }
}

/// The level of aya-log that the programs are loaded for: its statements are there only if they are to be seen.
fn log_level(options: &LoadOptions) -> u8 {
    if options.log_packets { u8::MAX } else { 0 }
}

/// Waits until every packet that is being handled now is done with: `membarrier` waits for an RCU grace period, and
/// a packet program runs within one (membarrier(2), `MEMBARRIER_CMD_GLOBAL`).
fn settle() {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // Forbidden by a sandbox, or nohz_full: wait longer than any packet takes.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn xdp<'e>(ebpf: &'e mut Ebpf, program: &'static str) -> Result<&'e mut Xdp, KernelError> {
    let found = ebpf.program_mut(program).ok_or(KernelError::Missing(program))?;
    found.try_into().map_err(|_| KernelError::Missing(program))
}

fn classifier<'e>(ebpf: &'e mut Ebpf, program: &'static str) -> Result<&'e mut SchedClassifier, KernelError> {
    let found = ebpf.program_mut(program).ok_or(KernelError::Missing(program))?;
    found.try_into().map_err(|_| KernelError::Missing(program))
}
