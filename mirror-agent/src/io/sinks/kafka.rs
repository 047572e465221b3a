//! Enters: records. Leaves: messages in one topic of Kafka's, or in two, keyed by the number of the exchange.
//!
//! At least once: a message whose acknowledgement was lost is sent again. While brokers do not answer, records wait in the
//! queue; what does not fit there is dropped, and what could not be sent for too long has failed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rskafka::{
    BackoffConfig,
    chrono::{DateTime, Utc},
    client::{
        Client, ClientBuilder,
        error::{Error, ProtocolError},
        partition::{Compression, PartitionClient, UnknownTopicHandling},
    },
    record::Record as Message,
};
use serde::Serialize;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::{SinkBooks, queue::Queue};
use crate::{
    io::{
        config::KafkaTopics,
        evidence::{AnswerRecord, DivergenceRecord, Record, written},
    },
    pipeline::{reason::SinkResult, redact::RedactedMessage},
};

/// Writes until the queue is closed and empty, or the brokers do not answer once it is closed.
pub(super) fn write(brokers: Vec<String>, topics: &KafkaTopics, queue: &Queue, books: &SinkBooks) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            warn!(%error, sink = %books.sink, "A sink has no runtime and takes nothing.");
            return queue.close();
        }
    };
    let mut writer = Writer { brokers, connected: None, queue, books, warned: None };
    while let Some(batch) = queue.take(BATCH, PATIENCE) {
        // Outside of the runtime, where nothing else is waited for.
        runtime.block_on(writer.send(&batch, topics));
    }
}

struct Writer<'w> {
    brokers: Vec<String>,
    connected: Option<Connected>,
    queue: &'w Queue,
    books: &'w SinkBooks,
    warned: Option<Instant>,
}

struct Connected {
    client: Client,
    /// Partitions by topic.
    partitions: BTreeMap<String, Vec<i32>>,
    clients: BTreeMap<(String, i32), Arc<PartitionClient>>,
}

/// What is to be sent, and to which record of a batch it belongs.
struct Outgoing<'t> {
    record: usize,
    topic: &'t str,
    message: Message,
}

impl Writer<'_> {
    /// Sends all messages of a batch, and counts its records.
    async fn send(&mut self, batch: &[Arc<Record>], topics: &KafkaTopics) {
        let mut waiting = outgoing(batch, topics);
        let mut failed = BTreeSet::new();
        let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
        while !waiting.is_empty() {
            let Err(error) = self.try_send(&mut waiting, &mut failed).await else { continue };
            self.connected = None;
            self.warn(&error);
            if self.queue.is_closed() || begun.elapsed() >= GIVE_UP {
                failed.extend(waiting.iter().map(|outgoing| outgoing.record));
                break;
            }
            self.pause(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let failed = u64::try_from(failed.len()).unwrap_or(u64::MAX);
        let all = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        self.books.count(SinkResult::Failed, failed);
        self.books.count(SinkResult::Written, all.saturating_sub(failed));
        if failed > 0 && self.queue.is_closed() {
            // Nobody waits for a broker that is dead.
            self.books.count(SinkResult::Failed, u64::try_from(self.queue.clear()).unwrap_or(u64::MAX));
        }
    }

    /// Sends what can be, and takes that off `waiting`.
    async fn try_send(
        &mut self,
        waiting: &mut Vec<Outgoing<'_>>,
        failed: &mut BTreeSet<usize>,
    ) -> Result<(), String> {
        let connected = match &mut self.connected {
            Some(connected) => connected,
            none => none.insert(within(connect(self.brokers.clone())).await?),
        };
        let mut groups: BTreeMap<(&str, i32), Vec<usize>> = BTreeMap::new();
        for (position, outgoing) in waiting.iter().enumerate() {
            let known = connected.partitions.get(outgoing.topic);
            let partitions = known.ok_or_else(|| format!("there is no topic {}", outgoing.topic))?;
            let key = outgoing.message.key.as_deref().unwrap_or_default();
            let place = usize::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or(0) % partitions.len().max(1);
            let partition = partitions.get(place).copied().unwrap_or(0);
            groups.entry((outgoing.topic, partition)).or_default().push(position);
        }
        let mut sent = BTreeSet::new();
        let mut trouble = None;
        for ((topic, partition), positions) in groups {
            for part in parts(&positions, waiting) {
                match connected.produce(topic, partition, &part, waiting).await {
                    Ok(()) => sent.extend(part),
                    // Nothing that is tried again would help.
                    Err(Trouble::Refused(error)) => {
                        debug!(error, "A broker refuses messages.");
                        failed.extend(
                            part.iter().filter_map(|at| waiting.get(*at)).map(|outgoing| outgoing.record),
                        );
                        sent.extend(part);
                    }
                    Err(Trouble::Later(error)) => trouble = Some(error),
                }
            }
        }
        let mut position = 0_usize;
        waiting.retain(|_| {
            let is_left = !sent.contains(&position);
            position += 1;
            is_left
        });
        trouble.map_or(Ok(()), Err)
    }

    /// Waits, but not beyond the end.
    async fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.queue.is_closed() {
            sleep(PAUSE_STEP.min(until.saturating_duration_since(Instant::now()))).await;
        }
    }

    fn warn(&mut self, error: &str) {
        let SinkBooks { experiment, sink, .. } = self.books;
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            self.warned = Some(Instant::now());
            warn!(error, %experiment, %sink, "Kafka takes no records; see mirror_sink_records_total.");
        } else {
            debug!(error, %experiment, %sink, "Kafka takes no records.");
        }
    }
}

/// Why messages were not taken.
enum Trouble {
    /// They never will be.
    Refused(String),
    /// They may be later.
    Later(String),
}

impl Connected {
    async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        positions: &[usize],
        waiting: &[Outgoing<'_>],
    ) -> Result<(), Trouble> {
        let key = (topic.to_owned(), partition);
        let client = match self.clients.get(&key) {
            Some(client) => Arc::clone(client),
            None => {
                let made = self.client.partition_client(topic, partition, UnknownTopicHandling::Error);
                let client = Arc::new(within(made).await.map_err(Trouble::Later)?);
                Arc::clone(self.clients.entry(key).or_insert(client))
            }
        };
        let messages =
            positions.iter().filter_map(|at| waiting.get(*at)).map(|outgoing| outgoing.message.clone());
        match timeout(ANSWER_TIME, client.produce(messages.collect(), Compression::NoCompression)).await {
            Ok(Ok(_offsets)) => Ok(()),
            Ok(Err(error)) if is_final(&error) => Err(Trouble::Refused(error.to_string())),
            Ok(Err(error)) => Err(Trouble::Later(error.to_string())),
            Err(_elapsed) => Err(Trouble::Later("the broker does not answer".to_owned())),
        }
    }
}

async fn connect(brokers: Vec<String>) -> Result<Connected, Error> {
    let backoff = BackoffConfig {
        init_backoff: FIRST_PAUSE,
        max_backoff: Duration::from_secs(1),
        base: 2.0,
        // Trying again is done here.
        deadline: Some(ANSWER_TIME / 2),
    };
    let client =
        ClientBuilder::new(brokers).client_id("mirror-agent").backoff_config(backoff).build().await?;
    let topics = client.list_topics().await?;
    let partitions = topics.into_iter().map(|topic| (topic.name, topic.partitions.into_iter().collect()));
    Ok(Connected { client, partitions: partitions.collect(), clients: BTreeMap::new() })
}

async fn within<T>(tried: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(ANSWER_TIME, tried).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_elapsed) => Err("no broker answers".to_owned()),
    }
}

/// Whether a broker would never take the messages.
fn is_final(error: &Error) -> bool {
    matches!(
        error,
        Error::ServerError {
            protocol_error: ProtocolError::MessageTooLarge
                | ProtocolError::RecordListTooLarge
                | ProtocolError::InvalidRecord
                | ProtocolError::CorruptMessage,
            ..
        }
    )
}

/// Positions of messages that go in one request each.
fn parts(positions: &[usize], waiting: &[Outgoing<'_>]) -> Vec<Vec<usize>> {
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut bytes = usize::MAX;
    for position in positions {
        let size =
            waiting.get(*position).map_or(0, |outgoing| outgoing.message.approximate_size() + OVERHEAD);
        match parts.last_mut() {
            Some(part) if bytes.saturating_add(size) <= REQUEST_BYTES => part.push(*position),
            _ => {
                parts.push(vec![*position]);
                bytes = 0;
            }
        }
        bytes = bytes.saturating_add(size);
    }
    parts
}

/// What of an exchange is live's alone.
#[derive(Serialize)]
struct LiveMessage<'r> {
    #[serde(serialize_with = "written")]
    time: SystemTime,
    exchange: &'r str,
    experiment: &'r str,
    endpoint: &'r str,
    request: &'r RedactedMessage,
    live: &'r AnswerRecord,
}

/// What of it is the target's.
#[derive(Serialize)]
struct ShadowMessage<'r> {
    #[serde(serialize_with = "written")]
    time: SystemTime,
    exchange: &'r str,
    experiment: &'r str,
    target: &'r str,
    endpoint: &'r str,
    result: &'static str,
    reason: Option<&'static str>,
    cluster: Option<&'r str>,
    divergences: &'r [DivergenceRecord],
    has_more_divergences: bool,
    shadow: &'r AnswerRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<&'r AnswerRecord>,
}

fn outgoing<'t>(batch: &[Arc<Record>], topics: &'t KafkaTopics) -> Vec<Outgoing<'t>> {
    let mut all = Vec::new();
    for (record, told) in batch.iter().enumerate() {
        let told = &**told;
        // Text, numbers and lists: nothing that JSON cannot hold.
        let mut add = |topic: &'t str, value: Result<Vec<u8>, serde_json::Error>| {
            let message = Message {
                key: Some(told.exchange.clone().into_bytes()),
                value: Some(value.unwrap_or_default()),
                headers: BTreeMap::new(),
                timestamp: milliseconds(told.time),
            };
            all.push(Outgoing { record, topic, message });
        };
        match topics {
            KafkaTopics::Joined(topic) => add(topic, serde_json::to_vec(told)),
            KafkaTopics::Apart { live, shadow } => {
                let of_live = LiveMessage {
                    time: told.time,
                    exchange: &told.exchange,
                    experiment: &told.experiment,
                    endpoint: &told.endpoint,
                    request: &told.request,
                    live: &told.live,
                };
                let of_shadow = ShadowMessage {
                    time: told.time,
                    exchange: &told.exchange,
                    experiment: &told.experiment,
                    target: &told.target,
                    endpoint: &told.endpoint,
                    result: told.result,
                    reason: told.reason,
                    cluster: told.cluster.as_deref(),
                    divergences: &told.divergences,
                    has_more_divergences: told.has_more_divergences,
                    shadow: &told.shadow,
                    control: told.control.as_ref(),
                };
                add(live, serde_json::to_vec(&of_live));
                add(shadow, serde_json::to_vec(&of_shadow));
            }
        }
    }
    all
}

/// A time as Kafka has it.
fn milliseconds(time: SystemTime) -> DateTime<Utc> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default()
}

/// The hash by which Kafka's own clients choose a partition: records of one key meet those that others write.
fn murmur2(key: &[u8]) -> u32 {
    const FACTOR: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ u32::try_from(key.len()).unwrap_or(u32::MAX);
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(FACTOR);
        word = (word ^ (word >> 24)).wrapping_mul(FACTOR);
        hash = hash.wrapping_mul(FACTOR) ^ word;
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0_u32, |last, byte| last << 8 | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(FACTOR);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(FACTOR);
    hash ^ (hash >> 15)
}

/// Records that are taken at once.
const BATCH: usize = 500;

/// Nothing but records is waited for.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Bytes of one request: brokers take 1 MiB, unless configured otherwise.
const REQUEST_BYTES: usize = 900 * 1024;

/// What a message takes beside its key and value, about.
const OVERHEAD: usize = 70;

/// How long a broker may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Between tries; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often it is looked whether the sink is closed.
const PAUSE_STEP: Duration = Duration::from_millis(50);

/// For how long a batch is tried: a restart of a broker is over by then.
const GIVE_UP: Duration = Duration::from_secs(60);

/// How often a warning about the same thing is given at most.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::murmur2;

    #[test]
    fn hash_is_that_of_other_clients() {
        // The values of Kafka's own test of its hash.
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), u32::from_ne_bytes(hash.to_ne_bytes()), "{key}");
        }
    }
}
