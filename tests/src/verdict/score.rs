//! Enters: what the servers did and what the agent told. Leaves: whether it was told rightly, as tables and marks.

use std::time::Duration;

use super::{
    Case,
    told::{self, Cluster, Field, Proposal, State, Told},
};
use crate::{
    report::{Cell, Figure, Mark, Table},
    shop::{Bug, Noise, Place},
};

/// One case, run to its end.
#[derive(Clone, Debug)]
pub struct Run {
    /// Which.
    pub case: Case,
    /// Requests of each kind that were made.
    pub made: Vec<(Place, u64)>,
    /// Answers of the shadow that each bug changed, as the shadow counted them.
    pub met: Vec<(Bug, u64)>,
    /// The agent's last word.
    pub told: Told,
    /// What it said when it was asked on the way, and of how many exchanges.
    pub said: Vec<(u64, State)>,
    /// Rules that were proposed and accepted.
    pub accepted: Vec<Proposal>,
    /// Comparisons by result.
    pub results: Vec<(String, u64)>,
    /// How often a number that was followed was in an answer, and its sum, of live and of the shadow; zeros where none was.
    pub followed: [(u64, f64); 2],
    /// How long it took.
    pub took: Duration,
    /// The agent's processor time.
    pub cpu: Duration,
}

/// How a bug was told.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Found<'a> {
    bug: Bug,
    met: u64,
    /// Place of its first cluster in the agent's order, from 1; 0 for the time, which is no cluster.
    rank: Option<usize>,
    cluster: Option<&'a Cluster>,
}

impl Run {
    /// Requests in all.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.made.iter().map(|(_, count)| count).sum()
    }

    /// How each bug was told; nothing where there are none.
    fn found(&self) -> Vec<Found<'_>> {
        let found = |(bug, met): &(Bug, u64)| {
            let is_its = |cluster: &&Cluster| is_of(*bug, cluster);
            let cluster = self.told.clusters.iter().find(is_its);
            let rank = if *bug == Bug::SlowTail {
                self.told.is_too_slow.then_some(0)
            } else {
                self.told.clusters.iter().position(|cluster| is_its(&cluster)).map(|index| index + 1)
            };
            Found { bug: *bug, met: *met, rank, cluster }
        };
        if self.case.is_buggy() { self.met.iter().map(found).collect() } else { Vec::new() }
    }

    /// The place of the first cluster that no bug accounts for, from 1.
    fn first_noise(&self) -> Option<usize> {
        let is_bug = |cluster: &Cluster| {
            let may_be = |bug: Bug| cluster.paths.iter().any(|path| bug.may_be_at(&cluster.endpoint, path));
            self.case.is_buggy() && Bug::ALL.into_iter().any(may_be)
        };
        self.told.clusters.iter().position(|cluster| !is_bug(cluster)).map(|index| index + 1)
    }

    /// Requests of the kind that a bug is in.
    fn made_of(&self, bug: Bug) -> u64 {
        let place = match bug {
            Bug::Rounding => Place::Quote,
            Bug::MissingField => Place::Order,
            Bug::TypeChange => Place::Loyalty,
            Bug::Reordered => Place::Search,
            Bug::WrongStatus => Place::Shipping,
            Bug::HeaderLost => Place::Product,
            Bug::SlowTail => return self.requests(),
        };
        self.made.iter().filter(|(made, _)| *made == place).map(|(_, count)| count).sum()
    }

    /// What was demanded, and whether it held.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        let case = self.case.name();
        let mut marks = Vec::new();
        let mut mark = |what: &str, found: String, is_kept: bool| {
            marks.push(Mark { promise: format!("{case}: {what}"), found, is_kept });
        };
        let expected = if self.case.is_buggy() { State::Fail } else { State::Pass };
        let told = self.told.state;
        mark(&format!("the verdict is {}", expected.name()), told.name().to_owned(), told == expected);
        if self.case.is_buggy() {
            let found = self.found();
            let names = |is_wanted: &dyn Fn(&&Found<'_>) -> bool| {
                let names = found.iter().filter(is_wanted).map(|found| found.bug.name()).collect::<Vec<_>>();
                (if names.is_empty() { "none".to_owned() } else { names.join(", ") }, names.is_empty())
            };
            // 60 of 50,000, and as many as that is of fewer.
            let least = (60 * self.requests()).div_ceil(50_000).min(60);
            let (rare, is_kept) = names(&|found| found.met < least);
            mark(&format!("bugs that met fewer than {least} exchanges"), rare, is_kept);
            let (missed, is_kept) = names(&|found| found.rank.is_none());
            mark("bugs that were not found", missed, is_kept);
            let noise = self.first_noise().unwrap_or(usize::MAX);
            let (behind, is_kept) = names(&|found| found.rank.is_some_and(|rank| rank > noise));
            mark("bugs ranked behind noise", behind, is_kept);
        } else {
            let alarms = self.said.iter().filter(|(_, state)| *state == State::Fail).count();
            let asked = self.said.len();
            mark("false alarms on the way", format!("{alarms} of {asked} times asked"), alarms == 0);
        }
        let convicted = self.told.fields.iter().filter(|field| field.is_convicted);
        let innocent = convicted.filter(|field| {
            let may_be = |bug: Bug| bug.may_be_at(&field.endpoint, &field.path);
            !(self.case.is_buggy() && Bug::ALL.into_iter().any(may_be))
        });
        let innocent = innocent.map(|field| format!("{} {}", field.endpoint, field.path)).collect::<Vec<_>>();
        let text = if innocent.is_empty() { "none".to_owned() } else { innocent.join(", ") };
        mark("noise that was convicted", text, innocent.is_empty());
        if !self.case.has_control() {
            let swallowed = self.accepted.iter().filter(|rule| {
                let is_there = |bug: &Bug| {
                    let is_everywhere = rule.endpoint.is_empty() && bug.is_path(&rule.path);
                    is_everywhere || bug.is_at(&rule.endpoint, &rule.path)
                };
                self.case.is_buggy() && Bug::ALL.iter().any(is_there)
            });
            let swallowed = swallowed.map(|rule| rule.path.clone()).collect::<Vec<_>>();
            let text = if swallowed.is_empty() { "none".to_owned() } else { swallowed.join(", ") };
            mark("bugs that were proposed as noise", text, swallowed.is_empty());
        }
        marks
    }

    /// How each bug was told, a row each.
    pub fn add_bugs(&self, table: &mut Table) {
        for found in self.found() {
            let rank = match (found.rank, found.bug) {
                (Some(_), Bug::SlowTail) => "by its time".to_owned(),
                (Some(rank), _) => rank.to_string(),
                (None, _) => "NOT FOUND".to_owned(),
            };
            let (told, truth) = if found.bug == Bug::SlowTail {
                (self.told.p95.map(ratio), "1.20 ×".to_owned())
            } else {
                let rate = found.cluster.and_then(|cluster| cluster.rate);
                let truth = found.met as f64 / self.made_of(found.bug).max(1) as f64;
                (rate.map(share), format!("{:.2} %", truth * 100.0))
            };
            table.rows.push(vec![
                self.case.name().into(),
                found.bug.name().into(),
                (found.met as f64).into(),
                rank.into(),
                told.into(),
                truth.into(),
            ]);
        }
    }

    /// How each source of noise was told, a row each.
    pub fn add_noise(&self, table: &mut Table) {
        for noise in Noise::ALL {
            let fields = || self.told.fields.iter().filter(|field| noise.is_at(&field.path));
            let rates = |rate: &dyn Fn(&Field) -> Option<f64>| {
                let rates = fields().filter_map(rate).map(|rate| rate * 100.0).collect::<Vec<_>>();
                Figure::of(rates)
            };
            let rules = self.accepted.iter().filter(|rule| noise.is_at(&rule.path)).count();
            let is_innocent =
                |field: &Field| !Bug::ALL.into_iter().any(|bug| bug.may_be_at(&field.endpoint, &field.path));
            let how = if fields().any(|field| field.is_convicted && is_innocent(field)) {
                "CONVICTED".to_owned()
            } else if rules > 0 {
                format!("{rules} accepted rules")
            } else if self.case.has_control() && fields().next().is_some() {
                "by the control".to_owned()
            } else {
                "not compared, or the same".to_owned()
            };
            table.rows.push(vec![
                self.case.name().into(),
                noise.name().into(),
                rates(&|field| Some(field.raw_rate)).into(),
                rates(&|field| field.noise_rate).into(),
                how.into(),
            ]);
        }
    }

    /// The verdict, as one row.
    pub fn add_verdict(&self, table: &mut Table) {
        let result = |name: &str| {
            let count = self.results.iter().filter(|(found, _)| found == name).map(|(_, count)| *count);
            Cell::from(count.sum::<u64>() as f64)
        };
        let first = self.said.iter().find(|(_, state)| *state != State::NotEnoughData);
        let first = first.map(|(exchanges, state)| format!("{} at {exchanges}", state.name()));
        table.rows.push(vec![
            self.case.name().into(),
            self.told.state.name().into(),
            self.told.reasons.join("; ").into(),
            first.into(),
            self.told.p95.map(ratio).into(),
            result("equal"),
            result("noise"),
            result("divergent"),
            result("incomparable"),
            self.took.as_secs_f64().round().into(),
            (self.cpu.as_secs_f64() * 1e6 / self.requests().max(1) as f64).into(),
        ]);
    }
}

/// The tables that runs are told in, without rows: verdicts, bugs, noise.
#[must_use]
pub fn tables() -> [Table; 3] {
    let verdicts = [
        "case",
        "verdict",
        "because",
        "first said",
        "p95 ratio",
        "equal",
        "noise",
        "divergent",
        "incomparable",
        "s",
        "agent's CPU, ms for 1,000",
    ];
    let bugs = ["case", "seeded bug", "exchanges met", "rank", "told", "true"];
    let noise = ["case", "source of noise", "differs from the shadow, %", "from the control, %", "explained"];
    [
        Table::new("verdicts", "Verdicts", &verdicts),
        Table::new("bugs", "Seeded bugs: rate of the endpoint's exchanges, with its interval", &bugs),
        Table::new("noise", "Noise: rates over endpoints and places (median, least and most)", &noise),
    ]
}

/// Whether a bug accounts for a cluster.
fn is_of(bug: Bug, cluster: &Cluster) -> bool {
    cluster.paths.iter().any(|path| bug.is_at(&cluster.endpoint, path))
}

fn share(rate: told::Figure) -> String {
    format!("{:.2} % ({:.2}–{:.2})", rate.point * 100.0, rate.low * 100.0, rate.high * 100.0)
}

fn ratio(ratio: told::Figure) -> String {
    format!("{:.2} × ({:.2}–{:.2})", ratio.point, ratio.low, ratio.high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(endpoint: &str, path: &str) -> Cluster {
        Cluster { endpoint: endpoint.to_owned(), paths: vec![path.to_owned()], count: 1, rate: None }
    }

    /// A buggy run in which all was told rightly.
    fn right() -> Run {
        let bugs = Bug::ALL.into_iter().filter_map(|bug| Some((bug, bug.place()?)));
        let clusters = bugs.map(|(_, (endpoint, paths))| cluster(endpoint, paths[0])).collect();
        let told = Told {
            state: State::Fail,
            reasons: Vec::new(),
            p95: None,
            is_too_slow: true,
            clusters,
            fields: Vec::new(),
        };
        Run {
            case: Case::BuggyControlled,
            made: vec![(Place::Order, 50_000)],
            met: Bug::ALL.map(|bug| (bug, 60)).to_vec(),
            told,
            said: Vec::new(),
            accepted: Vec::new(),
            results: Vec::new(),
            followed: [(0, 0.0); 2],
            took: Duration::ZERO,
            cpu: Duration::ZERO,
        }
    }

    fn broken(run: &Run) -> Vec<String> {
        run.marks().into_iter().filter(|mark| !mark.is_kept).map(|mark| mark.found).collect()
    }

    #[test]
    fn run_that_told_all_bugs_keeps_its_marks() {
        assert_eq!(broken(&right()), Vec::<String>::new());
    }

    #[test]
    fn bug_that_is_missing_rare_or_behind_noise_breaks_a_mark() {
        let mut missing = right();
        missing.told.clusters.retain(|cluster| !cluster.endpoint.contains("loyalty"));
        assert_eq!(broken(&missing), [Bug::TypeChange.name()]);
        let mut rare = right();
        rare.met[0].1 = 59;
        assert_eq!(broken(&rare), [Bug::Rounding.name()]);
        let mut behind = right();
        behind.told.clusters.insert(5, cluster("GET /orders/{id}", "$.trace_id"));
        assert_eq!(broken(&behind), [Bug::HeaderLost.name()]);
        let mut fast = right();
        fast.told.is_too_slow = false;
        assert_eq!(broken(&fast), [Bug::SlowTail.name()]);
    }

    #[test]
    fn false_alarm_and_convicted_noise_break_marks_of_equal_versions() {
        let mut run = Run { case: Case::EqualAlone, ..right() };
        run.told.state = State::Pass;
        run.told.clusters.clear();
        assert_eq!(broken(&run), Vec::<String>::new());
        run.said = vec![(2_000, State::Fail), (3_000, State::Pass)];
        let (endpoint, path) = ("GET /health".to_owned(), "$.trace_id".to_owned());
        run.told.fields.push(Field { endpoint, path, raw_rate: 1.0, noise_rate: None, is_convicted: true });
        assert_eq!(broken(&run), ["1 of 2 times asked", "GET /health $.trace_id"]);
    }

    #[test]
    fn rows_are_as_long_as_their_table() {
        let run = right();
        let [mut verdicts, mut bugs, mut noise] = tables();
        run.add_verdict(&mut verdicts);
        run.add_bugs(&mut bugs);
        run.add_noise(&mut noise);
        for table in [verdicts, bugs, noise] {
            assert!(table.rows.iter().all(|row| row.len() == table.columns.len()), "{}", table.name);
        }
    }
}
