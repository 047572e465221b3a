//! Enters: a node wired as network plugins do. Leaves: its pods followed as they come, change and go.

use anyhow::{Result, ensure};
use mirror_tests::{
    client::RawClient,
    cluster::{Cluster, NAMESPACE, Stack, Wiring, running},
    require_agent,
    scenario::{PATIENCE, PORT},
    server::{Record, Server},
};
use serde_json::json;

use crate::scene::{GET, ask_until_mirrored, expect_left_alone, expect_mirrored, pods, promise, until};

/// Has pods come, move and go; says how long each took to be felt.
fn follow_pods(wiring: Wiring, stack: Stack) -> Result<String> {
    let cluster = Cluster::start_with(wiring, stack)?;
    let agent = cluster.agent(&cluster.config("", ""))?;
    ensure!(agent.metrics()?.sum("mirror_interfaces_attached") == 0.0, "there is no pod yet");

    let first = cluster.wire(10)?;
    cluster.tell("shop-0", 0, 10);
    let came = ask_until_mirrored(&cluster, &agent, &first)?;
    expect_mirrored(&cluster, &agent, &first)?;
    let attached = cluster.net.live.attached_programs_of(&wiring.interface(10))?;
    ensure!(attached == 2, "{attached} programs at the pod's interface");
    ensure!(
        agent.metrics()?.sum("mirror_pods_without_interface") == 0.0,
        "one of its addresses is not found"
    );

    // Another of the same labels on another node, and one of other labels here.
    let second = cluster.wire(11)?;
    cluster.tell("shop-1", 1, 11);
    let mut other = running("cart-0", &stack.addresses(11));
    other["metadata"]["labels"]["app"] = json!("cart");
    cluster.api.apply(other);
    expect_left_alone(&cluster, &agent, &second)?;

    // The pod is made anew under its name, with another address, as a StatefulSet does.
    cluster.api.delete(NAMESPACE, "shop-0");
    cluster.tell("shop-0", 0, 11);
    let moved = ask_until_mirrored(&cluster, &agent, &second)?;
    expect_left_alone(&cluster, &agent, &first)?;

    cluster.api.delete(NAMESPACE, "shop-0");
    let went = until(&agent, "no pod", |metrics| pods(metrics) == 0.0)?;
    expect_left_alone(&cluster, &agent, &second)?;
    until(&agent, "detached", |metrics| metrics.sum("mirror_interfaces_attached") == 0.0)?;
    for took in [came, moved, went] {
        ensure!(took < promise(), "{wiring:?}, {stack:?}: {took:?}");
    }
    let books = agent.at_rest(PATIENCE)?;
    ensure!(books.all_lost() == 0, "{books}");
    Ok(format!(
        "{wiring:?}, {stack:?}: came after {came:?}, had another address after {moved:?}, was gone after {went:?}"
    ))
}

#[test]
fn pods_are_followed_as_calico_wires_them() -> Result<()> {
    require_agent!();
    println!("{}", follow_pods(Wiring::Calico, Stack::V4)?);
    Ok(())
}

#[test]
fn pods_are_followed_on_a_bridge() -> Result<()> {
    require_agent!();
    println!("{}", follow_pods(Wiring::Bridge, Stack::V4)?);
    Ok(())
}

#[test]
fn pods_are_followed_as_aws_wires_them() -> Result<()> {
    require_agent!();
    println!("{}", follow_pods(Wiring::Aws, Stack::V4)?);
    Ok(())
}

#[test]
fn pods_are_followed_as_cilium_wires_them_with_routes_for_endpoints() -> Result<()> {
    require_agent!();
    println!("{}", follow_pods(Wiring::Cilium, Stack::V4)?);
    Ok(())
}

#[test]
fn pods_of_ipv6_alone_are_followed_however_they_are_wired() -> Result<()> {
    require_agent!();
    for wiring in Wiring::FOUND {
        println!("{}", follow_pods(wiring, Stack::V6)?);
    }
    Ok(())
}

#[test]
fn pods_of_both_families_are_followed_by_both_addresses() -> Result<()> {
    require_agent!();
    for wiring in Wiring::FOUND {
        println!("{}", follow_pods(wiring, Stack::Both)?);
    }
    Ok(())
}

#[test]
fn pods_whose_interface_is_not_found_are_seen_where_the_configuration_says() -> Result<()> {
    require_agent!();
    let cluster = Cluster::start(Wiring::Routed)?;
    let agent = cluster.agent(&cluster.config("eth0", ""))?;
    let pod = cluster.wire(10)?;
    cluster.tell("shop-0", 0, 10);
    ask_until_mirrored(&cluster, &agent, &pod)?;
    until(&agent, "missing", |metrics| metrics.sum("mirror_pods_without_interface") == 1.0)?;
    until(&agent, "said", |_| agent.printed("stderr").contains("interfaces of some pods were not found"))?;
    expect_mirrored(&cluster, &agent, &pod)?;
    cluster.api.delete(NAMESPACE, "shop-0");
    until(&agent, "not missing", |metrics| metrics.sum("mirror_pods_without_interface") == 0.0)?;
    Ok(())
}

#[test]
fn a_request_that_passes_the_uplink_and_the_pods_interface_is_mirrored_once() -> Result<()> {
    require_agent!();
    let cluster = Cluster::start(Wiring::Calico)?;
    let agent = cluster.agent(&cluster.config("eth0", ""))?;
    let pod = cluster.wire(10)?;
    cluster.tell("shop-0", 0, 10);
    until(&agent, "both", |metrics| metrics.sum("mirror_interfaces_attached") == 2.0)?;
    expect_mirrored(&cluster, &agent, &pod)
}

#[test]
fn a_pod_on_the_nodes_network_is_seen_at_the_nodes_interface() -> Result<()> {
    require_agent!();
    let cluster = Cluster::start(Wiring::Calico)?;
    let agent = cluster.agent(&cluster.config("eth0", ""))?;
    let node = &cluster.net.live;
    let _server = Server::start(node, PORT, Record::Count)?;
    let mut pod = running("shop-0", &[node.v4.into()]);
    pod["spec"]["hostNetwork"] = json!(true);
    cluster.api.apply(pod);
    until(&agent, "known", |metrics| pods(metrics) == 1.0)?;
    for _ in 0..5 {
        RawClient::connect(&cluster.net.client, node.at_v4(PORT))?.ask(GET)?;
    }
    let books = agent.wait_for(PATIENCE, |books| books.mirrored == 5)?;
    ensure!(agent.metrics()?.sum("mirror_pods_without_interface") == 0.0, "{books}");
    Ok(())
}
