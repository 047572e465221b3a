//! Enters: real connections between two hosts in network namespaces. Leaves: nothing; their records are complete.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use aya::programs::TcAttachType;
use mirror_common::maps::{KernelConfig, map, program};
use mirror_common::packet::{tcp_flag, v4_mapped};
use mirror_common::{Counter, RecordFlags, RecordHeader};
use mirror_tests::sys::open_tun;
use nix::sched::{CloneFlags, setns};

use crate::kernel::Kernel;
use crate::packet::{CLIENT_PORT, CLIENT6, PSH_ACK, Packet, SERVER_PORT, request};
use crate::sys::send_frame;

const UPLOAD_BYTES: usize = 1 << 20;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n";
const ANSWER_BYTES: usize = 200_000;

const SERVER4: &str = "10.77.0.2";
const SERVER6: &str = "fd00:77::2";

#[test]
fn upload_is_recorded_whole_at_the_servers_interface() {
    let Some(hosts) = Hosts::create("n") else { return };
    for server in [SERVER4, SERVER6] {
        let programs =
            [(program::REQUESTS, TcAttachType::Ingress), (program::RESPONSES, TcAttachType::Egress)];
        check(&hosts, &hosts.server, programs, server);
    }
}

#[test]
fn upload_is_recorded_whole_at_the_other_end_of_the_servers_interface() {
    let Some(hosts) = Hosts::create("p") else { return };
    for server in [SERVER4, SERVER6] {
        let programs =
            [(program::REQUESTS, TcAttachType::Egress), (program::RESPONSES, TcAttachType::Ingress)];
        check(&hosts, &hosts.client, programs, server);
    }
}

#[test]
fn upload_is_recorded_whole_on_loopback() {
    let Some(hosts) = Hosts::create("l") else { return };
    let Some(mut kernel) = Kernel::load_with(KernelConfig::default(), 1 << 23) else { return };
    hosts.server.inside(|| attach(&mut kernel, program::BOTH, "lo", TcAttachType::Ingress));
    let server = SERVER4.parse().unwrap();

    upload(&hosts.server, &hosts.server, server);

    check_records(&mut kernel, server);
}

#[test]
fn answer_is_recorded_whole_where_it_is_read() {
    let Some(hosts) = Hosts::create("a") else { return };
    for server in [SERVER4, SERVER6] {
        let config = KernelConfig { copy_responses: 1, ..KernelConfig::default() };
        let Some(mut kernel) = Kernel::load_with(config, 1 << 23) else { return };
        kernel.set_port(map::ANSWER_PORTS, SERVER_PORT);
        hosts.server.inside(|| {
            attach(&mut kernel, program::REQUESTS, "eth0", TcAttachType::Ingress);
            attach(&mut kernel, program::RESPONSES, "eth0", TcAttachType::Egress);
        });

        upload(&hosts.client, &hosts.server, server.parse().unwrap());

        let records: Vec<_> = std::iter::from_fn(|| kernel.record_of(0)).collect();
        let answers: Vec<_> = records.into_iter().filter(|(header, _)| header.side == 1).collect();
        assert!(answers.iter().all(|(header, _)| header.flags == 0));
        let answer = in_order(&answers);
        assert!(answer.starts_with(ANSWER) && answer.len() == ANSWER_BYTES, "{} bytes", answer.len());
    }
}

#[test]
fn upload_through_a_tunnel_is_recorded_whole_beneath_it() {
    let Some(hosts) = Hosts::create("x") else { return };
    hosts.connect_by_vxlan();
    for server in ["10.78.0.2", "fd00:78::2"] {
        let programs =
            [(program::REQUESTS, TcAttachType::Ingress), (program::RESPONSES, TcAttachType::Egress)];
        check(&hosts, &hosts.server, programs, server);
    }
}

#[test]
fn tag_that_the_kernel_took_off_is_recorded() {
    let Some(hosts) = Hosts::create("v") else { return };
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    hosts.client.inside(|| attach(&mut kernel, program::REQUESTS, "eth0", TcAttachType::Egress));
    hosts.server.inside(|| attach(&mut kernel, program::REQUESTS, "eth0", TcAttachType::Ingress));
    let plain = request(PSH_ACK, b"hello");
    let single = Packet { tags: vec![(0x8100, 0xe005)], ..plain.clone() };
    let double = Packet { tags: vec![(0x88a8, 7), (0x8100, 5)], ..plain.clone().v6() };

    for packet in [plain, single, double] {
        hosts.client.inside(|| send_frame("eth0", &packet.ethernet()));
    }

    // At egress the tags stand in the bytes; at ingress the kernel has taken off the outer one.
    for vlan in [0, 5, 7 | 5 << 16] {
        for _hook in ["egress", "ingress"] {
            let (header, payload) = kernel.record_within(Duration::from_secs(5));
            assert_eq!((header.vlan, &payload[..]), (vlan, &b"hello"[..]));
        }
    }
}

#[test]
fn packet_without_ethernet_header_is_recorded() {
    let Some(hosts) = Hosts::create("t") else { return };
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let plain = request(PSH_ACK, b"hello");
    // The first has its address where an EtherType would stand, and reads as Ethernet too.
    let ambiguous = Packet { client4: [8, 0, 0x45, 1], ..plain.clone() };
    let options = Packet { ip_options: vec![1; 4], ..plain.clone() };
    let packets = [ambiguous, options, plain.clone(), plain.v6()];

    hosts.server.inside(|| {
        let mut tun = open_tun("tun0").unwrap();
        ip(&["-n", &hosts.server.name, "link", "set", "tun0", "up"]);
        attach(&mut kernel, program::REQUESTS, "tun0", TcAttachType::Ingress);
        for packet in &packets {
            tun.write_all(&packet.ip()).unwrap();
        }
    });

    for packet in packets {
        let (header, payload) = kernel.record_within(Duration::from_secs(5));
        let client = if packet.v6 { CLIENT6 } else { v4_mapped(packet.client4) };
        assert_eq!((header.client_addr, header.client_port), (client, CLIENT_PORT));
        assert_eq!(payload, b"hello");
    }
}

/// Uploads from client to server with the programs on `eth0` of `host`.
fn check(hosts: &Hosts, host: &Host, programs: [(&str, TcAttachType); 2], server: &str) {
    let Some(mut kernel) = Kernel::load_with(KernelConfig::default(), 1 << 23) else { return };
    let server = server.parse().unwrap();
    host.inside(|| {
        for (name, hook) in programs {
            attach(&mut kernel, name, "eth0", hook);
        }
    });

    upload(&hosts.client, &hosts.server, server);

    check_records(&mut kernel, server);
}

pub(crate) fn attach(kernel: &mut Kernel, name: &str, interface: &str, hook: TcAttachType) {
    // Kernels before 6.6 need a place for the filter; the others do not mind.
    drop(aya::programs::tc::qdisc_add_clsact(interface));
    // The link is the program's, and ends with it.
    kernel.program(name).attach(interface, hook).unwrap();
}

/// Sends a pattern one way, and an answer back when all of it has arrived.
fn upload(client: &Host, server: &Host, addr: IpAddr) {
    let listener = server.inside(|| TcpListener::bind((addr, SERVER_PORT)).unwrap());
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        stream.write_all(&[ANSWER, &[b'x'; ANSWER_BYTES - ANSWER.len()]].concat()).unwrap();
        received
    });
    let mut stream = client
        .inside(|| TcpStream::connect_timeout(&(addr, SERVER_PORT).into(), Duration::from_secs(5)).unwrap());
    stream.write_all(&pattern()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answering.join().unwrap() == pattern());
    assert_eq!(answer.len(), ANSWER_BYTES);
    drop(stream);
    // The last FIN is on its way in the other namespace's backlog at most.
    thread::sleep(Duration::from_millis(50));
}

fn check_records(kernel: &mut Kernel, server: IpAddr) {
    let server_addr = match server {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    };
    let mut sides: [Vec<(RecordHeader, Vec<u8>)>; 2] = [Vec::new(), Vec::new()];
    while let Some((header, payload)) = kernel.record_of(0) {
        assert_eq!((header.server_addr, header.server_port), (server_addr, SERVER_PORT));
        sides[usize::from(header.side)].push((header, payload));
    }
    let [requests, responses] = sides;

    let sent = in_order(&requests);
    assert!(sent == pattern(), "{} bytes of {UPLOAD_BYTES}, or others", sent.len());
    assert!(requests.iter().all(|(header, _)| header.flags == 0));
    let largest = requests.iter().map(|(header, _)| header.payload_len).max().unwrap();
    println!("{} records of the client, the largest of {largest} bytes", requests.len());
    assert!(largest > 4016, "no packet was larger than a wire's: are the offloads off?");

    let (first_header, first) = responses.iter().find(|(header, _)| header.payload_len > 0).unwrap();
    assert_eq!(first, &ANSWER[..12]);
    let first_seq = first_header.seq;
    let mut covered = BTreeMap::new();
    for (header, payload) in &responses {
        assert!(header.payload_len == 0 || header.flags == RecordFlags::NOT_COPIED);
        assert!(payload.is_empty() || payload == &ANSWER[..12]);
        // What is sent again may be cut differently.
        let offset = header.seq.wrapping_sub(first_seq);
        let end = covered.entry(offset).or_insert(offset);
        *end = offset.saturating_add(header.payload_len).max(*end);
    }
    let reach =
        covered.iter().fold(0, |reach, (offset, end)| if *offset <= reach { reach.max(*end) } else { reach });
    assert_eq!(usize::try_from(reach).unwrap(), ANSWER_BYTES);
    for records in [&requests, &responses] {
        for flag in [tcp_flag::SYN, tcp_flag::FIN] {
            // On a slow machine one may be sent again: then it stands at the same place.
            let flagged = records.iter().filter(|(header, _)| header.tcp_flags & flag != 0);
            let places = flagged.map(|(header, _)| header.seq.wrapping_add(header.payload_len));
            assert_eq!(places.collect::<BTreeSet<_>>().len(), 1);
        }
    }
    assert!(
        kernel
            .counters()
            .iter()
            .all(|(counter, _)| { matches!(counter, Counter::CopiedClient | Counter::CopiedServer) })
    );
}

/// Puts the payload in order by sequence number; what was sent again counts once.
fn in_order(records: &[(RecordHeader, Vec<u8>)]) -> Vec<u8> {
    let (syn, _) = records.iter().find(|(header, _)| header.tcp_flags & tcp_flag::SYN != 0).unwrap();
    let mut parts: Vec<(usize, &[u8])> = records
        .iter()
        .filter(|(_, payload)| !payload.is_empty())
        .map(|(header, payload)| {
            (usize::try_from(header.seq.wrapping_sub(syn.seq).wrapping_sub(1)).unwrap(), &payload[..])
        })
        .collect();
    parts.sort_by_key(|(offset, _)| *offset);
    let mut bytes = Vec::new();
    for (offset, part) in parts {
        assert!(offset <= bytes.len(), "gap at {}", bytes.len());
        bytes.extend(part.get(bytes.len() - offset..).unwrap_or_default());
    }
    bytes
}

fn pattern() -> Vec<u8> {
    (0_u32..).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24).to_le_bytes()[0]).take(UPLOAD_BYTES).collect()
}

/// Two hosts on one cable; gone with the value, also when a test fails.
pub(crate) struct Hosts {
    pub(crate) client: Host,
    pub(crate) server: Host,
}

/// A network namespace.
pub(crate) struct Host {
    name: String,
}

impl Hosts {
    pub(crate) fn create(tag: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: network namespaces need root");
            return None;
        }
        let name = |role| format!("mirror-{tag}{role}-{}", std::process::id());
        let hosts = Self { client: Host::create(name("c")), server: Host::create(name("s")) };
        let (client, server) = (&hosts.client, &hosts.server);
        ip(&[
            "link",
            "add",
            "eth0",
            "netns",
            &client.name,
            "type",
            "veth",
            "peer",
            "eth0",
            "netns",
            &server.name,
        ]);
        for (host, v4, v6) in
            [(client, "10.77.0.1/24", "fd00:77::1/64"), (server, "10.77.0.2/24", "fd00:77::2/64")]
        {
            ip(&["-n", &host.name, "addr", "add", v4, "dev", "eth0"]);
            ip(&["-n", &host.name, "addr", "add", v6, "dev", "eth0", "nodad"]);
            ip(&["-n", &host.name, "link", "set", "lo", "up"]);
            ip(&["-n", &host.name, "link", "set", "eth0", "up"]);
        }
        Some(hosts)
    }

    /// Connects the hosts by a tunnel besides, with addresses of its own.
    fn connect_by_vxlan(&self) {
        let ends = [(&self.client, "10.77.0.1", "10.77.0.2", 1), (&self.server, "10.77.0.2", "10.77.0.1", 2)];
        for (host, local, remote, number) in ends {
            let add = ["-n", &host.name, "link", "add", "tunnel0", "mtu", "1430", "type", "vxlan", "id", "7"];
            ip(&[&add[..], &["dstport", "4789", "local", local, "remote", remote]].concat());
            let (v4, v6) = (format!("10.78.0.{number}/24"), format!("fd00:78::{number}/64"));
            ip(&["-n", &host.name, "addr", "add", &v4, "dev", "tunnel0"]);
            ip(&["-n", &host.name, "addr", "add", &v6, "dev", "tunnel0", "nodad"]);
            ip(&["-n", &host.name, "link", "set", "tunnel0", "up"]);
        }
    }
}

impl Host {
    fn create(name: String) -> Self {
        ip(&["netns", "add", &name]);
        Self { name }
    }

    /// Runs `action` on a thread of this host.
    pub(crate) fn inside<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = || {
                let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                action()
            };
            scope.spawn(inside).join().unwrap()
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Not `ip`, which panics: this may run because something else did.
        if let Err(error) = Command::new("ip").args(["netns", "del", &self.name]).status() {
            println!("{} is left behind: {error}", self.name);
        }
    }
}

fn ip(args: &[&str]) {
    run("ip", args);
}

/// Runs a program of this machine, which has to succeed.
pub(crate) fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {complaint}", args.join(" "));
}
