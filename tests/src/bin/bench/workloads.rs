//! Enters: works. Leaves: their tables: without a mirror, with the bare sender in its place, with the mirror.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mirror_tests::{
    load::{Pace, Reuse},
    server::Behavior,
    traffic::Same,
};

use crate::{
    crowd::Crowd,
    marks,
    report::{Cell, Figure, Mark, Table, number},
    trial::{Beside, Mirrored, PORT, Setup, Shadow, Stage, Trial, Watch, Work},
};

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) duration: Duration,
    pub(crate) rounds: usize,
}

/// All runs of one work.
pub(crate) struct Runs {
    pub(crate) work: Work,
    pub(crate) nothing: Vec<Trial>,
    pub(crate) bare: Vec<Trial>,
    pub(crate) mirror: Vec<Trial>,
    /// One more with the mirror, closely watched.
    pub(crate) watched: Trial,
}

/// Small GETs at fixed rates and as fast as it goes.
pub(crate) fn gets(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let rates = [5_000.0, 10_000.0, 20_000.0];
    let mut works =
        rates.map(|rate| Work::gets(format!("GET {}/s", number(rate)), Pace::PerSecond(rate))).to_vec();
    works.push(Work::gets(MAX, Pace::ClosedLoop));
    works.push(Work {
        setup: Setup::Options(&["--pipeline", "8"]),
        ..Work::gets("GET max, --pipeline 8", Pace::ClosedLoop)
    });
    let all = works.into_iter().map(|work| Runs::of(stage, work, effort)).collect::<Result<Vec<_>>>()?;
    let mut tables = tables(["gets_live", "gets_mirror"], "Small GETs on 64 keep-alive connections", &all);
    tables[0].note(
        "Open loop, latency from the due time; at maximum a closed loop, where the bare sender keeps the rate that the \
         mirror reached.",
    );
    let mut marks = Vec::new();
    for runs in all.iter().filter(|runs| ["GET 10000/s", "GET 20000/s"].contains(&&*runs.work.name)) {
        marks.extend([marks::cpu(runs, 1.4), marks::all_at_shadow(runs), marks::live_feels_nothing(runs)]);
    }
    marks.extend(
        all.iter()
            .filter(|runs| runs.work.name.ends_with("20000/s"))
            .flat_map(|runs| [marks::lag(runs, 5.0), marks::memory(runs, 48.0)]),
    );
    marks
        .extend(all.iter().filter(|runs| runs.work.name == MAX).map(|runs| marks::flat_out(runs, 0.5, 90.0)));
    Ok((tables, marks))
}

/// The work that has a mark of its own.
const MAX: &str = "GET max";

/// A connection for each request.
pub(crate) fn close(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let work = Work {
        request: Same(
            b"GET /api/items/4711 HTTP/1.1\r\nHost: live.example\r\nUser-Agent: load/1\r\nAccept: */*\r\nConnection: close\r\n\r\n"
                .to_vec(),
        ),
        reuse: Reuse::PerRequest,
        ..Work::gets("close 2000/s", Pace::PerSecond(2_000.0))
    };
    let runs = [Runs::of(stage, work, effort)?];
    let marks = vec![marks::cpu(&runs[0], 1.5)];
    Ok((tables(["close_live", "close_mirror"], "A connection for each request", &runs), marks))
}

/// Bodies of 64 KiB and of 1 MiB.
pub(crate) fn posts(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let work = |name: &str, bytes, rate| Work {
        request: Same::post(bytes),
        setup: Setup::Options(&["--methods", "all"]),
        ..Work::gets(name, Pace::PerSecond(rate))
    };
    let works = [work("64 KiB 1000/s", 64 << 10, 1_000.0), work("1 MiB 60/s", 1 << 20, 60.0)];
    let runs = works.into_iter().map(|work| Runs::of(stage, work, effort)).collect::<Result<Vec<_>>>()?;
    let marks = vec![marks::cpu(&runs[0], 2.0)];
    Ok((tables(["posts_live", "posts_mirror"], "POSTs on keep-alive connections", &runs), marks))
}

/// Several requests on a connection at a time.
pub(crate) fn pipelined(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let work = Work { pipeline: 8, ..Work::gets("8 at a time, 10000/s", Pace::PerSecond(10_000.0)) };
    let runs = [Runs::of(stage, work, effort)?];
    Ok((tables(["pipelined_live", "pipelined_mirror"], "Pipelined small GETs", &runs), Vec::new()))
}

/// Small GETs beside many connections that say nothing.
pub(crate) fn idle(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let work = |name: &str, crowd| Work { crowd, ..Work::gets(name, Pace::PerSecond(10_000.0)) };
    let works = [work("none", Crowd::Nobody), work("10000", Crowd::Connections(10_000))];
    let runs = works.into_iter().map(|work| Runs::of(stage, work, effort)).collect::<Result<Vec<_>>>()?;
    let title = "Small GETs, 10,000/s, beside idle connections";
    Ok((tables(["idle_live", "idle_mirror"], title, &runs), Vec::new()))
}

/// Answers compared, and many experiments with many rules.
pub(crate) fn experiments(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let work = |name: &str, text, size| Work {
        setup: Setup::File { text, size },
        ..Work::gets(name, Pace::PerSecond(10_000.0))
    };
    let works = [
        work("one", many_file, 1),
        work("one, compared", compared_file, 1),
        work("10 of 10 rules", many_file, 10),
        work("100 of 10 rules", many_file, 100),
    ];
    let runs = Runs::side_by_side(stage, works, effort)?;
    let [one, compared, _, many] = &runs[..] else { bail!("four works make four runs") };
    let marks = vec![marks::cpu(compared, 2.5), marks::cpu_beside(many.mirrored(), one.mirrored(), 1.1)];
    let title = "Small GETs, 10,000/s, by what the configuration file asks for";
    Ok((tables(["experiments_live", "experiments_mirror"], title, &runs), marks))
}

fn compared_file(shadow: &str, _size: usize) -> String {
    experiment_file(&experiment("bench", shadow, "    compare: {}\n"))
}

/// So many experiments; the one that takes the requests stands last, and has no rules.
fn many_file(shadow: &str, size: usize) -> String {
    let mut experiments = String::new();
    for number in 1..size {
        let mut matches = "    matches:\n".to_owned();
        for rule in 0..10 {
            matches.push_str(&format!(
                "      - {{ path: {{ type: PathPrefix, value: /api/{number}/{rule} }}, headers: [{{ name: x-team, value: \"{rule}\" }}] }}\n"
            ));
        }
        experiments.push_str(&experiment(&format!("other-{number}"), shadow, &matches));
    }
    experiments.push_str(&experiment("bench", shadow, ""));
    experiment_file(&experiments)
}

pub(crate) fn experiment_file(experiments: &str) -> String {
    format!("capture: {{ interfaces: [eth0] }}\nexperiments:\n{experiments}")
}

/// Copies in flight of each experiment: those of a hundred together are within what an agent allows.
const IN_FLIGHT: usize = 40;

pub(crate) fn experiment(name: &str, shadow: &str, lines: &str) -> String {
    format!(
        "  - name: {name}\n    expires: never\n    ports: [{PORT}]\n    targets:\n      - {{ name: v2, url: \"{shadow}\", limits: {{ maxInFlight: {IN_FLIGHT} }} }}\n{lines}"
    )
}

/// Whether a guard leaves connections out: of the works here, it is the one that goes as fast as it can.
fn is_guarded(work: &Work) -> bool {
    matches!(work.pace, Pace::ClosedLoop)
}

/// How long the guard gets to find the share that is right: it looks once a second, and halves what is too much.
const GUARD_SETTLES_IN: Duration = Duration::from_secs(8);

/// Shadows that are not well, and an agent that may use little.
pub(crate) fn protection(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let ill = |name: &str, behavior| Work {
        shadow: Shadow::Ill(behavior),
        ..Work::gets(name, Pace::PerSecond(5_000.0))
    };
    let guarded = Work {
        setup: Setup::Options(&["--guard-cpu", "10%"]),
        settle: GUARD_SETTLES_IN,
        ..Work::gets("guard of 10 %, max", Pace::ClosedLoop)
    };
    let works =
        [ill("shadow hangs", Behavior::Hang), ill("shadow late by 20 ms", Behavior::Late(20)), guarded];
    let mut all = Vec::new();
    for work in works {
        let (mut nothing, mut mirror) = (Vec::new(), Vec::new());
        for round in 0..effort.rounds {
            for turn in [round, round + 1] {
                if turn.is_multiple_of(2) {
                    nothing.push(stage.run(&work, Beside::Nothing, effort.duration)?);
                } else {
                    mirror.push(stage.run(&work, Beside::Mirror(Watch::Outside), effort.duration)?);
                }
            }
        }
        all.push((work, nothing, mirror));
    }
    let mut table = Table::new(
        "protection",
        "Shadows that are not well, and a guard: what live's clients see",
        &[
            "work",
            "beside live",
            "req/s",
            "ratio",
            "p50 µs",
            "p99 µs",
            "failed",
            "seen %",
            "mirrored %",
            "books exact",
        ],
    );
    for (work, nothing, mirror) in &all {
        let alone = Figure::of(nothing.iter().map(|trial| trial.rate));
        for (kind, trials) in [("nothing", nothing), ("mirror", mirror)] {
            let rate = Figure::of(trials.iter().map(|trial| trial.rate));
            let latency = |index: usize| Figure::of(trials.iter().map(|trial| trial.latency[index]));
            let seen = || trials.iter().filter_map(|trial| trial.mirror.as_ref());
            let exact = seen().filter(|one| one.faults(!is_guarded(work)).is_empty()).count();
            table.rows.push(vec![
                work.name.as_str().into(),
                kind.into(),
                rate.into(),
                rate.zip(alone).map(|(rate, alone)| rate.median / alone.median).into(),
                latency(0).into(),
                latency(1).into(),
                (trials.iter().map(|trial| trial.failed()).sum::<u64>() as f64).into(),
                Figure::of(seen().map(|one| 100.0 * one.books.seen as f64 / one.at_live.max(1) as f64))
                    .into(),
                Figure::of(seen().map(Mirrored::share_mirrored)).into(),
                if kind == "mirror" { format!("{exact} of {}", trials.len()).into() } else { Cell::None },
            ]);
        }
    }
    table.note(
        "Two runs of a round beside each other, the order changes. Books are exact where nothing is pending in the end, \
         what is seen is what live has counted (behind a guard: no more), what is mirrored is what the shadow has; \
         a request that is not mirrored is counted by its reason.",
    );
    table.note(format!(
        "The guard's load runs {} s longer, in which it settles: rate and latencies are those of the time after, the rest is \
         of the whole.",
        GUARD_SETTLES_IN.as_secs()
    ));
    table.note(others(all.iter().flat_map(|(_, nothing, mirror)| nothing.iter().chain(mirror))));
    let marks = all
        .iter()
        .map(|(work, nothing, mirror)| {
            let promised = if is_guarded(work) {
                marks::Beside { rate: 0.93, p99: None, sees_all: false }
            } else {
                marks::Beside { rate: 0.99, p99: Some(1.2), sees_all: true }
            };
            marks::live_beside(&work.name, nothing, mirror, promised)
        })
        .collect();
    Ok((vec![table], marks))
}

/// 20,000 GETs a second with the agent on one processor: what the marks are about.
pub(crate) fn one_core(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let rate = 20_000;
    let work = Work::gets("GET 20000/s", Pace::PerSecond(f64::from(rate)));
    let (mut bare, mut mirror) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        bare.push(stage.run(&work, Beside::BareSender(rate), effort.duration)?);
        mirror.push(stage.run(&work, Beside::Mirror(Watch::Pinned(0)), effort.duration)?);
    }
    let mut table = Table::new("one_core", "The agent limited to one processor", &MIRROR_COLUMNS);
    table.rows.push(mirror_row(&work.name, &bare, &mirror, None));
    table.note(
        "All threads of the agent are pinned to processor 0; everything else runs where the kernel puts it.",
    );
    table.note(others(bare.iter().chain(&mirror)));
    let seen = || mirror.iter().filter_map(|trial| trial.mirror.as_ref());
    let worst = seen().map(Mirrored::share_mirrored).fold(100.0, f64::min);
    let exact = seen().filter(|one| one.verdict() == "exact").count();
    let ratio = ratio_to_bare(&bare, &mirror);
    let memory = seen().map(|one| one.memory).max().unwrap_or(0) as f64 / MIB;
    let marks = vec![
        Mark {
            promise: "20,000 GETs/s, agent on one core: none lost".to_owned(),
            found: format!(
                "{worst:.3} % mirrored in the worst round, books exact in {exact} of {}",
                mirror.len()
            ),
            is_kept: worst >= 100.0 && exact == mirror.len(),
        },
        Mark {
            promise: "the same: CPU a request ≤ 2 × the bare sender's".to_owned(),
            found: ratio.map_or_else(|| "no figure".to_owned(), |ratio| ratio.to_string()),
            is_kept: ratio.is_some_and(|ratio| ratio.median <= 2.0),
        },
        Mark {
            promise: "the same: memory (peak PSS) ≤ 64 MiB".to_owned(),
            found: format!("{memory:.1} MiB"),
            is_kept: memory <= 64.0,
        },
    ];
    Ok((vec![table], marks))
}

pub(crate) const MIB: f64 = 1024.0 * 1024.0;

impl Runs {
    /// Its name and how it went beside the mirror.
    fn mirrored(&self) -> (&str, &[Trial]) {
        (&self.work.name, &self.mirror)
    }

    /// Runs a work in rounds.
    pub(crate) fn of(stage: &Stage, work: Work, effort: Effort) -> Result<Self> {
        Self::side_by_side(stage, [work], effort)?.pop().context("one work makes one run")
    }

    /// Runs works in rounds, of which each has all of them; what comes first changes from one to the next.
    fn side_by_side(
        stage: &Stage,
        works: impl IntoIterator<Item = Work>,
        effort: Effort,
    ) -> Result<Vec<Self>> {
        let mut all = works.into_iter().map(|work| (work, [const { Vec::new() }; 3])).collect::<Vec<_>>();
        let count = all.len();
        for (round, at) in (0..effort.rounds).flat_map(|round| (0..count).map(move |at| (round, at))) {
            let Some((work, [nothing, bare, mirror])) = all.get_mut((round + at) % count) else { continue };
            for step in 0..3 {
                // As fast as it goes, the bare sender follows the mirror.
                let turn = if matches!(work.pace, Pace::ClosedLoop) { step } else { step + round };
                match turn % 3 {
                    0 => nothing.push(stage.run(work, Beside::Nothing, effort.duration)?),
                    1 => mirror.push(stage.run(work, Beside::Mirror(Watch::Outside), effort.duration)?),
                    _ => {
                        let rate = bare_rate(work, mirror.last());
                        bare.push(stage.run(work, Beside::BareSender(rate), effort.duration)?);
                    }
                }
            }
        }
        let watched = |(work, [nothing, bare, mirror]): (Work, [Vec<Trial>; 3])| {
            let watched = stage.run(&work, Beside::Mirror(Watch::Closely), effort.duration)?;
            Ok(Self { work, nothing, bare, mirror, watched })
        };
        all.into_iter().map(watched).collect()
    }
}

/// The rate at which the bare sender sends: the load's, or what the mirror reached.
pub(crate) fn bare_rate(work: &Work, mirror: Option<&Trial>) -> u32 {
    match work.pace {
        Pace::PerSecond(rate) => rate.round() as u32,
        Pace::ClosedLoop => mirror
            .and_then(|trial| Some((trial.mirror.as_ref()?.books.mirrored as f64, trial.report.elapsed)))
            .map_or(1_000, |(mirrored, elapsed)| (mirrored / elapsed.as_secs_f64()).max(1_000.0) as u32),
    }
}

/// The table of live's view.
pub(crate) fn live_table(name: &'static str, title: &str, all: &[Runs]) -> Table {
    let mut live = Table::new(
        name,
        format!("{title}: what live's clients see"),
        &["work", "beside live", "req/s", "ratio", "p50 µs", "p99 µs", "p99.9 µs", "failed"],
    );
    for runs in all {
        let alone = Figure::of(runs.nothing.iter().map(|trial| trial.rate));
        let kinds = [("nothing", &runs.nothing), ("bare sender", &runs.bare), ("mirror", &runs.mirror)];
        for (kind, trials) in kinds {
            let rate = Figure::of(trials.iter().map(|trial| trial.rate));
            let ratio = rate.zip(alone).map(|(rate, alone)| rate.median / alone.median);
            let latency = |index: usize| Figure::of(trials.iter().map(|trial| trial.latency[index]));
            let failed = trials.iter().map(|trial| trial.failed()).sum::<u64>();
            live.rows.push(vec![
                runs.work.name.as_str().into(),
                kind.into(),
                rate.into(),
                ratio.into(),
                latency(0).into(),
                latency(1).into(),
                latency(2).into(),
                (failed as f64).into(),
            ]);
        }
    }
    live.note(
        "Median of the rounds (least–most); rounds of the three kinds are interleaved. Failed: requests of all rounds \
         without a good answer.",
    );
    let trials = all.iter().flat_map(|runs| [&runs.nothing, &runs.bare, &runs.mirror]).flatten();
    live.note(others(trials));
    live
}

/// The table of live's view and that of the mirror's.
fn tables(names: [&'static str; 2], title: &str, all: &[Runs]) -> Vec<Table> {
    let live = live_table(names[0], title, all);
    let mut mirror =
        Table::new(names[1], format!("{title}: what the mirror costs and does"), &MIRROR_COLUMNS);
    for runs in all {
        mirror.rows.push(mirror_row(&runs.work.name, &runs.bare, &runs.mirror, Some(&runs.watched)));
    }
    mirror.note(
        "CPU: user and system of agent or bare sender, ms for 1,000 requests mirrored or sent; \"× bare\": each round's agent by \
         the median bare sender. On one machine a send runs the receiving host's part too, for both of them.",
    );
    mirror.note(
        "Kernel program (all hooks, the agent's own packets too; the share at egress is in the CPU of who sends) and system \
         calls: and memory's peak: from one more run with statistics on, which they slow down. Lag: linear within the histogram's buckets; of \
         copies sent in the first 0.3 s it is left out, as latencies are.",
    );
    vec![live, mirror]
}

/// How much these runs were disturbed.
pub(crate) fn others<'a>(trials: impl IntoIterator<Item = &'a Trial>) -> String {
    let foreign = Figure::of(trials.into_iter().map(|trial| trial.foreign.round()));
    let foreign = foreign.map_or_else(|| "?".to_owned(), |foreign| foreign.to_string());
    format!("Others kept the processors {foreign} % busy during these runs, kernel threads included.")
}

const MIRROR_COLUMNS: [&str; 14] = [
    "work",
    "CPU agent",
    "of it capture",
    "CPU bare",
    "× bare",
    "kernel ns/req",
    "ns/packet",
    "at shadow at end %",
    "lag p50 ms",
    "lag p99 ms",
    "PSS MiB",
    "sleeps/req",
    "syscalls/req",
    "books",
];

/// Each round's CPU of the agent by the median of the bare sender's.
pub(crate) fn ratio_to_bare(bare: &[Trial], mirror: &[Trial]) -> Option<Figure> {
    let bare = Figure::of(bare.iter().filter_map(|trial| Some(trial.bare?.cpu_per_thousand())))?;
    let agent = mirror.iter().filter_map(|trial| Some(trial.mirror.as_ref()?.cpu_per_thousand()));
    Figure::of(agent.map(|agent| agent / bare.median))
}

fn mirror_row(name: &str, bare: &[Trial], mirror: &[Trial], watched: Option<&Trial>) -> Vec<Cell> {
    let figure = |value: &dyn Fn(&Mirrored) -> Option<f64>| {
        Cell::from(Figure::of(mirror.iter().filter_map(|trial| value(trial.mirror.as_ref()?))))
    };
    let watched = watched.and_then(|trial| Some((trial.report.elapsed, trial.mirror.as_ref()?)));
    let kernel = watched.and_then(|(_, one)| Some(one.programs?.nanos as f64 / one.at_live.max(1) as f64));
    let cost = watched.and_then(|(_, one)| one.programs);
    let peak = watched.map(|(_, one)| one.memory as f64 / MIB);
    let per_packet = cost.map(|cost| cost.nanos as f64 / cost.runs.max(1) as f64);
    let calls = watched
        .and_then(|(elapsed, one)| Some(one.calls? * elapsed.as_secs_f64() / one.at_live.max(1) as f64));
    let verdicts =
        mirror.iter().filter_map(|trial| Some(trial.mirror.as_ref()?.verdict())).collect::<Vec<_>>();
    let faults = verdicts.iter().filter(|verdict| *verdict != "exact").cloned().collect::<Vec<_>>();
    let books = if faults.is_empty() { "exact".to_owned() } else { faults.join(" / ") };
    vec![
        name.into(),
        figure(&|one| Some(one.cpu_per_thousand())),
        figure(&|one| Some(one.per_request(one.usage.capture_cpu.as_secs_f64()) * 1e6)),
        Figure::of(bare.iter().filter_map(|trial| Some(trial.bare?.cpu_per_thousand()))).into(),
        ratio_to_bare(bare, mirror).into(),
        kernel.into(),
        per_packet.into(),
        figure(&|one| Some(one.share_at_end())),
        figure(&|one| Some(one.lag[0]? * 1e3)),
        figure(&|one| Some(one.lag[1]? * 1e3)),
        peak.map_or_else(|| figure(&|one| Some(one.memory as f64 / MIB)), Cell::from),
        figure(&|one| Some(one.per_request(one.usage.sleeps as f64))),
        calls.into(),
        books.into(),
    ]
}

/// The rate at which the mirror begins to lose, with the agent on one processor.
pub(crate) fn onset(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let mut table = Table::new(
        "onset",
        "Where loss begins: small GETs, the agent limited to one processor",
        &[
            "asked req/s",
            "live req/s",
            "mirrored %",
            "CPU agent",
            "agent's core %",
            "lag p99 ms",
            "PSS MiB",
            "others %",
            "books",
        ],
    );
    let mut rate = ONSET_START;
    let (mut held, mut end) = (None, "the last rate tried was still mirrored whole".to_owned());
    while rate <= ONSET_LIMIT {
        let work = Work::gets("", Pace::PerSecond(rate));
        let trial = stage.run(&work, Beside::Mirror(Watch::Pinned(0)), effort.duration)?;
        let Some(mirror) = &trial.mirror else { break };
        let busy = 100.0 * mirror.usage.cpu.as_secs_f64() / trial.report.elapsed.as_secs_f64();
        table.rows.push(vec![
            rate.into(),
            trial.rate.into(),
            mirror.share_mirrored().into(),
            mirror.cpu_per_thousand().into(),
            busy.into(),
            mirror.lag[1].map(|lag| lag * 1e3).into(),
            (mirror.memory as f64 / MIB).into(),
            trial.foreign.round().into(),
            mirror.verdict().into(),
        ]);
        if mirror.share_mirrored() < 99.9 {
            end = format!("loss begins below {} req/s", number(trial.rate));
            break;
        }
        held = Some(trial.rate);
        if trial.rate < rate * 0.95 {
            end = "live and its load are at their end before the mirror is".to_owned();
            break;
        }
        rate *= ONSET_STEP;
    }
    let held =
        held.map_or_else(|| "No rate was held".to_owned(), |rate| format!("Held at {} req/s", number(rate)));
    table.note(format!(
        "{held}; {end}. Processor 0 is the agent's only one and is not its own: load, live and shadow run on both."
    ));
    Ok((vec![table], Vec::new()))
}

const ONSET_START: f64 = 20_000.0;
const ONSET_STEP: f64 = 1.25;
const ONSET_LIMIT: f64 = 200_000.0;
