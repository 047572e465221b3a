//! Enters: interfaces that come, go and change, and other people's programs at them. Leaves: proof that the agent is
//! attached where it should be, and that the others are left alone.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use mirror_tests::{
    agent::{self, Agent, Arguments},
    client::RawClient,
    foreign::{Ending, Foreign, Place},
    relay::relay,
    require_agent,
    scenario::{PATIENCE, PORT, Stage, Weight},
    server::Record,
    sys::{TcxHook, has_tcx, tcx_program_ids},
};

const GET: &[u8] = b"GET /attach HTTP/1.1\r\nHost: live\r\n\r\n";

/// Takes the live host's interface away and gives it another whose other end, at the hub, has this name.
fn replace_wire(stage: &Stage, old: &str, new: &str) -> Result<()> {
    let live = &stage.net.live;
    let mac = live.mac.map(|byte| format!("{byte:02x}")).join(":");
    stage.net.hub.ip(&format!(
        "link del {old}\nlink add {new} type veth peer name eth0 address {mac} netns {}\n\
         link set {new} master br0\nlink set {new} up\n",
        live.name()
    ))?;
    live.ip(&format!(
        "addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 up\n",
        live.v4, live.v6
    ))
}

/// Waits until so many interfaces are attached in a role; gives how long that took.
fn wait_for_attached(agent: &Agent, role: &str, wanted: f64) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let count = agent.metrics()?.value("mirror_interfaces_attached", "role", role);
        if count == wanted {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > PATIENCE {
            bail!("{count} and not {wanted} are attached as {role}: {}", agent.printed("stderr"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Asks live ten times on a connection of its own and waits until so many requests were mirrored in all.
fn ask_ten(stage: &Stage, agent: &Agent, mirrored: u64) -> Result<()> {
    let mut client = RawClient::connect(&stage.net.client, stage.net.live.at_v4(PORT))?;
    for _ in 0..10 {
        client.ask(GET)?;
    }
    let books = agent.wait_for(PATIENCE, |books| books.mirrored >= mirrored && books.pending == 0)?;
    // The agent's own probe goes to the same port of the shadow, and passes an interface that is a pod's for a moment.
    let asked = books.seen - books.skipped_for("marked");
    ensure!(asked == mirrored && books.mirrored == mirrored, "{books}");
    Ok(())
}

fn url(stage: &Stage) -> String {
    format!("http://{}", stage.net.shadow.at_v4(PORT))
}

#[test]
fn an_interface_that_a_pattern_means_is_followed_from_its_coming_to_its_end() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let hub = &stage.net.hub;
    for &attach in ways()? {
        let arguments = Arguments::on("n[a-z]*", PORT, &url(&stage)).with(&["--attach", attach]);
        let agent = Agent::start(hub, &arguments)?;
        ensure!(agent.printed("stderr").contains("waiting for one"), "{}", agent.printed("stderr"));
        ensure!(agent.metrics()?.sum("mirror_interfaces_attached") == 0.0);

        replace_wire(&stage, "p2", "new0")?;
        let took = wait_for_attached(&agent, "pod", 1.0)?;
        ensure!(took < Duration::from_secs(1), "{attach}: attached only after {took:?}");
        ask_ten(&stage, &agent, 10)?;

        // Another name that is meant, and one that is not.
        hub.ip("link set new0 down\nlink set new0 name next0\nlink set next0 up\n")?;
        ask_ten(&stage, &agent, 20)?;
        hub.ip("link set next0 down\nlink set next0 name p2\nlink set p2 up\n")?;
        let took = wait_for_attached(&agent, "pod", 0.0)?;
        ensure!(took < Duration::from_secs(1), "{attach}: detached only after {took:?}");
        RawClient::connect(&stage.net.client, stage.net.live.at_v4(PORT))?.ask(GET)?;
        ask_nothing_seen(&agent, 20)?;

        // The end of an interface is no error, and a new one of the same name is another.
        replace_wire(&stage, "p2", "nth0")?;
        wait_for_attached(&agent, "pod", 1.0)?;
        replace_wire(&stage, "nth0", "nth0")?;
        ask_until_seen(&stage, &agent, 20)?;
        hub.ip("link del nth0\n")?;
        wait_for_attached(&agent, "pod", 0.0)?;
        ensure!(agent.get("/readyz")?.0 == 200);
        let ended = agent.stop()?;
        ensure!(ended.status.success() && !ended.stderr.contains("failed"), "{ended:?}");
        hub.ip("link add p2 type veth peer name gone0\n")?;
    }
    Ok(())
}

#[test]
fn a_target_that_leads_to_an_interface_that_came_later_gets_no_copies_from_then_on() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let way = relay(&stage.net.other, stage.net.live.at_v4(PORT))?;
    // Nothing is captured yet: as far as can be told, it leads elsewhere.
    let agent = Agent::start(&stage.net.hub, &Arguments::on("n[a-z]*", PORT, &format!("http://{way}")))?;
    ensure!(agent.metrics()?.sum("mirror_target_addresses_refused") == 0.0);
    replace_wire(&stage, "p2", "new0")?;
    wait_until(|| Ok(agent.metrics()?.sum("mirror_target_addresses_refused") == 1.0))?;
    let live = stage.live.requests();
    for _ in 0..5 {
        RawClient::connect(&stage.net.client, stage.net.live.at_v4(PORT))?.ask(GET)?;
    }
    let books = agent.wait_for(PATIENCE, |books| books.all_dropped() == 5)?;
    ensure!(books.mirrored == 0 && stage.live.requests() == live + 5, "{books}");
    Ok(())
}

/// Holds that the agent still has seen no more than so many requests.
fn ask_nothing_seen(agent: &Agent, seen: u64) -> Result<()> {
    thread::sleep(Duration::from_millis(50));
    let books = agent.ledger()?;
    ensure!(books.seen == seen, "{books}");
    Ok(())
}

/// Asks until the agent, which may just be attaching, has seen more than so many requests.
fn ask_until_seen(stage: &Stage, agent: &Agent, seen: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while agent.ledger()?.seen <= seen {
        ensure!(Instant::now() < deadline, "nothing is seen: {}", agent.printed("stderr"));
        RawClient::connect(&stage.net.client, stage.net.live.at_v4(PORT))?.ask(GET)?;
    }
    Ok(())
}

#[test]
fn auto_follows_the_default_route() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let live = &stage.net.live;
    let agent = Agent::start(live, &Arguments::on("auto", PORT, &url(&stage)))?;
    ensure!(agent.metrics()?.sum("mirror_interfaces_attached") == 0.0);
    live.ip("route add default via 10.77.0.254\n")?;
    wait_for_attached(&agent, "node", 1.0)?;
    ensure!(live.attached_programs()? == 2);
    ask_ten(&stage, &agent, 10)?;

    live.ip(
        "link add d0 type veth peer name d1\naddr add 10.9.0.1/24 dev d0\nlink set d0 up\nlink set d1 up\n\
             route replace default via 10.9.0.2 dev d0\n",
    )?;
    wait_until(|| Ok(live.attached_programs()? == 0 && live.attached_programs_of("d0")? == 2))?;
    live.ip("route replace default nexthop via 10.9.0.2 dev d0 nexthop via 10.77.0.254 dev eth0\n")?;
    wait_until(|| Ok(live.attached_programs()? == 2 && live.attached_programs_of("d0")? == 2))?;
    live.ip("route del default\nroute add default via fd77::fe dev eth0\n")?;
    wait_until(|| Ok(live.attached_programs()? == 2 && live.attached_programs_of("d0")? == 0))?;
    ask_ten(&stage, &agent, 20)?;
    ensure!(agent.stop()?.status.success());
    Ok(())
}

/// The ways to attach that this kernel has: those before Linux 6.6 have no TCX.
fn ways() -> Result<&'static [&'static str]> {
    Ok(if has_tcx()? { &["tcx", "clsact"] } else { &["clsact"] })
}

fn wait_until(mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition()? {
        ensure!(Instant::now() < deadline, "not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn a_role_that_was_not_said_follows_the_interface() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let live = &stage.net.live;
    let agent = Agent::start(live, &Arguments::on("eth*", PORT, &url(&stage)))?;
    wait_for_attached(&agent, "node", 1.0)?;
    live.ip("addr flush dev eth0 scope global\n")?;
    wait_for_attached(&agent, "pod", 1.0)?;
    ensure!(agent.metrics()?.sum("mirror_interfaces_attached") == 1.0);
    live.ip(&format!("addr add {}/24 dev eth0\n", live.v4))?;
    wait_for_attached(&agent, "node", 1.0)?;
    ask_ten(&stage, &agent, 10)
}

#[test]
fn an_interface_that_several_items_mean_is_attached_once_in_the_role_of_its_name() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let live = &stage.net.live;
    let agent = Agent::start(live, &Arguments::on("eth*:pod,[el][to]*,eth0:node,?th?", PORT, &url(&stage)))?;
    ensure!(live.attached_programs()? == 2 && live.attached_programs_of("lo")? == 0);
    wait_for_attached(&agent, "node", 1.0)?;
    ask_ten(&stage, &agent, 10)
}

#[test]
fn a_name_that_does_not_exist_is_refused_and_one_that_goes_is_waited_for() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let hub = &stage.net.hub;
    let refused = Agent::refuse(hub, &Arguments::on("p2,absent0", PORT, &url(&stage)))?;
    ensure!(
        !refused.status.success() && refused.stderr.contains("no interface is named absent0"),
        "{refused:?}"
    );
    let agent = Agent::start(hub, &Arguments::on("p2", PORT, &url(&stage)))?;
    ask_ten(&stage, &agent, 10)?;
    hub.ip("link del p2\n")?;
    wait_for_attached(&agent, "pod", 0.0)?;
    hub.ip("link add p2 type veth peer name eth9\n")?;
    wait_for_attached(&agent, "pod", 1.0)?;
    replace_wire(&stage, "p2", "p2")?;
    ask_until_seen(&stage, &agent, 10)
}

#[test]
fn programs_of_others_before_and_behind_ours_run_and_keep_their_places() -> Result<()> {
    require_agent!();
    if !has_tcx()? {
        println!("SKIPPED: this kernel has no TCX, at which places are kept");
        return Ok(());
    }
    let stage = Stage::set(Weight::Light, Record::Count)?;
    // The client's end of the bridge, where its requests arrive: like a node's uplink.
    let hub = &stage.net.hub;
    let index = |name: &'static str| hub.within(move || Ok(nix::net::if_::if_nametoindex(name)?));
    let (uplink, pod) = (index("p1")?, index("p2")?);
    let ids = || hub.within(|| Ok(tcx_program_ids(uplink, TcxHook::Ingress)?));
    let attach = |place, ending| hub.within(|| Foreign::attach(uplink, TcxHook::Ingress, place, ending));
    let before = attach(Place::Head, Ending::Next)?;
    // As Cilium does it: what arrives is sent to the pod past everything else.
    let behind = attach(Place::Tail, Ending::Redirect(pod))?;
    let foreign = ids()?;
    ensure!(foreign.len() == 2);

    let agent = Agent::start(hub, &Arguments::on("p1:node", PORT, &url(&stage)))?;
    let all = ids()?;
    ensure!(all.len() == 3 && all[1..] == foreign, "{all:?} is not ours and then {foreign:?}");
    // One that comes later and goes before ours ends the chain for nobody either.
    let latest = attach(Place::Head, Ending::Next)?;
    let counts = || Ok::<_, anyhow::Error>([before.runs()?, behind.runs()?, latest.runs()?]);
    let earlier = counts()?;
    ask_ten(&stage, &agent, 10)?;
    let later = counts()?;
    ensure!(
        earlier.iter().zip(&later).all(|(earlier, later)| later >= &(earlier + 10)),
        "{earlier:?} {later:?}"
    );

    agent.kill()?;
    wait_until(|| Ok(ids()?.len() == 3))?;
    let agent = Agent::start(hub, &Arguments::on("p1:node", PORT, &url(&stage)))?;
    ask_ten(&stage, &agent, 10)?;
    ensure!(agent.stop()?.status.success());
    drop(latest);
    ensure!(ids()? == foreign, "programs of others have changed places");
    Ok(())
}

#[test]
fn only_requests_to_the_addresses_named_are_mirrored_at_both_hooks() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let live = &stage.net.live;
    live.ip("addr add 10.77.0.22/24 dev eth0\naddr add fd77::22/64 dev eth0 nodad\n")?;
    let other_v4 = ([10, 77, 0, 22], PORT).into();
    let other_v6 = ("fd77::22".parse::<std::net::Ipv6Addr>()?, PORT).into();
    let addresses = ["--address", "10.77.0.16/28,fd77::20/123"];
    // Requests arrive at the one, and leave by the other.
    for (host, interface) in [(live, "eth0"), (&stage.net.hub, "p2")] {
        let agent = Agent::start(host, &Arguments::on(interface, PORT, &url(&stage)).with(&addresses))?;
        for target in [other_v4, live.at_v4(PORT), other_v6, live.at_v6(PORT)] {
            let mut client = RawClient::connect(&stage.net.client, target)?;
            for _ in 0..5 {
                client.ask(GET)?;
            }
        }
        let books = agent.wait_for(PATIENCE, |books| books.mirrored >= 10 && books.pending == 0)?;
        ensure!(books.seen == 10 && books.mirrored == 10, "{interface}: {books}");
    }
    Ok(())
}

#[test]
fn devices_without_ethernet_and_bridges_get_the_role_that_fits_them() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let hub = &stage.net.hub;
    let mut expected = vec![("br0", "pod"), ("p2", "pod"), ("lo", "lo")];
    let candidates = [
        ("tun", "tun0", "tuntap add dev tun0 mode tun", "node"),
        ("bond", "bond0", "link add bond0 type bond", "node"),
        ("vlan", "p2.7", "link add link p2 name p2.7 type vlan id 7", "node"),
        ("wireguard", "wg0", "link add wg0 type wireguard", "node"),
    ];
    for (kind, name, command, role) in candidates {
        match hub.ip(&format!("{command}\n")) {
            Ok(()) => expected.push((name, role)),
            Err(error) => println!("SKIPPED: this kernel or `ip` has no {kind}: {error:#}"),
        }
    }
    let names = expected.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",");
    for &attach in ways()? {
        let agent =
            Agent::start(hub, &Arguments::on(&names, PORT, &url(&stage)).with(&["--attach", attach]))?;
        let metrics = agent.metrics()?;
        for role in ["node", "pod", "lo"] {
            let wanted = expected.iter().filter(|(_, expected)| *expected == role).count();
            let count = metrics.value("mirror_interfaces_attached", "role", role);
            ensure!(count == wanted as f64, "{attach}: {count} and not {wanted} are attached as {role}");
        }
        ensure!(agent.stop()?.status.success());
    }
    Ok(())
}

#[test]
fn check_says_what_an_item_means_and_leaves_no_trace() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let hub = &stage.net.hub;
    let output = agent::output(hub, &["check", "--interface", "p[12],br0:node,lo,x*"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}");
    for line in [
        "clsact works",
        "p1 role pod, mirror_requests at egress, mirror_responses at ingress",
        "br0 role node, mirror_requests at ingress, mirror_responses at egress",
        "lo role lo, mirror_both at ingress",
        "x*: nothing matches yet",
    ] {
        ensure!(text.contains(line), "{line} is not in {text}");
    }
    ensure!(hub.attached_programs_of("p1")? == 0 && hub.attached_programs_of("lo")? == 0);
    let output = agent::output(hub, &["check", "--interface", "absent0"])?;
    ensure!(!output.status.success(), "{output:?}");
    Ok(())
}
