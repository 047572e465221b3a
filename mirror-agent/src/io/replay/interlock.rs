//! Enters: the answers of a target to probes. Leaves: whether it may receive copies that could write.
//!
//! Each address proves for itself: behind one name a server in shadow mode may stand beside one that is not. A proof
//! holds for one interval and the time of a probe, counted from when that was sent; the next one has come by then, or
//! the gate is closed.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{debug, info, warn};

use super::{
    ReplayConfig, clock,
    event::{Event, Observer},
    socket::Connector,
    stream::Stream,
};
use crate::{
    io::{
        config::{Interlock, ProbeConfig},
        join::join_all,
        ledger::CopyBooks,
    },
    pipeline::{Request, Timestamp},
};

/// What stands between copies that could write and a target that has to prove that it is a shadow.
#[derive(Debug)]
pub(super) struct Gate {
    probe: ProbeConfig,
    /// The probe as it is sent.
    message: Vec<u8>,
    /// How long an answer may take; less than the interval.
    patience: Duration,
    inner: Mutex<Inner>,
    changes: AtomicU64,
    /// There are addresses that were never asked.
    hurry: Notify,
    observer: Option<Arc<dyn Observer>>,
    books: Arc<CopyBooks>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The target's addresses, and how long the last proof of each holds; `None` for one that has not proven, or failed
    /// to when it was last asked.
    addresses: Vec<(SocketAddr, Option<Timestamp>)>,
    /// What was told last.
    is_open: bool,
}

impl Inner {
    fn is_open(&self, now: Timestamp) -> bool {
        self.addresses.iter().any(|(_, until)| until.is_some_and(|until| now < until))
    }
}

/// How the interlock of a target stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InterlockGauge {
    /// Whether an address of it has proven to be a shadow.
    pub is_open: bool,
    /// How often that changed.
    pub changes: u64,
}

/// Why an answer is no proof.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
enum Unproven {
    #[error("no connection could be opened, or it broke")]
    Connection,
    #[error("there was no answer in time")]
    Late,
    #[error("the answer is not HTTP/1.x, or its head is too long")]
    Protocol,
    #[error("the answer's status is not 2xx")]
    Status,
    #[error("the answer lacks the agreed header field")]
    Absent,
    #[error("the agreed header field has another value, or several")]
    Value,
}

impl Gate {
    /// The gate of a target; `None` where it need not prove anything.
    pub(super) fn new(config: &ReplayConfig, books: &Arc<CopyBooks>) -> Option<Self> {
        let Interlock::Probe(probe) = &config.interlock else { return None };
        let (path, host) = (&probe.path, config.target.authority());
        let mut message = String::new();
        // The same markers as a copy has: a shadow may key its mode on them, and the probe is never mirrored.
        let written = write!(
            message,
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nx-mirror-id: interlock-{:016x}\r\nx-shadow: \
             true\r\n\r\n",
            config.instance
        );
        debug_assert!(written.is_ok(), "a string takes everything");
        Some(Self {
            probe: probe.clone(),
            message: message.into_bytes(),
            patience: probe.every / 2,
            inner: Mutex::default(),
            changes: AtomicU64::default(),
            hurry: Notify::new(),
            observer: config.observer.clone(),
            books: Arc::clone(books),
        })
    }

    /// Takes the addresses of the target. One that is new has to prove first.
    pub(super) fn set_addresses(&self, addrs: &[SocketAddr]) {
        let mut inner = self.lock();
        let known = |addr| inner.addresses.iter().find(|(known, _)| *known == addr).copied();
        let addresses: Vec<_> = addrs.iter().map(|addr| known(*addr).unwrap_or((*addr, None))).collect();
        let has_new = addrs.iter().any(|addr| known(*addr).is_none());
        inner.addresses = addresses;
        self.tell(inner, "the target's addresses changed");
        if has_new {
            self.hurry.notify_one();
        }
    }

    /// Whether the copy of `request` may be written to a connection to `addr` at this moment.
    pub(super) fn permits(&self, request: &Request, addr: SocketAddr, now: Timestamp) -> bool {
        !is_unsafe(request)
            || self
                .lock()
                .addresses
                .iter()
                .any(|(known, until)| *known == addr && until.is_some_and(|until| now < until))
    }

    /// Whether there is an address that the copy of `request` may be written to.
    pub(super) fn permits_somewhere(&self, request: &Request, now: Timestamp) -> bool {
        !is_unsafe(request) || self.lock().is_open(now)
    }

    /// How it stands.
    pub(super) fn gauge(&self) -> InterlockGauge {
        InterlockGauge {
            is_open: self.lock().is_open(clock::now()),
            changes: self.changes.load(Ordering::Relaxed),
        }
    }

    /// Asks every address once an interval, and a new one at once. Never ends.
    pub(super) async fn keep_asking(&self, connector: &Connector) {
        // None is refused where it is configured; it would be no interval.
        let mut due = interval(self.probe.every.max(Duration::from_millis(1)));
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = due.tick() => {}
                () = self.hurry.notified() => {}
            }
            let addrs: Vec<_> = self.lock().addresses.iter().map(|(addr, _)| *addr).collect();
            join_all(addrs.into_iter().map(|addr| self.ask(connector, addr))).await;
        }
    }

    async fn ask(&self, connector: &Connector, addr: SocketAddr) {
        let sent_at = clock::now();
        let asked = async {
            let opened = connector.open(addr).await;
            let (mut stream, registration) = opened.map_err(|_error| Unproven::Connection)?;
            let proof = self.prove(&mut stream).await;
            // Struck off the list only once the socket is closed.
            stream.close();
            drop(registration);
            proof
        };
        let proof = timeout(self.patience, asked).await.unwrap_or(Err(Unproven::Late));
        let mut inner = self.lock();
        let until = sent_at.after(self.probe.every + self.patience);
        for (_, proven) in inner.addresses.iter_mut().filter(|(known, _)| *known == addr) {
            *proven = proof.is_ok().then_some(until);
        }
        let reason = match proof {
            Ok(()) => "the agreed header field is there".to_owned(),
            Err(unproven) => {
                debug!(%addr, %unproven, "The shadow did not prove that it is one.");
                unproven.to_string()
            }
        };
        self.tell(inner, &reason);
    }

    async fn prove(&self, stream: &mut Stream) -> Result<(), Unproven> {
        stream.write_all(&self.message).await.map_err(|_error| Unproven::Connection)?;
        let mut answer = vec![0; ANSWER_BYTES];
        let mut len = 0;
        loop {
            let room = answer.get_mut(len..).unwrap_or_default();
            if room.is_empty() {
                return Err(Unproven::Protocol);
            }
            match stream.read(room).await {
                Ok(0) | Err(_) => return Err(Unproven::Connection),
                Ok(more) => len += more,
            }
            if let Some(proof) = self.judge(answer.get(..len).unwrap_or_default()) {
                return proof;
            }
        }
    }

    /// What the bytes of an answer prove; `None` while its head is not complete.
    fn judge(&self, mut answer: &[u8]) -> Option<Result<(), Unproven>> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            let mut head = httparse::Response::new(&mut fields);
            let head_len = match head.parse(answer) {
                Ok(httparse::Status::Complete(len)) => len,
                Ok(httparse::Status::Partial) => return None,
                Err(_) => return Some(Err(Unproven::Protocol)),
            };
            match head.code {
                // RFC 9110 section 15.2: a final response follows. A switch of protocols is none.
                Some(100 | 102..=199) => answer = answer.get(head_len..).unwrap_or_default(),
                Some(200..=299) => return Some(self.compare(head.headers)),
                _ => return Some(Err(Unproven::Status)),
            }
        }
    }

    fn compare(&self, fields: &[httparse::Header<'_>]) -> Result<(), Unproven> {
        let mut lines = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(&self.probe.header));
        let first = lines.next().ok_or(Unproven::Absent)?;
        let is_agreed = first.value.trim_ascii() == self.probe.value.trim().as_bytes();
        if is_agreed && lines.next().is_none() { Ok(()) } else { Err(Unproven::Value) }
    }

    /// Tells of a change, if there is one, and lets go of the lock first.
    fn tell(&self, mut inner: MutexGuard<'_, Inner>, reason: &str) {
        let is_open = inner.is_open(clock::now());
        let was_open = std::mem::replace(&mut inner.is_open, is_open);
        drop(inner);
        if was_open == is_open {
            return;
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
        let (experiment, target) = (self.books.experiment(), self.books.target());
        if is_open {
            info!(experiment, target, "The shadow proves that it is one: copies that could write flow.");
        } else {
            warn!(
                experiment,
                target, reason, "The shadow no longer proves that it is one: no copy that could write flows."
            );
        }
        if let Some(observer) = &self.observer {
            observer.handle_event(&self.books, Event::Interlock { is_open });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The parts are independent of each other.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the request could write: everything but what RFC 9110 section 9.2.1 calls safe and the mirror copies unasked.
fn is_unsafe(request: &Request) -> bool {
    let method = request.raw.split(|byte| *byte == b' ').next().unwrap_or_default();
    !matches!(method, b"GET" | b"HEAD" | b"OPTIONS")
}

/// The same limit as for the heads of copies.
const ANSWER_BYTES: usize = 64 * 1024;

/// More header lines than any server sends.
const MAX_FIELDS: usize = 128;

#[cfg(test)]
mod tests {
    use super::{super::tests::request, *};
    use crate::io::ledger::Ledger;

    fn gate() -> Gate {
        let mut config = ReplayConfig::new("http://shadow:81".parse().unwrap(), 1);
        config.interlock = Interlock::Probe(ProbeConfig {
            header: "x-shadow-mode".to_owned(),
            value: "on".to_owned(),
            path: "/healthz".to_owned(),
            every: Duration::from_secs(4),
        });
        Gate::new(&config, &Arc::<Ledger>::default().copies("e", "t")).unwrap()
    }

    #[test]
    fn answer_proves_only_by_success_and_the_very_value() {
        for (answer, proof) in [
            ("HTTP/1.1 200 OK\r\nx-shadow-mode: on\r\n\r\n", Some(Ok(()))),
            ("HTTP/1.0 204 N\r\nX-Shadow-Mode:\t on \t\r\n\r\n", Some(Ok(()))),
            (
                "HTTP/1.1 103 E\r\nx-shadow-mode: off\r\n\r\nHTTP/1.1 200 OK\r\nx-shadow-mode: on\r\n\r\nbody",
                Some(Ok(())),
            ),
            ("HTTP/1.1 200 OK\r\nx-shadow-mode: on\r\n", None),
            ("HTTP/1.1 103 E\r\nx-shadow-mode: on\r\n\r\n", None),
            ("HTTP/1.1 101 S\r\nx-shadow-mode: on\r\n\r\n", Some(Err(Unproven::Status))),
            ("HTTP/1.1 302 F\r\nx-shadow-mode: on\r\n\r\n", Some(Err(Unproven::Status))),
            ("HTTP/1.1 503 U\r\nx-shadow-mode: on\r\n\r\n", Some(Err(Unproven::Status))),
            ("HTTP/1.1 200 OK\r\nx-shadow: on\r\n\r\n", Some(Err(Unproven::Absent))),
            ("HTTP/1.1 200 OK\r\n\r\nx-shadow-mode: on\r\n\r\n", Some(Err(Unproven::Absent))),
            ("HTTP/1.1 200 OK\r\nx-shadow-mode: On\r\n\r\n", Some(Err(Unproven::Value))),
            ("HTTP/1.1 200 OK\r\nx-shadow-mode: on, on\r\n\r\n", Some(Err(Unproven::Value))),
            (
                "HTTP/1.1 200 OK\r\nx-shadow-mode: on\r\nx-shadow-mode: off\r\n\r\n",
                Some(Err(Unproven::Value)),
            ),
            ("SSH-2.0-x\r\n\r\n", Some(Err(Unproven::Protocol))),
        ] {
            assert_eq!(gate().judge(answer.as_bytes()), proof, "{answer}");
        }
    }

    #[test]
    fn proof_is_of_one_address_and_runs_out() {
        let gate = gate();
        let [one, two, three] = [1, 2, 3].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let write = request(b"POST / HTTP/1.1\r\n\r\n", 19);
        let now = clock::now();
        gate.set_addresses(&[one, two]);
        assert!(!gate.permits(&write, one, now) && !gate.gauge().is_open);
        let until = now.after(Duration::from_secs(6));
        gate.lock().addresses[0].1 = Some(until);
        assert!(gate.permits(&write, one, now) && gate.permits_somewhere(&write, now));
        assert!(!gate.permits(&write, two, now), "each for itself");
        gate.set_addresses(&[three, one]);
        assert!(gate.permits(&write, one, now), "known before");
        assert!(!gate.permits(&write, three, now), "never asked");
        assert!(!gate.permits(&write, two, now), "gone");
        assert_eq!(gate.gauge(), InterlockGauge { is_open: true, changes: 1 });
        assert!(!gate.permits(&write, one, until) && !gate.permits_somewhere(&write, until), "too old");
    }

    #[test]
    fn safe_methods_need_no_proof() {
        let gate = gate();
        let addr = SocketAddr::from(([10, 0, 0, 1], 1));
        for (method, is_safe) in [
            ("GET", true),
            ("HEAD", true),
            ("OPTIONS", true),
            ("POST", false),
            ("TRACE", false),
            ("get", false),
            ("GETX", false),
            ("", false),
            ("\r\nGET", false),
        ] {
            let raw = format!("{method} / HTTP/1.1\r\n\r\n");
            let request = request(raw.as_bytes(), raw.len());
            assert_eq!(gate.permits(&request, addr, clock::now()), is_safe, "{method}");
        }
    }

    #[test]
    fn probe_is_marked_and_asks_for_the_path() {
        let text = String::from_utf8(gate().message).unwrap();
        assert_eq!(
            text,
            "GET /healthz HTTP/1.1\r\nhost: shadow:81\r\nconnection: close\r\nx-mirror-id: \
             interlock-0000000000000001\r\nx-shadow: true\r\n\r\n"
        );
    }
}
