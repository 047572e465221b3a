//! Enters: nothing. Leaves: proof, seen by every process in this network namespace, that an agent is alive, and whose turn
//! it is.
//!
//! Abstract unix sockets are what proves it: their names are scoped to the network namespace, as filters and
//! interfaces are, and they vanish with the process, however it ends.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    str::FromStr,
};

/// What the names of all agents' sockets begin with; alone, the lock of those without a name.
const LOCK_NAME: &str = "mirror-agent";

/// How often a number is drawn for an instance before it is given up; the numbers have 31 bits.
const INSTANCE_ATTEMPTS: usize = 16;

/// How agents that run beside each other on purpose are told apart: 1 to 32 letters, digits or hyphens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentName(String);

/// Why a text names no agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected 1 to {MAX_NAME_LEN} letters, digits or hyphens")]
pub struct AgentNameError;

/// Characters of an agent's name.
const MAX_NAME_LEN: usize = 32;

impl FromStr for AgentName {
    type Err = AgentNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if text.is_empty() || text.len() > MAX_NAME_LEN || !text.bytes().all(is_fit) {
            return Err(AgentNameError);
        }
        Ok(Self(text.to_owned()))
    }
}

/// The right to capture in a network namespace: of agents of one name, one at a time has it. Dropping it lets the next one.
#[derive(Debug)]
pub struct NamespaceTurn {
    _socket: UnixDatagram,
}

impl NamespaceTurn {
    /// Takes it; `None` where another agent of this name has it, `name` being `None` for those without.
    ///
    /// # Errors
    ///
    /// The kernel's, where a socket cannot be bound.
    pub fn take(name: Option<&AgentName>) -> io::Result<Option<Self>> {
        let lock = match name {
            Some(AgentName(name)) => format!("{LOCK_NAME}:{name}"),
            None => LOCK_NAME.to_owned(),
        };
        Ok(bind(&lock)?.map(|socket| Self { _socket: socket }))
    }
}

/// This agent's number in its network namespace. It serves as handle of the agent's filters, so that anybody can tell
/// whether the agent that added a filter is still there.
#[derive(Debug)]
pub(super) struct Instance {
    number: u32,
    _socket: UnixDatagram,
}

impl Instance {
    /// Takes a number that no other agent in this namespace has.
    pub(super) fn register() -> io::Result<Self> {
        for _ in 0..INSTANCE_ATTEMPTS {
            // Random, since a process identifier is the same each time in a container, and would make the filters
            // of a killed agent look like those of its successor. A handle of zero means "choose one".
            let random = RandomState::new().build_hasher().finish();
            let number = u32::try_from(random >> 33).unwrap_or_default();
            if number != 0
                && let Some(socket) = bind(&instance_name(number))?
            {
                return Ok(Self { number, _socket: socket });
            }
        }
        Err(io::Error::from(io::ErrorKind::AddrInUse))
    }

    /// The number, which is never zero.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// Whether an agent with this number is alive in this namespace.
    pub(super) fn is_alive(number: u32) -> io::Result<bool> {
        Ok(bind(&instance_name(number))?.is_none())
    }
}

fn instance_name(number: u32) -> String {
    format!("{LOCK_NAME}/{number:08x}")
}

/// Binds the abstract name; `None` where it is taken.
fn bind(name: &str) -> io::Result<Option<UnixDatagram>> {
    let address = SocketAddr::from_abstract_name(name)?;
    match UnixDatagram::bind_addr(&address) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_of_a_name_has_its_turn_and_agents_of_other_names_have_theirs() {
        let name = |text: &str| text.parse::<AgentName>();
        let names = [format!("a-{}", std::process::id()), format!("b-{}", std::process::id())];
        let [first, other] = names.map(|text| name(&text).unwrap());
        let turn = NamespaceTurn::take(Some(&first)).unwrap().unwrap();
        assert!(NamespaceTurn::take(Some(&first)).unwrap().is_none());
        assert!(NamespaceTurn::take(Some(&other)).unwrap().is_some());
        drop(turn);
        crate::io::capture::tests::await_children();
        assert!(NamespaceTurn::take(Some(&first)).unwrap().is_some());
        for text in ["", "a b", "a/00000001", "é", &"x".repeat(33)] {
            assert_eq!(name(text), Err(AgentNameError), "{text}");
        }
    }

    #[test]
    fn an_instance_is_alive_until_it_is_dropped() {
        let first = Instance::register().unwrap();
        let second = Instance::register().unwrap();
        let number = first.number();
        assert_ne!(number, second.number());
        assert!(Instance::is_alive(number).unwrap());
        drop(first);
        crate::io::capture::tests::await_children();
        assert!(!Instance::is_alive(number).unwrap());
    }
}
