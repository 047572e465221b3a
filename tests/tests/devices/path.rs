//! Enters: a client, a live service and a device between them. Leaves: what the agent at an interface made of it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
};

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    client::RawClient,
    netns::Host,
    scenario::{PATIENCE, PORT, Stage},
};

/// What the device under test is called, on every host.
pub(crate) const DEVICE: &str = "x0";

/// So many requests without a body are sent, and one with a large one.
const SMALL_REQUESTS: u64 = 10;
/// Larger than any packet, in bytes.
const BODY_BYTES: usize = 300_000;

/// The address of a host's end of the device: its own with another network in front.
pub(crate) fn inner_v4(host: &Host) -> IpAddr {
    let [.., last] = host.v4.octets();
    Ipv4Addr::new(10, 78, 0, last).into()
}

/// The same in IPv6.
pub(crate) fn inner_v6(host: &Host) -> IpAddr {
    let [.., last] = host.v6.segments();
    Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, last).into()
}

/// The commands that give a device its addresses and bring it up.
pub(crate) fn addressed(host: &Host) -> String {
    format!(
        "addr add {}/24 dev {DEVICE}\naddr add {}/64 dev {DEVICE} nodad\nlink set {DEVICE} up\n",
        inner_v4(host),
        inner_v6(host)
    )
}

/// Runs `ip` commands on a host; false, said aloud, where the kernel lacks what they are about.
pub(crate) fn try_ip(host: &Host, commands: &str) -> Result<bool> {
    match host.ip(commands) {
        Ok(()) => Ok(true),
        Err(error) => {
            let said = format!("{error:#}");
            let Some(why) = LACKING.iter().find(|why| said.contains(*why)) else { return Err(error) };
            let first = commands.lines().next().unwrap_or_default();
            println!("SKIPPED: this kernel cannot `{first}`: {why}");
            Ok(false)
        }
    }
}

/// How kernels say that they were built without something.
const LACKING: [&str; 3] = ["Unknown device type", "Operation not supported", "not supported"];

/// Whether a tool is there; says so where it is not.
pub(crate) fn has_tool(tool: &str) -> bool {
    let is_there = Command::new(tool).arg("--version").output().is_ok();
    if !is_there {
        println!("SKIPPED: needs the tool `{tool}`");
    }
    is_there
}

/// Sends requests from the client to `server` on the live host and sees to it that an agent at `interface` of `node`
/// mirrors each of them once and unchanged. The role is the agent's to find.
pub(crate) fn expect_each_once(
    stage: Stage,
    node: impl Fn(&Stage) -> &Host,
    interface: &str,
    server: IpAddr,
) -> Result<()> {
    let shadow = format!("http://{}", stage.net.shadow.at_v4(PORT));
    let arguments = Arguments::on(interface, PORT, &shadow).with(&["--methods", "all"]);
    let agent = Agent::start(node(&stage), &arguments)?;
    let scenario = stage.around(agent);
    let mut client = RawClient::connect(&scenario.net.client, SocketAddr::new(server, PORT))?;
    for number in 0..SMALL_REQUESTS {
        let code = client.ask(format!("GET /{number} HTTP/1.1\r\nHost: live\r\n\r\n").as_bytes())?.code();
        ensure!(code == "200", "live answers {code}");
    }
    let mut large = format!("POST /large HTTP/1.1\r\nContent-Length: {BODY_BYTES}\r\n\r\n").into_bytes();
    large.extend((0_u32..).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24).to_le_bytes()[0]).take(BODY_BYTES));
    client.ask(&large)?;

    let all = SMALL_REQUESTS + 1;
    let books = scenario.agent.wait_for(PATIENCE, |books| books.mirrored >= all && books.pending == 0)?;
    // The probe of the shadow may pass the hook, too; then it is known as the agent's own.
    let probes = books.skipped_for("marked");
    ensure!(
        books.seen == all + probes && probes <= 1 && books.mirrored == all && books.is_balanced(),
        "{interface}: {books}"
    );
    scenario.expect_at_shadow(all)?;
    scenario.expect_faithful(|_| true)
}
