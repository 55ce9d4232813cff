//! What a backend's agent says, in the words of HAProxy's agent protocol: one line of words, which may end in a
//! `#comment`. And what of it holds: each word changes only what it is about.

use std::fmt;

use super::{probe::ProbeFailure, service::AdminState};

/// Weights move by so many percent at least: a load that wavers a little moves no slot.
const STEP: u16 = 5;

/// The most that an agent can ask for, percent of the configured weight.
const MOST: u16 = 200;

/// What holds of what an agent said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    percent: u16,
    word: AdminState,
    /// Why the backend is down, in the agent's words.
    down: Option<String>,
    /// What it said last, or why it said nothing.
    last: Option<Result<String, String>>,
}

impl Default for Agent {
    /// One that said nothing yet: it changes nothing.
    fn default() -> Self {
        Self { percent: 100, word: AdminState::Ready, down: None, last: None }
    }
}

/// A line of which no word is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is none of ready, drain, maint, up, down, fail, stopped or a percentage", .0.escape_debug())]
pub struct NotAWord(pub String);

/// What one word asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word<'a> {
    Percent(u16),
    Admin(AdminState),
    Up,
    Down(&'a str),
    /// Known to HAProxy, and about what a balancer of packets does not have.
    Other,
}

impl Agent {
    /// One that had the backend take no new flows, as long as nothing else is heard.
    pub fn draining() -> Self {
        Self { word: AdminState::Drain, ..Self::default() }
    }

    /// Takes in an answer. An agent that cannot be asked, or that is not understood, changes nothing but what is said
    /// of it: whether the backend serves is for its checks to tell.
    pub fn take(&mut self, answer: &Result<String, ProbeFailure>) {
        self.last = Some(match answer {
            Err(failure) => Err(failure.to_string()),
            Ok(line) => match words(line) {
                Ok((words, comment)) => {
                    for word in words {
                        self.apply(word, comment);
                    }
                    Ok(line.clone())
                }
                Err(error) => Err(error.to_string()),
            },
        });
    }

    fn apply(&mut self, word: Word<'_>, comment: &str) {
        match word {
            Word::Percent(percent) => self.percent = settled(self.percent, percent.min(MOST)),
            Word::Admin(state) => self.word = state,
            Word::Up => self.down = None,
            Word::Down(word) => {
                self.down =
                    Some(if comment.is_empty() { word.to_owned() } else { format!("{word}: {comment}") });
            }
            Word::Other => {}
        }
    }

    /// Percent of the configured weight that the backend is to have, in steps.
    pub const fn percent(&self) -> u16 {
        self.percent
    }

    /// Whether it takes flows, as an operator would say it.
    pub const fn word(&self) -> AdminState {
        self.word
    }

    /// Why the agent has it down, if it has.
    pub fn down(&self) -> Option<&str> {
        self.down.as_deref()
    }

    /// Whether the two ask for the same.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        (self.percent, self.word, &self.down) == (other.percent, other.word, &other.down)
    }
}

/// What it said last: `agent says "75%"`.
impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last {
            None => f.write_str("agent not asked yet"),
            Some(Ok(line)) => write!(f, "agent says \"{}\"", line.escape_debug()),
            Some(Err(why)) => write!(f, "agent: {why}"),
        }
    }
}

/// A percentage in steps that does not follow small movements. None, and all, are reached exactly.
fn settled(before: u16, wanted: u16) -> u16 {
    let step = (wanted + STEP / 2) / STEP * STEP;
    match wanted {
        0 | 100 => wanted,
        _ if wanted.abs_diff(before) < STEP && before != 0 => before,
        _ => step.max(STEP),
    }
}

/// The words of a line, and its comment.
fn words(line: &str) -> Result<(Vec<Word<'_>>, &str), NotAWord> {
    let (said, comment) = line.split_once('#').unwrap_or((line, ""));
    let words = said.split([' ', '\t', ',', '\r']).filter(|word| !word.is_empty());
    let words = words.map(word).collect::<Result<Vec<_>, _>>()?;
    if words.is_empty() { Err(NotAWord(line.to_owned())) } else { Ok((words, comment.trim())) }
}

fn word(word: &str) -> Result<Word<'_>, NotAWord> {
    let unknown = || NotAWord(word.to_owned());
    Ok(match word {
        "ready" => Word::Admin(AdminState::Ready),
        "drain" => Word::Admin(AdminState::Drain),
        "maint" => Word::Admin(AdminState::Maint),
        "up" => Word::Up,
        "down" | "fail" | "failed" | "stopped" => Word::Down(word),
        _ if word.starts_with("maxconn:") => Word::Other,
        _ => {
            let digits = word.strip_suffix('%').ok_or_else(unknown)?;
            let is_number = (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
            let percent = digits.parse::<u32>().ok().filter(|_| is_number).ok_or_else(unknown)?;
            Word::Percent(u16::try_from(percent).unwrap_or(u16::MAX))
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(lines: &[&str]) -> Agent {
        let mut agent = Agent::default();
        for line in lines {
            agent.take(&Ok((*line).to_owned()));
        }
        agent
    }

    #[test]
    fn each_word_changes_only_what_it_is_about() {
        use AdminState::{Drain, Maint, Ready};
        let cases: [(&[&str], u16, AdminState, Option<&str>); 12] = [
            (&[], 100, Ready, None),
            (&["75%"], 75, Ready, None),
            (&["75%", "drain"], 75, Drain, None),
            (&["drain", "50%"], 50, Drain, None),
            (&["maint", "ready"], 100, Ready, None),
            (&["down#disk full"], 100, Ready, Some("down: disk full")),
            (&["stopped", "ready"], 100, Ready, Some("stopped")),
            (&["fail", "up"], 100, Ready, None),
            (&["ready up 30%\r"], 30, Ready, None),
            (&["drain,20%\tdown # late"], 20, Drain, Some("down: late")),
            (&["maxconn:30 80%"], 80, Ready, None),
            (&["maint", "0%"], 0, Maint, None),
        ];
        for (lines, percent, word, down) in cases {
            let agent = said(lines);
            assert_eq!((agent.percent(), agent.word(), agent.down()), (percent, word, down), "{lines:?}");
        }
    }

    #[test]
    fn what_is_not_understood_changes_nothing() {
        for line in ["", "# only this", "75", "75%%", "-5%", "100000%", "ready soon", "DRAIN"] {
            let mut agent = said(&["drain 40%"]);
            agent.take(&Ok(line.to_owned()));
            assert!(agent.asks_the_same(&said(&["drain 40%"])), "{line}");
            assert!(agent.to_string().starts_with("agent: "), "{agent}");
        }
        let mut agent = said(&["down"]);
        let target = "10.0.0.1:9000".parse().unwrap();
        agent.take(&Err(ProbeFailure::Refused { target }));
        assert!(agent.asks_the_same(&said(&["down"])));
        assert_eq!(agent.to_string(), "agent: TCP RST from 10.0.0.1:9000: nothing listens there");
    }

    #[test]
    fn a_load_that_wavers_moves_nothing() {
        let steps = |lines: &[&str]| said(lines).percent();
        assert_eq!(steps(&["73%"]), 75);
        assert_eq!(steps(&["73%", "77%", "72%", "79%"]), 75);
        assert_eq!(steps(&["73%", "80%", "76%"]), 80);
        assert_eq!(steps(&["1%"]), 5);
        assert_eq!(steps(&["97%"]), 100, "near the whole");
        assert_eq!(steps(&["50%", "97%", "100%"]), 100);
        assert_eq!(steps(&["0%", "1%"]), 5);
        assert_eq!(steps(&["3%", "0%"]), 0);
        assert_eq!(steps(&["900%"]), MOST);
    }

    proptest! {
        #[test]
        fn weights_are_in_steps_and_near_what_is_asked(asked in proptest::collection::vec(0u16..300, 1..20)) {
            let mut agent = Agent::default();
            for percent in asked {
                let before = agent.percent();
                agent.take(&Ok(format!("{percent}%")));
                let after = agent.percent();
                prop_assert_eq!(after % STEP, 0);
                prop_assert!(after.abs_diff(percent.min(MOST)) < STEP);
                prop_assert!(after == before || after.abs_diff(before) >= STEP);
                prop_assert_eq!(after == 0, percent == 0);
            }
        }

        #[test]
        fn any_line_has_an_answer(line in "\\PC*") {
            drop(said(&[&line]).to_string());
        }
    }
}
