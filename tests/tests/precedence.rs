//! Enters: steady load, on a node with idle time and on one without. Leaves: copies, sent by a thread that gives way where that
//! costs the copies nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mirror_tests::{
    load::{Pace, Plan, Running},
    require_agent,
    scenario::{PATIENCE, PORT, Scenario, Weight},
    server::Record,
    traffic::Same,
};

const GAVE_WAY: &str = "mirror_replay_gave_way_seconds_total";

/// `SCHED_OTHER` and `SCHED_IDLE`.
const ORDINARY: u32 = 0;
const IDLE: u32 = 5;

#[test]
fn thread_that_sends_gives_way_under_load_and_no_other_thread_does() -> Result<()> {
    require_agent!();
    if let Some(reason) = why_never() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let scenario = Scenario::with_record(Weight::Heavy, &[], Record::Count)?;
    let pid = scenario.agent.pid();
    let sender = i32::try_from(pid)?;
    ensure!(policies(pid)?.values().all(|policy| *policy == ORDINARY), "something gives way at rest");
    let load = Running::start(&scenario.net.client, plan(&scenario, Duration::from_secs(4)), Same::get())?;
    let mut gave_way = 0;
    let mut before = BTreeSet::new();
    while !load.is_finished() {
        let mut policies = policies(pid)?;
        let policy = policies.remove(&sender).context("no main thread")?;
        ensure!([ORDINARY, IDLE].contains(&policy), "{policy}");
        gave_way += u32::from(policy == IDLE);
        // One that was started this moment has not run yet.
        let others: BTreeSet<i32> = policies
            .into_iter()
            .filter(|(_, policy)| *policy != ORDINARY)
            .map(|(thread, _)| thread)
            .collect();
        ensure!(others.is_disjoint(&before), "another thread gives way: {others:?}");
        before = others;
        thread::sleep(Duration::from_millis(50));
    }
    let report = load.finish()?;
    ensure!(report.is_clean(), "live was affected: {report:?}");
    let ledger = scenario.settle()?;
    let seconds = scenario.agent.metrics()?.sum(GAVE_WAY);
    println!("seen giving way {gave_way} times, {seconds:.2} s of 4 s by its own account: {ledger}");
    ensure!(seconds > 0.0 && seconds < 5.0, "it never gave way");
    ensure!(ledger.mirrored == scenario.live.requests(), "{ledger}");
    scenario.expect_at_shadow(ledger.mirrored)?;

    // Nobody looks after it any more: it is an ordinary thread, and its account stands still.
    let deadline = Instant::now() + PATIENCE;
    while policies(pid)?.get(&sender) != Some(&ORDINARY) {
        ensure!(Instant::now() < deadline, "it gives way though there is nothing to send");
        thread::sleep(Duration::from_millis(10));
    }
    let account = scenario.agent.metrics()?.sum(GAVE_WAY);
    thread::sleep(Duration::from_millis(200));
    ensure!(scenario.agent.metrics()?.sum(GAVE_WAY) == account, "the account goes on");
    Ok(())
}

#[test]
fn copies_are_sent_on_a_node_without_idle_time() -> Result<()> {
    require_agent!();
    if let Some(reason) = why_never() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let scenario = Scenario::with_record(Weight::Heavy, &[], Record::Count)?;
    let load = Running::start(&scenario.net.client, plan(&scenario, Duration::from_secs(5)), Same::get())?;
    while scenario.agent.metrics()?.sum(GAVE_WAY) < 0.1 {
        ensure!(!load.is_finished(), "it never gave way");
        thread::sleep(Duration::from_millis(20));
    }
    // It gives way already when the processors are taken from it.
    let busy = Busy::start()?;
    let mut longest = Duration::ZERO;
    while !load.is_finished() {
        let asked = Instant::now();
        scenario.agent.metrics()?;
        longest = longest.max(asked.elapsed());
        thread::sleep(Duration::from_millis(100));
    }
    load.finish()?;
    let ledger = scenario.settle()?;
    let seconds = scenario.agent.metrics()?.sum(GAVE_WAY);
    drop(busy);
    println!("gave way for {seconds:.3} s of 5 s; a scrape took {longest:?} at most: {ledger}");
    ensure!(ledger.mirrored == scenario.live.requests(), "{ledger}");
    scenario.expect_at_shadow(ledger.mirrored)?;
    ensure!(longest < Duration::from_secs(1), "the agent did not answer for {longest:?}");
    Ok(())
}

/// Why it would not give way on this kernel; `None` where it does.
fn why_never() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let is_old = (parts.next()?, parts.next()?) < (6, 6);
    is_old.then(|| format!("on Linux {} no thread gives way", release.trim()))
}

fn plan(scenario: &Scenario, duration: Duration) -> Plan {
    Plan::new(scenario.net.live.at_v4(PORT), Pace::PerSecond(1_000.0), duration, 16)
}

/// The scheduling policy of each thread of a process, by its number (`proc_pid_stat(5)`, field 41).
fn policies(pid: u32) -> Result<BTreeMap<i32, u32>> {
    let mut policies = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        // The first of them is the third of all.
        let policy = fields.split_whitespace().nth(41 - 3).context("no policy")?;
        policies.insert(task.file_name().to_string_lossy().parse()?, policy.parse()?);
    }
    Ok(policies)
}

/// Two threads for each processor that do nothing but to run, for half a minute at most.
struct Busy {
    is_over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Busy {
    fn start() -> Result<Self> {
        let is_over = Arc::<AtomicBool>::default();
        let until = Instant::now() + Duration::from_secs(30);
        let threads = (0..2 * thread::available_parallelism()?.get())
            .map(|_| {
                let is_over = Arc::clone(&is_over);
                thread::spawn(move || while !is_over.load(Ordering::Relaxed) && Instant::now() < until {})
            })
            .collect();
        Ok(Self { is_over, threads })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It cannot panic.
            drop(thread.join());
        }
    }
}
