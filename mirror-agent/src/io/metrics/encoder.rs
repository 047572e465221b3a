//! Enters: names, help texts, labels and values. Leaves: OpenMetrics text.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use crate::io::ledger::HistogramSnapshot;

/// Names and values of the labels of a target: its experiment and its own name.
pub(super) type Labels<'a> = [(&'a str, &'a str); 2];

/// The encoder of the client library with the shapes that occur here. The prefix comes from the registry, the
/// `_total` of counters from the library; the full stop of help texts from here.
pub(super) struct Encoder<'a>(pub(super) DescriptorEncoder<'a>);

impl Encoder<'_> {
    pub(super) fn describe<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, &format!("{help}."), None, kind)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.describe(name, help, MetricType::Counter)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.describe(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    pub(super) fn family(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        labels: &[&str],
        counts: &[u64],
    ) -> fmt::Result {
        let mut family = self.describe(name, help, MetricType::Counter)?;
        for (value, count) in labels.iter().zip(counts) {
            family.encode_family(&[(label, *value)])?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
        Ok(())
    }

    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        labels: &[&str],
        values: &[f64],
    ) -> fmt::Result {
        let mut family = self.describe(name, help, MetricType::Gauge)?;
        for (value, gauge) in labels.iter().zip(values) {
            family.encode_family(&[(label, *value)])?.encode_gauge(gauge)?;
        }
        Ok(())
    }

    /// A counter of each target.
    pub(super) fn target_counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        counts: impl Iterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        self.labelled_counters(name, help, counts)
    }

    /// A gauge of each target.
    pub(super) fn target_gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        self.labelled_gauges(name, help, values.map(|(labels, value)| (labels, value as f64)))
    }

    /// Counters of each target by one more label, which has these `values`.
    pub(super) fn target_families<'l>(
        &mut self,
        name: &str,
        help: &str,
        (label, values): (&str, &[&str]),
        counts: impl Iterator<Item = (Labels<'l>, &'l [u64])>,
    ) -> fmt::Result {
        let mut family = self.describe(name, help, MetricType::Counter)?;
        for ([experiment, target], counts) in counts {
            for (value, count) in values.iter().zip(counts) {
                let labels = [experiment, target, (label, *value)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        Ok(())
    }

    /// Counters of each experiment by one more label, which has these `values`.
    pub(super) fn experiment_families<'l>(
        &mut self,
        name: &str,
        help: &str,
        (label, values): (&str, &[&str]),
        counts: impl Iterator<Item = (&'l str, &'l [u64])>,
    ) -> fmt::Result {
        let mut family = self.describe(name, help, MetricType::Counter)?;
        for (experiment, counts) in counts {
            for (value, count) in values.iter().zip(counts) {
                let labels = [("experiment", experiment), (label, *value)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        Ok(())
    }

    /// Gauges of each experiment by one more label, which has these `values`.
    pub(super) fn experiment_gauges<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        (label, values): (&str, &[&str; N]),
        gauges: impl Iterator<Item = (&'l str, [f64; N])>,
    ) -> fmt::Result {
        let mut family = self.describe(name, help, MetricType::Gauge)?;
        for (experiment, gauges) in gauges {
            for (value, gauge) in values.iter().zip(gauges) {
                let labels = [("experiment", experiment), (label, *value)];
                family.encode_family(&labels)?.encode_gauge(&gauge)?;
            }
        }
        Ok(())
    }

    /// Gauges, each with its labels.
    pub(super) fn labelled_gauges<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        gauges: impl Iterator<Item = ([(&'l str, &'l str); N], f64)>,
    ) -> fmt::Result {
        let mut family = self.describe(name, help, MetricType::Gauge)?;
        for (labels, value) in gauges {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// Counters, each with its labels.
    pub(super) fn labelled_counters<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        counts: impl Iterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> fmt::Result {
        let mut family = self.describe(name, help, MetricType::Counter)?;
        for (labels, count) in counts {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    /// A histogram of each target.
    pub(super) fn target_histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        histograms: impl Iterator<Item = (Labels<'l>, &'l HistogramSnapshot)>,
    ) -> fmt::Result {
        self.histograms(name, help, histograms)
    }

    /// Histograms, each with its labels.
    pub(super) fn histograms<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        histograms: impl Iterator<Item = ([(&'l str, &'l str); N], &'l HistogramSnapshot)>,
    ) -> fmt::Result {
        let mut family = self.describe(name, help, MetricType::Histogram)?;
        for (labels, HistogramSnapshot { sum_seconds, buckets }) in histograms {
            let count = buckets.iter().map(|(_, count)| count).sum();
            let mut encoder = family.encode_family(&labels)?;
            encoder.encode_histogram::<NoLabelSet>(*sum_seconds, count, buckets, None)?;
        }
        Ok(())
    }
}
