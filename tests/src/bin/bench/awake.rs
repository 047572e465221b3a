//! Enters: the load. Leaves: what live's clients see where no processor ever falls asleep.
//!
//! Where processors may sleep, live's median at 10,000 requests a second is the highest without any mirror, and lower the more is
//! done in its place. Here somebody who gives way to everybody keeps them awake in each of the runs, and that is not so.

use std::{
    hint,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use mirror_tests::load::Pace;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    report::{Mark, Table, number},
    sys::give_way_to_all,
    trial::{Stage, Work},
    workloads::{Effort, Runs, live_table},
};

/// Live's latencies at fixed rates, with the processors awake.
pub(crate) fn measure(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let _awake = Awake::keep()?;
    let work = |rate| Work::gets(format!("GET {}/s, awake", number(rate)), Pace::PerSecond(rate));
    let runs = [10_000.0, 20_000.0].map(|rate| Runs::of(stage, work(rate), effort));
    let runs = runs.into_iter().collect::<Result<Vec<_>>>()?;
    let mut table = live_table("awake_live", "Small GETs while no processor falls asleep", &runs);
    table
        .note("A thread of the lowest class (SCHED_IDLE) on each processor does nothing, in all runs alike.");
    // Who spins takes the host's time, too, which the tail shows: it is the medians that this is about, and no mark.
    Ok((vec![table], Vec::new()))
}

/// Keeps all processors awake for as long as it lives.
struct Awake {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    fn keep() -> Result<Self> {
        let mut awake = Self { is_over: Arc::default(), threads: Vec::new() };
        for processor in 0..thread::available_parallelism()?.get() {
            let (ready, told) = mpsc::channel();
            let is_over = Arc::clone(&awake.is_over);
            awake.threads.push(thread::spawn(move || {
                let is_ready = settle_down(processor);
                let has_begun = is_ready.is_ok();
                ready.send(is_ready).ok();
                while has_begun && !is_over.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            }));
            told.recv()??;
        }
        Ok(awake)
    }
}

/// Has the calling thread stay on this processor, behind everybody else.
fn settle_down(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("pin a thread")?;
    give_way_to_all().context("take the lowest scheduling class")
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}
