//! `lb-lab`: the laboratory for people. `cargo xtask demo` and `cargo xtask lab` run it.

/// Prints a line, as `println!` does, but does not mind if nobody reads any more (`lb-lab status | head`).
macro_rules! say {
    ($($words:tt)*) => { crate::report::line(format_args!($($words)*)) };
}

mod demo;
mod report;
mod standing;

use std::{net::IpAddr, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use lb_tests::lab::{echo, interrupt, namespace};

/// A laboratory of network namespaces to see lb at work: a client, a router, the balancer, three backends.
#[derive(Parser)]
#[command(name = "lb-lab")]
struct Arguments {
    #[command(subcommand)]
    command: Order,
}

#[derive(Subcommand)]
enum Order {
    /// Show what lb does, measured step by step; exit status 1 if anything shown was not true.
    Demo {
        /// Leave the laboratory standing afterwards, to play with.
        #[arg(long)]
        keep: bool,
    },
    /// Build a laboratory with the balancer running in it and leave it standing.
    Up,
    /// Remove the laboratory that `up` (or `demo --keep`) left standing; fine if there is none.
    Down,
    /// Show what stands.
    Status,
    /// Run a command in the standing laboratory: `lb-lab exec client curl http://192.0.2.10/`.
    Exec {
        /// client, router, lb, b1, b2, b3
        role: String,
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Remove the standing laboratory and whatever killed tests left behind.
    Clean,
    /// Be a backend's echo server (a laboratory starts this in a backend's namespace).
    #[command(hide = true)]
    Serve {
        /// What it answers with.
        name: String,
        /// Where it answers UDP.
        addresses: Vec<IpAddr>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(_) if interrupt::requested() => ExitCode::from(130),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(order: Order) -> Result<ExitCode> {
    match order {
        Order::Demo { keep } => return demo::run(keep),
        Order::Up => standing::up()?,
        Order::Down => standing::down()?,
        Order::Status => standing::status()?,
        Order::Exec { role, command } => return standing::exec(&role, &command),
        Order::Clean => {
            standing::down()?;
            for name in standing::sweep()?.into_iter().chain(namespace::sweep()?) {
                say!("removed namespace {name}");
            }
        }
        Order::Serve { name, addresses } => echo::serve(&name, &addresses)?,
    }
    Ok(ExitCode::SUCCESS)
}
