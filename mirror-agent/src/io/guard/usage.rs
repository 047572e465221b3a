//! Enters: what the kernel says of this process and of the node. Leaves: how much it uses of what it was given.

use std::{fs, num::NonZero, path::Path, thread, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use crate::io::{
    config::GuardConfig,
    guard::group::{Groups, Memory},
};

/// The part of what was given that the agent may use while the node's processors are all busy. What it takes then, live
/// lacks; so does live what the agent is not charged for: the kernel program, and much of what sending a copy costs.
const ALLOWED_WHEN_BUSY: f64 = 0.3;

/// The share of idle time of the node's processors from which on the agent may use all that it was given.
const IDLE_ENOUGH: f64 = 0.2;

/// Measures the use of processors and memory.
#[derive(Debug)]
pub(super) struct Meter {
    config: GuardConfig,
    groups: Groups,
    /// When it last measured, and what it found.
    last: Option<(Duration, Times)>,
}

/// Time of processors so far.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// What this process has used.
    own: Duration,
    /// Of all of the node; `None` where it cannot be read.
    node: Option<NodeTime>,
}

/// Time of all processors of the node, in ticks of the kernel's accounting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct NodeTime {
    all: u64,
    /// What nobody used.
    idle: u64,
}

/// Use of what was given, 1 being all of it; `None` where it is not guarded, or not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Use {
    pub(super) cpu: Option<f64>,
    pub(super) memory: Option<f64>,
}

impl Meter {
    /// A meter of what `config` gives.
    pub(super) fn new(config: GuardConfig) -> Self {
        let read = |path: &str| read(Path::new(path)).unwrap_or_default();
        let groups = Groups::find(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        Self { config, groups, last: None }
    }

    /// Measures; the use of processors since the last time, as a ratio of what may be used while the node is as busy as it
    /// was.
    pub(super) fn measure(&mut self, now: Duration) -> Use {
        let Some(share) = self.config.cpu else { return Use { cpu: None, memory: self.memory_use() } };
        let times = Times {
            own: processor_time(),
            node: read(Path::new("/proc/stat")).and_then(|text| NodeTime::parse(&text)),
        };
        let cpu = self.last.replace((now, times)).map(|(then, before)| {
            let passed = now.saturating_sub(then).as_secs_f64();
            let processors = times.own.saturating_sub(before.own).as_secs_f64() / passed;
            let idle = times.node.zip(before.node).and_then(|(now, before)| now.idle_since(before));
            processors / (share * self.processors() * idle.map_or(1.0, allowed))
        });
        Use { cpu, memory: self.memory_use() }
    }

    /// The use of memory at this moment.
    pub(super) fn memory_use(&self) -> Option<f64> {
        let share = self.config.memory?;
        let Memory { used, given } = self.memory()?;
        Some(used as f64 / (share * given as f64))
    }

    /// The processors that this process has; a limit can change while it runs.
    pub(super) fn processors(&self) -> f64 {
        self.groups.processors(&read).unwrap_or_else(|| {
            let count = thread::available_parallelism().map_or(1, NonZero::get);
            u32::try_from(count).map_or(1.0, f64::from)
        })
    }

    /// The memory that this process has, and what is used of it: by its control group where that has a limit, since that
    /// is what the kernel ends it for; else by itself of the node's.
    pub(super) fn memory(&self) -> Option<Memory> {
        let node = kibibytes(&read(Path::new("/proc/meminfo"))?, "MemTotal:")?;
        self.groups.memory(node, &read).or_else(|| {
            let used = kibibytes(&read(Path::new("/proc/self/status"))?, "VmRSS:")?;
            Some(Memory { used, given: node })
        })
    }
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The part of what was given that may be used where this share of the node's processor time is idle.
fn allowed(idle: f64) -> f64 {
    ALLOWED_WHEN_BUSY + (1.0 - ALLOWED_WHEN_BUSY) * (idle / IDLE_ENOUGH).clamp(0.0, 1.0)
}

impl NodeTime {
    /// Reads the first line of `/proc/stat`: user, nice, system, idle, waiting for devices, interrupts, soft interrupts, and
    /// stolen time. What guests have used is in user time already.
    fn parse(stat: &str) -> Option<Self> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().take(8);
        let fields = fields.map(|field| field.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let sum = |fields: &[u64]| fields.iter().fold(0, |sum: u64, ticks| sum.saturating_add(*ticks));
        Some(Self { all: sum(&fields), idle: sum(fields.get(3..5)?) })
    }

    /// The share of the time since `earlier` in which processors had nothing to do; `None` where no time has passed.
    fn idle_since(self, earlier: Self) -> Option<f64> {
        let (all, idle) = (self.all.saturating_sub(earlier.all), self.idle.saturating_sub(earlier.idle));
        (all > 0).then(|| idle as f64 / all as f64)
    }
}

/// Processor time of all threads of this process.
fn processor_time() -> Duration {
    // Neither can be negative.
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// The value of a line such as `MemTotal:  16384 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_of_this_process_are_measured() {
        let mut meter = Meter::new(GuardConfig { cpu: Some(0.5), memory: Some(0.5) });
        let Use { cpu, memory } = meter.measure(Duration::ZERO);
        assert_eq!(cpu, None, "there is nothing to compare with");
        assert!(memory.is_some_and(|memory| memory > 0.0), "{memory:?}");
        let before = processor_time();
        while processor_time() < before + Duration::from_millis(20) {}
        let Use { cpu, .. } = meter.measure(Duration::from_millis(100));
        // A fifth of a processor, of half of all or less; other tests of this process may work as well.
        assert!(cpu.is_some_and(|cpu| cpu >= 0.4 / meter.processors()), "{cpu:?}");
    }

    #[test]
    fn what_is_not_guarded_is_not_measured() {
        let mut meter = Meter::new(GuardConfig::default());
        meter.measure(Duration::ZERO);
        assert_eq!(meter.measure(Duration::from_secs(1)), Use::default());
    }

    #[test]
    fn less_is_allowed_while_the_node_is_busy() {
        let at = |text: &str| NodeTime::parse(text).unwrap();
        let before = at("cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 2 3\n");
        assert_eq!(before, NodeTime { all: 1_000, idle: 800 });
        let cases = [
            ("cpu  200 0 100 700 100 0 0 0 150 0\n", 0.3),
            ("cpu  180 0 100 710 110 0 0 0 50 0\n", 1.0),
            ("cpu  100 40 100 705 105 20 10 20 50 0\n", 0.65),
            ("cpu  100 0 100 800 100 0 0 0 50 0\n", 1.0),
        ];
        for (text, expected) in cases {
            let found = allowed(at(text).idle_since(before).unwrap());
            assert!((found - expected).abs() < 1e-9, "{text}: {found}");
        }
        assert_eq!(before.idle_since(before), None);
        assert_eq!(NodeTime::parse("cpu0 1 2 3 4 5\n"), None);
        assert_eq!(NodeTime::parse("cpu  1 2\n"), None);
    }

    #[test]
    fn line_of_the_kernel_is_read_as_bytes() {
        let text = "MemTotalX: 9 kB\nMemTotal:       16384 kB\nMemFree: 1 kB\n";
        assert_eq!(kibibytes(text, "MemTotal:"), Some(16 << 20));
        assert_eq!(kibibytes(text, "VmRSS:"), None);
    }
}
