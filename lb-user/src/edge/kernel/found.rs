//! Maps that an earlier daemon pinned.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Map, MapData, MapInfo},
    util::nr_cpus,
};
use lb_common::{
    abi::{
        ABI_VERSION, Backend, Bucket, Config, Counter, Features, IndexEntry, Limits, Reason, SLOTS_PER_LINE,
        Service, SlotLine, Window, name,
    },
    wire::pod::Pod,
};
use serde::Serialize;

use super::{
    KernelError,
    mapped::MappedArray,
    pins,
    programs::{descriptor, plain},
};

/// The maps of an earlier daemon.
#[derive(Debug)]
pub struct Found {
    /// By name.
    pub(super) maps: BTreeMap<String, MapData>,
    /// Their sizes.
    pub limits: Limits,
    /// What the programs over them were loaded for.
    pub features: Features,
}

/// Why pinned maps cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A map is not there.
    #[error("{map} is not pinned in {directory}")]
    Missing {
        /// The map.
        map: String,
        /// Where it should be.
        directory: PathBuf,
    },
    /// It cannot be opened.
    #[error("cannot open the pinned map {map}")]
    Unreadable {
        /// The map.
        map: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It is of another kind or size.
    #[error("the pinned map {map} is of another {what}")]
    Different {
        /// The map.
        map: String,
        /// Kind, key size, ...
        what: &'static str,
    },
}

/// What an earlier daemon left, as far as the pins tell.
#[derive(Clone, Debug, Serialize)]
pub struct Left {
    /// No daemon told this.
    pub daemon: (),
    /// Where its programs forward.
    pub interfaces: Vec<String>,
    /// The newest version of layouts whose maps are pinned.
    pub version: Option<u32>,
    /// What its tables say, if they can be read.
    pub tables: Option<LeftTables>,
}

/// What tables say that an earlier daemon left.
#[derive(Clone, Debug, Serialize)]
pub struct LeftTables {
    /// The version of their layouts.
    pub version: u32,
    /// Services.
    pub services: usize,
    /// Backends, those as well that take nothing.
    pub backends: usize,
    /// Backends that take new flows.
    pub taking: usize,
}

/// What an earlier daemon left under the directory of pins.
///
/// # Errors
/// The directory cannot be read.
pub fn left(root: &Path) -> Result<Left, KernelError> {
    let tables = match Found::look(root) {
        Ok(Some(found)) => Some(found.summary()?),
        Ok(None) | Err(KernelError::Newer { .. } | KernelError::Unusable(_)) => None,
        Err(error) => return Err(error),
    };
    let version = pins::versions(root)?.pop();
    Ok(Left { daemon: (), interfaces: pins::names(root, super::attach::LINK)?, version, tables })
}

/// Whether a map is pinned with the tables.
fn is_pinned(map: &str) -> bool {
    map.starts_with("lb_") && map != name::PROGRAMS
}

/// The maps of the object that are pinned, by the names they have there.
pub(super) fn pinned(ebpf: &Ebpf) -> impl Iterator<Item = (&str, &Map)> {
    ebpf.maps().map(|(section, map)| (plain(section), map)).filter(|(map, _)| is_pinned(map))
}

impl Found {
    /// Looks for maps of an earlier daemon under the directory of pins. `None` if there are none.
    ///
    /// # Errors
    /// [`KernelError::Newer`], and [`KernelError::Unusable`] if only some are there, or of other sizes.
    pub fn look(root: &Path) -> Result<Option<Self>, KernelError> {
        let versions = pins::versions(root)?;
        if let Some(&version) = versions.last().filter(|version| **version > ABI_VERSION) {
            return Err(KernelError::Newer { version, path: root.to_owned() });
        }
        if !versions.contains(&ABI_VERSION) {
            return Ok(None);
        }
        let directory = pins::of_version(root, ABI_VERSION);
        let mut maps = BTreeMap::new();
        for rest in pins::names(&directory, "lb_")? {
            let map = format!("lb_{rest}");
            // What was to take the place of another never did.
            if is_pinned(&map) && !map.contains('-') {
                let opened = MapData::from_pin(directory.join(&map));
                let opened = opened.map_err(|error| unreadable(&map, io::Error::other(error)))?;
                maps.insert(map, opened);
            }
        }
        if maps.is_empty() {
            return Ok(None);
        }
        let limits = limits(&maps, &directory)?;
        let config = one::<Config>(&maps, name::CONFIG, &directory)?;
        Ok(Some(Self { maps, limits, features: config.features }))
    }

    fn summary(&self) -> Result<LeftTables, Unusable> {
        let services: MappedArray<Service> = self.array(name::SERVICES, self.limits.services)?;
        let backends: MappedArray<Backend> = self.array(name::BACKENDS, self.limits.backends)?;
        let standing = |at| backends.load(at).standing();
        Ok(LeftTables {
            version: ABI_VERSION,
            services: (0..services.len()).filter(|&at| services.load(at).slot_count > 0).count(),
            backends: (0..backends.len()).filter(|&at| standing(at).encap().is_some()).count(),
            taking: (0..backends.len()).filter(|&at| standing(at).takes(true)).count(),
        })
    }

    fn array<T: Pod>(&self, map: &str, elements: u32) -> Result<MappedArray<T>, Unusable> {
        let data = self.maps.get(map).ok_or_else(|| missing(map, Path::new("the pins")))?;
        MappedArray::map(data.fd().as_fd(), elements).map_err(|source| unreadable(map, source))
    }

    /// Whether these maps are what the object's programs expect, but for their numbers of elements.
    ///
    /// # Errors
    /// [`Unusable`].
    pub(super) fn check(&self, ebpf: &Ebpf, directory: &Path) -> Result<(), Unusable> {
        for (map, data) in pinned(ebpf) {
            let ours = descriptor(data).and_then(|fd| {
                let fd = fd.try_clone_to_owned().ok()?;
                MapData::from_fd(fd).ok()?.info().ok()
            });
            let ours = ours.ok_or_else(|| unreadable(map, io::ErrorKind::Unsupported.into()))?;
            let found = self.maps.get(map).ok_or_else(|| missing(map, directory))?;
            let found = found.info().map_err(|error| unreadable(map, io::Error::other(error)))?;
            let different = |what| Unusable::Different { map: map.to_owned(), what };
            let kind = |info: &MapInfo| info.map_type().ok().map(|kind| kind as u32);
            if kind(&ours) != kind(&found) {
                return Err(different("kind"));
            }
            // A table's elements are in its one value.
            let is_table = name::TABLES.contains(&map);
            let fits = if is_table {
                found.max_entries() == 1
            } else {
                ours.key_size() == found.key_size() && ours.value_size() == found.value_size()
            };
            if !fits {
                return Err(different("layout"));
            }
        }
        Ok(())
    }
}

fn missing(map: &str, directory: &Path) -> Unusable {
    Unusable::Missing { map: map.to_owned(), directory: directory.to_owned() }
}

fn unreadable(map: &str, source: io::Error) -> Unusable {
    Unusable::Unreadable { map: map.to_owned(), source }
}

/// The limits that maps of these sizes were made for.
fn limits(maps: &BTreeMap<String, MapData>, directory: &Path) -> Result<Limits, Unusable> {
    let info = |map: &str| -> Result<MapInfo, Unusable> {
        let data = maps.get(map).ok_or_else(|| missing(map, directory))?;
        data.info().map_err(|error| unreadable(map, io::Error::other(error)))
    };
    let entries = |map: &str| -> Result<u32, Unusable> { Ok(info(map)?.max_entries()) };
    let elements = |map: &str, bytes: usize| -> Result<u32, Unusable> {
        Ok(info(map)?.value_size() / u32::try_from(bytes).unwrap_or(u32::MAX))
    };
    let size = |map: &str| Unusable::Different { map: map.to_owned(), what: "size" };
    let cpus = nr_cpus().map_err(|(_, source)| unreadable(name::COUNTERS, source))?;
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX).max(1);
    if entries(name::BUDGETS)? != cpus.saturating_mul(Window::COUNT) {
        return Err(size(name::BUDGETS));
    }
    let all_cpus = |each: u32| each.saturating_mul(cpus).next_power_of_two();
    if elements(name::REASONS, size_of::<Counter>())? != all_cpus(Reason::COUNT) {
        return Err(size(name::REASONS));
    }
    let slot_lines = elements(name::SLOTS, size_of::<SlotLine>())?;
    let found = Limits {
        index: elements(name::INDEX, size_of::<IndexEntry>())? / 2,
        services: elements(name::SERVICES, size_of::<Service>())?,
        slots: slot_lines.saturating_mul(SLOTS_PER_LINE),
        backends: elements(name::BACKENDS, size_of::<Backend>())?,
        counters: elements(name::COUNTERS, size_of::<Counter>())? / all_cpus(1),
        flow_buckets: elements(name::FLOWS, size_of::<Bucket>())?,
        limiters: elements(name::LIMITERS, size_of::<Bucket>())?,
        prefixes: entries(name::PREFIXES)?,
    };
    let sizes = [
        (name::INDEX, found.index),
        (name::SERVICES, found.services),
        (name::SLOTS, found.slots),
        (name::BACKENDS, found.backends),
        (name::COUNTERS, found.counters),
        (name::FLOWS, found.flow_buckets),
        (name::LIMITERS, found.limiters),
    ];
    if let Some((map, _)) = sizes.into_iter().find(|(_, elements)| !elements.is_power_of_two()) {
        return Err(size(map));
    }
    if elements(name::PREVIOUS, size_of::<SlotLine>())? != slot_lines {
        return Err(size(name::PREVIOUS));
    }
    Ok(found)
}

/// The only element of a map.
fn one<T: Pod>(maps: &BTreeMap<String, MapData>, map: &str, directory: &Path) -> Result<T, Unusable> {
    let data = maps.get(map).ok_or_else(|| missing(map, directory))?;
    let info = data.info().map_err(|error| unreadable(map, io::Error::other(error)))?;
    if info.value_size() as usize != size_of::<T>() {
        return Err(Unusable::Different { map: map.to_owned(), what: "layout" });
    }
    let mapped = MappedArray::<T>::map(data.fd().as_fd(), 1).map_err(|source| unreadable(map, source))?;
    Ok(mapped.load(0))
}
