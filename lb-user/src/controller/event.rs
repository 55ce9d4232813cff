//! What the controller hears and what it orders.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    api::{InterfaceView, Request, Response, StateView},
    model::{
        history::Past,
        next_hop::{NextHop, Unreachable},
        packet_event::PacketEvent,
        plan::Change,
        probe::{ProbeId, ProbeOutcome, ProbeSpec},
        source::Source,
        trace::{Trace, frame::Sample},
        traffic::Counters,
        transition::FlowReading,
    },
};

/// Names a request until it is answered.
pub type Token = u64;

/// Who the daemon is: facts that do not change while it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The configuration file.
    pub config_path: String,
    /// Ticks of the clock that flows are remembered by.
    pub ticks_per_second: u32,
    /// What the wall clock said when the daemon's own began at 0: time since 1970-01-01.
    pub epoch: Duration,
}

/// Why the configuration file was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// Somebody else changed it, in words: what they wrote is not overwritten.
    ChangedMeanwhile(String),
    /// The system's words.
    Failed(String),
}

/// Something that happened outside.
#[derive(Clone, Debug)]
pub enum Event {
    /// The configuration was read, at start or because a file changed.
    ConfigText(Source),
    /// It could not be read.
    ConfigUnreadable(String),
    /// [`Action::WriteConfig`] was carried out.
    ConfigWritten {
        /// Which.
        token: Token,
        /// Why it could not be.
        result: Result<(), Unwritten>,
    },
    /// The way to an address was found, lost, or is another now.
    NextHop {
        /// The address.
        target: IpAddr,
        /// The way, or why there is none.
        state: Result<NextHop, Unreachable>,
    },
    /// A probe ended.
    Probe(ProbeOutcome),
    /// [`Action::Apply`] was carried out, as far as it went.
    Applied(Applied),
    /// [`Action::ReadBack`] was carried out: the entries as they are.
    ReadBack(Vec<Change>),
    /// Counters were read.
    Counters(Counters),
    /// [`Action::ReadFlows`] was carried out.
    Flows(FlowReading),
    /// It could not be.
    FlowsUnreadable,
    /// An interface that the balancer is attached to came back as another one, or is gone.
    Interface {
        /// Its name.
        name: String,
        /// How the balancer is attached there now, or why it is not.
        state: Result<InterfaceView, String>,
    },
    /// [`Action::Trace`] was carried out.
    Traced {
        /// Which.
        token: Token,
        /// The packet.
        sample: Sample,
        /// Its way, or why it cannot be told.
        trace: Result<Box<Trace>, String>,
    },
    /// [`Action::ReadNamed`] was carried out.
    NamedRead {
        /// Which.
        token: Token,
        /// The text, with the files that it names.
        source: Source,
    },
    /// The programs told of packets.
    Packets(Vec<PacketEvent>),
    /// A piece of a stream found no room: its client reads too slowly.
    StreamFull {
        /// Which.
        token: Token,
    },
    /// The client of a stream went away.
    StreamEnded {
        /// Which.
        token: Token,
    },
    /// A client asks.
    Request {
        /// To be named in the answer.
        token: Token,
        /// The question or order.
        request: Request,
    },
    /// Time passed.
    Tick,
}

/// How far a plan went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Steps carried out.
    pub done: usize,
    /// Why the next one was not.
    pub error: Option<String>,
}

/// How loud a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something needs a person.
    Error,
    /// Something got worse.
    Warn,
    /// Something changed.
    Info,
}

/// Something to be done outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Carry out these steps in this order, and report how far it went.
    Apply(Vec<Change>),
    /// Read the entries that these changes name, and report.
    ReadBack(Vec<Change>),
    /// Follow the ways to exactly these addresses.
    Resolve(BTreeSet<IpAddr>),
    /// Keep exactly these probes running.
    Probe(BTreeMap<ProbeId, Arc<ProbeSpec>>),
    /// Replace the configuration file's text `before` by `after`, and report.
    WriteConfig {
        /// To be named in the report.
        token: Token,
        /// What must be there still: somebody may have edited the file by hand.
        before: String,
        /// What is to be there.
        after: String,
    },
    /// Read the files that a text of a configuration names, and report.
    ReadNamed {
        /// To be named in the report.
        token: Token,
        /// The text.
        text: String,
    },
    /// Keep a configuration for those who may want to go back to it.
    Keep(Past),
    /// Read the flow table, and report.
    ReadFlows,
    /// Find out the way of a packet through the tables as they are, and report.
    Trace {
        /// To be named in the report.
        token: Token,
        /// The packet.
        sample: Sample,
    },
    /// Answer a request.
    Reply {
        /// Which.
        token: Token,
        /// The answer.
        response: Response,
    },
    /// Send a piece of a stream that began with [`Response::Streaming`].
    Stream {
        /// Which.
        token: Token,
        /// The piece.
        chunk: Vec<u8>,
    },
    /// A stream is over.
    EndStream {
        /// Which.
        token: Token,
    },
    /// Tell people that a backend changed its state.
    State(StateView),
    /// Tell people.
    Log(Level, String),
}
