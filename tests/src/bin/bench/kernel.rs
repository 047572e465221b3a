//! Enters: the kernel object and one packet of each kind. Leaves: what a packet costs.

use std::{
    env, fs,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ArrayOfMaps, MapData, PerCpuArray, RingBuf},
    programs::SchedClassifier,
};
use mirror_common::{
    Counter,
    maps::{KernelConfig, map, program},
    packet::tcp_flag,
};
use mirror_tests::sys::interrupted;

use crate::{
    report::{Figure, Mark, Table},
    sys::{load_empty_classifier, test_run},
    trial::PORT,
};

/// Runs of a program in one measurement: the ring holds all their records, so that the full ring's way is not measured.
const REPEAT: u32 = 5_000;
/// Between two rounds: a burst of noise shall not last for most of them.
const PAUSE: Duration = Duration::from_millis(200);
/// Size of the ring in bytes: more than `REPEAT` records of the largest packet.
const RING_BYTES: u32 = 1 << 25;
/// The most that an unmatched packet may cost, in nanoseconds net of an empty program.
const UNMATCHED_NANOS: f64 = 40.0;
/// The most that one with as much payload as a small request may cost.
const MATCHED_NANOS: f64 = 140.0;
/// The payload of that one, in bytes.
const SMALL: u16 = 100;

/// Measures each kind of packet, `rounds` times.
pub(crate) fn measure(rounds: usize) -> Result<(Vec<Table>, Vec<Mark>)> {
    let mut kernel = Kernel::load()?;
    let empty = load_empty_classifier().context("load an empty program")?;
    let packets = [
        ("IPv4, unmatched", false, PORT + 1, 100),
        ("IPv6, unmatched", true, PORT + 1, 100),
        ("IPv4, matched, no payload", false, PORT, 0),
        ("IPv6, matched, no payload", true, PORT, 0),
        ("IPv4, matched, 100 B", false, PORT, SMALL),
        ("IPv4, matched, 400 B", false, PORT, 400),
        ("IPv4, matched, 1400 B", false, PORT, 1_400),
    ];
    let mut table = Table::new(
        "kernel",
        "The classifier, by BPF_PROG_TEST_RUN: ns a packet",
        &["packet", "program", "empty program", "net", "net of the best"],
    );
    let packets =
        packets.map(|(name, is_v6, port, payload)| (name, port, payload, packet(is_v6, port, payload)));
    let mut found = packets.each_ref().map(|_| (Vec::new(), Vec::new()));
    for _ in 0..rounds {
        for ((.., packet), (ours, theirs)) in packets.iter().zip(&mut found) {
            if interrupted() {
                bail!("interrupted");
            }
            theirs.push(test_run(empty.as_fd(), packet, REPEAT)?.as_nanos() as f64);
            ours.push(test_run(kernel.requests()?, packet, REPEAT)?.as_nanos() as f64);
            kernel.drain();
        }
        sleep(PAUSE);
    }
    let (mut unmatched, mut matched) = (0.0_f64, 0.0_f64);
    for ((name, port, payload, _), (ours, theirs)) in packets.into_iter().zip(found) {
        let (Some(ours), Some(theirs)) = (Figure::of(ours), Figure::of(theirs)) else { continue };
        let net = ours.median - theirs.median;
        if port != PORT {
            unmatched = unmatched.max(net);
        } else if payload == SMALL {
            matched = matched.max(net);
        }
        table.rows.push(vec![
            name.into(),
            ours.into(),
            theirs.into(),
            net.into(),
            (ours.least - theirs.least).into(),
        ]);
    }
    let dropped = kernel.counter(Counter::DroppedRingFull)?;
    let copied = kernel.counter(Counter::CopiedClient)?;
    if dropped > 0 {
        bail!(
            "{dropped} records found the ring full: the figures would be of the wrong way through the program"
        );
    }
    table.note(format!(
        "Median of {rounds} rounds (least–most) of {REPEAT} runs; a 32 MiB ring is emptied after each: {copied} records were \
         copied, none found it full."
    ));
    let mark = |what: &str, found: f64, most: f64| Mark {
        promise: format!("{what}: ≤ {most} ns net of an empty program"),
        found: format!("{found:.0} ns"),
        is_kept: found <= most,
    };
    let marks = vec![
        mark("unmatched packet", unmatched, UNMATCHED_NANOS),
        mark("matched packet, 100 B", matched, MATCHED_NANOS),
    ];
    Ok((vec![table], marks))
}

/// The loaded object with one ring.
struct Kernel {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
}

impl Kernel {
    fn load() -> Result<Self> {
        let path = object_path();
        let object = fs::read(&path)
            .with_context(|| format!("read {}: `cargo xtask build` makes it", path.display()))?;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries(map::RING[0], RING_BYTES);
        let mut ebpf = loader.load(&object).context("load the object")?;
        let rings = ebpf.take_map(map::RINGS).context("no map of rings")?;
        let mut rings = ArrayOfMaps::<_, RingBuf<MapData>>::try_from(rings)?;
        let ring = RingBuf::try_from(ebpf.take_map(map::RING[0]).context("no ring")?)?;
        rings.set(0, &ring, 0)?;
        let requests: &mut SchedClassifier =
            ebpf.program_mut(program::REQUESTS).context("no program for requests")?.try_into()?;
        requests.load().context("load the program")?;
        let config = KernelConfig { rings: 1, wake_interval_ns: 1_000_000, ..KernelConfig::default() };
        let mut configs = Array::<_, [u32; KernelConfig::WORDS]>::try_from(
            ebpf.map_mut(map::CONFIG).context("no configuration")?,
        )?;
        configs.set(0, config.to_words(), 0)?;
        let mut ports = Array::<_, u64>::try_from(ebpf.map_mut(map::PORTS).context("no ports")?)?;
        ports.set(u32::from(PORT / 64), 1 << (PORT % 64), 0)?;
        Ok(Self { ebpf, ring })
    }

    fn requests(&self) -> Result<BorrowedFd<'_>> {
        let program: &SchedClassifier =
            self.ebpf.program(program::REQUESTS).context("no program for requests")?.try_into()?;
        Ok(program.fd()?.as_fd())
    }

    fn drain(&mut self) {
        while self.ring.next().is_some() {}
    }

    fn counter(&self, counter: Counter) -> Result<u64> {
        let counters = self.ebpf.map(map::COUNTERS).context("no counters")?;
        let counters = PerCpuArray::<_, u64>::try_from(counters)?;
        Ok(counters.get(&(counter as u32), 0)?.iter().sum())
    }
}

/// Where the build has put the object, unless told otherwise.
fn object_path() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/mirror-ebpf.o");
    env::var_os("MIRROR_EBPF_OBJECT").map_or_else(|| PathBuf::from(default), PathBuf::from)
}

/// A TCP packet to a port, as it comes from an Ethernet interface.
fn packet(is_v6: bool, port: u16, payload: u16) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let tcp_bytes = 20 + payload;
    if is_v6 {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        bytes.extend(tcp_bytes.to_be_bytes());
        bytes.extend([6, 64]);
        bytes.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
        bytes.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).octets());
    } else {
        bytes.extend([8, 0, 0x45, 0]);
        bytes.extend((20 + tcp_bytes).to_be_bytes());
        bytes.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
        bytes.extend(Ipv4Addr::new(192, 0, 2, 1).octets());
        bytes.extend(Ipv4Addr::new(198, 51, 100, 2).octets());
    }
    bytes.extend(40_000_u16.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0, 3, 232, 0, 0, 7, 208, 0x50, tcp_flag::ACK | tcp_flag::PSH, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.resize(bytes.len() + usize::from(payload), b'x');
    bytes
}
