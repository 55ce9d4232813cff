//! What a service asks of the packet path beyond its ports, as it is shown.

use serde::{Deserialize, Serialize};

use crate::model::service::Tracking;

/// What a service asks of the packet path beyond its ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PolicyView {
    /// When its TCP flows are remembered.
    pub tracking_tcp: Tracking,
    /// When its other flows are.
    pub tracking_other: Tracking,
    /// Whether echo requests to the VIP are answered, as far as this service is concerned.
    pub echo: bool,
    /// `source/24`: what of a client's address chooses the backend; absent where the whole flow does.
    pub affinity: Option<String>,
    /// How QUIC connection IDs name its backends.
    pub quic: Option<QuicView>,
    /// Its access list.
    pub acl: Option<String>,
    /// How much may come from one source.
    pub limit: Option<LimitView>,
}

/// What holds where the file says nothing.
impl Default for PolicyView {
    fn default() -> Self {
        Self {
            tracking_tcp: Tracking::Transition,
            tracking_other: Tracking::Always,
            echo: true,
            affinity: None,
            quic: None,
            acl: None,
            limit: None,
        }
    }
}

/// How QUIC connection IDs name backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct QuicView {
    /// Octets of a server ID.
    pub server_id_length: u8,
    /// Bits of the first octet that tell the configuration.
    pub config_bits: u8,
    /// What they are.
    pub config: u8,
}

/// How much may come from one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LimitView {
    /// Bits of the client's address that share the limit.
    pub prefix: u8,
    /// Packets.
    pub packets: Option<AllowanceView>,
    /// TCP connections it opens.
    pub connections: Option<AllowanceView>,
}

/// How often, and how much of that at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AllowanceView {
    /// `10000/s`, `30/m`.
    pub rate: String,
    /// So many at once.
    pub burst: u32,
}
