//! Enters: the configuration. Leaves: what the parts of the agent take of it.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};

use super::OWN_MARK;
use crate::{
    io::{
        capture::{AttachMode, KernelRules, links},
        cli::Attach,
        config::{CaptureConfig, Config},
        replay::Captured,
        steering::Reader,
    },
    pipeline::Limits,
};

/// How often the kernel wakes a sleeping capture thread at most, per processor. A wake-up costs ten times the copy of
/// a small packet; a longer pause only adds to the lag.
const WAKE_INTERVAL: Duration = Duration::from_millis(1);

/// The least memory that a pipeline is worth starting with, in bytes.
const MIN_PIPELINE_BYTES: u64 = 8 * 1024 * 1024;

/// The bounds of each pipeline. The memory covers the copies that wait as well; the pipelines share the rest.
pub(super) fn limits(config: &Config) -> Result<Limits> {
    let CaptureConfig { memory, queue_bytes, max_body, threads, .. } = config.capture;
    let threads = u64::try_from(threads)?;
    ensure!(
        matches!(threads, 1 | 2 | 4 | 8),
        "--capture-threads {threads}: take 1, 2, 4 or 8, so that flows can be spread by their hash"
    );
    let for_target = queue_bytes_of_target(config);
    ensure!(
        max_body <= for_target,
        "--max-body {max_body} is more than the {for_target} bytes of --queue-bytes for a target: such a request \
         could never be queued"
    );
    let needed = queue_bytes.saturating_add(threads.saturating_mul(MIN_PIPELINE_BYTES));
    ensure!(
        memory >= needed,
        "--memory {memory} is too small: --queue-bytes {queue_bytes} and {MIN_PIPELINE_BYTES} for each of {threads} \
         capture threads make {needed}",
    );
    let memory_bytes = to_usize((memory - queue_bytes) / threads);
    Ok(Limits { memory_bytes, body_bytes: to_usize(max_body), ..Limits::default() })
}

/// Bytes of copies that may wait for one target: all have the same, so that the trouble of one is not felt by another.
fn queue_bytes_of_target(config: &Config) -> u64 {
    config.capture.queue_bytes / u64::try_from(config.targets().max(1)).unwrap_or(u64::MAX)
}

pub(super) fn rules(config: &Config) -> Result<KernelRules> {
    let capture = &config.capture;
    let Ok(ring_bytes) = u32::try_from(capture.ring_size) else {
        bail!("--ring-size {}: take at most 1 GiB", capture.ring_size);
    };
    Ok(KernelRules {
        ports: config.ports(),
        addresses: config.addresses(),
        vxlan_ports: tunnel_ports("--vxlan-port", &capture.vxlan_ports)?,
        geneve_ports: tunnel_ports("--geneve-port", &capture.geneve_ports)?,
        ring_bytes,
        rings: u32::try_from(capture.threads)?,
        own_mark: OWN_MARK,
        copies_responses: false,
        wake_interval_ns: u32::try_from(WAKE_INTERVAL.as_nanos())?,
    })
}

/// How configurations are read and judged.
pub(super) const READER: Reader = Reader {
    parse: |_, name| Err(format!("{name}: a configuration file cannot be read yet").into()),
    judge: |config| {
        limits(config)?;
        Ok(())
    },
    captured: |config| Ok(captured(config)?),
    now: SystemTime::now,
};

/// What is captured of this host, which must not receive copies.
fn captured(config: &Config) -> Result<Captured> {
    Ok(Captured {
        ports: config.ports(),
        local: links::local_addresses().context("list the addresses of this host")?.iter().collect(),
        networks: config.addresses(),
    })
}

/// The ports that `option` names, where 0 stands for none.
fn tunnel_ports(option: &str, ports: &[u16]) -> Result<Vec<u16>> {
    ensure!(!ports.contains(&0) || ports.len() == 1, "{option}: 0 stands alone, it switches the tunnel off");
    Ok(ports.iter().copied().filter(|port| *port != 0).collect())
}

pub(super) const fn attach_mode(attach: Attach) -> AttachMode {
    match attach {
        Attach::Auto => AttachMode::Auto,
        Attach::Tcx => AttachMode::Tcx,
        Attach::Clsact => AttachMode::Clsact,
    }
}

/// Sizes are of this machine's memory, so they fit; on a 32-bit one the largest is taken.
pub(super) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
