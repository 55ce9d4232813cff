//! The programs of the packet path: loaded for the features in use, over maps that are there already, and replaced as
//! a whole.
//!
//! Each generation has a program array of its own and shares every other map. A packet that began in one generation
//! finds the further stages of that same one, whatever is replaced meanwhile: there is no order of steps to keep, and
//! interfaces may change over one after the other. Which generation serves which tables is the plan's business: while
//! two are attached, the tables use no feature that one of them lacks (`model/plan.rs`).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, ProgramArray},
    programs::{ProgramError, Xdp},
};
use lb_common::abi::{Features, Stage, name};

use super::{Found, KernelError, LEAN_OBJECT, LoadOptions, OBJECT, log_level, refused, tables::Sizes, xdp};

/// What the object's maps of one generation alone are named like: its constants.
const READ_ONLY: &str = ".rodata";

/// The maps that every generation uses, by name.
pub(super) struct SharedMaps(Vec<(String, OwnedFd)>);

impl SharedMaps {
    /// Those of a loaded object.
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, KernelError> {
        let shared = ebpf.maps().filter(|(map, _)| !map.starts_with(READ_ONLY) && *map != name::PROGRAMS);
        let shared = shared.map(|(section, data)| (plain(section), data));
        let owned = |(map, data): (&str, &Map)| {
            let fd = descriptor(data).ok_or_else(|| io::Error::other(format!("{map} is of an unknown kind")));
            let fd = fd.and_then(|fd| fd.try_clone_to_owned()).map_err(KernelError::SharedMaps)?;
            Ok((map.to_owned(), fd))
        };
        shared.map(owned).collect::<Result<_, _>>().map(Self)
    }

    /// Tables that were just made.
    pub(super) fn made(tables: Vec<(&'static str, MapData)>) -> Result<Self, KernelError> {
        let owned = |(map, data): (&str, MapData)| {
            let fd = data.fd().as_fd().try_clone_to_owned().map_err(KernelError::SharedMaps)?;
            Ok((map.to_owned(), fd))
        };
        tables.into_iter().map(owned).collect::<Result<_, _>>().map(Self)
    }

    /// Those that an earlier daemon left.
    pub(super) fn found(found: &Found) -> Result<Self, KernelError> {
        let owned = |(map, data): (&String, &MapData)| {
            let fd = data.fd().as_fd().try_clone_to_owned().map_err(KernelError::SharedMaps)?;
            Ok((map.clone(), fd))
        };
        found.maps.iter().map(owned).collect::<Result<_, _>>().map(Self)
    }

    /// Puts these maps in the place of those that an object was loaded with. Its programs name maps by descriptor
    /// until the kernel takes them: what a descriptor stands for can still be exchanged.
    pub(super) fn take_places(&self, ebpf: &Ebpf) -> Result<(), KernelError> {
        for (map, shared) in &self.0 {
            let missing = || KernelError::SharedMaps(io::Error::other(format!("there is no map {map}")));
            let place = place(ebpf, map).and_then(descriptor).ok_or_else(missing)?;
            // SAFETY: both are open. `place` stays open and stays its owner's; it only stands for another map.
            let result = unsafe { libc::dup3(shared.as_raw_fd(), place.as_raw_fd(), libc::O_CLOEXEC) };
            if result < 0 {
                return Err(KernelError::SharedMaps(io::Error::last_os_error()));
            }
        }
        Ok(())
    }
}

/// What a map of the object is called by everyone else: there the tables are sections.
pub(super) fn plain(section: &str) -> &str {
    section.strip_prefix(name::TABLE_SECTION).unwrap_or(section)
}

/// The place of a map in a loaded object.
pub(super) fn place<'e>(ebpf: &'e Ebpf, map: &str) -> Option<&'e Map> {
    ebpf.map(map).or_else(|| ebpf.map(&format!("{}{map}", name::TABLE_SECTION)))
}

/// The descriptor of a map, of the kinds that the object has.
pub(super) fn descriptor(map: &Map) -> Option<BorrowedFd<'_>> {
    let data: &MapData = match map {
        Map::Array(data)
        | Map::DevMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data)
        | Map::RingBuf(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd())
}

/// One generation of programs.
pub(super) struct PacketPath {
    /// Of its maps only the program array is one: the others stand for the shared ones.
    ebpf: Ebpf,
    features: Features,
}

impl PacketPath {
    /// Loads a generation over the shared maps. Nothing is attached yet.
    pub(super) fn load(
        options: &LoadOptions,
        features: Features,
        (maps, sizes): (&SharedMaps, &Sizes),
    ) -> Result<Self, KernelError> {
        let log_level = log_level(options);
        let is_lean = Features::LEAN.has(features) && !options.log_packets;
        let mut loader = EbpfLoader::new();
        loader.override_global(name::FEATURES, &features.0, true);
        // The lean ones have no use for some.
        loader.override_global(aya_log::LEVEL, &log_level, !is_lean);
        sizes.tell(&mut loader, !is_lean);
        // It gives way to the shared one at once.
        loader.map_max_entries(name::EVENTS, 1);
        let object = if is_lean { LEAN_OBJECT } else { OBJECT };
        let ebpf = loader.load(object).map_err(|error| KernelError::Load(Box::new(error)))?;
        maps.take_places(&ebpf)?;
        let mut path = Self { ebpf, features };
        for program in Self::programs() {
            path.program(program)?.load().map_err(|error| refused(program, &error))?;
        }
        path.fill_program_array()?;
        Ok(path)
    }

    /// The programs that a generation has: the first is the one that is attached.
    pub(super) fn programs() -> impl Iterator<Item = &'static str> {
        [name::PROGRAM].into_iter().chain(Stage::ALL.map(|(_, program)| program))
    }

    /// What it was loaded for.
    pub(super) fn features(&self) -> Features {
        self.features
    }

    /// One of its programs.
    pub(super) fn program(&mut self, program: &'static str) -> Result<&mut Xdp, KernelError> {
        xdp(&mut self.ebpf, program)
    }

    /// The array its programs find each other by. It is empty as soon as neither a process nor a pin holds it.
    pub(super) fn program_array(&self) -> Result<&Map, KernelError> {
        self.ebpf.map(name::PROGRAMS).ok_or(KernelError::Missing(name::PROGRAMS))
    }

    /// Lets the programs hand packets over.
    fn fill_program_array(&mut self) -> Result<(), KernelError> {
        let failed = |source| KernelError::Map { map: name::PROGRAMS, source };
        for (stage, program) in Stage::ALL {
            let fd = self.program(program)?.fd().and_then(|fd| Ok(fd.try_clone()?));
            let fd = fd.map_err(|error| failed(io::Error::other(error)))?;
            let map = self.ebpf.map_mut(name::PROGRAMS).ok_or(KernelError::Missing(name::PROGRAMS))?;
            let mut programs: ProgramArray<_> =
                map.try_into().map_err(|_| KernelError::Missing(name::PROGRAMS))?;
            programs.set(stage as u32, &fd, 0).map_err(|error| failed(io::Error::other(error)))?;
        }
        Ok(())
    }
}

/// What a refusal of the kernel says in a line: the verifier's log ends with it, and is long.
pub(super) fn refusal(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return error.to_string() };
    let log = verifier_log.to_string();
    tracing::debug!("the verifier's log: {log}");
    // Statistics end it.
    let is_statistics = |line: &&str| line.starts_with("verification time") || line.starts_with("processed ");
    let lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    match lines.take_while(|line| !is_statistics(line)).last() {
        Some(said) => format!("{io_error}; the verifier says: {said}"),
        None => io_error.to_string(),
    }
}
