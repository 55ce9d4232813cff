//! `lb-fuzz`: kernel against model for as long as one likes. `cargo xtask fuzz-datapath` runs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use lb_tests::{
    datapath::{
        agree::Tally,
        corpus::{self, Case, Ways, ways_file},
        fuzz::{self, Chapter, Course, Failure},
        namespace::isolated,
    },
    packets::random::{Random, any_seed},
};

/// Sends random packets to the kernel programs and to the model, and compares everything.
#[derive(Parser)]
#[command(name = "lb-fuzz")]
struct Arguments {
    /// How many packets to send.
    #[arg(long, default_value_t = 5_000_000, value_name = "N")]
    packets: usize,
    /// Send for so many minutes instead.
    #[arg(long, conflicts_with = "packets", value_name = "M")]
    minutes: Option<f64>,
    /// Repeat the run that said it had this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Only look for frames with a new way through the parser, and keep them in the corpus. Needs no root.
    #[arg(long)]
    collect: bool,
    /// Where a failure is kept.
    #[arg(long, default_value_os_t = corpus::directory(), value_name = "DIR")]
    corpus: PathBuf,
}

/// Packets between two changes of the balancer, and batches with the same programs: loading takes as long as thousands
/// of packets do.
const COURSE: Course = Course { batch: 1000, chapter: 40, log_packets: false };

/// Between two lines about where it stands.
const PROGRESS: Duration = Duration::from_secs(5);

/// How often the failure is tried again with less, to find out what matters.
const ATTEMPTS: usize = 200;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = if arguments.collect { collect(&arguments) } else { compare(arguments) };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Kernel against model.
fn compare(arguments: Arguments) -> Result<()> {
    let seed = arguments.seed.unwrap_or_else(any_seed);
    println!("seed {seed}: repeat with --seed {seed}");
    isolated(move || {
        for (file, case) in corpus::cases()? {
            case.replay().with_context(|| format!("{file}: {}", case.about))?;
            println!("{file}: kernel and model agree");
        }
        let mut tally = Tally::default();
        let mut progress = Progress::new(&arguments);
        let outcome = fuzz::run(seed, COURSE, &mut tally, |tally| progress.goes_on(tally));
        progress.tell(&tally);
        println!("reasons: {:?}\nfeatures that mattered: {:?}", tally.reasons, tally.features);
        match outcome {
            Ok(()) => Ok(()),
            Err(failure) => {
                println!("{:#}", failure.error.root_cause());
                let file = keep(&failure, &arguments.corpus)?;
                Err(failure.error).with_context(|| format!("seed {seed}; kept as {}", file.display()))
            }
        }
    })
}

struct Progress {
    packets: usize,
    end: Option<Instant>,
    start: Instant,
    told: Instant,
}

impl Progress {
    fn new(arguments: &Arguments) -> Self {
        let start = Instant::now();
        let end = arguments.minutes.map(|minutes| start + Duration::from_secs_f64(60.0 * minutes));
        Self { packets: arguments.packets, end, start, told: start }
    }

    fn goes_on(&mut self, tally: &Tally) -> bool {
        if self.told.elapsed() > PROGRESS {
            self.tell(tally);
        }
        match self.end {
            Some(end) => Instant::now() < end,
            None => tally.packets < self.packets,
        }
    }

    fn tell(&mut self, tally: &Tally) {
        self.told = Instant::now();
        let took = self.start.elapsed().as_secs_f64();
        let [_, drop, pass, transmit, redirect] = tally.verdicts;
        println!(
            "{:7.1} s: {} packets agree, {:.0} a second; drop {drop} pass {pass} tx {transmit} redirect {redirect}",
            took,
            tally.packets,
            tally.packets as f64 / took
        );
    }
}

/// Makes a failure small and writes it down.
fn keep(failure: &Failure, directory: &Path) -> Result<PathBuf> {
    let case = Case {
        about: format!(
            "kernel and model differed: {}",
            failure.error.root_cause().to_string().lines().next().unwrap_or_default()
        ),
        chapter: Some((failure.chapter, failure.batch)),
        arrivals: failure.arrivals.clone(),
    };
    println!(
        "chapter {}, batch {}: making {} frames fewer",
        failure.chapter,
        failure.batch,
        case.arrivals.len()
    );
    let case = case.minimised(ATTEMPTS, |case| case.replay().is_err());
    let file = directory.join(format!("chapter-{}-{}.toml", failure.chapter, failure.batch));
    fs::write(&file, case.text()).with_context(|| file.display().to_string())?;
    Ok(file)
}

/// Looks for new ways through the parser.
fn collect(arguments: &Arguments) -> Result<()> {
    let file = ways_file();
    let mut ways = match fs::read_to_string(&file) {
        Ok(text) => Ways::parse(&text)?,
        Err(_) => Ways::default(),
    };
    let before = ways.iter().count();
    let mut chapters = Random::new(arguments.seed.unwrap_or_else(any_seed));
    let mut packets = 0;
    while packets < arguments.packets {
        for arrival in Chapter::imagined(chapters.next(), COURSE.batch) {
            ways.offer(&arrival.frame);
            packets += 1;
        }
    }
    fs::write(&file, ways.text()).with_context(|| file.display().to_string())?;
    println!("{}: {} ways, {before} of them known before", file.display(), ways.iter().count());
    Ok(())
}
