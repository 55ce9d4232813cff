//! `lb backend`: from arguments to requests.

use std::net::IpAddr;

use clap::{
    ArgGroup, Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::{Global, ask::Ask, drain::Drain, name, render};
use crate::{
    api::{BackendPatch, BackendSpec, Edit, Request},
    model::service::{AdminState, DEFAULT_WEIGHT, MAX_VLAN, MAX_WEIGHT, Via},
};

/// What can be done with backends; without a command they are listed.
#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
pub(super) enum BackendCommand {
    /// List the backends of all pools, or of one
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  lb backend list
  lb backend list web"
    )]
    List {
        /// Only of this pool
        #[arg(value_parser = name)]
        pool: Option<String>,
    },
    /// Add a backend to a pool
    #[command(after_help = "Examples:
  lb backend add web w1 10.1.0.11
  lb backend add web w3 10.9.0.13 --via ipip --weight 50
  lb backend add web w4 10.1.0.14 --vlan 100 --server-id 0x2a01")]
    Add {
        #[command(flatten)]
        which: Which,
        /// Its own address, not the VIP
        address: IpAddr,
        /// How packets get there [default: l2]
        #[arg(long, value_parser = via())]
        via: Option<String>,
        #[arg(long, value_parser = weight(), help = format!("{WEIGHT} [default: {DEFAULT_WEIGHT}]"))]
        weight: Option<u16>,
        /// The VLAN tag of packets to it
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_VLAN)))]
        vlan: Option<u16>,
        /// What QUIC connection IDs name it by (0x2a01)
        #[arg(long, value_name = "HEX")]
        server_id: Option<String>,
    },
    /// Change a backend: only what is given
    #[command(after_help = "Examples:
  lb backend set web w1 --weight 10
  lb backend set web w1 --address 10.9.0.14 --via ipip")]
    Set(BackendSet),
    /// Give a backend no new flows; those it has stay until they end
    #[command(after_help = "Examples:
  lb backend drain web w1
  lb backend drain web w1 --wait
  lb backend drain web w1 --deadline 10m --wait")]
    Drain(Drain),
    /// Let a backend serve again, if it is healthy
    #[command(after_help = "Examples:
  lb backend enable web w1")]
    Enable(Which),
    /// Give a backend nothing at all, and do not probe it
    #[command(after_help = "Examples:
  lb backend disable web w1")]
    Disable(Which),
    /// Remove a backend
    #[command(visible_aliases = ["rm", "delete"], after_help = "Examples:
  lb backend del web w1")]
    Del(Which),
}

const WEIGHT: &str = "Its share relative to the pool's other backends; 0 takes no new flows";

/// Names a backend.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Name of the pool
    #[arg(value_parser = name)]
    pub(super) pool: String,
    /// Name of the backend
    #[arg(value_parser = name)]
    pub(super) name: String,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("changes").args(["address", "via", "weight", "vlan", "server_id"]).required(true).multiple(true))]
pub(super) struct BackendSet {
    #[command(flatten)]
    which: Which,
    /// Its own address, not the VIP
    #[arg(long)]
    address: Option<IpAddr>,
    /// How packets get there
    #[arg(long, value_parser = via())]
    via: Option<String>,
    #[arg(long, value_parser = weight(), help = WEIGHT)]
    weight: Option<u16>,
    /// The VLAN tag of packets to it from now on; 0 for none
    #[arg(long, value_parser = clap::value_parser!(u16).range(..=i64::from(MAX_VLAN)))]
    vlan: Option<u16>,
    /// What QUIC connection IDs name it by from now on (0x2a01), or none
    #[arg(long, value_name = "HEX")]
    server_id: Option<String>,
}

fn via() -> PossibleValuesParser {
    PossibleValuesParser::new(Via::ALL.map(|(word, _)| word))
}

fn weight() -> impl TypedValueParser<Value = u16> {
    clap::value_parser!(u16).range(..=i64::from(MAX_WEIGHT))
}

/// Does what a command says.
pub(super) fn run(command: Option<BackendCommand>, global: &Global) -> anyhow::Result<()> {
    match command {
        Some(BackendCommand::Drain(drain)) => drain.run(global),
        command => global.ask(&ask(command)),
    }
}

/// The request of a command.
pub(super) fn ask(command: Option<BackendCommand>) -> Ask {
    let set = |Which { pool, name }, patch| Edit::SetBackend { pool, name, patch };
    let state = |state| BackendPatch { state: Some(state), ..BackendPatch::default() };
    let edit = match command.unwrap_or(BackendCommand::List { pool: None }) {
        BackendCommand::List { pool } => {
            return Ask { show: render::backends, ..Ask::of(Request::Pools(pool)) };
        }
        BackendCommand::Add { which: Which { pool, name }, address, via, weight, vlan, server_id } => {
            let address = address.to_string();
            Edit::AddBackend { pool, backend: BackendSpec { name, address, via, weight, vlan, server_id } }
        }
        BackendCommand::Set(BackendSet { which, address, via, weight, vlan, server_id }) => {
            let address = address.map(|address| address.to_string());
            set(which, BackendPatch { address, via, weight, vlan, server_id, ..BackendPatch::default() })
        }
        BackendCommand::Drain(drain) => return Ask::of(drain.request()),
        BackendCommand::Enable(which) => set(which, state(AdminState::Ready)),
        BackendCommand::Disable(which) => set(which, state(AdminState::Maint)),
        BackendCommand::Del(Which { pool, name }) => Edit::DeleteBackend { pool, name },
    };
    Ask::of(Request::Edit(edit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn request(line: &str) -> Request {
        let Command::Backend { command } = Cli::try_parse_from(line.split_whitespace()).expect(line).command
        else {
            panic!("{line}")
        };
        ask(command).request
    }

    #[test]
    fn ways_are_those_of_the_model() {
        for (word, via) in Via::ALL {
            assert_eq!(via.to_string(), word);
            let set = request(&format!("lb backend set web w1 --via {word}"));
            let Request::Edit(Edit::SetBackend { patch, .. }) = set else { panic!("{set:?}") };
            assert_eq!(patch.via.as_deref(), Some(word));
        }
    }

    #[test]
    fn lines_become_requests() {
        let set =
            |patch| Request::Edit(Edit::SetBackend { pool: "web".to_owned(), name: "w1".to_owned(), patch });
        let state = |state| set(BackendPatch { state: Some(state), ..BackendPatch::default() });
        let cases = [
            ("lb backend", Request::Pools(None)),
            ("lb b ls web", Request::Pools(Some("web".to_owned()))),
            (
                "lb backend add web w3 10.9.0.13 --via ipip --weight 50",
                Request::Edit(Edit::AddBackend {
                    pool: "web".to_owned(),
                    backend: BackendSpec {
                        vlan: None,
                        server_id: None,
                        name: "w3".to_owned(),
                        address: "10.9.0.13".to_owned(),
                        via: Some("ipip".to_owned()),
                        weight: Some(50),
                    },
                }),
            ),
            (
                "lb backend set web w1 --weight 0",
                set(BackendPatch { weight: Some(0), ..BackendPatch::default() }),
            ),
            (
                "lb backend set web w1 --address fd00::1 --via l2",
                set(BackendPatch {
                    address: Some("fd00::1".to_owned()),
                    via: Some("l2".to_owned()),
                    ..BackendPatch::default()
                }),
            ),
            ("lb backend drain web w1", state(AdminState::Drain)),
            (
                "lb backend drain web w1 --deadline 1.5m",
                set(BackendPatch {
                    state: Some(AdminState::Drain),
                    drain_seconds: Some(90),
                    ..BackendPatch::default()
                }),
            ),
            ("lb backend enable web w1", state(AdminState::Ready)),
            ("lb backend disable web w1", state(AdminState::Maint)),
            (
                "lb backend rm web w1",
                Request::Edit(Edit::DeleteBackend { pool: "web".to_owned(), name: "w1".to_owned() }),
            ),
        ];
        for (line, want) in cases {
            assert_eq!(request(line), want, "{line}");
        }
    }
}
