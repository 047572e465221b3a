//! Enters: a request of rtnetlink. Leaves: what is wanted of the messages that answer it, and their attributes.
//!
//! Only what is asked for here, and only the few attributes that this agent reads: a message of a newer kernel with attributes that
//! nobody here knows is no error.

use std::{io, mem::size_of};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Room for one datagram. The kernel makes those of a dump at most 32 KiB.
pub(super) const RECEIVE_BYTES: usize = 64 * 1024;

/// How often a dump is begun anew when the kernel says that the tables changed while it was read.
const DUMP_ATTEMPTS: usize = 5;

const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;

/// Nested and byte-order bits of an attribute's type.
const TYPE_MASK: u16 = 0x3fff;

/// Why rtnetlink could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be opened or used.
    #[error("rtnetlink socket")]
    Socket(#[from] io::Error),
    /// The kernel refused the request.
    #[error("the kernel refused rtnetlink request {request}")]
    Refused {
        /// The message type of the request, an `RTM_GET*`.
        request: u16,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The answer does not have the shape of rtnetlink messages.
    #[error("malformed answer to rtnetlink request {request}")]
    Malformed {
        /// The message type of the request, an `RTM_GET*`.
        request: u16,
    },
    /// The tables changed each time they were read.
    #[error("the answer to rtnetlink request {request} changed while it was read")]
    Unstable {
        /// The message type of the request, an `RTM_GET*`.
        request: u16,
    },
}

/// Asks for a dump and returns what `parse` makes of the bodies of the answer's messages: all that follows their
/// netlink headers. What it does not want is not kept: a router may have a million routes.
///
/// # Errors
///
/// [`NetlinkError::Socket`] where the socket fails, `Refused` where the kernel answers with an error, `Malformed` and
/// `Unstable` where the answer cannot be used.
pub(super) fn dump<T>(
    request: u16,
    body: &[u8],
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, NetlinkError> {
    let socket = open()?;
    for seq in 1..=DUMP_ATTEMPTS {
        let seq = u32::try_from(seq).unwrap_or(u32::MAX);
        socket.send(&message(request, libc::NLM_F_DUMP, seq, body), 0)?;
        if let Some(messages) = receive_dump(&socket, request, seq, &parse)? {
            return Ok(messages);
        }
    }
    Err(NetlinkError::Unstable { request })
}

/// Asks for one thing and returns what `parse` makes of the body of the answer; `None` where it makes nothing of it.
///
/// # Errors
///
/// [`NetlinkError::Socket`] where the socket fails, `Refused` where the kernel answers with an error, as where there is
/// no such thing, `Malformed` where the answer cannot be used.
pub(super) fn ask<T>(
    request: u16,
    body: &[u8],
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<T>, NetlinkError> {
    let socket = open()?;
    socket.send(&message(request, 0, 1, body), 0)?;
    receive_one(&socket, request, parse)
}

/// Has the kernel do something, which makes what it is about where that is not there.
///
/// # Errors
///
/// Those of [`ask`].
pub(super) fn command(request: u16, body: &[u8]) -> Result<(), NetlinkError> {
    let socket = open()?;
    socket.send(&message(request, libc::NLM_F_CREATE | libc::NLM_F_ACK, 1, body), 0)?;
    receive_one(&socket, request, |_body| Some(()))?;
    Ok(())
}

fn open() -> Result<Socket, NetlinkError> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Reads an answer that is one message: the thing asked for, or an error, whose number is 0 where all is well.
fn receive_one<T>(
    socket: &Socket,
    request: u16,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<T>, NetlinkError> {
    let malformed = || NetlinkError::Malformed { request };
    let mut datagram = Vec::with_capacity(RECEIVE_BYTES);
    socket.recv(&mut datagram, 0)?;
    let Message { kind, body, .. } = next_message(&mut datagram.as_slice()).ok_or_else(malformed)?;
    if i32::from(kind) != libc::NLMSG_ERROR {
        return Ok(parse(body));
    }
    match read_u32(body, 0).ok_or_else(malformed)?.cast_signed() {
        0 => Ok(None),
        errno => {
            let source = io::Error::from_raw_os_error(errno.saturating_neg());
            Err(NetlinkError::Refused { request, source })
        }
    }
}

/// A message of rtnetlink.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// Its type, an `RTM_*` or `NLMSG_*`.
    pub(super) kind: u16,
    flags: u16,
    seq: u32,
    /// All that follows its header.
    pub(super) body: &'a [u8],
}

/// Takes the first message off `rest`; `None` where that does not begin with one.
pub(super) fn next_message<'a>(rest: &mut &'a [u8]) -> Option<Message<'a>> {
    let len = usize::try_from(read_u32(rest, 0)?).ok()?;
    let (kind, flags, seq) = (read_u16(rest, 4)?, read_u16(rest, 6)?, read_u32(rest, 8)?);
    let body = rest.get(HEADER_LEN..len)?;
    *rest = rest.get(len.next_multiple_of(size_of::<u32>())..).unwrap_or_default();
    Some(Message { kind, flags, seq, body })
}

/// The attributes of `body` after its first `fixed_len` bytes: type and value. Ends at the first malformed one.
pub(super) fn attributes(body: &[u8], fixed_len: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(fixed_len..).unwrap_or_default();
    std::iter::from_fn(move || {
        let len = usize::from(read_u16(rest, 0)?);
        let kind = read_u16(rest, 2)? & TYPE_MASK;
        let value = rest.get(ATTRIBUTE_HEADER_LEN..len)?;
        rest = rest.get(len.next_multiple_of(ATTRIBUTE_HEADER_LEN)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The string that an attribute holds, without its closing zero; `None` where it is not text.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    std::str::from_utf8(value.get(..end)?).ok()
}

/// The integer in the machine's byte order at `offset`.
pub(super) fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The 16-bit integer in the machine's byte order at `offset`.
pub(super) fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn message(request: u16, flags: i32, seq: u32, body: &[u8]) -> Vec<u8> {
    let flags = u16::try_from(libc::NLM_F_REQUEST | flags).unwrap_or_default();
    let len = u32::try_from(HEADER_LEN + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER_LEN + body.len());
    message.extend_from_slice(&len.to_ne_bytes());
    message.extend_from_slice(&request.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&seq.to_ne_bytes());
    message.extend_from_slice(&0_u32.to_ne_bytes());
    message.extend_from_slice(body);
    message
}

/// Reads one dump to its end; `None` where it was interrupted by a change and must be asked for again.
fn receive_dump<T>(
    socket: &Socket,
    request: u16,
    seq: u32,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<Vec<T>>, NetlinkError> {
    let malformed = || NetlinkError::Malformed { request };
    let interrupted_bit = u16::try_from(libc::NLM_F_DUMP_INTR).unwrap_or_default();
    let mut messages = Vec::new();
    let mut is_interrupted = false;
    let mut datagram = Vec::with_capacity(RECEIVE_BYTES);
    loop {
        datagram.clear();
        let received = socket.recv(&mut datagram, libc::MSG_TRUNC)?;
        if received > datagram.len() || received == 0 {
            return Err(malformed());
        }
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let Message { kind, flags, seq: answered, body } =
                next_message(&mut rest).ok_or_else(malformed)?;
            if answered != seq {
                continue;
            }
            is_interrupted |= flags & interrupted_bit != 0;
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok((!is_interrupted).then_some(messages)),
                libc::NLMSG_ERROR => {
                    let errno = read_u32(body, 0).ok_or_else(malformed)?.cast_signed();
                    let source = io::Error::from_raw_os_error(errno.saturating_neg());
                    return Err(NetlinkError::Refused { request, source });
                }
                libc::NLMSG_NOOP => {}
                _ => messages.extend(parse(body)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_end_at_the_first_malformed_one() {
        let bytes = [9, 9, 5, 0, 3, 0x80, b'x', 0, 0, 0, 3, 0, 1, 0];
        let read: Vec<_> = attributes(&bytes, 2).collect();
        assert_eq!(read, [(3, &b"x"[..])]);
    }

    #[test]
    fn text_ends_at_its_zero() {
        assert_eq!(text(b"eth0\0\0"), Some("eth0"));
        assert_eq!(text(b"eth0"), Some("eth0"));
        assert_eq!(text(&[0xff, 0]), None);
    }

    #[test]
    fn a_refused_request_says_why() {
        let error = dump(0xfff0, &[], |_| Some(())).unwrap_err();
        assert!(matches!(error, NetlinkError::Refused { request: 0xfff0, .. }), "{error:?}");
    }
}
