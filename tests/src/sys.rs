//! Enters: requests to the kernel for which no safe wrapper exists. Leaves: their answers. All unsafe code is here.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::sys::{
    epoll::{Epoll, EpollEvent},
    resource::{UsageWho, getrusage},
    signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    time::TimeVal,
};

/// Waits for events for at most `timeout`, with the resolution of a nanosecond; an interrupted wait is no event.
///
/// # Errors
///
/// The kernel's error other than `EINTR`.
///
/// # Minimum kernel version
///
/// 5.11; on older ones the resolution is a millisecond, and a wait is never shorter than asked for.
pub fn epoll_wait(epoll: &Epoll, events: &mut [EpollEvent], timeout: Duration) -> io::Result<usize> {
    match epoll_wait_precisely(epoll, events, timeout) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            let millis = u16::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u16::MAX);
            match epoll.wait(events, millis) {
                Err(nix::errno::Errno::EINTR) => Ok(0),
                ready => Ok(ready?),
            }
        }
        ready => ready,
    }
}

fn epoll_wait_precisely(epoll: &Epoll, events: &mut [EpollEvent], timeout: Duration) -> io::Result<usize> {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(i32::try_from(timeout.subsec_nanos()).unwrap_or(0)),
    };
    let capacity = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `EpollEvent` is a transparent wrapper of `epoll_event`, `events` holds at least `capacity` of them, and
    // `timeout` outlives the call; a null signal mask means "unchanged".
    let ready = unsafe {
        libc::epoll_pwait2(
            epoll.0.as_raw_fd(),
            events.as_mut_ptr().cast(),
            capacity,
            &raw const timeout,
            ptr::null(),
        )
    };
    match usize::try_from(ready) {
        Ok(ready) => Ok(ready),
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            error => Err(error),
        },
    }
}

/// Lets the kernel kill the child when the thread that started it is gone, however it went.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs between fork and exec and calls only `prctl`, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        })
    }
}

/// Opens a packet socket through which whole frames leave by the interface with this index.
///
/// # Errors
///
/// The kernel's error, as a rule for want of privileges.
pub fn packet_socket(interface: u32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `raw` was just opened and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: i32::try_from(interface).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is a `sockaddr_ll` of `len` bytes that outlives the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// Opens a packet socket each of whose frames comes after a `virtio_net_hdr` of ten bytes, by which frames may be larger
/// than a wire's and have their headers in fragments.
///
/// # Errors
///
/// As [`packet_socket`].
pub fn offloading_packet_socket(interface: u32) -> io::Result<OwnedFd> {
    /// An option of `SOL_PACKET`.
    const PACKET_VNET_HDR: libc::c_int = 15;
    let socket = packet_socket(interface)?;
    let on: libc::c_int = 1;
    // SAFETY: `on` is an integer of the length given, and outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_VNET_HDR,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// Makes an interface without Ethernet headers in the calling thread's namespace; what is written to the file arrives
/// there. It goes with the file.
///
/// # Errors
///
/// The kernel's error.
pub fn open_tun(interface: &str) -> io::Result<File> {
    let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all bytes zero are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let (_, name) = request.ifr_name.split_last_mut().ok_or(io::ErrorKind::InvalidInput)?;
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request is a valid `ifreq`, which is what this call takes.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(tun) }
}

/// What `BPF_MAP_LOOKUP_ELEM` takes: the start of the kernel's `union bpf_attr`.
#[repr(C)]
struct MapLookup {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// As many processors as a kernel can be built for (`NR_CPUS` of x86-64 with `MAXSMP`).
pub const MOST_PROCESSORS: usize = 8192;

/// Reads the value at `index` of a per-CPU array of 64-bit numbers: one for each possible processor.
///
/// # Errors
///
/// The kernel's error.
pub fn array_lookup(map: BorrowedFd<'_>, index: u32, values: &mut [u64; MOST_PROCESSORS]) -> io::Result<()> {
    /// The command of the `bpf` system call.
    const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
    let lookup = MapLookup {
        map: u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
        padding: 0,
        key: ptr::from_ref(&index).expose_provenance() as u64,
        value: values.as_mut_ptr().expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: the key of an array is a `u32`, and no array of these programs has larger values; both outlive the call.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_ELEM, &raw const lookup, size_of::<MapLookup>())
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Where at an interface a program can be attached by a TCX link.
#[derive(Clone, Copy, Debug)]
pub enum TcxHook {
    /// Packets that arrive.
    Ingress,
    /// Packets that leave.
    Egress,
}

impl TcxHook {
    /// Its number among the kernel's `enum bpf_attach_type`.
    pub(crate) const fn attach_type(self) -> u32 {
        match self {
            Self::Ingress => 46,
            Self::Egress => 47,
        }
    }
}

/// What `BPF_PROG_QUERY` takes and gives: the start of the kernel's `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Counts the programs attached to a hook of the interface with this index of the calling thread's namespace.
///
/// # Errors
///
/// The kernel's error; `EINVAL` where the kernel has no TCX ([`has_tcx`]).
///
/// # Minimum kernel version
///
/// 6.6.
pub fn tcx_programs(interface: u32, hook: TcxHook) -> io::Result<u32> {
    /// The command of the `bpf` system call.
    const BPF_PROG_QUERY: libc::c_int = 16;
    let attach_type = hook.attach_type();
    let mut query = ProgQuery { target_ifindex: interface, attach_type, ..ProgQuery::default() };
    // SAFETY: `query` has the layout and at least the length that the kernel reads and writes, and outlives the call;
    // its pointers are null, which asks for the count alone.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<ProgQuery>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(query.prog_count) }
}

/// Whether this kernel has TCX hooks.
///
/// # Errors
///
/// The kernel's, where it does not say.
pub fn has_tcx() -> io::Result<bool> {
    // The loopback device is there in every namespace, as the first.
    match tcx_programs(1, TcxHook::Ingress) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a `bpf` system call; gives what it returns.
///
/// # Safety
///
/// `attribute` must be one that `command` takes, and the addresses in it be valid for what the command does there.
unsafe fn bpf(command: libc::c_int, attribute: &mut [u8]) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes no more than the length given; what addresses inside point to is for the
    // caller to answer.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_mut_ptr(), attribute.len()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// The start of a `union bpf_attr`; the rest is zero.
fn attribute(words: &[u32]) -> [u8; 120] {
    let mut attribute = [0; 120];
    for (slot, word) in attribute.chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_ne_bytes());
    }
    attribute
}

/// Takes ownership of a descriptor that the kernel has just given.
fn owned(raw: libc::c_long) -> io::Result<OwnedFd> {
    let raw = libc::c_int::try_from(raw).map_err(io::Error::other)?;
    // SAFETY: `raw` was just opened and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The number of a descriptor, as attributes and instructions hold it.
///
/// # Errors
///
/// Never: open descriptors are not negative.
pub(crate) fn number(descriptor: &OwnedFd) -> io::Result<u32> {
    u32::try_from(descriptor.as_raw_fd()).map_err(io::Error::other)
}

/// Makes a map that is one count of eight bytes.
///
/// # Errors
///
/// The kernel's error.
pub(crate) fn bpf_count() -> io::Result<OwnedFd> {
    const BPF_MAP_CREATE: libc::c_int = 0;
    // An array; sizes of key and value; entries.
    let mut map = attribute(&[2, 4, 8, 1]);
    // SAFETY: the attribute is that of a map and holds no address.
    owned(unsafe { bpf(BPF_MAP_CREATE, &mut map) }?)
}

/// Reads what [`bpf_count`] made.
///
/// # Errors
///
/// The kernel's error.
pub(crate) fn bpf_read_count(map: &OwnedFd) -> io::Result<u64> {
    const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
    let (key, mut count) = (0_u32, 0_u64);
    let mut lookup = attribute(&[number(map)?]);
    lookup[8..16].copy_from_slice(&(&raw const key as u64).to_ne_bytes());
    lookup[16..24].copy_from_slice(&(&raw mut count as u64).to_ne_bytes());
    // SAFETY: key and value have the sizes with which the map was made, and outlive the call.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut lookup) }?;
    Ok(count)
}

/// Loads a classifier of these instructions.
///
/// # Errors
///
/// The kernel's error.
pub(crate) fn bpf_classifier(code: &[[u8; 8]]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    let mut program = attribute(&[3, u32::try_from(code.len()).map_err(io::Error::other)?]);
    program[8..16].copy_from_slice(&(code.as_ptr() as u64).to_ne_bytes());
    program[16..24].copy_from_slice(&(c"GPL".as_ptr() as u64).to_ne_bytes());
    program[48..55].copy_from_slice(b"foreign");
    // SAFETY: the instructions are as many as said, the licence ends with a zero, and both outlive the call.
    owned(unsafe { bpf(BPF_PROG_LOAD, &mut program) }?)
}

/// Attaches a classifier by a TCX link; `flags` say where in the chain.
///
/// # Errors
///
/// The kernel's error.
pub(crate) fn tcx_link(program: &OwnedFd, interface: u32, hook: TcxHook, flags: u32) -> io::Result<OwnedFd> {
    const BPF_LINK_CREATE: libc::c_int = 28;
    let mut link = attribute(&[number(program)?, interface, hook.attach_type(), flags]);
    // SAFETY: the attribute is that of a link and holds no address.
    owned(unsafe { bpf(BPF_LINK_CREATE, &mut link) }?)
}

/// The identifiers of the programs at a hook of the interface with this index of the calling thread's namespace, in
/// the order in which they run; sixteen at most.
///
/// # Errors
///
/// The kernel's error; `EINVAL` where the kernel has no TCX.
///
/// # Minimum kernel version
///
/// 6.6.
pub fn tcx_program_ids(interface: u32, hook: TcxHook) -> io::Result<Vec<u32>> {
    const BPF_PROG_QUERY: libc::c_int = 16;
    let mut ids = [0_u32; 16];
    let mut query = [0_u8; size_of::<ProgQuery>()];
    query[0..4].copy_from_slice(&interface.to_ne_bytes());
    query[4..8].copy_from_slice(&hook.attach_type().to_ne_bytes());
    query[16..24].copy_from_slice(&(ids.as_mut_ptr() as u64).to_ne_bytes());
    query[24..28].copy_from_slice(&16_u32.to_ne_bytes());
    // SAFETY: the attribute is that of a query, and its address that of an array as long as it says.
    unsafe { bpf(BPF_PROG_QUERY, &mut query) }?;
    let count =
        query.get(24..28).and_then(|bytes| bytes.first_chunk()).map_or(0, |&count| u32::from_ne_bytes(count));
    Ok(ids.into_iter().take(usize::try_from(count).unwrap_or(0)).collect())
}

/// Set by the first SIGINT, SIGTERM or SIGHUP after [`catch_interrupts`].
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_interrupt(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Turns SIGINT, SIGTERM and SIGHUP into a flag that [`interrupted`] reads, so that guards get to clean up.
///
/// # Errors
///
/// The kernel's error.
pub fn catch_interrupts() -> io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(note_interrupt), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores to an atomic and does nothing else.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Whether the process was asked to stop.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// CPU time of the calling thread, user and system.
///
/// # Errors
///
/// The kernel's error.
pub fn thread_cpu() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

/// A duration from the kernel's notation; negative values do not occur.
fn duration(value: TimeVal) -> Duration {
    Duration::new(
        u64::try_from(value.tv_sec()).unwrap_or(0),
        u32::try_from(value.tv_usec().saturating_mul(1000)).unwrap_or(0),
    )
}

/// Asks for timers that fire when they are due and not up to 50 µs later; for the calling thread.
///
/// # Errors
///
/// The kernel's error.
pub fn precise_timers() -> io::Result<()> {
    Ok(nix::sys::prctl::set_timerslack(1000)?)
}
