//! Fixtures: a frame, what must become of it, and where it must be counted.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context, ensure};
use lb_common::abi::{Counter, DropReason, Note, PassReason};
use lb_user::model::{
    plan::{MemberTarget, Outer as TunnelSources, Target},
    service::Via,
};

use super::{
    Answer, Place, Rig, Verdict,
    target::{macs, member},
};
use crate::packets::{
    ETHERNET_LEN, Packet, hex, ip_offset,
    outer::{Gue, Outer, is_in, one_hop_on, rewritten, source_port_in, spread_in, wrapped},
};

/// What must become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It goes to a backend.
    Forwarded {
        /// The service that counts it.
        service: &'static str,
        /// The backend it goes to.
        backend: &'static str,
    },
    /// It goes to a backend after the first fragment of its packet: which service that was for, nobody knows.
    Followed {
        /// The service of the first fragment.
        service: &'static str,
        /// The backend it goes to.
        backend: &'static str,
    },
    /// The balancer sends this frame back.
    Answered {
        /// What counts it.
        note: Note,
        /// What it sends.
        reply: Vec<u8>,
    },
    /// It goes on to the kernel as it is.
    Passed(PassReason),
    /// It is gone.
    Dropped(DropReason),
}

/// One case.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// What it is about.
    pub about: String,
    /// The frame that comes in.
    pub frame: Vec<u8>,
    /// What must become of it.
    pub expect: Expect,
}

impl Fixture {
    /// A packet that goes to a backend.
    pub fn forwarded(about: &str, packet: &Packet, service: &'static str, backend: &'static str) -> Self {
        Self {
            about: about.to_owned(),
            frame: packet.frame(),
            expect: Expect::Forwarded { service, backend },
        }
    }

    /// A frame that goes on to the kernel.
    pub fn passed(about: &str, frame: Vec<u8>, reason: PassReason) -> Self {
        Self { about: about.to_owned(), frame, expect: Expect::Passed(reason) }
    }

    /// A packet that is dropped.
    pub fn dropped(about: &str, packet: &Packet, reason: DropReason) -> Self {
        Self { about: about.to_owned(), frame: packet.frame(), expect: Expect::Dropped(reason) }
    }

    /// A packet that does not fit its tunnel: its sender is told how much would.
    pub fn too_big(about: &str, packet: &Packet, room: u32) -> Self {
        let frame = packet.frame();
        let mut reply = packet.too_big(room).frame();
        let (destination, source) = (frame[6..12].to_vec(), frame[..6].to_vec());
        reply[..6].copy_from_slice(&destination);
        reply[6..12].copy_from_slice(&source);
        Self {
            about: about.to_owned(),
            frame,
            expect: Expect::Answered { note: Note::TooBigAnswered, reply },
        }
    }

    /// Runs it, from an interface.
    ///
    /// # Errors
    /// What differs from the expectation.
    pub fn check(&self, rig: &mut Rig, target: &Target, ingress: u32) -> anyhow::Result<()> {
        // What was counted before is none of this fixture's.
        rig.gained();
        let answer = rig.run_from(ingress, &self.frame)?;
        let counted = rig.counted();
        self.compare(&answer, &counted, target, ingress)
            .with_context(|| format!("{}\n  in  {}", self.about, hex::encode(&self.frame)))
    }

    fn compare(
        &self,
        answer: &Answer,
        counted: &BTreeMap<Place, Counter>,
        target: &Target,
        ingress: u32,
    ) -> anyhow::Result<()> {
        let whole = self.frame.len() as u64;
        let (expected, place, bytes) = match &self.expect {
            Expect::Forwarded { service, backend } | Expect::Followed { service, backend } => {
                let member = member(target, service, backend);
                let sent = one_hop_on(&self.frame);
                let expected = forwarded(&sent, member, target.outer, ingress, &answer.frame)?;
                let place = if let Expect::Followed { .. } = &self.expect {
                    Place::Reason(Note::LaterFragment.name())
                } else {
                    Place::Forwarded { service: (*service).into(), backend: (*backend).into() }
                };
                (expected, place, ip_length(&self.frame))
            }
            Expect::Answered { note, reply } => {
                let answer = Answer { verdict: Verdict::Transmit, frame: reply.clone() };
                (answer, Place::Reason(note.name()), ip_length(&self.frame))
            }
            Expect::Passed(reason) => {
                let answer = Answer { verdict: Verdict::Pass, frame: self.frame.clone() };
                (answer, Place::Reason(reason.name()), whole)
            }
            Expect::Dropped(reason) => {
                let answer = Answer { verdict: Verdict::Drop, frame: Vec::new() };
                (answer, Place::Reason(reason.name()), ip_length(&self.frame))
            }
        };
        ensure!(
            *answer == expected,
            "expected {:?} {}\n     got {:?} {}",
            expected.verdict,
            hex::encode(&expected.frame),
            answer.verdict,
            hex::encode(&answer.frame)
        );
        let once = BTreeMap::from([(place, Counter { packets: 1, bytes })]);
        ensure!(*counted == once, "expected {once:?}\n     got {counted:?}");
        Ok(())
    }
}

/// Checks them all and tells of every one that fails.
///
/// # Errors
/// All failures, one after the other.
pub fn check_all(rig: &mut Rig, target: &Target, ingress: u32, fixtures: &[Fixture]) -> anyhow::Result<()> {
    let failures: Vec<String> = fixtures
        .iter()
        .filter_map(|fixture| fixture.check(rig, target, ingress).err())
        .map(|error| format!("{error:#}"))
        .collect();
    ensure!(
        failures.is_empty(),
        "{} of {} fixtures fail:\n{}",
        failures.len(),
        fixtures.len(),
        failures.join("\n\n")
    );
    Ok(())
}

/// The answer that takes a frame to a backend as it is. What the flow's hash decides is not foreseen: it is taken from the
/// frame that came `out`, after a look at whether it may be.
///
/// # Errors
/// It may not be.
pub fn forwarded(
    frame: &[u8],
    member: &MemberTarget,
    sources: TunnelSources,
    ingress: u32,
    out: &[u8],
) -> anyhow::Result<Answer> {
    let hop = member.hop.as_ref().context("a backend that can be reached")?;
    let verdict = if hop.port.ifindex == ingress { Verdict::Transmit } else { Verdict::Redirect };
    if member.via == Via::L2 {
        return Ok(Answer { verdict, frame: rewritten(frame, macs(hop)) });
    }
    ensure!(
        out.len() > ETHERNET_LEN + 40,
        "the frame is too short for an outer header: {}",
        hex::encode(out)
    );
    let (source, flow_label) = spread_in(out);
    let prefix = match member.address {
        IpAddr::V4(_) => (IpAddr::V4(sources.v4.0), sources.v4.1),
        // At most 32 bits of an address come from a hash.
        IpAddr::V6(_) => (IpAddr::V6(sources.v6.0), sources.v6.1.max(96)),
    };
    ensure!(is_in(source, prefix), "the outer source {source} is not in {}/{}", prefix.0, prefix.1);
    let gue = match member.via {
        Via::L2 | Via::Ipip => None,
        Via::Gue | Via::Gue0 => {
            let source_port = source_port_in(out);
            ensure!(source_port >= 49152, "the outer source port {source_port} is not a dynamic one");
            Some(Gue { source_port, port: sources.gue_port, header: member.via == Via::Gue0 })
        }
    };
    let outer = Outer { source, destination: member.address, flow_label, gue };
    Ok(Answer { verdict, frame: wrapped(frame, macs(hop), outer) })
}

/// Length of the IP packet in a frame as its header says.
pub fn ip_length(frame: &[u8]) -> u64 {
    let packet = &frame[ip_offset(frame)..];
    let word = |at: usize| u64::from(packet[at]) << 8 | u64::from(packet[at + 1]);
    if packet[0] >> 4 == 4 { word(2) } else { word(4) + 40 }
}
