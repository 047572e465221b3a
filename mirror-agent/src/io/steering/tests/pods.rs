//! Enters: what is told of pods. Leaves: which servers are mirrored, and whose interfaces are attached to.

use std::{collections::BTreeSet, net::IpAddr};

use tokio::sync::watch;

use super::*;
use crate::io::pods::{Pod, Pods, PodsStatus, Scope, Sink, Which};

/// What a bench tells of pods, and what comes of it.
pub(super) struct Told {
    watched: Arc<Mutex<Vec<(Scope, Sink)>>>,
    addresses: watch::Receiver<BTreeSet<IpAddr>>,
    status: Arc<PodsStatus>,
}

impl Told {
    pub(super) fn new() -> (Self, PodsParts) {
        let (watched, status) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<PodsStatus>::default());
        let (addresses_tx, addresses) = watch::channel(BTreeSet::new());
        let watch = Arc::clone(&watched);
        let agents = Scope { namespace: "mirror".to_owned(), which: Which::Labelled("a=b".to_owned()) };
        let pods = Pods::new(
            Some("node-1".to_owned()),
            Some(agents),
            Box::new(move |scope, sink| {
                watch.lock().unwrap().push((scope, sink));
                tokio::spawn(pending())
            }),
            Arc::clone(&status),
        );
        let status_of_parts = Arc::clone(&status);
        let parts = PodsParts { pods: Some(pods), addresses: addresses_tx, status: status_of_parts };
        (Self { watched, addresses, status }, parts)
    }

    /// The sink of the watch that was begun last of this namespace.
    fn sink(&self, namespace: &str) -> Sink {
        let watched = self.watched.lock().unwrap();
        let of = watched.iter().rev().find(|(scope, _)| scope.namespace == namespace);
        of.expect("it is watched").1.clone()
    }

    fn scopes(&self) -> Vec<Scope> {
        self.watched.lock().unwrap().iter().map(|(scope, _)| scope.clone()).collect()
    }

    fn addresses(&self) -> Vec<String> {
        self.addresses.borrow().iter().map(ToString::to_string).collect()
    }
}

fn pod(name: &str, address: &str, ports: &[(&str, u16)]) -> Pod {
    Pod {
        name: name.to_owned(),
        labels: [("app".to_owned(), "shop".to_owned())].into(),
        is_running: true,
        is_ready: true,
        addresses: vec![address.parse().unwrap()],
        ports: ports.iter().map(|(name, port)| (Some((*name).to_owned()), *port)).collect(),
    }
}

fn experiment(name: &str, of: &str, target: &str) -> String {
    format!("  - name: {name}\n    expires: never\n{of}    targets:\n      - {{ name: shadow, {target} }}\n")
}

const PODS: &str = "    pods: { namespace: shop, selector: { matchLabels: { app: shop } }, ports: [http] }\n";

fn text(experiments: &[String]) -> String {
    format!("capture: {{ interfaces: [lo] }}\nexperiments:\n{}", experiments.concat())
}

/// What the kernel program takes, of these servers.
fn taken(bench: &Bench, servers: &[&str]) -> Vec<String> {
    let matched = bench.helm.reach.matched.clone();
    let is_taken = |server: &&&str| {
        let server: SocketAddr = server.parse().unwrap();
        let IpAddr::V4(v4) = server.ip() else { panic!("not IPv4") };
        matched.takes(v4.to_ipv6_mapped(), server.port())
    };
    servers.iter().filter(is_taken).map(|server| (*server).to_owned()).collect()
}

const SERVERS: [&str; 4] = ["10.1.0.5:8080", "10.1.0.6:8080", "10.1.0.6:9090", "10.9.9.9:7001"];

#[tokio::test]
async fn pods_are_taken_as_they_come_and_left_as_they_go_while_others_go_on() {
    let shadow = Shadow::start(Duration::ZERO).await;
    let plain = experiment("plain", "    ports: [7001]\n    addresses: [10.9.9.9]\n", &url(shadow.addr));
    let about = experiment("about", PODS, &url(shadow.addr));
    let mut bench = Bench::start(&text(&[plain, about])).await;
    assert_eq!(taken(&bench, &SERVERS), ["10.9.9.9:7001"], "no pod is known yet");
    let kept = bench.lane("plain", "shadow").unwrap();

    let (old, new) = (pod("a", "10.1.0.5", &[("http", 8080)]), pod("b", "10.1.0.6", &[("http", 9090)]));
    bench.told.sink("shop").replace(vec![old, new.clone()]);
    bench.until(|bench| bench.told.addresses() == ["10.1.0.5", "10.1.0.6"]).await;
    assert_eq!(bench.told.status.experiments(), [("about".to_owned(), 2)]);
    assert!(taken(&bench, &SERVERS).contains(&"10.1.0.6:9090".to_owned()));
    // The kernel's tables hold ports and addresses, so they take a little more; the policy does not.
    let running =
        bench.helm.parts.experiments.running().find(|wanted| wanted.config.name == "about").unwrap();
    let servers = &running.config.pods.as_ref().unwrap().servers;
    assert_eq!(*servers, ["10.1.0.5:8080".parse().unwrap(), "10.1.0.6:9090".parse().unwrap()]);

    bench.told.sink("shop").replace(vec![new]);
    bench.until(|bench| bench.told.addresses() == ["10.1.0.6"]).await;
    assert_eq!(
        taken(&bench, &SERVERS),
        ["10.1.0.6:9090", "10.9.9.9:7001"][..1]
            .iter()
            .chain(&["10.9.9.9:7001"])
            .map(|s| (*s).to_owned())
            .collect::<Vec<_>>()
    );
    bench.told.sink("shop").replace(Vec::new());
    bench.until(|bench| bench.told.addresses().is_empty()).await;
    assert_eq!(taken(&bench, &SERVERS), ["10.9.9.9:7001"]);
    assert!(Arc::ptr_eq(&kept.queue, &bench.lane("plain", "shadow").unwrap().queue));
}

#[tokio::test]
async fn a_loaded_configuration_keeps_the_pods_that_are_known() {
    let shadow = Shadow::start(Duration::ZERO).await;
    let about = experiment("about", PODS, &url(shadow.addr));
    let mut bench = Bench::start(&text(std::slice::from_ref(&about))).await;
    bench.told.sink("shop").replace(vec![pod("a", "10.1.0.5", &[("http", 8080)])]);
    bench.until(|bench| bench.told.addresses() == ["10.1.0.5"]).await;

    let other = PODS.replace("namespace: shop", "namespace: cart");
    bench.offer(&text(&[about, experiment("other", &other, &url(shadow.addr))])).await;
    assert_eq!(taken(&bench, &SERVERS), ["10.1.0.5:8080"], "the watch goes on");
    let namespaces: Vec<_> = bench.told.scopes().into_iter().map(|scope| scope.namespace).collect();
    assert_eq!(namespaces, ["shop", "cart"]);
    assert_eq!(bench.told.status.experiments(), [("about".to_owned(), 1), ("other".to_owned(), 0)]);

    // Of a namespace that nobody names any more nothing is kept.
    let plain = experiment("plain", "    ports: [7001]\n", &url(shadow.addr));
    bench.offer(&text(&[plain])).await;
    assert!(bench.told.addresses().is_empty());
    assert_eq!(bench.told.status.age(), Duration::ZERO);
}

#[tokio::test]
async fn a_total_rate_is_divided_by_the_agents_that_are_ready() {
    let shadow = Shadow::start(Duration::ZERO).await;
    let limits = "limits: { requestsPerSecond: { total: 100 } }";
    let shared = experiment("x", "    ports: [7001]\n", &format!("{}, {limits}", url(shadow.addr)));
    let mut bench = Bench::start(&(text(&[shared]) + "agents: 7\n")).await;
    assert_eq!(bench.told.status.agents(), 7, "as configured, until it is told");
    let ready = pod("a", "10.1.0.5", &[]);
    let starting = Pod { name: "c".to_owned(), is_ready: false, ..ready.clone() };
    let other = Pod { name: "b".to_owned(), ..ready.clone() };
    bench.told.sink("mirror").replace(vec![ready, other, starting.clone()]);
    bench.until(|bench| bench.told.status.agents() == 2).await;
    bench.told.sink("mirror").replace(vec![starting]);
    bench.until(|bench| bench.told.status.agents() == 1).await;
}
