//! Enters: what rules ask for. Leaves: clues by which a request finds the rules that it may fit.

use super::HostRule;

/// One thing that a request has, and that a rule asks for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Clue {
    /// Its path begins with this.
    Path(Box<[u8]>),
    /// Its host, as [`backwards`] has it, begins with this.
    Host(Box<[u8]>),
    /// Its header field at this place of [`Wanted::fields`](super::asked::Wanted::fields) has this value, or any.
    Field(usize, Option<Box<[u8]>>),
    /// Its query parameter at this place of [`Wanted::params`](super::asked::Wanted::params) has this value, or any.
    Param(usize, Option<Box<[u8]>>),
}

/// Most bytes of a host that are a clue: no name has more (RFC 1035 section 2.3.4).
pub(super) const HOST_BYTES: usize = 255;

impl Clue {
    /// The clue to a host; `None` where it is too long to be one.
    pub(super) fn of_host(host: &HostRule) -> Option<Self> {
        let ending = host.ending();
        (ending.len() <= HOST_BYTES).then(|| Self::Host(backwards(ending, &mut [0; HOST_BYTES]).into()))
    }
}

/// A host from its end on, in lower case, as far as it fits into `room`.
pub(super) fn backwards<'r>(host: &[u8], room: &'r mut [u8; HOST_BYTES]) -> &'r [u8] {
    for (to, from) in room.iter_mut().zip(host.iter().rev()) {
        *to = from.to_ascii_lowercase();
    }
    room.get(..host.len()).unwrap_or(room)
}
