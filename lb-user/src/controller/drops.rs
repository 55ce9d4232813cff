//! Drops that are so many that somebody should know: each reason is told of when it begins and when it is over.

use lb_common::abi::Reason;

use super::{Action, Controller, Counted, Level, Sum};

impl Controller {
    /// Compares what was dropped in the last second with what is tolerated.
    pub(super) fn watch_drops(&mut self, actions: &mut Vec<Action>) {
        let most = f64::from(self.desired.settings.drop_alarm);
        for reason in Reason::all().filter(|reason| matches!(reason, Reason::Drop(_))) {
            let counter = reason.counter();
            let rate = self.sums.of(&Sum::Reason(counter)).packets_per_second;
            // Over only at half of it: a rate that swings around the limit is one alarm.
            let is_over = most == 0.0 || rate <= most / 2.0;
            if is_over && self.alarms.remove(&counter) {
                let said = format!("drops for {} are over: {rate:.0} packets a second", reason.name());
                actions.push(Action::Log(Level::Info, said));
            } else if !is_over && rate > most && self.alarms.insert(counter) {
                let said = format!(
                    "{rate:.0} packets a second are dropped for {}{}: {}",
                    reason.name(),
                    self.most_hit(counter),
                    reason.text()
                );
                actions.push(Action::Log(Level::Warn, said));
            }
        }
    }

    /// The service that has the most of them.
    fn most_hit(&self, counter: u32) -> String {
        let rates = self.desired.services.iter().map(|service| {
            let owner = (service.name.clone(), Counted::Reason(counter));
            (self.traffic.of(&owner).packets_per_second, &service.name)
        });
        match rates.max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((rate, name)) if rate > 0.0 => format!(", {rate:.0} of service {name}"),
            _ => String::new(),
        }
    }
}
