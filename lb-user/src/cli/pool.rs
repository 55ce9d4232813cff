//! `lb pool`: from arguments to requests.

use clap::{ArgGroup, Args, Subcommand};

use super::{ask::Ask, name};
use crate::{
    api::{CheckSpec, Edit, PoolPatch, PoolSpec, Request},
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
  lb pool add dns --check tcp --check-port 53 --fall 2
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
        check: CheckOptions,
    },
    /// Change a pool's check: the one given replaces the whole old one
    #[command(after_help = "Examples:
  lb pool set web --check http --path /ready --interval 1s --timeout 500ms
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
    check: CheckOptions,
}

/// A health check.
#[derive(Debug, Args)]
pub(super) struct CheckOptions {
    /// How backends are checked
    #[arg(long, value_name = "TYPE", value_parser = ["tcp", "http"], help_heading = "Health check")]
    check: Option<String>,
    /// Port to probe [default: the first TCP port of the pool's first service]
    #[arg(long, value_name = "PORT", requires = "check", help_heading = "Health check")]
    check_port: Option<u16>,
    /// Path and query of an HTTP check
    #[arg(long, requires = "check", help_heading = "Health check")]
    path: Option<String>,
    /// Host header of an HTTP check [default: the VIP]
    #[arg(long, requires = "check", help_heading = "Health check")]
    host: Option<String>,
    /// Status that an HTTP check wants
    #[arg(long, value_name = "STATUS", requires = "check", help_heading = "Health check")]
    expect: Option<u16>,
    /// From the start of one probe to that of the next: 2s, 500ms
    #[arg(long, value_name = "TIME", requires = "check", help_heading = "Health check")]
    interval: Option<String>,
    /// How long a probe may take: 1s
    #[arg(long, value_name = "TIME", requires = "check", help_heading = "Health check")]
    timeout: Option<String>,
    /// Successes in a row that bring a backend up
    #[arg(long, value_name = "N", requires = "check", help_heading = "Health check")]
    rise: Option<u32>,
    /// Failures in a row that take a backend down
    #[arg(long, value_name = "N", requires = "check", help_heading = "Health check")]
    fall: Option<u32>,
}

impl CheckOptions {
    fn spec(self) -> Option<CheckSpec> {
        let Self { check, check_port, path, host, expect, interval, timeout, rise, fall } = self;
        check.map(|kind| CheckSpec {
            kind,
            port: check_port,
            path,
            host,
            expect,
            interval,
            timeout,
            rise,
            fall,
        })
    }
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
    use crate::cli::{Cli, Command};
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
            ("lb p ls", Request::Pools(None)),
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
                    check: Some(CheckSpec {
                        kind: "http".to_owned(),
                        port: Some(8080),
                        path: Some("/healthz".to_owned()),
                        host: Some("example.net".to_owned()),
                        expect: Some(204),
                        interval: Some("2s".to_owned()),
                        timeout: Some("500ms".to_owned()),
                        rise: Some(1),
                        fall: Some(4),
                    }),
                })),
            ),
            (
                "lb pool set web --check tcp",
                Request::Edit(Edit::SetPool {
                    name: name(),
                    patch: PoolPatch {
                        check: Some(CheckSpec { kind: "tcp".to_owned(), ..CheckSpec::default() }),
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
