//! Enters: bytes for the shadow and bytes from it. Leaves: the same, through TLS where the target speaks it.

use std::{
    future::poll_fn,
    io::{self, ErrorKind, IoSlice, Read, Write},
    mem::{self, MaybeUninit},
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls::ClientConnection;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};
use tracing::debug;

use super::{clock, sys, tls::Tls};
use crate::pipeline::Timestamp;

/// A connection that bytes can be written to by whoever holds it, while one task waits for what comes.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Speaks TLS over `tcp` from here on.
    ///
    /// # Errors
    ///
    /// The handshake failed; a [`rustls::Error`] is inside where the protocol did.
    pub(super) async fn secure(tcp: TcpStream, tls: &Tls) -> io::Result<Self> {
        let session = tls.session().map_err(invalid)?;
        let mut stream = TlsStream { tcp, session, owed: 0, has_left: false, broken: None };
        stream.handshake().await?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Writes as much of `head` and then `body` as is taken at once, and returns how much that is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`] where that is nothing; any other error means that not a byte was accepted and none will
    /// be.
    pub(super) fn try_write(&mut self, head: &[u8], body: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) if body.is_empty() => tcp.try_write(head),
            Self::Plain(tcp) => tcp.try_write_vectored(&[IoSlice::new(head), IoSlice::new(body)]),
            Self::Tls(tls) => tls.try_write(head, body),
        }
    }

    /// The same, for the task, which is woken when there is room.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        body: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => {
                Pin::new(tcp).poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(body)])
            }
            Self::Tls(tls) => loop {
                match tls.try_write(head, body) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        ready!(tls.tcp.poll_write_ready(cx))?;
                    }
                    written => return Poll::Ready(written),
                }
            },
        }
    }

    /// Reads what has come; nothing means that the shadow has closed its side.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, input),
            Self::Tls(tls) => tls.poll_read(cx, input),
        }
    }

    /// Whether nothing has come that was not read: neither bytes, nor the end.
    pub(super) fn is_silent(&self) -> bool {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.tcp,
        };
        let peeked = SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]);
        peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Whether bytes were taken that have not left: they will, unless the connection is given up.
    pub(super) const fn has_taken(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.owed > 0,
        }
    }

    /// Has the kernel note when bytes arrive, for [`Self::poll_read_stamped`]. Where it does not, they are taken to arrive
    /// when they are read.
    pub(super) fn stamp_arrivals(&self) {
        if let Self::Plain(tcp) = self
            && let Err(error) = sys::stamp_arrivals(tcp.as_fd())
        {
            debug!(%error, "The kernel does not tell when answers arrive.");
        }
    }

    /// The same as [`Self::poll_read`], and tells when the last of what was read arrived, where the kernel noted that:
    /// what comes through TLS was read before it is known what it is.
    pub(super) fn poll_read_stamped(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Option<Timestamp>>> {
        let Self::Plain(tcp) = self else {
            ready!(self.poll_read(cx, input))?;
            return Poll::Ready(Ok(None));
        };
        loop {
            ready!(tcp.poll_read_ready(cx))?;
            let room = input.initialize_unfilled();
            let mut came = None;
            let read = tcp.try_io(Interest::READABLE, || {
                let (len, arrived) = sys::receive(tcp.as_fd(), room)?;
                came = Some((len, arrived));
                // Where there is room left, all was read: to say so now saves the read that would find nothing.
                if (1..room.len()).contains(&len) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (came, read) {
                (Some((len, arrived)), _) => {
                    input.advance(len);
                    return Poll::Ready(Ok(arrived.map(clock::of_wall)));
                }
                (None, Err(error)) if error.kind() != ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                (None, _) => {}
            }
        }
    }

    /// The shortest round trip that the kernel has seen on this connection.
    pub(super) fn shortest_round_trip(&self) -> Option<Duration> {
        sys::shortest_round_trip(match self {
            Self::Plain(tcp) => tcp.as_fd(),
            Self::Tls(tls) => tls.tcp.as_fd(),
        })
    }

    /// Writes all of `bytes`.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let accepted = poll_fn(|cx| self.poll_write(cx, rest, &[])).await?;
            if accepted == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            rest = rest.get(accepted..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads what has come; 0 means that the shadow has closed its side.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut input = ReadBuf::new(buffer);
        poll_fn(|cx| self.poll_read(cx, &mut input)).await?;
        Ok(input.filled().len())
    }

    /// Closes the connection.
    pub(super) fn close(self) {
        if let Self::Tls(mut tls) = self
            && tls.owed == 0
        {
            tls.session.send_close_notify();
            // A farewell: where there is no room for it, the end of the connection says the same.
            drop(tls.flush());
        }
    }
}

/// A TLS session over a connection.
#[derive(Debug)]
pub(super) struct TlsStream {
    tcp: TcpStream,
    session: ClientConnection,
    /// Bytes that the session has taken and the caller was not told of as accepted: something that was made of them has
    /// not left.
    owed: usize,
    /// Whether the socket has accepted a byte since the session took the first of those.
    has_left: bool,
    /// Why nothing more can be read of it but what is decrypted already.
    broken: Option<rustls::Error>,
}

impl TlsStream {
    async fn handshake(&mut self) -> io::Result<()> {
        while self.session.is_handshaking() || self.session.wants_write() {
            match self.flush() {
                Ok(()) if !self.session.is_handshaking() => break,
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.tcp.writable().await?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.tcp.readable().await?;
            let received = self.receive();
            if let Some(error) = self.broken.take() {
                return Err(invalid(error));
            }
            match received {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A byte is accepted once all that was made of it has left, with one exception: as soon as anything has left, all
    /// but the last byte taken are, so that the caller knows that the copy is on its way.
    fn try_write(&mut self, head: &[u8], body: &[u8]) -> io::Result<usize> {
        if let Some(error) = &self.broken {
            return Err(invalid(error.clone()));
        }
        let mut accepted = 0;
        loop {
            if let Err(error) = self.flush() {
                if self.has_left {
                    accepted += self.owed.saturating_sub(1);
                    self.owed = self.owed.min(1);
                }
                // What went wrong is met again by the next write.
                return if accepted > 0 { Ok(accepted) } else { Err(error) };
            }
            accepted += mem::take(&mut self.owed);
            if accepted >= head.len() + body.len() {
                return Ok(accepted);
            }
            let body_start = accepted.saturating_sub(head.len());
            self.owed = self.session.writer().write_vectored(&[
                IoSlice::new(head.get(accepted..).unwrap_or_default()),
                IoSlice::new(body.get(body_start..).unwrap_or_default()),
            ])?;
            self.has_left = false;
            if self.owed == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, input: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.session.reader().read(input.initialize_unfilled()) {
                Ok(len) => {
                    input.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The connection ended without the session's farewell: what is missing, an attacker may have cut off.
                Err(error) => return Poll::Ready(Err(error)),
            }
            if let Some(error) = &self.broken {
                return Poll::Ready(Err(invalid(error.clone())));
            }
            self.poll_flush(cx);
            ready!(self.tcp.poll_read_ready(cx))?;
            match self.receive() {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Hands what has come to the session; 0 at the end of the connection.
    fn receive(&mut self) -> io::Result<usize> {
        let len = self.session.read_tls(&mut Socket(&self.tcp))?;
        // What came before that, an answer perhaps, is there to be read.
        self.broken = self.session.process_new_packets().err();
        // What the session has to say to that: an alert, or new keys. What does not fit goes as soon as there is room.
        drop(self.flush());
        Ok(len)
    }

    /// Sends what the session has to say of its own accord, and has the task woken when there is room for the rest. What is made
    /// of copies is left to those who write them, who have to learn of it. What went wrong is met again by the next of them.
    fn poll_flush(&mut self, cx: &mut Context<'_>) {
        while self.owed == 0 && self.session.wants_write() {
            match self.flush() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !matches!(self.tcp.poll_write_ready(cx), Poll::Ready(Ok(()))) {
                        return;
                    }
                }
                Ok(()) | Err(_) => return,
            }
        }
    }

    /// Sends all that the session has to send.
    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            if self.session.write_tls(&mut Socket(&self.tcp))? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.has_left = true;
        }
        Ok(())
    }
}

/// The socket as a session wants it: what would wait fails.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, input: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(input)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, output: &[u8]) -> io::Result<usize> {
        self.0.try_write(output)
    }

    fn write_vectored(&mut self, output: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(output)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}
