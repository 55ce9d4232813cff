//! Where the balancer's programs hang: attaches, takes over what an earlier daemon left, and lets go.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    programs::{
        ProgramError, TcAttachType, XdpMode as AyaMode,
        links::{FdLink, PinnedLink},
        tc,
        xdp::XdpLink,
    },
    util::KernelVersion,
};
use lb_common::abi::{ABI_VERSION, name};
use nix::net::if_::if_nametoindex;

use super::{
    Kernel, KernelError, classifier,
    follow::Fate,
    found, pins,
    programs::{PacketPath, refusal},
    settle,
};
use crate::model::service::XdpMode;

/// What the names of links' pins start with; the interface follows.
pub(super) const LINK: &str = "link-";

/// What a start that failed leaves: interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// Here the program of an earlier daemon goes on forwarding.
    pub forwarding: Vec<String>,
    /// Here it did until this start took it over; now nothing is attached.
    pub lost: Vec<String>,
}

/// One interface. The link detaches when it is dropped, unless a pin keeps it.
pub(super) struct Attached {
    pub(super) interface: String,
    /// Its index then: should the name come back with another one, it is another interface.
    pub(super) index: u32,
    /// How it was to be attached.
    pub(super) wanted: XdpMode,
    /// What became of it, while it is not as it was.
    pub(super) fate: Option<Fate>,
    /// Whether the link was there before us.
    taken_over: bool,
    _xdp: FdLink,
}

impl Attached {
    /// Puts a generation's program in the place of the one that is attached.
    fn update(&self, path: &mut PacketPath, pin: &Path) -> Result<(), String> {
        let program = path.program(name::PROGRAM).map_err(|error| error.to_string())?;
        // The library gives a link away and not back if it fails: this is another descriptor of the same one.
        let link =
            PinnedLink::from_pin(pin).map_err(|error| format!("cannot open {}: {error}", pin.display()))?;
        let link = XdpLink::try_from(FdLink::from(link)).map_err(|error| error.to_string())?;
        match program.attach_to_link(link).and_then(|id| program.take_link(id)) {
            // What is left of it is closed, which detaches nothing: the pin and ours hold the link.
            Ok(link) => into_fd_link(link).map(drop).map_err(|error| error.to_string()),
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOLINK) =>
            {
                tracing::warn!(interface = self.interface, "interface is gone: nothing to replace there");
                Ok(())
            }
            Err(error) => Err(refusal(&error)),
        }
    }
}

impl Kernel {
    /// Attaches the balancer and the probes' steering to interfaces, and says which mode each became. Where an
    /// earlier daemon left a link pinned it is taken over: packets then meet either its program or this one,
    /// never none. Interfaces without such a link, where much can fail, come first.
    ///
    /// # Errors
    /// See [`KernelError`]; then [`Kernel::withdraw`].
    pub fn attach(
        &mut self,
        interfaces: &[String],
        mode: XdpMode,
    ) -> Result<Vec<(String, XdpMode)>, KernelError> {
        if let Some(missing) = interfaces.iter().find(|name| if_nametoindex(name.as_str()).is_err()) {
            return Err(KernelError::NoInterface(missing.clone()));
        }
        pins::prepare(&self.pins.1)?;
        // Whoever is killed between two links must leave both with the array that their packets need.
        let array = self.path.program_array()?;
        pins::replace(&self.next_array_pin(), |path| array.pin(path).map_err(io::Error::other))?;
        let mut order: Vec<usize> = (0..interfaces.len()).collect();
        order.sort_by_key(|&at| self.link_pin(&interfaces[at]).exists());
        let mut modes = vec![mode; interfaces.len()];
        for at in order {
            let interface = &interfaces[at];
            self.attach_probe(interface)?;
            let (attached, mode) = self.attach_one(interface, mode)?;
            self.attached.push(attached);
            modes[at] = mode;
        }
        Ok(interfaces.iter().cloned().zip(modes).collect())
    }

    pub(super) fn attach_one(
        &mut self,
        interface: &str,
        wanted: XdpMode,
    ) -> Result<(Attached, XdpMode), KernelError> {
        // Before: if it is exchanged meanwhile, the next look finds that out.
        let index = if_nametoindex(interface).map_err(|_| KernelError::NoInterface(interface.to_owned()))?;
        let (xdp, mode, taken_over) = self.attach_xdp(interface, wanted)?;
        let interface = interface.to_owned();
        Ok((Attached { interface, index, wanted, fate: None, taken_over, _xdp: xdp }, mode))
    }

    fn link_pin(&self, interface: &str) -> PathBuf {
        link_pin(&self.pins.0, interface)
    }

    /// Interfaces with a link that an earlier daemon left pinned, and that is not ours now.
    ///
    /// # Errors
    /// [`KernelError::Pins`].
    pub fn left_by_others(&self) -> Result<Vec<String>, KernelError> {
        let mut interfaces = pins::names(&self.pins.0, LINK)?;
        interfaces.retain(|name| self.attached.iter().all(|attached| attached.interface != *name));
        Ok(interfaces)
    }

    /// Detaches what an earlier daemon left on interfaces that this one is not attached to: it would forward
    /// by tables that nobody keeps any more. Says where that was.
    ///
    /// # Errors
    /// [`KernelError::Pins`].
    pub fn detach_others(&mut self) -> Result<Vec<String>, KernelError> {
        let interfaces = self.left_by_others()?;
        for interface in &interfaces {
            pins::remove(&self.link_pin(interface))?;
        }
        Ok(interfaces)
    }

    /// Takes back a start that failed: detaches what it attached, and leaves alone what an earlier daemon left on other
    /// interfaces. What it took over goes on if its tables are the earlier daemon's; else it is detached, too.
    ///
    /// # Errors
    /// [`KernelError::Pins`].
    pub fn withdraw(mut self) -> Result<Withdrawn, KernelError> {
        let mut forwarding = self.left_by_others()?;
        if self.found {
            let (taken, new): (Vec<_>, Vec<_>) =
                self.attached.iter().partition(|attached| attached.taken_over);
            for attached in new {
                pins::remove(&self.link_pin(&attached.interface))?;
            }
            forwarding.extend(taken.iter().map(|attached| attached.interface.clone()));
            if taken.is_empty() {
                pins::remove(&self.next_array_pin())?;
            } else {
                // Those are this start's programs now.
                pins::rename(&self.next_array_pin(), &self.pins.1.join(name::PROGRAMS))?;
            }
            self.leave();
            return Ok(Withdrawn { forwarding, lost: Vec::new() });
        }
        if forwarding.is_empty() {
            let lost = self.taken_over();
            self.detach()?;
            return Ok(Withdrawn { forwarding, lost });
        }
        for attached in &self.attached {
            pins::remove(&self.link_pin(&attached.interface))?;
        }
        pins::remove(&self.next_array_pin())?;
        Ok(Withdrawn { forwarding, lost: self.taken_over() })
    }

    fn taken_over(&self) -> Vec<String> {
        let taken = self.attached.iter().filter(|attached| attached.taken_over);
        taken.map(|attached| attached.interface.clone()).collect()
    }

    /// Gives the link, its mode, and whether it was there before.
    fn attach_xdp(&mut self, interface: &str, mode: XdpMode) -> Result<(FdLink, XdpMode, bool), KernelError> {
        let pin = self.link_pin(interface);
        let program = self.path.program(name::PROGRAM)?;
        let failed =
            |source| KernelError::Attach { interface: interface.to_owned(), source: Box::new(source) };
        // A link left by an earlier daemon; its interface may be gone, and then it holds nothing.
        if let Ok(pinned) = PinnedLink::from_pin(&pin)
            && let Ok(link) = XdpLink::try_from(FdLink::from(pinned))
            && let Ok(id) = program.attach_to_link(link)
        {
            tracing::info!(interface, "took over the program of an earlier daemon");
            let link = program.take_link(id).and_then(into_fd_link).map_err(failed)?;
            // The link keeps the mode it was made with.
            return Ok((link, attached_mode(interface), true));
        }
        pins::remove(&pin)?;
        let (id, mode) = match mode {
            XdpMode::Generic => (program.attach(interface, AyaMode::Skb).map_err(failed)?, XdpMode::Generic),
            XdpMode::Native => match program.attach(interface, AyaMode::Driver) {
                Ok(id) => (id, XdpMode::Native),
                Err(source) if lacks_native(&source) => {
                    let interface = interface.to_owned();
                    return Err(KernelError::NoNative { interface, source: Box::new(source) });
                }
                Err(source) => return Err(failed(source)),
            },
            XdpMode::Auto => match program.attach(interface, AyaMode::Driver) {
                Ok(id) => (id, XdpMode::Native),
                Err(error) if lacks_native(&error) => {
                    tracing::warn!(interface, %error, "no native XDP here: falling back to generic mode, which is slow");
                    (program.attach(interface, AyaMode::Skb).map_err(failed)?, XdpMode::Generic)
                }
                Err(source) => return Err(failed(source)),
            },
        };
        let link = program.take_link(id).and_then(into_fd_link).map_err(failed)?;
        let pinned = link.pin(&pin).map_err(|error| pins::PinsError::Path {
            what: "pin",
            path: pin.clone(),
            source: io::Error::other(error),
        })?;
        Ok((pinned.into(), mode, false))
    }

    /// Attaches the probes' steering alone, for a daemon whose programs are to forward later.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn attach_probes(&mut self, interfaces: &[String]) -> Result<(), KernelError> {
        interfaces.iter().try_for_each(|interface| self.attach_probe(interface))
    }

    pub(super) fn attach_probe(&mut self, interface: &str) -> Result<(), KernelError> {
        if self.probes.contains_key(interface) {
            return Ok(());
        }
        let failed =
            |source| KernelError::Attach { interface: interface.to_owned(), source: Box::new(source) };
        if KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(6, 6, 0)) {
            // Before TCX a program hangs on a qdisc and outlives its daemon: make the one, remove the other.
            // Either may be there or not already, and what really fails shows when we attach.
            let made = tc::qdisc_add_clsact(interface).err().map(|error| error.to_string());
            let removed = tc::qdisc_detach_program(interface, TcAttachType::Egress, name::PROBE).err();
            tracing::debug!(interface, ?made, ?removed, "prepared the egress hook");
        }
        let program = classifier(&mut self.ebpf, name::PROBE)?;
        let id = program.attach(interface, TcAttachType::Egress).map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        self.probes.insert(interface.to_owned(), link);
        Ok(())
    }

    /// Pins the maps, so that they and what they hold outlive the daemon.
    ///
    /// # Errors
    /// [`KernelError::Pins`].
    pub fn pin_maps(&mut self) -> Result<(), KernelError> {
        pins::prepare(&self.pins.1)?;
        if !self.found {
            for (map_name, map) in found::pinned(&self.ebpf) {
                pins::replace(&self.pins.1.join(map_name), |path| map.pin(path).map_err(io::Error::other))?;
            }
        }
        let array = self.path.program_array()?;
        let pin = self.pins.1.join(name::PROGRAMS);
        pins::replace(&pin, |path| array.pin(path).map_err(io::Error::other))?;
        pins::remove(&self.next_array_pin())?;
        self.pinned = true;
        Ok(())
    }

    /// Where the array of programs is pinned that are not attached everywhere yet.
    fn next_array_pin(&self) -> PathBuf {
        self.pins.1.join(format!("{}-next", name::PROGRAMS))
    }

    /// Removes what daemons with other layouts pinned: nothing uses it any more. Says which versions.
    ///
    /// # Errors
    /// [`KernelError::Pins`].
    pub fn remove_other_versions(&self) -> Result<Vec<u32>, KernelError> {
        let mut versions = pins::versions(&self.pins.0)?;
        versions.retain(|version| *version != ABI_VERSION);
        for version in &versions {
            pins::clear(&pins::of_version(&self.pins.0, *version), &self.pins.0)?;
        }
        Ok(versions)
    }

    /// Lets another generation of programs take the place of the present one on every interface, link by link: a
    /// packet meets one or the other. If one link refuses, all go back.
    ///
    /// # Errors
    /// [`KernelError::Replace`] or [`KernelError::Pins`]; the present generation goes on.
    pub(super) fn replace(&mut self, mut next: PacketPath) -> Result<(), KernelError> {
        // As in `attach`.
        let pin = self.pins.1.join(name::PROGRAMS);
        let next_pin = self.next_array_pin();
        if self.pinned {
            let array = next.program_array()?;
            pins::replace(&next_pin, |path| array.pin(path).map_err(io::Error::other))?;
        }
        for (done, attached) in self.attached.iter().enumerate() {
            let Err(said) = attached.update(&mut next, &link_pin(&self.pins.0, &attached.interface)) else {
                continue;
            };
            let mut is_back = true;
            for attached in &self.attached[..done] {
                if let Err(error) =
                    attached.update(&mut self.path, &link_pin(&self.pins.0, &attached.interface))
                {
                    tracing::error!(
                        interface = attached.interface,
                        error,
                        "cannot go back to the program before"
                    );
                    is_back = false;
                }
            }
            if is_back {
                settle();
                pins::remove(&next_pin)?;
            } else {
                self.stale.push(next);
            }
            return Err(KernelError::Replace { interface: attached.interface.clone(), said });
        }
        let before = std::mem::replace(&mut self.path, next);
        // Packets that began in it may still ask its array for the next stage.
        settle();
        drop(before);
        if self.pinned {
            pins::rename(&next_pin, &pin)?;
        }
        Ok(())
    }

    /// Detaches from every interface and removes the pins.
    ///
    /// # Errors
    /// [`KernelError::Pins`]; the rest is done all the same.
    pub fn detach(&mut self) -> Result<(), KernelError> {
        let mut result = Ok(());
        self.probes.clear();
        for attached in self.attached.drain(..) {
            if let Err(error) = pins::remove(&link_pin(&self.pins.0, &attached.interface)) {
                result = Err(error.into());
            }
        }
        result.and(pins::clear(&self.pins.1, &self.pins.0).map_err(KernelError::from))
    }

    /// Lets the pins keep programs and maps when this process ends.
    pub fn leave(&mut self) {
        self.probes.clear();
        self.attached.clear();
    }
}

fn link_pin(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("{LINK}{interface}"))
}

fn into_fd_link(link: XdpLink) -> Result<FdLink, ProgramError> {
    FdLink::try_from(link).map_err(|error| ProgramError::IOError(io::Error::other(error)))
}

/// Whether the driver's answer means that it has no native XDP, or none under these circumstances (MTU, queues).
fn lacks_native(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error)
        if matches!(error.io_error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE | libc::ENOSPC)))
}

/// The mode of a link that was made earlier: what the interface itself says.
fn attached_mode(interface: &str) -> XdpMode {
    let generic = std::process::Command::new("ip")
        .args(["-d", "link", "show", "dev", interface])
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("xdpgeneric"));
    if generic { XdpMode::Generic } else { XdpMode::Native }
}
