//! Answers as text for people: views in, text out, no I/O. The layout is ipvsadm's, the words are HAProxy's,
//! and a state never stands without its reason.

mod apply;
mod counters;
pub(super) mod events;
mod flows;
mod policy;
mod table;
mod trace;
mod units;

use crate::{
    api::{BackendView, HealthView, InterfaceView, PoolView, Response, ServiceView, State, Status, Traffic},
    model::service::XdpMode,
};
pub use table::Paint;
use table::{Cell, Style, Table, printable};
use units::{bits_per_second, duration, packets_per_second, percent};

/// Any answer, as its own command shows it.
pub fn response(response: &Response, paint: Paint) -> String {
    match response {
        Response::Status(view) => status(view, paint),
        Response::Services(views) => services(views, paint),
        Response::Service(view) => service(view, paint),
        Response::Pools(views) => pools(views, paint),
        Response::Pool(view) => pool_blocks(std::slice::from_ref(view), paint),
        Response::Health(views) => health(views, paint),
        Response::Stats(view) => counters::stats(view, paint),
        Response::Flows(views) => flows::flows(views, paint),
        Response::Trace(view) => trace::trace(view, paint),
        Response::Events(views) => views.iter().map(|view| events::line(view, paint)).collect(),
        Response::Config(config) => config.text.clone(),
        Response::Plan(view) => apply::plan(view, paint),
        Response::History(views) => apply::history(views, paint),
        // What follows is shown as it comes.
        Response::Metrics(metrics) => metrics.render(),
        Response::Streaming => String::new(),
        Response::Done(done) => format!("{} (generation {})\n", printable(&done.message), done.generation),
        Response::Refused(refusal) => {
            refusal.errors.iter().map(|error| format!("refused: {}\n", printable(error))).collect()
        }
    }
}

/// Pools as `lb backend list` shows them: all backends, also when all pools were asked for.
pub fn backends(response: &Response, paint: Paint) -> String {
    match response {
        Response::Pools(views) if views.is_empty() => "no pools\n".to_owned(),
        Response::Pools(views) => pool_blocks(views, paint),
        other => self::response(other, paint),
    }
}

fn status(view: &Status, paint: Paint) -> String {
    let Status { version, pid, uptime_seconds, config, interfaces, services, warnings } = view;
    let mut table = Table::new(paint);
    table.line([
        Cell::new(format!("lb {version}")).styled(Style::Strong),
        Cell::new(format!(" pid {pid}  up {}", duration(*uptime_seconds))),
    ]);
    if interfaces.is_empty() {
        table.line([Cell::new("attached nowhere: no packet is forwarded").styled(Style::Bad)]);
    }
    for interface in interfaces {
        let InterfaceView { name, index, mode } = interface;
        table.line([Cell::new(format!("interface {name} (index {index}) ")), mode_of(*mode)]);
    }
    table.line([Cell::new(format!("config {}  generation {}", config.path, config.generation))]);
    if !config.errors.is_empty() {
        let loud = format!(
            "CONFIG REFUSED: {} as it stands now is not in force, generation {} still is",
            config.path, config.generation
        );
        table.line([Cell::new(loud).styled(Style::Bad)]);
        for line in config.errors.iter().flat_map(|error| error.lines()) {
            table.line([Cell::new(format!("  {line}")).styled(Style::Bad)]);
        }
    }
    for line in warnings {
        table.line([Cell::new("WARNING:").styled(Style::Warn), Cell::new(line)]);
    }
    table.line([]);
    add_service_blocks(&mut table, services);
    table.render()
}

fn services(views: &[ServiceView], paint: Paint) -> String {
    if views.is_empty() {
        return format!("{NO_SERVICES}\n");
    }
    let mut table = Table::new(paint);
    table.head(["SERVICE", "VIP", "PORTS", "POOL", "STATE", "UP", ">PACKETS", ">BITS"]);
    for view in views {
        table.row([
            Cell::new(&view.name).styled(Style::Strong),
            Cell::new(&view.vip),
            Cell::new(ports(&view.ports)),
            Cell::new(&view.pool),
            state(view.state),
            Cell::new(up(&view.backends)),
            packets(&view.traffic),
            bits(&view.traffic),
        ]);
    }
    table.render()
}

const NO_SERVICES: &str = "no services; add a pool, backends, then a service: lb service add --help";

fn service(view: &ServiceView, paint: Paint) -> String {
    let mut table = Table::new(paint);
    add_service_blocks(&mut table, std::slice::from_ref(view));
    let mut refused = Table::new(paint);
    counters::refusals(&mut refused, &view.reasons);
    table.render() + &refused.render()
}

fn add_service_blocks(table: &mut Table, views: &[ServiceView]) {
    if views.is_empty() {
        table.line([Cell::new(NO_SERVICES)]);
    }
    for view in views {
        table.line([
            Cell::new(&view.name).styled(Style::Strong),
            Cell::new(&view.vip),
            Cell::new(ports(&view.ports)),
            Cell::new(""),
            state(view.state),
            Cell::new(up(&view.backends)),
            Cell::new(format!(" pool {}", view.pool)),
            Cell::new(format!(" {}", packets_per_second(view.traffic.packets_per_second))),
            Cell::new(format!(" {}", bits_per_second(view.traffic.bytes_per_second))),
        ]);
        if let Some(said) = policy::line(&view.policy) {
            table.line([Cell::new(format!("  {said}"))]);
        }
        for backend in &view.backends {
            table.row(standing(backend).into_iter().chain([
                share(backend),
                packets(&backend.traffic),
                bits(&backend.traffic),
                Cell::new(&backend.reason),
            ]));
        }
        if view.backends.is_empty() {
            no_backends(table, &view.pool);
        }
    }
}

fn pools(views: &[PoolView], paint: Paint) -> String {
    if views.is_empty() {
        return "no pools; add one: lb pool add --help\n".to_owned();
    }
    let mut table = Table::new(paint);
    table.head(["POOL", "UP", ">SLOTS", "SERVICES", "CHECK"]);
    for view in views {
        table.row([
            Cell::new(&view.name).styled(Style::Strong),
            Cell::new(up(&view.backends)),
            Cell::new(view.slots).right(),
            Cell::new(or_none(&view.services.join(","))),
            Cell::new(or_none(view.check.as_deref().unwrap_or_default())),
        ]);
    }
    table.render()
}

fn pool_blocks(views: &[PoolView], paint: Paint) -> String {
    let mut table = Table::new(paint);
    for view in views {
        table.line([
            Cell::new(&view.name).styled(Style::Strong),
            Cell::new(format!(
                " UP {}  {} slots  services {}  check {}",
                up(&view.backends),
                view.slots,
                or_none(&view.services.join(",")),
                or_none(view.check.as_deref().unwrap_or_default()),
            )),
        ]);
        if let Some(said) = flows::transition(&view.flows) {
            table.line([Cell::new(format!("  {said}"))]);
        }
        if let Some(shortage) = &view.shortage {
            table.line([Cell::new(format!("  {shortage}")).styled(Style::Warn)]);
        }
        for backend in &view.backends {
            table.row(standing(backend).into_iter().chain([
                share(backend),
                Cell::new(format!("{} slots", backend.slots)).right(),
                Cell::new(backend.mac.as_deref().unwrap_or("no MAC")),
                Cell::new(backend.interface.as_deref().unwrap_or_default()),
                Cell::new(backend.vlan.map(|vlan| format!("vlan {vlan}")).unwrap_or_default()),
                Cell::new(backend.server_id.as_deref().unwrap_or_default()),
                packets(&backend.traffic),
                bits(&backend.traffic),
                Cell::new(&backend.reason),
            ]));
        }
        if view.backends.is_empty() {
            no_backends(&mut table, &view.name);
        }
    }
    table.render()
}

fn health(views: &[HealthView], paint: Paint) -> String {
    if views.is_empty() {
        return "no backends\n".to_owned();
    }
    let mut table = Table::new(paint);
    table.head(["POOL", "BACKEND", "ADDRESS", "STATE", ">SINCE", ">STREAK", ">LAST", "REASON", "CHECK"]);
    for view in views {
        table.row([
            Cell::new(&view.pool),
            Cell::new(&view.backend).styled(Style::Strong),
            Cell::new(view.address),
            state(view.state),
            Cell::new(duration(view.since_seconds)).right(),
            Cell::new(view.streak).right(),
            Cell::new(view.last_ms.map(|ms| format!("{ms:.1} ms")).unwrap_or_default()).right(),
            Cell::new(&view.reason),
            Cell::new(view.check.as_deref().unwrap_or("no check")),
        ]);
    }
    table.render()
}

/// What stands first about a backend, wherever it is shown.
fn standing(view: &BackendView) -> [Cell; 6] {
    [
        Cell::new(format!("  -> {}", view.name)),
        Cell::new(view.address),
        Cell::new(view.via),
        state(view.state),
        Cell::new(duration(view.since_seconds)).right(),
        Cell::new(format!("w{}", view.weight)),
    ]
}

fn no_backends(table: &mut Table, pool: &str) {
    let text = format!("  -> none: lb backend add {pool} NAME ADDRESS");
    table.line([Cell::new(text).styled(Style::Warn)]);
}

fn state(state: State) -> Cell {
    Cell::new(state).styled(match state {
        State::Up => Style::Good,
        State::Down => Style::Bad,
        State::Drain | State::Maint => Style::Warn,
    })
}

fn mode_of(mode: XdpMode) -> Cell {
    match mode {
        XdpMode::Auto => Cell::new("auto"),
        XdpMode::Native => Cell::new("native"),
        // It works, but not at line rate.
        XdpMode::Generic => Cell::new("generic").styled(Style::Warn),
    }
}

fn share(view: &BackendView) -> Cell {
    Cell::new(percent(view.share_percent)).right()
}

fn packets(traffic: &Traffic) -> Cell {
    Cell::new(packets_per_second(traffic.packets_per_second)).right()
}

fn bits(traffic: &Traffic) -> Cell {
    Cell::new(bits_per_second(traffic.bytes_per_second)).right()
}

/// How many of all are up: `2/3`.
fn up(backends: &[BackendView]) -> String {
    let up = backends.iter().filter(|backend| backend.state == State::Up).count();
    format!("{up}/{}", backends.len())
}

/// `tcp/80`, `tcp/443` are `tcp/80,443`.
fn ports(ports: &[String]) -> String {
    let mut text = String::new();
    let mut last = None;
    for port in ports {
        let (protocol, numbers) = port.split_once('/').unwrap_or(("", port));
        let same = last == Some(protocol);
        text.push_str(if text.is_empty() { "" } else { "," });
        text.push_str(if same { numbers } else { port });
        last = Some(protocol);
    }
    text
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

#[cfg(test)]
mod tests;
