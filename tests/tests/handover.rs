//! Enters: two agents in one network namespace. Leaves: one of them captures at a time, and the other takes over.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::Agent,
    client::RawClient,
    require_agent,
    scenario::{PATIENCE, PORT, Stage, Weight, expect_requests},
    server::Record,
    slowness::slowed,
    sys::has_tcx,
};

const GET: &[u8] = b"GET /turn HTTP/1.1\r\nHost: live\r\n\r\n";

/// Where the second agent's listener is.
const SECOND_PORT: u16 = 9479;

/// How the first agent goes.
#[derive(Clone, Copy, Debug)]
enum End {
    Stopped,
    Killed,
}

#[test]
fn second_agent_waits_and_takes_over_within_a_second() -> Result<()> {
    require_agent!();
    let attaches = ["tcx", "clsact"].into_iter().skip(usize::from(!has_tcx()?));
    for (attach, end) in attaches.flat_map(|attach| [(attach, End::Stopped), (attach, End::Killed)]) {
        let stage = Stage::set(Weight::Light, Record::Count)?;
        let host = &stage.net.live;
        let arguments = stage.arguments().with(&["--attach", attach]);
        let first = Agent::start(host, &arguments)?;
        let programs = host.attached_programs()?;
        let mut second = Agent::launch(host, &arguments.clone().with_metrics_port(SECOND_PORT))?;
        second.until_answer(503, "another agent runs in this network namespace")?;
        ensure!(second.get("/healthz")?.0 == 200, "an agent that waits is not ill");
        ensure!(second.metrics()?.sum("mirror_agent_waiting") == 1.0);
        ensure!(host.attached_programs()? == programs, "{attach}: the second attaches before its turn");

        let mut client = RawClient::connect(&stage.net.client, host.at_v4(PORT))?;
        client.ask(GET)?;
        first.wait_for(PATIENCE, |books| books.mirrored == 1 && books.pending == 0)?;
        let gone = Instant::now();
        match end {
            End::Stopped => ensure!(first.stop()?.status.code() == Some(0)),
            End::Killed => first.kill()?,
        }
        second.until_ready()?;
        let took = gone.elapsed();
        println!("{attach}, {end:?}: ready after {took:?}");
        ensure!(took < slowed(Duration::from_secs(1)), "{attach}, {end:?}: taking over took {took:?}");
        ensure!(host.attached_programs()? == programs, "{attach}, {end:?}: something is left of the first");

        // The connection is older than the second agent.
        client.ask(GET)?;
        let books = second.wait_for(PATIENCE, |books| books.mirrored == 1 && books.pending == 0)?;
        ensure!(books.seen == 1, "{attach}, {end:?}: {books}");
        expect_requests(&stage.shadow, 2)?;
        ensure!(second.metrics()?.sum("mirror_agent_waiting") == 0.0);
        ensure!(second.stop()?.status.code() == Some(0));
        ensure!(host.attached_programs()? == 0, "{attach}, {end:?}: programs stay attached");
    }
    Ok(())
}

#[test]
fn request_under_way_at_the_change_is_lost_at_the_first_and_the_next_one_is_the_seconds() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Raw)?;
    let host = &stage.net.live;
    let arguments = stage.arguments().with(&["--methods", "all"]);
    let first = Agent::start(host, &arguments)?;
    let mut second = Agent::launch(host, &arguments.clone().with_metrics_port(SECOND_PORT))?;
    second.until_answer(503, "another agent")?;
    let mut client = RawClient::connect(&stage.net.client, host.at_v4(PORT))?;
    client.ask(GET)?;
    // Its body holds a request, behind where the second agent begins to look.
    let begin = b"POST /under-way HTTP/1.1\r\nHost: live\r\nContent-Length: 100\r\n\r\n0123456789";
    client.send(begin)?;
    first.wait_for(PATIENCE, |books| books.seen == 2 && books.mirrored == 1)?;
    let ended = first.stop()?;
    second.until_ready()?;
    let mut rest = b"6789\r\nGET /forged HTTP/1.1\r\nHost: live\r\n\r\n".to_vec();
    rest.resize(90, b'x');
    client.send(&rest)?;
    client.read_response(false)?;
    client.ask(GET)?;
    let books = second.wait_for(PATIENCE, |books| books.mirrored > 0 && books.pending == 0)?;
    for (word, figure) in [("seen", 2), ("mirrored", 1), ("lost", 1), ("dropped", 0)] {
        ensure!(ended.book_figure(word) == figure, "{word} {figure}: {}", ended.stdout);
    }
    // A copy counts once its bytes are on their way.
    expect_requests(&stage.shadow, 2)?;
    let copies: Vec<_> = stage.shadow.arrived().into_iter().map(|copy| copy.raw).collect();
    ensure!(copies.len() == 2 && copies.iter().all(|copy| copy.starts_with(b"GET /turn ")), "{books}");
    Ok(())
}

#[test]
fn agent_that_waits_ends_when_told_to_and_touches_nothing() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let host = &stage.net.live;
    let first = Agent::start(host, &stage.arguments())?;
    let programs = host.attached_programs()?;
    let mut second = Agent::launch(host, &stage.arguments().with_metrics_port(SECOND_PORT))?;
    second.until_answer(503, "another agent")?;
    let ended = second.stop()?;
    ensure!(ended.status.code() == Some(0) && ended.took < Duration::from_secs(2), "{ended:?}");
    ensure!(host.attached_programs()? == programs && first.get("/readyz")?.0 == 200);
    Ok(())
}

#[test]
fn second_agent_of_the_same_address_serves_there_once_the_first_is_gone() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let host = &stage.net.live;
    let first = Agent::start(host, &stage.arguments())?;
    let mut second = Agent::launch(host, &stage.arguments())?;
    let deadline = Instant::now() + PATIENCE;
    while !second.printed("stderr").contains("waits until that is gone") {
        ensure!(Instant::now() < deadline, "it does not say that it waits: {}", second.printed("stderr"));
        thread::sleep(Duration::from_millis(10));
    }
    let _stopped = first.stop()?;
    second.until_ready()?;
    RawClient::connect(&stage.net.client, host.at_v4(PORT))?.ask(GET)?;
    let books = second.wait_for(PATIENCE, |books| books.mirrored == 1)?;
    ensure!(books.seen == 1, "{books}");
    Ok(())
}

#[test]
fn interfaces_that_came_while_an_agent_waited_are_attached_to() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let host = &stage.net.live;
    let first = Agent::start(host, &stage.arguments())?;
    let arguments = stage.arguments().with(&["--interface", "late*"]).with_metrics_port(SECOND_PORT);
    let mut second = Agent::launch(host, &arguments)?;
    second.until_answer(503, "another agent")?;
    for words in ["link add late0 type veth peer name peer0", "link set late0 up"] {
        let status = Command::new("ip").args(["-n", host.name()]).args(words.split(' ')).status()?;
        ensure!(status.success(), "ip {words}");
    }
    first.kill()?;
    second.until_ready()?;
    let deadline = Instant::now() + PATIENCE;
    while second.metrics()?.sum("mirror_interfaces_attached") != 2.0 {
        ensure!(Instant::now() < deadline, "late0 is not attached to: {}", second.printed("stderr"));
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
