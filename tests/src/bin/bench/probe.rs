//! Enters: the id of a process. Leaves: what the kernel knows of its cost.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time of all threads.
    pub(crate) cpu: Duration,
    /// Of these, the threads that capture.
    pub(crate) capture_cpu: Duration,
    /// How often a thread went to sleep, and so was woken.
    pub(crate) sleeps: u64,
}

impl Usage {
    /// Of a process, to the nanosecond: `schedstat` is exact where `stat` counts ticks. Threads that have ended are not
    /// in it; the agent's only short-lived ones resolve names.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let mut usage = Self::default();
        for thread in fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")? {
            let path = thread?.path();
            let read = |file: &str| fs::read_to_string(path.join(file));
            // A thread may end between the listing and the reading.
            let (Ok(name), Ok(times), Ok(status)) = (read("comm"), read("schedstat"), read("status")) else {
                continue;
            };
            let nanos = times.split_ascii_whitespace().next().and_then(|field| field.parse().ok());
            let cpu = Duration::from_nanos(nanos.context("schedstat has no figure")?);
            usage.cpu += cpu;
            if name.starts_with("capture") {
                usage.capture_cpu += cpu;
            }
            let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            usage.sleeps += sleeps.and_then(|figure| figure.trim().parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(usage)
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            capture_cpu: self.capture_cpu + other.capture_cpu,
            sleeps: self.sleeps + other.sleeps,
        }
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            capture_cpu: self.capture_cpu.saturating_sub(earlier.capture_cpu),
            sleeps: self.sleeps.saturating_sub(earlier.sleeps),
        }
    }
}

/// What the kernel programs that a process holds have cost so far; nothing unless statistics are on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProgramCost {
    pub(crate) nanos: u64,
    pub(crate) runs: u64,
}

impl ProgramCost {
    /// Read from the process's own descriptors, so that programs of others never count.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let mut programs = BTreeMap::new();
        for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("the process has ended")? {
            let Ok(text) = fs::read_to_string(descriptor?.path()) else { continue };
            let figure = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
                line.trim().parse::<u64>().ok()
            };
            if let (Some(id), Some(nanos), Some(runs)) =
                (figure("prog_id"), figure("run_time_ns"), figure("run_cnt"))
            {
                programs.insert(id, Self { nanos, runs });
            }
        }
        let sum = |sum: Self, one: &Self| Self { nanos: sum.nanos + one.nanos, runs: sum.runs + one.runs };
        Ok(programs.values().fold(Self::default(), sum))
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { nanos: self.nanos.saturating_sub(earlier.nanos), runs: self.runs.saturating_sub(earlier.runs) }
    }
}

/// The time of all processors so far, in ticks of the kernel's accounting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processors {
    all: u64,
    busy: u64,
    /// What this process and those below it have used.
    own: u64,
}

impl Processors {
    pub(crate) fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        // Guests are in user time already: the first eight fields are all there is.
        let fields =
            line.split_ascii_whitespace().skip(1).take(8).map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let all = fields.iter().sum::<u64>();
        let idle = fields.iter().skip(3).take(2).sum::<u64>();

        let processes = fs::read_dir("/proc")?.flatten().filter_map(|entry| {
            let pid = entry.file_name().to_string_lossy().parse::<u32>().ok()?;
            let text = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name in brackets may hold anything. Behind it: state, parent, and from the twelfth field on user and
            // system time, own and of children that were waited for.
            let fields = text.rsplit(')').next()?.split_ascii_whitespace().collect::<Vec<_>>();
            let parent = fields.get(1)?.parse::<u32>().ok()?;
            let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
            Some((pid, (parent, ticks)))
        });
        let processes = processes.collect::<BTreeMap<_, _>>();
        let own_id = std::process::id();
        let is_own = |pid: u32| {
            let mut pid = pid;
            // A chain of parents is short; the limit ends one that changes while it is followed.
            for _ in 0..16 {
                if pid == own_id {
                    return true;
                }
                match processes.get(&pid) {
                    Some((parent, _)) => pid = *parent,
                    None => return false,
                }
            }
            false
        };
        let own = processes.iter().filter(|(pid, _)| is_own(**pid)).map(|(_, (_, ticks))| ticks).sum();
        Ok(Self { all, busy: all.saturating_sub(idle), own })
    }

    /// The share of the processors that others have used since `earlier`, in percent.
    pub(crate) fn foreign_since(self, earlier: Self) -> f64 {
        let since = |figure: fn(&Self) -> u64| figure(&self).saturating_sub(figure(&earlier));
        let foreign = since(|one| one.busy).saturating_sub(since(|one| one.own));
        100.0 * foreign as f64 / since(|one| one.all).max(1) as f64
    }
}

/// Allows all threads of a process, and those that they start, one processor.
pub(crate) fn pin(pid: u32, processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let id = thread?.file_name().to_string_lossy().parse()?;
        sched_setaffinity(Pid::from_raw(id), &set).context("pin a thread")?;
    }
    Ok(())
}

/// Watches the memory of processes from a thread of its own.
pub(crate) struct MemoryWatch {
    pids: Vec<u32>,
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How often memory is read: the kernel walks all pages of the process for it.
const MEMORY_INTERVAL: Duration = Duration::from_millis(200);

impl MemoryWatch {
    /// Of these processes together.
    pub(crate) fn start(pids: Vec<u32>) -> Self {
        let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (theirs, until) = (Arc::clone(&peak), Arc::clone(&stop));
        let watched = pids.clone();
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                theirs.fetch_max(all_pss(&watched), Ordering::Relaxed);
                thread::sleep(MEMORY_INTERVAL);
            }
        });
        Self { pids, peak, stop, thread: Some(thread) }
    }

    /// The most that was seen so far or is used at this moment, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed).max(all_pss(&self.pids))
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Proportional set sizes of those that run, together, in bytes. It keeps a processor busy for some 1.4 ms for each process
/// of 30 MiB: where latencies are taken, that is seen.
pub(crate) fn all_pss(pids: &[u32]) -> u64 {
    pids.iter().filter_map(|pid| pss(*pid)).sum()
}

/// Proportional set size in bytes.
fn pss(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// Counts the system calls of a process by `perf`, where it is installed and may.
pub(crate) struct CallCount(Child);

impl CallCount {
    /// Counts for so long.
    pub(crate) fn start(pid: u32, duration: Duration) -> Option<Self> {
        let mut command = Command::new("perf");
        command.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string(), "--"]);
        command.args(["sleep", &duration.as_secs_f64().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().ok().map(Self)
    }

    /// The count, when the time is over; `None` where it could not be had.
    pub(crate) fn finish(self) -> Option<u64> {
        let output = self.0.wait_with_output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.lines().find(|line| line.contains("raw_syscalls"))?.split(',').next()?.parse().ok()
    }
}

/// The value that `share` of the observations of a histogram do not exceed that were made from one text of `/metrics` to the
/// next, in seconds; linear within a bucket. `None` where nothing was observed.
pub(crate) fn quantile(before: &str, after: &str, name: &str, share: f64) -> Option<f64> {
    let before = buckets(before, name);
    let buckets = buckets(after, name).into_iter().enumerate();
    let buckets =
        buckets.map(|(at, (bound, count))| (bound, count - before.get(at).map_or(0.0, |one| one.1)));
    let buckets = buckets.collect::<Vec<_>>();
    let total = buckets.last()?.1;
    if total == 0.0 {
        return None;
    }
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if count >= share * total {
            let part = (share * total - below) / (count - below).max(1.0);
            return Some(if bound.is_finite() { lower + (bound - lower) * part } else { lower });
        }
        (lower, below) = (bound, count);
    }
    None
}

/// The buckets of a histogram: each its bound, and how many observations do not exceed it.
fn buckets(metrics: &str, name: &str) -> Vec<(f64, f64)> {
    let prefix = format!("{name}_bucket{{");
    let buckets = metrics.lines().filter_map(|line| {
        let (labels, rest) = line.strip_prefix(&prefix)?.split_once('}')?;
        let bound = labels.split(',').find_map(|label| label.strip_prefix("le=\"")?.strip_suffix('"'))?;
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
        Some((bound, rest.split_ascii_whitespace().next()?.parse::<f64>().ok()?))
    });
    buckets.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_linear_within_their_bucket() {
        let metrics = "lag_bucket{le=\"0.001\"} 50\nlag_bucket{le=\"0.003\",target=\"shadow\"} 100\nlag_bucket{le=\"+Inf\"} 100\n";
        let of_all = |share| quantile("", metrics, "lag", share);
        assert_eq!((of_all(0.5), of_all(0.75)), (Some(0.001), Some(0.002)));
        assert_eq!(quantile("", "lag_bucket{le=\"+Inf\"} 0\n", "lag", 0.5), None);
        assert_eq!(quantile("", metrics, "other", 0.5), None);
    }

    #[test]
    fn what_was_observed_before_is_left_out_of_quantiles() {
        let text = |[fast, all]: [u32; 2]| {
            format!(
                "lag_bucket{{le=\"0.001\"}} {fast}\nlag_bucket{{le=\"0.003\"}} {all}\nlag_bucket{{le=\"+Inf\"}} {all}\n"
            )
        };
        let since = |before| quantile(&text(before), &text([60, 100]), "lag", 0.5);
        assert_eq!(since([0, 40]), Some(0.0005));
        assert_eq!(since([60, 80]), Some(0.002));
        assert_eq!(since([60, 100]), None);
    }

    #[test]
    fn own_work_is_not_foreign() {
        let before = Processors { all: 1_000, busy: 500, own: 100 };
        let after = Processors { all: 2_000, busy: 900, own: 300 };
        assert_eq!(after.foreign_since(before), 20.0);
    }
}
