//! What a monitoring system reads: Prometheus' text format, version 0.0.4, and whether the balancer is ready.
//!
//! Names keep to its conventions: a prefix, base units, `_total` for what only grows. Labels are names of the configuration,
//! reasons and states: their number is bounded by the configuration.

use serde::Serialize;

use super::{BackendView, FlowsView, HealthView, ReasonStats, State, Stats, Status, Traffic};
use crate::model::service::XdpMode;

/// The balancer at one moment, for [`Metrics::render`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// As a whole.
    pub status: Status,
    /// Health of every backend.
    pub health: Vec<HealthView>,
    /// Counters.
    pub stats: Stats,
    /// What is remembered of flows, as it was last looked at.
    pub flows: Vec<FlowsView>,
    /// The pools: name and slots.
    pub pools: Vec<(String, u32)>,
}

/// The media type of the text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is wrong with a balancer that cannot do its work, a sentence each; empty if it is ready for packets.
pub fn unready(status: &Status) -> Vec<String> {
    let mut why = Vec::new();
    if status.interfaces.is_empty() {
        why.push("it is attached to no interface".to_owned());
    }
    if status.config.generation == 0 {
        why.push("no configuration is in force yet".to_owned());
    }
    why.extend(status.warnings.iter().cloned());
    why
}

/// The kinds of a metric that are used here.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// The text as far as it is written.
struct Text(String);

impl Text {
    /// One metric: its name, kind, one sentence, and its samples.
    fn metric<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.line(format_args!("# HELP {name} {}\n# TYPE {name} {kind}", escaped(help, false)));
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value, true))).collect();
            let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            self.line(format_args!("{name}{braces} {value}"));
        }
    }

    /// Packets and bytes.
    fn traffic<'a>(&mut self, name: &str, help: &str, samples: &[(Vec<(&'a str, &'a str)>, Traffic)]) {
        let of = |pick: fn(&Traffic) -> u64| {
            samples.iter().map(move |(labels, traffic)| (labels.clone(), pick(traffic) as f64))
        };
        self.metric(
            &format!("{name}_packets_total"),
            Kind::Counter,
            &format!("Packets {help}."),
            of(|traffic| traffic.packets),
        );
        self.metric(
            &format!("{name}_bytes_total"),
            Kind::Counter,
            &format!("Bytes of the packets {help}: IP packets as clients sent them."),
            of(|traffic| traffic.bytes),
        );
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.push_str(&line.to_string());
        self.0.push('\n');
    }
}

/// As the format wants texts: in labels quotes, too.
fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

const fn truth(fact: bool) -> f64 {
    if fact { 1.0 } else { 0.0 }
}

impl Metrics {
    /// All metrics in the text format.
    pub fn render(&self) -> String {
        let mut text = Text(String::new());
        self.daemon(&mut text);
        self.services(&mut text);
        self.backends(&mut text);
        self.pools(&mut text);
        text.0
    }

    fn daemon(&self, text: &mut Text) {
        use Kind::{Counter, Gauge};
        let Status { version, uptime_seconds, config, interfaces, .. } = &self.status;
        text.metric(
            "lb_build_info",
            Gauge,
            "The daemon's version; always 1.",
            [(vec![("version", version.as_str())], 1.0)],
        );
        let plain = |value: f64| [(Vec::new(), value)];
        text.metric(
            "lb_uptime_seconds",
            Gauge,
            "Time since the daemon started.",
            plain(*uptime_seconds as f64),
        );
        text.metric(
            "lb_ready",
            Gauge,
            "Whether packets are forwarded as the configuration says, as /readyz tells.",
            plain(truth(unready(&self.status).is_empty())),
        );
        text.metric(
            "lb_config_generation",
            Gauge,
            "Configurations that took effect since the daemon started.",
            plain(config.generation as f64),
        );
        text.metric(
            "lb_config_file_accepted",
            Gauge,
            "Whether the file as it stands is in force.",
            plain(truth(config.errors.is_empty())),
        );
        text.metric(
            "lb_interface_attached",
            Gauge,
            "Interfaces the program is attached to, and how; always 1.",
            interfaces.iter().map(|interface| {
                let mode = match interface.mode {
                    XdpMode::Auto => "auto",
                    XdpMode::Native => "native",
                    XdpMode::Generic => "generic",
                };
                (vec![("interface", interface.name.as_str()), ("mode", mode)], 1.0)
            }),
        );
        let reasons = self.stats.reasons.iter().map(|reason| (reason_labels(reason), reason.traffic));
        text.metric(
            "lb_reason_packets_total",
            Counter,
            "Packets that were not sent to a backend, and what was noticed of others, by reason.",
            reasons.map(|(labels, traffic)| (labels, traffic.packets as f64)),
        );
    }

    fn services(&self, text: &mut Text) {
        let services = &self.status.services;
        text.metric(
            "lb_service_up",
            Kind::Gauge,
            "Whether any backend takes flows of the service.",
            services.iter().map(|service| {
                (
                    vec![("service", service.name.as_str()), ("vip", service.vip.as_str())],
                    truth(service.state == State::Up),
                )
            }),
        );
        let stats = &self.stats.services;
        let all: Vec<_> =
            stats.iter().map(|stats| (vec![("service", stats.service.as_str())], stats.traffic)).collect();
        text.traffic("lb_service_forwarded", "of a service that were sent to a backend", &all);
        let each: Vec<_> = stats
            .iter()
            .flat_map(|stats| {
                stats.backends.iter().map(|backend| {
                    let labels =
                        vec![("service", stats.service.as_str()), ("backend", backend.backend.as_str())];
                    (labels, backend.traffic)
                })
            })
            .collect();
        text.traffic("lb_backend_forwarded", "of a service that were sent to one backend", &each);
        text.metric(
            "lb_service_reason_packets_total",
            Kind::Counter,
            "Packets of a service that were not sent to a backend, by reason; only those that happened.",
            stats.iter().flat_map(|stats| {
                stats.reasons.iter().map(|reason| {
                    let mut labels = vec![("service", stats.service.as_str())];
                    labels.extend(reason_labels(reason));
                    (labels, reason.traffic.packets as f64)
                })
            }),
        );
    }

    fn backends(&self, text: &mut Text) {
        use Kind::Gauge;
        fn labels(view: &HealthView) -> Vec<(&str, &str)> {
            vec![("pool", view.pool.as_str()), ("backend", view.backend.as_str())]
        }
        let health = &self.health;
        text.metric(
            "lb_backend_state",
            Gauge,
            "The state of a backend: 1 for the one it is in, 0 for the others.",
            health.iter().flat_map(|view| {
                [("up", State::Up), ("down", State::Down), ("drain", State::Drain), ("maint", State::Maint)]
                    .map(|(word, state)| {
                        let mut labels = labels(view);
                        labels.push(("state", word));
                        (labels, truth(view.state == state))
                    })
            }),
        );
        text.metric(
            "lb_backend_state_seconds",
            Gauge,
            "Time since a backend's state last changed.",
            health.iter().map(|view| (labels(view), view.since_seconds as f64)),
        );
        text.metric(
            "lb_check_duration_seconds",
            Gauge,
            "How long the last probe of a backend took.",
            health.iter().filter_map(|view| Some((labels(view), view.last_ms? / 1000.0))),
        );
        // Backends of a pool of many services are the same in each.
        let mut seen = std::collections::BTreeSet::new();
        let views: Vec<(&str, &BackendView)> = self
            .status
            .services
            .iter()
            .flat_map(|service| service.backends.iter().map(|backend| (service.pool.as_str(), backend)))
            .filter(|(pool, backend)| seen.insert((*pool, backend.name.as_str())))
            .collect();
        let of = |pick: fn(&BackendView) -> u32| {
            views.iter().map(move |(pool, view)| {
                (vec![("pool", *pool), ("backend", view.name.as_str())], f64::from(pick(view)))
            })
        };
        text.metric(
            "lb_backend_weight",
            Gauge,
            "The weight of a backend as configured.",
            of(|view| u32::from(view.weight)),
        );
        text.metric(
            "lb_backend_slots",
            Gauge,
            "Slots of its pool's table that a backend owns.",
            of(|view| view.slots),
        );
    }

    fn pools(&self, text: &mut Text) {
        use Kind::Gauge;
        text.metric(
            "lb_pool_slots",
            Gauge,
            "Slots of a pool's table.",
            self.pools.iter().map(|(name, slots)| (vec![("pool", name.as_str())], f64::from(*slots))),
        );
        let of = |pick: fn(&FlowsView) -> u32| {
            self.flows.iter().map(move |flows| (vec![("pool", flows.pool.as_str())], f64::from(pick(flows))))
        };
        text.metric(
            "lb_pool_slots_in_transition",
            Gauge,
            "Slots whose flows may be on the owner before, as last looked at.",
            of(|flows| flows.slots_in_transition),
        );
        text.metric(
            "lb_pool_remembered_flows",
            Gauge,
            "Flows of a pool that are remembered, as last looked at.",
            of(|flows| flows.remembered),
        );
    }
}

fn reason_labels(reason: &ReasonStats) -> Vec<(&str, &str)> {
    vec![("verdict", reason.verdict.as_str()), ("reason", reason.reason.as_str())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        let mut text = Text(String::new());
        text.metric("a_total", Kind::Counter, "back\\slash\nline \"q\"", [(vec![("l", "\\ \n \"")], 1.5)]);
        assert_eq!(
            text.0,
            "# HELP a_total back\\\\slash\\nline \"q\"\n# TYPE a_total counter\na_total{l=\"\\\\ \\n \\\"\"} 1.5\n"
        );
    }

    #[test]
    fn a_metric_without_samples_is_not_there() {
        let mut text = Text(String::new());
        text.metric("a", Kind::Gauge, "A.", []);
        assert_eq!(text.0, "");
    }
}
