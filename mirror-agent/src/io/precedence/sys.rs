//! Enters: a thread. Leaves: how the kernel's scheduler treats it. The only unsafe code of the precedence.

use std::io;

use rustix::thread::Pid;

/// What a thread is to the scheduler (`sched(7)`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Policy {
    /// `SCHED_OTHER`: one of many.
    Ordinary,
    /// `SCHED_IDLE`: runs where nothing else wants to, and a processor on which nothing else runs counts as free.
    Idle,
    /// Any other.
    Other,
}

/// The calling thread.
pub(super) fn this_thread() -> Pid {
    rustix::thread::gettid()
}

/// The policy of the calling thread.
///
/// # Errors
///
/// The kernel's.
pub(super) fn policy() -> io::Result<Policy> {
    // SAFETY: it takes a number, of which 0 is the calling thread.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    match libc::c_int::try_from(policy) {
        Ok(-1) => Err(io::Error::last_os_error()),
        Ok(libc::SCHED_OTHER) => Ok(Policy::Ordinary),
        Ok(libc::SCHED_IDLE) => Ok(Policy::Idle),
        _ => Ok(Policy::Other),
    }
}

/// Has the scheduler treat a thread of this process otherwise. Called by number, since one C library refuses the call by its
/// name: <https://git.musl-libc.org/cgit/musl/tree/src/sched/sched_setscheduler.c>
///
/// # Errors
///
/// The kernel's: nobody may leave [`Policy::Idle`] without `CAP_SYS_NICE` or room for it in `RLIMIT_NICE`.
pub(super) fn set_policy(thread: Pid, policy: Policy) -> io::Result<()> {
    let policy = match policy {
        Policy::Ordinary => libc::SCHED_OTHER,
        Policy::Idle => libc::SCHED_IDLE,
        Policy::Other => return Err(io::ErrorKind::InvalidInput.into()),
    };
    // `struct sched_param`, which is a priority; neither policy has one.
    let priority: libc::c_int = 0;
    // SAFETY: the kernel reads one integer, which outlives the call.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            thread.as_raw_nonzero().get(),
            policy,
            std::ptr::from_ref(&priority),
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
