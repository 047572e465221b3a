//! Enters: connections whose local ends are known as the agent's own. Leaves: nothing; those of other sockets are
//! recorded, the agent's never.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use aya::programs::TcAttachType;
use mirror_common::maps::{KernelConfig, SocketKey, own_end, program};
use mirror_common::packet::tcp_flag;
use mirror_common::{Counter, RecordSide};
use socket2::{Domain, Socket, Type};

use crate::kernel::Kernel;
use crate::live::{Host, Hosts, attach, run};
use crate::packet::SERVER_PORT;

const MARK: u32 = 0x4d49;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

const SERVER4: &str = "10.77.0.2";
const SERVER6: &str = "fd00:77::2";
/// An address of which the client's host makes the server's.
const SERVICE: &str = "10.77.0.9";

/// Whose socket it is that connects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whose {
    /// Another program's.
    Others,
    /// The agent's, which is known to bear its mark.
    Agents,
    /// Anybody's: nothing is known but the local end.
    Anybodys,
}

#[test]
fn on_loopback_a_connection_is_the_agents_by_its_socket() {
    let Some(hosts) = Hosts::create("nl") else { return };
    let Some(mut kernel) = load() else { return };
    hosts.server.inside(|| attach(&mut kernel, program::BOTH, "lo", TcAttachType::Ingress));
    for address in ["127.0.0.1", "::1"] {
        check_all(&mut kernel, &hosts.server, &hosts.server, address, address);
    }
}

#[test]
fn at_a_pods_interface_a_connection_is_the_agents_by_its_socket() {
    let Some(hosts) = Hosts::create("np") else { return };
    let Some(mut kernel) = load() else { return };
    attach_beside_client(&mut kernel, &hosts);
    for address in [SERVER4, SERVER6] {
        check_all(&mut kernel, &hosts.client, &hosts.server, address, address);
    }
}

#[test]
fn a_socket_is_found_behind_a_translated_address() {
    let Some(hosts) = Hosts::create("nt") else { return };
    let Some(mut kernel) = load() else { return };
    attach_beside_client(&mut kernel, &hosts);
    let rule = format!("-t nat -A OUTPUT -d {SERVICE} -p tcp -j DNAT --to {SERVER4}:{SERVER_PORT}");
    hosts.client.inside(|| iptables(&rule));
    check_all(&mut kernel, &hosts.client, &hosts.server, SERVER4, SERVICE);

    // One after the other from the same end: what was remembered of the one does not stay for the next.
    let listener = hosts.server.inside(|| listen(SERVER4));
    let mut port = 0;
    for whose in [Whose::Others, Whose::Agents, Whose::Others] {
        let client = hosts.client.inside(|| bind(SERVER4, port));
        port = client.local_addr().unwrap().as_socket().unwrap().port();
        check(&mut kernel, (client, &hosts.client), &listener, SERVICE, whose);
    }
}

#[test]
fn a_packet_whose_mark_was_overwritten_is_still_the_agents() {
    let Some(hosts) = Hosts::create("nm") else { return };
    let Some(mut kernel) = load() else { return };
    attach_beside_client(&mut kernel, &hosts);
    hosts.client.inside(|| iptables("-t mangle -A POSTROUTING -j MARK --set-mark 7"));
    check_all(&mut kernel, &hosts.client, &hosts.server, SERVER4, SERVER4);
}

fn load() -> Option<Kernel> {
    Kernel::load(KernelConfig { own_mark: MARK, ..KernelConfig::default() })
}

/// As at a pod's interface: the client's host is the node, the server the pod.
fn attach_beside_client(kernel: &mut Kernel, hosts: &Hosts) {
    hosts.client.inside(|| {
        attach(kernel, program::REQUESTS, "eth0", TcAttachType::Egress);
        attach(kernel, program::RESPONSES, "eth0", TcAttachType::Ingress);
    });
}

/// Connects as each to `address`, by which the server at `server_address` is reached.
fn check_all(kernel: &mut Kernel, client: &Host, server: &Host, server_address: &str, address: &str) {
    let listener = server.inside(|| listen(server_address));
    for whose in [Whose::Others, Whose::Agents, Whose::Anybodys] {
        let socket = client.inside(|| bind(server_address, 0));
        check(kernel, (socket, client), &listener, address, whose);
    }
}

/// Exchanges a request and its answer over a connection from an end that is known as the agent's.
fn check(
    kernel: &mut Kernel,
    (socket, client): (Socket, &Host),
    listener: &TcpListener,
    address: &str,
    whose: Whose,
) {
    if whose == Whose::Agents {
        socket.set_mark(MARK).unwrap();
    }
    let local = client.inside(|| local_end(&socket, address));
    let known = if whose == Whose::Anybodys { own_end::ALONE } else { own_end::MARKED };
    kernel.set_own_end(local, known);
    let own_before = own(kernel);

    exchange(socket, client, listener, address);

    let records: Vec<_> = std::iter::from_fn(|| kernel.record_of(0)).collect();
    let own = own(kernel) - own_before;
    println!("{address} {whose:?}: {} records, {own} packets of the agent's", records.len());
    if whose == Whose::Others {
        assert_eq!(own, 0);
        for (side, sent) in [(RecordSide::Client, REQUEST), (RecordSide::Server, &ANSWER[..12])] {
            let side = records.iter().filter(|(header, _)| header.side == side as u8);
            let begins = side.clone().any(|(header, _)| header.tcp_flags & tcp_flag::SYN != 0);
            let bytes: Vec<u8> = side.flat_map(|(_, payload)| payload.clone()).collect();
            assert!(begins && bytes == sent, "{address}: {begins} {}", bytes.escape_ascii());
        }
    } else {
        assert_eq!(records, []);
        // The beginnings, the request, the answer and the ends.
        assert!(own >= 6, "{own}");
    }
}

fn own(kernel: &Kernel) -> u64 {
    kernel.counters().iter().find(|(counter, _)| *counter == Counter::Own).map_or(0, |(_, count)| *count)
}

fn listen(address: &str) -> TcpListener {
    TcpListener::bind((address.parse::<IpAddr>().unwrap(), SERVER_PORT)).unwrap()
}

/// A socket with a local port, the one given or any, and no address yet.
fn bind(address: &str, port: u16) -> Socket {
    let any: IpAddr = if address.contains(':') { "::".parse() } else { "0.0.0.0".parse() }.unwrap();
    let any = SocketAddr::new(any, port);
    let socket = Socket::new(Domain::for_address(any), Type::STREAM, None).unwrap();
    // The end may have been another's a moment ago.
    socket.set_reuse_address(true).unwrap();
    socket.bind(&any.into()).unwrap();
    socket
}

/// The end that the socket will have when it connects to `address`.
fn local_end(socket: &Socket, address: &str) -> SocketKey {
    let probe = std::net::UdpSocket::bind(socket.local_addr().unwrap().as_socket().unwrap()).unwrap();
    probe.connect((address.parse::<IpAddr>().unwrap(), SERVER_PORT)).unwrap();
    let local = probe.local_addr().unwrap();
    let addr = match local.ip() {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    };
    SocketKey { addr: addr.octets(), port: local.port(), reserved: 0 }
}

fn exchange(socket: Socket, client: &Host, listener: &TcpListener, address: &str) {
    let address = SocketAddr::new(address.parse().unwrap(), SERVER_PORT);
    thread::scope(|scope| {
        let answering = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut received = vec![0; REQUEST.len()];
            stream.read_exact(&mut received).unwrap();
            stream.write_all(ANSWER).unwrap();
            // The first to end keeps the pair of ends for a while, which the client's host may need again.
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            received
        });
        let mut stream = client.inside(move || {
            socket.connect_timeout(&address.into(), Duration::from_secs(5)).unwrap();
            TcpStream::from(socket)
        });
        stream.write_all(REQUEST).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        drop(stream);
        assert_eq!((answer, answering.join().unwrap()), (ANSWER.to_vec(), REQUEST.to_vec()));
    });
    // The last FIN is on its way in the other namespace's backlog at most.
    thread::sleep(Duration::from_millis(50));
}

fn iptables(rule: &str) {
    run("iptables", &["-w"].into_iter().chain(rule.split(' ')).collect::<Vec<_>>());
}
