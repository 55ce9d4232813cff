//! What a configuration would change, and those that were in force.

use super::table::{Cell, Paint, Style, Table, printable};
use crate::api::{ChangeKind, ChangeView, PastView, PlanView, PoolPlanView};

/// What a configuration would change.
pub(super) fn plan(view: &PlanView, paint: Paint) -> String {
    if view.is_empty() {
        return "nothing changes\n".to_owned();
    }
    let PlanView { generation, etag: _, settings, services, pools, acls, steps, writes } = view;
    let mut table = Table::new(paint);
    table.line([Cell::new(format!("against generation {generation}"))]);
    for words in settings {
        table.line([Cell::new("~").styled(Style::Warn), Cell::new(format!("[lb] {words}"))]);
    }
    acls.iter().for_each(|change| line(&mut table, "", "acl", change));
    for pool in pools {
        let PoolPlanView { name, change, what, backends, .. } = pool;
        let itself = ChangeView { name: name.clone(), change: *change, what: what.clone() };
        line(&mut table, "", "pool", &itself);
        backends.iter().for_each(|change| line(&mut table, "  ", "backend", change));
        table.line([Cell::new(format!("    {}", moves(pool)))]);
    }
    services.iter().for_each(|change| line(&mut table, "", "service", change));
    table.line([Cell::new(format!("{steps} steps now, {writes} entries of tables written"))]);
    table.render()
}

fn moves(pool: &PoolPlanView) -> String {
    let PoolPlanView { slots, slots_moved, percent_moved, remembered, remembered_on_leaving, .. } = pool;
    let slots = format!("{slots_moved} of {slots} slots move ({percent_moved:.1}%)");
    match (remembered, remembered_on_leaving) {
        (0, _) => slots,
        (_, 0) => format!("{slots}; {remembered} remembered flows stay"),
        _ => format!(
            "{slots}; {remembered} remembered flows stay, {remembered_on_leaving} of them on backends that leave"
        ),
    }
}

fn line(table: &mut Table, indent: &str, kind: &str, change: &ChangeView) {
    let ChangeView { name, change, what } = change;
    let (sign, style) = match change {
        ChangeKind::Added => ("+", Style::Good),
        ChangeKind::Removed => ("-", Style::Bad),
        ChangeKind::Changed => ("~", Style::Warn),
    };
    let what = what.iter().map(|words| printable(words)).collect::<Vec<_>>().join(", ");
    let colon = if what.is_empty() { "" } else { ": " };
    table.line([
        Cell::new(format!("{indent}{sign}")).styled(style),
        Cell::new(format!("{kind} {}{colon}{what}", printable(name))),
    ]);
}

/// Configurations that were in force.
pub(super) fn history(views: &[PastView], paint: Paint) -> String {
    if views.is_empty() {
        return "no configuration was in force yet\n".to_owned();
    }
    let mut table = Table::new(paint);
    table.head([">NUMBER", "SINCE", "HOW", ""]);
    for PastView { number, time, said, in_force, text: _ } in views {
        table.row([
            Cell::new(number).right(),
            Cell::new(time),
            Cell::new(printable(said)),
            Cell::new(if *in_force { "in force" } else { "" }).styled(Style::Good),
        ]);
    }
    table.render()
}
