//! Enters: what the kernel says of this process. Leaves: how much it uses of what it was given.

use std::{fs, num::NonZero, path::Path, thread, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use crate::io::{
    config::GuardConfig,
    guard::group::{Groups, Memory},
};

/// Measures the use of processors and memory.
#[derive(Debug)]
pub(super) struct Meter {
    config: GuardConfig,
    groups: Groups,
    /// When it last measured, and how much processor time the process had used by then.
    last: Option<(Duration, Duration)>,
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

    /// Measures; the use of processors since the last time.
    pub(super) fn measure(&mut self, now: Duration) -> Use {
        let used = processor_time();
        let cpu = self.last.and_then(|(then, used_then)| {
            let passed = now.saturating_sub(then).as_secs_f64();
            let processors = used.saturating_sub(used_then).as_secs_f64() / passed;
            Some(processors / (self.config.cpu? * self.processors()))
        });
        self.last = Some((now, used));
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
        // A fifth of a processor, of half of all; other tests of this process may work as well.
        assert!(cpu.is_some_and(|cpu| cpu >= 0.4 / meter.processors()), "{cpu:?}");
    }

    #[test]
    fn what_is_not_guarded_is_not_measured() {
        let mut meter = Meter::new(GuardConfig::default());
        meter.measure(Duration::ZERO);
        assert_eq!(meter.measure(Duration::from_secs(1)), Use::default());
    }

    #[test]
    fn line_of_the_kernel_is_read_as_bytes() {
        let text = "MemTotalX: 9 kB\nMemTotal:       16384 kB\nMemFree: 1 kB\n";
        assert_eq!(kibibytes(text, "MemTotal:"), Some(16 << 20));
        assert_eq!(kibibytes(text, "VmRSS:"), None);
    }
}
