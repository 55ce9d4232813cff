//! Long runs of kernel against model: random balancers that evolve by plans, random packets, and the whole of it again
//! from a seed.
//!
//! A run is made of chapters: each has programs of its own, loaded for a random set of features, and a balancer that
//! changes from batch to batch. Chapter and batch follow from a seed alone, so that a failure can be told, and repeated,
//! by three numbers and the frames that were sent.

use anyhow::Context;
use lb_common::abi::Features;
use lb_user::model::plan::Change;

use super::{
    EGRESS, INGRESS, Rig, THIRD,
    agree::{Arrival, Comparison, Tally, same_tables},
    world::{World, damage},
};
use crate::packets::{generate, random::Random};

/// Batches until a new balancer takes the place of the old one, over the same maps.
const LIFE: usize = 25;

/// How a run goes.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Packets between two changes of the balancer.
    pub batch: usize,
    /// Batches that programs are used for.
    pub chapter: usize,
    /// Whether the programs log packets.
    pub log_packets: bool,
}

/// A balancer in the making: it changes from batch to batch as its seed wants it to.
pub struct Chapter {
    rig: Rig,
    world: World,
    /// Decides about the balancer. Packets have numbers of their own, so that fewer of them make no other balancer.
    random: Random,
    features: Features,
    seed: u64,
    batch: usize,
    damaged: Vec<Change>,
    comparison: Comparison,
}

impl Chapter {
    /// Loads programs with the features that a seed wants.
    ///
    /// # Errors
    /// The kernel refuses them.
    pub fn begin(seed: u64, log_packets: bool) -> anyhow::Result<Self> {
        let mut random = Random::new(seed);
        let features = features(&mut random);
        let mut rig = Rig::load(features, log_packets)?;
        let comparison = Comparison::begin(&mut rig)?;
        let world = World::new(&mut random, features);
        Ok(Self { rig, world, random, features, seed, batch: 0, damaged: Vec::new(), comparison })
    }

    /// Goes on to the next batch: another balancer, or some more damage.
    ///
    /// # Errors
    /// The kernel refuses it, or kernel and memory do not have the same tables afterwards.
    pub fn turn(&mut self) -> anyhow::Result<()> {
        let Self { rig, world, random, .. } = self;
        if self.batch > 0 {
            // Plans repair what they own. The rest of the damage was done to places that nobody owns.
            rig.install(&world.target)?;
        }
        if self.batch % LIFE == LIFE - 1 {
            // Its programs take the place of those there are.
            self.features = features(random);
            *world = World::new(random, self.features);
        } else {
            world.evolve(random);
        }
        world.settle(&rig.memory, random);
        rig.install(&world.target)?;
        same_tables(rig)?;
        self.damaged = (0..random.below(4) / 2).map(|_| damage(rig, random)).collect();
        for change in &self.damaged {
            rig.apply(change)?;
        }
        self.batch += 1;
        Ok(())
    }

    /// Random packets for the balancer as it is now: the same ones whenever it is asked.
    pub fn arrivals(&self, count: usize) -> Vec<Arrival> {
        let seed = self.seed ^ (self.batch as u64).wrapping_mul(0x5851_f42d_4c95_7f2d);
        arrivals(&self.world, &mut Random::new(seed), count)
    }

    /// Random packets for a balancer that nobody makes.
    pub fn imagined(seed: u64, count: usize) -> Vec<Arrival> {
        let mut random = Random::new(seed);
        let features = features(&mut random);
        let world = World::new(&mut random, features);
        arrivals(&world, &mut random, count)
    }

    /// The balancer.
    pub fn rig(&mut self) -> &mut Rig {
        &mut self.rig
    }

    /// Sends packets to both sides.
    ///
    /// # Errors
    /// What differs.
    pub fn agree(&mut self, arrivals: &[Arrival], tally: &mut Tally) -> anyhow::Result<()> {
        self.comparison.agree(&mut self.rig, arrivals, tally)
    }

    /// What a failure is told with.
    pub fn describe(&self) -> String {
        let Self { features, seed, batch, world, damaged, .. } = self;
        format!("chapter {seed}, batch {batch}, {features:?}: {:#?}\nand damage {damaged:?}", world.target)
    }
}

fn arrivals(world: &World, random: &mut Random, count: usize) -> Vec<Arrival> {
    let around = world.surroundings(random);
    let mut arrival = || Arrival {
        ingress: random.pick(&[INGRESS, EGRESS, THIRD]),
        frame: generate::frame(random, &around),
    };
    (0..count).map(|_| arrival()).collect()
}

/// Any set of features; all and none more often than others.
fn features(random: &mut Random) -> Features {
    match random.below(4) {
        0 => Features::ALL,
        1 if random.once_in(2) => Features::NONE,
        _ => Features(random.next() as u32 & Features::ALL.0),
    }
}

/// Where kernel and model differed.
#[derive(Debug)]
pub struct Failure {
    /// What differed.
    pub error: anyhow::Error,
    /// Seed of the chapter.
    pub chapter: u64,
    /// Number of the batch in it.
    pub batch: usize,
    /// Its packets.
    pub arrivals: Vec<Arrival>,
}

/// Sends packets for as long as `goes_on` says.
///
/// # Errors
/// What differs, and where it was.
pub fn run(
    seed: u64,
    course: Course,
    tally: &mut Tally,
    mut goes_on: impl FnMut(&Tally) -> bool,
) -> Result<(), Failure> {
    let mut chapters = Random::new(seed);
    loop {
        let seed = chapters.next();
        let failed = |batch, arrivals, error| Failure { error, chapter: seed, batch, arrivals };
        let mut chapter =
            Chapter::begin(seed, course.log_packets).map_err(|error| failed(0, Vec::new(), error))?;
        for batch in 1..=course.chapter {
            if !goes_on(tally) {
                return Ok(());
            }
            let turned = chapter.turn().with_context(|| chapter.describe());
            turned.map_err(|error| failed(batch, Vec::new(), error))?;
            let arrivals = chapter.arrivals(course.batch);
            let agreed = chapter.agree(&arrivals, tally).with_context(|| chapter.describe());
            agreed.map_err(|error| failed(batch, arrivals, error))?;
        }
    }
}
