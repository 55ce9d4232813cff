//! `lb pool`: from arguments to requests.

use clap::{ArgGroup, Args, Subcommand};

use super::{ask::Ask, check_options::CheckOptions, name};
use crate::{
    api::{Edit, PoolPatch, PoolSpec, Request},
    model::service::DEFAULT_SLOTS,
};

/// What can be done with pools; without a command they are listed.
#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
pub(super) enum PoolCommand {
    /// List all pools
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  lb pool list
  lb pool list --json"
    )]
    List,
    /// Show a pool with its check and backends
    #[command(after_help = "Examples:
  lb pool show web")]
    Show {
        /// Name of the pool
        #[arg(value_parser = name)]
        name: String,
    },
    /// Add a pool without backends
    #[command(after_help = "Examples:
  lb pool add web --check http --path /healthz --expect 200 --interval 2s
  lb pool add dns --check dns --query www.example.com --expect NOERROR
  lb pool add game --check udp --send 0xffffffff54 --check-port 27015
  lb pool add big --slots 65521")]
    Add {
        /// Name of the pool
        #[arg(value_parser = name)]
        name: String,
        #[arg(
            long,
            help = format!("Size of the lookup table, a prime, fixed for the pool's life [default: {DEFAULT_SLOTS}]")
        )]
        slots: Option<u32>,
        #[command(flatten)]
        check: Box<CheckOptions>,
    },
    /// Change a pool's check: the one given replaces the whole old one
    #[command(after_help = "Examples:
  lb pool set web --check http --path /ready --interval 1s --timeout 500ms
  lb pool set web --check https --server-name www.example.com --ca /etc/lb/ca.pem
  lb pool set web --check tcp")]
    Set(PoolSet),
    /// Remove a pool; refused while a service points at it
    #[command(visible_aliases = ["rm", "delete"], after_help = "Examples:
  lb pool del web")]
    Del {
        /// Name of the pool
        #[arg(value_parser = name)]
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("changes").args(["check"]).required(true))]
pub(super) struct PoolSet {
    /// Name of the pool
    #[arg(value_parser = name)]
    name: String,
    #[command(flatten)]
    check: Box<CheckOptions>,
}

/// The request of a command.
pub(super) fn ask(command: Option<PoolCommand>) -> Ask {
    Ask::of(match command.unwrap_or(PoolCommand::List) {
        PoolCommand::List => Request::Pools(None),
        PoolCommand::Show { name } => Request::Pools(Some(name)),
        PoolCommand::Add { name, slots, check } => {
            Request::Edit(Edit::AddPool(PoolSpec { name, slots, check: check.spec() }))
        }
        PoolCommand::Set(PoolSet { name, check }) => {
            Request::Edit(Edit::SetPool { name, patch: PoolPatch { check: check.spec() } })
        }
        PoolCommand::Del { name } => Request::Edit(Edit::DeletePool { name }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{CheckSpec, Expect},
        cli::{Cli, Command},
    };
    use clap::Parser;

    fn request(line: &str) -> Request {
        let Command::Pool { command } = Cli::try_parse_from(line.split_whitespace()).expect(line).command
        else {
            panic!("{line}")
        };
        ask(command).request
    }

    #[test]
    fn lines_become_requests() {
        let name = || "web".to_owned();
        let cases = [
            ("lb pool", Request::Pools(None)),
            ("lb po ls", Request::Pools(None)),
            ("lb pool show web", Request::Pools(Some(name()))),
            (
                "lb pool add web",
                Request::Edit(Edit::AddPool(PoolSpec { name: name(), ..PoolSpec::default() })),
            ),
            (
                "lb pool add web --slots 251 --check http --check-port 8080 --path /healthz --host example.net \
                 --expect 204 --interval 2s --timeout 500ms --rise 1 --fall 4",
                Request::Edit(Edit::AddPool(PoolSpec {
                    name: name(),
                    slots: Some(251),
                    check: Some(Box::new(CheckSpec {
                        kind: "http".to_owned(),
                        port: Some(8080),
                        path: Some("/healthz".to_owned()),
                        host: Some("example.net".to_owned()),
                        expect: Some(Expect::Status(204)),
                        interval: Some("2s".to_owned()),
                        timeout: Some("500ms".to_owned()),
                        rise: Some(1),
                        fall: Some(4),
                        ..CheckSpec::default()
                    })),
                })),
            ),
            (
                "lb pool set web --check tcp",
                Request::Edit(Edit::SetPool {
                    name: name(),
                    patch: PoolPatch {
                        check: Some(Box::new(CheckSpec { kind: "tcp".to_owned(), ..CheckSpec::default() })),
                    },
                }),
            ),
            (
                "lb pool set dns --check dns --to backend --query example.net --record AAAA --expect NXDOMAIN \
                 --fast-interval 1s --jitter 20 --damping 10m",
                Request::Edit(Edit::SetPool {
                    name: "dns".to_owned(),
                    patch: PoolPatch {
                        check: Some(Box::new(CheckSpec {
                            kind: "dns".to_owned(),
                            to: Some("backend".to_owned()),
                            query: Some("example.net".to_owned()),
                            record: Some("AAAA".to_owned()),
                            expect: Some(Expect::Text("NXDOMAIN".to_owned())),
                            fast_interval: Some("1s".to_owned()),
                            jitter: Some(20),
                            damping: Some("10m".to_owned()),
                            ..CheckSpec::default()
                        })),
                    },
                }),
            ),
            (
                "lb pool set web --check https --server-name a.example --no-verify --ca /ca.pem",
                Request::Edit(Edit::SetPool {
                    name: name(),
                    patch: PoolPatch {
                        check: Some(Box::new(CheckSpec {
                            kind: "https".to_owned(),
                            server_name: Some("a.example".to_owned()),
                            verify: Some(false),
                            ca: Some("/ca.pem".to_owned()),
                            ..CheckSpec::default()
                        })),
                    },
                }),
            ),
            (
                "lb pool set q --check udp --send 0x00 --expect 200",
                Request::Edit(Edit::SetPool {
                    name: "q".to_owned(),
                    patch: PoolPatch {
                        check: Some(Box::new(CheckSpec {
                            kind: "udp".to_owned(),
                            send: Some("0x00".to_owned()),
                            expect: Some(Expect::Text("200".to_owned())),
                            ..CheckSpec::default()
                        })),
                    },
                }),
            ),
            ("lb pool del web", Request::Edit(Edit::DeletePool { name: name() })),
        ];
        for (line, want) in cases {
            assert_eq!(request(line), want, "{line}");
        }
    }
}
