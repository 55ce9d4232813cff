//! The rules: which files each holds for, what it forbids there, and why.
//!
//! Only the table. How a kind of rule is checked stands in `check`.

/// A rule.
pub(crate) struct Rule {
    /// Its name, as printed.
    pub(crate) name: &'static str,
    /// Why, and what to do instead.
    pub(crate) why: &'static str,
    /// Files it holds for: beginnings of paths. Empty: all files.
    pub(crate) within: &'static [&'static str],
    /// Files excepted: beginnings of paths.
    pub(crate) except: &'static [&'static str],
    /// Whether it holds for unit tests (`#[cfg(test)]` modules), too.
    pub(crate) tests: bool,
    /// What it forbids.
    pub(crate) forbids: Forbidden,
}

/// What a rule forbids.
pub(crate) enum Forbidden {
    /// Paths or words in code, alone or as the beginning of a path; imports count name by name.
    Names(&'static [&'static str]),
    /// `crate::edge::x` from any other edge.
    OtherEdges,
    /// String literals that are map names, which are all those in the file named here that start with this.
    MapNames { declared_in: &'static str, prefix: &'static str },
    /// A wildcard arm in a `match` over one of these enums.
    WildcardOver(&'static [&'static str]),
    /// Texts, in any file, comments and literals included.
    Texts(&'static [&'static str]),
    /// Beginnings of lines.
    LineStarts(&'static [&'static str]),
    /// File or module names (without `.rs`).
    FileNames(&'static [&'static str]),
    /// A Rust file that does not begin with `//!`.
    NoHeading,
    /// A Rust file with more lines than this.
    MoreLinesThan(usize),
}

/// The pure part of `lb-user`, as files or directories.
const PURE: &[&str] = &[
    "lb-user/src/model",
    "lb-user/src/controller",
    "lb-user/src/config.rs",
    "lb-user/src/config/",
    "lb-user/src/api",
];

/// The files that may hold `unsafe`, and for what.
const UNSAFE: &[&str] = &[
    // Which types are just their bytes.
    "lb-common/src/wire/pod.rs",
    "lb-common/src/parse.rs",
    "lb-common/src/wire/ip.rs",
    // One word read while the other side may write it.
    "lb-common/src/abi/backend.rs",
    // A register move that the compiler does not see through.
    "lb-common/src/opaque.rs",
    // Helpers of the kernel, and pointers that the verifier has checked.
    "lb-ebpf/src/bench.rs",
    "lb-ebpf/src/cursor.rs",
    "lb-ebpf/src/forward.rs",
    "lb-ebpf/src/icmp.rs",
    "lb-ebpf/src/main.rs",
    "lb-ebpf/src/maps.rs",
    "lb-ebpf/src/probe.rs",
    "lb-ebpf/src/server.rs",
    // Maps as shared memory, and system calls without a safe name.
    "lb-user/src/edge/kernel.rs",
    "lb-user/src/edge/kernel/",
];

/// What these rules and their tests must name themselves.
const RULES_THEMSELVES: &str = "xtask/src/tidy/";

/// All rules.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "pure-middle",
        why: "model, controller, config and api do no I/O and ask no clock: time, files and packets come in as arguments from an edge",
        within: PURE,
        except: &[],
        tests: false,
        forbids: Forbidden::Names(&[
            "aya",
            "aya_log",
            "axum",
            "hyper",
            "hyper_util",
            "libc",
            "nix",
            "notify",
            "rtnetlink",
            "rustls",
            "socket2",
            "tempfile",
            "tokio",
            "tokio_rustls",
            "std::fs",
            "std::os",
            "std::process",
            "std::thread",
            "std::net::TcpListener",
            "std::net::TcpStream",
            "std::net::UdpSocket",
            "Instant::now",
            "SystemTime",
        ]),
    },
    Rule {
        name: "arrow-model",
        why: "the model knows nothing of its users: controller, daemon and edges depend on it",
        within: &["lb-user/src/model"],
        except: &[],
        tests: true,
        forbids: Forbidden::Names(&[
            "crate::api",
            "crate::cli",
            "crate::config",
            "crate::controller",
            "crate::daemon",
            "crate::edge",
        ]),
    },
    Rule {
        name: "arrow-api",
        why: "the api is plain data for both ends of the socket",
        within: &["lb-user/src/api"],
        except: &[],
        tests: true,
        forbids: Forbidden::Names(&[
            "crate::cli",
            "crate::config",
            "crate::controller",
            "crate::daemon",
            "crate::edge",
        ]),
    },
    Rule {
        name: "arrow-config",
        why: "config turns text into the model and nothing else",
        within: &["lb-user/src/config"],
        except: &[],
        tests: true,
        forbids: Forbidden::Names(&["crate::cli", "crate::controller", "crate::daemon", "crate::edge"]),
    },
    Rule {
        name: "arrow-controller",
        why: "the controller answers events with actions; the daemon carries them to the edges",
        within: &["lb-user/src/controller"],
        except: &[],
        tests: true,
        forbids: Forbidden::Names(&["crate::cli", "crate::daemon", "crate::edge"]),
    },
    Rule {
        name: "arrow-edge",
        why: "an edge emits events and takes actions; only the daemon wires it to the controller",
        within: &["lb-user/src/edge"],
        except: &[],
        tests: true,
        forbids: Forbidden::Names(&["crate::cli", "crate::controller", "crate::daemon"]),
    },
    Rule {
        name: "edges-apart",
        why: "edges never import each other: what two share belongs to the model, what they exchange to the daemon",
        within: &["lb-user/src/edge/"],
        except: &[],
        tests: false,
        forbids: Forbidden::OtherEdges,
    },
    Rule {
        name: "no-blocking",
        why: "a sleeping thread stops the runtime and with it every probe: use tokio::time",
        within: &["lb-user/src/"],
        // What it waits for there are packets in flight: milliseconds, and nothing may be done meanwhile.
        except: &["lb-user/src/edge/kernel.rs", "lb-user/src/edge/kernel/"],
        tests: false,
        forbids: Forbidden::Names(&["thread::sleep"]),
    },
    Rule {
        name: "arrow-common",
        why: "lb-common is what both sides share: it depends on neither, and on no library of the kernel's or the daemon's",
        within: &["lb-common/"],
        except: &[],
        tests: true,
        forbids: Forbidden::Names(&["aya", "aya_ebpf", "lb_ebpf", "lb_user", "libc", "nix", "tokio"]),
    },
    Rule {
        name: "arrow-ebpf",
        why: "the kernel's side shares with the daemon only what is in lb-common",
        within: &["lb-ebpf/"],
        except: &["lb-ebpf/build.rs"],
        tests: true,
        forbids: Forbidden::Names(&["aya", "lb_user", "std"]),
    },
    Rule {
        name: "arrow-xtask",
        why: "xtask must compile where lb does not yet",
        within: &["xtask/src/"],
        except: &[],
        tests: true,
        forbids: Forbidden::Names(&["lb_common", "lb_ebpf", "lb_tests", "lb_user"]),
    },
    Rule {
        name: "arrow-xtask",
        why: "xtask must compile where lb does not yet",
        within: &["xtask/Cargo.toml"],
        except: &[],
        tests: true,
        forbids: Forbidden::LineStarts(&["lb-"]),
    },
    Rule {
        name: "maps-in-one-file",
        why: "every map is declared in lb-ebpf/src/maps.rs",
        within: &[],
        // The bench's object has nothing in common with the balancer's.
        except: &["lb-ebpf/src/maps.rs", "lb-ebpf/src/bench.rs"],
        tests: true,
        forbids: Forbidden::Names(&["#[map", "#[btf_map"]),
    },
    Rule {
        name: "map-names-in-one-file",
        why: "a map's name is a constant of lb-common/src/abi.rs: use that",
        within: &[],
        // The macro that declares a map takes a literal; loading fails if it is no name of abi.rs.
        except: &["lb-common/src/abi.rs", "lb-ebpf/src/maps.rs"],
        tests: true,
        forbids: Forbidden::MapNames { declared_in: "lb-common/src/abi.rs", prefix: "lb_" },
    },
    Rule {
        name: "no-wildcard-verdict",
        why: "a new decision or reason must not fall into somebody else's verdict: name every variant",
        within: &["lb-ebpf/src/"],
        except: &[],
        tests: true,
        forbids: Forbidden::WildcardOver(&["Decision", "DropReason", "PassReason", "Reason"]),
    },
    Rule {
        name: "unsafe-in-few-files",
        why: "unsafe is for the few files listed in xtask/src/tidy/rules.rs: find a safe way, or argue for another file there",
        within: &[],
        except: UNSAFE,
        tests: true,
        forbids: Forbidden::Names(&["unsafe"]),
    },
    Rule {
        name: "heading",
        why: "a file begins with `//!`: what lives here, and what may not",
        within: &[],
        except: &["tests/data/", "tests/fixtures/"],
        tests: true,
        forbids: Forbidden::NoHeading,
    },
    Rule {
        name: "length",
        why: "nobody reads on after 600 lines: split it by what the parts are about",
        within: &[],
        except: &[],
        tests: true,
        forbids: Forbidden::MoreLinesThan(600),
    },
    Rule {
        name: "file-names",
        why: "such a name takes in anything: name the file after what lives in it",
        within: &[],
        except: &[],
        tests: true,
        forbids: Forbidden::FileNames(&[
            "common", "helper", "helpers", "manager", "managers", "misc", "types", "util", "utils",
        ]),
    },
    Rule {
        name: "no-machine",
        why: "a path below somebody's home means nothing to another reader",
        within: &[],
        except: &["Cargo.lock", RULES_THEMSELVES],
        tests: true,
        forbids: Forbidden::Texts(&["/home/", "/root/"]),
    },
];
