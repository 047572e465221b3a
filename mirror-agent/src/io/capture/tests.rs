//! Enters: real TCP traffic between network namespaces. Leaves: proof that the kernel side hands it over and goes away
//! again. Without root each test says that it is skipped.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    mem,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TcAttachType};
use mirror_common::Counter;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    AttachMethod, AttachMode, Capture, Captured, CounterValues, KernelRules, PortSample, RingReader, Shed,
    desired::View,
    filters::{Filter, filters, qdiscs},
    kernel::has_tcx,
    links::links,
    role::Hook,
};
use crate::{
    io::object::EBPF_OBJECT,
    pipeline::{Side, TcpFlags},
};

const PORT: u16 = 8080;
const AGENT_V4: &str = "10.77.0.1";
const AGENT_V6: &str = "fd77::1";
const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn every_part_can_go_to_a_thread_of_its_own() {
    fn is_send<T: Send + 'static>() {}
    is_send::<super::Kernel>();
    is_send::<super::OwnSockets>();
    is_send::<super::KernelCounters>();
    is_send::<RingReader>();
}

#[test]
fn both_methods_hand_over_what_was_sent_and_leave_nothing() {
    let Some(hosts) = Hosts::new("both_methods") else { return };
    for (mode, method) in modes() {
        for address in [AGENT_V4, AGENT_V6] {
            hosts.beside_server(|| {
                let mut capture = hosts.capture(&rules(), "v0", mode);
                let methods: Vec<_> = capture.kernel.attachments().map(|attached| attached.method).collect();
                assert_eq!(methods, [method; 2]);

                let sent = pattern(300_000);
                hosts.upload(address, &sent);
                let seen = Seen::drain(&mut capture.rings, |seen| seen.has_ended());

                assert_eq!(seen.client_bytes(), sent, "{mode:?} {address}");
                assert!(seen.server_records > 0, "{mode:?} {address}");
                assert_eq!(seen.utilization_after, 0.0);
                assert_eq!(capture.kernel.detach().len(), 0);
                assert_no_trace("v0");
            });
        }
    }
}

#[test]
fn dropping_the_kernel_handle_detaches_and_keeps_the_ring_readable() {
    let Some(hosts) = Hosts::new("dropping") else { return };
    for (mode, _) in modes() {
        hosts.beside_server(|| {
            let Capture { kernel, mut rings, .. } = hosts.capture(&rules(), "v0", mode);
            hosts.upload(AGENT_V4, b"kept");
            drop(kernel);
            assert_no_trace("v0");
            let utilization: f64 = rings.iter().map(RingReader::utilization).sum();
            assert!(utilization > 0.0);
            assert_eq!(Seen::drain(&mut rings, |seen| seen.has_ended()).client_bytes(), b"kept");
        });
    }
}

#[test]
fn the_pod_role_sees_requests_where_they_leave() {
    let Some(hosts) = Hosts::new("pod_role") else { return };
    for (mode, _) in modes() {
        // From the client's side of the pair, the server is the pod.
        hosts.beside_client(|| {
            let mut capture = hosts.capture(&rules(), "v1:pod", mode);
            hosts.upload(AGENT_V4, b"to the pod");
            let seen = Seen::drain(&mut capture.rings, |seen| seen.has_ended());
            assert_eq!(seen.client_bytes(), b"to the pod");
            assert!(seen.server_records > 0);
        });
    }
}

#[test]
fn paused_own_and_unmatched_traffic_is_not_seen() {
    let Some(hosts) = Hosts::new("not_seen") else { return };
    hosts.beside_server(|| {
        let rules = KernelRules { addresses: vec!["127.0.0.0/8".parse().unwrap()], ..rules() };
        let mut capture = hosts.capture(&rules, "lo", AttachMode::Auto);
        assert_eq!(capture.kernel.attachments().count(), 1);

        capture.kernel.set_paused(true).unwrap();
        exchange("127.0.0.1", b"paused", |_| {});
        capture.kernel.set_paused(false).unwrap();
        exchange("::1", b"another address", |_| {});

        let mut locals = Vec::new();
        let own_sockets = &mut capture.own_sockets;
        exchange("127.0.0.1", b"own", |local| {
            own_sockets.insert(local, true).unwrap();
            own_sockets.insert(local, false).unwrap();
            own_sockets.remove(local).unwrap();
            locals.push(local);
        });
        assert_eq!(own_sockets.len(), 1);
        own_sockets.remove(locals[0]).unwrap();
        own_sockets.remove(locals[0]).unwrap();
        assert!(own_sockets.is_empty());
        assert_eq!(capture.counters.read().unwrap().get(Counter::CopiedClient), 0);

        exchange("127.0.0.1", b"seen", |_| {});
        let seen = Seen::drain(&mut capture.rings, |seen| seen.has_ended());
        assert_eq!(seen.client_bytes(), b"seen");
        let counters = capture.counters.read().unwrap();
        assert!(counters.get(Counter::Own) > 0 && counters.get(Counter::CopiedClient) > 0, "{counters:?}");
    });
}

#[test]
fn samples_and_shedding_hold_from_the_moment_they_are_told() {
    let Some(hosts) = Hosts::new("samples") else { return };
    hosts.beside_server(|| {
        let mut capture = hosts.capture(&rules(), "lo", AttachMode::Auto);
        let nobody = |port| PortSample { port, lanes: vec![(1, 0), (2, 0)] };
        capture.kernel.set_samples(&[nobody(1), nobody(PORT)]).unwrap();
        exchange("127.0.0.1", b"sampled out", |_| {});
        capture.kernel.set_samples(&[nobody(1)]).unwrap();
        exchange("127.0.0.1", b"no sample of the port", |_| {});
        let seen = Seen::drain(&mut capture.rings, |seen| seen.has_ended());
        assert_eq!(seen.client_bytes(), b"no sample of the port");

        capture.kernel.set_samples(&[]).unwrap();
        capture.kernel.set_shed(Shed { new_millionths: 1_000_000, followed_millionths: 0 }).unwrap();
        exchange("::1", b"shed", |_| {});
        capture.kernel.forget_shed().unwrap();
        exchange("::1", b"still shed", |_| {});
        capture.kernel.set_shed(Shed::default()).unwrap();
        capture.kernel.forget_shed().unwrap();
        exchange("::1", b"taken", |_| {});
        let seen = Seen::drain(&mut capture.rings, |seen| seen.has_ended());
        assert_eq!(seen.client_bytes(), b"taken");
        let counters = capture.counters.read().unwrap();
        assert_eq!((counters.get(Counter::SampledOut), counters.get(Counter::Shed)), (1, 2), "{counters:?}");
    });
}

#[test]
fn a_full_ring_is_counted_and_takes_records_again_once_it_is_drained() {
    let Some(hosts) = Hosts::new("full_ring") else { return };
    hosts.beside_server(|| {
        let rules = KernelRules { ring_bytes: KernelRules::smallest_ring_bytes(), ..rules() };
        let mut capture = hosts.capture(&rules, "v0", AttachMode::Auto);
        hosts.upload(AGENT_V4, &pattern(300_000));
        let counters: CounterValues = capture.counters.read().unwrap();
        assert!(counters.get(Counter::DroppedRingFull) > 0, "{counters:?}");

        Seen::drain(&mut capture.rings, |_| true);
        hosts.upload(AGENT_V4, b"small");
        assert_eq!(Seen::drain(&mut capture.rings, |seen| seen.has_ended()).client_bytes(), b"small");
    });
}

#[test]
fn filters_of_a_killed_agent_go_and_those_of_a_running_one_stay() {
    let Some(hosts) = Hosts::new("killed") else { return };
    hosts.beside_server(|| {
        let holder = hosts.capture(&rules(), "v0", AttachMode::Clsact);
        let mut killed = hosts.capture(&rules(), "v0", AttachMode::Clsact);
        // What kill -9 leaves: the filters, but no socket.
        mem::take(&mut killed.kernel.attachments).into_values().flatten().for_each(mem::forget);
        drop(killed);
        await_children();
        assert_eq!(mirror_filters("v0"), 4);

        let running = hosts.capture(&rules(), "v0", AttachMode::Clsact);
        assert_eq!(mirror_filters("v0"), 4, "those of the killed agent go, the holder's stay");

        drop(holder);
        await_children();
        assert_eq!(mirror_filters("v0"), 2);
        let successor = hosts.capture(&rules(), "lo", AttachMode::Auto);
        assert_eq!(mirror_filters("v0"), 2, "the running agent's are left");

        drop((running, successor));
        assert_no_trace("v0");
    });
}

#[test]
fn foreign_filters_and_qdiscs_are_left_alone() {
    let Some(hosts) = Hosts::new("foreign") else { return };
    hosts.beside_server(|| {
        run("tc", "qdisc add dev v0 clsact");
        // Classic BPF of one instruction, "no match": the one kind of filter that is sure to be there with ours.
        let foreign = ["filter", "add", "dev", "v0", "ingress", "prio", "2", "bpf", "bytecode", "1,6 0 0 0"];
        run_with("tc", &foreign);
        let foreign = filters_at("v0", Hook::Ingress);
        assert!(foreign.iter().any(|filter| filter.kind == "bpf" && !filter.is_mirror()));

        let mut capture = hosts.capture(&rules(), "v0", AttachMode::Clsact);
        hosts.upload(AGENT_V4, b"beside a foreign filter");
        let seen = Seen::drain(&mut capture.rings, |seen| seen.has_ended());
        assert_eq!(seen.client_bytes(), b"beside a foreign filter");
        drop(capture);

        assert_eq!(filters_at("v0", Hook::Ingress), foreign);
        assert!(qdiscs().unwrap().contains_key(&index_of("v0")));
    });
}

#[test]
fn an_interface_that_vanished_is_detached_without_error() {
    let Some(hosts) = Hosts::new("vanished") else { return };
    for (mode, _) in modes() {
        hosts.beside_server(|| {
            run("ip", "link add gone0 type veth peer name gone1");
            let mut capture = hosts.capture(&rules(), "gone0", mode);
            run("ip", "link del gone0");
            assert_eq!(capture.kernel.detach().len(), 0);
        });
    }
}

/// The ways to attach that this kernel has.
fn modes() -> Vec<(AttachMode, AttachMethod)> {
    let mut modes = vec![(AttachMode::Clsact, AttachMethod::Clsact)];
    if has_tcx().unwrap() {
        modes.push((AttachMode::Tcx, AttachMethod::Tcx));
    }
    modes
}

fn rules() -> KernelRules {
    KernelRules {
        ports: vec![PORT],
        addresses: Vec::new(),
        vxlan_ports: Vec::new(),
        geneve_ports: Vec::new(),
        ring_bytes: 1 << 22,
        rings: 2,
        own_mark: 0,
        wake_interval_ns: 1_000_000,
    }
}

/// Bytes of which no two places look alike at the lengths of a segment.
fn pattern(len: u32) -> Vec<u8> {
    (0..len).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

/// Two hosts on one wire: the server's, whose interface is `v0`, and the client's, with `v1`.
struct Hosts {
    server: String,
    client: String,
}

impl Hosts {
    fn new(test: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            // Not through `eprintln`, which the test harness swallows where the test passes.
            writeln!(io::stderr(), "SKIPPED: {test}: needs root").unwrap();
            return None;
        }
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let hosts = Self { server: format!("mirror-s-{id}"), client: format!("mirror-c-{id}") };
        let Self { server, client } = &hosts;
        run("ip", &format!("netns add {server}"));
        run("ip", &format!("netns add {client}"));
        run("ip", &format!("-n {server} link add v0 type veth peer name v1 netns {client}"));
        for (netns, interface, end) in [(server, "v0", 1), (client, "v1", 2)] {
            run("ip", &format!("-n {netns} address add 10.77.0.{end}/24 dev {interface}"));
            run("ip", &format!("-n {netns} address add fd77::{end}/64 dev {interface} nodad"));
            run("ip", &format!("-n {netns} link set {interface} up"));
            run("ip", &format!("-n {netns} link set lo up"));
        }
        Some(hosts)
    }

    fn beside_server<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        within(&self.server, f)
    }

    fn beside_client<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        within(&self.client, f)
    }

    /// Loads and attaches, in the namespace of the calling thread.
    fn capture(&self, rules: &KernelRules, interface: &str, mode: AttachMode) -> Capture {
        let view = View { links: links().unwrap(), ..View::default() };
        let mut capture = Capture::load(EBPF_OBJECT, rules).unwrap_or_else(|error| panic!("{error:?}"));
        {
            // It finds out whose agent is alive by sockets of its own, which a child would keep open.
            let _no_children = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
            capture.kernel.establish(&view.links).unwrap();
        }
        for interface in view.desired(&[interface.parse().unwrap()]).values() {
            capture.kernel.attach(interface, mode).unwrap_or_else(|error| panic!("{error:?}"));
        }
        capture
    }

    /// Sends `bytes` from the client to a server, waits until they were read, and for an answer.
    fn upload(&self, address: &str, bytes: &[u8]) {
        let address = SocketAddr::new(address.parse().unwrap(), PORT);
        let listener = self.beside_server(|| listen(address));
        thread::scope(|scope| {
            scope.spawn(move || serve(&listener));
            self.beside_client(|| send(TcpStream::connect(address).unwrap(), bytes));
        });
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for netns in [&self.server, &self.client] {
            run("ip", &format!("netns del {netns}"));
        }
    }
}

/// Runs `f` on a thread of its own in a network namespace.
fn within<T: Send>(netns: &str, f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let entered = scope.spawn(move || {
            let file = File::open(format!("/run/netns/{netns}")).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            f()
        });
        entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Sends `bytes` within this thread's namespace; `before_send` is told the client's end once its port is known and
/// before any packet passes.
fn exchange(address: &str, bytes: &[u8], before_send: impl FnOnce(SocketAddr)) {
    let address = SocketAddr::new(address.parse().unwrap(), PORT);
    let listener = listen(address);
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(address.ip(), 0).into()).unwrap();
    before_send(socket.local_addr().unwrap().as_socket().unwrap());
    thread::scope(|scope| {
        scope.spawn(move || serve(&listener));
        socket.connect(&address.into()).unwrap();
        send(socket.into(), bytes);
    });
}

fn listen(address: SocketAddr) -> TcpListener {
    await_children();
    let deadline = Instant::now() + DEADLINE;
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            // A process that another test is starting has the listener before until it runs its program.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("listen at {address}: {error}"),
        }
    }
}

fn send(mut stream: TcpStream, bytes: &[u8]) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "HTTP/1.1 200 OK\r\n\r\n");
}

fn serve(listener: &TcpListener) {
    // Not blocking for ever in `accept`, should the client fail to come.
    listener.set_nonblocking(true).unwrap();
    let begun = Instant::now();
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) => assert!(begun.elapsed() < DEADLINE, "{error}"),
        }
        thread::sleep(Duration::from_millis(1));
    };
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    io::copy(&mut stream, &mut io::sink()).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
}

/// What came out of the rings: of one connection at most.
#[derive(Default)]
struct Seen {
    start: Option<u32>,
    /// Client payload by its distance from the first byte.
    client: BTreeMap<u32, Vec<u8>>,
    client_fin: bool,
    server_records: usize,
    server_fin: bool,
    utilization_after: f64,
}

impl Seen {
    /// Drains all rings until `is_done`.
    fn drain(rings: &mut [RingReader], is_done: impl Fn(&Self) -> bool) -> Self {
        let mut seen = Self::default();
        let begun = Instant::now();
        let mut idle_rounds = 0;
        loop {
            let taken: usize =
                rings.iter_mut().map(|ring| ring.drain(64, |captured| seen.take(captured))).sum();
            idle_rounds = if taken == 0 { idle_rounds + 1 } else { 0 };
            if taken == 0 && is_done(&seen) {
                break;
            }
            assert!(begun.elapsed() < DEADLINE, "saw {:?}", seen.client.keys());
            rings[0].wait(idle_rounds, false).unwrap();
        }
        assert_eq!(rings.iter().map(RingReader::malformed).sum::<u64>(), 0);
        seen.utilization_after = rings.iter().map(RingReader::utilization).sum();
        seen
    }

    fn take(&mut self, captured: Captured<'_>) {
        let Captured::Segment(segment) = captured else { panic!("no connection is let go here") };
        assert_eq!(segment.flow.server.port, PORT);
        if segment.side == Side::Server {
            self.server_records += 1;
            self.server_fin |= segment.flags.has(TcpFlags::FIN);
            return;
        }
        let is_syn = segment.flags.has(TcpFlags::SYN);
        let start = *self.start.get_or_insert(segment.seq.0.wrapping_add(u32::from(is_syn)));
        self.client_fin |= segment.flags.has(TcpFlags::FIN);
        assert_eq!(usize::try_from(segment.payload_len).unwrap(), segment.payload.len());
        if !segment.payload.is_empty() {
            // Of a segment and its retransmission, which may be shorter or longer, the longer.
            let held = self.client.entry(segment.seq.0.wrapping_sub(start)).or_default();
            if held.len() < segment.payload.len() {
                *held = segment.payload.to_vec();
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.client_fin && self.server_fin
    }

    fn client_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (offset, payload) in &self.client {
            // Retransmissions overlap what is there.
            let offset = usize::try_from(*offset).unwrap();
            assert!(offset <= bytes.len(), "bytes {} to {offset} are missing", bytes.len());
            bytes.extend_from_slice(payload.get(bytes.len() - offset..).unwrap_or_default());
        }
        bytes
    }
}

/// Fails where a program of ours is attached to `interface`.
fn assert_no_trace(interface: &str) {
    assert_eq!(mirror_filters(interface), 0);
    if !has_tcx().unwrap() {
        return;
    }
    await_children();
    for attach_type in [TcAttachType::Ingress, TcAttachType::Egress] {
        let (_, programs) = SchedClassifier::query_tcx(interface, attach_type).unwrap();
        assert_eq!(programs.len(), 0);
    }
}

fn mirror_filters(interface: &str) -> usize {
    let ours = |hook| filters_at(interface, hook).iter().filter(|filter| filter.is_mirror()).count();
    Hook::ALL.map(ours).iter().sum()
}

fn filters_at(interface: &str, hook: Hook) -> Vec<Filter> {
    filters(index_of(interface), hook).unwrap()
}

fn index_of(interface: &str) -> u32 {
    links().unwrap().iter().find(|link| link.name == interface).unwrap().index
}

fn run(command: &str, arguments: &str) {
    run_with(command, &arguments.split(' ').collect::<Vec<_>>());
}

fn run_with(command: &str, arguments: &[&str]) {
    let mut child = Command::new(command);
    child.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = {
        let _until_exec = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        child.spawn().unwrap()
    };
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command} {arguments:?}: {complaint}");
}

/// Held while a child is started. From fork to exec it has every file of this process open, also those that another
/// test closes meanwhile: a TCX link stays attached that long, a port taken, the socket of an agent alive.
static STARTING: Mutex<()> = Mutex::new(());

/// Waits until no child holds a file that this thread has closed.
pub(super) fn await_children() {
    drop(STARTING.lock().unwrap_or_else(PoisonError::into_inner));
}
