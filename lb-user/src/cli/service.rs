//! `lb service`: from arguments to requests.

use clap::{ArgGroup, Args, Subcommand};

use super::{ask::Ask, name};
use crate::{
    api::{Edit, NONE, Request, ServicePatch, ServiceSpec},
    model::prefix::Prefix,
};

/// What can be done with services; without a command they are listed.
#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
pub(super) enum ServiceCommand {
    /// List all services
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  lb service list
  lb service list --json"
    )]
    List,
    /// Show a service with its backends
    #[command(after_help = "Examples:
  lb service show www")]
    Show {
        /// Name of the service
        #[arg(value_parser = name)]
        name: String,
    },
    /// Add a service
    #[command(after_help = "Examples:
  lb service add www --vip 192.0.2.10 --port tcp/80 --port tcp/443 --pool web
  lb service add rtp --vip 2001:db8::10 --port udp/6970-6999 --pool media
  lb service add rtsp --vip 192.0.2.12 --port tcp/554 --port udp/6970-6999 --pool media --affinity source
  lb service add all --vip 192.0.2.16/28 --port 'tcp/*' --port 'udp/*' --pool web")]
    Add {
        /// Name of the service
        #[arg(value_parser = name)]
        name: String,
        /// The virtual address, or a prefix of them
        #[arg(long, value_name = "ADDRESS")]
        vip: Prefix,
        /// Protocol and port or ports (tcp/80, udp/6970-6999, tcp/*); may be repeated
        #[arg(long = "port", value_name = "PORT", required = true)]
        ports: Vec<String>,
        /// The pool it points at
        #[arg(long, value_parser = name)]
        pool: String,
        #[command(flatten)]
        policy: Policy,
    },
    /// Change a service: only what is given
    #[command(after_help = "Examples:
  lb service set www --pool web2
  lb service set www --port tcp/80 --port tcp/443 --port udp/443
  lb service set www --affinity source/24 --acl office
  lb service set www --acl none")]
    Set(ServiceSet),
    /// Remove a service
    #[command(visible_aliases = ["rm", "delete"], after_help = "Examples:
  lb service del www")]
    Del {
        /// Name of the service
        #[arg(value_parser = name)]
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("changes").args(["vip", "ports", "pool", "affinity", "acl", "tracking"]).required(true).multiple(true))]
pub(super) struct ServiceSet {
    /// Name of the service
    #[arg(value_parser = name)]
    name: String,
    /// The virtual address, or a prefix of them
    #[arg(long, value_name = "ADDRESS")]
    vip: Option<Prefix>,
    /// All its ports from now on; may be repeated
    #[arg(long = "port", value_name = "PORT")]
    ports: Option<Vec<String>>,
    /// The pool it points at
    #[arg(long, value_parser = name)]
    pool: Option<String>,
    #[command(flatten)]
    policy: Policy,
}

/// Keys that a service may do without: `none` removes one.
#[derive(Debug, Args)]
pub(super) struct Policy {
    /// Keep each client on one backend, for all ports alike: source, source/24, or none
    #[arg(long, value_name = "AFFINITY")]
    affinity: Option<String>,
    /// The access list that clients are held against, or none
    #[arg(long, value_name = "LIST")]
    acl: Option<String>,
    /// When flows are remembered: transition, always, never, or none for what is usual
    #[arg(long, value_name = "WHEN")]
    tracking: Option<String>,
}

impl Policy {
    /// What of it a new service has.
    fn of_new(self) -> [Option<String>; 3] {
        [self.affinity, self.acl, self.tracking].map(|word| word.filter(|word| word != NONE))
    }
}

/// The request of a command.
pub(super) fn ask(command: Option<ServiceCommand>) -> Ask {
    Ask::of(match command.unwrap_or(ServiceCommand::List) {
        ServiceCommand::List => Request::Services(None),
        ServiceCommand::Show { name } => Request::Services(Some(name)),
        ServiceCommand::Add { name, vip, ports, pool, policy } => {
            let [affinity, acl, tracking] = policy.of_new();
            let vip = vip.to_string();
            Request::Edit(Edit::AddService(ServiceSpec { name, vip, ports, pool, affinity, acl, tracking }))
        }
        ServiceCommand::Set(ServiceSet { name, vip, ports, pool, policy }) => {
            let vip = vip.map(|vip| vip.to_string());
            let Policy { affinity, acl, tracking } = policy;
            let patch = ServicePatch { vip, ports, pool, affinity, acl, tracking };
            Request::Edit(Edit::SetService { name, patch })
        }
        ServiceCommand::Del { name } => Request::Edit(Edit::DeleteService { name }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn request(line: &str) -> Request {
        let Command::Service { command } = Cli::try_parse_from(line.split_whitespace()).expect(line).command
        else {
            panic!("{line}")
        };
        ask(command).request
    }

    #[test]
    fn lines_become_requests() {
        let set = |patch| Request::Edit(Edit::SetService { name: "www".to_owned(), patch });
        let ports = || vec!["tcp/80".to_owned(), "tcp/443".to_owned()];
        let cases = [
            ("lb service", Request::Services(None)),
            ("lb service ls", Request::Services(None)),
            ("lb service show www", Request::Services(Some("www".to_owned()))),
            (
                "lb service add www --vip 192.0.2.10 --port tcp/80 --port tcp/443 --pool web",
                Request::Edit(Edit::AddService(ServiceSpec {
                    name: "www".to_owned(),
                    vip: "192.0.2.10".to_owned(),
                    ports: ports(),
                    pool: "web".to_owned(),
                    ..ServiceSpec::default()
                })),
            ),
            (
                "lb service set www --vip 2001:DB8:0::1",
                set(ServicePatch { vip: Some("2001:db8::1".to_owned()), ..ServicePatch::default() }),
            ),
            (
                "lb service set www --port tcp/80 --port tcp/443 --pool p",
                set(ServicePatch {
                    ports: Some(ports()),
                    pool: Some("p".to_owned()),
                    ..ServicePatch::default()
                }),
            ),
            (
                "lb service set www --acl none --affinity source/24 --tracking never",
                set(ServicePatch {
                    affinity: Some("source/24".to_owned()),
                    acl: Some("none".to_owned()),
                    tracking: Some("never".to_owned()),
                    ..ServicePatch::default()
                }),
            ),
            (
                "lb service add w --vip 192.0.2.0/28 --port tcp/* --pool web --affinity source --acl none",
                Request::Edit(Edit::AddService(ServiceSpec {
                    name: "w".to_owned(),
                    vip: "192.0.2.0/28".to_owned(),
                    ports: vec!["tcp/*".to_owned()],
                    pool: "web".to_owned(),
                    affinity: Some("source".to_owned()),
                    ..ServiceSpec::default()
                })),
            ),
            ("lb service rm www", Request::Edit(Edit::DeleteService { name: "www".to_owned() })),
        ];
        for (line, want) in cases {
            assert_eq!(request(line), want, "{line}");
        }
    }
}
