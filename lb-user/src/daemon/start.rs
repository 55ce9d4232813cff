//! What a daemon begins with: tables, new or found, and a controller over them.

use std::{
    process,
    time::{Instant, SystemTime},
};

use anyhow::Context as _;
use lb_common::abi::{Limits, Service};

use crate::{
    controller::{Controller, Identity, Tables},
    edge::kernel::{Found, Kernel, KernelError, LoadOptions},
    model::{keys::Keys, layout, service::Desired, source::Source},
};

/// The kernel edge and the controller, over new tables or those of an earlier daemon.
pub(super) struct Start {
    pub(super) kernel: Kernel,
    pub(super) controller: Controller,
    /// Whether an earlier daemon's tables are gone on with.
    pub(super) found: bool,
}

impl Start {
    /// Goes on with the tables of an earlier daemon if there are any and they are large enough; else makes new ones.
    pub(super) fn over(
        options: &LoadOptions,
        started: Instant,
        config_path: &str,
        (source, desired): (&Source, Desired),
    ) -> anyhow::Result<Self> {
        match Self::found(options, started, config_path, (source, desired)) {
            Ok(Some(start)) => return Ok(start),
            Ok(None) => {}
            Err(error) => match error.downcast_ref::<KernelError>() {
                Some(KernelError::Unusable(_)) | None => {
                    tracing::warn!(
                        "cannot go on with the tables of an earlier daemon: {error:#}; making new ones"
                    );
                }
                Some(_) => return Err(error),
            },
        }
        let mut kernel = Kernel::load(options)?;
        let identity = identity(&mut kernel, started, config_path)?;
        let controller = Controller::new(started.elapsed(), kernel.limits(), identity);
        Ok(Self { kernel, controller, found: false })
    }

    fn found(
        options: &LoadOptions,
        started: Instant,
        config_path: &str,
        (source, desired): (&Source, Desired),
    ) -> anyhow::Result<Option<Self>> {
        let Some(found) = Found::look(&options.pins)? else { return Ok(None) };
        let mut kernel = Kernel::load_over(options, &found)?;
        let identity = identity(&mut kernel, started, config_path)?;
        let tables = Tables { memory: kernel.read(), counters: kernel.counters(kernel.limits().counters) };
        let controller = Controller::found(started.elapsed(), tables, identity, desired)?;
        controller.accept(source, config_path).map_err(|errors| anyhow::Error::msg(errors.join("; ")))?;
        Ok(Some(Self { kernel, controller, found: true }))
    }
}

fn identity(kernel: &mut Kernel, started: Instant, config_path: &str) -> anyhow::Result<Identity> {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Identity {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: process::id(),
        config_path: config_path.to_owned(),
        epoch: since_epoch.saturating_sub(started.elapsed()),
        ticks_per_second: kernel.ticks_per_second().context("cannot find out the kernel's clock")?,
    })
}

/// Tables twice as large as the configuration needs now, and never smaller than the defaults: maps cannot grow.
pub(super) fn limits_for(desired: &Desired) -> Limits {
    let default = Limits::DEFAULT;
    let room = |needed: u64, least: u32| {
        let wanted = u32::try_from((2 * needed).next_power_of_two()).unwrap_or(1 << 31);
        wanted.max(least)
    };
    let keys = Keys::of(desired);
    let listed: u64 = desired.acls.iter().map(|acl| acl.table.entries.len() as u64).sum();
    let named =
        desired.pools.iter().flat_map(|pool| &pool.backends).filter(|backend| backend.server_id.is_some());
    let backends_of =
        |pool| desired.pool(pool).map_or(0, |pool| u64::from(layout::capacity_for(pool.backends.len())));
    let counters_of = |pool| backends_of(pool) + u64::from(Service::counters(0));
    Limits {
        index: room(3 * (keys.count() + named.count()) as u64, default.index),
        services: room(desired.services.len() as u64, default.services),
        slots: room(desired.pools.iter().map(|pool| u64::from(pool.slots)).sum(), default.slots),
        backends: room(desired.pools.iter().map(|pool| backends_of(&pool.name)).sum(), default.backends),
        counters: room(
            desired.services.iter().map(|service| counters_of(&service.pool)).sum(),
            default.counters,
        ),
        prefixes: room(2 * keys.prefixes.len() as u64 + listed, default.prefixes),
        ..default
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::source::Files;
    use crate::{
        config,
        controller::{Action, Applied, Event},
    };

    fn pools(count: u32, slots: u32, backends: u32) -> String {
        let backend = |n: u32| {
            format!("[[pool.backend]]\nname = \"b{n}\"\naddress = \"10.0.{}.{}\"\n", n >> 8, n & 255)
        };
        let backends: String = (1..=backends).map(backend).collect();
        (0..count).map(|n| format!("[[pool]]\nname = \"p{n}\"\nslots = {slots}\n{backends}")).collect()
    }

    fn services(count: u32, pools: u32, ports: &str) -> String {
        let service = |n: u32| {
            let (vip, pool) = (format!("192.0.{}.{}", n >> 8, n & 255), n % pools);
            format!(
                "[[service]]\nname = \"s{n}\"\nvip = \"{vip}\"\nports = [\"{ports}\"]\npool = \"p{pool}\"\n"
            )
        };
        (0..count).map(service).collect()
    }

    /// Everything may be exchanged at once: the old must stay until the new is there.
    #[test]
    fn tables_fit_the_configuration_twice() {
        assert_eq!(limits_for(&Desired::default()), Limits::DEFAULT);
        for text in [
            pools(100, 65_537, 0),
            pools(40, 11, 9) + &services(40, 40, "tcp/80"),
            pools(1, 4099, 1500) + &services(30, 1, "tcp/80"),
            pools(1, 11, 1) + &services(5000, 1, "udp/53"),
            pools(1, 11, 1) + &services(2, 1, "tcp/1-40000"),
        ] {
            let limits = limits_for(&config::parse(&text, &Files::new()).unwrap());
            let identity = Identity { pid: 1, ticks_per_second: 250, ..Identity::default() };
            let mut controller = Controller::new(Duration::ZERO, limits, identity);
            for text in [&text, &text.replace("= \"p", "= \"q").replace("name = \"s", "name = \"t")] {
                let actions =
                    controller.handle(Duration::ZERO, [Event::ConfigText(Source::of(text.clone()))]);
                assert_eq!(controller.config_errors(), [""; 0], "{limits:?}");
                for action in actions {
                    if let Action::Apply(changes) = action {
                        let applied = Applied { done: changes.len(), error: None };
                        controller.handle(Duration::ZERO, [Event::Applied(applied)]);
                    }
                }
            }
        }
    }
}
