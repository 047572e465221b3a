//! Enters: the books and the gauges, at a scrape. Leaves: OpenMetrics text.
//!
//! Everything is read at the moment of the scrape by one collector, so no counter is mirrored into a second place,
//! and every series of every reason exists from the first scrape on.

mod audit;
mod comparisons;
mod encoder;
mod fields;
mod fleet;
mod interfaces;
mod logs;
mod pods;
mod ring_fill;
mod sinks;
mod steering;
mod targets;

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use mirror_common::Counter;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

pub use self::{
    audit::register_audit, fleet::register_fleet, logs::register_logs, pods::register_pods,
    ring_fill::RingFill, sinks::register_sinks, steering::register_steering, targets::TargetGauges,
};
use self::{
    comparisons::encode_comparisons,
    encoder::Encoder,
    fields::encode_fields,
    interfaces::encode_interfaces,
    targets::{encode_copies, encode_targets},
};
use crate::{
    io::{
        capture::{CounterValues, FRAME_DROPS, role::Role},
        guard::GuardValues,
        interfaces::Interfaces,
        ledger::{DropReason, Ledger},
        replay::clock,
        worker::Orders,
    },
    pipeline::{
        Side,
        reason::{EvictReason, FlowSkipReason, LostReason, SkipReason},
    },
};

/// What a capture thread says of itself after each batch.
#[derive(Debug, Default)]
pub struct PipelineGauges {
    /// Flows in the table.
    pub flows: AtomicU64,
    /// Bytes held by the flow table and its reordering.
    pub flow_bytes: AtomicU64,
    /// Bytes held by messages being assembled.
    pub message_bytes: AtomicU64,
    /// How full the ring was of late.
    pub ring_fill: RingFill,
    /// Records that could not be read.
    pub bad_records: AtomicU64,
}

impl PipelineGauges {
    /// Sets the gauges.
    pub fn publish(&self, flows: usize, flow_bytes: usize, message_bytes: usize, bad_records: u64) {
        for (gauge, value) in
            [(&self.flows, flows), (&self.flow_bytes, flow_bytes), (&self.message_bytes, message_bytes)]
        {
            gauge.store(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.bad_records.store(bad_records, Ordering::Relaxed);
    }
}

/// Where the metrics get what the ledger does not hold.
pub trait Gauges: Debug + Send + Sync + 'static {
    /// The kernel program's counters, summed over the processors.
    fn kernel_counts(&self) -> CounterValues;
    /// Bytes of the kernel's ring buffers.
    fn ring_bytes(&self) -> u64;
    /// Of each target that receives copies.
    fn targets(&self) -> Vec<TargetGauges>;
    /// Interfaces with programs attached, in the order of [`Role::ALL`].
    fn interfaces_attached(&self) -> [u64; Role::ALL.len()];
    /// Names of the interfaces with programs attached, by index.
    fn interfaces(&self) -> BTreeMap<u32, String>;
    /// What the guard of the node last found.
    fn guard(&self) -> GuardValues;
}

impl<G: Gauges + ?Sized> Gauges for Arc<G> {
    fn kernel_counts(&self) -> CounterValues {
        (**self).kernel_counts()
    }

    fn ring_bytes(&self) -> u64 {
        (**self).ring_bytes()
    }

    fn targets(&self) -> Vec<TargetGauges> {
        (**self).targets()
    }

    fn interfaces_attached(&self) -> [u64; Role::ALL.len()] {
        (**self).interfaces_attached()
    }

    fn interfaces(&self) -> BTreeMap<u32, String> {
        (**self).interfaces()
    }

    fn guard(&self) -> GuardValues {
        (**self).guard()
    }
}

/// Everything that a scrape shows.
#[derive(Debug)]
pub struct Metrics {
    ledger: Arc<Ledger>,
    pipelines: Vec<Arc<PipelineGauges>>,
    gauges: Box<dyn Gauges>,
    orders: Arc<Orders>,
    interfaces: Arc<Interfaces>,
}

/// The registry that encodes [`Metrics`].
#[must_use]
pub fn registry(
    ledger: Arc<Ledger>,
    pipelines: Vec<Arc<PipelineGauges>>,
    gauges: Box<dyn Gauges>,
    orders: Arc<Orders>,
    interfaces: Arc<Interfaces>,
) -> Registry {
    let mut registry = Registry::with_prefix("mirror");
    registry.register_collector(Box::new(Metrics { ledger, pipelines, gauges, orders, interfaces }));
    registry
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Encoder(encoder);
        self.encode_requests(&mut out)?;
        self.encode_capture(&mut out)?;
        let books = self.ledger.snapshot();
        encode_copies(&mut out, &books.copies)?;
        encode_comparisons(&mut out, &books.comparisons)?;
        encode_fields(&mut out, &books.comparisons)?;
        encode_targets(&mut out, &self.gauges.targets())?;
        encode_turn(&mut out, 0.0)
    }
}

/// The registry of an agent that waits for another one to end. It has counted nothing and says no more than that.
#[must_use]
pub fn waiting_registry() -> Registry {
    let mut registry = Registry::with_prefix("mirror");
    registry.register_collector(Box::new(Waiting));
    registry
}

#[derive(Debug)]
struct Waiting;

impl Collector for Waiting {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        encode_turn(&mut Encoder(encoder), 1.0)
    }
}

/// What every agent says, also one that waits.
fn encode_turn(out: &mut Encoder<'_>, waiting: f64) -> fmt::Result {
    out.gauge(
        "agent_waiting",
        "1 while the agent waits for another one of its network namespace to end, else 0",
        waiting,
    )?;
    out.gauges("build_info", "The build; always 1", "version", &[env!("CARGO_PKG_VERSION")], &[1.0])
}

impl Metrics {
    fn encode_requests(&self, out: &mut Encoder<'_>) -> fmt::Result {
        let books = self.ledger.snapshot();
        out.counter(
            "requests_seen",
            "Requests of which the first byte was taken as a message start",
            books.seen,
        )?;
        out.gauge("requests_pending", "Requests seen that are not yet settled", books.pending as f64)?;
        out.counter(
            "requests_mirrored",
            "Requests of which all bytes were accepted by a shadow socket",
            books.mirrored,
        )?;
        out.family(
            "requests_skipped",
            "Requests deliberately not mirrored",
            "reason",
            &SkipReason::LABELS,
            &books.skipped,
        )?;
        out.family(
            "requests_dropped",
            "Requests that could not be mirrored",
            "reason",
            &DropReason::LABELS,
            &books.dropped,
        )?;
        out.family(
            "requests_lost",
            "Requests seen but damaged, which are never sent",
            "reason",
            &LostReason::LABELS,
            &books.lost,
        )?;
        let mut flows_skipped = books.flows_skipped;
        self.gauges.kernel_counts().add_left_out(&mut flows_skipped);
        out.family(
            "flows_skipped",
            "Flows that are not parsed",
            "reason",
            &FlowSkipReason::LABELS,
            &flows_skipped,
        )?;
        out.family(
            "flows_evicted",
            "Flows that left the table before they ended",
            "reason",
            &EvictReason::LABELS,
            &books.flows_evicted,
        )?;
        out.counter(
            "flows_observed_twice",
            "Flows that were recognised at a second interface though addresses, tags or networks differ there",
            books.flows_observed_twice,
        )?;
        out.counter(
            "request_starts_doubted",
            "Bytes that begin like a request and were not taken for one: a request that was missed, or text in a body",
            books.starts_doubted,
        )?;
        out.family(
            "stream_gap_bytes",
            "Bytes of streams that the capture never saw, though the receiver did",
            "side",
            &Side::ALL.map(Side::as_str),
            &books.gap_bytes,
        )?;
        out.counter("stream_conflicts", "Overlapping segments whose bytes differ", books.conflicts)?;
        out.counter(
            "segments_out_of_window",
            "Segments too far from their flow's position to belong to it",
            books.out_of_window,
        )?;
        out.counter(
            "segments_refused",
            "Segments that the receiver's TCP drops whatever they carry",
            books.refused,
        )
    }

    fn encode_capture(&self, out: &mut Encoder<'_>) -> fmt::Result {
        let kernel = self.gauges.kernel_counts();
        let count = |counter| kernel.get(counter);
        out.family(
            "frames_captured",
            "Frames of matched ports of which a record was made",
            "side",
            &Side::ALL.map(Side::as_str),
            &[count(Counter::CopiedClient), count(Counter::CopiedServer)],
        )?;
        let bad_records = self.sum(|pipeline| &pipeline.bad_records);
        let labels: Vec<&str> = FRAME_DROPS.iter().map(|(label, _)| *label).chain(["bad_record"]).collect();
        let counts: Vec<u64> =
            FRAME_DROPS.iter().map(|(_, counter)| count(*counter)).chain([bad_records]).collect();
        out.family(
            "frames_dropped",
            "Frames of matched ports, or that may be, which were not copied in full",
            "reason",
            &labels,
            &counts,
        )?;
        out.counter(
            "frames_own",
            "Frames of the agent's own replay connections, left out",
            count(Counter::Own),
        )?;
        out.counter(
            "frames_unread",
            "Frames with the content of answers that nobody reads, of which only the lengths were copied",
            count(Counter::Unread),
        )?;
        out.gauge("flows_active", "Flows in the table", self.sum(|pipeline| &pipeline.flows) as f64)?;
        let now = clock::now();
        out.gauge(
            "ring_utilization_ratio",
            "Highest fill of a ring buffer in the last minute, 0 to 1",
            self.pipelines.iter().map(|pipeline| pipeline.ring_fill.highest(now)).fold(0.0, f64::max),
        )?;
        out.gauge(
            "interfaces_one_sided",
            "Interfaces that have shown responses for more than 10 s and meanwhile no request",
            self.interfaces.one_sided() as f64,
        )?;
        out.gauge(
            "capture_paused",
            "1 while capture is paused, else 0",
            f64::from(u8::from(self.orders.is_paused())),
        )?;
        out.gauges(
            "interfaces_attached",
            "Interfaces to which programs are attached, by role",
            "role",
            &Role::LABELS,
            &self.gauges.interfaces_attached().map(|count| count as f64),
        )?;
        encode_interfaces(out, &self.interfaces.series(&self.gauges.interfaces()))?;
        self.encode_guard(out)?;
        let replay_bytes: u64 = self.gauges.targets().iter().map(|target| target.bytes).sum();
        let pools = [
            ("flows", self.sum(|pipeline| &pipeline.flow_bytes)),
            ("messages", self.sum(|pipeline| &pipeline.message_bytes)),
            ("replay", replay_bytes),
            ("rings", self.gauges.ring_bytes()),
        ];
        let (labels, values) = (pools.map(|(label, _)| label), pools.map(|(_, value)| value as f64));
        out.gauges("memory_bytes", "Memory held, in bytes", "pool", &labels, &values)
    }

    fn encode_guard(&self, out: &mut Encoder<'_>) -> fmt::Result {
        let GuardValues { capture, cpu, memory } = self.gauges.guard();
        out.gauge(
            "guard_capture_ratio",
            "Share of new connections that are captured, 0 to 1; less than 1 while the guard sheds",
            capture,
        )?;
        out.gauge(
            "guard_cpu_ratio",
            "Processor time used in the last second, as a ratio of what the guard allows; 0 where it is not guarded",
            cpu,
        )?;
        out.gauge(
            "guard_memory_ratio",
            "Memory used, as a ratio of what the guard allows; 0 where it is not guarded",
            memory,
        )
    }

    fn sum(&self, field: impl Fn(&PipelineGauges) -> &AtomicU64) -> u64 {
        self.pipelines.iter().map(|pipeline| field(pipeline).load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::{
        io::{
            audit::Audit,
            compare::SessionGauges,
            ledger::CopyBooks,
            pods::PodsStatus,
            replay::{BreakerState, InterlockGauge},
            sinks::SinkLedger,
            steering::{ExperimentStatus, Status},
        },
        pipeline::{Stats, judge::GateConfig},
    };

    #[derive(Debug)]
    struct Fixed;

    impl Gauges for Fixed {
        fn kernel_counts(&self) -> CounterValues {
            CounterValues::from_fn(|index| index + 1)
        }
        fn ring_bytes(&self) -> u64 {
            4096
        }
        fn targets(&self) -> Vec<TargetGauges> {
            let books = Arc::new(CopyBooks::new("default", "shadow"));
            let breaker = BreakerState::Open;
            vec![TargetGauges {
                books,
                queued: 3,
                bytes: 300,
                in_flight: 2,
                in_flight_limit: 16,
                addresses_refused: 0,
                interlock: Some(InterlockGauge { is_open: true, changes: 1 }),
                breaker,
                breaker_changes: [4, 5, 6],
                sessions: Some(SessionGauges { values: 7, substitutions: 8, unknown: 9 }),
            }]
        }
        fn interfaces_attached(&self) -> [u64; 3] {
            [1, 2, 0]
        }
        fn interfaces(&self) -> BTreeMap<u32, String> {
            BTreeMap::from([(1, "lo".to_owned())])
        }
        fn guard(&self) -> GuardValues {
            GuardValues { capture: 0.5, cpu: 0.9, memory: 0.25 }
        }
    }

    fn scrape(ledger: &Arc<Ledger>) -> String {
        let _copies = ledger.copies("default", "shadow");
        let gate = GateConfig { min_samples: 7, ..GateConfig::default() };
        ledger.comparisons("default").set_gate(Some(&gate));
        let mut registry = registry(
            Arc::clone(ledger),
            vec![Arc::new(PipelineGauges::default())],
            Box::new(Fixed),
            Arc::default(),
            Arc::default(),
        );
        register_audit(&mut registry, Audit::default());
        register_fleet(&mut registry, Arc::default());
        let sinks = SinkLedger::default();
        let _sink = sinks.open("default", "file");
        register_sinks(&mut registry, sinks);
        let status = Arc::<Status>::default();
        let experiment = ExperimentStatus { name: "default".to_owned(), is_paused: true, expires: 7 };
        status.set_experiments(vec![experiment]);
        register_steering(&mut registry, status);
        register_logs(&mut registry, Arc::default());
        let pods = Arc::<PodsStatus>::default();
        pods.set_experiments(vec![("default".to_owned(), 2)]);
        register_pods(&mut registry, pods);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn every_series_exists_before_the_first_event() {
        let text = scrape(&Arc::default());
        for line in [
            "mirror_requests_seen_total 0",
            "mirror_requests_skipped_total{reason=\"method\"} 0",
            "mirror_requests_dropped_total{reason=\"queue_full\"} 0",
            "mirror_requests_lost_total{reason=\"gap\"} 0",
            "mirror_replays_total{experiment=\"default\",target=\"shadow\",outcome=\"answered\"} 0",
            "mirror_copies_total{experiment=\"default\",target=\"shadow\"} 0",
            "mirror_copies_dropped_total{experiment=\"default\",target=\"shadow\",reason=\"write\"} 0",
            "mirror_replay_queue_requests{experiment=\"default\",target=\"shadow\"} 3.0",
            "mirror_interlock_open{experiment=\"default\",target=\"shadow\"} 1.0",
            "mirror_interlock_changes_total{experiment=\"default\",target=\"shadow\"} 1",
            "mirror_breaker_state{experiment=\"default\",target=\"shadow\"} 2.0",
            "mirror_breaker_changes_total{experiment=\"default\",target=\"shadow\",to=\"half_open\"} 5",
            "mirror_session_values{experiment=\"default\",target=\"shadow\"} 7.0",
            "mirror_session_substitutions_total{experiment=\"default\",target=\"shadow\"} 8",
            "mirror_session_unknown_total{experiment=\"default\",target=\"shadow\"} 9",
            "mirror_flows_skipped_total{reason=\"tls\"} 0",
            "mirror_comparisons_total{experiment=\"default\",result=\"divergent\"} 0",
            "mirror_divergences_total{experiment=\"default\",kind=\"order\"} 0",
            "mirror_verdict_state{experiment=\"default\",state=\"pass\"} 0.0",
            "mirror_frames_captured_total{side=\"client\"} 1",
            "mirror_frames_dropped_total{reason=\"ring_full\"} 3",
            "mirror_replay_lag_seconds_bucket{le=\"+Inf\",experiment=\"default\",target=\"shadow\"} 0",
            "mirror_memory_bytes{pool=\"rings\"} 4096.0",
            "mirror_flows_observed_twice_total 0",
            "mirror_interfaces_one_sided 0.0",
            "mirror_flows_skipped_total{reason=\"sampled\"} 11",
            "mirror_flows_skipped_total{reason=\"shed\"} 12",
            "mirror_guard_capture_ratio 0.5",
            "mirror_guard_cpu_ratio 0.9",
            "mirror_guard_memory_ratio 0.25",
            "mirror_capture_paused 0.0",
            "mirror_agent_waiting 0.0",
            "mirror_log_lines_dropped_total 0",
            "mirror_log_lines_held_back_total 0",
            "mirror_interfaces_attached{role=\"pod\"} 2.0",
            "mirror_interface_segments_total{interface=\"lo\",side=\"client\"} 0",
            "mirror_interface_segments_total{interface=\"other\",side=\"server\"} 0",
            "mirror_interface_one_sided{interface=\"lo\"} 0.0",
            "mirror_gate_limit_ratio{experiment=\"default\",limit=\"divergence\"} 0.01",
            "mirror_gate_limit_ratio{experiment=\"default\",limit=\"p95\"} 1.1",
            "mirror_gate_samples{experiment=\"default\"} 7.0",
            "mirror_experiment_paused{experiment=\"default\"} 1.0",
            "mirror_experiment_expiry_timestamp_seconds{experiment=\"default\"} 7.0",
            "mirror_config_last_reload_successful 1.0",
            "mirror_config_reloads_total{result=\"rejected\"} 0",
            "mirror_experiment_pods{experiment=\"default\"} 2.0",
            "mirror_pods_watch_errors_total{reason=\"expired\"} 0",
            "mirror_pods_state_age_seconds 0.0",
            "mirror_audit_records_total{event=\"pause\"} 0",
            "mirror_fleet_peers_known 0.0",
            "mirror_fleet_peers_answered 0.0",
            "mirror_audit_records_dropped_total{reason=\"queue_full\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    /// Crates, named where their logs are.
    const CRATES: [&str; 2] = ["mirror_agent", "mirror_ebpf"];

    #[test]
    fn page_documents_every_metric_and_every_label_value_and_no_others() {
        let page = include_str!("../../../../README.md");
        let text = scrape(&Arc::default());
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let exported: BTreeSet<String> = types
            .map(|(name, kind)| format!("{name}{}", if kind == "counter" { "_total" } else { "" }))
            .collect();
        let is_word = |symbol: char| symbol.is_alphanumeric() || symbol == '_';
        let documented: BTreeSet<String> = page
            .split(|symbol| !is_word(symbol))
            .filter(|word| word.starts_with("mirror_") && !CRATES.contains(word))
            .map(str::to_owned)
            .collect();
        assert_eq!(documented, exported);
        let values = text.split(['{', '}']).filter_map(|label| label.split_once("=\"")?.1.strip_suffix('"'));
        for value in values.filter(|value| value.chars().all(is_word) && value.parse::<f64>().is_err()) {
            assert!(page.contains(&format!("`{value}`")), "{value} is not in the README");
        }
    }

    #[test]
    fn the_books_balance_with_a_request_open_in_every_state() {
        let ledger = Arc::new(Ledger::default());
        ledger.publish(&Stats { seen: 5, skipped: [1, 0, 0, 0, 0, 0, 0, 0, 0, 0], ..Stats::default() });
        let books = ledger.copies("default", "shadow");
        let ticket = || ledger.claim(1).ticket(&books);
        let (open, done, failed) = (ticket(), ticket(), ticket());
        done.mirrored();
        failed.dropped(DropReason::Connect);
        assert!(scrape(&ledger).contains("mirror_requests_pending 2.0"));
        drop(open);
        let books = ledger.snapshot();
        assert_eq!(books.pending, 1);
        assert_eq!(books.dropped.iter().sum::<u64>(), 2, "a ticket let go counts as dropped");
    }
}
