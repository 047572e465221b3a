//! Enters: the object that the build made. Leaves: its programs, run on packets by the kernel.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Array, ArrayOfMaps, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, TestRunResult};
use aya::{Ebpf, EbpfLoader};
use mirror_common::maps::{KernelConfig, SocketKey, map, program, tunnel_bits, tunnel_port_place};
use mirror_common::packet::{UdpTunnel, UsualPorts, v4_mapped};
use mirror_common::{Counter, RecordHeader};

use crate::packet::SERVER_PORT;

pub(crate) const ALL: [&str; 3] = [program::REQUESTS, program::RESPONSES, program::BOTH];

/// The loaded object, with its maps filled.
pub(crate) struct Kernel {
    pub(crate) ebpf: Ebpf,
    rings: Vec<RingBuf<MapData>>,
}

impl Kernel {
    /// Loads the object with `SERVER_PORT` matched and the usual ports of tunnels; `None`, said aloud, where this
    /// machine cannot.
    pub(crate) fn load(config: KernelConfig) -> Option<Self> {
        Self::load_with(config, 1 << 20)
    }

    pub(crate) fn load_with(config: KernelConfig, ring_bytes: u32) -> Option<Self> {
        match object() {
            Ok(object) => Some(Self::load_object(&object, config, ring_bytes)),
            Err(reason) => {
                println!("SKIPPED: {reason}");
                None
            }
        }
    }

    fn load_object(object: &[u8], config: KernelConfig, ring_bytes: u32) -> Self {
        let config = KernelConfig { rings: config.rings.max(1), ..config };
        let mut loader = EbpfLoader::new();
        let used = usize::try_from(config.rings).unwrap();
        for name in &map::RING[..used] {
            loader.map_max_entries(name, ring_bytes);
        }
        let mut ebpf = loader.load(object).unwrap();
        let rings: Vec<_> = map::RING[..used]
            .iter()
            .map(|name| RingBuf::try_from(ebpf.take_map(name).unwrap()).unwrap())
            .collect();
        let outer = ebpf.map_mut(map::RINGS).unwrap();
        let mut outer = ArrayOfMaps::<_, RingBuf<MapData>>::try_from(outer).unwrap();
        for (index, ring) in (0..).zip(&rings) {
            outer.set(index, ring, 0).unwrap();
        }
        let mut kernel = Self { ebpf, rings };
        kernel.set_config(config);
        kernel.set_port(map::PORTS, SERVER_PORT);
        for port in UsualPorts::VXLAN {
            kernel.set_tunnel_port(port, Some(UdpTunnel::Vxlan));
        }
        for port in UsualPorts::GENEVE {
            kernel.set_tunnel_port(port, Some(UdpTunnel::Geneve));
        }
        kernel
    }

    /// A program, loaded when it is first asked for: the verifier takes its time.
    pub(crate) fn program(&mut self, name: &str) -> &mut SchedClassifier {
        let program: &mut SchedClassifier = self.ebpf.program_mut(name).unwrap().try_into().unwrap();
        if program.fd().is_err() {
            program.load().unwrap_or_else(|error| panic!("{name}: {error:#?}"));
        }
        program
    }

    pub(crate) fn set_config(&mut self, config: KernelConfig) {
        let map = self.ebpf.map_mut(map::CONFIG).unwrap();
        Array::<_, [u32; 6]>::try_from(map).unwrap().set(0, config.to_words(), 0).unwrap();
    }

    pub(crate) fn set_port(&mut self, name: &str, port: u16) {
        let mut words = Array::<_, u64>::try_from(self.ebpf.map_mut(name).unwrap()).unwrap();
        let word = words.get(&u32::from(port / 64), 0).unwrap();
        words.set(u32::from(port / 64), word | 1 << (port % 64), 0).unwrap();
    }

    pub(crate) fn set_tunnel_port(&mut self, port: u16, tunnel: Option<UdpTunnel>) {
        let map = self.ebpf.map_mut(map::TUNNEL_PORTS).unwrap();
        let mut words = Array::<_, u64>::try_from(map).unwrap();
        let (index, shift) = tunnel_port_place(port);
        let others = words.get(&index, 0).unwrap() & !(3 << shift);
        words.set(index, others | tunnel.map_or(0, tunnel_bits) << shift, 0).unwrap();
    }

    pub(crate) fn set_own_socket(&mut self, addr: [u8; 4], port: u16) {
        self.set_port(map::OWN_PORTS, port);
        let key = SocketKey { addr: v4_mapped(addr), port, reserved: 0 };
        let sockets = self.ebpf.map_mut(map::OWN_SOCKETS).unwrap();
        let mut sockets = HashMap::<_, [u8; SocketKey::LEN], u8>::try_from(sockets).unwrap();
        sockets.insert(key.to_bytes(), 1, 0).unwrap();
    }

    /// Runs a program on a packet, and sees to it that it lets it be.
    pub(crate) fn run(&mut self, name: &str, bytes: &[u8]) {
        self.run_marked(name, bytes, 0);
    }

    pub(crate) fn run_marked(&mut self, name: &str, bytes: &[u8], mark: u32) {
        let mut out = vec![0; bytes.len()];
        // Of the context only the mark is set, the third word.
        let mut context = [0; 192];
        context[8..12].copy_from_slice(&mark.to_ne_bytes());
        let result = self.test_run(
            name,
            TestRunOptions {
                data_in: Some(bytes),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            },
        );
        assert_eq!(result.return_value.cast_signed(), -1);
        assert_eq!(out, bytes, "the packet was changed");
    }

    pub(crate) fn test_run(&mut self, name: &str, options: TestRunOptions<'_>) -> TestRunResult {
        self.program(name).test_run(options).unwrap()
    }

    pub(crate) fn record_of(&mut self, ring: usize) -> Option<(RecordHeader, Vec<u8>)> {
        self.rings[ring].next().map(|record| {
            let (header, payload) = RecordHeader::from_bytes(&record).unwrap();
            (header, payload.to_vec())
        })
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
        let counters = PerCpuArray::<_, u64>::try_from(self.ebpf.map(map::COUNTERS).unwrap()).unwrap();
        let sum = |counter: Counter| counters.get(&(counter as u32), 0).unwrap().iter().sum::<u64>();
        Counter::ALL
            .into_iter()
            .map(|counter| (counter, sum(counter)))
            .filter(|(_, value)| *value != 0)
            .collect()
    }
}

/// The object, or why it cannot be loaded here.
fn object() -> Result<Vec<u8>, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("loading a program needs root".to_owned());
    }
    let path = std::env::var_os("MIRROR_EBPF_OBJECT").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/mirror-ebpf.o")),
        PathBuf::from,
    );
    std::fs::read(&path).map_err(|error| format!("no object at {}: {error}", path.display()))
}
