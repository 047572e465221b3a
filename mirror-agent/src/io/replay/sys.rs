//! Enters: a socket. Leaves: bytes with the time at which the kernel got them, and the shortest round trip it knows of. The
//! only unsafe code of the replay.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    time::Duration,
};

/// Has the kernel note when what is received arrives (`SO_TIMESTAMPING`), for all that is received from here on.
///
/// # Errors
///
/// The kernel's; then nothing is noted.
pub(super) fn stamp_arrivals(socket: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
    let len = libc::socklen_t::try_from(size_of_val(&flags)).unwrap_or(0);
    // SAFETY: the option's value is `flags`, of which address and length are given; it is read before the call returns.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPING,
            ptr::from_ref(&flags).cast(),
            len,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads what has come, and tells when the last of it arrived, by the wall clock since the Unix epoch; `None` where the
/// kernel did not note it.
///
/// # Errors
///
/// The kernel's; [`io::ErrorKind::WouldBlock`] where nothing has come.
pub(super) fn receive(socket: BorrowedFd<'_>, input: &mut [u8]) -> io::Result<(usize, Option<Duration>)> {
    // Words, so that it is aligned for the headers that the kernel puts there.
    let mut control = [0_u64; CONTROL_WORDS];
    let mut place = libc::iovec { iov_base: input.as_mut_ptr().cast(), iov_len: input.len() };
    // SAFETY: integers and pointers, for which all bits zero are a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut place;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the kernel writes into `input` and `control` only, whose lengths are given and which outlive the call.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    match usize::try_from(len) {
        Ok(len) => Ok((len, arrival(&control))),
        // Minus one.
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// The shortest round trip that the kernel has seen on this connection; `None` where it knows none.
pub(super) fn shortest_round_trip(socket: BorrowedFd<'_>) -> Option<Duration> {
    let mut info = [0_u32; INFO_WORDS];
    let mut len = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
    // SAFETY: the kernel writes `len` bytes into `info` at most, and says in `len` how many.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    let known = usize::try_from(len).unwrap_or(0) / size_of::<u32>();
    let micros = *info.get(..known)?.get(MIN_RTT_WORD)?;
    // What it begins with, before there is any measurement.
    (failed == 0 && micros != u32::MAX).then(|| Duration::from_micros(micros.into()))
}

/// The software time stamp in the first control message, which is the only one asked for: length, level and type, then
/// three points in time of which the first is meant.
fn arrival(control: &[u64; CONTROL_WORDS]) -> Option<Duration> {
    let [len, kind, seconds, nanos, ..] = *control;
    let [l0, l1, l2, l3, t0, t1, t2, t3] = kind.to_ne_bytes();
    let level = i32::from_ne_bytes([l0, l1, l2, l3]);
    let kind = i32::from_ne_bytes([t0, t1, t2, t3]);
    let is_stamp = cfg!(target_pointer_width = "64")
        && len >= STAMP_BYTES
        && (level, kind) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING);
    let stamp = Duration::new(seconds, u32::try_from(nanos).ok()?);
    (is_stamp && !stamp.is_zero()).then_some(stamp)
}

/// Room for the control messages of one read, in words.
const CONTROL_WORDS: usize = 16;

/// A header of two words and three points in time of two words each (`struct scm_timestamping`).
const STAMP_BYTES: u64 = 64;

/// `struct tcp_info` up to the field that is read, and more, in words.
const INFO_WORDS: usize = 64;

/// The place of `tcpi_min_rtt` in it, since Linux 4.9:
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/tcp.h#L229-L293>
const MIN_RTT_WORD: usize = 148 / size_of::<u32>();

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
        thread::sleep,
        time::{Instant, SystemTime},
    };

    use super::*;

    #[test]
    fn arrival_is_told_though_what_came_is_read_much_later() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        stamp_arrivals(client.as_fd()).unwrap();
        // The kernel begins to note arrivals in the background.
        sleep(Duration::from_millis(50));
        server.write_all(b"hello").unwrap();
        let written = Instant::now();
        let deadline = Duration::from_millis(200);
        sleep(deadline);
        let mut input = [0; 16];
        let (len, arrived) = receive(client.as_fd(), &mut input).unwrap();
        assert_eq!(&input[..len], b"hello");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let age = now.checked_sub(arrived.unwrap()).unwrap();
        assert!(age >= deadline && age <= written.elapsed() + Duration::from_millis(5), "{age:?}");
        let mut client = client;
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        assert!(shortest_round_trip(client.as_fd()).unwrap() < Duration::from_millis(100));
        drop(server);
        assert_eq!(receive(client.as_fd(), &mut input).unwrap().0, 0);
    }
}
