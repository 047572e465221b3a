//! Enters: how a target that speaks TLS is known. Leaves: sessions with it, or why there is none.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, Error as ProtocolError,
    RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject},
};

use tracing::warn;

use super::{Target, certificates::Stamps};
use crate::io::{config::TlsConfig, ledger::CopyBooks};

/// Why a target cannot be spoken to by TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The target is `http://`.
    #[error("{target} does not speak TLS: write https://, or leave out what is said of certificates")]
    Plain {
        /// The target.
        target: String,
    },
    /// The system trusts nobody, or does not say whom.
    #[error("this system has no certificate authorities to trust: name a file of them")]
    NoAuthorities {
        /// What went wrong where they were looked for; `None` where there simply are none.
        source: Option<rustls_native_certs::Error>,
    },
    /// A file cannot be read, or has not the shape of PEM.
    #[error("cannot read {what} from {}", path.display())]
    File {
        /// What is looked for in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A file holds nothing of what is looked for.
    #[error("there are no {what} in {}", path.display())]
    Empty {
        /// What is looked for in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A certificate in a file is none that can be trusted.
    #[error("a certificate authority in {} cannot be used", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ProtocolError,
    },
    /// There is a certificate of the client without its key, or a key without its certificate.
    #[error("a client certificate and its key go together: name both files")]
    HalfAClient,
    /// The certificate of the client cannot be used, or is not that of the key.
    #[error("the client certificate in {} cannot be used with the key", path.display())]
    Client {
        /// The file of the certificate.
        path: PathBuf,
        /// What is wrong with it.
        source: ProtocolError,
    },
    /// The name that the certificate must have is neither a name nor an address.
    #[error("\"{name}\" is not a name that a certificate can have")]
    Name {
        /// What was given.
        name: String,
    },
    /// The protocol cannot be had as it is configured.
    #[error("TLS is not to be had")]
    Protocol(#[from] ProtocolError),
}

/// How sessions with one target are opened. They are resumed where the target allows it.
#[derive(Clone)]
pub(super) struct Tls {
    /// What was said of certificates.
    keys: TlsConfig,
    name: ServerName<'static>,
    current: Arc<Mutex<Current>>,
}

/// What the files held when they were read last.
struct Current {
    config: Arc<ClientConfig>,
    /// When they were looked at last, whether they could be used or not.
    stamps: Stamps,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration holds a key.
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files; `None` for a target that does not speak TLS.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: a file that cannot be used, a system without authorities, keys for a target without TLS.
    pub(super) fn new(target: &Target, keys: &TlsConfig) -> Result<Option<Self>, TlsError> {
        if !target.is_tls() {
            return match *keys == TlsConfig::default() {
                true => Ok(None),
                false => Err(TlsError::Plain { target: target.to_string() }),
            };
        }
        let name = keys.server_name.clone().unwrap_or_else(|| target.host());
        // RFC 6066 section 3: without the dot at the end, which a resolver wants.
        let Ok(name) = ServerName::try_from(name.trim_end_matches('.').to_owned()) else {
            return Err(TlsError::Name { name });
        };
        // Before they are read: what changes meanwhile is found by the next look.
        let stamps = Stamps::of(keys);
        let current = Current { config: configure(keys)?, stamps };
        Ok(Some(Self { keys: keys.clone(), name, current: Arc::new(Mutex::new(current)) }))
    }

    /// Reads the files again if one of them is another since the last look; whether it is. Sessions that are opened from then on
    /// are by what was read; where that cannot be used, by what was read before. May take as long as the disk does.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: a file that cannot be used. It is told once.
    pub(super) fn look_again(&self) -> Result<bool, TlsError> {
        let stamps = Stamps::of(&self.keys);
        if self.lock().stamps == stamps {
            return Ok(false);
        }
        self.lock().stamps = stamps;
        let config = configure(&self.keys)?;
        self.lock().config = config;
        Ok(true)
    }

    /// Whether anything of it stands in files that are named.
    pub(super) fn has_files(&self) -> bool {
        !self.lock().stamps.is_empty()
    }

    /// A session that has not said anything yet.
    pub(super) fn session(&self) -> Result<ClientConnection, ProtocolError> {
        let config = Arc::clone(&self.lock().config);
        ClientConnection::new(config, self.name.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // Each part is replaced as a whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the files.
fn configure(keys: &TlsConfig) -> Result<Arc<ClientConfig>, TlsError> {
    // The provider is named each time: nothing depends on one that was installed for the process.
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier(keys, provider)?);
    let mut config = match (&keys.client_certificate, &keys.client_key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(path), Some(key)) => {
            let chain = certificates("certificates", path)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
                what: "a private key",
                path: key.clone(),
                source,
            })?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|source| TlsError::Client { path: path.clone(), source })?
        }
        (Some(_), None) | (None, Some(_)) => return Err(TlsError::HalfAClient),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Whether what is said of a target's certificates can be used: the files and the name. Whom this system trusts does not
/// matter; the target may be used by another.
///
/// # Errors
///
/// All variants of [`TlsError`] but [`TlsError::NoAuthorities`].
pub fn check_certificates(target: &Target, keys: &TlsConfig) -> Result<(), TlsError> {
    match Tls::new(target, keys) {
        Err(TlsError::NoAuthorities { .. }) => {
            Tls::new(target, &TlsConfig { insecure_skip_verify: true, ..keys.clone() }).map(|_tls| ())
        }
        tried => tried.map(|_tls| ()),
    }
}

fn verifier(
    keys: &TlsConfig,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    if keys.insecure_skip_verify {
        return Ok(Arc::new(Unchecked(provider.signature_verification_algorithms.supported_schemes())));
    }
    let mut roots = RootCertStore::empty();
    if let Some(path) = &keys.ca_file {
        for certificate in certificates("certificate authorities", path)? {
            roots.add(certificate).map_err(|source| TlsError::Authority { path: path.clone(), source })?;
        }
    } else {
        // One of the system's that is odd must not keep the others from being trusted.
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        if roots.is_empty() {
            return Err(TlsError::NoAuthorities { source: system.errors.into_iter().next() });
        }
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map(|verifier| verifier as Arc<dyn ServerCertVerifier>)
        .map_err(|error| ProtocolError::General(error.to_string()).into())
}

/// All certificates of a PEM file; never none.
fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { what, path: path.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { what, path: path.to_owned() });
    }
    Ok(certificates)
}

/// Warns of certificates that do not fit the configuration: nothing but a change of one of them helps. Every connection
/// meets them; the log holds back what repeats.
#[derive(Debug)]
pub(super) struct Complaints {
    books: Arc<CopyBooks>,
}

impl Complaints {
    pub(super) fn new(books: &Arc<CopyBooks>) -> Self {
        Self { books: Arc::clone(books) }
    }

    /// Takes what went wrong with a connection, and warns if it is that.
    pub(super) fn hear(&self, error: &io::Error) {
        if is_about_certificates(error) {
            let (experiment, target) = (self.books.experiment(), self.books.target());
            warn!(experiment, target, %error, "No TLS session with the shadow: certificates do not fit.");
        }
    }
}

/// Whether `error` says that certificate and configuration do not fit together, which does not mend itself.
fn is_about_certificates(error: &io::Error) -> bool {
    use AlertDescription as Alert;
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<ProtocolError>());
    match error {
        Some(ProtocolError::InvalidCertificate(_) | ProtocolError::NoCertificatesPresented) => true,
        Some(ProtocolError::AlertReceived(alert)) => matches!(
            alert,
            Alert::AccessDenied
                | Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRequired
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::UnrecognisedName
                | Alert::UnsupportedCertificate
        ),
        _ => false,
    }
}

/// Takes every certificate, as the user asked for in so many words.
#[derive(Debug)]
struct Unchecked(Vec<SignatureScheme>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, ProtocolError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, ProtocolError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, ProtocolError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
