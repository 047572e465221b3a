//! Enters: nothing. Leaves: which requests an experiment takes.

use std::net::{IpAddr, Ipv6Addr};

use super::{Methods, Rule, Sample, Share, asked::Wanted};
use crate::pipeline::Endpoint;

/// Tells experiments apart for as long as the agent runs, also after the configuration was loaded again.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExperimentId(pub u32);

/// Which requests one experiment takes.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its number.
    pub id: ExperimentId,
    /// Server ports that it is about; none for any.
    pub ports: Vec<u16>,
    /// Server addresses that it is about; none for any.
    pub addresses: Vec<Network>,
    /// The very servers that it is about, in ascending order; `None` where ports and addresses say it.
    pub servers: Option<Vec<Endpoint>>,
    /// A request is taken that fits any of these.
    pub matches: Vec<Rule>,
    /// But not one that fits any of these.
    pub excludes: Vec<Rule>,
    /// The share of those requests that is taken.
    pub sample: Sample,
    /// Whether it takes nothing for the time being.
    pub is_paused: bool,
    /// Whether live's answers to the requests that it takes are read.
    pub reads_answers: bool,
}

impl Experiment {
    /// Takes every request with one of these methods.
    #[must_use]
    pub fn of_methods(methods: Methods) -> Self {
        Self {
            id: ExperimentId::default(),
            ports: Vec::new(),
            addresses: Vec::new(),
            servers: None,
            matches: vec![Rule::of_methods(methods)],
            excludes: Vec::new(),
            sample: Sample::of_requests("", Share::ALL),
            is_paused: false,
            reads_answers: false,
        }
    }

    /// Whether its copies are a sample, or all of what it describes.
    #[must_use]
    pub fn how(&self) -> MatchedHow {
        if self.sample.share() == Share::ALL { MatchedHow::Targeted } else { MatchedHow::Sampled }
    }

    /// Finds the places of what its rules ask for.
    pub(super) fn bind(&mut self, wanted: &mut Wanted) {
        self.matches.iter_mut().chain(&mut self.excludes).for_each(|rule| rule.bind(wanted));
        self.sample.bind(wanted);
    }
}

impl Default for Experiment {
    /// Takes every request that changes nothing.
    fn default() -> Self {
        Self::of_methods(Methods::default())
    }
}

/// Whether the copies of an experiment are a sample.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MatchedHow {
    /// All requests that it describes are copied.
    Targeted,
    /// A share of them is.
    Sampled,
}

impl MatchedHow {
    /// As it stands in `x-mirror-match`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Targeted => "targeted",
            Self::Sampled => "sampled",
        }
    }
}

/// A range of addresses, IPv4 held v4-mapped as in [`Endpoint`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    pub(super) prefix: u128,
    pub(super) mask: u128,
}

impl Network {
    /// The addresses that begin with the first `prefix_len` bits of `addr`; more bits than it has count as all.
    #[must_use]
    pub fn new(addr: IpAddr, prefix_len: u8) -> Self {
        let (addr, prefix_len) = match addr {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped(), u32::from(prefix_len).saturating_add(96)),
            IpAddr::V6(v6) => (v6, u32::from(prefix_len)),
        };
        let mask = u128::MAX.checked_shl(u128::BITS.saturating_sub(prefix_len)).unwrap_or(0);
        Self { prefix: u128::from(addr) & mask, mask }
    }

    /// Whether `addr` is among them. As in the kernel's trie, `::/0` holds IPv4 addresses too.
    #[must_use]
    pub fn contains(self, addr: Ipv6Addr) -> bool {
        u128::from(addr) & self.mask == self.prefix
    }
}
