//! `lb server`: what is done on a backend.

use clap::{Args, Subcommand, ValueEnum};
use lb_common::abi::GUE_DEFAULT_PORT;

use crate::{
    edge::kernel::server::{self, Program},
    model::service::XdpMode,
};

/// What can be done on a backend.
#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
pub(super) enum ServerCommand {
    /// Strip outer headers of packets from the balancer, without a tunnel device
    #[command(after_help = "Examples:
  lb server decap --interface eth0
  lb server decap --interface eth0 --mode generic
  lb server decap --interface eth0 --gue-port 9999
  lb server decap --interface eth0 --off")]
    Decap {
        #[command(flatten)]
        place: Place,
        /// How to attach
        #[arg(long, value_enum, default_value_t = Mode::Auto)]
        mode: Mode,
        /// UDP port that GUE packets come to: `gue_port` of the balancer
        #[arg(long, default_value_t = GUE_DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
        gue_port: u16,
    },
    /// Attach a program that lets everything pass: a veth's peer needs one to receive natively
    #[command(
        hide = true,
        after_help = "Examples:
  lb server pass --interface eth0"
    )]
    Pass {
        #[command(flatten)]
        place: Place,
    },
}

/// Where, and whether on or off.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The interface
    #[arg(short, long, value_name = "IF")]
    interface: String,
    /// Detach instead
    #[arg(long)]
    off: bool,
}

/// [`XdpMode`], as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Mode {
    /// Native if the driver can, else generic
    Auto,
    /// Native or not at all
    Native,
    /// Generic: slow, works everywhere
    Generic,
}

impl From<Mode> for XdpMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
        }
    }
}

impl ServerCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (program, place, mode) = match self {
            Self::Decap { place, mode, gue_port } => (Program::Decap { gue_port }, place, mode.into()),
            Self::Pass { place } => (Program::Pass, place, XdpMode::Native),
        };
        if place.off {
            server::detach(&place.interface)
        } else {
            server::attach(program, &place.interface, mode)
        }
    }
}
