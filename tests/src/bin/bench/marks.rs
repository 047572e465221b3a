//! Enters: the runs of a work. Leaves: whether they keep what is promised, each in one line.

use crate::{
    report::{Figure, Mark},
    trial::{Mirrored, Trial},
    workloads::{MIB, Runs, ratio_to_bare},
};

/// The agent's CPU for a request is at most so many times the bare sender's.
pub(crate) fn cpu(runs: &Runs, most: f64) -> Mark {
    let ratio = ratio_to_bare(&runs.bare, &runs.mirror);
    Mark {
        promise: format!("{}: CPU a request ≤ {most} × the bare sender's", runs.work.name),
        found: said(ratio),
        is_kept: ratio.is_some_and(|ratio| ratio.median <= most),
    }
}

/// The agent's CPU for a request is at most so many times that of another work.
pub(crate) fn cpu_beside(
    (name, trials): (&str, &[Trial]),
    (other_name, other_trials): (&str, &[Trial]),
    most: f64,
) -> Mark {
    let of = |trials: &[Trial]| figure(trials, |one| Some(one.cpu_per_thousand()));
    let ratio = of(trials).zip(of(other_trials)).map(|(one, other)| one.median / other.median);
    Mark {
        promise: format!("{name}: CPU a request ≤ {most} × that of {other_name}"),
        found: ratio.map_or_else(|| NO_FIGURE.to_owned(), |ratio| format!("{ratio:.2}")),
        is_kept: ratio.is_some_and(|ratio| ratio <= most),
    }
}

/// Every request is at the shadow when the load ends, but for those under way.
pub(crate) fn all_at_shadow(runs: &Runs) -> Mark {
    let share = figure(&runs.mirror, |one| Some(one.share_at_end()));
    Mark {
        promise: format!("{}: 100 % at the shadow when the load ends", runs.work.name),
        found: said(share),
        is_kept: share.is_some_and(|share| share.median >= 99.95),
    }
}

/// Live's rate stays, and its latencies are at most 1.2 times those with the bare sender in the mirror's place.
///
/// Beside it is said what no mirror at all comes to, and whether the mirror is inside the spread of that, which is what is aimed at.
pub(crate) fn live_feels_nothing(runs: &Runs) -> Mark {
    let rate = ratio(&runs.nothing, &runs.mirror, |trial| trial.rate);
    let beside_bare =
        |trials: &[Trial]| [0, 1].map(|at| ratio(&runs.bare, trials, |trial| trial.latency[at]));
    let [p50, p99] = beside_bare(&runs.mirror);
    let [alone_p50, alone_p99] = beside_bare(&runs.nothing);
    let is_inside = (0..2).all(|at| {
        let of =
            |trials: &[Trial]| Figure::of(trials.iter().filter_map(|trial| trial.latency.get(at).copied()));
        of(&runs.mirror).zip(of(&runs.nothing)).is_some_and(|(mirror, alone)| mirror.median <= alone.most)
    });
    Mark {
        promise: format!(
            "{}: live's rate ≥ 0.99, p50 and p99 ≤ 1.2 × those with the bare sender",
            runs.work.name
        ),
        found: format!(
            "rate {rate:.3}, p50 {p50:.2} ×, p99 {p99:.2} × (no mirror: {alone_p50:.2} ×, {alone_p99:.2} ×), {}",
            if is_inside { "inside its spread" } else { "outside its spread" }
        ),
        is_kept: rate >= 0.99 && p50 <= 1.2 && p99 <= 1.2,
    }
}

/// As fast as it goes, live keeps this share of its rate while this share of the requests is mirrored, in percent.
pub(crate) fn flat_out(runs: &Runs, least: f64, mirrored: f64) -> Mark {
    let rate = ratio(&runs.nothing, &runs.mirror, |trial| trial.rate);
    let share = figure(&runs.mirror, |one| Some(one.share_mirrored()));
    Mark {
        promise: format!("{}: live's rate ≥ {least}, {mirrored} % mirrored", runs.work.name),
        found: format!("rate {rate:.3}, {} %", said(share)),
        is_kept: rate >= least && share.is_some_and(|share| share.median >= mirrored),
    }
}

/// What is promised of live and of the books where not all is mirrored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    /// Share of its rate that live keeps.
    pub(crate) rate: f64,
    /// Its 99th percentile, by that without mirror.
    pub(crate) p99: Option<f64>,
    /// No connection is left out in the kernel.
    pub(crate) sees_all: bool,
}

/// Live keeps its rate and, where that is promised, its latency; the books say what the servers say, and leave nothing open.
pub(crate) fn live_beside(name: &str, nothing: &[Trial], mirror: &[Trial], promised: Beside) -> Mark {
    let rate = ratio(nothing, mirror, |trial| trial.rate);
    let p99 = ratio(nothing, mirror, |trial| trial.latency[1]);
    let faults: Vec<String> = mirror
        .iter()
        .flat_map(|trial| {
            trial
                .mirror
                .as_ref()
                .map_or_else(|| vec!["no books".to_owned()], |mirrored| mirrored.faults(promised.sees_all))
        })
        .collect();
    let latency =
        promised.p99.map_or_else(String::new, |most| format!(", p99 ≤ {most} × that without mirror"));
    Mark {
        promise: format!("{name}: live's rate ≥ {}{latency}, books exact", promised.rate),
        found: format!(
            "rate {rate:.3}, p99 {p99:.2} ×, books {}",
            if faults.is_empty() { "exact".to_owned() } else { faults.join("; ") }
        ),
        is_kept: rate >= promised.rate && promised.p99.is_none_or(|most| p99 <= most) && faults.is_empty(),
    }
}

/// The 99th percentile of the time from request to copy is at most so many milliseconds.
pub(crate) fn lag(runs: &Runs, most: f64) -> Mark {
    let lag = figure(&runs.mirror, |one| Some(one.lag[1]? * 1e3));
    Mark {
        promise: format!("{}: replay lag p99 ≤ {most} ms", runs.work.name),
        found: said(lag),
        is_kept: lag.is_some_and(|lag| lag.median <= most),
    }
}

/// The agent's memory is at most so many MiB.
pub(crate) fn memory(runs: &Runs, most: f64) -> Mark {
    let all: Vec<Trial> = runs.mirror.iter().chain([&runs.watched]).cloned().collect();
    let memory = figure(&all, |one| Some(one.memory as f64 / MIB));
    Mark {
        promise: format!("{}: memory (peak PSS) ≤ {most} MiB", runs.work.name),
        found: memory.map_or_else(|| NO_FIGURE.to_owned(), |memory| format!("{:.1}", memory.most)),
        is_kept: memory.is_some_and(|memory| memory.most <= most),
    }
}

const NO_FIGURE: &str = "no figure";

fn said(figure: Option<Figure>) -> String {
    figure.map_or_else(|| NO_FIGURE.to_owned(), |figure| figure.to_string())
}

fn figure(mirror: &[Trial], value: impl Fn(&Mirrored) -> Option<f64>) -> Option<Figure> {
    Figure::of(mirror.iter().filter_map(|trial| value(trial.mirror.as_ref()?)))
}

/// The median of the one by that of the other; not a number where there is none.
fn ratio(of: &[Trial], to: &[Trial], value: impl Fn(&Trial) -> f64) -> f64 {
    let median =
        |trials: &[Trial]| Figure::of(trials.iter().map(&value)).map_or(f64::NAN, |figure| figure.median);
    median(to) / median(of)
}
