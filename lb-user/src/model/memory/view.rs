//! Tables in memory, read one element at a time.

use lb_common::{
    abi::{Backend, Bucket, Config, Features, IndexEntry, Limits, Port, Service, Slot},
    addr::Addr,
    tables::Tables,
};

use super::Memory;
use crate::model::trace::snapshot::View;

impl View for Memory {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn features(&self) -> Features {
        self.features
    }

    fn config(&self) -> Config {
        self.config
    }

    fn index_entry(&self, copy: u32, position: u32) -> Option<IndexEntry> {
        Tables::index_entry(self, copy, position).copied()
    }

    fn service(&self, number: u32) -> Option<Service> {
        Tables::service(self, number).copied()
    }

    fn slot(&self, place: u32) -> Option<Slot> {
        Tables::slot(self, place)
    }

    fn previous(&self, place: u32) -> Option<Slot> {
        Tables::previous(self, place)
    }

    fn backend(&self, index: u32) -> Option<Backend> {
        Tables::backend(self, index).copied()
    }

    fn flows(&self, bucket: u32) -> Option<Bucket> {
        self.flows.read(bucket)
    }

    fn limiters(&self, bucket: u32) -> Option<Bucket> {
        self.limiters.read(bucket)
    }

    fn prefix(&self, list: u32, address: Addr) -> Option<u32> {
        Tables::prefix(self, list, address)
    }

    fn port(&self, number: u16) -> Port {
        self.ports.get(usize::from(number)).copied().unwrap_or_default()
    }
}
