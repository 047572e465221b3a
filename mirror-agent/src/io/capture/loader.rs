//! Enters: the eBPF object and the rules. Leaves: loaded programs, filled maps, and the reading ends of the rings.

use std::io;

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{
        Array, ArrayOfMaps, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf, lpm_trie::Key,
    },
    programs::{ProgramError, SchedClassifier},
};
use aya_log::EbpfLogger;
use mirror_common::maps::{KernelConfig, MAX_RINGS, map, program};

use crate::io::capture::{
    attach::{self, AttachError, AttachMode, Attachment, Interface},
    counters::KernelCounters,
    links::Link,
    own::OwnSockets,
    presence::Presence,
    ring::RingReader,
    rules::{CONFIG_WORDS, KernelRules, PortSet, RulesError, config_words, trie_key, tunnel_port_words},
    sys::page_bytes,
};

/// All that the kernel side consists of, each part for the thread that needs it.
pub struct Capture {
    /// The programs, for whoever starts and stops the agent.
    pub kernel: Kernel,
    /// For the replay thread.
    pub own_sockets: OwnSockets,
    /// For the metrics.
    pub counters: KernelCounters,
    /// One for each capture thread.
    pub rings: Vec<RingReader>,
}

/// The loaded programs. Dropping the value detaches them; what was captured before stays readable in the rings.
pub struct Kernel {
    // Dropped in this order: the filters go before the proof that their agent is alive.
    pub(super) attachments: Vec<Attachment>,
    presence: Option<Presence>,
    ebpf: Ebpf,
    config_map: Array<MapData, [u32; CONFIG_WORDS]>,
    config: KernelConfig,
    flush_log: Option<Box<dyn FnMut() + Send>>,
}

/// Why the kernel side could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The rules are not ones that the kernel takes.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The object could not be read, or its maps not be made.
    #[error("load the eBPF object")]
    Object(#[source] Box<EbpfError>),
    /// The object is not of this build: a map is missing or of another type.
    #[error("the eBPF object has no map {map} of the type wanted")]
    Map {
        /// The map's name.
        map: String,
        /// What is wrong with it; `None` where it is missing.
        #[source]
        source: Option<Box<MapError>>,
    },
    /// The object is not of this build: a program is missing or is no classifier.
    #[error("the eBPF object has no classifier {program}")]
    MissingProgram {
        /// The program's name.
        program: &'static str,
    },
    /// The kernel refused a program; where its verifier did, `source` has its log.
    #[error("load program {program}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// What went wrong.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map could not be filled.
    #[error("fill map {map}")]
    Fill {
        /// The map's name.
        map: &'static str,
        /// What went wrong.
        #[source]
        source: Box<MapError>,
    },
    /// The positions of a ring could not be mapped.
    #[error("map ring {index}")]
    Ring {
        /// Which ring.
        index: u32,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

impl Capture {
    /// Loads the programs of `object` and fills their maps; attaches nothing.
    ///
    /// # Errors
    ///
    /// Any of [`LoadError`].
    pub fn load(object: &[u8], rules: &KernelRules) -> Result<Self, LoadError> {
        let page_bytes = page_bytes();
        rules.validate(page_bytes)?;
        let mut loader = EbpfLoader::new();
        for (index, name) in (0..MAX_RINGS).zip(map::RING) {
            // Rings that no thread reads are made too; a page is the least that the kernel takes.
            loader.map_max_entries(name, if index < rules.rings { rules.ring_bytes } else { page_bytes });
        }
        let mut ebpf = loader.load(object).map_err(|error| LoadError::Object(Box::new(error)))?;
        // Before any map is taken out: the instructions name the maps by their descriptors until they are loaded.
        for program in [program::REQUESTS, program::RESPONSES, program::BOTH] {
            let classifier = ebpf.program_mut(program).and_then(|program| program.try_into().ok());
            let classifier: &mut SchedClassifier = classifier.ok_or(LoadError::MissingProgram { program })?;
            classifier.load().map_err(|error| LoadError::Program { program, source: Box::new(error) })?;
        }

        fill_ports(take(&mut ebpf, map::PORTS)?, rules)?;
        fill_tunnel_ports(take(&mut ebpf, map::TUNNEL_PORTS)?, rules)?;
        fill_addresses(take(&mut ebpf, map::ADDRESSES)?, rules)?;
        let config = rules.config();
        let mut config_map = take(&mut ebpf, map::CONFIG)?;
        write_config(&mut config_map, &config).map_err(fill(map::CONFIG))?;
        let mut ring_table: ArrayOfMaps<MapData, RingBuf<MapData>> = take(&mut ebpf, map::RINGS)?;
        let mut rings = Vec::new();
        for (index, name) in (0..rules.rings).zip(map::RING) {
            let ring: RingBuf<MapData> = take(&mut ebpf, name)?;
            ring_table.set(index, &ring, 0).map_err(fill(map::RINGS))?;
            let reader = RingReader::new(ring, rules.ring_bytes, page_bytes);
            rings.push(reader.map_err(|source| LoadError::Ring { index, source })?);
        }
        let sockets: HashMap<_, _, _> = take(&mut ebpf, map::OWN_SOCKETS)?;
        let own_sockets = OwnSockets::new(sockets, take(&mut ebpf, map::OWN_PORTS)?);
        let counters = KernelCounters::new(take::<PerCpuArray<_, _>>(&mut ebpf, map::COUNTERS)?);
        let flush_log = flush_log(&mut ebpf);
        let kernel = Kernel { attachments: Vec::new(), presence: None, ebpf, config_map, config, flush_log };
        Ok(Self { kernel, own_sockets, counters, rings })
    }
}

impl Kernel {
    /// Attaches the programs to `interfaces`, to all or to none. `links` are those of this network namespace, where
    /// the first agent to come removes the filters of agents that were killed.
    ///
    /// # Errors
    ///
    /// Any of [`AttachError`].
    pub fn attach(
        &mut self,
        interfaces: &[Interface],
        links: &[Link],
        mode: AttachMode,
    ) -> Result<(), AttachError> {
        let presence = match self.presence.take() {
            Some(presence) => presence,
            None => Presence::establish(links)?,
        };
        let presence = self.presence.insert(presence);
        let mut attachments = Vec::new();
        for interface in interfaces {
            attachments.extend(attach::attach(&mut self.ebpf, interface, mode, presence)?);
        }
        self.attachments.append(&mut attachments);
        Ok(())
    }

    /// Detaches all programs, and returns what went wrong.
    pub fn detach(&mut self) -> Vec<AttachError> {
        self.attachments.drain(..).filter_map(|attachment| attach::detach(attachment).err()).collect()
    }

    /// The programs that are attached.
    #[must_use]
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Pauses or resumes: while paused, matched packets are left alone as if unmatched.
    ///
    /// # Errors
    ///
    /// The kernel's, where the map cannot be written; then nothing changes.
    pub fn set_paused(&mut self, is_paused: bool) -> Result<(), MapError> {
        let config = KernelConfig { paused: u32::from(is_paused), ..self.config };
        write_config(&mut self.config_map, &config)?;
        self.config = config;
        Ok(())
    }

    /// Whether the programs were built to log.
    #[must_use]
    pub const fn has_log(&self) -> bool {
        self.flush_log.is_some()
    }

    /// Hands on what the programs logged since the last call. They log only where they were built to.
    pub fn flush_log(&mut self) {
        if let Some(flush_log) = &mut self.flush_log {
            flush_log();
        }
    }

    /// Whether the kernel program is paused.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.config.paused != 0
    }
}

fn write_config(
    map: &mut Array<MapData, [u32; CONFIG_WORDS]>,
    config: &KernelConfig,
) -> Result<(), MapError> {
    map.set(0, config_words(config), 0)
}

fn fill_ports(mut map: Array<MapData, u64>, rules: &KernelRules) -> Result<(), LoadError> {
    let mut ports = PortSet::new();
    for &port in &rules.ports {
        let (index, word) = ports.set(port, true);
        map.set(index, word, 0).map_err(fill(map::PORTS))?;
    }
    Ok(())
}

fn fill_tunnel_ports(mut map: Array<MapData, u64>, rules: &KernelRules) -> Result<(), LoadError> {
    for (index, word) in tunnel_port_words(rules) {
        map.set(index, word, 0).map_err(fill(map::TUNNEL_PORTS))?;
    }
    Ok(())
}

fn fill_addresses(mut map: LpmTrie<MapData, [u8; 16], u8>, rules: &KernelRules) -> Result<(), LoadError> {
    for &network in &rules.addresses {
        let (prefix_len, octets) = trie_key(network);
        map.insert(&Key::new(prefix_len, octets), 1, 0).map_err(fill(map::ADDRESSES))?;
    }
    Ok(())
}

/// What hands on the programs' log; `None` where they were built without one.
fn flush_log(ebpf: &mut Ebpf) -> Option<Box<dyn FnMut() + Send>> {
    let mut logger = EbpfLogger::init(ebpf).ok()?;
    Some(Box::new(move || logger.flush()))
}

/// Takes a map out of the object, as the type that it must have.
fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T, LoadError> {
    let missing = |source| LoadError::Map { map: name.to_owned(), source };
    let map = ebpf.take_map(name).ok_or_else(|| missing(None))?;
    T::try_from(map).map_err(|error| missing(Some(Box::new(error))))
}

fn fill(map: &'static str) -> impl Fn(MapError) -> LoadError {
    move |error| LoadError::Fill { map, source: Box::new(error) }
}
