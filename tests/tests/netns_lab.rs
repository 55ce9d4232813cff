//! The laboratory itself, without a balancer: what the other namespace tests stand on.

use std::time::Duration;

use anyhow::ensure;
use lb_tests::lab::{
    Lab, Stream,
    addresses::{VIP4, VIP6},
    client::{self, Ask, Held},
    counters::Counters,
    namespace, root, stream, wait,
};

#[test]
fn servers_answer_through_the_router_and_every_byte_is_checked() {
    root::required(|| {
        let mut lab = Lab::builder().balancer(false).build()?;
        for vip in [VIP4, VIP6] {
            for how in [Ask::Http, Ask::Tcp, Ask::Udp] {
                let tally = lab.ask(how, vip, 50)?;
                ensure!(tally.of("b1") == 50 && tally.failed() == 0, "{how:?} to {vip}: {tally}");
            }
            ensure!(client::echo_bytes(&lab.client, vip, 10 << 20)? == "b1");
            ensure!(client::echo_datagram(&lab.client, vip, 1400)? == "b1");
            let before = Counters::read(&lab.client, "eth0")?;
            let length = client::download(&lab.client, vip)?;
            let moved = Counters::read(&lab.client, "eth0")? - before;
            ensure!(moved.rx_bytes > length as u64, "{length} bytes downloaded, but {moved:?}");
        }
        // Everyone reaches everyone, in both families.
        for backend in &lab.backends {
            for address in [backend.address4, backend.address6] {
                let name = lab.balancer.enter(|| Ask::Tcp.once(address))??;
                ensure!(name == backend.name, "{address} is {name}");
            }
        }
        // A crash shows at once, and a held connection breaks.
        let mut held = Held::open(&lab.client, VIP4)?;
        held.ping()?;
        let stream = Stream::start(&lab.client, Ask::Http, VIP4, 2, Duration::from_millis(2))?;
        wait::rest(Duration::from_millis(200))?;
        lab.backend("b1").crash()?;
        ensure!(held.ping().is_err(), "the connection outlived its server");
        wait::rest(Duration::from_millis(200))?;
        let tally = stream::tally(&stream.stop()?);
        ensure!(tally.of("b1") > 0 && tally.failed() > 0, "{tally}");
        lab.backend("b1").start()?;
        ensure!(lab.ask(Ask::Http, VIP6, 10)?.of("b1") == 10);
        Ok(())
    });
}

#[test]
fn nothing_is_left_of_a_lab_that_panicked() {
    root::required(|| {
        let lab = Lab::builder().l2_backends(1).tunnel_backends(0).balancer(false).build()?;
        let (prefix, directory) = (lab.prefix.clone(), lab.directory().to_owned());
        ensure!(namespace::names(&format!("{prefix}-"))?.len() == 4);
        let panic = std::thread::spawn(move || {
            let _lab = lab;
            panic!("on purpose");
        })
        .join();
        ensure!(panic.is_err());
        ensure!(namespace::names(&format!("{prefix}-"))?.is_empty(), "namespaces are left");
        ensure!(!directory.exists(), "{} is left", directory.display());
        Ok(())
    });
}
