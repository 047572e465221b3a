//! Enters: a target behind which there is a pod of live. Leaves: no copies to it, though the pod came later.

use anyhow::{Result, ensure};
use mirror_tests::{
    client::RawClient,
    cluster::{Cluster, Wiring},
    relay::relay,
    require_agent,
    scenario::{PATIENCE, PORT},
};

use crate::scene::{GET, until};

#[test]
fn a_target_that_leads_to_a_pod_gets_no_copies_once_the_pods_interface_is_attached_to() -> Result<()> {
    require_agent!();
    let cluster = Cluster::start(Wiring::Calico)?;
    let pod = cluster.wire(10)?;
    let way = relay(&cluster.net.client, pod.at[0])?;
    let shadow = cluster.net.shadow.at_v4(PORT);
    let text = cluster.config("", "").replace(&format!("http://{shadow}"), &format!("http://{way}"));
    // Nothing is captured yet: as far as can be told, it leads elsewhere.
    let agent = cluster.agent(&text)?;
    cluster.tell("shop-0", 0, 10);
    until(&agent, "refused", |metrics| metrics.sum("mirror_target_addresses_refused") == 1.0)?;
    let before = pod.server.requests();
    for _ in 0..5 {
        RawClient::connect(&cluster.net.client, pod.at[0])?.ask(GET)?;
    }
    let books = agent.wait_for(PATIENCE, |books| books.all_dropped() == 5)?;
    ensure!(books.mirrored == 0 && pod.server.requests() == before + 5, "{books}");
    Ok(())
}
