//! `lb events`: a line for each.

use super::table::{Cell, Paint, Style, Table, printable};
use crate::api::{EventView, Happening, PacketView, State};

/// One event with the end of its line.
pub(in crate::cli) fn line(event: &EventView, paint: Paint) -> String {
    let (what, style) = match &event.what {
        Happening::Packet(packet) => {
            (self::packet(packet), if packet.verdict == "drop" { Style::Bad } else { Style::Normal })
        }
        Happening::State(view) => (
            format!("state    {view} (was {})", view.was),
            if view.state == State::Up { Style::Good } else { Style::Bad },
        ),
        Happening::Log(log) => (
            format!("{:<8} {}", log.level, log.text),
            if log.level == "info" { Style::Normal } else { Style::Bad },
        ),
    };
    // A configuration's errors are many lines; here each event is one.
    let what = printable(&what.replace('\n', " | "));
    let mut table = Table::new(paint);
    table.line([Cell::new(&event.time), Cell::new(what).styled(style)]);
    table.render()
}

fn packet(packet: &PacketView) -> String {
    let PacketView { verdict, reason, protocol, client, vip, service, backend, interface, bytes } = packet;
    let mut text = format!("{verdict:<8} {protocol} {client} > {vip}, {bytes} bytes by {interface}");
    for (what, name) in [("service", service), ("backend", backend), ("reason", reason)] {
        if let Some(name) = name {
            text.push_str(&format!(", {what} {name}"));
        }
    }
    text
}
