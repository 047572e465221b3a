//! Enters: the hosts, a seed. Leaves: wires that lose and double, and one mishap after the other.

use std::{
    fmt::{self, Display, Formatter},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{book::Book, clients::Clients};
use crate::{
    agent::Agent,
    netns::{FilterRule, FilterTool, Topology},
    rng::Rng,
    scenario::PORT,
    server::Server,
};

/// An interface beside the one that matters, which comes and goes.
pub(super) const SPARE_INTERFACE: &str = "spare0";

/// What happened, how often.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mishaps {
    pub(super) flaps: u64,
    pub(super) shadow_stops: u64,
    pub(super) pauses: u64,
    pub(super) spare_replaced: u64,
}

impl Mishaps {
    /// All of them.
    pub(super) const fn total(&self) -> u64 {
        self.flaps + self.shadow_stops + self.pauses + self.spare_replaced
    }

    /// Whether each kind has happened; pauses only where they are meant to.
    pub(super) const fn has_all(&self, pauses: bool) -> bool {
        self.flaps > 0 && self.shadow_stops > 0 && self.spare_replaced > 0 && (self.pauses > 0 || !pauses)
    }
}

impl Display for Mishaps {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { flaps, shadow_stops, pauses, spare_replaced } = self;
        write!(
            f,
            "live's wire down {flaps} times, the shadow stopped {shadow_stops}, the agent paused {pauses}, the spare \
             interface replaced {spare_replaced}"
        )
    }
}

/// Makes every wire between clients and live lose and double segments, `percent` of them each time; until dropped.
///
/// On the way to live, before the hook on the bridge and after it in live's own filter, and on the way back likewise.
pub(super) fn bad_wires(net: &Topology, percent: f64) -> Result<Vec<FilterRule>> {
    let now_and_then = format!("-m statistic --mode random --probability {:.4}", percent / 100.0);
    let to_live = format!("-p tcp --dport {PORT} {now_and_then}");
    let from_live = format!("-p tcp --sport {PORT} {now_and_then}");
    let mut rules = Vec::new();
    for (tool, live, client) in [
        (FilterTool::V4, net.live.v4.to_string(), net.client.v4.to_string()),
        (FilterTool::V6, net.live.v6.to_string(), net.client.v6.to_string()),
    ] {
        // Copies to the shadow go to the same port: only the way between the clients and live is bad.
        rules.push(net.filter_wire(tool, &format!("-d {live} {to_live} -j DROP"))?);
        rules.push(net.filter_wire(tool, &format!("-d {client} {from_live} -j DROP"))?);
        rules.push(net.live.filter(tool, "filter", "INPUT", &format!("{to_live} -j DROP"))?);
        rules.push(net.client.filter(tool, "filter", "INPUT", &format!("{from_live} -j DROP"))?);
        let double = format!("{to_live} -j TEE --gateway {live}");
        rules.push(net.client.filter(tool, "mangle", "POSTROUTING", &double)?);
        let double = format!("-d {client} {from_live} -j TEE --gateway {client}");
        rules.push(net.live.filter(tool, "mangle", "POSTROUTING", &double)?);
    }
    Ok(rules)
}

/// Makes the interface that comes and goes.
pub(super) fn add_spare(net: &Topology) -> Result<()> {
    net.live.ip(&format!(
        "link add {SPARE_INTERFACE} type veth peer name {SPARE_INTERFACE}p\nlink set {SPARE_INTERFACE} up\n"
    ))
}

/// What mishaps happen to.
pub(super) struct Scene<'a> {
    pub(super) net: &'a Topology,
    pub(super) agent: &'a Agent,
    pub(super) clients: &'a Clients,
    /// `None` while it is stopped.
    pub(super) shadow: &'a mut Option<Server>,
    pub(super) shadow_book: &'a Arc<Book>,
    pub(super) mishaps: &'a mut Mishaps,
    pub(super) pauses: bool,
}

impl Scene<'_> {
    /// Lets one thing go wrong, and puts it right again.
    pub(super) fn mishap(&mut self, rng: &mut Rng) -> Result<()> {
        match rng.weighted(&[35, 25, if self.pauses { 25 } else { 0 }, 15]) {
            0 => {
                // The far end of live's wire, so that live keeps its addresses.
                self.net.hub.ip("link set p2 down\n")?;
                pause(rng, 50, 700);
                self.net.hub.ip("link set p2 up\n")?;
                self.mishaps.flaps += 1;
            }
            1 => {
                *self.shadow = None;
                pause(rng, 300, 3_000);
                *self.shadow = Some(start_shadow(self.net, self.shadow_book)?);
                self.mishaps.shadow_stops += 1;
            }
            2 => {
                self.clients.agent_goes_blind();
                self.agent.pause()?;
                pause(rng, 100, 1_500);
                self.agent.resume()?;
                self.clients.agent_sees_again();
                self.mishaps.pauses += 1;
            }
            _ => {
                self.net.live.ip(&format!("link del {SPARE_INTERFACE}\n"))?;
                pause(rng, 50, 1_000);
                add_spare(self.net)?;
                self.mishaps.spare_replaced += 1;
            }
        }
        Ok(())
    }
}

/// Starts the shadow.
pub(super) fn start_shadow(net: &Topology, book: &Arc<Book>) -> Result<Server> {
    let witness = Arc::clone(book);
    Server::watched(&net.shadow, PORT, witness)
}

fn pause(rng: &mut Rng, least: usize, most: usize) {
    thread::sleep(Duration::from_millis(rng.between(least, most) as u64));
}
