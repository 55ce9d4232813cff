//! `lb flows`: what is remembered of flows, and until when.

use super::{
    table::{Cell, Paint, Style, Table},
    units::{count, duration},
};
use crate::api::FlowsView;

pub(super) fn flows(views: &[FlowsView], paint: Paint) -> String {
    let mut table = Table::new(paint);
    if views.is_empty() {
        table.line([Cell::new("no pools")]);
        return table.render();
    }
    table.head(["POOL", ">SLOTS IN TRANSITION", ">FLOWS REMEMBERED", ">ENDS IN"]);
    for view in views {
        table.row([
            Cell::new(&view.pool).styled(Style::Strong),
            Cell::new(count(u64::from(view.slots_in_transition))).right(),
            Cell::new(count(u64::from(view.remembered))).right(),
            Cell::new(view.ends_in_seconds.map(duration).unwrap_or_default()).right(),
        ]);
        for backend in &view.backends {
            let leaving = if backend.is_leaving { " (leaving)" } else { "" };
            table.row([
                Cell::new(format!("  -> {}{leaving}", backend.backend)),
                Cell::new(count(u64::from(backend.slots))).right(),
                Cell::new(count(u64::from(backend.remembered))).right(),
            ]);
        }
    }
    table.render()
}

/// What a pool says of it in one line, if there is anything to say.
pub(super) fn transition(view: &FlowsView) -> Option<String> {
    let remembered = format!("{} flows remembered", count(u64::from(view.remembered)));
    match view.ends_in_seconds.map(duration) {
        Some(ends) => {
            let slots = count(u64::from(view.slots_in_transition));
            Some(format!("{slots} slots in transition, {remembered}, ends in {ends}"))
        }
        None => (view.remembered > 0).then_some(remembered),
    }
}
