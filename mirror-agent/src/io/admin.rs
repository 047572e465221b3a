//! Enters: HTTP requests from Prometheus and the kubelet. Leaves: /metrics, /healthz and /readyz.
//!
//! Nothing here carries captured data, so the listener may be reachable from the cluster.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
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
use tokio::{net::TcpListener, sync::Semaphore};
use tracing::{debug, warn};

/// How long a client may take to send its request head; slow ones are cut off.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections served at once. A scraper needs one; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 64;
/// Pause after a failed accept (out of file descriptors), so that it cannot spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What the endpoints answer from.
#[derive(Debug)]
pub struct Admin {
    /// What /metrics encodes.
    pub registry: Registry,
    /// Programs are attached and the configuration is in force.
    pub ready: Arc<AtomicBool>,
    /// The capture threads are alive.
    pub healthy: Arc<dyn Health>,
}

/// The agent's own heartbeat; never the shadow's health.
pub trait Health: std::fmt::Debug + Send + Sync {
    /// Whether every capture thread went round its loop within the last seconds.
    fn is_alive(&self) -> bool;
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "Accepting a connection to the metrics listener failed.");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&admin, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_READ_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                debug!(%error, "A connection to the metrics listener ended early.");
            }
            drop(slot);
        });
    }
}

/// Binds the listener.
///
/// # Errors
///
/// The address is in use, or not of this machine.
pub async fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

fn answer(admin: &Admin, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
    }
    match request.uri().path() {
        "/metrics" => metrics(admin),
        "/healthz" if admin.healthy.is_alive() => plain(StatusCode::OK, "ok\n"),
        "/healthz" => plain(StatusCode::SERVICE_UNAVAILABLE, "a capture thread does not answer\n"),
        "/readyz" if admin.ready.load(Ordering::Acquire) => plain(StatusCode::OK, "ok\n"),
        "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "not attached\n"),
        _ => plain(StatusCode::NOT_FOUND, "see /metrics, /healthz, /readyz\n"),
    }
}

fn metrics(admin: &Admin) -> Response<Full<Bytes>> {
    let mut text = String::with_capacity(16 * 1024);
    if encode(&mut text, &admin.registry).is_err() {
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
