//! Enters: connections at the unix socket and at the TCP listener. Leaves: orders, and answers in JSON.
//!
//! Whoever connects can hold little: connections, heads, bodies and the time for each of them are bounded, apart for
//! each listener, so that strangers at the one cannot keep the owner out of the other.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{
        CACHE_CONTROL, CONTENT_TYPE, HeaderValue, SET_COOKIE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
    server::conn::http1,
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinHandle,
    time::{error::Elapsed, timeout},
};
use tracing::{debug, warn};

use super::{
    Control, ControlError,
    api::{Invited, Refusal, Wish, answer, fleet, refused, told, understand},
    door::{Door, Pass},
    invitation::INVITATION_TIME,
    socket::ControlSocket,
};
use crate::io::{
    audit::Who,
    places::{Activity, Places},
    telling::AskError,
};

/// Largest body of a request, in bytes; the largest that makes sense is some hundred.
const BODY_BYTES: usize = 64 * 1024;

/// Most that is buffered of a head, in bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// How long a client may take to send a head.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How long it may take to send a body.
const BODY_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last; what was asked on it by then is still answered.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// How long that may take: more than what takes longest, an order or a look at all agents.
const LAST_ANSWER_TIME: Duration = Duration::from_secs(15);

/// How long the main loop may take to obey.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections served at once, at each listener.
const MAX_CONNECTIONS: usize = 32;

/// Pause after a failed accept (out of file descriptors), so that it cannot spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// From where a request came.
#[derive(Clone)]
enum Caller {
    /// The unix socket: who can open it may do everything.
    Local(Who, Option<Listening>),
    /// The TCP listener.
    Remote(SocketAddr, Arc<Door>),
    /// The listener for other agents: who has their token may know how this one is, and nothing else.
    Peer(Arc<Door>),
}

/// The TCP listener, as who is at the socket may invite others there.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    pub(super) address: SocketAddr,
    pub(super) door: Arc<Door>,
}

/// Serves the unix socket until the task is dropped.
pub(super) async fn serve_socket(socket: ControlSocket, listening: Option<Listening>, control: Control) {
    let mut places = Places::new(MAX_CONNECTIONS);
    loop {
        match socket.listener.accept().await {
            Ok((stream, _)) => {
                let Ok(peer) = stream.peer_cred() else { continue };
                let who = Who::Socket { uid: peer.uid(), pid: peer.pid().unwrap_or_default() };
                admit(&mut places, stream, Caller::Local(who, listening.clone()), &control).await;
            }
            Err(error) => back_off(&error).await,
        }
    }
}

/// Serves the TCP listener until the task is dropped.
pub(super) async fn serve_tcp(listener: TcpListener, door: Arc<Door>, control: Control) {
    let mut places = Places::new(MAX_CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                admit(&mut places, stream, Caller::Remote(address, Arc::clone(&door)), &control).await;
            }
            Err(error) => back_off(&error).await,
        }
    }
}

/// Serves the listener for other agents until the task is dropped.
pub(super) async fn serve_peers(listener: TcpListener, door: Arc<Door>, control: Control) {
    let mut places = Places::new(MAX_CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => admit(&mut places, stream, Caller::Peer(Arc::clone(&door)), &control).await,
            Err(error) => back_off(&error).await,
        }
    }
}

async fn back_off(error: &std::io::Error) {
    warn!(%error, "Accepting a control connection failed.");
    tokio::time::sleep(ACCEPT_BACKOFF).await;
}

/// Serves a connection as soon as there is a place for it.
async fn admit(
    places: &mut Places,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    control: &Control,
) {
    places.make_room().await;
    let activity = Activity::default();
    places.take(&serve(stream, caller, control.clone(), activity.clone()), activity);
}

fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    control: Control,
    activity: Activity,
) -> JoinHandle<()> {
    let service = service_fn(move |request| {
        let (caller, control, under_way) = (caller.clone(), control.clone(), activity.begin());
        async move {
            let response = respond(request, &caller, &control).await;
            drop(under_way);
            Ok::<_, Infallible>(response)
        }
    });
    tokio::spawn(async move {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        match last(connection, CONNECTION_TIME, LAST_ANSWER_TIME).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "A control connection ended early."),
            Err(_elapsed) => debug!("A control connection lasted for too long."),
        }
    })
}

/// Serves a connection for a while, then ends it: at once where nothing was asked, behind the answer where something was. Whoever
/// gave an order, so, learns what came of it. An answer that is not read in `grace` is cut off.
async fn last<I, S>(
    connection: http1::Connection<I, S>,
    time: Duration,
    grace: Duration,
) -> Result<hyper::Result<()>, Elapsed>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService<Incoming, ResBody = Full<Bytes>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = pin!(connection);
    if let Ok(ended) = timeout(time, connection.as_mut()).await {
        return Ok(ended);
    }
    connection.as_mut().graceful_shutdown();
    timeout(grace, connection).await
}

async fn respond(request: Request<Incoming>, caller: &Caller, control: &Control) -> Response<Full<Bytes>> {
    let is_head = request.method() == Method::HEAD;
    #[cfg(feature = "ui")]
    if let (Caller::Remote(..), Some(file)) =
        (caller, super::page::find(request.method(), request.uri().path()))
    {
        return match super::door::check_host(request.uri(), request.headers()) {
            Ok(()) => file.response(is_head),
            Err(refusal) => json(refusal.status, refused(&refusal)),
        };
    }
    match handle(request, caller, control).await {
        Ok(Reply { body, cookie }) => {
            let mut response = json(StatusCode::OK, if is_head { Vec::new() } else { body });
            if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok()) {
                response.headers_mut().insert(SET_COOKIE, cookie);
            }
            response
        }
        Err(refusal) => {
            let mut response = json(refusal.status, refused(&refusal));
            if refusal.status == StatusCode::UNAUTHORIZED {
                // RFC 9110 section 15.5.2: it has to say how.
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

struct Reply {
    body: Vec<u8>,
    cookie: Option<String>,
}

async fn handle(request: Request<Incoming>, caller: &Caller, control: &Control) -> Result<Reply, Refusal> {
    let (head, body) = request.into_parts();
    // Before anything else of the request is looked at, or waited for.
    let (who, pass) = match caller {
        Caller::Local(who, _) => (*who, None),
        Caller::Remote(address, door) => {
            let pass = door.admit(&head.uri, &head.headers)?;
            (pass.who(*address), Some(pass))
        }
        Caller::Peer(door) => {
            door.admit(&head.uri, &head.headers)?;
            if understand(&head.method, head.uri.path(), b"") != Ok(Wish::FleetSelf) {
                return Err(Refusal::new(
                    StatusCode::NOT_FOUND,
                    "there is GET /v1/fleet/self, and nothing else",
                ));
            }
            let body = fleet(control.fleet_self().await)?;
            return Ok(Reply { body, cookie: None });
        }
    };
    let body = read(body).await?;
    let wish = understand(&head.method, head.uri.path(), &body)?;
    let no_session = || Refusal::new(StatusCode::NOT_FOUND, "there are no sessions at the unix socket");
    if pass == Some(Pass::Invitation) && wish != Wish::OpenSession {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "an invitation is good for /v1/session alone"));
    }
    match (wish, caller) {
        (Wish::Command(command), _) => {
            let given = timeout(ORDER_TIMEOUT, control.give(who, command)).await;
            let body = answer(given.unwrap_or(Err(ControlError::Unanswered)))?;
            Ok(Reply { body, cookie: None })
        }
        (Wish::Ask(ask), _) => {
            let asked = timeout(ORDER_TIMEOUT, control.ask(who, ask)).await;
            let body = told(asked.unwrap_or(Err(AskError::Busy)))?;
            Ok(Reply { body, cookie: None })
        }
        (Wish::FleetSelf, _) => {
            let body = fleet(control.fleet_self().await)?;
            Ok(Reply { body, cookie: None })
        }
        (Wish::Fleet, _) => {
            let body = fleet(control.fleet_view().await)?;
            Ok(Reply { body, cookie: None })
        }
        (Wish::Invite, Caller::Local(_, Some(listening))) => invite(listening),
        (Wish::Invite, Caller::Local(_, None)) => {
            let message = "there is no page without --control-listen ADDRESS:PORT (control.listen)";
            Err(Refusal::new(StatusCode::CONFLICT, message))
        }
        (Wish::Invite, Caller::Remote(..) | Caller::Peer(_)) => {
            Err(Refusal::new(StatusCode::NOT_FOUND, "only the unix socket invites"))
        }
        (Wish::OpenSession | Wish::CloseSession, Caller::Local(..) | Caller::Peer(_)) => Err(no_session()),
        (Wish::OpenSession, Caller::Remote(_, door)) => {
            if pass == Some(Pass::Cookie) {
                // A cookie that could be exchanged for another would never expire.
                return Err(Refusal::new(StatusCode::UNAUTHORIZED, "a session is opened with the token"));
            }
            let cookie = door
                .open_session()
                .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
            Ok(Reply { body: EMPTY.to_vec(), cookie: Some(cookie) })
        }
        (Wish::CloseSession, Caller::Remote(_, door)) => {
            Ok(Reply { body: EMPTY.to_vec(), cookie: Some(door.close_session(&head.headers)) })
        }
    }
}

const EMPTY: &[u8] = b"{}";

/// An address at which the page opens, once.
fn invite(listening: &Listening) -> Result<Reply, Refusal> {
    if cfg!(not(feature = "ui")) {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "this agent was built without the page"));
    }
    let failed =
        |error: &dyn std::error::Error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let secret = listening.door.invite().map_err(|error| failed(&error))?;
    let mut address = listening.address;
    if address.ip().is_unspecified() {
        let loopback =
            if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    // Behind `#` it is sent to nobody, and stands in no log.
    let url = format!("http://{address}/#invitation={}", secret.as_str());
    let invited = Invited { url, seconds: INVITATION_TIME.as_secs() };
    let body = serde_json::to_vec(&invited).map_err(|error| failed(&error))?;
    Ok(Reply { body, cookie: None })
}

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    let Ok(read) = timeout(BODY_READ_TIMEOUT, Limited::new(body, BODY_BYTES).collect()).await else {
        return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"));
    };
    read.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            let message = format!("the body is longer than {BODY_BYTES} bytes");
            return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message);
        }
        Refusal::new(StatusCode::BAD_REQUEST, "the body could not be read")
    })
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::sleep,
    };

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    /// How many bytes are read of a connection that lasts for `SHORT`, and whether it ended by itself. An answer takes four times
    /// that.
    async fn served(request: &'static [u8], grace: Duration, is_read: bool) -> (usize, bool) {
        let (mut client, server) = duplex(64);
        client.write_all(request).await.unwrap();
        let service = service_fn(|_request| async {
            sleep(4 * SHORT).await;
            Ok::<_, Infallible>(json(StatusCode::OK, vec![b' '; 1000]))
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(server), service);
        let reader = tokio::spawn(async move {
            let mut answer = Vec::new();
            if is_read {
                client.read_to_end(&mut answer).await.unwrap();
            } else {
                sleep(100 * SHORT).await;
            }
            answer.len()
        });
        let ended = last(connection, SHORT, grace).await;
        let is_over = matches!(ended, Ok(Ok(())));
        if is_read { (reader.await.unwrap(), is_over) } else { (0, is_over) }
    }

    #[tokio::test]
    async fn answer_under_way_when_the_time_is_up_is_given() {
        let (read, is_over) = served(b"GET /v1/state HTTP/1.1\r\n\r\n", 100 * SHORT, true).await;
        assert!(read > 1000 && is_over, "{read} {is_over}");
    }

    #[tokio::test]
    async fn connection_ends_where_nothing_is_asked_and_where_nothing_is_read() {
        assert_eq!(served(b"", 100 * SHORT, true).await, (0, true));
        assert_eq!(served(b"GET /v1/state HTTP/1.1\r\n\r\n", 8 * SHORT, false).await, (0, false));
    }
}
