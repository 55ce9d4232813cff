//! The conversation with the kernel over rtnetlink: one connection that listens, one that asks.

use std::{io, net::IpAddr, time::Duration};

use futures_util::{StreamExt, stream::BoxStream};
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::LinkMessage,
        neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage},
        route::{RouteAttribute, RouteMessage},
    },
    sys::AsyncSocket,
};
use tokio::task::JoinSet;

use super::interpret::{self, Heard, Neighbour, Route};
use crate::model::next_hop::Link;

/// The kernel answers within microseconds. An answer this late was lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the listening socket asks for; the kernel may grant less.
const RECEIVE_BUFFER: u32 = 4 << 20;

/// Why a conversation with the kernel ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The kernel said no.
    #[error("cannot {what}: {error}")]
    Refused {
        /// What was attempted.
        what: &'static str,
        /// The kernel's reason.
        error: io::Error,
    },
    /// An answer was lost.
    #[error("cannot {what}: no answer from the kernel")]
    Silent {
        /// What was attempted.
        what: &'static str,
    },
    /// The socket failed.
    #[error("the netlink connection ended")]
    Closed,
}

/// What the kernel says unasked.
#[derive(Debug)]
pub(super) enum Notice {
    /// An interface is there, in this state.
    Link(Link),
    /// An interface is gone.
    LinkGone(u32),
    /// A neighbour's entry changed; `None`: it is gone.
    Neighbour(Neighbour, Option<Heard>),
    /// Routes to this range of addresses may have changed; `None`: any.
    Routes(Option<(IpAddr, IpAddr)>),
    /// Notifications were lost: what is known may be wrong.
    Lost,
}

impl Notice {
    fn read(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Self> {
        use RouteNetlinkMessage as M;
        let message = match message.payload {
            NetlinkPayload::InnerMessage(message) => message,
            NetlinkPayload::Overrun(_) => return Some(Self::Lost),
            _ => return None,
        };
        match message {
            // The bridge speaks of its ports in messages of its own family.
            M::NewLink(link) | M::DelLink(link) if link.header.interface_family != AddressFamily::Unspec => {
                None
            }
            M::NewLink(link) => Some(Self::Link(interpret::link(&link))),
            M::DelLink(link) => Some(Self::LinkGone(link.header.index)),
            M::NewNeighbour(entry) => {
                interpret::neighbour(&entry).map(|(who, heard)| Self::Neighbour(who, Some(heard)))
            }
            M::DelNeighbour(entry) => interpret::neighbour(&entry).map(|(who, _)| Self::Neighbour(who, None)),
            // A default route has no destination and so concerns any.
            M::NewRoute(route) | M::DelRoute(route) => Some(Self::Routes(interpret::prefix(&route))),
            M::NewAddress(_) | M::DelAddress(_) | M::NewRule(_) | M::DelRule(_) => Some(Self::Routes(None)),
            _ => None,
        }
    }
}

/// A pair of connections, closed when dropped.
pub(super) struct Kernel {
    handle: Handle,
    notices: BoxStream<'static, Notice>,
    _connections: JoinSet<()>,
}

impl Kernel {
    /// Connects to the kernel of the calling thread's network namespace, and listens from then on.
    pub(super) fn connect() -> io::Result<Self> {
        let (mut listening, _, heard) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
        ])?;
        listening.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER)?;
        let (asking, handle, _) = rtnetlink::new_connection()?;
        let mut connections = JoinSet::new();
        connections.spawn(listening);
        connections.spawn(asking);
        let notices = heard.filter_map(|(message, _)| std::future::ready(Notice::read(message))).boxed();
        Ok(Self { handle, notices, _connections: connections })
    }

    /// The next notification.
    ///
    /// # Errors
    /// [`Error::Closed`] if the socket failed.
    pub(super) async fn notice(&mut self) -> Result<Notice, Error> {
        self.notices.next().await.ok_or(Error::Closed)
    }

    /// All interfaces.
    pub(super) async fn links(&mut self) -> Result<Vec<Link>, Error> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.dump("list the interfaces", request).await?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(interpret::link(link)),
                _ => None,
            })
            .collect())
    }

    /// The whole neighbour table.
    pub(super) async fn neighbours(&mut self) -> Result<Vec<(Neighbour, Heard)>, Error> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answers = self.dump("list the neighbours", request).await?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(entry) => interpret::neighbour(entry),
                _ => None,
            })
            .collect())
    }

    /// The route to an address, as `ip route get` finds it.
    pub(super) async fn route(&mut self, target: IpAddr) -> Result<Route, Error> {
        let what = "look up a route";
        let mut message = RouteMessage::default();
        message.header.address_family = family(target);
        message.header.destination_prefix_length = if target.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(target.into()));
        match self.ask(what, RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST).await {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => Ok(Route::read(target, &route)),
            Ok(_) => Err(Error::Silent { what }),
            Err(Error::Refused { what, error }) => {
                Route::read_error(&error).ok_or(Error::Refused { what, error })
            }
            Err(error) => Err(error),
        }
    }

    /// The kernel's entry for a neighbour, if it has one.
    pub(super) async fn neighbour(&mut self, neighbour: Neighbour) -> Result<Option<Heard>, Error> {
        let request = RouteNetlinkMessage::GetNeighbour(entry(neighbour));
        match self.ask("read a neighbour", request, NLM_F_REQUEST).await {
            Ok(Some(RouteNetlinkMessage::NewNeighbour(entry))) => {
                Ok(interpret::neighbour(&entry).map(|(_, heard)| heard))
            }
            // No entry; or no such interface any more.
            Ok(_) | Err(Error::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Uses a neighbour as a packet to it would: the kernel resolves or verifies it.
    pub(super) async fn use_neighbour(&mut self, neighbour: Neighbour) -> Result<(), Error> {
        let mut message = entry(neighbour);
        message.header.flags = NeighbourFlags::Use;
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.ask("resolve a neighbour", RouteNetlinkMessage::NewNeighbour(message), flags).await?;
        Ok(())
    }

    /// Sends a request and gives its one answer; none to a mere acknowledgement.
    async fn ask(
        &mut self,
        what: &'static str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        Ok(self.answers(what, request, flags).await?.pop())
    }

    async fn dump(
        &mut self,
        what: &'static str,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.answers(what, request, NLM_F_REQUEST | NLM_F_DUMP).await
    }

    async fn answers(
        &mut self,
        what: &'static str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = flags;
        let mut stream = self.handle.request(message).map_err(|_| Error::Closed)?;
        let mut answers = Vec::new();
        loop {
            // A datagram that cannot be decoded is dropped below us, and its stream never ends.
            let next = tokio::time::timeout(PATIENCE, stream.next()).await;
            match next.map_err(|_| Error::Silent { what })?.map(|message| message.payload) {
                Some(NetlinkPayload::InnerMessage(answer)) => answers.push(answer),
                Some(NetlinkPayload::Error(error)) => {
                    return Err(Error::Refused { what, error: error.to_io() });
                }
                Some(_) => {}
                None => return Ok(answers),
            }
        }
    }
}

fn entry(neighbour: Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(neighbour.address);
    message.header.ifindex = neighbour.interface;
    message.attributes.push(NeighbourAttribute::Destination(neighbour.address.into()));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
