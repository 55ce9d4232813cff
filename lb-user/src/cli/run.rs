//! `lb run`: from arguments to what the daemon is started with.

use std::{io, net::SocketAddr, path::PathBuf};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, filter::filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use super::{paint_for, render::Paint};
use crate::daemon;

/// Where programs, maps and links are pinned unless told otherwise.
pub const DEFAULT_PINS: &str = "/sys/fs/bpf/lb";

/// Where the daemon keeps what is to outlive it, unless told otherwise.
const DEFAULT_STATE: &str = "/var/lib/lb";

/// The target of the kernel programs' log: a line for each packet.
pub const PACKET_LOG: &str = "lb_ebpf";

/// What the daemon is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunArgs {
    /// The configuration file.
    pub config: PathBuf,
    /// Attach here; empty: where the file says.
    pub interfaces: Vec<String>,
    /// Where to listen for clients.
    pub socket: PathBuf,
    /// Group that may use the socket; root without.
    pub socket_group: Option<String>,
    /// Where to listen for clients by TCP; nowhere without.
    pub api_listen: Option<SocketAddr>,
    /// The file with the token of those who may change things by TCP.
    pub api_token_file: Option<PathBuf>,
    /// Whether to keep just the capabilities that are needed once it is attached.
    pub drop_privileges: bool,
    /// Directory in a bpffs for programs, maps and links.
    pub pins: PathBuf,
    /// Where the daemon keeps what is to outlive it.
    pub state: PathBuf,
    /// Leave the program attached when the daemon stops.
    pub keep_forwarding: bool,
}

/// Options of `lb run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lb run --config /etc/lb/lb.toml
  lb run --config lb.toml --interface eth0 --interface eth1 --socket-group lb
  lb run --config lb.toml --api-listen 127.0.0.1:9900
  lb run --config lb.toml --keep-forwarding --log debug")]
pub(super) struct RunOptions {
    /// The configuration file; watched, and rewritten by edits with its comments kept
    #[arg(short, long, value_name = "FILE", env = "LB_CONFIG")]
    config: PathBuf,
    /// Attach to this interface instead of those in the file; may be repeated
    #[arg(short, long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Group that may use the control socket [default: root]
    #[arg(long, value_name = "GROUP")]
    socket_group: Option<String>,
    /// Serve the API by TCP as well (127.0.0.1:9900): metrics and other questions only, unless there is a token
    #[arg(long, value_name = "ADDRESS")]
    api_listen: Option<SocketAddr>,
    /// File with a token; whoever sends it by TCP may change everything
    #[arg(long, value_name = "FILE", requires = "api_listen")]
    api_token_file: Option<PathBuf>,
    /// Keep only the capabilities for forwarding and checking once attached (BPF, PERFMON, NET_ADMIN, NET_RAW): files that
    /// root alone does not own can then neither be read nor written
    #[arg(long)]
    drop_privileges: bool,
    /// Directory in a bpffs where programs, maps and links are pinned
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PINS)]
    pins: PathBuf,
    /// Directory for what outlives the daemon: past configurations, for lb rollback
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
    /// Go on forwarding after the daemon has stopped; the next one takes over
    #[arg(long)]
    keep_forwarding: bool,
    /// What to log: error, warn, info, debug, trace, or target=level,...; lb_ebpf=debug logs packets (slow)
    #[arg(long, value_name = "LEVEL", env = "LB_LOG", default_value = "info", value_parser = log_filter)]
    log: String,
}

impl RunOptions {
    pub(super) fn run(self, socket: PathBuf) -> anyhow::Result<()> {
        start_logging(&self.log);
        daemon::run(&self.args(socket))
    }

    fn args(self, socket: PathBuf) -> RunArgs {
        let Self {
            config,
            interfaces,
            socket_group,
            api_listen,
            api_token_file,
            drop_privileges,
            pins,
            state,
            keep_forwarding,
            log: _,
        } = self;
        RunArgs {
            config,
            interfaces,
            socket,
            socket_group,
            api_listen,
            api_token_file,
            drop_privileges,
            pins,
            state,
            keep_forwarding,
        }
    }
}

fn log_filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(text).map(|_| text.to_owned())
}

/// The filter asked for. Packets are logged only if asked for by name: a general `debug` must not slow the
/// packet path down.
fn with_packets_by_name(filter: &str) -> EnvFilter {
    EnvFilter::new(format!("{PACKET_LOG}=info,{filter}"))
}

/// Whether a log line could be the cause of the next one. `notify` tells of each change in the directory of
/// the configuration file, and the log may be a file in that directory.
fn feeds_itself(metadata: &Metadata<'_>) -> bool {
    metadata.target().split("::").next() == Some("notify") && *metadata.level() > Level::INFO
}

fn start_logging(filter: &str) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(paint_for(&io::stderr()) == Paint::Colour);
    tracing_subscriber::registry()
        .with(with_packets_by_name(filter))
        .with(filter_fn(|metadata| !feeds_itself(metadata)))
        .with(lines)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use tracing::subscriber::with_default;

    #[test]
    fn arguments_reach_the_daemon() {
        let line = "lb run -c f.toml -i eth0 --interface eth1 --socket /s --socket-group g --pins /p \
                    --api-listen [::1]:9900 --api-token-file /t --drop-privileges --keep-forwarding --log lb_user=debug,warn";
        let cli = Cli::try_parse_from(line.split_whitespace()).expect(line);
        let Command::Run(options) = cli.command else { panic!() };
        assert_eq!(options.log, "lb_user=debug,warn");
        assert_eq!(
            options.args(cli.global.socket),
            RunArgs {
                config: "f.toml".into(),
                interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
                socket: "/s".into(),
                socket_group: Some("g".to_owned()),
                api_listen: Some("[::1]:9900".parse().expect("an address")),
                api_token_file: Some("/t".into()),
                drop_privileges: true,
                pins: "/p".into(),
                state: "/var/lib/lb".into(),
                keep_forwarding: true,
            }
        );
    }
    #[test]
    fn packets_are_logged_only_by_name() {
        for (filter, wanted) in [
            ("info", false),
            ("debug", false),
            ("trace", false),
            ("lb_ebpf=info,debug", false),
            ("lb_ebpf=debug", true),
            ("info,lb_ebpf=debug", true),
            ("lb_ebpf=trace,warn", true),
        ] {
            let subscriber = tracing_subscriber::registry().with(with_packets_by_name(filter));
            let is_on = with_default(subscriber, || tracing::enabled!(target: PACKET_LOG, Level::DEBUG));
            assert_eq!(is_on, wanted, "{filter}");
        }
    }

    #[test]
    fn the_watch_of_the_configuration_never_logs_each_change() {
        let subscriber = || {
            tracing_subscriber::registry()
                .with(with_packets_by_name("trace,notify=trace,notify::inotify=trace"))
                .with(filter_fn(|metadata| !feeds_itself(metadata)))
        };
        with_default(subscriber(), || {
            assert!(!tracing::enabled!(target: "notify::inotify", Level::TRACE));
            assert!(!tracing::enabled!(target: "notify", Level::DEBUG));
            assert!(tracing::enabled!(target: "notify", Level::WARN));
            assert!(tracing::enabled!(target: "lb_user::edge", Level::TRACE));
        });
    }
}
