//! Enters: a byte stream on a port that is not mirrored. Leaves: how fast it goes with and without the agent.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use mirror_tests::sys;

use crate::{
    probe::Usage,
    report::{Figure, Mark, Table},
    trial::Stage,
    workloads::Effort,
};

/// The port of the bulk traffic.
const BULK_PORT: u16 = 9_999;
/// Bytes handed to the kernel at once.
const WRITE_BYTES: usize = 256 * 1024;

/// Measures the throughput of live's host in rounds, with and without the agent.
pub(crate) fn measure(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut used = Duration::ZERO;
    for _ in 0..effort.rounds {
        let alone = throughput(stage, effort.duration)?;
        let agent = stage.agent(&[])?;
        let before = Usage::of(agent.pid())?;
        let beside = throughput(stage, effort.duration)?;
        used = used.max(Usage::of(agent.pid())?.since(before).cpu);
        agent.stop()?;
        without.push(alone);
        with.push(beside);
        ratios.push(beside / alone);
    }
    let mut table = Table::new(
        "bulk",
        "Unmatched bulk traffic: one TCP stream into live's host on another port",
        &["agent", "Gbit/s", "ratio", "CPU agent %"],
    );
    table.rows.push(vec!["absent".into(), Figure::of(without).into(), 1.0.into(), crate::report::Cell::None]);
    let busy = 100.0 * used.as_secs_f64() / effort.duration.as_secs_f64();
    table.rows.push(vec!["attached".into(), Figure::of(with).into(), Figure::of(ratios).into(), busy.into()]);
    table.note("Ratio: of the two neighbouring runs of each round. Data arrives at ingress, acknowledgements leave at egress.");
    Ok((vec![table], Vec::new()))
}

/// Gigabits a second from client to live.
fn throughput(stage: &Stage, duration: Duration) -> Result<f64> {
    if sys::interrupted() {
        anyhow::bail!("interrupted");
    }
    let listener = stage.net.live.within(|| Ok(TcpListener::bind(SocketAddr::from(([0; 4], BULK_PORT)))?))?;
    let sink = stage.net.live.spawn("sink", move || {
        let mut stream = accept(&listener)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut buffer = vec![0; WRITE_BYTES];
        let (start, mut bytes) = (Instant::now(), 0_u64);
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(bytes as f64 * 8e-9 / start.elapsed().as_secs_f64()),
                read => bytes += read as u64,
            }
        }
    })?;
    let target = stage.net.live.at_v4(BULK_PORT);
    stage.net.client.within(move || {
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(2))?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        let buffer = vec![b'x'; WRITE_BYTES];
        let start = Instant::now();
        while start.elapsed() < duration {
            stream.write_all(&buffer)?;
        }
        Ok(())
    })?;
    sink.join().map_err(|_panic| anyhow::anyhow!("the sink panicked"))?
}

/// Waits for the one connection, for two seconds at most.
fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error).context("nobody connects"),
        }
    }
}
