//! Enters: what an API server says, and what experiments ask for. Leaves: pods and servers.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{
    Found, Pod,
    copy::{Copy, Said, Unusable},
    find,
};
use crate::io::config::{LabelSelector, PodPort, PodsConfig};

/// A pod as an API server writes it.
fn written(name: &str, version: u64) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "resourceVersion": version.to_string(),
            "labels": { "app": "shop", "odd": 7 },
        },
        "spec": {
            "containers": [
                { "name": "web", "ports": [
                    { "name": "http", "containerPort": 8080, "protocol": "TCP" },
                    { "containerPort": 9090 },
                    { "name": "dns", "containerPort": 53, "protocol": "UDP" },
                ] },
                { "name": "none" },
            ],
            "initContainers": [{ "restartPolicy": "Always", "ports": [{ "name": "side", "containerPort": 15001 }] }],
        },
        "status": {
            "phase": "Running", "podIP": "10.1.0.5", "podIPs": [{ "ip": "10.1.0.5" }, { "ip": "fd00::5" }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

fn event(kind: &str, object: &Value) -> Vec<u8> {
    json!({ "type": kind, "object": object }).to_string().into_bytes()
}

fn list(version: &str, items: &[Value]) -> Vec<u8> {
    json!({ "kind": "PodList", "metadata": { "resourceVersion": version }, "items": items })
        .to_string()
        .into_bytes()
}

fn names(copy: &Copy) -> Vec<String> {
    copy.pods().into_iter().map(|pod| pod.name).collect()
}

fn wanted(ports: &[PodPort]) -> PodsConfig {
    PodsConfig {
        namespace: "shop".to_owned(),
        selector: LabelSelector {
            labels: vec![("app".to_owned(), "shop".to_owned())],
            expressions: Vec::new(),
        },
        ports: ports.to_vec(),
        servers: Vec::new(),
    }
}

fn servers(texts: &[&str]) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
    servers.sort_unstable();
    servers
}

#[test]
fn of_a_pod_is_read_what_matters() {
    let pod = Pod::read(&written("a", 1)).unwrap();
    assert_eq!(pod.labels.get("app").map(String::as_str), Some("shop"));
    assert!(pod.is_running && pod.is_ready);
    assert_eq!(pod.addresses, ["10.1.0.5", "fd00::5"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap()));
    let ports: Vec<_> = pod.ports.iter().map(|(name, port)| (name.as_deref(), *port)).collect();
    assert_eq!(ports, [(Some("http"), 8080), (None, 9090), (Some("side"), 15001)]);
}

#[test]
fn a_pod_that_is_deleted_serves_until_it_has_ended() {
    let mut leaving = written("a", 1);
    leaving["metadata"]["deletionTimestamp"] = json!("2027-01-01T00:00:00Z");
    let pod = Pod::read(&leaving).unwrap();
    assert!(pod.is_running && !pod.is_ready);
    for phase in ["Pending", "Succeeded", "Failed"] {
        leaving["status"]["phase"] = json!(phase);
        assert_eq!(find(&wanted(&[]), &[Pod::read(&leaving).unwrap()]), Found::default(), "{phase}");
    }
}

#[test]
fn odd_parts_of_a_pod_are_left_out_and_the_rest_is_read() {
    let mut odd = written("a", 1);
    odd["status"]["podIPs"] = json!([{ "ip": "not an address" }, 7]);
    odd["spec"]["containers"][0]["ports"][0]["containerPort"] = json!("8080");
    odd["spec"]["containers"][0]["ports"][1]["containerPort"] = json!(70_000);
    odd["spec"]["initContainers"] = json!("none");
    let pod = Pod::read(&odd).unwrap();
    assert_eq!(pod.addresses, ["10.1.0.5".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(pod.ports, []);
    assert_eq!(Pod::read(&json!({ "metadata": {} })), None);
}

#[test]
fn ports_are_found_by_number_by_name_and_as_declared() {
    let pods = [Pod::read(&written("a", 1)).unwrap()];
    let found = |ports: &[PodPort]| find(&wanted(ports), &pods).servers;
    let both = |port: u16| [format!("10.1.0.5:{port}"), format!("[fd00::5]:{port}")];
    let expect = |ports: &[u16]| {
        let all: Vec<String> = ports.iter().flat_map(|port| both(*port)).collect();
        servers(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(found(&[PodPort::Name("http".to_owned())]), expect(&[8080]));
    assert_eq!(found(&[PodPort::Number(7777), PodPort::Name("http".to_owned())]), expect(&[7777, 8080]));
    assert_eq!(found(&[]), expect(&[8080, 9090, 15_001]));
    assert_eq!(found(&[PodPort::Name("grpc".to_owned())]), []);
}

#[test]
fn only_pods_that_run_and_are_meant_count() {
    let mut other = written("b", 1);
    other["metadata"]["labels"]["app"] = json!("cart");
    let mut pending = written("c", 1);
    pending["status"] = json!({ "phase": "Pending" });
    let mut without_address = written("d", 1);
    without_address["status"] = json!({ "phase": "Running" });
    let pods = [written("a", 1), other, pending, without_address].map(|pod| Pod::read(&pod).unwrap());
    assert_eq!(find(&wanted(&[]), &pods).pods, 1);
}

#[test]
fn a_copy_is_what_was_listed_and_what_changed_since() {
    let mut copy = Copy::default();
    copy.replace(&list("10", &[written("a", 3), written("b", 9)])).unwrap();
    assert_eq!((names(&copy), copy.version()), (vec!["a".to_owned(), "b".to_owned()], "10"));
    assert_eq!(copy.apply(&event("ADDED", &written("c", 11))), Ok(Said::Changed));
    assert_eq!(copy.apply(&event("DELETED", &written("a", 12))), Ok(Said::Changed));
    let bookmark = json!({ "kind": "Pod", "metadata": { "resourceVersion": "50" } });
    assert_eq!(copy.apply(&event("BOOKMARK", &bookmark)), Ok(Said::Bookmark));
    assert_eq!((names(&copy), copy.version()), (vec!["b".to_owned(), "c".to_owned()], "50"));
    copy.replace(br#"{"kind":"PodList","metadata":{"resourceVersion":"60"},"items":null}"#).unwrap();
    assert_eq!((names(&copy), copy.version()), (vec![], "60"));
}

#[test]
fn what_is_too_old_is_told_from_other_errors_and_from_nonsense() {
    let mut copy = Copy::default();
    copy.replace(&list("10", &[written("a", 3)])).unwrap();
    let status = |code: u64| json!({ "kind": "Status", "code": code, "reason": "x" });
    assert_eq!(copy.apply(&event("ERROR", &status(410))), Err(Unusable::Expired));
    assert_eq!(copy.apply(&event("ERROR", &status(500))), Err(Unusable::Failed(500)));
    for nonsense in
        [&b"{"[..], b"<html>", b"[]", b"{\"type\":\"ADDED\"}", b"\xff", &event("STRANGE", &written("b", 11))]
    {
        assert_eq!(copy.apply(nonsense), Err(Unusable::Malformed), "{}", String::from_utf8_lossy(nonsense));
    }
    for nonsense in
        [&b"{}"[..], b"", b"{\"items\":[]}", br#"{"kind":"Status","metadata":{"resourceVersion":"1"}}"#]
    {
        assert_eq!(copy.replace(nonsense), Err(Unusable::Malformed));
    }
    assert_eq!((names(&copy), copy.version()), (vec!["a".to_owned()], "10"), "what was told last stays");
}
