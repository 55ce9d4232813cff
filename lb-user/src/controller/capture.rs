//! The capture that is under way: one at a time, for one client, over a program that can.

use std::{collections::BTreeSet, time::Duration};

use lb_common::abi::{Event as Told, Features, Note};

use super::{Action, Controller, Level, Sum, Token, journal::Names, requests::refusal};
use crate::{
    api::{CaptureQuery, RefusalKind, Response},
    model::{
        capture::Filter,
        packet_event::{self, PacketEvent},
        pcapng::{self, Direction},
    },
};

/// Most packets in flight between a capture's last one and its end.
const OPEN: usize = 4096;

/// A capture.
#[derive(Debug)]
pub(super) struct Capture {
    token: Token,
    pub(super) filter: Filter,
    /// Packets until its end.
    left: Option<u64>,
    ends: Option<Duration>,
    /// Whether the program that captures is in place and the client was told.
    has_begun: bool,
    taken: u64,
    /// What the programs had lost before it began.
    lost_before: u64,
    /// What the client was too slow for.
    lost: u64,
    /// Interfaces that the file has, each at its place.
    interfaces: Vec<u32>,
    /// Packets that came and of which it is to be seen how they left, by their time.
    open: BTreeSet<u64>,
}

impl Controller {
    pub(super) fn take_capture_query(
        &mut self,
        now: Duration,
        token: Token,
        query: &CaptureQuery,
        actions: &mut Vec<Action>,
    ) {
        match self.capture_of(now, token, query) {
            Ok(capture) => {
                self.capture = Some(capture);
                self.dirty = true;
            }
            Err(refusal) => actions.push(Action::Reply { token, response: Response::Refused(refusal) }),
        }
    }

    fn capture_of(
        &self,
        now: Duration,
        token: Token,
        query: &CaptureQuery,
    ) -> Result<Capture, crate::api::Refusal> {
        if self.capture.is_some() {
            let said = "another capture is under way: there is one at a time".to_owned();
            return Err(refusal(RefusalKind::Conflict, said));
        }
        let filter = Filter::parse(&query.filter, query.bytes.unwrap_or(u32::MAX))
            .map_err(|errors| crate::api::Refusal { kind: RefusalKind::Invalid, errors })?;
        if let Some(name) =
            filter.service.as_ref().filter(|name| self.desired.services.iter().all(|s| s.name != **name))
        {
            return Err(refusal(RefusalKind::NotFound, format!("there is no service \"{name}\"")));
        }
        Ok(Capture {
            token,
            filter,
            left: query.count,
            ends: query.seconds.map(|seconds| now.saturating_add(Duration::from_secs(seconds))),
            has_begun: false,
            taken: 0,
            lost_before: self.lost_events(),
            lost: 0,
            interfaces: Vec::new(),
            open: BTreeSet::new(),
        })
    }

    /// What the programs have lost, as it was last read.
    fn lost_events(&self) -> u64 {
        [Note::EventLost, Note::CaptureLimited]
            .into_iter()
            .map(|note| self.sums.of(&Sum::Reason(note.counter())).total.packets)
            .sum()
    }

    /// Begins a capture whose program is in place.
    pub(super) fn follow_capture(&mut self, actions: &mut Vec<Action>) {
        if !self.installed.features.has(Features::CAPTURE) || !self.pending.is_empty() {
            return;
        }
        if let Some(capture) = self.capture.as_mut().filter(|capture| !capture.has_begun) {
            capture.has_begun = true;
            let token = capture.token;
            actions.push(Action::Reply { token, response: Response::Streaming });
            let chunk = pcapng::section(&format!("lb {}", self.identity.version));
            actions.push(Action::Stream { token, chunk });
            actions.push(Action::Log(Level::Info, "a capture begins".to_owned()));
        }
    }

    /// A captured frame.
    pub(super) fn take_frame(&mut self, packet: &PacketEvent, names: &Names, actions: &mut Vec<Action>) {
        let event = &packet.event;
        let time = self.wall_clock(packet.at);
        let out = self.installed.backends.get(event.backend as usize).map(|backend| backend.hop().port());
        let out = out.and_then(|port| self.installed.ports.get(usize::from(port))).map(|port| port.ifindex);
        let Some(capture) = self.capture.as_mut().filter(|capture| capture.has_begun) else { return };
        let direction = if event.stage == Told::CAME { Direction::In } else { Direction::Out };
        let index = match direction {
            Direction::In => {
                if capture.left == Some(0) {
                    return;
                }
                capture.left = capture.left.map(|left| left - 1);
                capture.taken += 1;
                if packet_event::was_sent(event) && capture.open.len() < OPEN {
                    capture.open.insert(event.time);
                }
                event.ingress
            }
            Direction::Out => {
                if !capture.open.remove(&event.time) {
                    return;
                }
                // XDP_REDIRECT goes out of the backend's interface.
                if event.verdict == 4 { out.unwrap_or(event.ingress) } else { event.ingress }
            }
        };
        let mut chunk = Vec::new();
        let place = capture.interfaces.iter().position(|&known| known == index).unwrap_or_else(|| {
            chunk.extend(pcapng::interface(&names.interface(index), capture.filter.bytes));
            capture.interfaces.push(index);
            capture.interfaces.len() - 1
        });
        chunk.extend(pcapng::packet(&pcapng::Packet {
            interface: place as u32,
            time,
            length: event.length,
            frame: &packet.frame,
            direction,
            id: event.time,
            verdict: event.verdict,
            comment: &comment(event, names),
        }));
        actions.push(Action::Stream { token: capture.token, chunk });
        if capture.left == Some(0) && capture.open.is_empty() {
            self.end_capture(packet.at, actions);
        }
    }

    /// Ends a capture whose time is over, or whose last packet was not seen to leave.
    pub(super) fn watch_capture(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let is_over = |capture: &Capture| {
            capture.left == Some(0) || capture.has_begun && capture.ends.is_some_and(|end| end <= now)
        };
        if self.capture.as_ref().is_some_and(is_over) {
            self.end_capture(now, actions);
        }
    }

    /// The client was too slow for a piece of a stream.
    pub(super) fn lose(&mut self, token: Token, actions: &mut Vec<Action>) {
        if let Some(capture) = self.capture.as_mut().filter(|capture| capture.token == token) {
            capture.lost += 1;
        } else {
            // Whoever follows wants all of it.
            self.journal.leave(token);
            actions.push(Action::EndStream { token });
        }
    }

    /// The client went away.
    pub(super) fn take_stream_ended(&mut self, now: Duration, token: Token, actions: &mut Vec<Action>) {
        self.journal.leave(token);
        if self.capture.as_ref().is_some_and(|capture| capture.token == token) {
            self.end_capture(now, actions);
        }
    }

    /// The plan with the program that captures cannot be carried out: the capture gives way.
    pub(super) fn give_up_capture(&mut self, now: Duration, why: &str, actions: &mut Vec<Action>) {
        match &self.capture {
            Some(capture) if !capture.has_begun => {
                let response =
                    Response::Refused(refusal(RefusalKind::Failed, format!("cannot capture: {why}")));
                actions.push(Action::Reply { token: capture.token, response });
                self.capture = None;
                self.dirty = true;
            }
            Some(_) => self.end_capture(now, actions),
            None => {}
        }
    }

    fn end_capture(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(capture) = self.capture.take() else { return };
        let Capture { token, taken, .. } = capture;
        let lost = self.lost_events().saturating_sub(capture.lost_before) + capture.lost;
        if !capture.interfaces.is_empty() {
            let chunk = pcapng::statistics(0, self.wall_clock(now), taken, lost);
            actions.push(Action::Stream { token, chunk });
        }
        actions.push(Action::EndStream { token });
        let said = format!("the capture is over: {taken} packets, {lost} lost");
        actions.push(Action::Log(Level::Info, said));
        self.dirty = true;
    }
}

/// What became of a packet, in words.
fn comment(event: &Told, names: &Names) -> String {
    let mut text = packet_event::verdict(event).to_owned();
    let parts = [
        ("reason", packet_event::reason(event).map(str::to_owned)),
        ("service", names.service(event)),
        ("backend", names.backend(event)),
    ];
    for (what, name) in parts {
        if let Some(name) = name {
            text.push_str(&format!(", {what} {name}"));
        }
    }
    text
}
