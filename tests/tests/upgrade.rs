//! Enters: a service under load, and agents that follow each other. Leaves: live does not notice, nothing is mirrored twice,
//! and how long nothing was.

use std::{collections::BTreeSet, str, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments, Ended},
    http,
    load::{Pace, Plan, Report, Running, Source},
    require_agent,
    scenario::{PATIENCE, PORT, Stage, Weight},
    server::Record,
    slowness::slowed,
};

/// Requests a second: one that is missing stands for 2 ms.
const RATE: f64 = 500.0;

const CONNECTIONS: usize = 16;

/// How long each agent mirrors before the next takes its place.
const REIGN: Duration = Duration::from_secs(2);

/// Where the listeners of the agents are that follow each other: the old version, the new one, the old one again.
const METRICS_PORTS: [u16; 3] = [9477, 9479, 9480];

/// How long nothing may be mirrored where the next agent was waiting. It is far less where the machine is not busy.
const LONGEST_GAP_WAITING: Duration = Duration::from_secs(1);

/// The same where it has to start first, which the verifier takes most of.
const LONGEST_GAP_STARTING: Duration = Duration::from_secs(5);

/// In which order one agent ends and the next starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    /// The next starts once the one before is gone, as with a DaemonSet without surge.
    EndThenStart,
    /// The next is there and waits when the one before is told to end.
    StartThenEnd,
}

/// Requests that say which they are.
#[derive(Clone, Copy, Debug)]
struct Numbered;

impl Source for Numbered {
    fn write(&mut self, number: u64, out: &mut Vec<u8>) -> bool {
        let head = format!("GET /number/{number} HTTP/1.1\r\nHost: live\r\nUser-Agent: load\r\n\r\n");
        out.extend_from_slice(head.as_bytes());
        false
    }
}

#[test]
fn live_does_not_notice_an_upgrade_and_a_roll_back() -> Result<()> {
    require_agent!();
    let calm = {
        let stage = Stage::set(Weight::Heavy, Record::Count)?;
        let (report, p99) = under_load(&stage, 2 * REIGN, || Ok(()))?;
        ensure!(report.is_clean(), "without an agent: {report:?}");
        p99
    };
    for order in [Order::EndThenStart, Order::StartThenEnd] {
        let stage = Stage::set(Weight::Heavy, Record::Raw)?;
        let mut ended = Vec::new();
        let (report, p99) = under_load(&stage, 4 * REIGN, || {
            ended = reign_in_turn(&stage, order)?;
            Ok(())
        })?;
        ensure!(report.is_clean(), "{order:?}: live lost requests: {report:?}");
        let bound = (calm * 4).max(calm + Duration::from_millis(50));
        ensure!(p99 <= bound, "{order:?}: p99 of live is {p99:?}, without an agent {calm:?}");
        ended.iter().flat_map(|agent| agent.stdout.lines()).for_each(|line| println!("{line}"));
        let gaps = gaps(&stage, &ended, report.issued)?;
        let longest = match order {
            Order::EndThenStart => LONGEST_GAP_STARTING,
            Order::StartThenEnd => LONGEST_GAP_WAITING,
        };
        for (missing, time) in gaps {
            println!(
                "{order:?}: {missing} requests in {time:?} were not mirrored; p99 {p99:?}, without {calm:?}"
            );
            ensure!(time < slowed(longest), "{order:?}: nothing was mirrored for {time:?}");
        }
    }
    Ok(())
}

/// Runs load on the stage while `meanwhile` happens; gives the report and the 99th percentile of live's latency.
fn under_load(
    stage: &Stage,
    duration: Duration,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<(Report, Duration)> {
    let plan = Plan::new(stage.net.live.at_v4(PORT), Pace::PerSecond(RATE), duration, CONNECTIONS);
    let load = Running::start(&stage.net.client, plan, Numbered)?;
    let progress = std::sync::Arc::clone(&load.progress);
    let done = meanwhile();
    let report = load.finish()?;
    done?;
    Ok((report, progress.latency.snapshot().percentile(99.0)))
}

/// Has three agents mirror one after the other, the last till the load is over; gives how they ended.
fn reign_in_turn(stage: &Stage, order: Order) -> Result<Vec<Ended>> {
    let host = &stage.net.live;
    let arguments = METRICS_PORTS.map(|port| stage.arguments().with_metrics_port(port));
    let [first, later @ ..] = &arguments;
    let mut reigning = Agent::start(host, first)?;
    let mut ended = Vec::new();
    for next in later {
        thread::sleep(slowed(REIGN));
        let (before, after) = change(host, order, reigning, next)?;
        ended.push(before);
        reigning = after;
    }
    // Until the load is over, and its last request is mirrored.
    let live = || stage.live.requests();
    let mut counted = live();
    loop {
        thread::sleep(Duration::from_millis(300));
        let now = live();
        if now == counted {
            break;
        }
        counted = now;
    }
    reigning.at_rest(PATIENCE)?;
    ended.push(reigning.stop()?);
    Ok(ended)
}

fn change(
    host: &mirror_tests::netns::Host,
    order: Order,
    before: Agent,
    next: &Arguments,
) -> Result<(Ended, Agent)> {
    match order {
        Order::EndThenStart => {
            let ended = before.stop()?;
            Ok((ended, Agent::start(host, next)?))
        }
        Order::StartThenEnd => {
            let mut after = Agent::launch(host, next)?;
            after.until_answer(503, "another agent")?;
            let ended = before.stop()?;
            after.until_ready()?;
            Ok((ended, after))
        }
    }
}

/// How many requests were missed at each change of agents, and how long that was. Fails where a request was mirrored twice,
/// or one is missing elsewhere, or one that an agent has seen has no place in its books.
fn gaps(stage: &Stage, ended: &[Ended], issued: u64) -> Result<Vec<(u64, Duration)>> {
    let copies = stage.shadow.arrived();
    let numbers = copies.iter().map(|copy| number(&copy.raw)).collect::<Result<Vec<_>>>()?;
    let mirrored: BTreeSet<u64> = numbers.iter().copied().collect();
    ensure!(mirrored.len() == numbers.len(), "{} copies of {} requests", numbers.len(), mirrored.len());

    let mut counted = 0;
    for agent in ended {
        ensure!(agent.status.code() == Some(0), "{agent:?}");
        let figure = |word| agent.book_figure(word);
        let settled = figure("mirrored") + figure("skipped") + figure("dropped") + figure("lost");
        ensure!(figure("pending") == 0 && figure("seen") == settled, "the books do not balance: {agent:?}");
        counted += figure("mirrored");
    }
    ensure!(counted == mirrored.len() as u64, "{counted} were counted, {} arrived", mirrored.len());

    // What was sent before the first agent was ready is nobody's.
    let first = *mirrored.first().context("nothing was mirrored")?;
    let missing: Vec<u64> = (first..issued).filter(|number| !mirrored.contains(number)).collect();
    let mut gaps: Vec<(u64, u64, u64)> = Vec::new();
    for number in missing {
        match gaps.last_mut() {
            // Requests of several connections overtake each other.
            Some((_, end, count)) if number - *end <= 2 * CONNECTIONS as u64 => {
                (*end, *count) = (number, *count + 1)
            }
            _ => gaps.push((number, number, 1)),
        }
    }
    ensure!(gaps.len() < ended.len(), "requests are missing in {} places: {gaps:?}", gaps.len());
    let time = |requests: u64| slowed(Duration::from_secs_f64(requests as f64 / RATE));
    Ok(gaps.into_iter().map(|(begin, end, count)| (count, time(end - begin + 1))).collect())
}

/// Which request a copy is of.
fn number(copy: &[u8]) -> Result<u64> {
    let target = str::from_utf8(http::second_word(copy))?;
    target.strip_prefix("/number/").context("a copy of nothing that was sent")?.parse().context("no number")
}
