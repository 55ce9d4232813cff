//! Health of one backend: what its probes found, damped by rise, fall and how often it fell. What follows from a
//! change of health (slots, events) and what the operator says (drain, maintenance) stand elsewhere.

use std::{fmt, time::Duration};

use super::probe::ProbeFailure;

/// The damped state of one backend.
///
/// | starts as | goes up | goes down |
/// | --- | --- | --- |
/// | [`Health::new`]: down, not checked yet | on its first success | |
/// | [`Health::adopted`]: up, not checked yet | | after `fall` failures in a row |
/// | [`Health::unchecked`]: up for good | | |
///
/// Once up, a backend goes down after `fall` failures in a row; once down *by failures*, it comes up after
/// `rise` successes in a row. A new backend that fails `fall` times before its first success is down by
/// failures, too: from then on it needs `rise` successes; more if it fell often ([`Damping`]).
///
/// Up or not checked yet, it starts again as new when it was out of reach ([`Health::forget`]).
///
/// A probe that this machine could not send ([`ProbeFailure::Local`]) says nothing about the backend:
/// it changes neither state nor streak, only what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    phase: Phase,
    since: Duration,
    run: Option<Run>,
    last: Option<Last>,
    /// When it went down, as far as that still counts.
    falls: Vec<Duration>,
    /// Successes in a row that it needs to come up.
    needs: u32,
}

/// What it takes to change the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damping {
    /// Successes in a row that bring a backend up; 0 means 1.
    pub rise: u32,
    /// Failures in a row that take it down; 0 means 1.
    pub fall: u32,
    /// A backend that fell more than once within this time needs twice as many successes, and twice as many again for
    /// each further fall, up to [`Damping::MOST_FALLS`].
    pub window: Duration,
}

impl Damping {
    /// Further falls make it no worse.
    pub const MOST_FALLS: usize = 6;
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// From down to up.
    Up,
    /// From up to down.
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody checks it: up.
    Unchecked,
    /// Down, but not by failures.
    New,
    Up,
    Down,
}

/// Outcomes of one kind in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    success: bool,
    length: u32,
}

/// The last probe, whatever it found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Last {
    words: String,
    took: Duration,
    local: bool,
}

impl Health {
    /// A backend that is to be checked and serves nobody yet: down until its first success.
    pub const fn new(now: Duration) -> Self {
        Self::starting(Phase::New, now)
    }

    /// A backend that serves already when its checks begin (it was in the table when the daemon started, or
    /// had no check before): up until its probes say otherwise.
    pub const fn adopted(now: Duration) -> Self {
        Self::starting(Phase::Up, now)
    }

    /// A backend without a check: up. Outcomes are not for it and change nothing.
    pub const fn unchecked(now: Duration) -> Self {
        Self::starting(Phase::Unchecked, now)
    }

    const fn starting(phase: Phase, now: Duration) -> Self {
        Self { phase, since: now, run: None, last: None, falls: Vec::new(), needs: 0 }
    }

    /// Takes in what one probe found, and tells if that changed the state.
    ///
    /// `took` is the probe's duration. `now` is the time since the epoch that all calls for this backend share.
    pub fn observe(
        &mut self,
        outcome: &Result<String, ProbeFailure>,
        took: Duration,
        damping: &Damping,
        now: Duration,
    ) -> Option<Transition> {
        if self.phase == Phase::Unchecked {
            return None;
        }
        let local = matches!(outcome, Err(ProbeFailure::Local { .. }));
        let words = match outcome {
            Ok(words) => words.clone(),
            Err(failure) => failure.to_string(),
        };
        self.last = Some(Last { words, took, local });
        if local {
            return None;
        }

        let success = outcome.is_ok();
        let length = match self.run {
            Some(run) if run.success == success => run.length.saturating_add(1),
            _ => 1,
        };
        self.run = Some(Run { success, length });
        self.falls.retain(|&fell| now.saturating_sub(fell) < damping.window);
        self.needs = damping.rise << self.falls.len().saturating_sub(1);
        let (rise, fall) = (self.needs, damping.fall);
        let (phase, transition) = match (self.phase, success) {
            (Phase::New, true) => (Phase::Up, Some(Transition::Up)),
            (Phase::Down, true) if length >= rise => (Phase::Up, Some(Transition::Up)),
            (Phase::New, false) if length >= fall => (Phase::Down, None),
            (Phase::Up, false) if length >= fall => (Phase::Down, Some(Transition::Down)),
            (phase, _) => (phase, None),
        };
        self.phase = phase;
        if transition.is_some() {
            self.since = now;
        }
        if transition == Some(Transition::Down) && !damping.window.is_zero() {
            if self.falls.len() == Damping::MOST_FALLS {
                self.falls.remove(0);
            }
            self.falls.push(now);
        }
        transition
    }

    /// It was out of reach, or nobody checked it: what was found before holds no longer. Up by probes becomes not
    /// checked yet; down by failures stays down.
    pub fn forget(&mut self, now: Duration) {
        if self.phase == Phase::Up {
            let falls = std::mem::take(&mut self.falls);
            *self = Self { falls, ..Self::new(now) };
        }
    }

    /// Whether its checks have not said yet whether it can serve.
    pub fn is_new(&self) -> bool {
        self.phase == Phase::New
    }

    /// Whether the backend can serve.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Unchecked | Phase::Up)
    }

    /// When it went up or down last; before that, when it was made.
    pub const fn since(&self) -> Duration {
        self.since
    }

    /// Successes or failures in a row, as the last probe had it; 0 before the first.
    pub fn streak(&self) -> u32 {
        self.run.map_or(0, |run| run.length)
    }

    /// How long the last probe took; `None` before the first.
    pub fn took(&self) -> Option<Duration> {
        self.last.as_ref().map(|last| last.took)
    }
}

/// Why it is in its state, in words: `check 200 in 1.2 ms`, `TCP RST from ...`, `2 failures: HTTP 503, ...`.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Last { words, took, local }) = &self.last else {
            return f.write_str(if self.phase == Phase::Unchecked { "no check" } else { "not checked yet" });
        };
        let run = self.run.filter(|_| !local);
        match run {
            Some(Run { success: true, .. }) if self.is_up() => {
                write!(f, "check {words} in {:.1} ms", took.as_secs_f64() * 1000.0)
            }
            // The streak that may end in the other state.
            Some(Run { success, length }) if self.is_up() != success => {
                let kind = if success { "success" } else { "failure" };
                let plural = match (length, success) {
                    (1, _) => "",
                    (_, true) => "es",
                    (_, false) => "s",
                };
                match self.falls.len() {
                    falls @ 2.. if success => {
                        let needs = self.needs;
                        write!(
                            f,
                            "{length} of {needs} successes, because it fell {falls} times lately: {words}"
                        )
                    }
                    _ => write!(f, "{length} {kind}{plural}: {words}"),
                }
            }
            _ => f.write_str(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    const TARGET: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);
    const TOOK: Duration = Duration::from_micros(1200);

    fn outcome(letter: char) -> Result<String, ProbeFailure> {
        match letter {
            'S' => Ok("200".to_owned()),
            'F' => Err(ProbeFailure::Refused { target: TARGET }),
            'L' => Err(ProbeFailure::Local { target: TARGET, error: "no buffer space".to_owned() }),
            other => panic!("no outcome '{other}'"),
        }
    }

    /// Feeds one outcome a second; `u` and `d` are states after a step, `U` and `D` those just entered.
    fn play(mut health: Health, outcomes: &str, rise: u32, fall: u32) -> (String, Health) {
        let mut states = String::new();
        for (second, letter) in (1..).zip(outcomes.chars()) {
            let now = Duration::from_secs(second);
            let damping = Damping { rise, fall, window: Duration::ZERO };
            let transition = health.observe(&outcome(letter), TOOK, &damping, now);
            states.push(match (transition, health.is_up()) {
                (Some(Transition::Up), true) => 'U',
                (Some(Transition::Down), false) => 'D',
                (None, true) => 'u',
                (None, false) => 'd',
                contradiction => panic!("{contradiction:?}"),
            });
            assert_eq!(health.since() == now, transition.is_some());
        }
        (states, health)
    }

    #[test]
    fn outcomes_lead_to_states() {
        const START: Duration = Duration::ZERO;
        let (new, adopted, unchecked) =
            (Health::new(START), Health::adopted(START), Health::unchecked(START));
        let cases = [
            // Rise 2, fall 3 unless said otherwise.
            (&new, 2, 3, "SSFFF", "UuuuD"),
            (&new, 2, 3, "S", "U"),
            (&new, 5, 3, "FS", "dU"),
            (&new, 5, 3, "FFS", "ddU"),
            // Down by failures before the first success: rise applies.
            (&new, 2, 3, "FFFSS", "ddddU"),
            (&new, 2, 3, "FFFFFSFSS", "ddddddddU"),
            (&new, 2, 3, "SFFSFFSFFF", "UuuuuuuuuD"),
            (&new, 2, 3, "SFFFSFSS", "UuuDdddU"),
            (&new, 2, 3, "SFFFSSFFF", "UuuDdUuuD"),
            (&new, 1, 1, "SFSFFS", "UDUDdU"),
            (&new, 0, 0, "FSFS", "dUDU"),
            (&adopted, 2, 3, "SS", "uu"),
            (&adopted, 2, 3, "FFFSS", "uuDdU"),
            (&unchecked, 1, 1, "FFSF", "uuuu"),
            // A probe that was not sent neither counts nor breaks a streak.
            (&new, 2, 3, "LLLL", "dddd"),
            (&new, 2, 3, "LLLS", "dddU"),
            (&new, 2, 3, "SLLLL", "Uuuuu"),
            (&new, 2, 3, "SFLFLF", "UuuuuD"),
            (&new, 2, 2, "SFFSLS", "UuDddU"),
        ];
        for (start, rise, fall, outcomes, states) in cases {
            let (got, _) = play(start.clone(), outcomes, rise, fall);
            assert_eq!(got, states, "{start} with {outcomes}, rise {rise}, fall {fall}");
        }
    }

    #[test]
    fn the_reason_is_always_in_words() {
        let refused = "TCP RST from 127.0.0.1:80: nothing listens there";
        let local = "cannot probe 127.0.0.1:80: no buffer space";
        for (outcomes, streak, words) in [
            ("", 0, "not checked yet".to_owned()),
            ("S", 1, "check 200 in 1.2 ms".to_owned()),
            ("SFF", 2, format!("2 failures: {refused}")),
            ("SF", 1, format!("1 failure: {refused}")),
            ("SFFFF", 4, refused.to_owned()),
            ("F", 1, refused.to_owned()),
            ("FFFS", 1, "1 success: 200".to_owned()),
            ("FFFSS", 2, "check 200 in 1.2 ms".to_owned()),
            ("SSL", 2, local.to_owned()),
            ("L", 0, local.to_owned()),
        ] {
            let (_, health) = play(Health::new(Duration::ZERO), outcomes, 2, 3);
            assert_eq!((health.streak(), health.to_string()), (streak, words), "{outcomes}");
            assert_eq!(health.took(), (!outcomes.is_empty()).then_some(TOOK));
        }
        assert_eq!(Health::unchecked(Duration::ZERO).to_string(), "no check");
        assert_eq!(Health::adopted(Duration::ZERO).to_string(), "not checked yet");
    }

    #[test]
    fn a_backend_that_falls_again_and_again_must_prove_itself_for_longer() {
        let damping = Damping { rise: 1, fall: 1, window: Duration::from_secs(100) };
        let mut health = Health::adopted(Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut needed = Vec::new();
        for _ in 0..8 {
            now += Duration::from_secs(1);
            assert_eq!(health.observe(&outcome('F'), TOOK, &damping, now), Some(Transition::Down));
            let count = (1..=100)
                .find(|_| health.observe(&outcome('S'), TOOK, &damping, now) == Some(Transition::Up));
            needed.push(count.unwrap());
        }
        assert_eq!(needed, [1, 2, 4, 8, 16, 32, 32, 32]);

        health.observe(&outcome('F'), TOOK, &damping, now);
        health.observe(&outcome('S'), TOOK, &damping, now);
        assert_eq!(health.to_string(), "1 of 32 successes, because it fell 6 times lately: 200");
        // What is long ago does not count: one success will do again.
        let later = now + Duration::from_secs(100);
        assert_eq!(health.observe(&outcome('S'), TOOK, &damping, later), Some(Transition::Up));
        // Nor does it matter that it was out of reach.
        health.observe(&outcome('F'), TOOK, &damping, later);
        health.observe(&outcome('S'), TOOK, &damping, later);
        health.forget(later);
        health.observe(&outcome('S'), TOOK, &damping, later);
        health.observe(&outcome('F'), TOOK, &damping, later);
        health.observe(&outcome('S'), TOOK, &damping, later);
        assert_eq!(health.to_string(), "1 of 2 successes, because it fell 2 times lately: 200");
    }

    proptest! {
        /// Whatever comes in, a state is left only with the right streak behind it and entered only then.
        #[test]
        fn only_the_right_streak_changes_the_state(
            outcomes in "[SFL]{0,60}", rise in 0u32..5, fall in 0u32..5, adopted: bool,
        ) {
            let start = if adopted { Health::adopted(Duration::ZERO) } else { Health::new(Duration::ZERO) };
            let (states, health) = play(start, &outcomes, rise, fall);

            // Local failures say nothing; the rest must behave as if they were not there.
            let steps: Vec<(char, char)> = outcomes.chars().zip(states.chars()).filter(|(o, _)| *o != 'L').collect();
            prop_assert!(outcomes.chars().zip(states.chars()).all(|(o, s)| o != 'L' || s.is_lowercase()));
            let streak = |until: usize, kind: char| {
                steps[..=until].iter().rev().take_while(|(o, _)| *o == kind).count() as u32
            };
            let mut up = adopted;
            let mut by_failures = adopted;
            for (step, &(_, state)) in steps.iter().enumerate() {
                let (good, bad) = (streak(step, 'S'), streak(step, 'F'));
                let needed = if by_failures { rise.max(1) } else { 1 };
                let expected = match up {
                    true if bad >= fall.max(1) => 'D',
                    false if good >= needed => 'U',
                    true => 'u',
                    false => 'd',
                };
                prop_assert_eq!(state, expected, "step {} of {:?}", step, steps);
                up = matches!(state, 'u' | 'U');
                by_failures |= up || bad >= fall.max(1);
            }
            prop_assert_eq!(health.is_up(), up);
        }
    }
}
