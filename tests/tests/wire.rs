//! Enters: frames built by hand. Leaves: proof that tags, tunnels, options, wraps and retransmissions change nothing.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use mirror_tests::{
    frames::{Conversation, Envelope, TAG_AD, TAG_Q, flag},
    require_agent,
    scenario::{PATIENCE, PORT, Scenario, Weight, originals},
};

const GET: &[u8] = b"GET /wire HTTP/1.1\r\nHost: live\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn requests_inside_vlan_tags_are_mirrored() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    let tags: [&[(u16, u16)]; 3] = [&[(TAG_Q, 7)], &[(TAG_AD, 100), (TAG_Q, 7)], &[]];
    for (index, tags) in tags.into_iter().enumerate() {
        for family in [Family::V4, Family::V6] {
            let envelope = Envelope { tags: tags.to_vec(), ..Envelope::default() };
            exchange(&mut conversation(&scenario, family, index as u16, envelope, 1000)?)?;
        }
    }
    expect_copies(&scenario, &[GET; 6])
}

#[test]
fn requests_inside_vxlan_are_mirrored_from_the_ports_given() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &["--vxlan-port", "4790"])?;
    for (index, port) in (0..).zip([4790, 4789]) {
        for family in [Family::V4, Family::V6] {
            let envelope = Envelope { vxlan: Some((port, 7)), ..Envelope::default() };
            exchange(&mut conversation(&scenario, family, index, envelope, 1000)?)?;
        }
    }
    expect_copies(&scenario, &[GET; 2])
}

#[test]
fn options_and_extension_headers_are_stepped_over() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    // Three NOPs and the end of the option list; a timestamp option after two NOPs.
    let options = Envelope {
        ip_extra: vec![1, 1, 1, 0],
        tcp_options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0],
        ..Envelope::default()
    };
    exchange(&mut conversation(&scenario, Family::V4, 0, options, 1000)?)?;
    // Hop-by-hop options, then destination options, then TCP; each padded to eight bytes.
    let extensions = Envelope {
        next_header: 0,
        ip_extra: vec![60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0],
        ..Envelope::default()
    };
    exchange(&mut conversation(&scenario, Family::V6, 1, extensions, 1000)?)?;
    expect_copies(&scenario, &[GET, GET])
}

#[test]
fn sequence_numbers_may_wrap_inside_head_and_body() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &["--methods", "all"])?;
    let request =
        b"POST /wrap HTTP/1.1\r\nContent-Length: 40\r\n\r\n0123456789012345678901234567890123456789";
    for (index, back) in [5_u32, 20, 43, 50, 70].into_iter().enumerate() {
        let mut talk =
            conversation(&scenario, Family::V4, index as u16, Envelope::default(), 0_u32.wrapping_sub(back))?;
        talk.open()?;
        for piece in request.chunks(25) {
            talk.client_says(flag::ACK, piece)?;
        }
        talk.server_says(flag::ACK | flag::PSH, ANSWER)?;
    }
    expect_copies(&scenario, &[&request[..]; 5])
}

#[test]
fn get_retransmitted_after_delivery_is_not_replayed_again() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    let mut talk = conversation(&scenario, Family::V4, 0, Envelope::default(), 1000)?;
    exchange(&mut talk)?;
    talk.client_repeats(u32::try_from(GET.len())?, GET)?;
    talk.server_says(flag::ACK, b"")?;
    talk.client_repeats(u32::try_from(GET.len())?, GET)?;
    expect_copies(&scenario, &[GET])
}

#[test]
fn retransmission_longer_than_the_first_copy_extends_the_request() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    let mut talk = conversation(&scenario, Family::V6, 0, Envelope::default(), 1000)?;
    talk.open()?;
    talk.client_says(flag::ACK, &GET[..10])?;
    talk.client_repeats(10, GET)?;
    talk.server_says(flag::ACK | flag::PSH, ANSWER)?;
    expect_copies(&scenario, &[GET])
}

#[test]
fn other_bytes_in_a_retransmission_do_not_change_what_was_delivered() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    let mut talk = conversation(&scenario, Family::V4, 0, Envelope::default(), 1000)?;
    talk.open()?;
    talk.client_says(flag::ACK, &GET[..20])?;
    talk.client_repeats(20, b"GET /EVIL HTTP/1.1\r\n")?;
    talk.client_says(flag::ACK | flag::PSH, &GET[20..])?;
    talk.server_says(flag::ACK | flag::PSH, ANSWER)?;
    expect_copies(&scenario, &[GET])
}

#[test]
fn conflicting_retransmission_is_counted_and_not_replayed() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    let mut talk = conversation(&scenario, Family::V4, 0, Envelope::default(), 1000)?;
    talk.open()?;
    // The rest arrives before the start, twice and with different bytes: which of them live takes is its kernel's
    // choice.
    let (start, rest) = GET.split_at(8);
    talk.client_skips(8);
    talk.client_says(flag::ACK | flag::PSH, rest)?;
    talk.client_repeats(u32::try_from(rest.len())?, &rest.to_ascii_uppercase())?;
    talk.client_repeats(u32::try_from(GET.len())?, start)?;
    talk.server_says(flag::ACK | flag::PSH, ANSWER)?;
    let ledger = scenario.agent.wait_for(PATIENCE, |books| books.seen == 1 && books.pending == 0)?;
    ensure!(ledger.lost_for("conflict") == 1, "{ledger}");
    scenario.expect_at_shadow(0)
}

#[test]
fn bytes_that_never_came_are_a_gap_and_the_next_request_is_mirrored() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &["--methods", "all"])?;
    let mut talk = conversation(&scenario, Family::V4, 0, Envelope::default(), 1000)?;
    talk.open()?;
    talk.client_says(flag::ACK, b"POST /gap HTTP/1.1\r\nContent-Length: 30\r\n\r\n0123456789")?;
    // Ten bytes are skipped; the server acknowledges them all the same: they reached it by another way.
    talk.client_skips(10);
    talk.client_says(flag::ACK | flag::PSH, b"0123456789")?;
    talk.server_says(flag::ACK | flag::PSH, ANSWER)?;
    talk.client_says(flag::ACK | flag::PSH, GET)?;
    talk.server_says(flag::ACK | flag::PSH, ANSWER)?;
    let ledger = scenario.agent.wait_for(PATIENCE, |books| books.seen == 2 && books.pending == 0)?;
    ensure!(ledger.lost_for("gap") == 1 && ledger.mirrored == 1, "{ledger}");
    scenario.expect_at_shadow(1)
}

#[test]
fn what_no_receiver_takes_is_not_replayed() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    let mut talk = conversation(&scenario, Family::V4, 0, Envelope::default(), 1000)?;
    let evil = b"GET /EVIL HTTP/1.1\r\nHost: live\r\n\r\n";
    let back = 0_u32.wrapping_sub(u32::try_from(evil.len())?);
    // The server takes nothing with the SYN.
    talk.client_says(flag::SYN, evil)?;
    talk.client_skips(back);
    talk.server_says(flag::SYN | flag::ACK, b"")?;
    talk.client_says(flag::PSH, evil)?;
    talk.client_skips(back);
    talk.client_says(flag::ACK | flag::PSH, GET)?;
    talk.server_says(flag::ACK | flag::PSH, ANSWER)?;
    expect_copies(&scenario, &[GET])?;
    let refused = scenario.agent.metrics()?.sum("mirror_segments_refused_total");
    ensure!(refused == 2.0, "{refused} segments refused");
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
}

/// A conversation that arrives at the live host and is meant for an address behind it, so that no stack answers.
fn conversation(
    scenario: &Scenario,
    family: Family,
    index: u16,
    envelope: Envelope,
    seq: u32,
) -> Result<Conversation> {
    let port = 20_000 + index;
    let (client, server): (SocketAddr, SocketAddr) = match family {
        Family::V4 => (format!("10.77.0.1:{port}").parse()?, format!("10.77.0.99:{PORT}").parse()?),
        Family::V6 => (format!("[fd77::1]:{port}").parse()?, format!("[fd77::99]:{PORT}").parse()?),
    };
    let net = &scenario.net;
    Conversation::between((&net.client, client), (&net.live, server), envelope, seq)
}

/// One GET and its answer.
fn exchange(talk: &mut Conversation) -> Result<()> {
    talk.open()?;
    talk.client_says(flag::ACK | flag::PSH, GET)?;
    talk.server_says(flag::ACK | flag::PSH, ANSWER)?;
    talk.client_says(flag::ACK, b"")
}

/// Asserts that the shadow gets these requests and no others.
fn expect_copies(scenario: &Scenario, expected: &[&[u8]]) -> Result<()> {
    let count = expected.len() as u64;
    let ledger = scenario.agent.wait_for(PATIENCE, |books| books.seen >= count && books.pending == 0)?;
    ensure!(ledger.seen == count && ledger.mirrored == count, "{ledger}");
    scenario.expect_at_shadow(count)?;
    ensure!(originals(&scenario.shadow.arrived())? == expected);
    Ok(())
}
