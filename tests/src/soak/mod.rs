//! Enters: how long, which seed. Leaves: mixed traffic mirrored over bad wires, and whether the books are exact.
//!
//! Every request carries a number from which all its bytes follow, so that both servers check each byte and count each
//! number. Everything that happens is drawn from the seed; when exactly it meets which request is up to the machine.

mod book;
mod clients;
mod memory;
mod requests;
mod trouble;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use self::{
    book::{Book, Markers},
    clients::Clients,
    memory::{Memory, Trend},
    trouble::{Mishaps, SPARE_INTERFACE, Scene, add_spare, bad_wires, start_shadow},
};
use crate::{
    agent::{Agent, Arguments},
    metrics::Ledger,
    netns::{INTERFACE, Topology},
    rng::Rng,
    scenario::PORT,
    server::Server,
    sys,
};

/// How long the agent may take to settle its books after the last request: its own time limits, and a busy machine.
const SETTLING: Duration = Duration::from_secs(30);

/// How long the first allocations are let pass before memory has to be flat.
const WARM_UP: Duration = Duration::from_secs(60);

/// How much the agent may have for what traffic makes grow, as its option says it.
const MEMORY: &str = "128MiB";

/// Most that the agent may hold in all, in bytes: the budget, its ring, heads under way, the program and the kernel's
/// tables (see the README).
const MOST_MEMORY: u64 = (128 + 16 + 48 + 16) << 20;

/// Fewest requests a second with which a run says something, a client.
const LEAST_RATE: f64 = 2.0;

/// Least share of the requests that has to arrive at the shadow, which is stopped now and then.
const LEAST_SHARE: f64 = 0.5;

/// A run of this length meets every kind of mishap.
const ALL_MISHAPS: Duration = Duration::from_secs(180);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// For how long requests are made.
    pub duration: Duration,
    /// Where all chance comes from.
    pub seed: u64,
    /// Clients at work at the same time.
    pub clients: usize,
    /// Segments lost, and doubled, at each place, in percent.
    pub loss_percent: f64,
    /// Whether the agent is paused and resumed, too.
    pub pauses: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    mishaps: Mishaps,
    connections: u64,
    answered: u64,
    failed: u64,
    /// What was asked for.
    options: Options,
    /// Segments that clients and live sent again: the proof that the wires are bad.
    sent_again: u64,
    /// Requests that live counted, each number once.
    served: u64,
    /// Requests that live got although a client had never sent them so, or twice.
    live_wrong: u64,
    /// Of those served, at the shadow exactly once.
    at_shadow: u64,
    twice: u64,
    /// Of those, sent when the agent was paused, or just after.
    twice_by_pause: u64,
    altered: u64,
    first_altered: Option<String>,
    /// At the shadow without live having served them.
    foreign: u64,
    /// Served, not at the shadow, and sent when the agent did not look.
    excused: u64,
    ledger: Ledger,
    trend: Option<Trend>,
    ended_well: bool,
}

/// Runs it. Every way out takes down all that was set up.
///
/// # Errors
///
/// Something cannot be set up, the agent dies, its books do not balance at some moment, or the user interrupts.
pub fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let net = Topology::new()?;
    add_spare(&net)?;
    let live_book = Arc::new(Book::new(options.seed, Markers::None));
    let shadow_book = Arc::new(Book::new(options.seed, Markers::Expected));
    let witness = Arc::clone(&live_book);
    let live = Server::watched(&net.live, PORT, witness)?;
    let mut shadow = Some(start_shadow(&net, &shadow_book)?);
    let interfaces = format!("{INTERFACE},{SPARE_INTERFACE}");
    let arguments = Arguments::on(&interfaces, PORT, &format!("http://{}", net.shadow.at_v4(PORT))).with(&[
        "--methods",
        "all",
        "--memory",
        MEMORY,
    ]);
    let agent = Agent::start(&net.live, &arguments)?;
    let wires = bad_wires(&net, options.loss_percent)?;

    let mut rng = Rng::new(options.seed);
    let targets = [net.live.at_v4(PORT), net.live.at_v6(PORT)];
    let mut clients = Clients::start(&net.client, targets, options.clients, options.seed)?;
    let mut mishaps = Mishaps::default();
    let mut memory = Memory::default();
    let started = Instant::now();
    let mut next_mishap = Duration::from_secs(2);
    let mut next_line = Duration::from_secs(10);
    while started.elapsed() < options.duration {
        if sys::interrupted() {
            bail!("interrupted; everything is taken down again");
        }
        thread::sleep(Duration::from_millis(500));
        // The books are looked at again and again: they have to balance at any moment.
        agent.ledger()?;
        memory.note(started.elapsed(), agent.pss()?);
        if started.elapsed() >= next_mishap {
            let mut scene = Scene {
                net: &net,
                agent: &agent,
                clients: &clients,
                shadow: &mut shadow,
                shadow_book: &shadow_book,
                mishaps: &mut mishaps,
                pauses: options.pauses,
            };
            scene.mishap(&mut rng)?;
            next_mishap = started.elapsed() + Duration::from_millis(rng.between(1_000, 5_000) as u64);
        }
        if started.elapsed() >= next_line {
            next_line += Duration::from_secs(10);
            say(&progress(started.elapsed(), &agent, &clients, &mishaps)?);
        }
    }

    // The wires mend, so that what is under way gets through.
    drop(wires);
    clients.finish();
    let at_live = live.requests();
    let deadline = Instant::now() + SETTLING;
    let mut ledger = agent.ledger()?;
    while (ledger.pending > 0 || ledger.seen < at_live) && Instant::now() < deadline {
        // Those not seen for a pause will not come: books at rest are enough after a while.
        thread::sleep(Duration::from_millis(100));
        let next = agent.ledger()?;
        let is_at_rest = next == ledger && next.pending == 0;
        ledger = next;
        if is_at_rest && Instant::now() + SETTLING - Duration::from_secs(3) > deadline {
            break;
        }
    }
    // A copy too many would come late.
    thread::sleep(Duration::from_millis(500));
    let sent_again = net.client.counter("Tcp", "RetransSegs")? + net.live.counter("Tcp", "RetransSegs")?;
    let trend = memory.trend(WARM_UP.min(options.duration / 3));
    let ended_well = agent.stop()?.status.success();
    drop(shadow);
    drop(live);
    let outcome = compare(*options, &clients, mishaps, [&live_book, &shadow_book], ledger);
    Ok(Outcome { sent_again, trend, ended_well, ..outcome })
}

/// How it stands: what clients felt, what went wrong, what the agent holds, and its books.
fn progress(at: Duration, agent: &Agent, clients: &Clients, mishaps: &Mishaps) -> Result<String> {
    let metrics = agent.metrics()?;
    let kilobytes = |pool: &str| metrics.value("mirror_memory_bytes", "pool", pool) / 1024.0;
    Ok(format!(
        "{:>5} s: {} answered, {} failed; {mishaps}\n         {} KiB, of which flows {:.0}, messages {:.0}, replay \
         {:.0}; {} flows\n         {}",
        at.as_secs(),
        clients.answered(),
        clients.failed(),
        agent.pss()? >> 10,
        kilobytes("flows"),
        kilobytes("messages"),
        kilobytes("replay"),
        metrics.sum("mirror_flows_active"),
        metrics.ledger(),
    ))
}

/// Holds the shadow's account against live's.
fn compare(
    options: Options,
    clients: &Clients,
    mishaps: Mishaps,
    [live, shadow]: [&Book; 2],
    ledger: Ledger,
) -> Outcome {
    let (served, copied) = (live.times(), shadow.times());
    let mut excusable = vec![false; served.len()];
    for number in clients.excused() {
        if let Some(slot) = usize::try_from(number).ok().and_then(|number| excusable.get_mut(number)) {
            *slot = true;
        }
    }
    let copies = |number: usize| copied.get(number).copied().unwrap_or(0);
    let count = |is_so: &dyn Fn(usize) -> bool| {
        (0..served.len().max(copied.len())).filter(|at| is_so(*at)).count() as u64
    };
    let is_served = |number: usize| served.get(number).is_some_and(|times| *times > 0);
    Outcome {
        options,
        mishaps,
        connections: clients.connections(),
        answered: clients.answered(),
        failed: clients.failed(),
        served: count(&is_served),
        live_wrong: live.altered() + count(&|number| served.get(number).is_some_and(|times| *times > 1)),
        at_shadow: count(&|number| is_served(number) && copies(number) == 1),
        twice: count(&|number| copies(number) > 1),
        twice_by_pause: count(&|number| copies(number) > 1 && excusable.get(number).is_some_and(|is| *is)),
        altered: shadow.altered(),
        first_altered: shadow.first_altered(),
        foreign: count(&|number| copies(number) > 0 && !is_served(number)),
        excused: count(&|number| {
            is_served(number) && copies(number) == 0 && excusable.get(number).is_some_and(|is| *is)
        }),
        ledger,
        sent_again: 0,
        trend: None,
        ended_well: false,
    }
}

impl Outcome {
    /// Requests that live served and of which neither the shadow nor a reason in the books knows: seen by nobody.
    fn unseen(&self) -> i64 {
        i64::try_from(self.served).unwrap_or(i64::MAX) - i64::try_from(self.ledger.seen).unwrap_or(i64::MAX)
    }

    /// The figures, a line each.
    #[must_use]
    pub fn figures(&self) -> Vec<String> {
        let mut lines = vec![
            format!("mishaps: {}", self.mishaps),
            format!(
                "clients: {} requests answered over {} connections, {} failed; {} segments sent again",
                self.answered, self.connections, self.failed, self.sent_again
            ),
            format!(
                "live served {}, the shadow has {} of them once; {} missing for a pause, {} unseen in all",
                self.served,
                self.at_shadow,
                self.excused,
                self.unseen()
            ),
            format!("books: {}", self.ledger),
        ];
        lines.push(match &self.trend {
            Some(trend) => format!(
                "memory after warming up: at most {:.1} MiB, {:+.0} KiB a minute, {:+.2} MiB over {} s, {} samples",
                trend.most as f64 / 1_048_576.0,
                trend.slope_a_minute / 1024.0,
                trend.rise / 1_048_576.0,
                trend.span.as_secs(),
                trend.samples
            ),
            None => "memory: too few samples".to_owned(),
        });
        lines
    }

    /// Whether what should try the agent has happened at all.
    fn trials(&self) -> Vec<(bool, String)> {
        let Options { duration, clients, loss_percent, pauses, .. } = self.options;
        let least = (duration.as_secs_f64() * LEAST_RATE * clients as f64).floor();
        let share = self.at_shadow as f64 / self.served.max(1) as f64;
        let all = duration >= ALL_MISHAPS;
        vec![
            (self.served as f64 >= least, format!("live served {}, {least} at least", self.served)),
            (
                share >= LEAST_SHARE,
                format!(
                    "{:.1} % of them are at the shadow, {:.0} at least",
                    100.0 * share,
                    100.0 * LEAST_SHARE
                ),
            ),
            (
                loss_percent <= 0.0 || self.sent_again as f64 >= self.served as f64 * loss_percent / 100.0,
                format!("{} segments were sent again: the wires were bad", self.sent_again),
            ),
            (
                self.mishaps.total() > 0 && (!all || self.mishaps.has_all(pauses)),
                format!(
                    "mishaps, {}: {}",
                    if all { "each kind of them" } else { "of any kind" },
                    self.mishaps
                ),
            ),
        ]
    }

    /// What was promised, and whether it held; first, whether anything was put to the test.
    #[must_use]
    pub fn checks(&self) -> Vec<(bool, String)> {
        let ledger = &self.ledger;
        let unanswered: u64 =
            ledger.replays.iter().filter(|(outcome, _)| *outcome != "answered").map(|(_, count)| count).sum();
        let not_arrived = ledger.mirrored.saturating_sub(self.at_shadow);
        let missing = self.served.saturating_sub(self.at_shadow + self.excused);
        let excused = i64::try_from(self.excused).unwrap_or(i64::MAX);
        let failed = i64::try_from(self.failed).unwrap_or(i64::MAX);
        let mut checks = self.trials();
        checks.extend([
            (
                self.live_wrong == 0,
                format!("live got every request once, unaltered ({} not so)", self.live_wrong),
            ),
            (self.altered == 0, format!("{} altered at the shadow {:?}", self.altered, self.first_altered)),
            (
                self.twice == 0,
                format!("{} twice at the shadow, {} of them after a pause", self.twice, self.twice_by_pause),
            ),
            (self.foreign == 0, format!("{} at the shadow that live did not serve", self.foreign)),
            (ledger.is_balanced() && ledger.pending == 0, "the books balance, nothing is pending".to_owned()),
            (
                (-failed..=excused).contains(&self.unseen()),
                format!(
                    "live's count less the agent's is {}: at most the {} missing for a pause, at least minus the {} that \
                     failed",
                    self.unseen(),
                    self.excused,
                    self.failed
                ),
            ),
            (
                self.at_shadow <= ledger.mirrored && not_arrived <= unanswered,
                format!(
                    "{not_arrived} mirrored ones not at the shadow: no more than the {unanswered} replays it broke off"
                ),
            ),
            (
                missing <= ledger.all_dropped() + not_arrived,
                format!(
                    "{missing} missing though the agent looked: no more than the {} dropped and the {not_arrived} that \
                     did not arrive, so none was lost",
                    ledger.all_dropped()
                ),
            ),
            (ledger.all_frames_dropped() == 0, format!("{} frames dropped", ledger.all_frames_dropped())),
            (
                self.trend.is_some_and(|trend| trend.most <= MOST_MEMORY),
                "memory is under its budget".to_owned(),
            ),
            (self.ended_well, "the agent ended well".to_owned()),
        ]);
        // A short run says nothing about growth.
        if let Some(is_flat) = self.trend.and_then(|trend| trend.is_flat()) {
            checks.push((is_flat, "memory is flat after warming up".to_owned()));
        }
        checks
    }
}
