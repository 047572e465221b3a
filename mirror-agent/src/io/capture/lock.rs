//! Enters: nothing. Leaves: proof, seen by every process in this network namespace, that an agent is alive.
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
};

/// The name of the lock whose holder cleans up.
const LOCK_NAME: &str = "mirror-agent";

/// How often a number is drawn for an instance before it is given up; the numbers have 31 bits.
const INSTANCE_ATTEMPTS: usize = 16;

/// The lock of a network namespace: at most one agent in it holds one.
#[derive(Debug)]
pub(super) struct NamespaceLock {
    _socket: UnixDatagram,
}

impl NamespaceLock {
    /// Takes the lock; `None` where another agent holds it.
    pub(super) fn acquire() -> io::Result<Option<Self>> {
        Ok(bind(LOCK_NAME)?.map(|socket| Self { _socket: socket }))
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
