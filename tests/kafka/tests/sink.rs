//! Enters: records for a sink. Leaves: whether brokers have them, keyed and joined, also behind a restart.
//!
//! Run it by `cargo test --manifest-path tests/kafka/Cargo.toml`: it builds librdkafka, whose mock cluster speaks the
//! protocol of brokers on localhost. It is told nothing of what is to come.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use mirror_agent::{
    io::{
        config::{KafkaTopics, RedactRules, SinkConfig, SinkPlace, SinkTake},
        evidence::{Record, Told},
        sinks::{SinkLedger, Sinks},
    },
    pipeline::{
        Answer, Answered, Endpoint, ExchangeId, FlowKey, ReplyTo, Request, Timestamp,
        compare::Compared,
        flow::FlowId,
        policy::{ExperimentSet, Selection},
        reason::{ComparisonResult, UntimedReason},
        redact::Redactor,
    },
};
use rdkafka::{
    ClientConfig, Message as _, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    mocking::MockCluster,
};

const PARTITIONS: i32 = 3;

fn record(redactor: &Redactor, exchange: &str) -> Arc<Record> {
    let answered = Answered::Whole(Answer {
        status: 200,
        head: Bytes::from_static(b"HTTP/1.1 200 OK\r\nset-cookie: sid=s3cret\r\n\r\n"),
        content: Bytes::from_static(b"{}"),
        timing: Err(UntimedReason::Unknown),
    });
    let endpoint = Endpoint::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
    let raw = Bytes::from_static(b"GET /a?token=s3cret HTTP/1.1\r\nHost: a\r\n\r\n");
    let request = Request {
        id: ExchangeId(1),
        selection: Arc::new(Selection { policy: Arc::default(), experiments: ExperimentSet::default() }),
        flow: FlowKey { client: endpoint, server: endpoint, vlan: 0, vni: 0 },
        flow_id: FlowId(0),
        head_len: raw.len(),
        raw,
        reply_to: ReplyTo::Other,
        keep_alive: true,
        first_byte_at: Timestamp::ZERO,
        last_byte_at: Timestamp::ZERO,
        has_marker: false,
    };
    let told = Told {
        at: SystemTime::now(),
        exchange,
        experiment: "orders",
        target: "v2",
        endpoint: "GET /a",
        request: &request,
        live: &answered,
        shadow: &answered,
        control: None,
        compared: &Ok(Compared::default()),
        result: ComparisonResult::Equal,
        reason: None,
        cluster: None,
    };
    Arc::new(Record::new(&told, redactor, 1000))
}

fn redactor() -> Redactor {
    Redactor::new(&RedactRules::default(), [1, 2]).unwrap()
}

fn open(brokers: &str, topics: KafkaTopics, ledger: &SinkLedger) -> Sinks {
    let to = SinkPlace::Kafka { brokers: brokers.split(',').map(str::to_owned).collect(), topics };
    Sinks::open(&[SinkConfig { name: "k".to_owned(), take: SinkTake::All, to }], "orders", ledger).unwrap()
}

/// Written, dropped, failed.
fn counts(ledger: &SinkLedger) -> [u64; 3] {
    ledger.books()[0].counts()
}

fn wait_for(ledger: &SinkLedger, patience: Duration, done: impl Fn([u64; 3]) -> bool) {
    let until = Instant::now() + patience;
    while !done(counts(ledger)) {
        assert!(Instant::now() < until, "written, dropped, failed: {:?}", counts(ledger));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Messages of a topic by their keys, with their partitions.
fn messages(brokers: &str, topic: &str, count: usize) -> BTreeMap<String, Vec<(i32, serde_json::Value)>> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "test").create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, rdkafka::Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut found: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let until = Instant::now() + Duration::from_secs(30);
    while found.values().map(Vec::len).sum::<usize>() < count && Instant::now() < until {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
        let text = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        found.entry(key).or_default().push((message.partition(), serde_json::from_str(&text).unwrap()));
    }
    found
}

#[test]
fn records_are_in_one_topic_by_their_exchange() {
    let cluster = MockCluster::new(2).unwrap();
    cluster.create_topic("mirror", PARTITIONS, 1).unwrap();
    let (brokers, ledger, redactor) = (cluster.bootstrap_servers(), SinkLedger::default(), redactor());
    let sinks = open(&brokers, KafkaTopics::Joined("mirror".to_owned()), &ledger);
    for number in 0..1000 {
        sinks.take(&record(&redactor, &format!("exchange-{number}")), ComparisonResult::Equal);
    }
    wait_for(&ledger, Duration::from_secs(30), |[written, ..]| written == 1000);
    let found = messages(&brokers, "mirror", 1000);
    assert_eq!(found.len(), 1000);
    let used: std::collections::BTreeSet<i32> = found.values().flatten().map(|(partition, _)| *partition).collect();
    assert_eq!(used.len(), 3);
    let (_, value) = &found["exchange-7"][0];
    assert_eq!((&value["exchange"], &value["live"]["status"]), (&"exchange-7".into(), &200.into()));
    assert_eq!(counts(&ledger), [1000, 0, 0]);
}

#[test]
fn answers_apart_meet_in_the_same_partition() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("live", PARTITIONS, 1).unwrap();
    cluster.create_topic("shadow", PARTITIONS, 1).unwrap();
    let (brokers, ledger, redactor) = (cluster.bootstrap_servers(), SinkLedger::default(), redactor());
    let topics = KafkaTopics::Apart { live: "live".to_owned(), shadow: "shadow".to_owned() };
    let sinks = open(&brokers, topics, &ledger);
    for number in 0..50 {
        sinks.take(&record(&redactor, &format!("exchange-{number}")), ComparisonResult::Equal);
    }
    wait_for(&ledger, Duration::from_secs(30), |[written, ..]| written == 50);
    let (live, shadow) = (messages(&brokers, "live", 50), messages(&brokers, "shadow", 50));
    assert_eq!((live.len(), shadow.len()), (50, 50));
    for (key, of_live) in &live {
        let ((partition, value), (other, result)) = (&of_live[0], &shadow[key][0]);
        assert_eq!(partition, other, "{key}");
        assert!(value["live"]["status"] == 200 && value["shadow"].is_null() && result["live"].is_null());
        assert!(result["shadow"]["status"] == 200 && result["result"] == "equal");
    }
}

#[test]
fn a_broker_that_restarts_gets_what_waited_meanwhile() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("mirror", PARTITIONS, 1).unwrap();
    let (brokers, ledger, redactor) = (cluster.bootstrap_servers(), SinkLedger::default(), redactor());
    let sinks = open(&brokers, KafkaTopics::Joined("mirror".to_owned()), &ledger);
    let take = |from: usize, to: usize| {
        for number in from..to {
            sinks.take(&record(&redactor, &format!("exchange-{number}")), ComparisonResult::Equal);
        }
    };
    take(0, 100);
    wait_for(&ledger, Duration::from_secs(30), |[written, ..]| written == 100);
    cluster.broker_down(1).unwrap();
    let begun = Instant::now();
    take(100, 300);
    assert!(begun.elapsed() < Duration::from_secs(5), "a dead broker is felt: {:?}", begun.elapsed());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(counts(&ledger)[2], 0);
    cluster.broker_up(1).unwrap();
    wait_for(&ledger, Duration::from_secs(60), |[written, ..]| written == 300);
    // At least once: a message may be there twice.
    assert_eq!(messages(&brokers, "mirror", 300).len(), 300);
}

#[test]
fn brokers_that_are_dead_are_counted_and_not_felt() {
    let (ledger, redactor) = (SinkLedger::default(), redactor());
    let sinks = open("127.0.0.1:1", KafkaTopics::Joined("mirror".to_owned()), &ledger);
    let record = record(&redactor, "exchange");
    let begun = Instant::now();
    for _ in 0..20_000 {
        sinks.take(&record, ComparisonResult::Equal);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let books = ledger.books().remove(0);
    assert!(books.counts()[1] > 10_000, "{:?}", books.counts());
    let begun = Instant::now();
    drop(sinks);
    assert!(begun.elapsed() < Duration::from_secs(4), "the end waits for a dead broker: {:?}", begun.elapsed());
    assert_eq!(books.counts()[0], 0);
}
