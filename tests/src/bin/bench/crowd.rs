//! Enters: a number of connections. Leaves: so many beside the load that say nothing, for as long as they are held.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use mirror_tests::{
    agent::Agent,
    frames::{End, Envelope, Said, Wire, flag, frame},
};
use socket2::SockRef;

use crate::trial::{PORT, Stage};

/// Who is there beside the load.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Crowd {
    /// Nobody.
    Nobody,
    /// So many idle connections of clients to live.
    Connections(usize),
    /// So many flows of which only the agent knows: their frames pass live's interface, and end at addresses that nobody has.
    Flows(usize),
}

/// A crowd that has come; its connections go with it.
#[derive(Debug)]
pub(crate) struct Gathered {
    _connections: Vec<TcpStream>,
}

/// Frames of made-up flows that pass between two pauses.
const BURST: usize = 500;
/// Long enough for the agent to take in a burst: no ring is to overflow before anything is measured.
const PAUSE: Duration = Duration::from_millis(4);
/// How long the agent may take to know all of a crowd.
const PATIENCE: Duration = Duration::from_secs(10);

impl Crowd {
    /// How many they are.
    pub(crate) const fn size(self) -> usize {
        match self {
            Self::Nobody => 0,
            Self::Connections(size) | Self::Flows(size) => size,
        }
    }

    /// Has them come, and waits until the agent, where there is one, knows all of them.
    pub(crate) fn gather(self, stage: &Stage, agent: Option<&Agent>) -> Result<Gathered> {
        let mut connections = Vec::new();
        match self {
            Self::Nobody => {}
            Self::Connections(size) => connections = connect(stage, size)?,
            Self::Flows(size) if agent.is_some() => pass_by(stage, size)?,
            Self::Flows(_) => {}
        }
        if let Some(agent) = agent {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let known = flows(agent)?;
                if known >= self.size() as f64 {
                    break;
                }
                if Instant::now() > deadline {
                    bail!("the agent knows {known} connections of {}", self.size());
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(Gathered { _connections: connections })
    }
}

/// Connections in the agent's table.
pub(crate) fn flows(agent: &Agent) -> Result<f64> {
    Ok(agent.metrics()?.sum("mirror_flows_active"))
}

fn connect(stage: &Stage, size: usize) -> Result<Vec<TcpStream>> {
    let live = stage.net.live.at_v4(PORT);
    stage.net.client.within(|| {
        (0..size)
            .map(|_| {
                let stream = TcpStream::connect_timeout(&live, Duration::from_secs(2))
                    .context("open an idle connection")?;
                // Ended by a reset: thousands of ports would wait for a minute each time.
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                Ok(stream)
            })
            .collect()
    })
}

/// Passes live's interface with the beginning of so many connections, each between ends of which both have been heard.
fn pass_by(stage: &Stage, size: usize) -> Result<()> {
    let (mut client, mut live) = (Wire::open(&stage.net.client)?, Wire::open(&stage.net.live)?);
    let server = End { mac: stage.net.live.mac, at: SocketAddr::from((NOBODY, PORT)) };
    let envelope = Envelope::default();
    for number in 0..u32::try_from(size)? {
        let from = Ipv4Addr::from(u32::from(STRANGERS) + number / PORTS);
        let port = FIRST_PORT + u16::try_from(number % PORTS)?;
        let stranger = End { mac: stage.net.client.mac, at: SocketAddr::from((from, port)) };
        let hello = Said { seq: number, ack: 0, flags: flag::SYN, payload: b"" };
        client.send(&frame(stranger, server, &envelope, &hello)?)?;
        // A byte rather than the acknowledgement alone, which is not copied.
        let answer = Said { seq: 1, ack: number + 1, flags: flag::ACK | flag::PSH, payload: b"x" };
        live.send(&frame(server, stranger, &envelope, &answer)?)?;
        if (number as usize + 1).is_multiple_of(BURST) {
            thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// Nobody has this address, nor those of the clients from here on.
const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const STRANGERS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Connections of each of them.
const PORTS: u32 = 1_000;
const FIRST_PORT: u16 = 20_000;
