//! Enters: a kernel and the tests. Leaves: the lines that they print inside it, until it ends or its time is up.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    child,
    kernels::{
        archive::Archive,
        modules,
        packages::Kernel,
        programs::{Programs, Test},
    },
    workspace,
};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself.
    Finished,
    /// It was ended after its time.
    TimedOut,
}

/// What starts a line of the scenery, and no line of a test.
pub(crate) const MARK: &str = "@@ ";

/// What the tests use, and what the agent is tried on.
const MODULES: [&str; 43] = [
    "veth",
    "sch_ingress",
    "cls_bpf",
    "cls_u32",
    "act_bpf",
    "cls_matchall",
    "act_mirred",
    "bridge",
    "br_netfilter",
    "vxlan",
    "geneve",
    "ip_gre",
    "ip6_gre",
    "ipip",
    "sit",
    "ip6_tunnel",
    "8021q",
    "bonding",
    "dummy",
    "tun",
    "wireguard",
    "vrf",
    "macvlan",
    "ipvlan",
    "nf_tables",
    "nft_compat",
    // Of its own before Linux 5.17, and in every rule of iptables.
    "nft_counter",
    "nft_chain_nat",
    "iptable_nat",
    "xt_nat",
    "ip_tables",
    "ip6_tables",
    "iptable_filter",
    "iptable_mangle",
    "ip6table_filter",
    "ip6table_mangle",
    "xt_tcpudp",
    "xt_mark",
    "xt_statistic",
    "xt_TEE",
    "mpls_router",
    "mpls_iptunnel",
    "sch_netem",
];

/// The programs of this machine that tests start.
const TOOLS: [&str; 5] = ["ip", "tc", "setpriv", "ethtool", "wg"];

/// What one small program stands in for.
const APPLETS: [&str; 11] =
    ["mount", "mkdir", "insmod", "cat", "uname", "sleep", "kill", "timeout", "reboot", "true", "false"];

/// What a guest has.
const MEMORY: &str = "2048M";
const PROCESSORS: &str = "2";

/// Boots a kernel, runs the tests inside it and hands on their lines. `scratch` is where the first root is put; it is
/// gone afterwards, and so is the machine.
pub(crate) fn run(
    kernel: &Kernel,
    programs: &Programs,
    scratch: &Path,
    patience: Duration,
    mut line: impl FnMut(&str) -> Result<()>,
) -> Result<End> {
    let root = scratch.join(format!("{}.initramfs", kernel.release));
    fs::write(&root, first_root(kernel, programs, patience)?)
        .with_context(|| format!("write {}", root.display()))?;
    let started = Running::start(boot(kernel, &root).stdout(Stdio::piped()));
    let ended = started.and_then(|machine| machine.follow(patience, &mut line));
    fs::remove_file(&root).with_context(|| format!("remove {}", root.display()))?;
    ended
}

/// Runs the tests on the kernel of this machine and hands on the same lines.
pub(crate) fn run_here(
    programs: &Programs,
    patience: Duration,
    mut line: impl FnMut(&str) -> Result<()>,
) -> Result<End> {
    let deadline = Instant::now() + patience;
    let release = child::answer(Command::new("uname").arg("-r")).context("ask for this kernel's release")?;
    line(&format!("{MARK}kernel {}", release.trim()))?;
    let check = Test { name: CHECK.to_owned(), path: programs.agent.clone(), arguments: &["check"] };
    for test in std::iter::once(&check).chain(&programs.tests) {
        line(&format!("{MARK}begin {}", test.name))?;
        let mut command = Command::new(&test.path);
        command.args(test.arguments).args(if test.name == CHECK { &[][..] } else { &FLAGS });
        command.env("MIRROR_AGENT_BIN", &programs.agent).env("MIRROR_EBPF_OBJECT", &programs.object);
        let mut running = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let end = running.pass_on(deadline, &mut line)?;
        if end == End::TimedOut {
            return Ok(end);
        }
        let status = running.child.wait().context("wait for a test program")?;
        line(&format!("{MARK}end {} {}", test.name, status.code().unwrap_or(-1)))?;
    }
    line(&format!("{MARK}done"))?;
    Ok(End::Finished)
}

/// What `mirror-agent check` is called among the programs.
pub(crate) const CHECK: &str = "check";

/// Every test program is started with these: a test that cannot run prints why and passes.
const FLAGS: [&str; 3] = ["--show-output", "--color", "never"];

/// A panic restarts the machine, which ends it. On a busy host an emulated clock can stand still for long: kernels would
/// take that for broken hardware and panic, or for a processor that hangs.
const KERNEL_OPTIONS: &str = "console=ttyS0 panic=-1 quiet mitigations=off nokaslr tsc=reliable no_timer_check \
                              nowatchdog rcupdate.rcu_cpu_stall_suppress=1";

fn boot(kernel: &Kernel, root: &Path) -> Command {
    // Should this program be killed, the kernel kills the machine too.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    command.args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", PROCESSORS, "-m", MEMORY]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(root);
    command.args(["-append", KERNEL_OPTIONS]);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    command
}

/// A process that does not outlive its value.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let name = child::describe(command);
        let mut child = command.spawn().with_context(|| format!("start `{name}`"))?;
        let (line_tx, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            read_lines(stdout, line_tx.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            read_lines(stderr, line_tx);
        }
        Ok(Self { child, lines })
    }

    /// Hands on what a machine prints, and judges how it ended.
    fn follow(mut self, patience: Duration, line: &mut impl FnMut(&str) -> Result<()>) -> Result<End> {
        let end = self.pass_on(Instant::now() + patience, line)?;
        if end == End::Finished {
            let status = self.child.wait().context("wait for the machine")?;
            if !status.success() {
                bail!("the emulator ended with {status}");
            }
        }
        Ok(end)
    }

    fn pass_on(&mut self, deadline: Instant, line: &mut impl FnMut(&str) -> Result<()>) -> Result<End> {
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(text) => line(&text)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(End::Finished),
                Err(RecvTimeoutError::Timeout) => return Ok(End::TimedOut),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is not there to be killed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read_lines(from: impl Read + Send + 'static, line_tx: Sender<String>) {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut bytes = Vec::new();
        while from.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            // A serial line ends in CRLF.
            let text = String::from_utf8_lossy(&bytes);
            if line_tx.send(text.trim_end_matches(['\r', '\n']).to_owned()).is_err() {
                return;
            }
            bytes.clear();
        }
    });
}

/// The root that a guest starts with: all it will ever have.
fn first_root(kernel: &Kernel, programs: &Programs, patience: Duration) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "dev", "tmp", "run", "var", "root"] {
        archive.folder(folder)?;
    }
    archive.link("var/run", "/run")?;
    archive.file("etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n")?;
    // A client that is not told whom to trust will not start without.
    if let Ok(authorities) = fs::read(AUTHORITIES) {
        archive.file(AUTHORITIES.trim_start_matches('/'), &authorities)?;
    }

    // Busybox's own shell would take its own `ip` and `tc` for the real ones.
    archive.program(&find("sh")?, "bin/sh")?;
    archive.program(&find("busybox")?, "bin/busybox")?;
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    for tool in TOOLS {
        archive.program(&find(tool)?, &format!("sbin/{tool}"))?;
    }
    add_packet_filter(&mut archive)?;

    archive.program(&programs.agent, "tests/mirror-agent")?;
    archive.program(&programs.object, "tests/mirror-ebpf.o")?;
    for test in &programs.tests {
        archive.program(&test.path, &format!("tests/{}", test.name))?;
    }

    let modules = modules::collect(&kernel.modules, &MODULES)?;
    for (name, content) in &modules.in_order {
        archive.file(&format!("modules/{name}"), content)?;
    }
    let names: Vec<&str> = modules.in_order.iter().map(|(name, _)| name.as_str()).collect();
    archive.file("init", init(&names, &programs.tests, patience).as_bytes())?;
    archive.finish()
}

/// Where programs look for the certificates of those they trust.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The packet filter's program under both its names, and what it loads.
fn add_packet_filter(archive: &mut Archive) -> Result<()> {
    let program = find("iptables")?;
    let program = program.canonicalize().with_context(|| format!("resolve {}", program.display()))?;
    archive.program(&program, "sbin/iptables")?;
    archive.link("sbin/ip6tables", "iptables")?;
    let plugins = PathBuf::from("/usr/lib/x86_64-linux-gnu/xtables");
    for entry in fs::read_dir(&plugins).with_context(|| format!("list {}", plugins.display()))? {
        let path = entry?.path();
        let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        archive.file(&path.to_string_lossy(), &content)?;
    }
    Ok(())
}

fn find(program: &str) -> Result<PathBuf> {
    workspace::find_program(program).with_context(|| format!("find the program {program}"))
}

/// What the guest does first and last. One test program may take half of the time, so that a last one that hangs does not
/// hide what the others say.
fn init(modules: &[&str], tests: &[Test], patience: Duration) -> String {
    let limit = patience.as_secs().div_ceil(2);
    let mut script = String::from(
        "#!/bin/sh\nexport PATH=/sbin:/bin HOME=/root MIRROR_AGENT_BIN=/tests/mirror-agent\n\
         export MIRROR_EBPF_OBJECT=/tests/mirror-ebpf.o RUST_TEST_THREADS=2\n\
         export MIRROR_TEST_SLOWDOWN=6\n\
         mount -t proc proc /proc\nmount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\nmount -t tmpfs tmp /tmp\n\
         mount -t tmpfs run /run\nmkdir -p /dev/net /run/netns\necho 1 > /proc/sys/kernel/printk\nulimit -l unlimited\n",
    );
    for module in modules {
        script += &format!("insmod /modules/{module} || echo '{MARK}module {module} cannot be loaded'\n");
    }
    script += &format!("ip link set lo up\necho \"{MARK}kernel $(uname -r)\"\n");
    let check = Test { name: CHECK.to_owned(), path: PathBuf::new(), arguments: &[] };
    for test in std::iter::once(&check).chain(tests) {
        let command = match test.name.as_str() {
            CHECK => "/tests/mirror-agent check".to_owned(),
            name => format!("/tests/{name} {} {}", test.arguments.join(" "), FLAGS.join(" ")),
        };
        let name = &test.name;
        script += &format!(
            "echo '{MARK}begin {name}'\ntimeout -s KILL {limit} {command} 2>&1\necho \"{MARK}end {name} $?\"\n"
        );
    }
    script + &format!("echo '{MARK}done'\nreboot -f\n")
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    use super::{End, Running};

    #[test]
    fn lines_are_handed_on_until_the_time_is_up_and_nothing_runs_on() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exec sleep 60"]);
        let mut running = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
        let mut lines = Vec::new();
        let mut take = |line: &str| {
            lines.push(line.to_owned());
            Ok(())
        };

        let end = running.pass_on(Instant::now() + Duration::from_millis(500), &mut take).unwrap();

        let pid = running.child.id();
        drop(running);
        lines.sort();
        assert_eq!((end, lines), (End::TimedOut, vec!["one".to_owned(), "two".to_owned()]));
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
