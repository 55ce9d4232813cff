//! Services that move to another pool: the one before serves on until it is known who of the new one can.

use std::collections::BTreeMap;

use super::{
    Controller,
    standing::{Known, Server},
};
use crate::model::{
    probe::BackendId,
    service::{Backend, Desired, Name, Pool, Service},
};

impl Controller {
    /// The services that wait to move, and the pools that serve them meanwhile: as a rule, none.
    pub(super) fn waiting<'a>(&self, desired: &'a Desired) -> Vec<(&'a Service, &'a Name)> {
        let waits = |service: &'a Service| {
            let place = self.layout.service(&service.name).filter(|place| place.pool != service.pool)?;
            let (before, wanted) = (desired.pool(&place.pool)?, desired.pool(&service.pool)?);
            let waits = self.is_unknown(wanted) && self.up_of(before) > 0;
            waits.then_some((service, &before.name))
        };
        desired.services.iter().filter_map(waits).collect()
    }

    /// What is known of backends that are new in their pool, because another pool with the same check has the same server:
    /// a pool that gets another name goes on as it was.
    pub(super) fn twins(
        &self,
        before: &Desired,
        known: &BTreeMap<Server, Known>,
    ) -> BTreeMap<BackendId, Known> {
        let news = self.desired.backends();
        let news = news.filter(|(_, (pool, backend))| !known.contains_key(&Server::of(pool, backend)));
        let mut news = news.peekable();
        if news.peek().is_none() {
            return BTreeMap::new();
        }
        let mut places: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (server, known) in known {
            places.entry(server.place()).or_default().push((server, known));
        }
        let twin = |(id, (pool, backend)): (BackendId, (&Pool, &Backend))| {
            let same = places.get(&Server::of(pool, backend).place())?;
            let checked_alike =
                |server: &Server| before.pool(&server.pool).is_some_and(|other| other.check == pool.check);
            let (_, known) = same.iter().find(|(server, _)| checked_alike(server))?;
            Some((id, Known::clone(known)))
        };
        news.filter_map(twin).collect()
    }

    /// Whether nobody of a pool is up, and of somebody it has yet to show.
    fn is_unknown(&self, pool: &Pool) -> bool {
        self.up_of(pool) == 0 && pool.backends.iter().any(|backend| self.is_undecided(pool, backend))
    }

    /// Whether a service waits to move. It may have to go without a backend that comes up.
    pub(super) fn watch_moves(&mut self) {
        let waits = |service: &Service| {
            self.layout.service(&service.name).is_some_and(|place| place.pool != service.pool)
        };
        self.dirty |= self.desired.services.iter().any(waits);
    }

    /// What is said of services that wait to move.
    pub(super) fn moves(&self) -> Vec<String> {
        let said = |(Service { name, pool, .. }, serving): (&Service, &Name)| {
            format!("service {name}: pool {serving} serves until it is known who of pool {pool} is up")
        };
        self.waiting(&self.desired).into_iter().map(said).collect()
    }
}
