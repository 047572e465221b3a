//! Enters: a target as configured. Leaves: how the heads of its copies are made.

use super::{HostPolicy, TargetConfig};
use crate::pipeline::rewrite::{Rewrite, RewriteError, Rules, TraceFlags};

impl TargetConfig {
    /// Checks what is to be changed of each copy, and makes it ready to be applied. `experiment` is the name of the
    /// experiment that the target belongs to.
    ///
    /// # Errors
    ///
    /// A name or a value that must not stand in a head; see [`RewriteError`].
    pub fn rewrite(&self, experiment: &str) -> Result<Rewrite, RewriteError> {
        let host = match &self.host {
            HostPolicy::Preserve => None,
            HostPolicy::Target => Some(self.url.authority()),
            HostPolicy::Literal(host) => Some(host.clone()),
        };
        Rewrite::new(&Rules {
            experiment,
            replace_prefix: &self.replace_prefix,
            remove_query: &self.query.remove,
            set_query: &self.query.set,
            host: host.as_deref(),
            remove_headers: &self.headers.remove,
            set_headers: &self.headers.set,
            add_headers: &self.headers.add,
            trace: if self.trace_sampled { TraceFlags::Keep } else { TraceFlags::Clear },
        })
    }
}
