//! Enters: requests over devices that lie on top of an Ethernet interface. Leaves: nothing; each is seen once.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use mirror_tests::{
    netns::{Host, INTERFACE},
    require_agent,
    scenario::{Stage, Weight},
    server::Record,
};

use crate::path::{DEVICE, addressed, expect_each_once, has_tool, inner_v4, inner_v6, try_ip};

/// Makes the device on client and live; false, said aloud, where the kernel cannot.
fn add(stage: &Stage, commands: &str) -> Result<bool> {
    for host in [&stage.net.client, &stage.net.live] {
        if !try_ip(host, &format!("{commands}\n{}", addressed(host)))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn stage() -> Result<Stage> {
    Stage::set(Weight::Light, Record::Raw)
}

fn live(stage: &Stage) -> &Host {
    &stage.net.live
}

fn hub(stage: &Stage) -> &Host {
    &stage.net.hub
}

const VLAN: &str = "link add link eth0 name x0 type vlan id 5";
const DOUBLE_VLAN: &str = "link add link eth0 name x1 type vlan proto 802.1ad id 7\nlink set x1 up\n\
                           link add link x1 name x0 type vlan id 5";

#[test]
fn vlan_device_gives_requests_without_their_tag() -> Result<()> {
    require_agent!();
    for server in [inner_v4, inner_v6] {
        let stage = stage()?;
        if add(&stage, VLAN)? {
            let server = server(&stage.net.live);
            expect_each_once(stage, live, DEVICE, server)?;
        }
    }
    Ok(())
}

#[test]
fn tagged_requests_are_seen_at_the_interface_below() -> Result<()> {
    require_agent!();
    for commands in [VLAN, DOUBLE_VLAN] {
        for (node, interface) in [(live as fn(&Stage) -> &Host, INTERFACE), (hub, "p2")] {
            let stage = stage()?;
            if add(&stage, commands)? {
                let server = inner_v4(&stage.net.live);
                expect_each_once(stage, node, interface, server)?;
            }
        }
    }
    Ok(())
}

#[test]
fn tags_that_stand_in_the_bytes_are_no_obstacle() -> Result<()> {
    require_agent!();
    if !has_tool("ethtool") {
        return Ok(());
    }
    for (node, interface) in [(live as fn(&Stage) -> &Host, INTERFACE), (hub, "p2")] {
        let stage = stage()?;
        if !add(&stage, VLAN)? {
            return Ok(());
        }
        let net = &stage.net;
        for (host, interface) in
            [(&net.client, INTERFACE), (&net.live, INTERFACE), (&net.hub, "p1"), (&net.hub, "p2")]
        {
            let mut switch = host.command("ethtool".as_ref());
            switch.args(["-K", interface, "tx-vlan-offload", "off", "rx-vlan-offload", "off"]);
            let output = switch.output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let server = inner_v4(&stage.net.live);
        expect_each_once(stage, node, interface, server)?;
    }
    Ok(())
}

#[test]
fn bond_is_a_node_of_its_own() -> Result<()> {
    require_agent!();
    let stage = stage()?;
    let host = &stage.net.live;
    let commands = format!(
        "link add {DEVICE} type bond mode active-backup miimon 100\nlink set {INTERFACE} down\n\
         addr flush dev {INTERFACE}\nlink set {INTERFACE} master {DEVICE}\nlink set {DEVICE} up\n\
         addr add {}/24 dev {DEVICE}\n",
        host.v4
    );
    if try_ip(host, &commands)? {
        let server = host.v4.into();
        expect_each_once(stage, live, DEVICE, server)?;
    }
    Ok(())
}

#[test]
fn macvlan_has_requests_of_its_own() -> Result<()> {
    require_agent!();
    let stage = stage()?;
    for host in [&stage.net.client, &stage.net.live] {
        // Both devices hear who asks for an address, and each would answer for the other's.
        host.within(|| fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1").context("set arp_ignore"))?;
    }
    if add(&stage, "link add link eth0 name x0 type macvlan mode bridge")? {
        let server = inner_v4(&stage.net.live);
        expect_each_once(stage, live, DEVICE, server)?;
    }
    Ok(())
}

#[test]
fn bridge_shows_what_the_node_asks_of_its_pods() -> Result<()> {
    require_agent!();
    let mut stage = stage()?;
    // The node asks, over its bridge: at the bridge's egress stands what the pod gets.
    std::mem::swap(&mut stage.net.client, &mut stage.net.hub);
    let server = stage.net.live.v4.into();
    expect_each_once(stage, |stage| &stage.net.client, "br0", server)
}

#[test]
fn packets_beyond_64_kib_are_seen_whole() -> Result<()> {
    require_agent!();
    let stage = stage()?;
    let net = &stage.net;
    for (host, interface) in
        [(&net.client, INTERFACE), (&net.live, INTERFACE), (&net.hub, "p1"), (&net.hub, "p2")]
    {
        match host.ip(&format!("link set {interface} gso_max_size 185000 gro_max_size 185000\n")) {
            Ok(()) => {}
            Err(error) => {
                println!("SKIPPED: this kernel has no BIG TCP: {error:#}");
                return Ok(());
            }
        }
    }
    let server = stage.net.live.v6.into();
    expect_each_once(stage, live, INTERFACE, server)
}
