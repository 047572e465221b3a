//! Enters: an address of the shadow. Leaves: a connection to it that the capture knows to be the agent's own.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tracing::warn;

use super::{stream::Stream, tls::Tls};

/// Who has to know which local sockets are the agent's own, so that their traffic is never mirrored.
pub trait OwnSocketRegistry: Send + Sync {
    /// A connection from `local` was opened; its socket bears the mark where it `is_marked`. Nothing is sent on it before
    /// this returns.
    fn opened(&self, local: SocketAddr, is_marked: bool);

    /// The connection from `local` was closed.
    fn closed(&self, local: SocketAddr);
}

/// Opens connections.
pub(super) struct Connector {
    registry: Arc<dyn OwnSocketRegistry>,
    /// `SO_MARK` of the sockets; 0 for none.
    mark: u32,
    /// `None` where the target does not speak TLS.
    tls: Option<Tls>,
    has_warned: AtomicBool,
}

impl Connector {
    pub(super) fn new(registry: Arc<dyn OwnSocketRegistry>, mark: u32, tls: Option<Tls>) -> Self {
        Self { registry, mark, tls, has_warned: AtomicBool::new(false) }
    }

    /// How sessions are opened; `None` where the target does not speak TLS.
    pub(super) const fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Connects to `addr`, and opens a TLS session where the target wants one. The registration has to outlive the
    /// stream.
    pub(super) async fn open(&self, addr: SocketAddr) -> io::Result<(Stream, Registration)> {
        self.open_from(None, addr).await
    }

    /// The same from a local end, where one is given.
    pub(super) async fn open_from(
        &self,
        from: Option<SocketAddr>,
        addr: SocketAddr,
    ) -> io::Result<(Stream, Registration)> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_nodelay(true)?;
        if let Some(from) = from {
            // A server that comes for this port meanwhile gets it all the same, as most ask for it with the same option.
            socket.set_reuseaddr(true)?;
            socket.bind(from)?;
        }
        let is_marked = self.mark != 0 && self.mark(&socket);
        let tcp = socket.connect(addr).await?;
        let local = tcp.local_addr()?;
        self.registry.opened(local, is_marked);
        let registration = Registration { registry: Arc::clone(&self.registry), local };
        Ok((self.secure(tcp).await?, registration))
    }

    /// Whether the socket could be marked. Without it the registry and the marker headers still tell copies from live
    /// requests.
    fn mark(&self, socket: &TcpSocket) -> bool {
        let Err(error) = SockRef::from(socket).set_mark(self.mark) else { return true };
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            warn!(%error, "Cannot mark replay sockets; CAP_NET_ADMIN is missing.");
        }
        false
    }

    async fn secure(&self, tcp: TcpStream) -> io::Result<Stream> {
        match &self.tls {
            Some(tls) => Stream::secure(tcp, tls).await,
            None => Ok(Stream::Plain(tcp)),
        }
    }
}

/// The entry of one connection in the registry.
pub(super) struct Registration {
    registry: Arc<dyn OwnSocketRegistry>,
    local: SocketAddr,
}

impl Registration {
    /// The local end of the connection.
    pub(super) const fn local(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.closed(self.local);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::{super::tests::Sockets, *};

    #[tokio::test]
    async fn connections_of_both_families_are_marked_registered_and_without_delay() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(host).await.unwrap();
            let sockets = Arc::<Sockets>::default();
            let connector = Connector::new(Arc::<Sockets>::clone(&sockets), 0x4d52, None);
            let (stream, registration) = connector.open(listener.local_addr().unwrap()).await.unwrap();
            let Stream::Plain(stream) = stream else { panic!("TLS without being told to") };
            assert!(stream.nodelay().unwrap());
            assert!(sockets.contains(stream.local_addr().unwrap()));
            if connector.has_warned.load(Ordering::Relaxed) {
                println!("mark not checked: CAP_NET_ADMIN is missing");
            } else {
                assert_eq!(SockRef::from(&stream).mark().unwrap(), 0x4d52);
            }
            drop((stream, registration));
            assert_eq!(sockets.open(), 0);
        }
    }
}
