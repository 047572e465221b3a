//! Enters: frames, on interfaces. Leaves: what came of each at every hook that it passed, held against the model.
//!
//! This is for what `BPF_PROG_TEST_RUN` cannot make: packets of up to 64 KiB, headers outside of the linear part,
//! segmentation offload, tags that the kernel has taken off, and links without Ethernet.

use std::fs::File;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::TcAttachType;
use mirror_common::Counter;
use mirror_common::maps::{KernelConfig, program};
use mirror_common::packet::Start;
use mirror_tests::classifier::{Classifier, Counts, object};
use mirror_tests::frame_gen::FrameGen;
use mirror_tests::frames::{TAG_AD, TAG_Q};
use mirror_tests::netns::{Host, INTERFACE, Topology};
use mirror_tests::require_hosts;
use mirror_tests::scenario::{Turn, Weight};
use mirror_tests::sys::{offloading_packet_socket, open_tun};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::model::{Fragments, Passing, Rules, Verdict};
use crate::report::{Disagreement, ENOUGH, Tally};
use crate::scene;

/// Length of a `virtio_net_hdr`.
const OFFLOAD_LEN: usize = 10;

/// Shorter frames the kernel keeps whole in the linear part, whatever is asked for.
const ALWAYS_LINEAR: usize = 4_096;

/// Frames between two configurations.
const ROUND: u64 = 200;

/// How long a frame may take to pass, on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(5);

/// Stands in the payload of the frames that follow each frame to show that it has passed.
const FOLLOWER: &[u8] = b"the frame before this has passed";

#[test]
fn frames_on_interfaces_are_seen_alike() -> Result<()> {
    require_hosts!();
    let object = match object() {
        Ok(object) => object,
        Err(reason) => {
            println!("SKIPPED: {reason}");
            return Ok(());
        }
    };
    let frames = scene::frames(100_000)? / 100;
    let seed = scene::seed()?;
    println!("seed {seed}, {frames} frames");
    let _turn = Turn::take(Weight::Light)?;
    // Packets keep their order only if one processor handles all of them.
    let mut one = CpuSet::new();
    one.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &one)?;
    let topology = Topology::new()?;
    let mut scene = Scene::new(&topology, &object, seed)?;
    let started = Instant::now();

    let tally = scene.over(frames)?;

    let rate = f64::from(u32::try_from(tally.frames)?) / started.elapsed().as_secs_f64();
    println!("{tally}; {rate:.0} frames/s at a hook; {:?}", scene.kinds);
    tally.assert_agreement();
    ensure!(tally.records > frames / 20, "few frames became records");
    for counter in [Counter::CopiedClient, Counter::CopiedServer, Counter::Fragment, Counter::Malformed] {
        ensure!(tally.count(counter) > frames / 200, "{counter:?} hardly occurred");
    }
    let Kinds { tagged, scattered, offloaded, without_ethernet } = scene.kinds;
    for kind in [tagged, scattered, offloaded, without_ethernet] {
        ensure!(kind > frames / 50, "a kind of frame hardly occurred: {:?}", scene.kinds);
    }
    Ok(())
}

/// How many frames were of the kinds for which this is done.
#[derive(Clone, Copy, Debug, Default)]
struct Kinds {
    /// Had a tag that was taken off.
    tagged: u64,
    /// Had headers outside of the linear part.
    scattered: u64,
    /// Were larger than a wire's, to be cut by the interface.
    offloaded: u64,
    /// Had no Ethernet header.
    without_ethernet: u64,
}

/// A place where a program looks at what passes.
struct Hook {
    name: &'static str,
    classifier: Classifier,
    fragments: Fragments,
    counts: Counts,
}

struct Scene {
    /// Where frames leave, where they arrive, and the device without Ethernet.
    egress: Hook,
    ingress: Hook,
    tun_ingress: Hook,
    wire: File,
    tun: File,
    rules: Rules,
    frames: FrameGen,
    seed: u64,
    kinds: Kinds,
}

/// What is sent: bytes to write, and the frame in them.
struct Sending {
    /// With the header that a packet socket takes, or bare for the device without Ethernet.
    written: Vec<u8>,
    frame: Vec<u8>,
    linear: usize,
    is_ip: bool,
}

impl Scene {
    fn new(topology: &Topology, object: &[u8], seed: u64) -> Result<Self> {
        let (client, hub) = (&topology.client, &topology.hub);
        // One cable, without a bridge behind it, on which packets may have any size.
        hub.ip("link set p1 nomaster\nlink set p1 mtu 65535\n")?;
        client.ip(&format!("link set {INTERFACE} mtu 65535\n"))?;
        let index = client.interface_index()?;
        let wire = client.within(|| Ok(offloading_packet_socket(index)?))?;
        let tun = client.within(|| open_tun("tun0").context("open a tun device"))?;
        client.ip("link set tun0 mtu 65535\nlink set tun0 up\n")?;
        let hook = |name, host: &Host, interface: &str, kind| -> Result<(Hook, Rules)> {
            let mut classifier = Classifier::load(object, KernelConfig::default(), 1 << 20)?;
            let rules = scene::tell(&mut classifier)?;
            let program = classifier.program(program::BOTH)?;
            host.within(|| {
                // Kernels before 6.6 need a place for the filter; the others do not mind.
                drop(aya::programs::tc::qdisc_add_clsact(interface));
                program.attach(interface, kind).with_context(|| format!("attach to {interface}"))?;
                Ok(())
            })?;
            let counts = classifier.counts()?;
            Ok((Hook { name, classifier, fragments: Fragments::default(), counts }, rules))
        };
        let (egress, rules) = hook("egress", client, INTERFACE, TcAttachType::Egress)?;
        let (ingress, _) = hook("ingress", hub, "p1", TcAttachType::Ingress)?;
        let (tun_ingress, _) = hook("ingress without Ethernet", client, "tun0", TcAttachType::Ingress)?;
        Ok(Self {
            egress,
            ingress,
            tun_ingress,
            wire: wire.into(),
            tun,
            rules,
            frames: FrameGen::new(seed, scene::population(2_500)),
            seed,
            kinds: Kinds::default(),
        })
    }

    fn over(&mut self, frames: u64) -> Result<Tally> {
        let mut tally = Tally::default();
        for number in 0..frames {
            if number % ROUND == 0 {
                // Neither paused, sampled nor spread over rings: the followers have to be seen, in their order.
                let config = scene::any_config(self.frames.rng());
                self.rules.config =
                    KernelConfig { paused: 0, rings: 1, own_mark: 0, connections: 0, ..config };
                for hook in [&mut self.egress, &mut self.ingress, &mut self.tun_ingress] {
                    hook.classifier.set_config(self.rules.config)?;
                    hook.classifier.forget_fragments()?;
                    hook.fragments.clear();
                }
            }
            let sending = self.next();
            let file = if sending.is_ip { &mut self.tun } else { &mut self.wire };
            // The kernel refuses what no driver could send.
            if file.write(&sending.written).is_err() {
                tally.refused += 1;
                continue;
            }
            let follower = self.frames.plain_segment(false, FOLLOWER);
            let (seq, follower) = follow(follower, number)?;
            if sending.is_ip {
                self.tun.write_all(&follower[14..])?;
            } else {
                self.wire.write_all(&[&[0; OFFLOAD_LEN], &follower[..]].concat())?;
            }
            let passings = passings(&sending);
            self.kinds.tagged += u64::from(passings.iter().flatten().any(|passing| passing.tag.is_some()));
            let hooks = if sending.is_ip {
                vec![&mut self.tun_ingress]
            } else {
                vec![&mut self.egress, &mut self.ingress]
            };
            for (hook, passing) in hooks.into_iter().zip(passings) {
                let fragments = &mut hook.fragments;
                let expected =
                    passing.as_ref().map(|frame| self.rules.verdict(fragments, program::BOTH, frame));
                let expected = expected.unwrap_or_default();
                let found = hook.after(seq, &expected)?;
                tally.note(&found);
                if let Some(frame) = passing.filter(|_| found != expected) {
                    tally.disagreements.push(Disagreement {
                        hook: hook.name.to_owned(),
                        seed: self.seed,
                        number,
                        frame,
                        rules: self.rules.clone(),
                        expected,
                        found,
                    });
                }
            }
            if tally.disagreements.len() >= ENOUGH {
                break;
            }
        }
        Ok(tally)
    }

    fn next(&mut self) -> Sending {
        match self.frames.rng().weighted(&[50, 20, 15, 15]) {
            0 => {
                let mut frame = self.frames.ethernet();
                if frame.len() < 14 {
                    frame.resize(14, 0);
                }
                let written = [&[0; OFFLOAD_LEN], &frame[..]].concat();
                Sending { written, linear: frame.len(), frame, is_ip: false }
            }
            1 => self.scattered(),
            2 => self.offloaded(),
            _ => {
                self.kinds.without_ethernet += 1;
                let frame = self.frames.ip();
                Sending { written: frame.clone(), linear: frame.len(), frame, is_ip: true }
            }
        }
    }

    /// A frame, long and with hardly anything in the linear part.
    fn scattered(&mut self) -> Sending {
        self.kinds.scattered += 1;
        let mut frame = self.frames.ethernet();
        frame.resize(frame.len().max(14), 0);
        let more = self.frames.rng().between(ALWAYS_LINEAR, 60_000);
        frame.extend(self.frames.rng().bytes(more));
        frame.truncate(65_000);
        let linear = self.frames.rng().pick(&[14_u16, 18, 30, 34, 40, 54, 66]);
        let mut offload = [0; OFFLOAD_LEN];
        offload[2..4].copy_from_slice(&linear.to_ne_bytes());
        Sending { written: [&offload, &frame[..]].concat(), linear: linear.into(), frame, is_ip: false }
    }

    /// A segment larger than a wire's, for the interface to cut.
    fn offloaded(&mut self) -> Sending {
        self.kinds.offloaded += 1;
        let is_v6 = self.frames.rng().percent(50);
        let len = self.frames.rng().between(1_500, 64_000);
        let payload = self.frames.rng().bytes(len);
        let frame = self.frames.plain_segment(is_v6, &payload);
        let tcp: u16 = if is_v6 { 54 } else { 34 };
        let headers = tcp + 20;
        let fields: [u16; 4] = [headers, 1_448, tcp, 16];
        let mut offload = vec![1, if is_v6 { 4 } else { 1 }];
        for field in fields {
            offload.extend(field.to_ne_bytes());
        }
        Sending { written: [&offload[..], &frame].concat(), linear: headers.into(), frame, is_ip: false }
    }
}

impl Hook {
    /// What came of the frames up to the follower with this sequence number.
    ///
    /// A record is there a moment before it is counted, hence the wait for what is expected.
    fn after(&mut self, seq: u32, expected: &Verdict) -> Result<Verdict> {
        let deadline = Instant::now() + PATIENCE;
        let mut found = Verdict::default();
        loop {
            let mut records = scene::drain(&mut self.classifier)?.records;
            if let Some(at) =
                records.iter().position(|(_, header, payload)| header.seq == seq && payload == FOLLOWER)
            {
                ensure!(at + 1 == records.len(), "something came after the follower");
                records.pop();
                found.records.append(&mut records);
                break;
            }
            found.records.append(&mut records);
            if Instant::now() > deadline {
                bail!("the frame after frame {seq} did not pass {}", self.name);
            }
            thread::yield_now();
        }
        let deadline = Instant::now() + Duration::from_millis(100);
        loop {
            let counts = self.classifier.counts()?;
            found.counts = scene::moved(&self.counts, &counts);
            let copied = &mut found.counts[Counter::CopiedClient as usize];
            let is_counted = *copied > 0;
            *copied = copied.saturating_sub(1);
            if is_counted && found == *expected || Instant::now() > deadline {
                self.counts = counts;
                return Ok(found);
            }
        }
    }
}

/// Makes of a plain IPv4 segment one that is matched whatever the rules, with a sequence number of its own.
fn follow(mut frame: Vec<u8>, number: u64) -> Result<(u32, Vec<u8>)> {
    let seq = u32::try_from(number)? ^ 0x5eed_0000;
    frame[0] = 2;
    frame[26..34].copy_from_slice(&[198, 51, 100, 9, 192, 0, 2, 77]);
    frame[34..36].copy_from_slice(&1_000_u16.to_be_bytes());
    frame[36..38].copy_from_slice(&80_u16.to_be_bytes());
    frame[38..42].copy_from_slice(&seq.to_be_bytes());
    Ok((seq, frame))
}

/// The frame as it stands at each hook in turn; `None` where the kernel has dropped it before.
fn passings(sending: &Sending) -> Vec<Option<Passing>> {
    let Sending { frame, linear, is_ip, .. } = sending;
    let linear = if frame.len() < ALWAYS_LINEAR { frame.len() } else { *linear };
    let whole = Passing { bytes: frame.clone(), start: Start::Ethernet, tag: None, mark: 0, linear };
    if *is_ip {
        return vec![Some(Passing { start: Start::Ip, ..whole })];
    }
    let arriving = match frame.get(12..14).map(|kind| u16::from_be_bytes([kind[0], kind[1]])) {
        // The tag's control information goes to the side, its EtherType and the MAC addresses stay together.
        Some(TAG_Q | TAG_AD) => (frame.len() >= 20).then(|| Passing {
            bytes: [&frame[..12], &frame[16..]].concat(),
            tag: Some(u16::from_be_bytes([frame[14], frame[15]])),
            linear: linear - 4,
            ..whole.clone()
        }),
        _ => Some(whole.clone()),
    };
    vec![Some(whole), arriving]
}
