//! Enters: connections from the replay. Leaves: whatever answer a test wants, and what was received.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A shadow on loopback that serves each connection with the same script.
pub(super) struct Server {
    pub(super) addr: SocketAddr,
    received: Received,
    task: JoinHandle<()>,
}

/// All requests received: number of the connection and the bytes.
type Received = Arc<Mutex<Vec<(usize, Vec<u8>)>>>;

impl Server {
    /// Runs `script` for each connection.
    pub(super) async fn start<F>(script: impl Fn(Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen(TcpListener::bind("127.0.0.1:0").await.unwrap(), usize::MAX, script)
    }

    /// Answers every request with the same bytes, and refuses connections after so many.
    pub(super) async fn refusing_after(count: usize, response: &'static [u8]) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").await.unwrap(), count, move |peer| {
            peer.answer_all(response)
        })
    }

    /// Answers every request with the same bytes, at an address that is known before.
    pub(super) async fn at(addr: SocketAddr, response: &'static [u8]) -> Self {
        Self::listen(TcpListener::bind(addr).await.unwrap(), usize::MAX, move |peer| {
            peer.answer_all(response)
        })
    }

    fn listen<F>(listener: TcpListener, count: usize, script: impl Fn(Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let addr = listener.local_addr().unwrap();
        let received = Received::default();
        let log = Arc::clone(&received);
        let task = tokio::spawn(async move {
            for number in 0..count {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(script(Peer { stream, number, log: Arc::clone(&log) }));
            }
        });
        Self { addr, received, task }
    }

    /// Answers every request with the same bytes and keeps the connection open.
    pub(super) async fn answering(response: &'static [u8]) -> Self {
        Self::start(move |peer| peer.answer_all(response)).await
    }

    /// The requests received so far, markers cut out.
    pub(super) fn requests(&self) -> Vec<String> {
        self.received.lock().unwrap().iter().map(|(_, bytes)| bytes.escape_ascii().to_string()).collect()
    }

    /// For each request received the number of the connection that it came on.
    pub(super) fn connections(&self) -> Vec<usize> {
        self.received.lock().unwrap().iter().map(|(number, _)| *number).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The server's end of one connection.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    /// 0 for the first connection.
    pub(super) number: usize,
    log: Received,
}

impl Peer {
    /// Reads one request, whole; `None` when the connection has ended.
    pub(super) async fn request(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(self.stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((_, length)) = head.split_once("content-length: ") {
            let mut body = vec![0; length.split_once('\r').unwrap().0.parse().unwrap()];
            self.stream.read_exact(&mut body).await.ok()?;
            bytes.extend(body);
        }
        self.log.lock().unwrap().push((self.number, bytes.clone()));
        Some(bytes)
    }

    /// Answers every request with the same bytes, until the connection has ended.
    async fn answer_all(mut self, response: &'static [u8]) {
        while self.request().await.is_some() {
            self.send(response).await;
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        // The replay may have closed the connection; what that means is for the test to find out.
        drop(self.stream.write_all(bytes).await);
    }

    /// Waits until the replay closes the connection.
    pub(super) async fn closed(&mut self) {
        drop(tokio::io::copy(&mut self.stream, &mut tokio::io::sink()).await);
    }
}
