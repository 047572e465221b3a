//! Enters: HTTP requests from Prometheus and the kubelet. Leaves: /metrics, /healthz and /readyz.
//!
//! Nothing here carries captured data, so the listener may be reachable from the cluster.

use std::{
    convert::Infallible,
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;
use tracing::{debug, warn};

use crate::io::places::{Activity, Places};

/// How long a client may take to send its request head; slow ones are cut off.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections served at once; one more ends the oldest. A scraper or a probe needs one for a moment, and must get it whoever
/// else holds connections open, or reads nothing of what was asked for: a kubelet ends the agent that does not answer.
const MAX_CONNECTIONS: usize = 64;
/// Most that is buffered of a head, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Pause after a failed accept (out of file descriptors), so that it cannot spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What the endpoints answer from. It may be exchanged while they are asked.
#[derive(Debug)]
pub struct Admin(RwLock<Arc<Answers>>);

/// The answers.
#[derive(Debug)]
pub struct Answers {
    /// What /metrics encodes.
    pub registry: Registry,
    /// Whether it mirrors, and if not, why.
    pub stage: Arc<StageCell>,
    /// The capture threads are alive.
    pub healthy: Arc<dyn Health>,
}

impl Admin {
    /// Answers from these.
    #[must_use]
    pub fn new(answers: Answers) -> Self {
        Self(RwLock::new(Arc::new(answers)))
    }

    /// Answers from these from now on.
    pub fn exchange(&self, answers: Answers) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(answers);
    }

    fn answers(&self) -> Arc<Answers> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How far the agent is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stage {
    /// It is not attached yet.
    #[default]
    Starting,
    /// Another agent of its network namespace has its turn.
    Waiting,
    /// Programs are attached and the configuration is in force.
    Ready,
    /// It is detached and finishes what is under way.
    Stopping,
}

impl Stage {
    /// What /readyz says.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "not attached\n",
            Self::Waiting => "waiting: another agent runs in this network namespace\n",
            Self::Ready => "ok\n",
            Self::Stopping => "stopping\n",
        }
    }
}

/// How far the agent is, told from one thread to another.
#[derive(Debug, Default)]
pub struct StageCell(Mutex<Stage>);

impl StageCell {
    /// Notes how far it is.
    pub fn set(&self, stage: Stage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// How far it is.
    #[must_use]
    pub fn read(&self) -> Stage {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The agent's own heartbeat; never the shadow's health.
pub trait Health: std::fmt::Debug + Send + Sync {
    /// Whether every capture thread went round its loop within the last seconds.
    fn is_alive(&self) -> bool;
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let mut places = Places::new(MAX_CONNECTIONS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "Accepting a connection to the metrics listener failed.");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        places.make_room().await;
        let admin = Arc::clone(&admin);
        let connection = tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&admin.answers(), &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_READ_TIMEOUT)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                debug!(%error, "A connection to the metrics listener ended early.");
            }
        });
        // An answer takes no time, so that none is under way while others come.
        places.take(&connection, Activity::default());
    }
}

/// Binds the listener. Where the address is in use, waits for it: an agent that ends keeps its listener until the last copy
/// is done.
///
/// # Errors
///
/// The address is still in use at `deadline`, `None` being never, or not of this machine.
pub async fn bind(addr: SocketAddr, deadline: Option<Instant>) -> std::io::Result<TcpListener> {
    let is_over = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
    loop {
        match TcpListener::bind(addr).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && !is_over() => {
                tokio::time::sleep(BIND_RETRY).await;
            }
            bound => return bound,
        }
    }
}

/// How often an address that is in use is tried.
const BIND_RETRY: Duration = Duration::from_millis(50);

fn answer(answers: &Answers, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
    }
    match request.uri().path() {
        "/metrics" => metrics(&answers.registry),
        "/healthz" if answers.healthy.is_alive() => plain(StatusCode::OK, "ok\n"),
        "/healthz" => plain(StatusCode::SERVICE_UNAVAILABLE, "a capture thread does not answer\n"),
        "/readyz" => readiness(answers.stage.read()),
        _ => plain(StatusCode::NOT_FOUND, "see /metrics, /healthz, /readyz\n"),
    }
}

fn readiness(stage: Stage) -> Response<Full<Bytes>> {
    let status = match stage {
        Stage::Ready => StatusCode::OK,
        Stage::Starting | Stage::Waiting | Stage::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    plain(status, stage.as_str())
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut text = String::with_capacity(16 * 1024);
    if encode(&mut text, registry).is_err() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be encoded\n");
    }
    let mut response = plain(StatusCode::OK, text);
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    );
    response
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    };

    use super::*;

    #[derive(Debug)]
    struct Alive;

    impl Health for Alive {
        fn is_alive(&self) -> bool {
            true
        }
    }

    async fn start() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers =
            Answers { registry: Registry::default(), stage: Arc::default(), healthy: Arc::new(Alive) };
        tokio::spawn(serve(listener, Arc::new(Admin::new(answers))));
        address
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probe_is_answered_whoever_holds_connections() {
        let address = start().await;
        let mut held = Vec::new();
        for _ in 0..2 * MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").await.unwrap();
            held.push(stream);
        }
        let answer = timeout(HEADER_READ_TIMEOUT / 2, ask(address, "/healthz")).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
        // The oldest made way.
        let ended = timeout(HEADER_READ_TIMEOUT / 2, held[0].read(&mut [0])).await.unwrap();
        assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    }

    #[tokio::test]
    async fn longer_head_than_any_scraper_sends_is_refused() {
        let address = start().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET /metrics HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2 * HEAD_BYTES));
        // It may be refused before all of it is written.
        drop(stream.write_all(head.as_bytes()).await);
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 431");
    }
}
