//! What a service asks of the packet path beyond its ports, in one line.

use crate::api::{AllowanceView, LimitView, PolicyView, QuicView};

/// What differs from what holds anyway; `None` if nothing does.
pub(super) fn line(policy: &PolicyView) -> Option<String> {
    let PolicyView { tracking_tcp, tracking_other, echo, affinity, quic, acl, limit } = policy;
    let usual = PolicyView::default();
    let tracking = match (*tracking_tcp, *tracking_other) {
        both if both == (usual.tracking_tcp, usual.tracking_other) => None,
        (tcp, other) if tcp == other => Some(format!("tracking {tcp}")),
        (tcp, other) => Some(format!("tracking {tcp}, not TCP {other}")),
    };
    let words = [
        affinity.as_ref().map(|affinity| format!("affinity {affinity}")),
        quic.as_ref().map(quic_ids),
        acl.as_ref().map(|acl| format!("acl {acl}")),
        limit.as_ref().map(source_limit),
        tracking,
        (!echo).then(|| "no echo".to_owned()),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join("  "))
}

fn quic_ids(view: &QuicView) -> String {
    let QuicView { server_id_length, config_bits, config } = view;
    format!("quic server IDs of {server_id_length} octets, config {config} in {config_bits} bits")
}

fn source_limit(view: &LimitView) -> String {
    let LimitView { prefix, packets, connections } = view;
    let allowed = |what: &str, allowance: &Option<AllowanceView>| {
        let AllowanceView { rate, burst } = allowance.as_ref()?;
        Some(format!("{rate} {what} (burst {burst})"))
    };
    let parts = [allowed("packets", packets), allowed("connections", connections)];
    format!("from each /{prefix} {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::service::Tracking;

    #[test]
    fn only_what_is_unusual_is_said() {
        assert_eq!(line(&PolicyView::default()), None);
        let allowance = |rate: &str, burst| Some(AllowanceView { rate: rate.to_owned(), burst });
        let full = PolicyView {
            tracking_tcp: Tracking::Never,
            tracking_other: Tracking::Never,
            echo: false,
            affinity: Some("source/24".to_owned()),
            quic: Some(QuicView { server_id_length: 2, config_bits: 3, config: 1 }),
            acl: Some("office".to_owned()),
            limit: Some(LimitView {
                prefix: 32,
                packets: allowance("10000/s", 20_000),
                connections: allowance("30/m", 30),
            }),
        };
        let said = "affinity source/24  quic server IDs of 2 octets, config 1 in 3 bits  acl office  \
                    from each /32 10000/s packets (burst 20000), 30/m connections (burst 30)  tracking never  no echo";
        assert_eq!(line(&full).as_deref(), Some(said));
        let mixed = PolicyView { tracking_tcp: Tracking::Never, ..PolicyView::default() };
        assert_eq!(line(&mixed).as_deref(), Some("tracking never, not TCP always"));
    }
}
