//! What happened, for `lb events`: kept for a while, and told to those who follow.

use std::collections::{BTreeMap, VecDeque};

use lb_common::abi::Event as Told;

use super::{Action, Controller, Level, Token};
use crate::{
    api::{EventView, EventsQuery, Happening, LogView, PacketView, Response},
    model::{
        packet_event::{self, PacketEvent},
        timestamp,
    },
};

/// So many packets are kept.
const PACKETS: usize = 1000;
/// So many other events: packets are many and must not push them out.
const OTHERS: usize = 1000;

/// The events of the past.
#[derive(Debug, Default)]
pub(super) struct Journal {
    next: u64,
    packets: VecDeque<EventView>,
    others: VecDeque<EventView>,
    /// How many of the youngest were not told to the followers yet.
    fresh: Vec<EventView>,
    followers: Vec<Token>,
}

impl Journal {
    fn record(&mut self, time: String, what: Happening) {
        let event = EventView { number: self.next, time, what };
        self.next += 1;
        if !self.followers.is_empty() {
            self.fresh.push(event.clone());
        }
        let (kept, most) = match event.what {
            Happening::Packet(_) => (&mut self.packets, PACKETS),
            Happening::State(_) | Happening::Log(_) => (&mut self.others, OTHERS),
        };
        if kept.len() == most {
            kept.pop_front();
        }
        kept.push_back(event);
    }

    fn last(&self, most: Option<usize>) -> Vec<EventView> {
        let mut events: Vec<EventView> = self.packets.iter().chain(&self.others).cloned().collect();
        events.sort_by_key(|event| event.number);
        let older = most.map_or(0, |most| events.len().saturating_sub(most));
        events.split_off(older)
    }

    /// A client that goes away follows no more.
    pub(super) fn leave(&mut self, token: Token) {
        self.followers.retain(|&follower| follower != token);
    }
}

/// Numbers of the tables and what they stand for now.
pub(super) struct Names {
    services: BTreeMap<u32, String>,
    backends: BTreeMap<u32, String>,
    interfaces: BTreeMap<u32, String>,
}

impl Names {
    pub(super) fn service(&self, event: &Told) -> Option<String> {
        self.services.get(&event.service).cloned()
    }

    /// Pool and backend.
    pub(super) fn backend(&self, event: &Told) -> Option<String> {
        let unknown = || format!("number {}", event.backend);
        (event.backend != Told::NONE)
            .then(|| self.backends.get(&event.backend).cloned().unwrap_or_else(unknown))
    }

    pub(super) fn interface(&self, index: u32) -> String {
        self.interfaces.get(&index).cloned().unwrap_or_else(|| format!("if{index}"))
    }
}

impl Controller {
    pub(super) fn names(&self) -> Names {
        let mut backends = BTreeMap::new();
        for (id, (pool, backend)) in self.desired.backends() {
            let place = self.layout.pool(&pool.name);
            if let Some(index) = place.and_then(|place| place.index_of(&self.identity_of(backend))) {
                backends.insert(index, id.to_string());
            }
        }
        Names {
            services: self.layout.services().map(|(name, place)| (place.number, name.to_string())).collect(),
            backends,
            interfaces: self.interfaces.iter().map(|view| (view.index, view.name.clone())).collect(),
        }
    }

    /// What the programs told.
    pub(super) fn take_packets(&mut self, packets: Vec<PacketEvent>, actions: &mut Vec<Action>) {
        let names = self.names();
        for packet in packets {
            if packet.event.stage != Told::TOLD {
                self.take_frame(&packet, &names, actions);
                continue;
            }
            let event = &packet.event;
            let view = PacketView {
                verdict: packet_event::verdict(event).to_owned(),
                reason: packet_event::reason(event).map(str::to_owned),
                protocol: packet_event::protocol(event.protocol),
                client: packet_event::endpoint(event.source, event.source_port),
                vip: packet_event::endpoint(event.destination, event.destination_port),
                service: names.service(event),
                backend: names.backend(event),
                interface: names.interface(event.ingress),
                bytes: event.length,
            };
            let time = timestamp::rfc3339(self.wall_clock(packet.at));
            self.journal.record(time, Happening::Packet(view));
        }
    }

    /// Notes what else happened, which are actions already, and tells the followers.
    pub(super) fn keep_journal(&mut self, now: std::time::Duration, actions: &mut Vec<Action>) {
        let time = timestamp::rfc3339(self.wall_clock(now));
        for action in actions.iter() {
            let what = match action {
                Action::Log(level, text) => {
                    let level = match level {
                        Level::Error => "error",
                        Level::Warn => "warn",
                        Level::Info => "info",
                    };
                    Happening::Log(LogView { level: level.to_owned(), text: text.clone() })
                }
                Action::State(view) => Happening::State(view.clone()),
                _ => continue,
            };
            self.journal.record(time.clone(), what);
        }
        let fresh = std::mem::take(&mut self.journal.fresh);
        if !fresh.is_empty() {
            let chunk = lines(&fresh);
            let stream = |&token| Action::Stream { token, chunk: chunk.clone() };
            actions.extend(self.journal.followers.iter().map(stream));
        }
    }

    pub(super) fn take_events_query(&mut self, token: Token, query: EventsQuery, actions: &mut Vec<Action>) {
        let past = self.journal.last(query.last);
        if query.follow {
            self.journal.followers.push(token);
            actions.push(Action::Reply { token, response: Response::Streaming });
            if !past.is_empty() {
                actions.push(Action::Stream { token, chunk: lines(&past) });
            }
        } else {
            actions.push(Action::Reply { token, response: Response::Events(past) });
        }
    }
}

/// JSON, a line each.
fn lines(events: &[EventView]) -> Vec<u8> {
    let line = |event: &EventView| {
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        line
    };
    events.iter().flat_map(line).collect()
}
