//! Enters: the object that the build made. Leaves: its programs, loaded, to be run on bytes or attached, and what they say.

use std::{
    fs,
    io::ErrorKind,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ArrayOfMaps, HashMap, LpmTrie, Map, MapData, RingBuf, lpm_trie::Key},
    programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions},
};
use mirror_common::{
    Counter, RecordHeader,
    maps::{KernelConfig, PortSample, SocketKey, map, tunnel_bits, tunnel_port_place},
    packet::{FirstFragment, FragmentKey, UdpTunnel, UsualPorts},
    unread::{UnreadKey, UnreadRun},
};

use crate::sys;

/// The value of every counter, in the order of [`Counter::ALL`], summed over the processors.
pub type Counts = [u64; Counter::COUNT as usize];

/// Reads the object; says why not where programs cannot be loaded here.
///
/// # Errors
///
/// Why the tests that need it have to be left out.
pub fn object() -> Result<Vec<u8>, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("loading a program needs root".to_owned());
    }
    let path = std::env::var_os("MIRROR_EBPF_OBJECT").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/mirror-ebpf.o")),
        PathBuf::from,
    );
    fs::read(&path).map_err(|error| format!("no object at {}: {error}", path.display()))
}

/// The loaded object, with rings in their places and nothing matched yet.
pub struct Classifier {
    /// The object, for what is not wrapped here.
    pub ebpf: Ebpf,
    rings: Vec<RingBuf<MapData>>,
    counters: OwnedFd,
    processors: usize,
}

impl Classifier {
    /// Loads the object with as many rings as `config` asks for, at least one.
    ///
    /// # Errors
    ///
    /// The kernel's, or the object is not of this build.
    pub fn load(object: &[u8], config: KernelConfig, ring_bytes: u32) -> Result<Self> {
        let config = KernelConfig { rings: config.rings.max(1), ..config };
        let mut loader = EbpfLoader::new();
        let names =
            map::RING.get(..usize::try_from(config.rings)?).context("more rings than there can be")?;
        for name in names {
            loader.map_max_entries(name, ring_bytes);
        }
        let mut ebpf = loader.load(object).context("load the object")?;
        let mut rings = Vec::new();
        for name in names {
            rings.push(RingBuf::try_from(ebpf.take_map(name).with_context(|| format!("no map {name}"))?)?);
        }
        let table = ebpf.map_mut(map::RINGS).context("no table of rings")?;
        let mut table = ArrayOfMaps::<_, RingBuf<MapData>>::try_from(table)?;
        for (index, ring) in (0..).zip(&rings) {
            table.set(index, ring, 0)?;
        }
        let Map::PerCpuArray(counters) = ebpf.map(map::COUNTERS).context("no counters")? else {
            bail!("the counters are of another type");
        };
        let counters = counters.fd().as_fd().try_clone_to_owned()?;
        let processors = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let mut classifier = Self { ebpf, rings, counters, processors };
        classifier.set_config(config)?;
        Ok(classifier)
    }

    /// A program, loaded when it is first asked for: the verifier takes its time.
    ///
    /// # Errors
    ///
    /// There is none of this name, or the verifier refuses it.
    pub fn program(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
        let program: &mut SchedClassifier = program.try_into()?;
        if program.fd().is_err() {
            program.load().with_context(|| format!("load {name}"))?;
        }
        Ok(program)
    }

    /// Writes the configuration.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_config(&mut self, config: KernelConfig) -> Result<()> {
        let map = self.ebpf.map_mut(map::CONFIG).context("no configuration")?;
        Ok(Array::<_, [u32; KernelConfig::WORDS]>::try_from(map)?.set(0, config.to_words(), 0)?)
    }

    /// Adds a port to a set of ports: [`map::PORTS`] or [`map::OWN_PORTS`].
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn add_port(&mut self, set: &str, port: u16) -> Result<()> {
        let map = self.ebpf.map_mut(set).with_context(|| format!("no map {set}"))?;
        let mut words = Array::<_, u64>::try_from(map)?;
        let word = words.get(&u32::from(port / 64), 0)?;
        Ok(words.set(u32::from(port / 64), word | 1 << (port % 64), 0)?)
    }

    /// Makes the usual UDP ports of tunnels known.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn add_tunnels(&mut self) -> Result<()> {
        let vxlan = UsualPorts::VXLAN.map(|port| (port, UdpTunnel::Vxlan));
        let geneve = UsualPorts::GENEVE.map(|port| (port, UdpTunnel::Geneve));
        for (port, tunnel) in vxlan.into_iter().chain(geneve) {
            self.set_tunnel(port, Some(tunnel))?;
        }
        Ok(())
    }

    /// Says of which tunnel packets to a UDP port are.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_tunnel(&mut self, port: u16, tunnel: Option<UdpTunnel>) -> Result<()> {
        let map = self.ebpf.map_mut(map::TUNNEL_PORTS).context("no ports of tunnels")?;
        let mut words = Array::<_, u64>::try_from(map)?;
        let (index, shift) = tunnel_port_place(port);
        let others = words.get(&index, 0)? & !(3 << shift);
        Ok(words.set(index, others | (tunnel.map_or(0, tunnel_bits) << shift), 0)?)
    }

    /// Adds a network of server addresses, v4-mapped.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn add_network(&mut self, prefix_len: u32, addr: [u8; 16]) -> Result<()> {
        let map = self.ebpf.map_mut(map::ADDRESSES).context("no addresses")?;
        Ok(LpmTrie::<_, [u8; 16], u8>::try_from(map)?.insert(&Key::new(prefix_len, addr), 1, 0)?)
    }

    /// Adds a local end of the agent's own connections, and what is `known` of them, an
    /// [`own_end`](mirror_common::maps::own_end).
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn add_own(&mut self, socket: SocketKey, known: u8) -> Result<()> {
        self.add_port(map::OWN_PORTS, socket.port)?;
        let map = self.ebpf.map_mut(map::OWN_SOCKETS).context("no own sockets")?;
        let mut sockets = HashMap::<_, [u8; SocketKey::LEN], u8>::try_from(map)?;
        Ok(sockets.insert(socket.to_bytes(), known, 0)?)
    }

    /// Says which connections to a port are copied.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_sample(&mut self, port: u16, sample: PortSample) -> Result<()> {
        let map = self.ebpf.map_mut(map::SAMPLES).context("no samples")?;
        let mut samples = HashMap::<_, u32, [u64; PortSample::WORDS]>::try_from(map)?;
        Ok(samples.insert(u32::from(port), sample.to_words(), 0)?)
    }

    /// Says what of a flow nobody reads, in place of what was said `before`.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_unread(
        &mut self,
        before: Option<UnreadKey>,
        unread: Option<(UnreadKey, UnreadRun)>,
    ) -> Result<()> {
        let map = self.ebpf.map_mut(map::UNREAD).context("no map of what is unread")?;
        let mut flows = HashMap::<_, [u8; UnreadKey::LEN], [u32; 2]>::try_from(map)?;
        if let Some(key) = before {
            flows.remove(&key.to_bytes())?;
        }
        if let Some((key, run)) = unread {
            flows.insert(key.to_bytes(), run.to_words(), 0)?;
        }
        Ok(())
    }

    /// Lets the program forget the fragments that it has seen.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn forget_fragments(&mut self) -> Result<()> {
        const KEY_LEN: usize = size_of::<FragmentKey>();
        // A time of eight bytes, and what the first fragment said, rounded up.
        const VALUE_LEN: usize = (8 + size_of::<FirstFragment>() + 4).next_multiple_of(8);
        let map = self.ebpf.map_mut("FIRST_FRAGMENTS").context("no fragments")?;
        let mut fragments = HashMap::<_, [u8; KEY_LEN], [u8; VALUE_LEN]>::try_from(map)?;
        let keys = fragments.keys().collect::<Result<Vec<_>, _>>()?;
        for key in keys {
            fragments.remove(&key)?;
        }
        Ok(())
    }

    /// Runs a program on a packet with this mark, and sees to it that it lets the packet be. `false` where the kernel
    /// does not take such a packet.
    ///
    /// # Errors
    ///
    /// The kernel's, or the packet was changed or kept from going on.
    pub fn run(&mut self, name: &str, bytes: &[u8], mark: u32) -> Result<bool> {
        let mut out = vec![0; bytes.len()];
        // Of the context only the mark is set, the third word.
        let mut context = [0; 192];
        context[8..12].copy_from_slice(&mark.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(bytes),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        match self.program(name)?.test_run(options) {
            Ok(result) => {
                ensure!(
                    result.return_value.cast_signed() == -1,
                    "the program returned {}",
                    result.return_value
                );
            }
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::InvalidInput => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        ensure!(out == bytes, "the packet was changed");
        Ok(true)
    }

    /// The next record of a ring.
    ///
    /// # Errors
    ///
    /// There is no such ring, or the record is none.
    pub fn record_of(&mut self, ring: usize) -> Result<Option<(RecordHeader, Vec<u8>)>> {
        let Some(record) = self.rings.get_mut(ring).context("no such ring")?.next() else { return Ok(None) };
        let (header, payload) = RecordHeader::from_bytes(&record).context("no record")?;
        Ok(Some((header, payload.to_vec())))
    }

    /// How many rings there are.
    #[must_use]
    pub fn rings(&self) -> usize {
        self.rings.len()
    }

    /// The counters.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn counts(&self) -> Result<Counts> {
        let mut counts = [0; Counter::COUNT as usize];
        let mut values = [0; sys::MOST_PROCESSORS];
        for (count, index) in counts.iter_mut().zip(0..) {
            sys::array_lookup(self.counters.as_fd(), index, &mut values)?;
            *count = values.iter().take(self.processors).sum();
        }
        Ok(counts)
    }
}
