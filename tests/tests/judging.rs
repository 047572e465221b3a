//! Enters: the answers of two versions of a shop, without a network. Leaves: proof that comparison and judgement tell bugs
//! from noise, whatever the machine is busy with.
//!
//! What `cargo xtask verdict-bench` finds through the whole agent, found here by its two pure stages alone.

use std::{
    env,
    time::{Duration, Instant, UNIX_EPOCH},
};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use mirror_agent::pipeline::{
    Timestamp,
    answer::{Answer, Answered, Timing},
    compare::{CompareRules, Comparer},
    judge::{GateConfig, Judge, JudgeConfig, Remedy, Seen},
    reason::ComparisonResult,
};
use mirror_tests::{
    http,
    shop::{Bug, Bugs, Character, Place, Program, Shopper, Version},
    verdict::{Case, Run, Told, proposals, tables},
};

/// Exchanges of each case: 60 for each bug need more, see the bench.
const EXCHANGES: u64 = 8_000;

#[test]
fn equal_versions_pass_beside_a_control() -> Result<()> {
    expect_right(Case::EqualControlled)
}

#[test]
fn bugs_are_found_and_ranked_above_noise_beside_a_control() -> Result<()> {
    expect_right(Case::BuggyControlled)
}

#[test]
fn equal_versions_pass_once_proposals_are_accepted() -> Result<()> {
    expect_right(Case::EqualAlone)
}

#[test]
fn bugs_are_found_and_ranked_above_noise_once_proposals_are_accepted() -> Result<()> {
    expect_right(Case::BuggyAlone)
}

fn expect_right(case: Case) -> Result<()> {
    let run = run(case)?;
    let [mut verdicts, mut bugs, mut noise] = tables();
    run.add_verdict(&mut verdicts);
    run.add_bugs(&mut bugs);
    run.add_noise(&mut noise);
    let tables = [verdicts, bugs, noise].map(|table| table.text()).concat();
    let broken = run.marks().into_iter().filter(|mark| !mark.is_kept);
    let broken = broken.map(|mark| format!("{}: {}", mark.promise, mark.found)).collect::<Vec<_>>();
    ensure!(broken.is_empty(), "{broken:#?}{tables}");
    Ok(())
}

/// Runs a case to its end.
fn run(case: Case) -> Result<Run> {
    let began = Instant::now();
    let live = Service::new(Version::One, Bugs::NONE, 1);
    let bugs = if case.is_buggy() { Bugs::all() } else { Bugs::NONE };
    let shadow = Service::new(Version::Two, bugs, 2);
    let control = case.has_control().then(|| Service::new(Version::One, Bugs::NONE, 3));
    let mut rules = CompareRules::default();
    let mut comparer = Comparer::new(&rules)?;
    let config = JudgeConfig { gate: Some(GateConfig::default()), ..JudgeConfig::default() };
    let mut judge = Judge::new(&config, case.has_control());
    let (mut said, mut accepted) = (Vec::new(), Vec::new());
    let mut made = Place::MIX.map(|(place, _)| (place, 0)).to_vec();
    let mut results = ComparisonResult::ALL.map(|result| (result.as_str().to_owned(), 0)).to_vec();
    let exchanges = exchanges();
    for number in 0..exchanges {
        let (place, raw) = Shopper::new(1).request(number);
        made.iter_mut().filter(|(made, _)| *made == place).for_each(|(_, count)| *count += 1);
        let endpoint = judge.endpoint(http::first_word(&raw), http::second_word(&raw));
        let [of_live, of_shadow] = [&live, &shadow].map(|service| service.answered(&raw, number));
        let of_control = control.as_ref().map(|control| control.answered(&raw, number));
        let prepared = comparer.prepare(answer(&of_live)?);
        let compare = |other: &Answered| match (&prepared, other) {
            (Ok(prepared), Answered::Whole(other)) => comparer.compare(&endpoint, prepared, other),
            (Err(reason), _) | (_, Answered::Not(reason) | Answered::Partly { reason, .. }) => Err(*reason),
        };
        let (compared, control_compared) = (compare(&of_shadow), of_control.as_ref().map(compare));
        let at = Timestamp::ZERO.after(interval() * u32::try_from(number)?);
        let judged = judge.observe(&Seen {
            at,
            endpoint: &endpoint,
            live: &of_live,
            shadow: &of_shadow,
            compared: &compared,
            control: of_control.as_ref().zip(control_compared.as_ref()),
        });
        results[judged.result.index()].1 += 1;
        if number == exchanges / 5 && !case.has_control() {
            let proposed = judge.proposals(at);
            accepted = proposals(&serde_json::to_value(&proposed)?)?;
            let names = proposed.into_iter().map(|proposal| proposal.name).collect::<Vec<_>>();
            for proposal in judge.accept(&names) {
                match proposal.remedy {
                    Remedy::Rule(rule) => rules.rules.push(rule),
                    Remedy::Array(array) => rules.arrays.push(array),
                }
            }
            comparer = Comparer::new(&rules)?;
        }
        if number % 2_000 == 1_999 {
            said.push((number + 1, told(&mut judge, at)?.state));
        }
    }
    let told = told(&mut judge, Timestamp::ZERO.after(interval() * u32::try_from(exchanges)?))?;
    let met = Bug::ALL.map(|bug| (bug, shadow.program.changed_by(bug))).to_vec();
    let (took, cpu) = (began.elapsed(), Duration::ZERO);
    let followed = [(0, 0.0); 2];
    Ok(Run { case, made, met, told, said, accepted, results, followed, took, cpu })
}

fn told(judge: &mut Judge, at: Timestamp) -> Result<Told> {
    Told::parse(&serde_json::to_value(judge.summary(at))?)
}

fn answer(answered: &Answered) -> Result<&Answer> {
    let Answered::Whole(answer) = answered else { bail!("an answer that is not whole") };
    Ok(answer)
}

/// From one request to the next: 400 a second.
fn interval() -> Duration {
    Duration::from_micros(2_500)
}

/// How many exchanges a case has: `MIRROR_JUDGING_EXCHANGES`, or a few that do not take long.
fn exchanges() -> u64 {
    env::var("MIRROR_JUDGING_EXCHANGES").ok().and_then(|text| text.parse().ok()).unwrap_or(EXCHANGES)
}

/// One server's answers, and when they came.
struct Service {
    program: Program,
    /// How much later than live's its answers begin.
    lag: Duration,
}

impl Service {
    fn new(version: Version, bugs: Bugs, seed: u64) -> Self {
        let lag = Duration::from_millis(if seed == 1 { 0 } else { 1 });
        Self { program: Program::new(Character { version, bugs, seed }), lag }
    }

    fn answered(&self, raw: &[u8], number: u64) -> Answered {
        let asked = interval().mul_f64(number as f64) + self.lag;
        let took = self.program.service_time(number);
        let bytes =
            self.program.answer(raw, number, UNIX_EPOCH + Duration::from_secs(1_790_000_000) + asked + took);
        let head = http::head_len(&bytes).unwrap_or(bytes.len());
        let status = String::from_utf8_lossy(http::second_word(&bytes)).parse().unwrap_or(0);
        let bytes = Bytes::from(bytes);
        let at = |since: Duration| Timestamp::ZERO.after(since);
        Answered::Whole(Answer {
            status,
            head: bytes.slice(..head),
            content: bytes.slice(head..),
            timing: Ok(Timing {
                asked_at: at(asked),
                first_byte_at: at(asked + took),
                last_byte_at: at(asked + took),
                round_trip: Duration::ZERO,
            }),
        })
    }
}
