//! Programs that the demo and the tests run: found by name, so any distribution will do; installed by apt.

use anyhow::Result;

use super::apt::Apt;
use crate::process;

/// A program and the Debian package that has it.
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

const TOOLS: [Tool; 7] = [
    Tool { program: "nginx", package: "nginx-light" },
    Tool { program: "curl", package: "curl" },
    Tool { program: "iperf3", package: "iperf3" },
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "tc", package: "iproute2" },
    Tool { program: "ethtool", package: "ethtool" },
    Tool { program: "ping", package: "iputils-ping" },
];

/// What the bench compares with.
const RIVALS: [Tool; 3] = [
    Tool { program: "nft", package: "nftables" },
    Tool { program: "ipvsadm", package: "ipvsadm" },
    Tool { program: "haproxy", package: "haproxy" },
];

/// Those that are not here.
pub(crate) fn absent() -> Vec<&'static Tool> {
    missing(&TOOLS)
}

/// Those that the bench compares with and that are not here.
pub(crate) fn absent_rivals() -> Vec<&'static Tool> {
    missing(&RIVALS)
}

fn missing(tools: &'static [Tool]) -> Vec<&'static Tool> {
    tools.iter().filter(|tool| process::find_program(tool.program).is_none()).collect()
}

/// Installs their packages.
///
/// # Errors
/// [`Apt::install`]'s.
pub(crate) fn install(apt: &mut Apt, absent: &[&Tool]) -> Result<()> {
    let mut packages: Vec<_> = absent.iter().map(|tool| tool.package).collect();
    packages.dedup();
    apt.install(&packages)
}

/// Some of them, as text.
pub(crate) fn list(tools: &[&Tool]) -> String {
    tools.iter().map(|tool| tool.program).collect::<Vec<_>>().join(" ")
}

/// All of them, as text.
pub(crate) fn names() -> String {
    list(&TOOLS.iter().collect::<Vec<_>>())
}
