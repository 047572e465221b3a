//! Enters: works that differ in one thing. Leaves: what the mirror costs with more and more of it.

use anyhow::Result;
use mirror_tests::load::Pace;

use crate::{
    crowd::Crowd,
    marks,
    report::{Figure, Mark, Table, number},
    trial::{Beside, Mirrored, Setup, Stage, Trial, Watch, Work},
    workloads::{Effort, MIB, experiment, experiment_file, others},
};

/// Requests a second beside which things grow.
const RATE: f64 = 10_000.0;

/// From 100 to 200,000 flows that say nothing.
pub(crate) fn flows(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let work = |flows: usize| Work {
        // Room for all of them: none is to be evicted.
        setup: Setup::Options(&["--memory", "1GiB"]),
        crowd: if flows == 0 { Crowd::Nobody } else { Crowd::Flows(flows) },
        ..at_rate(format!("{} flows", number(flows as f64)))
    };
    let all = side_by_side(stage, effort, [0, 100, 1_000, 10_000, 100_000, 200_000].map(work))?;
    let mut table = table("flows", "Flows that say nothing beside 10,000 GETs/s", &all);
    table.note(
        "The flows are frames that pass live's interface and end nowhere: nothing but the agent knows of them. They \
         are counted when the load's own 64 have ended.",
    );
    Ok((vec![table], beside_first(&all, "100000 flows", 1.1)))
}

/// From 1 to 1,000 rules, of which the last takes the requests.
pub(crate) fn rules(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let work = |rules: usize| Work {
        setup: Setup::File { text: rules_file, size: rules },
        ..at_rate(if rules == 1 { "1 rule".to_owned() } else { format!("{} rules", number(rules as f64)) })
    };
    let all = side_by_side(stage, effort, [1, 10, 100, 1_000].map(work))?;
    let mut table = table("rules", "Rules of one experiment, 10,000 GETs/s", &all);
    table.note("Each rule asks for a prefix of the path and, but for the last one, which takes the requests, for a header field.");
    Ok((vec![table], beside_first(&all, "1000 rules", 1.1)))
}

/// One capture thread and two.
pub(crate) fn threads(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let one: &[&str] = &["--capture-threads", "1"];
    let two: &[&str] = &["--capture-threads", "2"];
    let mut works = Vec::new();
    for (pace, name) in [(Pace::PerSecond(RATE), "10000/s"), (Pace::ClosedLoop, "max")] {
        works.extend([(one, "1 thread"), (two, "2 threads")].map(|(options, threads)| Work {
            setup: Setup::Options(options),
            ..Work::gets(format!("{name}, {threads}"), pace)
        }));
    }
    let all = side_by_side(stage, effort, works)?;
    Ok((vec![table("threads", "Capture threads, small GETs", &all)], Vec::new()))
}

fn at_rate(name: String) -> Work {
    Work::gets(name, Pace::PerSecond(RATE))
}

/// All but the last ask for paths that nobody asks for.
fn rules_file(shadow: &str, rules: usize) -> String {
    let mut matches = "    matches:\n".to_owned();
    for rule in 1..=rules {
        let prefix = if rule == rules { "/api/items".to_owned() } else { format!("/api/{rule}") };
        let fields = if rule == rules { "" } else { ", headers: [{ name: x-team, value: a }]" };
        matches += &format!("      - {{ path: {{ type: PathPrefix, value: {prefix} }}{fields} }}\n");
    }
    experiment_file(&experiment("bench", shadow, &matches))
}

/// Runs each work beside the mirror in each round, from another one on each time.
fn side_by_side(
    stage: &Stage,
    effort: Effort,
    works: impl IntoIterator<Item = Work>,
) -> Result<Vec<(Work, Vec<Trial>)>> {
    let mut all = works.into_iter().map(|work| (work, Vec::new())).collect::<Vec<_>>();
    let count = all.len();
    for round in 0..effort.rounds {
        for step in 0..count {
            if let Some((work, trials)) = all.get_mut((step + round) % count) {
                trials.push(stage.run(work, Beside::Mirror(Watch::Outside), effort.duration)?);
            }
        }
    }
    Ok(all)
}

fn table(name: &'static str, title: &str, all: &[(Work, Vec<Trial>)]) -> Table {
    let mut table = Table::new(
        name,
        title,
        &[
            "what",
            "CPU agent",
            "× first",
            "of it capture",
            "live req/s",
            "live p99 µs",
            "mirrored %",
            "lag p99 ms",
            "flows",
            "PSS MiB",
            "sleeps/req",
            "books",
        ],
    );
    let first = all.first().and_then(|(_, trials)| cpu(trials));
    for (work, trials) in all {
        let figure = |value: &dyn Fn(&Mirrored) -> Option<f64>| {
            Figure::of(trials.iter().filter_map(|trial| value(trial.mirror.as_ref()?)))
        };
        let ratio = cpu(trials).zip(first).map(|(one, first)| one.median / first.median);
        let faults = trials.iter().filter_map(|trial| Some(trial.mirror.as_ref()?.verdict()));
        let faults = faults.filter(|verdict| verdict != "exact").collect::<Vec<_>>();
        table.rows.push(vec![
            work.name.as_str().into(),
            cpu(trials).into(),
            ratio.into(),
            figure(&|one| Some(one.per_request(one.usage.capture_cpu.as_secs_f64()) * 1e6)).into(),
            Figure::of(trials.iter().map(|trial| trial.rate)).into(),
            Figure::of(trials.iter().map(|trial| trial.latency[1])).into(),
            figure(&|one| Some(one.share_mirrored())).into(),
            figure(&|one| Some(one.lag[1]? * 1e3)).into(),
            figure(&|one| Some(one.flows)).into(),
            figure(&|one| Some(one.memory as f64 / MIB)).into(),
            figure(&|one| Some(one.per_request(one.usage.sleeps as f64))).into(),
            if faults.is_empty() { "exact".into() } else { faults.join(" / ").into() },
        ]);
    }
    table.note("CPU: user and system of the agent, ms for 1,000 requests mirrored. Median of the rounds (least–most), the rows of a round beside each other.");
    table.note(others(all.iter().flat_map(|(_, trials)| trials)));
    table
}

fn cpu(trials: &[Trial]) -> Option<Figure> {
    Figure::of(trials.iter().filter_map(|trial| Some(trial.mirror.as_ref()?.cpu_per_thousand())))
}

/// The mark that the work of this name costs at most so many times the first one.
fn beside_first(all: &[(Work, Vec<Trial>)], name: &str, most: f64) -> Vec<Mark> {
    let Some(first) = all.first() else { return Vec::new() };
    let meant = all.iter().filter(|(work, _)| work.name == name);
    meant.map(|one| marks::cpu_beside((&one.0.name, &one.1), (&first.0.name, &first.1), most)).collect()
}
