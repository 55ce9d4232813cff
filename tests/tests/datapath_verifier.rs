//! What the programs cost the kernel's verifier stays within the limits of `verifier-budget.toml`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, bail, ensure};
use aya::programs::{ProgramInfo, SchedClassifier};
use lb_common::abi::{Features, name};
use lb_tests::datapath::{LIMITS, within, xdp};
use lb_user::edge::kernel::{Kernel, LoadOptions};

/// The budget for this kernel: the newest that is not newer than it.
fn budget() -> anyhow::Result<BTreeMap<String, i64>> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let running = version(&release)?;
    let text = include_str!("../verifier-budget.toml");
    let document: toml_edit::DocumentMut = text.parse()?;
    let mut budgets = BTreeMap::new();
    for (kernel, budget) in document.iter() {
        budgets.insert(version(kernel)?, budget.as_table().context("a budget is a table")?);
    }
    let (kernel, budget) =
        budgets.range(..=running).next_back().with_context(|| format!("no budget for kernel {release}"))?;
    println!("kernel {}, budget for {}.{}", release.trim(), kernel.0, kernel.1);
    let entry = |(program, limit): (&str, &toml_edit::Item)| {
        Ok((program.to_owned(), limit.as_integer().with_context(|| format!("{program} has no number"))?))
    };
    budget.iter().map(entry).collect()
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> anyhow::Result<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("{release} is no kernel's release"),
    }
}

fn load(features: Features, log_packets: bool) -> anyhow::Result<Kernel> {
    let pins = PathBuf::from("/nonexistent");
    Ok(Kernel::load(&LoadOptions { limits: LIMITS, features, log_packets, pins })?)
}

#[test]
fn programs_stay_within_the_verifier_budget() {
    within(|| {
        let mut kernel = load(Features::NONE, false)?;
        let mut infos: Vec<(String, ProgramInfo)> = Vec::new();
        for program in
            [name::PROGRAM, name::RARE, name::PARSED, name::ANSWER, name::CLOCK, name::DECAP, name::NOOP]
        {
            let loaded = xdp(&mut kernel, program)?;
            // The balancer's own is loaded already; those for backends are loaded on demand.
            if loaded.fd().is_err() {
                loaded.load()?;
            }
            infos.push((program.to_owned(), loaded.info()?));
        }
        let probe: &mut SchedClassifier =
            kernel.ebpf().program_mut(name::PROBE).context("no probe program")?.try_into()?;
        infos.push((name::PROBE.to_owned(), probe.info()?));
        // The verifier removes features and the log from the others: these are programs of their own.
        for (what, features, log_packets) in
            [("every feature", Features::ALL, false), ("logging packets", Features::NONE, true)]
        {
            let mut kernel = load(features, log_packets)?;
            for program in [name::PROGRAM, name::RARE, name::PARSED, name::ANSWER] {
                infos.push((format!("{program}, {what}"), xdp(&mut kernel, program)?.info()?));
            }
        }

        let mut budget = budget()?;
        let mut over = Vec::new();
        println!(
            "{:28}{:>10}{:>10}{:>14}{:>12}",
            "program", "verified", "budget", "instructions", "jit bytes"
        );
        for (program, info) in infos {
            let verified = info.verified_instruction_count().context("kernel 5.16 or later counts")?;
            let limit = budget.remove(&program).with_context(|| format!("{program} has no budget"))?;
            // An instruction has 8 bytes.
            let instructions = info.size_translated().unwrap_or(0) / 8;
            println!("{program:28}{verified:>10}{limit:>10}{instructions:>14}{:>12}", info.size_jitted());
            if i64::from(verified) > limit {
                over.push(format!("{program} takes {verified} instructions of {limit}"));
            }
        }
        ensure!(over.is_empty(), "over the verifier budget: {}", over.join("; "));
        ensure!(budget.is_empty(), "a budget for programs that are not there: {:?}", budget.keys());
        Ok(())
    });
}
