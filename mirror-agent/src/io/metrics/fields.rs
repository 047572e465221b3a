//! Enters: what is known of the numbers that are followed in answers. Leaves: their metrics.

use std::fmt;

use prometheus_client::{encoding::NoLabelSet, metrics::MetricType};

use super::encoder::Encoder;
use crate::io::ledger::{AnswerOf, ComparisonSnapshot, NumberFigures};

pub(super) fn encode_fields(out: &mut Encoder<'_>, books: &[ComparisonSnapshot]) -> fmt::Result {
    let mut counts = out.describe(
        "field_values",
        "Numbers that are followed in answers, by their path",
        MetricType::Counter,
    )?;
    for (labels, numbers) in each(books) {
        counts.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&numbers.count, None)?;
    }
    let mut sums = out.describe(
        "field_sum",
        "Sum of the numbers that are followed; it falls where a number is negative",
        MetricType::Gauge,
    )?;
    for (labels, numbers) in each(books) {
        sums.encode_family(&labels)?.encode_gauge(&numbers.sum)?;
    }
    let mut quantiles = out.describe(
        "field_value",
        "Quantiles of the numbers that are followed, within half a percent; not to be added up",
        MetricType::Gauge,
    )?;
    for (labels, numbers) in each(books) {
        for (quantile, value) in &numbers.quantiles {
            let quantile = quantile.to_string();
            let [experiment, target, field, of] = labels;
            let labels = [experiment, target, field, of, ("quantile", &*quantile)];
            quantiles.encode_family(&labels)?.encode_gauge(value)?;
        }
    }
    Ok(())
}

type Labels<'a> = [(&'static str, &'a str); 4];

/// The numbers of both sides, with their labels.
fn each(books: &[ComparisonSnapshot]) -> impl Iterator<Item = (Labels<'_>, &NumberFigures)> {
    books.iter().flat_map(|books| {
        books.fields.iter().flat_map(|field| {
            [(AnswerOf::Live, &field.live), (AnswerOf::Shadow, &field.shadow)].map(|(of, numbers)| {
                let labels = [
                    ("experiment", &*books.experiment),
                    ("target", &*field.target),
                    ("field", &*field.path),
                    ("of", of.as_str()),
                ];
                (labels, numbers)
            })
        })
    })
}
