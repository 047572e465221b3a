//! Enters: two configurations. Leaves: the keys in which they differ and which are read at the start only.

use crate::io::config::Config;

/// The keys that would need a restart, as in the file.
pub(super) fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let (a, b) = (&old.capture, &new.capture);
    let keys = [
        ("capture.interfaces", a.interfaces != b.interfaces),
        ("capture.attach", a.attach != b.attach),
        ("capture.vxlanPorts", a.vxlan_ports != b.vxlan_ports),
        ("capture.genevePorts", a.geneve_ports != b.geneve_ports),
        ("capture.memoryLimit", a.memory != b.memory),
        ("capture.queueMemory", a.queue_bytes != b.queue_bytes),
        ("capture.ringSize", a.ring_size != b.ring_size),
        ("capture.threads", a.threads != b.threads),
        ("capture.metricsListen", a.metrics_listen != b.metrics_listen),
        ("guard", old.guard != new.guard),
        ("control", old.control != new.control),
        ("audit", old.audit != new.audit),
        ("agents", old.agents != new.agents),
        ("drainTimeout", old.drain_timeout != new.drain_timeout),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::experiments::config;

    #[test]
    fn what_is_read_at_the_start_only_is_named() {
        let old = config(&[("x", &["http://192.0.2.1"])]);
        let mut new = config(&[("y", &["http://192.0.2.2"])]);
        assert_eq!(needs_restart(&old, &new), Vec::<&str>::new());
        new.capture.threads = 2;
        new.agents = 3;
        assert_eq!(needs_restart(&old, &new), ["capture.threads", "agents"]);
    }
}
