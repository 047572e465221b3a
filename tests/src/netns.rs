//! Enters: a wish for hosts. Leaves: network namespaces joined by veth, which vanish with their owner.

use std::{
    any::Any,
    fs::{self, File},
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sched::{CloneFlags, setns},
    sys::resource::{Resource, getrlimit, setrlimit},
};

use crate::sys;

/// Start of the name of every namespace made here; the process id and a number follow.
const PREFIX: &str = "mirror-t";
/// Where `ip netns` keeps its names.
const NETNS_DIR: &str = "/run/netns";
/// The one interface of every host.
pub const INTERFACE: &str = "eth0";

/// Makes every name of this process differ from the last.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Says why hosts cannot be made here; `None` where they can.
#[must_use]
pub fn obstacle() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root: it makes network namespaces and loads a kernel program".to_owned());
    }
    match Command::new("ip").arg("-V").output() {
        Ok(output) if output.status.success() => None,
        _ => Some("needs the `ip` tool (package iproute2)".to_owned()),
    }
}

/// Returns from the test, saying why, where hosts cannot be made.
#[macro_export]
macro_rules! require_hosts {
    () => {
        if let Some(reason) = $crate::netns::obstacle() {
            println!("SKIPPED: {reason}");
            return Ok(());
        }
    };
}

/// One network namespace, deleted when dropped.
#[derive(Debug)]
struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    fn new(name: String) -> Result<Self> {
        run("ip", &["netns", "add", &name])?;
        let path = Path::new(NETNS_DIR).join(&name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self { name, file })
    }

    /// Runs lines of `ip` commands inside; `options` are the program's own.
    fn ip(&self, options: &[&str], commands: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(options)
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("run ip -batch")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(commands.as_bytes()).context("write to ip -batch")?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("ip -n {} refused {commands}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Ends what still runs in a namespace of ours and deletes it. Failing to is no reason to stop: the next start's
/// sweep comes by again.
fn delete(name: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() {
        for pid in String::from_utf8_lossy(&output.stdout).split_ascii_whitespace() {
            // A thread of this very process may still be leaving; it is listed by the process's own id.
            if pid != std::process::id().to_string() {
                drop(Command::new("kill").args(["-9", pid]).output());
            }
        }
    }
    drop(Command::new("ip").args(["netns", "del", name]).output());
}

/// Removes namespaces whose makers are gone.
pub fn sweep() {
    let Ok(entries) = fs::read_dir(NETNS_DIR) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            delete(&name);
        }
    }
}

/// A host: a namespace with a loopback and one Ethernet interface.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// The hardware address of its interface.
    pub mac: [u8; 6],
}

impl Host {
    /// A host without an interface but loopback, which is down; whoever asks gives it one, and this address.
    ///
    /// # Errors
    ///
    /// The namespace cannot be made.
    pub fn alone(role: &str, v4: Ipv4Addr) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace::new(format!("{PREFIX}{}-{number}-{role}", std::process::id()))?;
        Ok(Self { namespace, v4, v6: Ipv6Addr::UNSPECIFIED, mac: [0; 6] })
    }

    /// The namespace's name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.namespace.name
    }

    /// Its IPv4 address with a port.
    #[must_use]
    pub fn at_v4(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.v4), port)
    }

    /// Its IPv6 address with a port.
    #[must_use]
    pub fn at_v6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.v6), port)
    }

    /// Runs `action` on a thread inside the namespace and waits for it. Sockets made there stay there.
    ///
    /// # Errors
    ///
    /// The namespace cannot be entered, `action` fails or panics.
    pub fn within<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.namespace.file, CloneFlags::CLONE_NEWNET).context("enter namespace")?;
                action()
            });
            inside.join().unwrap_or_else(|panic| Err(panicked(&*panic)))
        })
    }

    /// Starts a thread inside the namespace.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        action: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let file = self.namespace.file.try_clone()?;
        let inside = thread::Builder::new().name(name.to_owned()).spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).context("enter namespace")?;
            action()
        })?;
        Ok(inside)
    }

    /// A command that runs inside the namespace, out of reach of the terminal's Ctrl-C, and that dies with the thread
    /// that starts it.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name()]).arg(program).process_group(0);
        sys::die_with_parent(&mut command);
        command
    }

    /// Runs lines of `ip` commands inside.
    ///
    /// # Errors
    ///
    /// One of them is refused.
    pub fn ip(&self, commands: &str) -> Result<()> {
        self.namespace.ip(&[], commands)
    }

    /// The same for IPv6 where an address alone does not say so, as with rules.
    ///
    /// # Errors
    ///
    /// One of them is refused.
    pub fn ip_v6(&self, commands: &str) -> Result<()> {
        self.namespace.ip(&["-6"], commands)
    }

    /// Adds a packet filter rule, for IPv4 and IPv6 by the addresses it needs; it goes with the guard.
    ///
    /// # Errors
    ///
    /// The rule is refused.
    pub fn filter(&self, tool: FilterTool, table: &str, chain: &str, rule: &str) -> Result<FilterRule> {
        let words = |action: &str| {
            let mut words =
                vec!["netns", "exec", self.name(), tool.program(), "-w", "-t", table, action, chain]
                    .into_iter()
                    .map(str::to_owned)
                    .collect::<Vec<_>>();
            words.extend(rule.split_ascii_whitespace().map(str::to_owned));
            words
        };
        run("ip", &words("-A").iter().map(String::as_str).collect::<Vec<_>>())?;
        let listing =
            ["netns", "exec", self.name(), tool.program(), "-w", "-t", table, "-L", chain, "-v", "-x", "-n"];
        Ok(FilterRule { removal: words("-D"), listing: listing.map(str::to_owned).to_vec() })
    }

    /// The interface's index inside the namespace.
    ///
    /// # Errors
    ///
    /// The interface does not exist.
    pub fn interface_index(&self) -> Result<u32> {
        self.within(|| Ok(nix::net::if_::if_nametoindex(INTERFACE)?))
    }

    /// A figure of the kernel's network statistics, such as `Tcp` `RetransSegs`.
    ///
    /// # Errors
    ///
    /// There is no such figure.
    pub fn counter(&self, group: &str, name: &str) -> Result<u64> {
        self.within(|| {
            // Each group has two lines: names, then figures.
            let text = fs::read_to_string("/proc/thread-self/net/snmp")?
                + &fs::read_to_string("/proc/thread-self/net/netstat")?;
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
            let names = lines.next().context("no such group")?.split_ascii_whitespace();
            let mut figures = names.zip(lines.next().context("no figures")?.split_ascii_whitespace());
            let (_, figure) = figures.find(|(found, _)| *found == name).context("no such figure")?;
            Ok(figure.parse()?)
        })
    }

    /// How many programs hang on the interface where agents attach by themselves, ingress and egress together: on the
    /// TCX hooks, or where the kernel has none, the filters of clsact that are the mirror's.
    ///
    /// # Errors
    ///
    /// The kernel cannot tell.
    pub fn attached_programs(&self) -> Result<u32> {
        self.attached_programs_of(INTERFACE)
    }

    /// The same of the interface of this name.
    ///
    /// # Errors
    ///
    /// The kernel cannot tell.
    pub fn attached_programs_of(&self, interface: &str) -> Result<u32> {
        if !sys::has_tcx()? {
            let filters = self.tc_filters_of(interface)?;
            let ours = filters.lines().filter(|line| line.contains(" mirror_")).count();
            return Ok(u32::try_from(ours)?);
        }
        self.within(|| {
            let index = nix::net::if_::if_nametoindex(interface)?;
            let ingress = sys::tcx_programs(index, sys::TcxHook::Ingress).context("query TCX ingress")?;
            let egress = sys::tcx_programs(index, sys::TcxHook::Egress).context("query TCX egress")?;
            Ok(ingress + egress)
        })
    }

    /// What `tc` lists as filters at both hooks of the interface.
    ///
    /// # Errors
    ///
    /// `tc` cannot be run.
    pub fn tc_filters(&self) -> Result<String> {
        self.tc_filters_of(INTERFACE)
    }

    fn tc_filters_of(&self, interface: &str) -> Result<String> {
        let mut listed = String::new();
        for hook in ["ingress", "egress"] {
            let output = Command::new("tc")
                .args(["-n", self.name(), "filter", "show", "dev", interface, hook])
                .output()
                .context("run tc")?;
            listed.push_str(&String::from_utf8_lossy(&output.stdout));
        }
        Ok(listed)
    }
}

/// Which family a packet filter rule is for.
#[derive(Clone, Copy, Debug)]
pub enum FilterTool {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl FilterTool {
    fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }
}

/// A packet filter rule, removed when dropped.
#[derive(Debug)]
pub struct FilterRule {
    removal: Vec<String>,
    listing: Vec<String>,
}

impl FilterRule {
    /// How many packets the rules of its chain have met.
    ///
    /// # Errors
    ///
    /// The chain cannot be listed.
    pub fn packets(&self) -> Result<u64> {
        let output = Command::new("ip").args(&self.listing).output().context("list a chain")?;
        let listed = String::from_utf8_lossy(&output.stdout);
        // Behind the chain's name and the columns' names, each line begins with its packets.
        let counts = listed.lines().skip(2).filter_map(|line| line.split_ascii_whitespace().next());
        Ok(counts.filter_map(|count| count.parse::<u64>().ok()).sum())
    }
}

impl Drop for FilterRule {
    fn drop(&mut self) {
        drop(Command::new("ip").args(&self.removal).output());
    }
}

/// Hosts joined by a bridge: each has one interface, `eth0`, on one network 10.77.0.0/24 and fd77::/64.
#[derive(Debug)]
pub struct Topology {
    /// Where requests come from.
    pub client: Host,
    /// Where the live service and the agent run.
    pub live: Host,
    /// Where copies go.
    pub shadow: Host,
    /// A host that has nothing to do with either.
    pub other: Host,
    /// The node that the hosts hang on like pods: interface `pN` is the other end of the host with address N, all are
    /// ports of the bridge `br0`, which has the address 254.
    pub hub: Host,
}

impl Topology {
    /// Makes the hosts, having removed what a dead process left behind.
    ///
    /// # Errors
    ///
    /// The first command that is refused.
    pub fn new() -> Result<Self> {
        sweep();
        // Both ends of thousands of connections may stand in this one process.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |role: &str| format!("{PREFIX}{}-{number}-{role}", std::process::id());
        let hub = Namespace::new(name("hub"))?;
        hub.ip(
            &[],
            "link add br0 type bridge\nlink set br0 up\nlink set lo up\naddr add 10.77.0.254/24 dev br0\n",
        )?;
        let host = |role: &str, number: u8| -> Result<Host> {
            let namespace = Namespace::new(name(role))?;
            let mac = [2, 0x77, 0, 0, 0, number];
            let mac_text = mac.map(|byte| format!("{byte:02x}")).join(":");
            hub.ip(
                &[],
                &format!(
                    "link add p{number} type veth peer name {INTERFACE} address {mac_text} netns {}\n\
                 link set p{number} master br0\nlink set p{number} up\n",
                    namespace.name
                ),
            )?;
            let (v4, v6) = (
                Ipv4Addr::new(10, 77, 0, number),
                Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number)),
            );
            namespace.ip(&[], &format!(
                "link set lo up\naddr add {v4}/24 dev {INTERFACE}\naddr add {v6}/64 dev {INTERFACE} nodad\n\
                 link set {INTERFACE} up\n"
            ))?;
            let host = Host { namespace, v4, v6, mac };
            host.within(|| {
                // A connection per request leaves thousands of ports waiting: let them be used again.
                fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1")?;
                fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10240 65000")?;
                Ok(())
            })?;
            Ok(host)
        };
        let topology = Self {
            client: host("client", 1)?,
            live: host("live", 2)?,
            shadow: host("shadow", 3)?,
            other: host("other", 4)?,
            hub: Host { namespace: hub, v4: Ipv4Addr::UNSPECIFIED, v6: Ipv6Addr::UNSPECIFIED, mac: [0; 6] },
        };
        topology.introduce()?;
        Ok(topology)
    }

    /// Adds a packet filter rule to what the bridge forwards: a wire that loses segments without their sender knowing.
    ///
    /// # Errors
    ///
    /// The kernel cannot filter on a bridge, or the rule is refused.
    pub fn filter_wire(&self, tool: FilterTool, rule: &str) -> Result<FilterRule> {
        let switch = match tool {
            FilterTool::V4 => "/proc/sys/net/bridge/bridge-nf-call-iptables",
            FilterTool::V6 => "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
        };
        self.hub.within(|| fs::write(switch, "1").with_context(|| format!("write {switch}")))?;
        self.hub.filter(tool, "filter", "FORWARD", rule)
    }

    /// Tells every host the hardware address of every other, so that no first packet waits for a look-up.
    fn introduce(&self) -> Result<()> {
        let hosts = [&self.client, &self.live, &self.shadow, &self.other];
        for host in hosts {
            let mut commands = String::new();
            for peer in hosts.into_iter().filter(|peer| peer.v4 != host.v4) {
                let mac = peer.mac.map(|byte| format!("{byte:02x}")).join(":");
                for address in [IpAddr::V4(peer.v4), IpAddr::V6(peer.v6)] {
                    commands +=
                        &format!("neigh replace {address} lladdr {mac} dev {INTERFACE} nud permanent\n");
                }
            }
            host.ip(&commands)?;
        }
        Ok(())
    }
}

/// Runs a command to its end.
fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("run {program} {arguments:?}"))?;
    if !output.status.success() {
        bail!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// An error from what a thread panicked with.
fn panicked(panic: &(dyn Any + Send)) -> anyhow::Error {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    anyhow!("thread panicked: {}", text.unwrap_or("no message"))
}
