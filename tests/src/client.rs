//! Enters: bytes cut as one likes. Leaves: the server's answers. A client that says exactly what it is told to.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use socket2::SockRef;

use crate::{
    http::{self, BodyScan, Framing},
    netns::Host,
    slowness::slowed,
};

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The head, the empty line included.
    pub head: Vec<u8>,
    /// The body as on the wire.
    pub body: Vec<u8>,
}

impl Response {
    /// The status code.
    #[must_use]
    pub fn code(&self) -> String {
        String::from_utf8_lossy(http::second_word(&self.head)).into_owned()
    }
}

/// A connection.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    /// Bytes read beyond the last answer.
    input: Vec<u8>,
}

impl RawClient {
    /// Connects from a host. Every write goes out at once, and no read waits for more than five seconds, longer on a machine
    /// that is [slow](slowed).
    ///
    /// # Errors
    ///
    /// The connection is refused or takes longer than two seconds, or than is waited here.
    pub fn connect(host: &Host, target: SocketAddr) -> Result<Self> {
        let stream = host.within(|| {
            TcpStream::connect_timeout(&target, slowed(Duration::from_secs(2)))
                .with_context(|| format!("connect from {} to {target}", host.name()))
        })?;
        Self::over(stream, slowed(Duration::from_secs(5)))
    }

    /// Takes a connection that is there; no read or write waits for longer than `patience`.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn over(stream: TcpStream, patience: Duration) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream, input: Vec::new() })
    }

    /// Sends bytes.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("send")
    }

    /// Sends each piece as a segment of its own, with a pause between them that keeps them apart.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn send_pieces<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
        for (index, piece) in pieces.into_iter().enumerate() {
            if index > 0 {
                thread::sleep(Duration::from_micros(500));
            }
            self.send(piece)?;
        }
        Ok(())
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    ///
    /// The connection is gone, or no answer comes.
    pub fn ask(&mut self, request: &[u8]) -> Result<Response> {
        self.send(request)?;
        self.read_response(request.starts_with(b"HEAD "))
    }

    /// Reads the next answer, interim ones included; `head_only` for an answer to HEAD.
    ///
    /// # Errors
    ///
    /// The connection ends first, or nothing comes for as long as is waited.
    pub fn read_response(&mut self, head_only: bool) -> Result<Response> {
        let head_len = loop {
            if let Some(length) = http::head_len(&self.input) {
                break length;
            }
            if self.read_more()? == 0 {
                bail!("connection ended in a head, after {:?}", String::from_utf8_lossy(&self.input));
            }
        };
        let framing = http::response_framing(&self.input[..head_len], head_only);
        let mut scan = BodyScan::new(framing);
        let mut end = head_len;
        loop {
            end += scan.advance(&self.input[end..]);
            if scan.is_done() {
                break;
            }
            if self.read_more()? == 0 {
                if framing == Framing::UntilClose {
                    break;
                }
                bail!("connection ended in a body");
            }
        }
        let rest = self.input.split_off(end);
        let body = self.input.split_off(head_len);
        Ok(Response { head: std::mem::replace(&mut self.input, rest), body })
    }

    /// Reads exactly so many bytes, of whatever protocol.
    ///
    /// # Errors
    ///
    /// The connection ends first, or nothing comes for as long as is waited.
    pub fn read_exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.input.len() < length {
            if self.read_more()? == 0 {
                bail!("connection ended");
            }
        }
        let rest = self.input.split_off(length);
        Ok(std::mem::replace(&mut self.input, rest))
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn finish(&self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Ends the connection with RST.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn reset(self) -> Result<()> {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
        Ok(())
    }

    fn read_more(&mut self) -> Result<usize> {
        let mut scratch = [0; 16 * 1024];
        // A machine that was stopped for a moment interrupts a read that has a time limit (signal(7)).
        let read = loop {
            match self.stream.read(&mut scratch) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.context("read an answer")?,
            }
        };
        self.input.extend_from_slice(&scratch[..read]);
        Ok(read)
    }
}
