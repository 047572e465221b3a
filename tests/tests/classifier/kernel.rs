//! Enters: the object that the build made. Leaves: its programs, run on packets by the kernel.

use std::thread;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, TestRunResult};
use mirror_common::maps::{KernelConfig, PortSample, SocketKey, map, own_end, program};
use mirror_common::packet::{UdpTunnel, v4_mapped};
use mirror_common::unread::{UnreadKey, UnreadRun};
use mirror_common::{Counter, RecordHeader};
use mirror_tests::classifier::{Classifier, object};

use crate::packet::SERVER_PORT;

pub(crate) const ALL: [&str; 3] = [program::REQUESTS, program::RESPONSES, program::BOTH];

/// The loaded object, with its maps filled; whatever goes wrong ends the test.
pub(crate) struct Kernel {
    classifier: Classifier,
}

impl Kernel {
    /// Loads the object with `SERVER_PORT` matched and the usual ports of tunnels; `None`, said aloud, where this
    /// machine cannot.
    pub(crate) fn load(config: KernelConfig) -> Option<Self> {
        Self::load_with(config, 1 << 20)
    }

    pub(crate) fn load_with(config: KernelConfig, ring_bytes: u32) -> Option<Self> {
        match object() {
            Ok(object) => {
                let mut kernel = Self { classifier: Classifier::load(&object, config, ring_bytes).unwrap() };
                kernel.set_port(map::PORTS, SERVER_PORT);
                kernel.classifier.add_tunnels().unwrap();
                Some(kernel)
            }
            Err(reason) => {
                println!("SKIPPED: {reason}");
                None
            }
        }
    }

    pub(crate) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.classifier.ebpf
    }

    pub(crate) fn program(&mut self, name: &str) -> &mut SchedClassifier {
        self.classifier.program(name).unwrap_or_else(|error| panic!("{name}: {error:#?}"))
    }

    pub(crate) fn set_config(&mut self, config: KernelConfig) {
        self.classifier.set_config(config).unwrap();
    }

    pub(crate) fn set_port(&mut self, name: &str, port: u16) {
        self.classifier.add_port(name, port).unwrap();
    }

    pub(crate) fn set_tunnel_port(&mut self, port: u16, tunnel: Option<UdpTunnel>) {
        self.classifier.set_tunnel(port, tunnel).unwrap();
    }

    pub(crate) fn set_own_socket(&mut self, addr: [u8; 4], port: u16) {
        self.set_own_end(SocketKey { addr: v4_mapped(addr), port, reserved: 0 }, own_end::ALONE);
    }

    pub(crate) fn set_own_end(&mut self, socket: SocketKey, known: u8) {
        self.classifier.add_own(socket, known).unwrap();
    }

    pub(crate) fn set_sample(&mut self, port: u16, sample: PortSample) {
        self.classifier.set_sample(port, sample).unwrap();
    }

    pub(crate) fn set_unread(&mut self, flow: &RecordHeader, seq: u32, len: u32) {
        let unread = (UnreadKey::of(flow), UnreadRun { seq, len });
        self.classifier.set_unread(None, Some(unread)).unwrap();
    }

    /// Runs a program on a packet, and sees to it that it lets it be.
    pub(crate) fn run(&mut self, name: &str, bytes: &[u8]) {
        self.run_marked(name, bytes, 0);
    }

    pub(crate) fn run_marked(&mut self, name: &str, bytes: &[u8], mark: u32) {
        assert!(self.classifier.run(name, bytes, mark).unwrap(), "the kernel does not take the packet");
    }

    pub(crate) fn test_run(&mut self, name: &str, options: TestRunOptions<'_>) -> TestRunResult {
        self.program(name).test_run(options).unwrap()
    }

    pub(crate) fn record_of(&mut self, ring: usize) -> Option<(RecordHeader, Vec<u8>)> {
        self.classifier.record_of(ring).unwrap()
    }

    pub(crate) fn record(&mut self) -> (RecordHeader, Vec<u8>) {
        self.record_of(0).expect("no record")
    }

    /// The next record, which may still be on its way.
    pub(crate) fn record_within(&mut self, limit: Duration) -> (RecordHeader, Vec<u8>) {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(record) = self.record_of(0) {
                return record;
            }
            assert!(Instant::now() < deadline, "no record within {limit:?}; counted {:?}", self.counters());
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn assert_no_record(&mut self) {
        assert_eq!(self.record_of(0), None);
    }

    /// The counters that are not zero.
    pub(crate) fn counters(&self) -> Vec<(Counter, u64)> {
        let counts = self.classifier.counts().unwrap();
        Counter::ALL.into_iter().zip(counts).filter(|(_, value)| *value != 0).collect()
    }
}
