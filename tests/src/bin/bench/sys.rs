//! Enters: requests to the kernel and the allocator for which no safe wrapper exists. Leaves: their answers. All unsafe
//! code of the bench is here.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

/// The system's allocator, which also counts what each thread asks of it.
pub(crate) struct CountingAllocator;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// How often the calling thread has allocated or reallocated so far.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.get()
}

fn note_allocation() {
    // A thread that is ending may have no counter any more; it is none that is measured.
    ALLOCATIONS.try_with(|count| count.set(count.get() + 1)).ok();
}

// SAFETY: every call is handed on unchanged to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note_allocation();
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note_allocation();
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note_allocation();
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Has the calling thread run only where nobody else wants to (`SCHED_IDLE`, sched(7)).
pub(crate) fn give_way_to_all() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the parameters, and keeps no pointer to them.
    let answer = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `enum bpf_cmd` of the kernel's uapi/linux/bpf.h.
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const ENABLE_STATS: libc::c_long = 32;

/// `BPF_PROG_TYPE_SCHED_CLS`.
const SCHED_CLS: u32 = 3;

/// Of `union bpf_attr` what `BPF_PROG_LOAD` needs; the kernel takes what is missing as zero.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// Of `union bpf_attr` what `BPF_PROG_TEST_RUN` needs.
#[repr(C)]
#[derive(Default)]
struct RunAttributes {
    program: u32,
    return_value: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration_ns: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
}

/// Of `union bpf_attr` what `BPF_ENABLE_STATS` needs; type 0 is run time.
#[repr(C)]
#[derive(Default)]
struct StatsAttributes {
    stats_type: u32,
    reserved: u32,
}

/// Loads a classifier that returns -1 and does nothing else.
pub(crate) fn load_empty_classifier() -> io::Result<OwnedFd> {
    // r0 = -1; exit
    let instructions: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
    let mut attributes = LoadAttributes {
        program_type: SCHED_CLS,
        instruction_count: 2,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    let descriptor = bpf(PROG_LOAD, &mut attributes)?;
    // SAFETY: the kernel has just opened it and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Runs a classifier `repeat` times on a packet; gives the mean duration of a run.
///
/// # Minimum kernel version
///
/// 4.12.
pub(crate) fn test_run(program: BorrowedFd<'_>, packet: &[u8], repeat: u32) -> io::Result<Duration> {
    let mut attributes = RunAttributes {
        program: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        data_size_in: u32::try_from(packet.len()).map_err(io::Error::other)?,
        data_in: packet.as_ptr() as u64,
        repeat,
        ..RunAttributes::default()
    };
    bpf(PROG_TEST_RUN, &mut attributes)?;
    Ok(Duration::from_nanos(attributes.duration_ns.into()))
}

/// Lets the kernel keep the run time of all its programs for as long as the descriptor lives. Unlike the setting
/// `kernel.bpf_stats_enabled` this needs no restoring, however the process ends.
///
/// # Minimum kernel version
///
/// 5.8.
pub(crate) fn enable_program_stats() -> io::Result<OwnedFd> {
    let descriptor = bpf(ENABLE_STATS, &mut StatsAttributes::default())?;
    // SAFETY: the kernel has just opened it and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `bpf(2)`; what the attributes point to must outlive the call.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attributes` is a prefix of `union bpf_attr` of the size given, and the kernel keeps no pointer to it or
    // to what it points to.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(answer).map_err(io::Error::other)
}
