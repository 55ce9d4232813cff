//! One daemon for each interface of a network namespace, whatever socket and pins each of them has: the kernel would refuse the
//! second one, too, but cannot say whom to ask.

use std::os::{
    linux::net::SocketAddrExt,
    unix::net::{SocketAddr, UnixListener as Bound, UnixStream as Connected},
};

use anyhow::{Context, bail};
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// Held for the daemon's life. It goes with the process, however that ends: a name in the abstract namespace (unix(7)), which
/// each network namespace has of its own.
#[derive(Debug)]
pub(super) struct Claim(JoinHandle<()>);

impl Claim {
    /// Claims an interface, by its name.
    ///
    /// # Errors
    /// Another daemon has it (its pid is named), or the system refuses a socket.
    pub(super) fn take(interface: &str) -> anyhow::Result<Self> {
        let address = SocketAddr::from_abstract_name(format!("lb/{interface}"))?;
        let bound = match Bound::bind_addr(&address) {
            Ok(bound) => bound,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                let holder = holder(&address).map_or_else(String::new, |pid| format!(" with pid {pid}"));
                bail!("another lb{holder} has {interface}: stop it first, or choose another interface")
            }
            Err(error) => return Err(error).with_context(|| format!("cannot claim {interface}")),
        };
        bound.set_nonblocking(true)?;
        let listener = UnixListener::from_std(bound)?;
        // Whoever comes learns who we are by coming.
        Ok(Self(tokio::spawn(async move { while listener.accept().await.is_ok() {} })))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn holder(address: &SocketAddr) -> Option<i32> {
    let stream = Connected::connect_addr(address).ok()?;
    stream.set_nonblocking(true).ok()?;
    // None from another pid namespace.
    UnixStream::from_std(stream).ok()?.peer_cred().ok()?.pid().filter(|&pid| pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interface_has_one_holder_who_is_named_and_is_free_once_that_is_gone() {
        let name = format!("test-{}", std::process::id());
        let claim = Claim::take(&name).expect("free");
        // However often it is asked for.
        for _ in 0..300 {
            let refused = Claim::take(&name).expect_err("held").to_string();
            assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
            tokio::task::yield_now().await;
        }
        Claim::take("test-other").expect("another one is free");
        drop(claim);
        tokio::task::yield_now().await;
        Claim::take(&name).expect("free again");
    }
}
