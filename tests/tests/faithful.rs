//! Enters: requests of every odd shape, cut anyhow. Leaves: proof that the shadow got the same bytes, once.

use anyhow::{Result, ensure};
use mirror_tests::{
    client::RawClient,
    require_agent,
    scenario::{Scenario, Weight},
};

/// Requests as a client may write them, each with a name for the report.
const ODD: &[(&str, &[u8])] = &[
    ("plain", b"GET / HTTP/1.1\r\nHost: live\r\n\r\n"),
    ("no header at all", b"GET /bare HTTP/1.1\r\n\r\n"),
    (
        "mixed case and duplicates",
        b"GET /d HTTP/1.1\r\nhOST: live\r\nX-A: 1\r\nx-a: 2\r\nX-A: 1\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n",
    ),
    ("spacing", b"GET /s HTTP/1.1\r\nHost:live\r\nA:   three  \r\nB:\ttab\t\r\nEmpty:\r\nEmpty2: \r\n\r\n"),
    ("obs-text", b"GET /o HTTP/1.1\r\nHost: live\r\nX-Name: caf\xc3\xa9 \xff\x80\r\n\r\n"),
    ("query and fragment-like bytes", b"GET /p?a=%20&b=c;d='\"|^~!*() HTTP/1.1\r\nHost: live\r\n\r\n"),
    ("absolute form", b"GET http://live.example:8080/abs?x=1 HTTP/1.1\r\nHost: other\r\n\r\n"),
    ("asterisk form", b"OPTIONS * HTTP/1.1\r\nHost: live\r\n\r\n"),
    ("head", b"HEAD /h HTTP/1.1\r\nHost: live\r\n\r\n"),
    ("version 1.0 kept alive", b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    ("version 1.0", b"GET /older HTTP/1.0\r\n\r\n"),
    ("unknown method", b"PURGE /cache HTTP/1.1\r\nHost: live\r\n\r\n"),
    ("empty body said so", b"POST /e HTTP/1.1\r\nHost: live\r\nContent-Length: 0\r\n\r\n"),
    ("get with a body", b"GET /gb HTTP/1.1\r\nHost: live\r\nContent-Length: 4\r\n\r\nbody"),
    (
        "body that looks like a request",
        b"POST /l HTTP/1.1\r\nContent-Length: 27\r\n\r\nGET /evil HTTP/1.1\r\nA: b\r\n\r\n",
    ),
    ("binary body", b"PUT /bin HTTP/1.1\r\nContent-Length: 8\r\n\r\n\x00\x01\r\n\r\n\xff\x00"),
    (
        "chunks with extensions and trailers",
        b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
          4;name=\"quo;ted\"\r\nwiki\r\n0000A ; x\r\n0123456789\r\n00;last\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n",
    ),
    (
        "chunks in capitals",
        b"POST /cc HTTP/1.1\r\nTRANSFER-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
    ),
    ("close", b"GET /end HTTP/1.1\r\nHost: live\r\nConnection: close\r\n\r\n"),
];

#[test]
fn odd_requests_arrive_byte_for_byte() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &["--methods", "all"])?;
    for (_name, request) in ODD {
        for mut client in [scenario.client()?, scenario.client_v6()?] {
            ensure!(client.ask(request)?.code() == "200");
        }
    }
    let ledger = scenario.settle()?;
    ensure!(ledger.mirrored == 2 * ODD.len() as u64, "{ledger}");
    scenario.expect_faithful(|_| true)
}

#[test]
fn requests_may_be_cut_at_every_byte() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &["--methods", "all"])?;
    for (_name, request) in ODD.iter().filter(|(name, _)| name.starts_with("chunks") || *name == "obs-text") {
        for cut in 1..request.len() {
            let mut client = scenario.client()?;
            let (one, two) = request.split_at(cut);
            client.send_pieces([one, two])?;
            client.read_response(false)?;
        }
        let mut client = scenario.client_v6()?;
        client.send_pieces(request.chunks(1))?;
        client.read_response(false)?;
    }
    let ledger = scenario.settle()?;
    ensure!(ledger.mirrored == ledger.seen, "{ledger}");
    scenario.expect_faithful(|_| true)
}

#[test]
fn keep_alive_pipelining_and_a_connection_each_lose_nothing() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    let get = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: live\r\n\r\n").into_bytes();
    let mut client = scenario.client()?;
    for number in 0..50 {
        client.ask(&get(&format!("kept/{number}")))?;
    }
    let mut client = scenario.client_v6()?;
    let batch = (0..100).flat_map(|number| get(&format!("pipelined/{number}"))).collect::<Vec<_>>();
    client.send(&batch)?;
    for _ in 0..100 {
        client.read_response(false)?;
    }
    for number in 0..50 {
        scenario.client()?.ask(&get(&format!("single/{number}")))?;
    }
    let ledger = scenario.settle()?;
    ensure!(ledger.mirrored == 200, "{ledger}");
    scenario.expect_faithful(|_| true)
}

#[test]
fn megabyte_bodies_arrive_whole_with_offloads_on() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &["--methods", "all"])?;
    for (index, mut client) in [scenario.client()?, scenario.client_v6()?].into_iter().enumerate() {
        for size in [1 << 20, (1 << 20) + 1, 5_000_000] {
            client.ask(&post(&format!("/{index}/{size}"), size))?;
        }
    }
    let ledger = scenario.settle()?;
    ensure!(ledger.mirrored == 6 && ledger.all_frames_dropped() == 0, "{ledger}");
    scenario.expect_faithful(|_| true)
}

#[test]
fn expect_continue_arrives_with_the_body_that_followed() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &["--methods", "all"])?;
    let mut client = scenario.client()?;
    for number in 0..3 {
        client.send(
            format!("POST /{number} HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
                .as_bytes(),
        )?;
        ensure!(client.read_response(false)?.code() == "100");
        client.send(b"after")?;
        ensure!(client.read_response(false)?.code() == "200");
    }
    client.ask(b"GET /last HTTP/1.1\r\n\r\n")?;
    let ledger = scenario.settle()?;
    ensure!(ledger.mirrored == 4, "{ledger}");
    scenario.expect_faithful(|_| true)
}

/// The cases in which GoReplay loses, fuses, cuts or repeats requests and that a client's socket can make; those that
/// need sequence numbers at will are in `wire.rs`.
#[test]
fn what_breaks_goreplay_arrives() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &["--methods", "all"])?;
    let mut two_pipelined_gets_in_one_segment = scenario.client()?;
    two_pipelined_gets_in_one_segment.send(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")?;
    two_pipelined_gets_in_one_segment.read_response(false)?;
    two_pipelined_gets_in_one_segment.read_response(false)?;

    // Pipelined behind a GET: the answer to the GET moves the POST's acknowledgement number between its segments.
    let mut post_whose_ack_number_advances = scenario.client()?;
    post_whose_ack_number_advances
        .send(b"GET /3 HTTP/1.1\r\n\r\nPOST /4 HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc")?;
    post_whose_ack_number_advances.read_response(false)?;
    post_whose_ack_number_advances.send(b"def")?;
    post_whose_ack_number_advances.read_response(false)?;

    let chunked = b"POST /5 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        // The terminator, split.
        [&b"3\r\nabc\r\n0\r\n"[..], b"\r\n"],
        // Data that ends a segment as a terminator would.
        [b"9\r\nabcd0\r\n\r\n", b"\r\n0\r\n\r\n"],
        // Trailers that no Trailer header announces.
        [b"3\r\nabc\r\n0\r\nX-T", b"railer: 1\r\n\r\n"],
    ] {
        let mut client = scenario.client()?;
        client.send_pieces([&chunked[..], body[0], body[1]])?;
        client.read_response(false)?;
    }

    let mut segment_of_only_nul_bytes = scenario.client()?;
    segment_of_only_nul_bytes
        .send_pieces([&b"POST /8 HTTP/1.1\r\nContent-Length: 6\r\n\r\n"[..], &[0; 6]])?;
    segment_of_only_nul_bytes.read_response(false)?;

    let mut head_answered_with_content_length = scenario.client()?;
    head_answered_with_content_length.ask(b"HEAD /9 HTTP/1.1\r\n\r\n")?;
    head_answered_with_content_length.ask(b"GET /10 HTTP/1.1\r\n\r\n")?;

    let mut answer_delimited_by_the_end = scenario.client()?;
    ensure!(answer_delimited_by_the_end.ask(b"GET /until-close HTTP/1.1\r\n\r\n")?.body.len() == 1024);

    let ledger = scenario.settle()?;
    ensure!(ledger.mirrored == 11 && ledger.seen == 11, "{ledger}");
    scenario.expect_faithful(|_| true)
}

#[test]
fn requests_split_between_pools_keep_their_bytes_when_the_shadow_ends_connections() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    let mut clients = (0..8).map(|_| scenario.client()).collect::<Result<Vec<RawClient>>>()?;
    for number in 0..20 {
        for (index, client) in clients.iter_mut().enumerate() {
            // The shadow answers these as live does: in chunks, without content, or ending the connection.
            let path = ["/chunked", "/no-content", "/until-close", "/plain"][(number + index) % 4];
            client.ask(format!("GET {path} HTTP/1.1\r\nX: {index}-{number}\r\n\r\n").as_bytes())?;
            if path == "/until-close" {
                *client = scenario.client()?;
            }
        }
    }
    let ledger = scenario.settle()?;
    ensure!(ledger.mirrored == 160, "{ledger}");
    scenario.expect_faithful(|_| true)
}

/// A POST with a body that tells every position apart.
fn post(path: &str, size: usize) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: live\r\nContent-Length: {size}\r\n\r\n").into_bytes();
    request.extend((0..size).map(|index| ((index * 31) ^ (index >> 8)) as u8));
    request
}
