//! What the daemon may do once it is attached: no more than it needs (capabilities(7)).

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// What forwarding, checking and following the network take, as in `scripts/lb.service`.
const NEEDED: [Capability; 4] =
    [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];

/// Gives up every other capability, for this thread, those that it starts, and programs that they run: also what could
/// be got back by running a program as root (the bounding set).
///
/// # Errors
/// The system refuses.
pub fn give_up() -> Result<(), CapsError> {
    let needed: CapsHashSet = NEEDED.into_iter().collect();
    // What the bounding set has not is gone already; without CAP_SETPCAP it cannot be made smaller.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::all().difference(&needed) {
            if caps::has_cap(None, CapSet::Bounding, *capability).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, *capability)?;
            }
        }
    }
    let held = caps::read(None, CapSet::Permitted)?;
    let kept = held.intersection(&needed).copied().collect();
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}
