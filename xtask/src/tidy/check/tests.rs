//! Each rule shown to bite: a table of good and bad snippets. A rule without a bad one fails the test.

use super::*;

/// A rule, a file, what it accepts there and what it refuses, with the line.
const CASES: &[(&str, &str, &str, &str, usize)] = &[
    (
        "pure-middle",
        "lb-user/src/model/plan.rs",
        "//! Not tokio.\nuse std::net::IpAddr;",
        "//! x\nuse tokio::time;",
        2,
    ),
    (
        "pure-middle",
        "lb-user/src/controller.rs",
        "//! x\nuse std::time::Instant;",
        "//! x\n\nlet t = Instant::now();",
        3,
    ),
    (
        "pure-middle",
        "lb-user/src/config.rs",
        "//! x\nuse std::fmt;",
        "//! x\nuse std::{fmt, fs as files};",
        2,
    ),
    (
        "pure-middle",
        "lb-user/src/config/edit.rs",
        "//! x\nuse std::fmt;",
        "//! x\nfn f() { std::fs::read(p) }",
        2,
    ),
    (
        "pure-middle",
        "lb-user/src/api.rs",
        "//! x\nuse std::net;",
        "//! x\nuse std::net::{IpAddr, UdpSocket};",
        2,
    ),
    ("pure-middle", "lb-user/src/api.rs", "//! x\nfn nix_like() {}", "//! x\nuse nix;", 2),
    (
        "pure-middle",
        "lb-user/src/model/a.rs",
        "//! x\n#[cfg(test)]\nmod tests { use std::fs; }",
        "//! x\nuse std::time::SystemTime;",
        2,
    ),
    (
        "arrow-model",
        "lb-user/src/model/plan.rs",
        "//! x\nuse crate::model::ids;",
        "//! x\nuse crate::{edge::kernel};",
        2,
    ),
    (
        "arrow-model",
        "lb-user/src/model/plan.rs",
        "//! x\nuse super::ids;",
        "//! x\nuse super::super::api::View;",
        2,
    ),
    ("arrow-api", "lb-user/src/api.rs", "//! x\nuse crate::model::service;", "//! x\nuse crate::daemon;", 2),
    (
        "arrow-config",
        "lb-user/src/config.rs",
        "//! x\nuse crate::model;",
        "//! x\nuse crate::controller::Event;",
        2,
    ),
    (
        "arrow-controller",
        "lb-user/src/controller.rs",
        "//! x\nuse crate::model;",
        "//! x\nfn f(e: crate::edge::Error) {}",
        2,
    ),
    (
        "arrow-edge",
        "lb-user/src/edge/socket.rs",
        "//! x\nuse crate::api;",
        "//! x\nuse crate::controller::Event;",
        2,
    ),
    (
        "edges-apart",
        "lb-user/src/edge/socket.rs",
        "//! x\nuse crate::edge::{Error, socket::codec};",
        "//! x\nuse crate::edge::kernel;",
        2,
    ),
    (
        "edges-apart",
        "lb-user/src/edge/probe/http.rs",
        "//! x\nuse super::tcp;",
        "//! x\nuse super::super::socket;",
        2,
    ),
    (
        "edges-apart",
        "lb-user/src/edge/probe.rs",
        "//! x\nuse crate::model;",
        "//! x\nfn f() { crate::edge::kernel::pin() }",
        2,
    ),
    (
        "no-blocking",
        "lb-user/src/daemon.rs",
        "//! x\nuse tokio::time::sleep;",
        "//! x\nuse std::thread::sleep;",
        2,
    ),
    ("no-blocking", "lb-user/src/daemon.rs", "//! x\nsleep(t).await", "//! x\nthread::sleep(t)", 2),
    ("arrow-common", "lb-common/src/abi.rs", "//! x\nuse core::fmt;", "//! x\nuse aya_ebpf::maps;", 2),
    ("arrow-ebpf", "lb-ebpf/src/main.rs", "//! x\nuse lb_common::abi;", "//! x\nuse std::fmt;", 2),
    ("arrow-xtask", "xtask/src/main.rs", "//! x\nuse clap::Parser;", "//! x\nuse lb_common::abi::name;", 2),
    (
        "arrow-xtask",
        "xtask/Cargo.toml",
        "[dependencies]\nclap = \"4\"",
        "[dependencies]\nlb-common.workspace = true",
        2,
    ),
    ("maps-in-one-file", "lb-ebpf/src/main.rs", "//! `#[map]`\n", "//! x\n#[map(name = \"a\")]", 2),
    (
        "map-names-in-one-file",
        "lb-user/src/edge/kernel.rs",
        "//! lb_slots\nname::SLOTS",
        "//! x\n\"lb_slots\"",
        2,
    ),
    (
        "no-wildcard-verdict",
        "lb-ebpf/src/main.rs",
        "//! x\nmatch d { Decision::Pass(_) => match x { _ => 1 }, Decision::Drop(_) => 2 }",
        "//! x\nmatch d {\n    Decision::Pass(_) => { 1 }\n    _ => 2,\n}",
        4,
    ),
    (
        "no-wildcard-verdict",
        "lb-ebpf/src/report.rs",
        "//! x\nmatch byte { 1 => 2, _ => 3 }",
        "//! x\nmatch r { DropReason::A => 1, _ if f() => 2 }",
        2,
    ),
    (
        "unsafe-in-few-files",
        "lb-user/src/daemon.rs",
        "//! unsafe\n#![forbid(unsafe_code)]",
        "//! x\nunsafe { f() }",
        2,
    ),
    ("heading", "lb-user/src/daemon.rs", "//! What lives here.", "fn f() {}", 1),
    ("length", "tests/src/lib.rs", "//! x\n", LONG, 601),
    ("file-names", "lb-common/src/abi.rs", "//! x", "", 0),
    ("no-machine", "README.md", "work/ and root/", "a\nsee /root/notes", 2),
];

const LONG: &str = {
    const BYTES: [u8; 1203] = {
        let mut bytes = [b'\n'; 1203];
        let mut at = 0;
        while at < 1202 {
            bytes[at] = b'/';
            at += 2;
        }
        bytes
    };
    match str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => panic!(),
    }
};

fn rules_broken(path: &str, text: &str) -> Vec<(&'static str, usize)> {
    let abi = Source::new("lb-common/src/abi.rs", "//! x\nconst SLOTS: &str = \"lb_slots\";");
    let found = violations(&[abi, Source::new(path, text)]);
    found.into_iter().filter(|violation| violation.path == path).map(|v| (v.rule, v.line)).collect()
}

#[test]
fn each_rule_accepts_the_good_and_refuses_the_bad() {
    for &(rule, path, good, bad, line) in CASES {
        assert_eq!(rules_broken(path, good), [], "{path}: {good}");
        if line > 0 {
            assert!(
                rules_broken(path, bad).contains(&(rule, line)),
                "{path}: {bad}: {:?}",
                rules_broken(path, bad)
            );
        }
    }
}

#[test]
fn every_rule_has_a_case() {
    let shown: BTreeSet<_> = CASES.iter().map(|case| case.0).collect();
    let rules: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(shown, rules);
}

#[test]
fn a_test_module_in_a_file_of_its_own_is_test_code() {
    let clock = || Source::new("lb-user/src/model/plan/tests.rs", "//! x\nuse std::time::SystemTime;");
    let declared = |text| violations(&[clock(), Source::new("lb-user/src/model/plan.rs", text)]).len();
    assert_eq!(declared("//! x\n#[cfg(test)]\nmod tests;"), 0);
    assert_eq!(declared("//! x\nmod tests;"), 1);
}

#[test]
fn names_that_say_nothing_are_refused_wherever_they_stand() {
    for path in [
        "lb-user/src/utils.rs",
        "tests/tests/common/mod.rs",
        "lb-user/src/helpers/net.rs",
        "xtask/src/types.rs",
    ] {
        assert_eq!(rules_broken(path, "//! x"), [("file-names", 1)], "{path}");
    }
    for path in ["lb-common/src/lib.rs", "docs/utils.md"] {
        assert_eq!(rules_broken(path, "//! x"), [], "{path}");
    }
}

#[test]
fn every_name_of_a_rule_bites() {
    for rule in RULES {
        let path = rule.within.first().map_or("lb-user/src/daemon.rs".to_owned(), |start| match *start {
            start if start.ends_with(".rs") => start.to_owned(),
            start => format!("{}/x.rs", start.trim_end_matches('/')),
        });
        if let Forbidden::Names(names) = rule.forbids {
            for name in names {
                let bad = format!("//! x\n{name} x");
                assert!(rules_broken(&path, &bad).contains(&(rule.name, 2)), "{path}: {name}");
            }
        }
    }
}

#[test]
fn a_violation_is_a_line_that_editors_understand() {
    let found = violations(&[Source::new("lb-user/src/daemon.rs", "//! x\nunsafe {}")]);
    let text: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(text[0].starts_with("lb-user/src/daemon.rs:2: unsafe-in-few-files: `unsafe`: "), "{text:?}");
}
