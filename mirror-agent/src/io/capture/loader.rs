//! Enters: the eBPF object and the rules. Leaves: loaded programs, filled maps, and the reading ends of the rings.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{ProgramError, SchedClassifier},
};
use aya_log::EbpfLogger;
use mirror_common::maps::{ConnectionFlags, KernelConfig, MAX_RINGS, map, program};

use crate::io::capture::{
    answers::AnswerPorts,
    attach::{self, AttachError, AttachMode, Attachment},
    counters::KernelCounters,
    desired::Interface,
    links::Link,
    matched::{Matched, Step},
    own::OwnSockets,
    presence::Presence,
    ring::RingReader,
    rules::{KernelRules, RulesError, tunnel_port_words},
    samples::{self, PortSample, Samples},
    sys::page_bytes,
    tables::Tables,
    unread::UnreadFlows,
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
    /// As many.
    pub unread: Vec<UnreadFlows>,
}

/// The loaded programs. Dropping the value detaches them; what was captured before stays readable in the rings.
pub struct Kernel {
    // Dropped in this order: the filters go before the proof that their agent is alive.
    pub(super) attachments: BTreeMap<u32, Vec<Attachment>>,
    interfaces: BTreeMap<u32, Interface>,
    presence: Option<Presence>,
    ebpf: Ebpf,
    config_map: Array<MapData, [u32; KernelConfig::WORDS]>,
    config: KernelConfig,
    samples: Samples,
    answer_ports: AnswerPorts,
    tables: Tables,
    flush_log: Option<Box<dyn FnMut() + Send>>,
}

/// What is left out of the connections, in millionths; 0 for nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Shed {
    /// Of those that begin from now on.
    pub new_millionths: u32,
    /// Of those that are followed; at most as many.
    pub followed_millionths: u32,
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

        fill_tunnel_ports(take(&mut ebpf, map::TUNNEL_PORTS)?, rules)?;
        let tables = Tables::new(take(&mut ebpf, map::PORTS)?, take(&mut ebpf, map::ADDRESSES)?);
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
        let samples = Samples::new(take(&mut ebpf, map::SAMPLES)?);
        let answer_ports = AnswerPorts::new(take(&mut ebpf, map::ANSWER_PORTS)?);
        let Some(Map::LruHashMap(unread)) = ebpf.take_map(map::UNREAD) else {
            return Err(LoadError::Map { map: map::UNREAD.to_owned(), source: None });
        };
        let unread = UnreadFlows::handles(&unread, rings.len()).map_err(fill(map::UNREAD))?;
        let flush_log = flush_log(&mut ebpf);
        let mut kernel = Kernel {
            attachments: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            presence: None,
            config_map: take(&mut ebpf, map::CONFIG)?,
            ebpf,
            config: KernelConfig { match_addresses: 0, ..rules.config() },
            samples,
            answer_ports,
            tables,
            flush_log,
        };
        write_config(&mut kernel.config_map, &kernel.config).map_err(fill(map::CONFIG))?;
        let matched = Matched::new(&rules.ports, &rules.addresses);
        kernel.take_less(&matched)?;
        kernel.take_more(&matched)?;
        Ok(Self { kernel, own_sockets, counters, rings, unread })
    }
}

impl Kernel {
    /// Makes this agent known in its network namespace, of which `links` are the interfaces. The first agent to come
    /// removes the filters of agents that were killed.
    ///
    /// # Errors
    ///
    /// [`AttachError::Lock`].
    pub fn establish(&mut self, links: &[Link]) -> Result<(), AttachError> {
        if self.presence.is_none() {
            self.presence = Some(Presence::establish(links)?);
        }
        Ok(())
    }

    /// Attaches the programs of the role of `interface`, all or none; what is attached to it goes first.
    ///
    /// # Errors
    ///
    /// Any of [`AttachError`].
    pub fn attach(&mut self, interface: &Interface, mode: AttachMode) -> Result<(), AttachError> {
        self.establish(&[])?;
        let Some(presence) = &self.presence else {
            return Err(AttachError::Lock(io::ErrorKind::NotConnected.into()));
        };
        self.interfaces.remove(&interface.index);
        for attachment in self.attachments.remove(&interface.index).into_iter().flatten() {
            attach::detach(attachment)?;
        }
        let attachments = attach::attach(&mut self.ebpf, interface, mode, presence)?;
        self.attachments.insert(interface.index, attachments);
        self.interfaces.insert(interface.index, interface.clone());
        Ok(())
    }

    /// Notes another name of an interface that stays attached.
    pub fn rename(&mut self, interface: Interface) {
        for attachment in self.attachments.get_mut(&interface.index).into_iter().flatten() {
            attachment.interface.clone_from(&interface.name);
        }
        self.interfaces.insert(interface.index, interface);
    }

    /// Detaches what is attached to the interface with this index, and returns what went wrong.
    pub fn detach_from(&mut self, index: u32) -> Vec<AttachError> {
        self.interfaces.remove(&index);
        let attachments = self.attachments.remove(&index).into_iter().flatten();
        attachments.filter_map(|attachment| attach::detach(attachment).err()).collect()
    }

    /// Detaches all programs, and returns what went wrong.
    pub fn detach(&mut self) -> Vec<AttachError> {
        self.interfaces.clear();
        let attachments = std::mem::take(&mut self.attachments).into_values().flatten();
        attachments.filter_map(|attachment| attach::detach(attachment).err()).collect()
    }

    /// The programs that are attached.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values().flatten()
    }

    /// The programs that are attached to the interface with this index.
    pub fn attachments_of(&self, index: u32) -> impl Iterator<Item = &Attachment> {
        self.attachments.get(&index).into_iter().flatten()
    }

    /// The interfaces to which programs are attached, by index.
    #[must_use]
    pub const fn interfaces(&self) -> &BTreeMap<u32, Interface> {
        &self.interfaces
    }

    /// Pauses or resumes: while paused, matched packets are left alone as if unmatched.
    ///
    /// # Errors
    ///
    /// The kernel's, where the map cannot be written; then nothing changes.
    pub fn set_paused(&mut self, is_paused: bool) -> Result<(), MapError> {
        self.configure(KernelConfig { paused: u32::from(is_paused), ..self.config })
    }

    /// Says of which connections to which ports segments are copied, in place of what was said before. Of a port that
    /// is not named all are. May be called at any time; connections that come into a sample are picked up where they
    /// are.
    ///
    /// # Errors
    ///
    /// The kernel's, where a map cannot be written. Then what was said before may still hold for some ports.
    pub fn set_samples(&mut self, samples: &[PortSample]) -> Result<(), MapError> {
        let entries = samples::entries(samples);
        let flag = if entries.is_empty() { 0 } else { ConnectionFlags::SAMPLED };
        self.samples.replace(entries)?;
        let connections = (self.config.connections & !ConnectionFlags::SAMPLED) | flag;
        self.configure(KernelConfig { connections, ..self.config })
    }

    /// Says of which ports payload that servers send is copied whole, in place of what was said before; of the others
    /// only how a response begins. May be called at any time: of what is under way the rest is copied, or not.
    ///
    /// # Errors
    ///
    /// The kernel's, where a map cannot be written. Then what was said before may still hold for some ports.
    pub fn set_answer_ports(&mut self, ports: &BTreeSet<u16>) -> Result<(), MapError> {
        self.answer_ports.replace(ports)?;
        let copy_responses = u32::from(!self.answer_ports.is_empty());
        self.configure(KernelConfig { copy_responses, ..self.config })
    }

    /// Sheds a share of the connections that begin from now on, and of those that are followed already each when its
    /// client next sends something. Connections that were left out or let go are picked up where they are as soon as the
    /// share would not shed them; what is left of them when it ends, once something is sent on them.
    ///
    /// # Errors
    ///
    /// The kernel's, where the map cannot be written; then nothing changes.
    pub fn set_shed(&mut self, shed: Shed) -> Result<(), MapError> {
        let config = self.config;
        let begins = config.connections & ConnectionFlags::SHED == 0 && shed.new_millionths != 0;
        self.configure(KernelConfig {
            connections: config.connections | if begins { ConnectionFlags::SHED } else { 0 },
            shed_millionths: shed.new_millionths,
            let_go_millionths: shed.followed_millionths.min(shed.new_millionths),
            shed_epoch: config.shed_epoch.wrapping_add(u32::from(begins)),
            ..config
        })
    }

    /// Forgets the connections that were shed: all that are still left out are picked up where they are, and asking
    /// for them costs nothing more. Does nothing while connections are shed.
    ///
    /// # Errors
    ///
    /// The kernel's, where the map cannot be written; then nothing changes.
    pub fn forget_shed(&mut self) -> Result<(), MapError> {
        if self.config.shed_millionths != 0 {
            return Ok(());
        }
        let connections = self.config.connections & !ConnectionFlags::SHED;
        self.configure(KernelConfig { connections, ..self.config })
    }

    fn configure(&mut self, config: KernelConfig) -> Result<(), MapError> {
        if config != self.config {
            write_config(&mut self.config_map, &config)?;
            self.config = config;
        }
        Ok(())
    }

    /// Takes nothing more that `matched` does not ask for.
    ///
    /// # Errors
    ///
    /// [`LoadError::Rules`] where the tables cannot hold it: then nothing changes. [`LoadError::Fill`] where the kernel
    /// refuses to change an entry.
    pub fn take_less(&mut self, matched: &Matched) -> Result<(), LoadError> {
        matched.validate()?;
        self.change(&self.tables.held.less(matched))
    }

    /// Takes all that `matched` asks for. What is taken that it does not ask for goes first, with
    /// [`take_less`](Self::take_less).
    ///
    /// # Errors
    ///
    /// Those of [`take_less`](Self::take_less).
    pub fn take_more(&mut self, matched: &Matched) -> Result<(), LoadError> {
        matched.validate()?;
        self.change(&self.tables.held.more(matched))
    }

    /// Makes all the steps; where one fails, those before it are undone.
    fn change(&mut self, steps: &[Step]) -> Result<(), LoadError> {
        for (count, step) in steps.iter().enumerate() {
            if let Err(error) = self.make(*step) {
                for step in steps.iter().take(count).rev() {
                    // What is undone was so before. Should even that fail, the first error tells of it.
                    drop(self.make(step.undone()));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn make(&mut self, step: Step) -> Result<(), LoadError> {
        if let Step::MatchAddresses(is_matched) = step {
            let config = KernelConfig { match_addresses: u32::from(is_matched), ..self.config };
            write_config(&mut self.config_map, &config).map_err(fill(map::CONFIG))?;
            self.config = config;
        }
        self.tables.apply(step)
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
    map: &mut Array<MapData, [u32; KernelConfig::WORDS]>,
    config: &KernelConfig,
) -> Result<(), MapError> {
    map.set(0, config.to_words(), 0)
}

fn fill_tunnel_ports(mut map: Array<MapData, u64>, rules: &KernelRules) -> Result<(), LoadError> {
    for (index, word) in tunnel_port_words(rules) {
        map.set(index, word, 0).map_err(fill(map::TUNNEL_PORTS))?;
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

pub(super) fn fill(map: &'static str) -> impl Fn(MapError) -> LoadError {
    move |error| LoadError::Fill { map, source: Box::new(error) }
}
