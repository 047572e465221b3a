//! Enters: requests that must not be mirrored, among those that must. Leaves: each counted for its reason.

use std::time::Duration;

use anyhow::{Result, ensure};
use mirror_tests::{
    client::RawClient,
    load::{Pace, Plan, Running},
    require_agent,
    scenario::{PATIENCE, PORT, Scenario, Weight, originals},
    server::Record,
    traffic::Same,
};

#[test]
fn only_safe_methods_are_mirrored_unless_said() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    let mut client = scenario.client()?;
    for method in ["GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE", "PATCH", "get", "GET"] {
        client.ask(format!("{method} /m HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody").as_bytes())?;
    }
    let ledger = scenario.settle()?;
    ensure!(ledger.mirrored == 4 && ledger.skipped_for("method") == 5, "{ledger}");
    let safe =
        |raw: &[u8]| [&b"GET "[..], b"HEAD ", b"OPTIONS "].iter().any(|method| raw.starts_with(method));
    scenario.expect_faithful(safe)
}

#[test]
fn named_methods_are_mirrored_and_no_others() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &["--methods", "POST,DELETE"])?;
    let mut client = scenario.client()?;
    for method in ["GET", "POST", "PUT", "DELETE"] {
        client.ask(format!("{method} /m HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody").as_bytes())?;
    }
    let ledger = scenario.settle()?;
    ensure!(ledger.mirrored == 2 && ledger.skipped_for("method") == 2, "{ledger}");
    scenario.expect_faithful(|raw| raw.starts_with(b"POST") || raw.starts_with(b"DELETE"))
}

#[test]
fn sample_is_of_requests_and_counted() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Light, &["--sample", "25"], Record::Count)?;
    let plan = Plan::new(scenario.net.live.at_v4(PORT), Pace::PerSecond(2000.0), Duration::from_secs(2), 4);
    let report = Running::start(&scenario.net.client, plan, Same::get())?.finish()?;
    ensure!(report.is_clean(), "{report:?}");
    let ledger = scenario.settle()?;
    ensure!(ledger.seen == 4000 && ledger.mirrored + ledger.skipped_for("sampled") == 4000, "{ledger}");
    // Five standard deviations: sqrt(4000 * 0.25 * 0.75) is 27.
    ensure!(ledger.mirrored.abs_diff(1000) < 140, "{ledger}");
    Ok(())
}

#[test]
fn request_that_carries_the_marker_is_never_mirrored() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    let mut client = scenario.client()?;
    for marker in ["x-mirror-id: 1", "X-MIRROR-ID: abc", "X-Mirror-Id:", "x-mirror-id:\t7"] {
        client.ask(format!("GET /m HTTP/1.1\r\n{marker}\r\n\r\n").as_bytes())?;
    }
    for harmless in ["x-mirror-idea: 1", "a-x-mirror-id: 1", "x-shadowy: true"] {
        client.ask(format!("GET /m HTTP/1.1\r\n{harmless}\r\n\r\n").as_bytes())?;
    }
    let ledger = scenario.settle()?;
    ensure!(ledger.skipped_for("marked") == 4 && ledger.mirrored == 3, "{ledger}");
    Ok(())
}

#[test]
fn accepted_upgrade_is_skipped_and_its_connection_handed_off() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &["--methods", "all"])?;
    let mut client = scenario.client()?;
    client.ask(b"GET /before HTTP/1.1\r\n\r\n")?;
    let upgrade = b"GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    ensure!(client.ask(upgrade)?.code() == "101");
    expect_tunnel(&mut client)?;
    let ledger = scenario.settle()?;
    ensure!(ledger.seen == 2 && ledger.skipped_for("upgrade") == 1 && ledger.mirrored == 1, "{ledger}");
    Ok(())
}

#[test]
fn refused_upgrade_leaves_the_connection_as_it_was() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    let mut client = scenario.client()?;
    let upgrade = b"GET /refuse HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    ensure!(client.ask(upgrade)?.code() == "200");
    for _ in 0..3 {
        client.ask(b"GET /after HTTP/1.1\r\n\r\n")?;
    }
    let ledger = scenario.settle()?;
    ensure!(ledger.seen == 4 && ledger.skipped_for("upgrade") == 1 && ledger.mirrored == 3, "{ledger}");
    Ok(())
}

#[test]
fn connect_is_skipped_and_its_connection_handed_off() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &["--methods", "all"])?;
    let mut client = scenario.client()?;
    client.send(b"CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n")?;
    let greeting = b"HTTP/1.1 200 Connection established\r\n\r\n";
    ensure!(client.read_exactly(greeting.len())? == greeting);
    expect_tunnel(&mut client)?;
    let ledger = scenario.settle()?;
    ensure!(ledger.seen == 1 && ledger.skipped_for("connect") == 1, "{ledger}");
    Ok(())
}

#[test]
fn body_over_the_limit_is_lost_and_the_next_request_mirrored() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &["--methods", "all", "--max-body", "64KiB"])?;
    let mut client = scenario.client()?;
    let post = |size: usize| {
        let mut request = format!("POST /{size} HTTP/1.1\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        request.resize(request.len() + size, b'x');
        request
    };
    for size in [65_536, 65_537, 3_000_000, 10] {
        client.ask(&post(size))?;
    }
    let mut chunked = b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..20 {
        chunked.extend_from_slice(b"2000\r\n");
        chunked.resize(chunked.len() + 0x2000, b'y');
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    client.ask(&chunked)?;
    client.ask(b"GET /last HTTP/1.1\r\n\r\n")?;
    let ledger = scenario.settle()?;
    ensure!(ledger.lost_for("too_large") == 3 && ledger.mirrored == 3, "{ledger}");
    scenario.expect_faithful(|raw| !raw.starts_with(b"POST /65537 ") && raw.len() < 66_000)
}

#[test]
fn what_is_not_http_1_is_recognised_by_kind_and_not_seen() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Light, &[], Record::Count)?;
    for (kind, bytes) in [
        ("tls", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..]),
        ("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
        ("not_http", b"\x00\x00\x00\x1d\x00\x03\x00\x00user\x00postgres\x00"),
    ] {
        let mut client = scenario.client()?;
        client.send(bytes)?;
        let deadline = std::time::Instant::now() + PATIENCE;
        while scenario.agent.metrics()?.value("mirror_flows_skipped_total", "reason", kind) < 1.0 {
            ensure!(std::time::Instant::now() < deadline, "{kind} was not recognised");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let ledger = scenario.agent.ledger()?;
    ensure!(ledger.seen == 0, "{ledger}");
    scenario.expect_at_shadow(0)
}

#[test]
fn smuggling_shaped_heads_are_never_replayed() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Light, &["--methods", "all"], Record::Count)?;
    let heads: [&[u8]; 3] = [
        b"POST /a HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /b HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /c HTTP/1.1\r\nTransfer-Encoding: gzip, xchunked\r\n\r\nabcdef",
    ];
    for head in heads {
        scenario.client()?.send(head)?;
    }
    let ledger = scenario.agent.wait_for(PATIENCE, |books| books.seen >= 3 && books.pending == 0)?;
    ensure!(ledger.seen == 3 && ledger.all_lost() == 3, "{ledger}");
    scenario.expect_at_shadow(0)
}

#[test]
fn proxy_protocol_prefix_is_stepped_over() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    let get = b"GET /proxied HTTP/1.1\r\nHost: live\r\n\r\n";
    let mut version_1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n".to_vec();
    version_1.extend_from_slice(get);
    // Signature, version 2 PROXY, TCP over IPv4, twelve bytes of addresses and ports.
    let mut version_2 =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x12\x67\0\x50".to_vec();
    version_2.extend_from_slice(get);
    for request in [version_1, version_2] {
        // What the server of this harness makes of the prefix does not matter here.
        scenario.client()?.send(&request)?;
    }
    let ledger = scenario.agent.wait_for(PATIENCE, |books| books.mirrored >= 2)?;
    ensure!(ledger.seen == 2, "{ledger}");
    scenario.expect_at_shadow(2)?;
    ensure!(originals(&scenario.shadow.arrived())? == [get, get]);
    Ok(())
}

/// Sends what looks like requests through a tunnel; it comes back unchanged.
fn expect_tunnel(client: &mut RawClient) -> Result<()> {
    for _ in 0..5 {
        let inside = b"GET /inside HTTP/1.1\r\nHost: tunnel\r\n\r\n";
        client.send(inside)?;
        ensure!(client.read_exactly(inside.len())? == inside);
    }
    Ok(())
}
