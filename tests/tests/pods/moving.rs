//! Enters: a pod that is deleted on one node and made anew on another, while customers go on. Leaves: its experiment on the
//! other node, and an account of every request.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    agent::Agent,
    client::RawClient,
    cluster::{Cluster, NAMESPACE, Pod, Stack, Wiring},
    http, require_agent,
    scenario::PATIENCE,
};

use crate::scene::{ask_until_mirrored, expect_left_alone, pods, promise, until};

/// How long customers ask before the pod moves, and after both nodes have followed.
const QUIET: Duration = Duration::from_millis(700);

/// A request of a customer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    begun: Instant,
    ended: Instant,
}

/// Asks the service over and over, wherever it is at the moment, until told to stop: each request on its own connection, and
/// each by its own number.
fn customer(cluster: &Cluster, service: &Mutex<&Pod>, is_over: &AtomicBool) -> Result<Vec<Asked>> {
    let mut asked = Vec::new();
    for number in 0.. {
        if is_over.load(Ordering::Acquire) {
            break;
        }
        let pod = *service.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        for at in &pod.at {
            let request = format!(
                "GET /number/{number}/{} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
                at.is_ipv4()
            );
            let answer = RawClient::connect(&cluster.net.client, *at)?.ask(request.as_bytes())?;
            ensure!(answer.code() == "200", "live answers {}", answer.code());
        }
        asked.push(Asked { number, begun, ended: Instant::now() });
    }
    Ok(asked)
}

/// What came to the shadow of customers, by number and family; each once.
fn copies(cluster: &Cluster) -> Result<BTreeSet<(u64, bool)>> {
    let mut copies = BTreeSet::new();
    for arrived in cluster.shadow.arrived() {
        let target = String::from_utf8_lossy(http::second_word(&arrived.raw)).into_owned();
        let Some(words) = target.strip_prefix("/number/") else { continue };
        let (number, family) = words.split_once('/').with_context(|| target.clone())?;
        ensure!(copies.insert((number.parse()?, family == "true")), "{target} was mirrored twice");
    }
    Ok(copies)
}

fn moves_from_node_to_node(wiring: Wiring, stack: Stack) -> Result<String> {
    let cluster = Cluster::start_with(wiring, stack)?;
    let agents =
        [cluster.agent_on(0, &cluster.config("", ""))?, cluster.agent_on(1, &cluster.config("", ""))?];
    let [first, second] = &agents;
    let (old, new) = (cluster.wire_on(0, 10)?, cluster.wire_on(1, 11)?);
    cluster.tell("shop-0", 0, 10);
    ask_until_mirrored(&cluster, first, &old)?;
    ensure!(pods(&second.metrics()?) == 0.0, "the second node has no pod yet");
    let before = first.at_rest(PATIENCE)?.mirrored;

    let (service, is_over) = (Mutex::new(&old), AtomicBool::new(false));
    let (asked, moved_at, let_go, followed) = thread::scope(|scope| -> Result<_> {
        let customer = scope.spawn(|| customer(&cluster, &service, &is_over));
        let watched = (|| {
            thread::sleep(QUIET);
            let moved_at = Instant::now();
            cluster.api.delete(NAMESPACE, "shop-0");
            cluster.tell("shop-0", 1, 11);
            *service.lock().unwrap_or_else(PoisonError::into_inner) = &new;
            let has = |agent: &Agent, count: f64| -> Result<bool> {
                let metrics = agent.metrics()?;
                Ok(pods(&metrics) == count && metrics.sum("mirror_interfaces_attached") == count)
            };
            let (mut let_go, mut followed) = (None, None);
            while let_go.is_none() || followed.is_none() {
                if let_go.is_none() && has(first, 0.0)? {
                    let_go = Some(Instant::now());
                }
                if followed.is_none() && has(second, 1.0)? {
                    followed = Some(Instant::now());
                }
                ensure!(
                    moved_at.elapsed() < PATIENCE,
                    "{let_go:?} {followed:?}: {}",
                    second.printed("stderr")
                );
                thread::sleep(Duration::from_millis(5));
            }
            thread::sleep(QUIET);
            Ok((moved_at, let_go.context("not let go")?, followed.context("not followed")?))
        })();
        is_over.store(true, Ordering::Release);
        let asked = customer.join().map_err(|_panic| anyhow::anyhow!("the customer panicked"))??;
        let (moved_at, let_go, followed) = watched?;
        Ok((asked, moved_at, let_go, followed))
    })?;

    // Each request that an agent could see is at the shadow, once; none is there that nobody asked.
    let mirrored = first.at_rest(PATIENCE)?.mirrored - before + second.at_rest(PATIENCE)?.mirrored;
    let copies = copies(&cluster)?;
    let families: Vec<bool> = new.at.iter().map(|at| at.is_ipv4()).collect();
    let is_whole = |one: &Asked| families.iter().all(|family| copies.contains(&(one.number, *family)));
    let (mut covered, mut missed) = (0, 0);
    for one in &asked {
        let is_covered = one.ended < moved_at || one.begun > followed;
        ensure!(is_whole(one) || !is_covered, "{one:?} was not mirrored; the pod moved at {moved_at:?}");
        covered += u32::from(is_covered);
        missed += u32::from(!is_whole(one));
    }
    ensure!(covered >= 40, "only {covered} requests show anything");
    ensure!(copies.len() as u64 == mirrored, "{} copies of {mirrored} that the agents sent", copies.len());
    for agent in &agents {
        let books = agent.at_rest(PATIENCE)?;
        books.assert_balanced();
        // One that was under way when its node let go may be lost, and is counted as that.
        ensure!(books.all_lost() <= 1 && books.all_dropped() == 0 && books.all_skipped() == 0, "{books}");
    }
    // What still goes to where the pod was is nobody's.
    expect_left_alone(&cluster, first, &old)?;
    until(second, "one pod", |metrics| pods(metrics) == 1.0)?;
    let (let_go, followed) = (let_go - moved_at, followed - moved_at);
    ensure!(let_go < promise() && followed < promise(), "{wiring:?}, {stack:?}: {let_go:?}, {followed:?}");
    Ok(format!(
        "{wiring:?}, {stack:?}: let go after {let_go:?}, followed after {followed:?}, {missed} of {} requests passed in between",
        asked.len()
    ))
}

#[test]
fn an_experiment_goes_with_its_pod_from_node_to_node() -> Result<()> {
    require_agent!();
    println!("{}", moves_from_node_to_node(Wiring::Calico, Stack::V4)?);
    println!("{}", moves_from_node_to_node(Wiring::Bridge, Stack::Both)?);
    Ok(())
}
