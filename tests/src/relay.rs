//! Enters: connections to a host. Leaves: the same at another, as a proxy has them that looks into nothing.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::Result;

use crate::netns::Host;

/// Passes every connection to a port of `host` on to `to`. Returns the host's address with that port.
///
/// # Errors
///
/// The host has no port left, or no thread.
pub fn relay(host: &Host, to: SocketAddr) -> Result<SocketAddr> {
    let listener = host.within(|| Ok(TcpListener::bind(("0.0.0.0", 0))?))?;
    let way = host.at_v4(listener.local_addr()?.port());
    host.spawn("relay", move || {
        for stream in listener.incoming() {
            let (near, far) = (stream?, TcpStream::connect(to)?);
            for (mut from, mut into) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
                thread::spawn(move || {
                    drop(io::copy(&mut from, &mut into));
                    drop(into.shutdown(Shutdown::Write));
                });
            }
        }
        Ok(())
    })?;
    Ok(way)
}
