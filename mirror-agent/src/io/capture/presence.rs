//! Enters: the interfaces of this network namespace. Leaves: this agent known to others there, and what killed agents
//! left removed.

use std::{error::Error, io};

use aya::programs::{
    Link as _, ProgramError,
    tc::{SchedClassifierLink, TcError, TcHandle},
};
use tracing::{debug, info, warn};

use crate::io::capture::{
    attach::{attach_type, is_gone},
    filters::{self, Filter},
    links::Link,
    lock::Instance,
    netlink::NetlinkError,
    role::Hook,
};

/// This agent's presence in its network namespace: which filters are its own.
#[derive(Debug)]
pub(super) struct Presence {
    instance: Instance,
}

impl Presence {
    /// Makes the agent known, and removes what killed agents left.
    pub(super) fn establish(links: &[Link]) -> io::Result<Self> {
        let instance = Instance::register()?;
        if let Err(error) = remove_stale(links) {
            warn!(error = &error as &dyn Error, "Could not look for filters of killed agents.");
        }
        Ok(Self { instance })
    }

    /// The handle of this agent's filters.
    pub(super) const fn number(&self) -> u32 {
        self.instance.number()
    }
}

/// Removes the clsact filters of agents that are no more, from all interfaces. One that cannot be removed is said and
/// left: it costs time, not correctness.
fn remove_stale(links: &[Link]) -> Result<(), NetlinkError> {
    let qdiscs = filters::qdiscs()?;
    for link in links.iter().filter(|link| qdiscs.contains_key(&link.index)) {
        for hook in Hook::ALL {
            for filter in filters::filters(link.index, hook)?.iter().filter(|filter| filter.is_mirror()) {
                // Agents of other names may run beside this one.
                match Instance::is_alive(filter.handle) {
                    Ok(true) => {}
                    Ok(false) => remove(&link.name, hook, filter),
                    Err(error) => warn!(%error, "Could not tell whether a filter's agent is alive."),
                }
            }
        }
    }
    Ok(())
}

fn remove(interface: &str, hook: Hook, filter: &Filter) {
    let handle = TcHandle::from(filter.handle);
    let removed = SchedClassifierLink::attached(interface, attach_type(hook), filter.priority, handle, None)
        .map_err(|error| ProgramError::from(TcError::from(error)))
        .and_then(SchedClassifierLink::detach);
    let hook = hook.as_str();
    match removed {
        Ok(()) => info!(interface, hook, "Removed the filter of a killed agent."),
        Err(error) if is_gone(&error) => {
            debug!(interface, hook, "The filter of a killed agent was gone already.")
        }
        Err(error) => {
            warn!(
                interface,
                hook,
                error = &error as &dyn Error,
                "Could not remove the filter of a killed agent."
            );
        }
    }
}
