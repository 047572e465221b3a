//! Enters: the API server's address and credentials, from the pod's service account or a kubeconfig. Leaves: lists of
//! pods, followed for as long as they are wanted.
//!
//! A list, then a watch from where the list ended, for two minutes at a time; a new list where the API server does not
//! know any more what changed since. `kube` is the client, with its credentials; the following is done here, since how
//! old the state is can only be told by who sees the bookmarks.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kube::{
    Client, Config,
    api::{ListParams, WatchParams},
    client::Body,
    core::Request,
};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::{
    Follow, Scope, Sink, WatchFailure, Which,
    copy::{Copy, Said, Unusable},
    wait::Waits,
};

/// How long a connection may take to open, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the head of an answer may take to come, and then the rest of a list.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a watch is asked to last. A connection whose other end has vanished is found out after as long.
const WATCH_SECONDS: u32 = 120;

/// How long a watch may be silent: none lasts for longer.
const SILENCE: Duration = Duration::from_secs(130);

/// Longest event in bytes: etcd keeps objects of at most 1.5 MiB, which JSON may make longer.
const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;

/// Longest list in bytes. The pods of one node are some hundred.
const MAX_LIST_BYTES: usize = 64 * 1024 * 1024;

/// A cluster's API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

/// Why the API server cannot be asked. That it does not answer is no such reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// There is neither a service account nor a kubeconfig.
    #[error("find the API server: neither a service account nor a kubeconfig")]
    Unknown(#[source] Box<kube::config::InferConfigError>),
    /// No client can be made of what there is.
    #[error("make a client for the API server")]
    Client(#[source] Box<kube::Error>),
}

impl Cluster {
    /// Reads where the API server is and by what it knows this agent; connects to nothing.
    ///
    /// # Errors
    ///
    /// All of [`ClusterError`].
    pub async fn find() -> Result<Self, ClusterError> {
        Self::of(Config::infer().await.map_err(|error| ClusterError::Unknown(Box::new(error)))?)
    }

    fn of(mut config: Config) -> Result<Self, ClusterError> {
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // How long to wait is decided here, and each failure is counted.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|error| ClusterError::Client(Box::new(error)))?;
        Ok(Self { client })
    }

    /// What follows the pods of a scope.
    #[must_use]
    pub fn follow(&self) -> Follow {
        let client = self.client.clone();
        Box::new(move |scope, sink| {
            let watch = Watch { client: client.clone(), scope, sink, copy: Copy::default() };
            tokio::spawn(watch.run())
        })
    }
}

struct Watch {
    client: Client,
    scope: Scope,
    sink: Sink,
    copy: Copy,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ask {
    /// The list as a cache has it: thousands of agents must not read the whole store each.
    Cached,
    /// The newest list.
    Newest,
    /// What changes of it.
    Changes,
}

impl Watch {
    async fn run(mut self) {
        let mut waits = Waits::new();
        let mut ask = Ask::Cached;
        let mut is_failing = false;
        loop {
            let outcome = match ask {
                Ask::Cached | Ask::Newest => self.list(ask).await,
                Ask::Changes => self.watch(&mut waits).await,
            };
            let namespace = &self.scope.namespace;
            let Err(failure) = outcome else {
                if is_failing {
                    info!(namespace, "The API server tells of pods again.");
                }
                is_failing = false;
                waits.answered();
                ask = Ask::Changes;
                continue;
            };
            self.sink.failed(failure);
            let reason = failure.as_str();
            if failure == WatchFailure::Expired || is_failing {
                debug!(namespace, reason, "The watch of pods is begun anew.");
            } else {
                is_failing = true;
                warn!(
                    namespace,
                    reason, "The API server does not tell of pods; what it told last stays in force."
                );
            }
            ask = match failure {
                WatchFailure::Expired => Ask::Newest,
                // Nothing says that it could not go on.
                WatchFailure::Cut | WatchFailure::Timeout | WatchFailure::Unreachable => ask,
                WatchFailure::Forbidden | WatchFailure::Malformed | WatchFailure::Server => Ask::Cached,
            };
            sleep(waits.after(failure)).await;
        }
    }

    async fn list(&mut self, ask: Ask) -> Result<(), WatchFailure> {
        let (field_selector, label_selector) = self.selectors();
        let mut params = ListParams { field_selector, label_selector, ..ListParams::default() };
        if ask == Ask::Cached {
            params = params.match_any();
        }
        let request = self.request().list(&params).map_err(|_error| WatchFailure::Malformed)?;
        let body = Limited::new(self.ask(request).await?, MAX_LIST_BYTES);
        let list = timeout(ANSWER_TIMEOUT, body.collect()).await.map_err(|_elapsed| WatchFailure::Timeout)?;
        let list = list.map_err(|error| {
            if error.is::<LengthLimitError>() { WatchFailure::Malformed } else { WatchFailure::Cut }
        })?;
        self.copy.replace(&list.to_bytes()).map_err(failure)?;
        self.sink.heard();
        self.sink.replace(self.copy.pods());
        Ok(())
    }

    /// Follows the changes until the API server ends the watch, as it does from time to time.
    async fn watch(&mut self, waits: &mut Waits) -> Result<(), WatchFailure> {
        let (field_selector, label_selector) = self.selectors();
        let params = WatchParams {
            field_selector,
            label_selector,
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = self.request().watch(&params, self.copy.version());
        let request = request.map_err(|_error| WatchFailure::Malformed)?;
        let body = self.ask(request).await?;
        self.sink.heard();
        waits.answered();
        let begun = Instant::now();
        let outcome = self.read(body, waits).await;
        let has_worked = waits.lasted(begun.elapsed());
        outcome?;
        if !has_worked {
            sleep(waits.after_short_watch()).await;
        }
        Ok(())
    }

    /// Reads what a watch tells until it ends.
    async fn read(&mut self, mut body: Body, waits: &mut Waits) -> Result<(), WatchFailure> {
        let mut lines = Lines::default();
        loop {
            let frame = timeout(SILENCE, body.frame()).await.map_err(|_elapsed| WatchFailure::Timeout)?;
            let Some(frame) = frame else { break };
            // Trailers say nothing.
            let Ok(data) = frame.map_err(|_error| WatchFailure::Cut)?.into_data() else { continue };
            self.take(lines.push(&data)?)?;
            waits.worked();
        }
        if lines.is_empty() { Ok(()) } else { Err(WatchFailure::Cut) }
    }

    /// Takes some lines, all of which have come together.
    fn take(&mut self, lines: Vec<Vec<u8>>) -> Result<(), WatchFailure> {
        let mut is_changed = false;
        let mut outcome = Ok(());
        for line in lines.iter().filter(|line| !line.trim_ascii().is_empty()) {
            match self.copy.apply(line) {
                Ok(said) => is_changed |= said == Said::Changed,
                Err(unusable) => {
                    outcome = Err(failure(unusable));
                    break;
                }
            }
            self.sink.heard();
        }
        if is_changed {
            self.sink.replace(self.copy.pods());
        }
        outcome
    }

    fn request(&self) -> Request {
        Request::new(format!("/api/v1/namespaces/{}/pods", self.scope.namespace))
    }

    /// By fields and by labels.
    fn selectors(&self) -> (Option<String>, Option<String>) {
        match &self.scope.which {
            Which::OfNode(node) => (Some(format!("spec.nodeName={node}")), None),
            Which::Labelled(selector) => (None, Some(selector.clone())),
        }
    }

    /// The body of the answer, where that is not an excuse.
    async fn ask(&self, request: hyper::Request<Vec<u8>>) -> Result<Body, WatchFailure> {
        let answer = timeout(ANSWER_TIMEOUT, self.client.send(request.map(Body::from))).await;
        let answer = answer.map_err(|_elapsed| WatchFailure::Timeout)?.map_err(|error| {
            debug!(%error, "The API server could not be asked.");
            if matches!(error, kube::Error::Auth(_)) {
                WatchFailure::Forbidden
            } else {
                WatchFailure::Unreachable
            }
        })?;
        match answer.status().as_u16() {
            200 => Ok(answer.into_body()),
            status => {
                debug!(status, "The API server refused.");
                Err(refusal(u64::from(status)))
            }
        }
    }
}

fn failure(unusable: Unusable) -> WatchFailure {
    match unusable {
        Unusable::Expired => WatchFailure::Expired,
        Unusable::Failed(status) => refusal(status),
        Unusable::Malformed => WatchFailure::Malformed,
    }
}

const fn refusal(status: u64) -> WatchFailure {
    match status {
        401 | 403 => WatchFailure::Forbidden,
        410 => WatchFailure::Expired,
        _ => WatchFailure::Server,
    }
}

/// Cuts what comes into lines.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// The lines that are complete with this, without their ends.
    fn push(&mut self, data: &Bytes) -> Result<Vec<Vec<u8>>, WatchFailure> {
        let mut lines = Vec::new();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.0.extend_from_slice(piece);
            if self.0.len() > MAX_EVENT_BYTES {
                return Err(WatchFailure::Malformed);
            }
            if self.0.pop_if(|last| *last == b'\n').is_some() {
                lines.push(std::mem::take(&mut self.0));
            }
        }
        Ok(lines)
    }

    /// Whether what came last was a whole line.
    fn is_empty(&self) -> bool {
        self.0.trim_ascii().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::io::{
        config,
        pods::{Pods, PodsStatus},
        replay::tests::tls_server::{Authority, TlsServer},
    };

    const LIST: &str = r#"{"kind":"PodList","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a","labels":{"app":"shop"}},"spec":{},"status":{"phase":"Running","podIP":"10.1.0.5"}}]}"#;

    const TEXT: &str = "capture: {}\nexperiments: [{ name: a, expires: never, pods: { namespace: shop, selector: { \
                        matchLabels: { app: shop } }, ports: [80] }, targets: [{ name: t, url: 'http://a' }] }]";

    /// Watches by an API server that has a certificate of one authority, as an agent that trusts another, or the same.
    fn watch(of: &Authority, trusted: &Authority) -> (TlsServer, Pods, Arc<PodsStatus>) {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{LIST}", LIST.len());
        let server =
            TlsServer::answering("127.0.0.1", of.server(&["127.0.0.1"]), Vec::leak(answer.into_bytes()));
        let mut config = Config::new(format!("https://{}", server.addr).parse().unwrap());
        config.root_cert_file = Some(trusted.ca_file());
        let token = trusted.write("token", "of-the-pod");
        config.auth_info.token_file = Some(token.display().to_string());
        let status = Arc::<PodsStatus>::default();
        let follow = Cluster::of(config).unwrap().follow();
        let mut pods = Pods::new(Some("node-1".to_owned()), None, follow, Arc::clone(&status));
        pods.watch(&config::parse(TEXT, "test", None).unwrap());
        (server, pods, status)
    }

    #[tokio::test]
    async fn the_api_server_is_known_by_the_clusters_authority_and_knows_the_pods_token() {
        let authority = Authority::new();
        let (server, pods, _status) = watch(&authority, &authority);
        timeout(Duration::from_secs(20), pods.changed()).await.unwrap();
        let config = config::parse(TEXT, "test", None).unwrap();
        assert_eq!(pods.find(config.experiments[0].pods.as_ref().unwrap()).pods, 1);
        let asked = String::from_utf8_lossy(&server.received()[0].bytes).to_ascii_lowercase();
        assert!(asked.starts_with("get /api/v1/namespaces/shop/pods?"), "{asked}");
        assert!(asked.contains("spec.nodename%3dnode-1") && asked.contains("bearer of-the-pod"), "{asked}");
    }

    #[tokio::test]
    async fn a_stranger_is_told_nothing() {
        let (server, _pods, status) = watch(&Authority::new(), &Authority::new());
        let begun = Instant::now();
        while status.failures()[WatchFailure::Unreachable.index()] == 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", status.failures());
            sleep(Duration::from_millis(5)).await;
        }
        assert!(server.received().is_empty());
    }

    #[test]
    fn lines_are_cut_wherever_they_are_broken_and_endless_ones_are_given_up() {
        let mut lines = Lines::default();
        let push = |lines: &mut Lines, text: &'static str| lines.push(&Bytes::from_static(text.as_bytes()));
        assert_eq!(push(&mut lines, "{a").unwrap(), Vec::<Vec<u8>>::new());
        assert!(!lines.is_empty());
        assert_eq!(push(&mut lines, "}\n{b}\n{").unwrap(), [b"{a}".to_vec(), b"{b}".to_vec()]);
        assert_eq!(push(&mut lines, "c}\n").unwrap(), [b"{c}".to_vec()]);
        assert!(lines.is_empty());
        let long = Bytes::from(vec![b'x'; MAX_EVENT_BYTES]);
        assert!(lines.push(&long).unwrap().is_empty());
        assert_eq!(lines.push(&Bytes::from_static(b"x")), Err(WatchFailure::Malformed));
    }
}
