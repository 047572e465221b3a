//! Enters: where an agent is asked, by its socket or its TCP listener. Leaves: a connection to it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use clap::Args;

use super::CtlError;
use crate::io::control::{DEFAULT_SOCKET, Token};

/// How long the agent may take to answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Where the agent is asked.
#[derive(Args, Clone, Debug)]
pub struct PlaceArgs {
    /// The control socket of the agent.
    #[arg(long, default_value = DEFAULT_SOCKET, value_name = "PATH", global = true)]
    pub socket: PathBuf,

    /// Ask over TCP in place of the socket: the address of the agent's control listener.
    #[arg(long, value_name = "ADDR", global = true)]
    pub address: Option<SocketAddr>,

    /// The file with the token of that listener.
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
}

/// Bytes both ways.
pub(super) trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

impl PlaceArgs {
    /// The agent at this socket.
    #[must_use]
    pub const fn at(socket: PathBuf) -> Self {
        Self { socket, address: None, token_file: None }
    }

    /// Connects; with it come the header lines that a request there has to have.
    pub(super) fn connect(&self) -> Result<(Box<dyn Stream>, String), CtlError> {
        let Some(address) = self.address else {
            return Ok((Box::new(self.connect_socket()?), "Host: localhost\r\n".to_owned()));
        };
        let path = self.token_file.clone().ok_or(CtlError::NoToken)?;
        let token = Token::read(&path).map_err(|source| CtlError::Token { path, source })?;
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)
            .map_err(|source| CtlError::NoListener { address, source })?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let lines = format!("Host: {address}\r\nAuthorization: Bearer {}\r\n", token.as_str());
        Ok((Box::new(stream), lines))
    }

    fn connect_socket(&self) -> Result<UnixStream, CtlError> {
        let stream = UnixStream::connect(&self.socket).map_err(|source| {
            let path = self.socket.clone();
            if source.kind() == io::ErrorKind::PermissionDenied {
                return CtlError::Forbidden { path };
            }
            CtlError::NoAgent { path, source }
        })?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(stream)
    }
}
