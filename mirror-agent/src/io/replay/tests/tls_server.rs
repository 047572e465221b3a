//! Enters: TLS connections from the replay. Leaves: whatever answer a test wants, and what was received.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    version::TLS12,
};
use tempfile::TempDir;

/// An authority of a test, with its certificate in a file.
pub(in crate::io) struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(in crate::io) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { dir: TempDir::new().unwrap(), issuer };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    pub(in crate::io) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub(in crate::io) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Files of a certificate for `name` and of its key.
    pub(super) fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let certificate = params(&[name]).signed_by(&key, &self.issuer).unwrap();
        let write = |kind: &str, text: &str| self.write(&format!("{name}.{kind}"), text);
        (write("pem", &certificate.pem()), write("key", &key.serialize_pem()))
    }

    /// A server with a certificate for `names`.
    pub(in crate::io) fn server(&self, names: &[&str]) -> ServerConfig {
        self.server_with(params(names))
    }

    /// One whose certificate has run out.
    pub(super) fn expired_server(&self, names: &[&str]) -> ServerConfig {
        let mut params = params(names);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        self.server_with(params)
    }

    fn server_with(&self, params: CertificateParams) -> ServerConfig {
        let (chain, key) = self.chain(params);
        builder()
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap()
    }

    /// One that wants a certificate of this authority from its client.
    pub(super) fn strict_server(&self, names: &[&str], only_tls12: bool) -> ServerConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()));
        let (chain, key) = self.chain(params(names));
        let builder = if only_tls12 {
            builder().with_protocol_versions(&[&TLS12])
        } else {
            builder().with_safe_default_protocol_versions()
        };
        builder
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap()
    }

    fn chain(&self, params: CertificateParams) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVersions> {
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
}

/// A shadow on loopback that speaks TLS and serves each connection with the same script.
pub(in crate::io) struct TlsServer {
    pub(in crate::io) addr: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(in crate::io) struct Received {
    /// 0 for those of the first connection.
    pub(super) connection: usize,
    pub(super) server_name: Option<String>,
    pub(super) alpn: Option<Vec<u8>>,
    pub(super) is_resumed: bool,
    pub(in crate::io) bytes: Vec<u8>,
}

impl TlsServer {
    /// Runs `script` for each connection, in a thread of its own.
    pub(super) fn start(
        host: &str,
        mut config: ServerConfig,
        script: impl Fn(&mut Peer) + Clone + Send + 'static,
    ) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let listener = TcpListener::bind((host, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let log = Arc::clone(&received);
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                let stream = StreamOwned::new(session, stream.unwrap());
                let mut peer = Peer { stream, connection, log: Arc::clone(&log) };
                let script = script.clone();
                thread::spawn(move || script(&mut peer));
            }
        });
        Self { addr, received }
    }

    /// Answers every request with the same bytes and keeps the connection open.
    pub(in crate::io) fn answering(host: &str, config: ServerConfig, response: &'static [u8]) -> Self {
        Self::start(host, config, move |peer| {
            while peer.request().is_some() {
                peer.send(response);
            }
        })
    }

    pub(in crate::io) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

/// The server's end of one connection.
pub(super) struct Peer {
    pub(super) stream: StreamOwned<ServerConnection, TcpStream>,
    pub(super) connection: usize,
    log: Arc<Mutex<Vec<Received>>>,
}

impl Peer {
    /// Reads one request, whole; `None` when the connection has ended.
    pub(super) fn request(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).ok()?;
            bytes.extend(byte);
        }
        let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((_, length)) = head.split_once("content-length: ") {
            let mut body = vec![0; length.split_once('\r')?.0.parse().ok()?];
            self.stream.read_exact(&mut body).ok()?;
            bytes.extend(body);
        }
        self.log.lock().unwrap().push(Received {
            connection: self.connection,
            server_name: self.stream.conn.server_name().map(str::to_owned),
            alpn: self.stream.conn.alpn_protocol().map(<[u8]>::to_vec),
            is_resumed: self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
            bytes: bytes.clone(),
        });
        Some(bytes)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        // The replay may have closed the connection; what that means is for the test to find out.
        drop(self.stream.write_all(bytes).and_then(|()| self.stream.flush()));
    }

    /// Says farewell and closes the connection.
    pub(super) fn close(&mut self) {
        self.stream.conn.send_close_notify();
        drop(self.stream.flush());
    }
}
