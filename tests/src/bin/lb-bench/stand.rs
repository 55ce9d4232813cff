//! The stand that programs run on: a frame made anew for each iteration, and three programs that take turns.

use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Map, ProgramArray},
    programs::{ProgramFd, TestRun, TestRunOptions, Xdp, XdpMode},
};
use lb_common::abi::bench::{RESTORED, Rehearsal, SUBJECTS, name};
use lb_tests::datapath::{INGRESS, sh};
use lb_user::edge::kernel::mapped::MappedArray;

/// The bench's own programs.
pub(crate) static OBJECT: &[u8] = include_bytes_aligned!(env!("LB_BENCH_OBJECT"));

/// Iterations of one round. The clock is read at the first and the last.
pub(crate) const ITERATIONS: u64 = 2000;

/// What runs on the stand.
pub(crate) struct Stand {
    ebpf: Ebpf,
    rehearsal: MappedArray<Rehearsal>,
}

/// What is run.
#[derive(Clone)]
pub(crate) struct Scene {
    /// The frame; the last two bytes of its VIP are zero if there are several.
    pub(crate) frame: Vec<u8>,
    /// Flows that take turns; a power of two.
    pub(crate) flows: u64,
    /// Virtual addresses that take turns.
    pub(crate) vips: u64,
}

impl Scene {
    /// The iterations from `first` on, `count` of them.
    pub(crate) fn rehearsal(&self, first: u64, count: u64) -> Result<Rehearsal> {
        ensure!(self.frame.len() >= RESTORED, "the frame is shorter than what is restored of it");
        let mut template = [0; RESTORED / 8];
        for (word, bytes) in template.iter_mut().zip(self.frame.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into()?);
        }
        Ok(Rehearsal {
            done: first,
            first,
            last: first + count - 1,
            length: self.frame.len() as u64,
            flow_mask: self.flows - 1,
            vips: self.vips,
            is_v6: u64::from(self.frame[12..14] == [0x86, 0xdd]),
            template,
            ..Rehearsal::default()
        })
    }
}

/// Nanoseconds for each iteration, round by round; the three of one round were measured one after the other.
#[derive(Default)]
pub(crate) struct Rounds {
    /// Of the program that passes every frame.
    pub(crate) empty: Vec<f64>,
    /// Of the least balancer.
    pub(crate) swap: Vec<f64>,
    /// Of the program that is measured.
    pub(crate) subject: Vec<f64>,
    /// Iterations of the subject, the ones before the first round included.
    pub(crate) iterations: u64,
}

/// A program on the stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Empty,
    Swap,
    Subject,
}

const TURNS: [Turn; SUBJECTS as usize] = [Turn::Empty, Turn::Swap, Turn::Subject];

impl Stand {
    /// Loads the programs, and attaches them to interfaces of the thread's network namespace: the kernel has a
    /// direct call only for those that are attached somewhere, and would make one for each round.
    pub(crate) fn load() -> Result<Self> {
        let mut ebpf = EbpfLoader::new().load(OBJECT).context("load the bench's programs")?;
        for program in name::RESTORE.into_iter().chain([name::EMPTY, name::SWAP]) {
            xdp(&mut ebpf, program)?.load().with_context(|| format!("load {program}"))?;
        }
        for (number, program) in name::RESTORE.into_iter().enumerate() {
            let interface = format!("warm{number}");
            sh(&format!("ip link add {interface} type veth peer name {interface}p"))?;
            xdp(&mut ebpf, program)?.attach(&interface, XdpMode::Skb)?;
        }
        let Some(Map::Array(map)) = ebpf.map(name::REHEARSAL) else { anyhow::bail!("no map of rehearsals") };
        let rehearsal = MappedArray::map(map.fd().as_fd(), 1)?;
        let mut stand = Self { ebpf, rehearsal };
        for (turn, program) in [(Turn::Empty, name::EMPTY), (Turn::Swap, name::SWAP)] {
            let fd = xdp(&mut stand.ebpf, program)?.fd()?.try_clone()?;
            stand.put(turn, &fd)?;
        }
        Ok(stand)
    }

    /// Sets the program that is measured.
    pub(crate) fn subject(&mut self, program: &ProgramFd) -> Result<()> {
        self.put(Turn::Subject, program)
    }

    fn put(&mut self, turn: Turn, program: &ProgramFd) -> Result<()> {
        let map = self.ebpf.map_mut(name::SUBJECTS).context("no map of subjects")?;
        let mut subjects: ProgramArray<_> = map.try_into()?;
        subjects.set(turn as u32, program, 0).context("put a program on the stand")?;
        Ok(())
    }

    /// Lets the programs take turns. `verdict` is the subject's.
    pub(crate) fn rounds(&mut self, scene: &Scene, rounds: usize, verdict: u32) -> Result<Rounds> {
        let mut result = Rounds::default();
        // Every flow has been there once, caches are warm.
        let warm = scene.flows.max(ITERATIONS);
        for (turn, count) in [(Turn::Empty, ITERATIONS), (Turn::Swap, ITERATIONS), (Turn::Subject, warm)] {
            self.run(scene, turn, 0, count, verdict)?;
        }
        result.iterations = warm;
        for round in 0..rounds {
            let first = round as u64 * ITERATIONS;
            for turn in 0..TURNS.len() {
                // No program always comes after the same one.
                let turn = TURNS[(turn * (1 + round % 2) + round) % TURNS.len()];
                let took = self.run(scene, turn, first, ITERATIONS, verdict)?;
                match turn {
                    Turn::Empty => result.empty.push(took),
                    Turn::Swap => result.swap.push(took),
                    Turn::Subject => {
                        result.iterations += ITERATIONS;
                        result.subject.push(took);
                    }
                }
            }
        }
        Ok(result)
    }

    /// Runs one program so often; nanoseconds for each iteration.
    fn run(&mut self, scene: &Scene, turn: Turn, first: u64, count: u64, verdict: u32) -> Result<f64> {
        const PASS: u32 = 2;
        const TX: u32 = 3;
        self.rehearsal.store(0, &scene.rehearsal(first, count)?);
        // struct xdp_md (linux/bpf.h): data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, scene.frame.len() as u32, 0, INGRESS, 0, 0].map(u32::to_ne_bytes).concat();
        let program = xdp(&mut self.ebpf, name::RESTORE[turn as usize])?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(&scene.frame),
            ctx_in: Some(&context),
            repeat: u32::try_from(count)?,
            ..TestRunOptions::new()
        })?;
        let wanted = match turn {
            Turn::Empty => PASS,
            Turn::Swap => TX,
            Turn::Subject => verdict,
        };
        ensure!(
            result.return_value == wanted,
            "the last verdict of {count} is {}, not {wanted}",
            result.return_value
        );
        let state = self.rehearsal.load(0);
        ensure!(state.done == first + count, "{} of {count} iterations were made", state.done - first);
        Ok((state.ended - state.started) as f64 / (count - 1) as f64)
    }
}

pub(crate) fn xdp<'e>(ebpf: &'e mut Ebpf, program: &str) -> Result<&'e mut Xdp> {
    Ok(ebpf.program_mut(program).with_context(|| format!("no program {program}"))?.try_into()?)
}
