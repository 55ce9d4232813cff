//! `lb stats`: what was forwarded where, and why the rest was not.

use super::{
    bits, packets,
    table::{Cell, Paint, Style, Table},
    units::{bytes, count},
};
use crate::api::{ReasonStats, Stats, Traffic};

pub(super) fn stats(view: &Stats, paint: Paint) -> String {
    let mut services = Table::new(paint);
    let refused = view.services.iter().any(|service| !service.reasons.is_empty());
    let because = if refused { "BECAUSE" } else { "" };
    services.head(["SERVICE", ">PACKETS", ">BYTES", ">RATE", ">", because]);
    for service in &view.services {
        let name = Cell::new(&service.service).styled(Style::Strong);
        services.row([name].into_iter().chain(traffic(&service.traffic)));
        for backend in &service.backends {
            let leaving = if backend.is_leaving { " (leaving)" } else { "" };
            let name = Cell::new(format!("  -> {}{leaving}", backend.backend));
            services.row([name].into_iter().chain(traffic(&backend.traffic)));
        }
        refusals(&mut services, &service.reasons);
    }
    if view.services.is_empty() {
        services.line([Cell::new("no services")]);
    }
    let (noted, rest): (Vec<_>, Vec<_>) = view
        .reasons
        .iter()
        .filter(|reason| reason.traffic.packets > 0)
        .partition(|reason| reason.verdict == "note");
    let mut text = format!("{}\n{}", services.render(), reasons("NOT FORWARDED", &rest, paint));
    if !noted.is_empty() {
        text.extend(["\n", &reasons("NOTED", &noted, paint)]);
    }
    text
}

fn reasons(title: &str, reasons: &[&ReasonStats], paint: Paint) -> String {
    let mut table = Table::new(paint);
    table.head([title, "", ">PACKETS", ">BYTES", ">RATE", ">", "BECAUSE"]);
    for reason in reasons {
        let verdict = Cell::new(&reason.verdict).styled(style(reason));
        table.row([Cell::new(&reason.reason), verdict].into_iter().chain(counted(reason)));
    }
    if reasons.is_empty() {
        table.line([Cell::new("none")]);
    }
    table.render()
}

/// What a service did not send to a backend, a row for each reason: name, traffic, and the reason's sentence.
pub(super) fn refusals(table: &mut Table, reasons: &[ReasonStats]) {
    for reason in reasons {
        let name = Cell::new(format!("  {} {}", reason.verdict, reason.reason)).styled(style(reason));
        table.row([name].into_iter().chain(counted(reason)));
    }
}

fn style(reason: &ReasonStats) -> Style {
    if reason.verdict == "drop" { Style::Bad } else { Style::Normal }
}

fn counted(reason: &ReasonStats) -> impl Iterator<Item = Cell> {
    traffic(&reason.traffic).into_iter().chain([Cell::new(&reason.text)])
}

fn traffic(traffic: &Traffic) -> [Cell; 4] {
    [
        Cell::new(count(traffic.packets)).right(),
        Cell::new(bytes(traffic.bytes)).right(),
        packets(traffic),
        bits(traffic),
    ]
}
