//! `lb stats`: what was forwarded where, and why the rest was not.

use super::{
    bits, packets,
    table::{Cell, Paint, Style, Table},
    units::{bytes, count},
};
use crate::api::{ReasonStats, Stats, Traffic};

pub(super) fn stats(view: &Stats, paint: Paint) -> String {
    let mut forwarded = Table::new(paint);
    forwarded.head(["FORWARDED", ">PACKETS", ">BYTES", ">RATE", ">"]);
    for service in &view.services {
        let name = Cell::new(&service.service).styled(Style::Strong);
        forwarded.row([name].into_iter().chain(traffic(&service.traffic)));
        for backend in &service.backends {
            let name = Cell::new(format!("  -> {}", backend.backend));
            forwarded.row([name].into_iter().chain(traffic(&backend.traffic)));
        }
    }
    if view.services.is_empty() {
        forwarded.line([Cell::new("no services")]);
    }

    let mut rest = Table::new(paint);
    rest.head(["NOT FORWARDED", "", ">PACKETS", ">BYTES", ">RATE", ">", "BECAUSE"]);
    let mut any = false;
    for reason in view.reasons.iter().filter(|reason| reason.traffic.packets > 0) {
        rest.row(
            [Cell::new(&reason.reason), verdict(reason)]
                .into_iter()
                .chain(traffic(&reason.traffic))
                .chain([Cell::new(&reason.text)]),
        );
        any = true;
    }
    if !any {
        rest.line([Cell::new("none")]);
    }
    format!("{}\n{}", forwarded.render(), rest.render())
}

fn verdict(reason: &ReasonStats) -> Cell {
    let cell = Cell::new(&reason.verdict);
    if reason.verdict == "drop" { cell.styled(Style::Bad) } else { cell }
}

fn traffic(traffic: &Traffic) -> [Cell; 4] {
    [
        Cell::new(count(traffic.packets)).right(),
        Cell::new(bytes(traffic.bytes)).right(),
        packets(traffic),
        bits(traffic),
    ]
}
