//! Enters: requests through tunnels. Leaves: nothing; each is seen once, at the tunnel's own device and below it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    netns::{Host, INTERFACE},
    require_agent,
    scenario::{Stage, Weight},
    server::Record,
};

use crate::path::{DEVICE, addressed, expect_each_once, has_tool, inner_v4, inner_v6, try_ip};

/// Which address family a tunnel carries in the test.
#[derive(Clone, Copy, Debug)]
enum Inner {
    V4,
    V6,
}

/// Sends requests through a tunnel of this kind over IPv4, once for each place where an agent can stand.
fn through(kind: &str, options: &str, inner: Inner) -> Result<()> {
    require_agent!();
    for interface in [DEVICE, INTERFACE] {
        let stage = Stage::set(Weight::Light, Record::Raw)?;
        let ends = [(&stage.net.client, &stage.net.live), (&stage.net.live, &stage.net.client)];
        for (own, peer) in ends {
            let tunnel = format!(
                "link add {DEVICE} type {kind} {options} local {} remote {}\n{}",
                own.v4,
                peer.v4,
                addressed(own)
            );
            if !try_ip(own, &only(&tunnel, kind))? {
                return Ok(());
            }
        }
        let server = match inner {
            Inner::V4 => inner_v4(&stage.net.live),
            Inner::V6 => inner_v6(&stage.net.live),
        };
        expect_each_once(stage, |stage| &stage.net.live, interface, server)?;
    }
    Ok(())
}

/// Leaves out the addresses of a family that this kind of tunnel does not carry.
fn only(commands: &str, kind: &str) -> String {
    let foreign = match kind {
        "ipip" => "addr add fd78",
        "sit" => "addr add 10.78",
        _ => return commands.to_owned(),
    };
    commands.lines().filter(|line| !line.starts_with(foreign)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn vxlan() -> Result<()> {
    through("vxlan", "id 42 dstport 4789 dev eth0", Inner::V4)
}

#[test]
fn vxlan_on_the_old_port_of_linux() -> Result<()> {
    through("vxlan", "id 42 dstport 8472 dev eth0", Inner::V6)
}

#[test]
fn geneve() -> Result<()> {
    require_agent!();
    // It takes no local address.
    for interface in [DEVICE, INTERFACE] {
        let stage = Stage::set(Weight::Light, Record::Raw)?;
        for (own, peer) in [(&stage.net.client, &stage.net.live), (&stage.net.live, &stage.net.client)] {
            let tunnel =
                format!("link add {DEVICE} type geneve id 42 remote {}\n{}", peer.v4, addressed(own));
            if !try_ip(own, &tunnel)? {
                return Ok(());
            }
        }
        let server = inner_v4(&stage.net.live);
        expect_each_once(stage, |stage| &stage.net.live, interface, server)?;
    }
    Ok(())
}

#[test]
fn gre_with_ip_inside() -> Result<()> {
    through("gre", "", Inner::V4)
}

#[test]
fn gre_with_a_key_and_ethernet_inside() -> Result<()> {
    through("gretap", "key 7", Inner::V6)
}

#[test]
fn ip_in_ip() -> Result<()> {
    through("ipip", "", Inner::V4)
}

#[test]
fn ipv6_in_ipv4() -> Result<()> {
    through("sit", "", Inner::V6)
}

#[test]
fn wireguard() -> Result<()> {
    require_agent!();
    if !has_tool("wg") {
        return Ok(());
    }
    let stage = Stage::set(Weight::Light, Record::Raw)?;
    let (client, live) = (&stage.net.client, &stage.net.live);
    for host in [client, live] {
        if !try_ip(host, &format!("link add {DEVICE} type wireguard\n"))? {
            return Ok(());
        }
    }
    let keys = [wg_key(client)?, wg_key(live)?];
    for (own, peer, peer_key) in [(client, live, &keys[1]), (live, client, &keys[0])] {
        let networks = format!("{}/32,{}/128", inner_v4(peer), inner_v6(peer));
        let endpoint = format!("{}:51820", peer.v4);
        let mut wg = own.command("wg".as_ref());
        wg.args(["set", DEVICE, "listen-port", "51820", "peer", peer_key]);
        let output = wg.args(["allowed-ips", &networks, "endpoint", &endpoint]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        own.ip(&addressed(own))?;
    }
    let server = inner_v4(live);
    expect_each_once(stage, |stage| &stage.net.live, DEVICE, server)
}

/// Gives a host's device a private key, and returns the public one.
fn wg_key(host: &Host) -> Result<String> {
    let private = tempfile::NamedTempFile::new()?;
    let made = Command::new("wg").arg("genkey").stdout(private.reopen()?).status()?;
    let set =
        host.command("wg".as_ref()).args(["set", DEVICE, "private-key"]).arg(private.path()).status()?;
    ensure!(made.success() && set.success(), "wg makes no key");
    let public = host.command("wg".as_ref()).args(["show", DEVICE, "public-key"]).output()?;
    let public = String::from_utf8(public.stdout).context("read the public key")?;
    Ok(public.trim().to_owned())
}
