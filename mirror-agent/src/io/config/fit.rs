//! Enters: a configuration. Leaves: which of its values do not fit together.

use mirror_common::maps::MAX_OWN_SOCKETS;

use super::{Config, TargetConfig};

/// A value by which a misfit is known to the user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Key {
    /// Capture threads.
    Threads,
    /// Memory of the agent.
    Memory,
    /// Memory of waiting copies.
    QueueMemory,
    /// Largest body.
    MaxBody,
    /// Size of a ring.
    RingSize,
    /// Copies in flight.
    MaxInFlight,
    /// Ports of VXLAN.
    VxlanPorts,
    /// Ports of Geneve.
    GenevePorts,
}

impl Key {
    /// The flag of `run`.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Threads => "--capture-threads",
            Self::Memory => "--memory",
            Self::QueueMemory => "--queue-bytes",
            Self::MaxBody => "--max-body",
            Self::RingSize => "--ring-size",
            Self::MaxInFlight => "--max-in-flight",
            Self::VxlanPorts => "--vxlan-port",
            Self::GenevePorts => "--geneve-port",
        }
    }

    /// The keys in a file that lead to it, or to all of its kind.
    #[must_use]
    pub const fn in_file(self) -> &'static str {
        match self {
            Self::Threads => "capture.threads",
            Self::Memory => "capture.memoryLimit",
            Self::QueueMemory => "capture.queueMemory",
            Self::MaxBody => "capture.maxBody",
            Self::RingSize => "capture.ringSize",
            Self::MaxInFlight => "experiments",
            Self::VxlanPorts => "capture.vxlanPorts",
            Self::GenevePorts => "capture.genevePorts",
        }
    }
}

/// The least memory that a pipeline is worth starting with, in bytes.
const MIN_PIPELINE_BYTES: u64 = 8 * 1024 * 1024;

/// Sizes that the kernel takes for a ring, in bytes; both inclusive.
const RING_BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;

impl Config {
    /// What does not fit together: each by the value that is best changed, with what is wrong.
    #[must_use]
    pub fn misfits(&self) -> Vec<(Key, String)> {
        let capture = &self.capture;
        let mut found = Vec::new();
        if !matches!(capture.threads, 1 | 2 | 4 | 8) {
            let threads = capture.threads;
            found.push((
                Key::Threads,
                format!("{threads}: take 1, 2, 4 or 8, so that flows can be spread by their hash"),
            ));
        }
        let for_target = self.queue_bytes_of_target();
        if capture.max_body > for_target {
            let max_body = capture.max_body;
            let message = format!(
                "{max_body} bytes are more than the {for_target} that may wait for a target: such a request could never \
                 be queued"
            );
            found.push((Key::MaxBody, message));
        }
        let threads = u64::try_from(capture.threads).unwrap_or(u64::MAX);
        let needed = capture.queue_bytes.saturating_add(threads.saturating_mul(MIN_PIPELINE_BYTES));
        if capture.memory < needed {
            let message = format!(
                "{} bytes are too few: {} for waiting copies and {MIN_PIPELINE_BYTES} for each of {threads} capture \
                 threads make {needed}",
                capture.memory, capture.queue_bytes
            );
            found.push((Key::Memory, message));
        }
        if !capture.ring_size.is_power_of_two() || !RING_BYTES.contains(&capture.ring_size) {
            let message = format!("{}: take a power of two from 4 KiB to 1 GiB", capture.ring_size);
            found.push((Key::RingSize, message));
        }
        let of_target =
            |target: &TargetConfig| u64::try_from(target.limits.max_in_flight).unwrap_or(u64::MAX);
        let targets = self.experiments.iter().flat_map(|experiment| &experiment.targets);
        let connections = targets.map(of_target).fold(0, u64::saturating_add);
        if connections > u64::from(MAX_OWN_SOCKETS) {
            let message = format!(
                "the copies in flight of all targets together make {connections}; at most {MAX_OWN_SOCKETS} connections \
                 can be told from live ones: lower maxInFlight"
            );
            found.push((Key::MaxInFlight, message));
        }
        for (key, ports) in
            [(Key::VxlanPorts, &capture.vxlan_ports), (Key::GenevePorts, &capture.geneve_ports)]
        {
            if ports.contains(&0) && ports.len() > 1 {
                found.push((key, "0 stands alone, it switches the tunnel off".to_owned()));
            }
        }
        found
    }

    /// Bytes of copies that may wait for one target: all have the same, so that the trouble of one is not felt by
    /// another.
    #[must_use]
    pub fn queue_bytes_of_target(&self) -> u64 {
        self.capture.queue_bytes / u64::try_from(self.targets().max(1)).unwrap_or(u64::MAX)
    }
}

/// Bytes of requests that may wait or be in the middle of being written, where nothing is said.
#[must_use]
pub fn default_queue_bytes(memory: u64) -> u64 {
    DEFAULT_QUEUE_BYTES.min(memory / 2)
}

/// Largest request body in bytes, where nothing is said.
#[must_use]
pub fn default_max_body(queue_bytes: u64, targets: usize) -> u64 {
    let for_target = queue_bytes / u64::try_from(targets.max(1)).unwrap_or(u64::MAX);
    DEFAULT_BODY_BYTES.min(for_target / 2)
}

const DEFAULT_QUEUE_BYTES: u64 = 32 * 1024 * 1024;
const DEFAULT_BODY_BYTES: u64 = 16 * 1024 * 1024;
