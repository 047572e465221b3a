//! Enters: `/proc/self/cgroup`, `/proc/self/mountinfo` and the files of control groups. Leaves: how many processors and
//! how much memory this process was given, and how much of the memory is used.

use std::path::{Path, PathBuf};

/// Reads a file; `None` where it is not there.
pub(super) type Read<'a> = &'a dyn Fn(&Path) -> Option<String>;

/// The control groups of this process that may limit it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Groups {
    cpu: Option<Group>,
    memory: Option<Group>,
}

/// A control group of this process, as it is seen from here.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Group {
    version: Version,
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    /// The group's directory, in there.
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Version {
    One,
    Two,
}

impl Groups {
    /// Finds the groups by the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
    pub(super) fn find(cgroup: &str, mountinfo: &str) -> Self {
        let find = |controller| {
            // Where both versions are mounted, a controller belongs to the first if that has it.
            Group::find(Version::One, controller, cgroup, mountinfo)
                .or_else(|| Group::find(Version::Two, controller, cgroup, mountinfo))
        };
        Self { cpu: find("cpu"), memory: find("memory") }
    }

    /// The processors that the tightest limit gives, fractions included; `None` where there is no limit.
    pub(super) fn processors(&self, read: Read<'_>) -> Option<f64> {
        let group = self.cpu.as_ref()?;
        let limit = |dir: &Path| {
            let (quota, period) = match group.version {
                Version::One => (read(&dir.join("cpu.cfs_quota_us"))?, read(&dir.join("cpu.cfs_period_us"))?),
                Version::Two => {
                    let text = read(&dir.join("cpu.max"))?;
                    let (quota, period) = text.trim().split_once(' ')?;
                    (quota.to_owned(), period.to_owned())
                }
            };
            // No limit is -1 or `max`, which is no number here.
            let (quota, period) = (quota.trim().parse::<u32>().ok()?, period.trim().parse::<u32>().ok()?);
            (period > 0).then(|| f64::from(quota) / f64::from(period))
        };
        group.levels().filter_map(limit).min_by(f64::total_cmp)
    }

    /// The memory that the tightest limit gives, and how much of it is used, in bytes; `None` where there is no limit,
    /// or none below `node`, the memory of the node.
    pub(super) fn memory(&self, node: u64, read: Read<'_>) -> Option<Memory> {
        let group = self.memory.as_ref()?;
        let (limit_file, used_file, cache) = match group.version {
            Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            Version::Two => ("memory.max", "memory.current", "inactive_file"),
        };
        let number = |path: PathBuf| read(&path)?.trim().parse::<u64>().ok();
        let limit = |dir: &Path| Some((number(dir.join(limit_file))?, dir.to_owned()));
        // No limit is `max`, or a number that no machine has.
        let (given, dir) = group.levels().filter_map(limit).filter(|(limit, _)| *limit < node).min()?;
        let used = number(dir.join(used_file))?;
        // What the kernel keeps of files and gives up first is not in anybody's way.
        let stat = read(&dir.join("memory.stat")).unwrap_or_default();
        let cached = stat.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == cache);
        let cached = cached.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0);
        Some(Memory { used: used.saturating_sub(cached), given })
    }
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Memory {
    /// How much is used.
    pub(super) used: u64,
    /// How much there is.
    pub(super) given: u64,
}

impl Group {
    fn find(version: Version, controller: &str, cgroup: &str, mountinfo: &str) -> Option<Self> {
        let has = |list: &str| list.split(',').any(|entry| entry == controller);
        // ID:CONTROLLERS:PATH; of version 2 the second is empty.
        let path = cgroup.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let is_it = if version == Version::Two { controllers.is_empty() } else { has(controllers) };
            is_it.then_some(path)
        })?;
        let (root, mount) = mountinfo.lines().find_map(|line| {
            // ID PARENT DEVICE ROOT MOUNT OPTIONS [FIELDS] - TYPE SOURCE SUPER-OPTIONS
            let (front, back) = line.split_once(" - ")?;
            let mut front = front.split(' ').skip(3);
            let mut back = back.split(' ');
            let is_it = match (version, back.next()?) {
                (Version::One, "cgroup") => back.nth(1).is_some_and(has),
                (Version::Two, "cgroup2") => true,
                _ => false,
            };
            if is_it { Some((front.next()?, front.next()?)) } else { None }
        })?;
        let mount = PathBuf::from(mount);
        // In a container the mount may show no more than the container's own group, by a path of the host's.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        let is_plain = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let dir = if is_plain { mount.join(below) } else { mount.clone() };
        Some(Self { version, mount, dir })
    }

    /// The group's directory, and those around it.
    fn levels(&self) -> impl Iterator<Item = &Path> {
        self.dir.ancestors().take_while(|dir| dir.starts_with(&self.mount))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: u64 = 16 << 30;
    const V2_HOST: &str = "24 1 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1_HOST: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:4 - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const V1_GROUPS: &str = "4:memory:/pods/a\n1:cpu,cpuacct:/pods/a\n0::/pods/a\n";

    fn files<'a>(files: &'a [(&str, &str)]) -> impl Fn(&Path) -> Option<String> + 'a {
        |path| {
            let path = path.strip_prefix("/sys/fs/cgroup").ok()?;
            let (_, text) = files.iter().find(|(name, _)| Path::new(name) == path)?;
            Some((*text).to_owned())
        }
    }

    #[test]
    fn limits_of_version_2_are_the_tightest_of_the_group_and_those_around_it() {
        let groups = Groups::find("0::/kubepods.slice/pod1/c1\n", V2_HOST);
        let read = files(&[
            ("kubepods.slice/pod1/c1/cpu.max", "max 100000\n"),
            ("kubepods.slice/pod1/cpu.max", "150000 100000\n"),
            ("kubepods.slice/cpu.max", "800000 100000\n"),
            ("kubepods.slice/pod1/c1/memory.max", "536870912\n"),
            ("kubepods.slice/pod1/c1/memory.current", "300000000\n"),
            ("kubepods.slice/pod1/c1/memory.stat", "anon 1\ninactive_file 100000000\nactive_file 5\n"),
            ("kubepods.slice/pod1/memory.max", "max\n"),
            ("kubepods.slice/memory.max", "1073741824\n"),
        ]);
        assert_eq!(groups.processors(&read), Some(1.5));
        assert_eq!(groups.memory(NODE, &read), Some(Memory { used: 200_000_000, given: 536_870_912 }));
    }

    #[test]
    fn limits_of_version_1_are_those_of_each_controllers_own_hierarchy() {
        let groups = Groups::find(V1_GROUPS, V1_HOST);
        let read = files(&[
            ("cpu,cpuacct/pods/a/cpu.cfs_quota_us", "20000\n"),
            ("cpu,cpuacct/pods/a/cpu.cfs_period_us", "100000\n"),
            ("memory/pods/a/memory.limit_in_bytes", "268435456\n"),
            ("memory/pods/a/memory.usage_in_bytes", "1000\n"),
            ("memory/pods/a/memory.stat", "inactive_file 1\ntotal_inactive_file 400\n"),
        ]);
        assert_eq!(groups.processors(&read), Some(0.2));
        assert_eq!(groups.memory(NODE, &read), Some(Memory { used: 600, given: 268_435_456 }));
    }

    #[test]
    fn no_limit_is_none_whatever_it_is_written_as() {
        let groups = Groups::find(V1_GROUPS, V1_HOST);
        let read = files(&[
            ("cpu,cpuacct/pods/a/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/pods/a/cpu.cfs_period_us", "100000\n"),
            ("memory/pods/a/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/pods/a/memory.usage_in_bytes", "1000\n"),
        ]);
        assert_eq!((groups.processors(&read), groups.memory(NODE, &read)), (None, None));
        let groups = Groups::find("0::/\n", V2_HOST);
        let read = files(&[("cpu.max", "max 100000\n"), ("memory.max", "max\n")]);
        assert_eq!((groups.processors(&read), groups.memory(NODE, &read)), (None, None));
        assert_eq!(Groups::find("", V1_HOST), Groups::default());
        assert_eq!(Groups::find("0::/\n", "1 1 0:1 / / rw - ext4 /dev/sda rw\n"), Groups::default());
    }

    #[test]
    fn group_of_a_container_is_found_where_the_mount_shows_only_it() {
        let mountinfo = "9 8 0:22 /docker/abc /sys/fs/cgroup ro master:9 - cgroup2 cgroup rw\n";
        let read = files(&[("cpu.max", "50000 100000\n")]);
        for cgroup in ["0::/docker/abc\n", "0::/../..\n", "0::/\n"] {
            assert_eq!(Groups::find(cgroup, mountinfo).processors(&read), Some(0.5), "{cgroup}");
        }
        let groups = Groups::find("0::/docker/abc/own\n", mountinfo);
        let read = files(&[("cpu.max", "50000 100000\n"), ("own/cpu.max", "25000 100000\n")]);
        assert_eq!(groups.processors(&read), Some(0.25));
    }
}
