//! Enters: a SYN flood, a port scan and data from nowhere on the wire, beside one connection that behaves. Leaves: every
//! good request at the shadow, balanced books, and an agent of its usual size.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use mirror_tests::{
    frames::{End, Envelope, Said, Wire, flag, frame},
    require_agent,
    scenario::{PORT, Scenario, Weight},
};

/// Frames for each pause of the flood, and the pause: at most 20,000 frames a second.
const BURST: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// How many frames the flood is made of, however long they take.
const FLOOD: u32 = 120_000;

/// `--memory`, of which the table's share is filled by the flood several times over.
const MEMORY_BYTES: u64 = 24 * 1024 * 1024;

/// What the agent takes besides: its ring, its program, its runtime, buffers of copies under way.
const FIXED_BYTES: u64 = 24 * 1024 * 1024;

#[test]
fn good_connection_beside_a_flood_is_mirrored_in_full() -> Result<()> {
    require_agent!();
    let memory = MEMORY_BYTES.to_string();
    let scenario = Scenario::start(
        Weight::Heavy,
        &["--memory", &memory, "--queue-bytes", "8MiB", "--ring-size", "8MiB"],
    )?;
    let is_over = AtomicBool::new(false);
    let (mut sent, mut most) = (0_u64, 0);
    let flooded = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let flooded = flood(&scenario);
            is_over.store(true, Ordering::Relaxed);
            flooded
        });
        let mut client = scenario.client()?;
        while !is_over.load(Ordering::Relaxed) {
            let request = format!("GET /good/{sent} HTTP/1.1\r\nHost: live\r\n\r\n");
            client.ask(request.as_bytes())?;
            sent += 1;
            most = most.max(scenario.agent.pss()?);
            thread::sleep(Duration::from_millis(5));
        }
        flood.join().unwrap_or_else(|_| anyhow::bail!("the flood panicked"))
    })?;
    let ledger = scenario.settle()?;
    let evicted = scenario.agent.metrics()?.value("mirror_flows_evicted_total", "reason", "limit");
    println!(
        "{flooded} frames, {evicted} flows evicted, {sent} good requests, {most} bytes at most: {ledger}"
    );
    ensure!(ledger.mirrored == sent && ledger.all_frames_dropped() == 0, "of {sent}: {ledger}");
    ensure!(evicted > 10_000.0, "{evicted} flows evicted by {flooded} frames");
    ensure!(most < MEMORY_BYTES + FIXED_BYTES, "the agent takes {most} bytes");
    ledger.assert_balanced();
    scenario.expect_faithful(|raw| raw.starts_with(b"GET /good/"))
}

/// Sends frames in the names of hosts that do not exist, to an address where nobody answers and to the live server's own.
fn flood(scenario: &Scenario) -> Result<u32> {
    let mut wire = Wire::open(&scenario.net.client)?;
    let mut number = 0_u32;
    while number < FLOOD {
        for _ in 0..BURST {
            let [_, high, middle, low] = number.to_be_bytes();
            let from = Ipv4Addr::new(10, 99 + (high & 7), middle, low);
            let from = End { mac: scenario.net.client.mac, at: SocketAddr::from((from, 20_000)) };
            let to = if number.is_multiple_of(8) {
                scenario.net.live.at_v4(PORT)
            } else {
                SocketAddr::from((Ipv4Addr::new(10, 77, 0, 99), PORT))
            };
            let to = End { mac: scenario.net.live.mac, at: to };
            let (flags, payload) = match number % 4 {
                0..=2 => (flag::SYN, &b""[..]),
                _ => (flag::ACK, &b"data of no connection"[..]),
            };
            let said = Said { seq: number.wrapping_mul(0x9e37_79b9), ack: number, flags, payload };
            wire.send(&frame(from, to, &Envelope::default(), &said)?)?;
            number += 1;
        }
        thread::sleep(PAUSE);
    }
    Ok(number)
}
