//! Frames that were worth keeping: those on which kernel and model once differed, and one for every way through the
//! parser. They lie as text under `tests/corpus/`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use lb_common::{
    abi::Features,
    packet::{Kind, Packet},
    parse::{Stop, parse, parse_common},
};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::{
    Rig,
    agree::{Arrival, Comparison, Tally},
    fuzz::Chapter,
    ways::balancer,
};
use crate::packets::hex;

/// The directory.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The file with one frame for every way through the parser.
pub fn ways_file() -> PathBuf {
    directory().join("parser.txt")
}

/// Frames for a balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What it is about.
    pub about: String,
    /// Seed and batch of the [`Chapter`] whose balancer they are for; without, they are for that of
    /// [`balancer`].
    pub chapter: Option<(u64, usize)>,
    /// The frames in their order.
    pub arrivals: Vec<Arrival>,
}

impl Case {
    /// From the text of a file.
    ///
    /// # Errors
    /// What is missing or is none.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let document: DocumentMut = text.parse()?;
        let number =
            |table: &Table, key: &str| table.get(key).and_then(Item::as_integer).map(i64::cast_unsigned);
        let frames = document.get("frame").and_then(Item::as_array_of_tables).context("no [[frame]]")?;
        let arrival = |table: &Table| {
            let bytes = table.get("bytes").and_then(Item::as_str).context("a frame without bytes")?;
            let ingress = number(table, "ingress").context("a frame without ingress")?;
            Ok(Arrival { ingress: u32::try_from(ingress)?, frame: hex::decode(bytes) })
        };
        let chapter = match (number(&document, "chapter"), number(&document, "batch")) {
            (Some(seed), Some(batch)) => Some((seed, usize::try_from(batch)?)),
            (None, None) => None,
            _ => bail!("a chapter needs a batch"),
        };
        Ok(Self {
            about: document.get("about").and_then(Item::as_str).context("no about")?.to_owned(),
            chapter,
            arrivals: frames.iter().map(arrival).collect::<anyhow::Result<_>>()?,
        })
    }

    /// The text of its file.
    pub fn text(&self) -> String {
        let mut document = DocumentMut::new();
        document["about"] = value(&self.about);
        if let Some((seed, batch)) = self.chapter {
            // TOML has signed numbers.
            document["chapter"] = value(seed.cast_signed());
            document["batch"] = value(i64::try_from(batch).unwrap_or(i64::MAX));
        }
        let mut frames = ArrayOfTables::new();
        for arrival in &self.arrivals {
            let mut table = Table::new();
            table["ingress"] = value(i64::from(arrival.ingress));
            table["bytes"] = value(hex::encode(&arrival.frame));
            frames.push(table);
        }
        document["frame"] = Item::ArrayOfTables(frames);
        document.to_string()
    }

    /// Sends its frames to kernel and model, in a namespace of [`super::within`].
    ///
    /// # Errors
    /// What differs.
    pub fn replay(&self) -> anyhow::Result<()> {
        let Some((seed, batch)) = self.chapter else {
            let mut rig = Rig::load(Features::ALL, false)?;
            rig.install(&balancer())?;
            return Comparison::begin(&mut rig)?.agree(&mut rig, &self.arrivals, &mut Tally::default());
        };
        let mut chapter = Chapter::begin(seed, false)?;
        for _ in 0..batch {
            chapter.turn()?;
        }
        chapter.agree(&self.arrivals, &mut Tally::default())
    }

    /// Leaves out frames, and bytes of frames, for as long as `fails` says that it is still the same failure. Asks at
    /// most so many times.
    #[must_use]
    pub fn minimised(&self, mut attempts: usize, fails: impl Fn(&Self) -> bool) -> Self {
        let mut best = self.clone();
        let mut try_one = |best: &mut Self, smaller: Self| {
            let better = attempts > 0 && smaller != *best && fails(&smaller);
            attempts = attempts.saturating_sub(1);
            if better {
                *best = smaller;
            }
            better
        };
        let mut chunk = best.arrivals.len().div_ceil(2);
        while chunk > 0 {
            let mut at = 0;
            while at < best.arrivals.len() {
                let mut fewer = best.clone();
                fewer.arrivals.drain(at..(at + chunk).min(best.arrivals.len()));
                if !try_one(&mut best, fewer) {
                    at += chunk;
                }
            }
            chunk /= 2;
        }
        for number in 0..best.arrivals.len() {
            let mut cut = best.arrivals[number].frame.len() / 2;
            while cut > 0 {
                let mut shorter = best.clone();
                let frame = &mut shorter.arrivals[number].frame;
                frame.truncate(frame.len().saturating_sub(cut));
                if !try_one(&mut best, shorter) {
                    cut /= 2;
                }
            }
            for at in (0..best.arrivals[number].frame.len()).step_by(4) {
                let mut plainer = best.clone();
                let end = (at + 4).min(best.arrivals[number].frame.len());
                plainer.arrivals[number].frame[at..end].fill(0);
                try_one(&mut best, plainer);
            }
        }
        best
    }
}

/// Every case of the corpus with the name of its file.
///
/// # Errors
/// A file cannot be read, or is no case.
pub fn cases() -> anyhow::Result<BTreeMap<String, Case>> {
    let directory = directory();
    let files = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut cases = BTreeMap::new();
    for file in files {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let case = || Case::parse(&fs::read_to_string(&path)?);
            cases.insert(path.display().to_string(), case().with_context(|| path.display().to_string())?);
        }
    }
    Ok(cases)
}

/// The way of a frame through the parser, as far as its outcome and its length tell.
pub fn way(frame: &[u8]) -> String {
    let common = match parse_common(frame, Features::ALL) {
        Ok(_) => "common",
        Err(Stop::Rare) => "rare",
        Err(Stop::Pass(reason)) => reason.name(),
    };
    let mut way = common.to_owned();
    let written = match parse(frame, Features::ALL) {
        Ok(packet) => {
            let Packet { kind, is_v4, protocol, offset, .. } = packet;
            let family = if is_v4 { 4 } else { 6 };
            let quic = if packet.quic_id != 0 { " quic" } else { "" };
            let fragment = if packet.fragment != 0 { " part" } else { "" };
            let padded = usize::from(offset) + usize::from(packet.length) < frame.len();
            let padded = if padded { " padded" } else { "" };
            // What a later fragment carries may be anything.
            let protocol = if kind == Kind::LaterFragment { 0 } else { protocol };
            write!(way, " {kind:?} v{family} protocol {protocol} at {offset}{quic}{fragment}{padded}")
        }
        Err(reason) => {
            let ether_type = frame.get(12..14).map(hex::encode).unwrap_or_default();
            let known = ["0800", "86dd", "8100", "88a8"].contains(&ether_type.as_str());
            let ether_type = if known { &ether_type } else { "other" };
            write!(way, " {} {ether_type} {}", reason.name(), frame.len().min(128) / 4 * 4)
        }
    };
    written.map_or_else(|_| String::new(), |()| way)
}

/// The shortest frame of every way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways(BTreeMap<String, Vec<u8>>);

impl Ways {
    /// From the text of [`ways_file`].
    ///
    /// # Errors
    /// A line is none.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let line = |line: &str| {
            let (way, bytes) = line.split_once(": ").with_context(|| format!("no way: {line}"))?;
            Ok((way.to_owned(), hex::decode(bytes)))
        };
        Ok(Self(lines.map(line).collect::<anyhow::Result<_>>()?))
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let lines = self.0.iter().map(|(way, frame)| format!("{way}: {}\n", hex::encode(frame)));
        let heading = "# One frame for every way through the parser: `cargo xtask fuzz-datapath --collect` adds what is new.\n";
        std::iter::once(heading.to_owned()).chain(lines).collect()
    }

    /// Takes a frame in if its way is new, or it is shorter than the one that is known.
    pub fn offer(&mut self, frame: &[u8]) {
        let known = self.0.entry(way(frame)).or_insert_with(|| frame.to_vec());
        if frame.len() < known.len() {
            *known = frame.to_vec();
        }
    }

    /// Every way with its frame.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(way, frame)| (way.as_str(), &frame[..]))
    }
}

/// Both parsers on a frame and on every beginning of it: neither fails, and what the quick one reads the other reads
/// alike.
///
/// # Errors
/// They differ.
pub fn parsers_agree(frame: &[u8]) -> anyhow::Result<()> {
    for end in 0..=frame.len() {
        let frame = &frame[..end];
        for features in [Features::NONE, Features::ALL] {
            let (quick, whole) = (parse_common(frame, features), parse(frame, features));
            let alike = match quick {
                Ok(packet) => whole == Ok(packet),
                Err(Stop::Pass(reason)) => whole == Err(reason),
                Err(Stop::Rare) => true,
            };
            ensure!(alike, "{quick:?} and {whole:?} of {}", hex::encode(frame));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_reads_back() {
        let arrival = |frame: &[u8]| Arrival { ingress: 2, frame: frame.to_vec() };
        for chapter in [None, Some((u64::MAX, 7))] {
            let case =
                Case { about: "so \"it\" is".into(), chapter, arrivals: vec![arrival(b"a"), arrival(b"")] };
            assert_eq!(Case::parse(&case.text()).unwrap(), case);
        }
    }

    #[test]
    fn what_matters_is_left() {
        let arrivals = (0..40).map(|n| Arrival { ingress: 1, frame: vec![n; 30] }).collect();
        let case = Case { about: String::new(), chapter: None, arrivals };
        // Fails if a frame with an 11 at place 9 comes before one with a 23 at place 0.
        let fails = |case: &Case| {
            let at = |place: usize, byte| {
                case.arrivals.iter().position(|arrival| arrival.frame.get(place) == Some(&byte))
            };
            matches!((at(9, 11), at(0, 23)), (Some(a), Some(b)) if a < b)
        };
        assert!(fails(&case));
        let small = case.minimised(1000, fails);
        let frames: Vec<&[u8]> = small.arrivals.iter().map(|arrival| &arrival.frame[..]).collect();
        assert_eq!(frames, [&[0, 0, 0, 0, 0, 0, 0, 0, 11, 11][..], &[23]]);
        assert_eq!(case.minimised(0, fails), case);
    }
}
