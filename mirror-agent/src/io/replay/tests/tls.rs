//! Enters: shadows that speak TLS. Leaves: that copies reach the right ones, and no others.

use std::{
    io::Write as _,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    super::{Target, tls::Tls},
    harness::{Running, get, post},
    tls_server::{Authority, Peer, TlsServer},
};
use crate::io::{
    config::TlsConfig,
    ledger::{DropReason, ReplayOutcome},
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BOTH: [&str; 2] = ["127.0.0.1", "::1"];

fn https(addr: SocketAddr) -> Target {
    format!("https://{addr}").parse().unwrap()
}

fn by_name(addr: SocketAddr) -> Target {
    format!("https://localhost:{}", addr.port()).parse().unwrap()
}

fn trust(authority: &Authority) -> TlsConfig {
    TlsConfig { ca_file: Some(authority.ca_file()), ..TlsConfig::default() }
}

async fn start(target: Target, tls: TlsConfig) -> Running {
    let unused = SocketAddr::from(([127, 0, 0, 1], 1));
    Running::start(unused, |config| {
        config.connect_timeout = Duration::from_secs(10);
        config.target = target;
        config.tls = tls;
    })
    .await
}

#[tokio::test]
async fn copies_arrive_over_both_families_on_one_connection_that_speaks_http_1() {
    let authority = Authority::new();
    for host in BOTH {
        let server = TlsServer::answering(host, authority.server(&BOTH), OK);
        let mut replay = start(https(server.addr), trust(&authority)).await;
        for count in 1..=3 {
            replay.push([get(&count.to_string())]);
            replay.ended(ReplayOutcome::Answered, count).await;
        }
        let received = server.received();
        assert!(received.iter().all(|request| request.connection == 0), "{received:?}");
        for request in &received {
            assert_eq!(request.alpn.as_deref(), Some(&b"http/1.1"[..]));
            assert_eq!(request.server_name, None, "an address is no server name");
        }
        assert!(received[2].bytes.starts_with(b"GET /3 HTTP/1.1\r\nHost: a\r\nx-mirror-id: "));
        assert_eq!(replay.stop().await.0, 3);
    }
}

#[tokio::test]
async fn sessions_are_resumed_and_name_the_server() {
    let authority = Authority::new();
    let server = TlsServer::start("127.0.0.1", authority.server(&["localhost"]), |peer: &mut Peer| {
        drop(peer.request());
        peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        peer.close();
    });
    let mut replay = start(by_name(server.addr), trust(&authority)).await;
    for count in 1..=2 {
        replay.push([get("")]);
        replay.ended(ReplayOutcome::Answered, count).await;
    }
    let received = server.received();
    assert_eq!(received.iter().map(|request| request.is_resumed).collect::<Vec<_>>(), [false, true]);
    assert!(received.iter().all(|request| request.server_name.as_deref() == Some("localhost")));
    assert_eq!(replay.stop().await.0, 2);
}

#[tokio::test]
async fn shadow_that_is_not_the_right_one_receives_nothing() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (what, config) in [
        ("another name", authority.server(&["shadow.test"])),
        ("another authority", stranger.server(&["localhost", "127.0.0.1"])),
        ("expired", authority.expired_server(&["localhost", "127.0.0.1"])),
    ] {
        let server = TlsServer::answering("127.0.0.1", config, OK);
        for target in [https(server.addr), by_name(server.addr)] {
            let mut replay = start(target, trust(&authority)).await;
            replay.push([get("secret")]);
            replay.settled().await;
            assert_eq!(server.received().len(), 0, "{what}");
            let (mirrored, books) = replay.stop().await;
            assert_eq!((mirrored, books.dropped(DropReason::Connect)), (0, 1), "{what}");
        }
        // Only in so many words.
        let tls = TlsConfig { insecure_skip_verify: true, ..TlsConfig::default() };
        let mut replay = start(https(server.addr), tls).await;
        replay.push([get("")]);
        replay.ended(ReplayOutcome::Answered, 1).await;
        assert_eq!(replay.stop().await.0, 1);
    }
}

#[tokio::test]
async fn server_name_stands_in_for_the_host() {
    let authority = Authority::new();
    let server = TlsServer::answering("127.0.0.1", authority.server(&["shadow.test"]), OK);
    let tls = TlsConfig { server_name: Some("shadow.test".to_owned()), ..trust(&authority) };
    let mut replay = start(https(server.addr), tls).await;
    replay.push([get("")]);
    replay.ended(ReplayOutcome::Answered, 1).await;
    assert_eq!(server.received()[0].server_name.as_deref(), Some("shadow.test"));
    replay.stop().await;
}

#[tokio::test]
async fn client_shows_its_certificate_where_it_has_one() {
    let authority = Authority::new();
    let (certificate, key) = authority.files("agent.test");
    for only_tls12 in [false, true] {
        let server =
            TlsServer::answering("127.0.0.1", authority.strict_server(&["127.0.0.1"], only_tls12), OK);
        let tls = TlsConfig {
            client_certificate: Some(certificate.clone()),
            client_key: Some(key.clone()),
            ..trust(&authority)
        };
        let mut replay = start(https(server.addr), tls).await;
        replay.push([get("")]);
        replay.ended(ReplayOutcome::Answered, 1).await;
        replay.stop().await;

        let mut replay = start(https(server.addr), trust(&authority)).await;
        replay.push([get("")]);
        // RFC 8446 section 4.4.2.4: the refusal comes after the session is open, where it is TLS 1.3.
        let outcome = if only_tls12 { ReplayOutcome::Connect } else { ReplayOutcome::Protocol };
        replay.ended(outcome, 1).await;
        replay.stop().await;
        assert_eq!(server.received().len(), 1);
    }
}

#[tokio::test]
async fn certificate_that_is_replaced_is_shown_from_the_next_connection_on() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = TlsServer::answering("127.0.0.1", authority.strict_server(&["127.0.0.1"], true), OK);
    let (certificate, key) = stranger.files("agent.test");
    let tls = TlsConfig {
        client_certificate: Some(certificate.clone()),
        client_key: Some(key.clone()),
        ..trust(&authority)
    };
    let mut replay = Running::start(server.addr, |config| {
        config.connect_timeout = Duration::from_secs(10);
        config.target = https(server.addr);
        config.tls = tls;
        config.certificates_interval = Duration::from_millis(10);
    })
    .await;
    replay.push([get("")]);
    replay.ended(ReplayOutcome::Connect, 1).await;
    let (new_certificate, new_key) = authority.files("agent.test");
    std::fs::copy(new_certificate, certificate).unwrap();
    std::fs::copy(new_key, key).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while replay.books.copies.replays(ReplayOutcome::Answered) == 0 {
        assert!(Instant::now() < deadline, "the new one is not shown");
        replay.push([get("")]);
        replay.settled().await;
        sleep(Duration::from_millis(20)).await;
    }
    replay.stop().await;
}

#[test]
fn certificates_that_cannot_be_used_are_told_once_and_those_before_them_stay() {
    let authority = Authority::new();
    let (certificate, key) = authority.files("agent.test");
    let keys = TlsConfig {
        client_certificate: Some(certificate.clone()),
        client_key: Some(key),
        ..trust(&authority)
    };
    let tls = Tls::new(&"https://shadow.test".parse().unwrap(), &keys).unwrap().unwrap();
    assert!(!tls.look_again().unwrap());
    let text = std::fs::read(&certificate).unwrap();
    std::fs::remove_file(&certificate).unwrap();
    assert!(tls.look_again().unwrap_err().to_string().contains("agent.test.pem"));
    assert!(!tls.look_again().unwrap());
    assert!(tls.session().is_ok());
    std::fs::write(&certificate, text).unwrap();
    assert!(tls.look_again().unwrap());
}

#[tokio::test]
async fn answer_that_came_before_the_session_broke_is_read() {
    let authority = Authority::new();
    let server = TlsServer::start("127.0.0.1", authority.server(&BOTH), |peer: &mut Peer| {
        peer.request();
        peer.stream.conn.writer().write_all(OK).unwrap();
        let mut bytes = Vec::new();
        while peer.stream.conn.wants_write() {
            peer.stream.conn.write_tls(&mut bytes).unwrap();
        }
        // A record that nobody can decrypt (RFC 8446 section 5.2), in one piece with the answer.
        bytes.extend([23, 3, 3, 0, 20]);
        bytes.extend([0; 20]);
        peer.stream.sock.write_all(&bytes).unwrap();
        // Until the connection has ended.
        drop(peer.request());
    });
    let mut replay = start(https(server.addr), trust(&authority)).await;
    for count in 1..=2 {
        replay.push([get("")]);
        replay.ended(ReplayOutcome::Answered, count).await;
        replay.until(|| replay.sockets.open() == 0).await;
    }
    assert_eq!(replay.stop().await.0, 2);
}

#[tokio::test]
async fn a_megabyte_goes_both_ways_byte_for_byte() {
    const LEN: usize = 1024 * 1024;
    let authority = Authority::new();
    let server = TlsServer::start("::1", authority.server(&BOTH), |peer: &mut Peer| {
        while peer.request().is_some() {
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LEN}\r\n\r\n").as_bytes());
            peer.send(&vec![b'y'; LEN]);
        }
    });
    let mut replay = start(https(server.addr), trust(&authority)).await;
    for count in 1..=3 {
        replay.push([post(LEN)]);
        replay.ended(ReplayOutcome::Answered, count).await;
    }
    for request in server.received() {
        assert_eq!(request.connection, 0);
        let body = request.bytes.len() - LEN;
        assert!(request.bytes[body..].iter().all(|byte| *byte == b'x'));
        let head = String::from_utf8_lossy(&request.bytes[..body]);
        assert!(head.contains("x-shadow: true\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }
    assert_eq!(replay.stop().await.0, 3);
}

#[tokio::test]
async fn copy_counts_as_mirrored_only_once_all_of_it_has_left() {
    const LEN: usize = 24 * 1024 * 1024;
    let authority = Authority::new();
    let (go, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Arc::new(std::sync::Mutex::new(told));
    let server = TlsServer::start("127.0.0.1", authority.server(&BOTH), move |peer: &mut Peer| {
        while peer.stream.conn.is_handshaking() {
            peer.stream.conn.complete_io(&mut peer.stream.sock).unwrap();
        }
        told.lock().unwrap().recv().unwrap();
        peer.request();
        peer.send(OK);
    });
    let mut replay = start(https(server.addr), trust(&authority)).await;
    replay.push([post(LEN)]);
    replay.until(|| replay.gauges.in_flight() == 1).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(replay.books.ledger.mirrored(), 0, "the socket cannot have taken all of it");
    go.send(()).unwrap();
    replay.ended(ReplayOutcome::Answered, 1).await;
    assert_eq!(replay.stop().await.0, 1);
}

#[tokio::test]
async fn answer_that_is_cut_off_is_closed_and_none_is_lost_to_a_farewell() {
    let authority = Authority::new();
    let server = TlsServer::start("127.0.0.1", authority.server(&BOTH), |peer: &mut Peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        if peer.connection == 1 {
            peer.close();
        }
        // Else without a farewell.
    });
    let mut replay = start(https(server.addr), trust(&authority)).await;
    for count in 1..=2 {
        replay.push([get("")]);
        replay.ended(ReplayOutcome::Closed, count).await;
    }
    assert_eq!(replay.stop().await.0, 2);

    // A server that closes an idle connection properly costs no copy.
    let server = TlsServer::start("127.0.0.1", authority.server(&BOTH), |peer: &mut Peer| {
        peer.request();
        peer.send(OK);
        peer.close();
    });
    let mut replay = start(https(server.addr), trust(&authority)).await;
    for count in 1..=3 {
        replay.push([get("")]);
        replay.ended(ReplayOutcome::Answered, count).await;
        replay.until(|| replay.gauges.idle() == 0 && replay.sockets.open() == 0).await;
    }
    assert_eq!(server.received().len(), 3);
    assert_eq!(replay.stop().await.0, 3);
}

#[tokio::test]
async fn answer_that_ends_with_its_connection_needs_the_farewell() {
    let authority = Authority::new();
    let server = TlsServer::start("127.0.0.1", authority.server(&BOTH), |peer: &mut Peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it");
        if peer.connection == 0 {
            peer.close();
        }
    });
    let mut replay = start(https(server.addr), trust(&authority)).await;
    replay.push([get("")]);
    replay.ended(ReplayOutcome::Answered, 1).await;
    replay.push([get("")]);
    replay.ended(ReplayOutcome::Closed, 1).await;
    replay.stop().await;
}

#[tokio::test]
async fn handshake_has_the_time_of_a_connection() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Plain bytes are no TLS; silence takes the time that there is.
    let silent = thread::spawn(move || listener.accept().map(|(stream, _)| stream));
    let mut replay = Running::start(addr, |config| {
        config.target = https(addr);
        config.tls = TlsConfig { insecure_skip_verify: true, ..TlsConfig::default() };
        config.connect_timeout = Duration::from_millis(100);
    })
    .await;
    replay.push([get("")]);
    replay.ended(ReplayOutcome::Connect, 1).await;
    let (mirrored, books) = replay.stop().await;
    assert_eq!((mirrored, books.dropped(DropReason::Connect)), (0, 1));
    drop(silent.join());
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_told_before_anything_starts() {
    let authority = Authority::new();
    let (certificate, key) = authority.files("agent.test");
    let (_, other_key) = authority.files("other.test");
    let empty = authority.write("empty.pem", "nothing here\n");
    let missing = empty.with_file_name("missing.pem");
    let base = trust(&authority);
    for (tls, why) in [
        (TlsConfig { ca_file: Some(missing), ..base.clone() }, "missing.pem"),
        (TlsConfig { ca_file: Some(empty.clone()), ..base.clone() }, "no certificate authorities in"),
        (TlsConfig { client_certificate: Some(certificate.clone()), ..base.clone() }, "go together"),
        (TlsConfig { client_key: Some(key.clone()), ..base.clone() }, "go together"),
        (
            TlsConfig {
                client_certificate: Some(certificate.clone()),
                client_key: Some(empty),
                ..base.clone()
            },
            "a private key",
        ),
        (
            TlsConfig {
                client_certificate: Some(certificate.clone()),
                client_key: Some(other_key),
                ..base.clone()
            },
            "cannot be used with the key",
        ),
        (TlsConfig { server_name: Some("a b".to_owned()), ..base.clone() }, "\"a b\" is not a name"),
    ] {
        let error = refused("https://shadow.test", &tls);
        assert!(error.contains(why), "{error}");
    }
    let plain = refused("http://shadow.test", &base);
    assert!(plain.contains("does not speak TLS"), "{plain}");
}

fn refused(target: &str, tls: &TlsConfig) -> String {
    Tls::new(&target.parse().unwrap(), tls).unwrap_err().to_string()
}
