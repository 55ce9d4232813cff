//! Interfaces that vanish and come back: a virtual machine's, a tunnel's, one whose driver is loaded anew.
//!
//! A link dies with its interface. What has the name later is another interface and needs a link of its own.

use nix::net::if_::{if_indextoname, if_nametoindex};

use super::{Kernel, KernelError, attach::Attached};
use crate::model::service::XdpMode;

/// What became of an interface that the balancer was attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is gone; nothing has its name.
    Gone,
    /// Another one has its name, and the balancer is attached there.
    Back {
        /// Its index.
        index: u32,
        /// How it is attached.
        mode: XdpMode,
    },
    /// Another one has its name, and the balancer cannot be attached there: why.
    Refused(String),
}

/// Whether there is an interface, by its index: one that was renamed is the same and keeps its link.
fn exists(index: u32) -> bool {
    // For one that does not exist nix 0.31 gives an empty name in place of an error.
    if_indextoname(index).is_ok_and(|name| !name.is_empty())
}

impl Kernel {
    /// Looks after the interfaces that the balancer is attached to, and attaches again where one came back. Tells only
    /// what changed since it was last asked.
    pub fn follow_interfaces(&mut self) -> Vec<(String, Fate)> {
        let mut changed = Vec::new();
        for at in 0..self.attached.len() {
            let Attached { interface, index, fate, .. } = &self.attached[at];
            if fate.is_none() && exists(*index) {
                continue;
            }
            let interface = interface.clone();
            let next = match if_nametoindex(interface.as_str()) {
                Err(_) => Fate::Gone,
                Ok(index) => match self.attach_again(at, &interface) {
                    Ok(mode) => Fate::Back { index, mode },
                    Err(error) => Fate::Refused(error.to_string()),
                },
            };
            let kept = &mut self.attached[at].fate;
            if kept.as_ref() == Some(&next) {
                continue;
            }
            *kept = if matches!(next, Fate::Back { .. }) { None } else { Some(next.clone()) };
            changed.push((interface, next));
        }
        changed
    }

    fn attach_again(&mut self, at: usize, interface: &str) -> Result<XdpMode, KernelError> {
        self.probes.remove(interface);
        self.attach_probe(interface)?;
        let (next, mode) = self.attach_one(interface, self.attached[at].wanted)?;
        self.attached[at] = next;
        Ok(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_no_interface_is_told_from_one_of_the_loopback() {
        assert!(exists(if_nametoindex("lo").unwrap()));
        assert!(!exists(0) && !exists(i32::MAX.cast_unsigned()));
    }
}
