//! The command line: its grammar, and what each command sets in motion. `lb run` is the daemon; `check`,
//! `completions` and `server` work by themselves; everything else asks the daemon through its socket.
//! Commands become [`crate::api::Request`]s in the submodules, answers become text in [`render`].

mod apply;
mod ask;
mod backend;
mod capture;
mod check;
mod check_options;
mod drain;
mod events;
mod import;
mod manual;
mod pool;
pub mod render;
pub mod run;
mod server;
mod service;
mod status;
mod trace;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    api::Request,
    edge::socket::DEFAULT_PATH,
    exit::Exit,
    model::service::{BadName, Name},
};
use ask::Ask;
use render::Paint;

const EXAMPLES: &str = "Examples:
  lb run --config /etc/lb/lb.toml --interface eth0
  lb status
  lb service add www --vip 192.0.2.10 --port tcp/80 --port tcp/443 --pool web
  lb backend drain web w1";

/// XDP layer-4 load balancer with direct server return
///
/// `lb run` is the daemon. All other commands talk to it through its socket and may be shortened as long as
/// they stay unambiguous: `lb b ls` is `lb backend list`.
#[derive(Debug, Parser)]
#[command(name = "lb", version, infer_subcommands = true)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", Exit::help()))]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// Print JSON, the same as over the socket
    #[arg(short, long, global = true)]
    json: bool,
    /// The daemon's control socket
    #[arg(long, global = true, value_name = "PATH", env = "LB_SOCKET", default_value = DEFAULT_PATH)]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: attach, forward, check, and listen on the socket
    Run(run::RunOptions),
    /// Check a configuration file; touches nothing
    Check(check::CheckOptions),
    /// Turn the configuration of another balancer into one of lb, and name what cannot be translated
    #[command(after_help = "Examples:
  lb import ipvsadm rules
  lb import keepalived /etc/keepalived/keepalived.conf")]
    Import {
        #[command(subcommand)]
        command: import::ImportCommand,
    },
    /// Show what a configuration would change: services, backends, slots and remembered flows
    Plan(apply::PlanOptions),
    /// Bring a configuration into force, on trial if asked for
    Apply(apply::ApplyOptions),
    /// Keep the configuration that was applied on trial
    #[command(after_help = "Examples:
  lb confirm")]
    Confirm,
    /// Go back to an earlier configuration
    Rollback(apply::RollbackOptions),
    /// Show the configurations that were in force
    History(apply::HistoryOptions),
    /// Show the balancer as a whole: interfaces, configuration, services and backends
    Status(status::StatusOptions),
    /// Show and change services: VIP, ports, and the pool they point at
    #[command(
        visible_alias = "svc",
        after_help = "Examples:
  lb service list
  lb service add www --vip 192.0.2.10 --port tcp/80 --port tcp/443 --pool web"
    )]
    Service {
        #[command(subcommand)]
        command: Option<service::ServiceCommand>,
    },
    /// Show and change pools: backends with one health check
    #[command(after_help = "Examples:
  lb pool list
  lb pool add web --check http --path /healthz --expect 200 --interval 2s")]
    Pool {
        #[command(subcommand)]
        command: Option<pool::PoolCommand>,
    },
    /// Show and change the backends of pools
    #[command(after_help = "Examples:
  lb backend list web
  lb backend add web w3 10.9.0.13 --via ipip --weight 50
  lb backend drain web w1")]
    Backend {
        #[command(subcommand)]
        command: Option<backend::BackendCommand>,
    },
    /// Show the health of every backend
    #[command(after_help = "Examples:
  lb health
  lb health --json")]
    Health,
    /// Show packets and bytes by service and backend, and why packets were not forwarded
    Stats(ask::StatsOptions),
    /// Show what is remembered of flows: slots in transition, remembered flows, and until when
    Flows(ask::FlowsOptions),
    /// Show the way of a packet: each step of the decision, on the tables as they are now
    Trace(trace::TraceOptions),
    /// Show what happened: packets, backends that changed state, and what the daemon had to say
    Events(events::EventsOptions),
    /// Write packets and what became of them to a pcapng file
    Capture(capture::CaptureOptions),
    /// Prepare this machine as a backend
    #[command(after_help = "Examples:
  lb server decap --interface eth0")]
    Server {
        #[command(subcommand)]
        command: server::ServerCommand,
    },
    /// Print shell completions
    #[command(after_help = "Examples:
  lb completions bash
  lb completions zsh")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page of lb, for `man -l -`, or write those of all commands
    Manual(manual::ManualOptions),
}

/// Parses the command line, does what it says and returns the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(options) => options.run(cli.global.socket),
        Command::Check(options) => options.run(),
        Command::Import { command } => command.run(&cli.global),
        Command::Server { command } => command.run(),
        Command::Completions { shell } => completions(shell),
        Command::Manual(options) => options.run(),
        Command::Stats(options) => cli.global.ask(&options.ask()),
        Command::Flows(options) => cli.global.ask(&options.ask()),
        Command::Trace(options) => cli.global.ask(&options.ask()),
        Command::Events(options) => options.run(&cli.global),
        Command::Capture(options) => options.run(&cli.global),
        Command::Status(options) => options.run(&cli.global),
        Command::Plan(options) => options.run(&cli.global),
        Command::Apply(options) => options.run(&cli.global),
        Command::Confirm => cli.global.ask(&Ask::of(Request::Confirm)),
        Command::Rollback(options) => cli.global.ask(&options.ask()),
        Command::History(options) => cli.global.ask(&options.ask()),
        Command::Health => cli.global.ask(&Ask::of(Request::Health)),
        Command::Service { command } => cli.global.ask(&service::ask(command)),
        Command::Pool { command } => cli.global.ask(&pool::ask(command)),
        Command::Backend { command } => backend::run(command, &cli.global),
    };
    match result {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            complain(&error);
            Exit::of(&error).into()
        }
    }
}

/// An error with its causes, but no sentence twice: many of ours quote their cause already.
fn explained(error: &anyhow::Error) -> String {
    let mut causes = error.chain().map(ToString::to_string);
    let mut text = causes.next().unwrap_or_default();
    for cause in causes {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn complain(error: &anyhow::Error) {
    let text = explained(error).lines().map(|line| format!("lb: {line}\n")).collect::<String>();
    // If standard error is closed there is nobody left to tell.
    io::stderr().write_all(text.as_bytes()).ok();
}

/// Writes to standard output. A reader that went away (`lb stats | head`) is told by `false`, not an error.
fn print(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Colour only where a person looks and has not said no (<https://no-color.org>).
fn paint_for(stream: &impl IsTerminal) -> Paint {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && stream.is_terminal() { Paint::Colour } else { Paint::Plain }
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lb", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(())
}

/// A well-formed name: anything else cannot exist, so it is an error of the command line.
fn name(text: &str) -> Result<String, BadName> {
    Name::new(text).map(|name| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command with its full name, hidden ones too.
    fn walk(command: &clap::Command, path: &str, visit: &mut impl FnMut(&str, &clap::Command)) {
        visit(path, command);
        for child in command.get_subcommands() {
            walk(child, &format!("{path} {}", child.get_name()), visit);
        }
    }

    #[test]
    fn grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_example_parses_as_its_own_command() {
        let mut examples = 0;
        walk(&Cli::command(), "lb", &mut |path, command| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            assert!((1..=4).contains(&lines.len()), "{path} has {} examples", lines.len());
            for line in lines {
                if let Err(error) = Cli::try_parse_from(line.split_whitespace()) {
                    panic!("example of {path}: {line}\n{error}");
                }
                let plain = line.replace("lb -j ", "lb ");
                assert!(plain.starts_with(path), "{path} shows an example of something else: {line}");
                examples += 1;
            }
        });
        assert!(examples > 30, "only {examples} examples found");
    }

    #[test]
    fn every_command_and_argument_is_explained() {
        walk(&Cli::command(), "lb", &mut |path, command| {
            assert!(command.get_about().is_some(), "{path} has no description");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {} has no description", argument.get_id());
            }
        });
    }

    #[test]
    fn wrong_lines_are_usage_errors() {
        for line in [
            "lb",
            "lb frobnicate",
            "lb run",
            "lb service show",
            "lb service add www --vip 192.0.2.10 --pool web",
            "lb service add www --vip nonsense --port tcp/80 --pool web",
            "lb service add -x --vip 192.0.2.10 --port tcp/80 --pool web",
            "lb service set www",
            "lb pool set web",
            "lb pool add web --path /healthz",
            "lb pool add web --check carrier-pigeon",
            "lb backend add web w1",
            "lb backend add web w1 10.0.0.1 --weight 10001",
            "lb backend set web w1",
            "lb backend show a/b",
            "lb server decap",
            "lb trace tcp 198.51.100.7",
            "lb trace gre 198.51.100.7 192.0.2.10",
            "lb trace tcp client 192.0.2.10:80",
            "lb trace tcp 198.51.100.7 192.0.2.10:80 --syn --flags A",
        ] {
            let error = Cli::try_parse_from(line.split_whitespace()).expect_err(line);
            assert_eq!(error.exit_code(), i32::from(Exit::Usage as u8), "{line}");
        }
    }

    #[test]
    fn global_options_stand_anywhere_and_verbs_may_be_short() {
        for line in [
            "lb --json --socket /x service list",
            "lb service list -j --socket /x",
            "lb -j svc ls --socket /x",
            "lb -j --socket=/x service",
        ] {
            let cli = Cli::try_parse_from(line.split_whitespace()).expect(line);
            assert!(cli.global.json, "{line}");
            assert_eq!(cli.global.socket, PathBuf::from("/x"), "{line}");
            let Command::Service { command } = cli.command else { panic!("{line}") };
            assert_eq!(service::ask(command).request, Request::Services(None), "{line}");
        }
    }

    #[test]
    fn no_sentence_is_said_twice() {
        let cause = io::Error::other("disk full");
        let error = anyhow::Error::new(crate::edge::socket::SocketError::Io {
            attempt: "bind",
            path: "/x".into(),
            source: cause,
        })
        .context("cannot start");
        assert_eq!(explained(&error), "cannot start: cannot bind /x: disk full");
    }
}
