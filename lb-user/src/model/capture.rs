//! Which packets a capture wants: a small language, and what the program compares.

use std::fmt;

use lb_common::{
    abi::{CAPTURE_BYTES, CaptureFilter, Event, Reason},
    addr::Addr,
    wire::protocol,
};

use super::{prefix::Prefix, service::Name};

/// What a capture wants of a packet; what is not named does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The service it is for.
    pub service: Option<Name>,
    /// Where it comes from.
    pub client: Option<Prefix>,
    /// Where it goes to.
    pub vip: Option<Prefix>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// The port it goes to.
    pub port: Option<u16>,
    /// Whether it must have been dropped.
    pub dropped: bool,
    /// Why it was dropped or passed on.
    pub reason: Option<Reason>,
    /// Most bytes of a frame.
    pub bytes: u32,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            service: None,
            client: None,
            vip: None,
            protocol: None,
            port: None,
            dropped: false,
            reason: None,
            bytes: CAPTURE_BYTES,
        }
    }
}

/// A service that no packet is for.
const NO_SERVICE: u32 = Event::NONE - 1;

impl Filter {
    /// Terms of the language, for people.
    pub const TERMS: &str =
        "service NAME, client PREFIX, vip PREFIX, proto PROTOCOL, port NUMBER, dropped, reason NAME";

    /// Reads terms: all of them must hold of a packet. `and` may stand between two.
    ///
    /// # Errors
    /// Every term that is none, each as a sentence.
    pub fn parse(text: &str, bytes: u32) -> Result<Self, Vec<String>> {
        let mut filter = Self { bytes: bytes.clamp(1, CAPTURE_BYTES), ..Self::default() };
        let mut errors = Vec::new();
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            let result = match word {
                "and" => Ok(()),
                "dropped" => {
                    filter.dropped = true;
                    Ok(())
                }
                "service" | "client" | "vip" | "proto" | "port" | "reason" => match words.next() {
                    Some(value) => filter.set(word, value),
                    None => Err(format!("{word} wants a word behind it")),
                },
                other => Err(format!("\"{other}\" is no term of a filter: there are {}", Self::TERMS)),
            };
            errors.extend(result.err());
        }
        if errors.is_empty() { Ok(filter) } else { Err(errors) }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let in_term = |error: &dyn fmt::Display| format!("{key} {value}: {error}");
        match key {
            "service" => self.service = Some(Name::new(value).map_err(|error| in_term(&error))?),
            "client" => self.client = Some(value.parse().map_err(|error| in_term(&error))?),
            "vip" => self.vip = Some(value.parse().map_err(|error| in_term(&error))?),
            "proto" => {
                self.protocol = Some(protocol_number(value).ok_or_else(|| in_term(&"no such protocol"))?);
            }
            "port" => {
                let port = value.parse().ok().filter(|&port| port > 0);
                self.port = Some(port.ok_or_else(|| in_term(&"a port is a number from 1 to 65535"))?);
            }
            _ => {
                let reason = Reason::all().find(|reason| reason.name() == value);
                self.reason = Some(reason.ok_or_else(|| in_term(&"no such reason (see: lb stats)"))?);
            }
        }
        Ok(())
    }

    /// What the program compares. `number` knows the services' numbers.
    pub fn record(&self, number: impl FnOnce(&Name) -> Option<u32>) -> CaptureFilter {
        let (source, source_mask) = compared(self.client);
        let (destination, destination_mask) = compared(self.vip);
        CaptureFilter {
            source,
            source_mask,
            destination,
            destination_mask,
            service: self.service.as_ref().map_or(Event::NONE, |name| number(name).unwrap_or(NO_SERVICE)),
            reason: self.reason.map_or(Event::NONE, Reason::counter),
            port: self.port.unwrap_or(0),
            protocol: self.protocol.unwrap_or(0),
            verdicts: if self.dropped { CaptureFilter::DROPPED } else { CaptureFilter::ANY_VERDICT },
            bytes: self.bytes,
        }
    }
}

fn compared(prefix: Option<Prefix>) -> (Addr, Addr) {
    let Some((address, bits)) = prefix.map(|prefix| prefix.bits()) else { return (Addr::NONE, Addr::NONE) };
    let mask = if bits == 0 { Addr::NONE } else { Addr::from_words([u64::MAX; 2]).prefix(bits) };
    (address, mask)
}

fn protocol_number(text: &str) -> Option<u8> {
    match text {
        "icmp" => Some(protocol::ICMP),
        "tcp" => Some(protocol::TCP),
        "udp" => Some(protocol::UDP),
        "icmpv6" => Some(protocol::ICMPV6),
        "sctp" => Some(protocol::SCTP),
        number => number.parse().ok().filter(|&number| number > 0),
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::{DropReason, PassReason};

    use super::*;

    /// A packet of service 3 that was dropped because there is no backend.
    fn event() -> Event {
        let address = |text: &str| Addr::from(text.parse::<std::net::IpAddr>().unwrap());
        Event {
            source: address("198.51.100.7"),
            destination: address("192.0.2.10"),
            destination_port: 443,
            protocol: protocol::TCP,
            service: 3,
            verdict: 1,
            reason: DropReason::NoBackend.counter(),
            ..Event::default()
        }
    }

    fn wants(text: &str) -> bool {
        let filter = Filter::parse(text, 100).unwrap();
        let record = filter.record(|name| (name.as_str() == "www").then_some(3));
        record.wants(&event())
    }

    #[test]
    fn every_term_has_to_hold() {
        for text in [
            "",
            "service www",
            "client 198.51.100.7",
            "client 198.51.100.0/24",
            "client 0.0.0.0/0 and vip 192.0.2.10",
            "vip 192.0.2.0/28 port 443 proto tcp",
            "proto 6",
            "dropped",
            "dropped and reason no_backend",
        ] {
            assert!(wants(text), "{text}");
        }
        for text in [
            "service other",
            "client 198.51.100.8",
            "client 198.51.101.0/24",
            "client ::/0 and vip 2001:db8::/32",
            "vip 192.0.2.11",
            "port 80",
            "proto udp",
            "service www port 80",
            "reason too_big",
        ] {
            assert!(!wants(text), "{text}");
        }
        let dropped = Filter::parse("dropped", 100).unwrap().record(|_| None);
        assert!(!dropped.wants(&Event { verdict: 3, ..event() }));
        // A frame that nothing is known of.
        let unknown = Event {
            verdict: 2,
            reason: PassReason::NotIp.counter(),
            service: Event::NONE,
            ..Event::default()
        };
        let passed = Filter::parse("reason not_ip", 100).unwrap().record(|_| None);
        assert!(passed.wants(&unknown));
    }

    #[test]
    fn every_error_is_told() {
        let errors = Filter::parse("port x proto carrier client 10.0.0.1/8 frobnicate reason y service", 1);
        let errors = errors.unwrap_err();
        assert_eq!(errors.len(), 6, "{errors:#?}");
        assert!(errors[2].contains("10.0.0.0/8") && errors[3].contains("service NAME"), "{errors:#?}");
    }
}
