//! Enters: the configuration. Leaves: what the parts of the agent take of it.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};

use super::OWN_MARK;
use crate::{
    io::{
        capture::{AttachMode, KernelRules, links},
        config::{self, Attach, CaptureConfig, Config},
        pods::check_pods,
        replay::Captured,
        steering::Reader,
    },
    pipeline::Limits,
};

/// How often the kernel wakes a sleeping capture thread at most, per processor. A wake-up costs ten times the copy of
/// a small packet; a longer pause only adds to the lag.
const WAKE_INTERVAL: Duration = Duration::from_millis(1);

/// The bounds of each pipeline. The memory covers the copies that wait as well; the pipelines share the rest.
pub(super) fn limits(config: &Config) -> Result<Limits> {
    let CaptureConfig { memory, queue_bytes, max_body, threads, .. } = config.capture;
    let threads = u64::try_from(threads)?;
    let memory_bytes = to_usize(memory.saturating_sub(queue_bytes) / threads.max(1));
    Ok(Limits { memory_bytes, body_bytes: to_usize(max_body), ..Limits::default() })
}

pub(super) fn rules(config: &Config) -> Result<KernelRules> {
    let capture = &config.capture;
    let Ok(ring_bytes) = u32::try_from(capture.ring_size) else {
        bail!("--ring-size {}: take at most 1 GiB", capture.ring_size);
    };
    Ok(KernelRules {
        ports: config.ports(),
        addresses: config.addresses(),
        vxlan_ports: tunnel_ports(&capture.vxlan_ports),
        geneve_ports: tunnel_ports(&capture.geneve_ports),
        ring_bytes,
        rings: u32::try_from(capture.threads)?,
        own_mark: OWN_MARK,
        wake_interval_ns: u32::try_from(WAKE_INTERVAL.as_nanos())?,
    })
}

/// How configurations are read and judged.
pub(super) const READER: Reader = Reader {
    // Of an experiment that has expired meanwhile nothing needs to be said.
    parse: |text, name| Ok(config::parse(text, name, None)?),
    judge: |config| match config.misfits().first() {
        Some((key, misfit)) => Err(format!("{}: {misfit}", key.in_file()).into()),
        None => Ok(check_pods(config)?),
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
        listeners: [
            Some(config.capture.metrics_listen),
            config.control.listen,
            config.control.fleet.as_ref().and_then(|fleet| fleet.listen),
        ]
        .into_iter()
        .flatten()
        .collect(),
    })
}

/// The ports of a tunnel, where 0 stands for none.
fn tunnel_ports(ports: &[u16]) -> Vec<u16> {
    ports.iter().copied().filter(|port| *port != 0).collect()
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
