//! Enters: copies of safe and of unsafe methods. Leaves: an audit record of each that was a write.

use std::fs;

use serde_json::Value;

use super::{
    harness::{Running, get, post, request},
    server::Server,
};
use crate::{
    io::{
        audit::{Audit, Event},
        config::AuditConfig,
        ledger::ReplayOutcome,
    },
    pipeline::ExchangeId,
};

#[tokio::test]
async fn each_copy_of_an_unsafe_method_is_recorded_with_its_id_and_nothing_of_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let (audit, writer) =
        Audit::open(&AuditConfig { file: Some(path.clone()), ..AuditConfig::default() }).unwrap();
    let server = Server::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let target = audit.of_target("orders", Some("team"), "v2");
    let mut running = Running::start(server.addr, |config| config.audit = target).await;
    // The large one is not accepted at once.
    let mut delete = request(b"DELETE /secret HTTP/1.1\r\nHost: a\r\n\r\n", 38);
    delete.id = ExchangeId(0x2a);
    running.push([get("a"), post(3), post(12 << 20), delete, get("b")]);
    running.ended(ReplayOutcome::Answered, 5).await;
    running.stop().await;
    writer.close();
    assert_eq!(audit.records()[Event::Copy.index()], 3);
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["method"].to_string());
    let methods: Vec<_> = lines.iter().map(|line| line["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["DELETE", "POST", "POST"]);
    let mut delete = lines.swap_remove(0);
    assert!(delete.as_object_mut().unwrap().remove("time").is_some());
    let expected = serde_json::json!({
        "event": "copy",
        "experiment": "orders",
        "owner": "team",
        "target": "v2",
        "id": "0000000000000001-0000-000000000000002a",
        "method": "DELETE",
    });
    assert_eq!(delete, expected);
}
