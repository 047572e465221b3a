//! Enters: an exchange and what came of comparing it. Leaves: a record of it that may be kept and handed on.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::{
    io::control::time::rfc3339,
    pipeline::{
        Answered, Request,
        compare::{Compared, Divergence},
        reason::{ComparisonResult, IncomparableReason},
        redact::{RedactedMessage, Redactor},
    },
};

/// What a record is made of.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// When it was compared.
    pub at: SystemTime,
    /// The number of the exchange, as in `x-mirror-id`.
    pub exchange: &'a str,
    /// Name of the experiment.
    pub experiment: &'a str,
    /// Name of the target.
    pub target: &'a str,
    /// The endpoint, as in reports.
    pub endpoint: &'a str,
    /// The request, as live got it.
    pub request: &'a Request,
    /// How live answered.
    pub live: &'a Answered,
    /// How the target did.
    pub shadow: &'a Answered,
    /// How the control did, where there is one.
    pub control: Option<&'a Answered>,
    /// Where the answers differ.
    pub compared: &'a Result<Compared, IncomparableReason>,
    /// What came of it.
    pub result: ComparisonResult,
    /// Why nothing could be compared.
    pub reason: Option<IncomparableReason>,
    /// The cluster of its divergences.
    pub cluster: Option<u64>,
}

/// An exchange and what came of comparing it, without secrets. One for each target.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// When it was compared.
    #[serde(serialize_with = "written")]
    pub time: SystemTime,
    /// The number of the exchange, as in `x-mirror-id`.
    pub exchange: String,
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the target.
    pub target: String,
    /// The endpoint, as in reports.
    pub endpoint: String,
    /// What came of it: `equal`, `noise`, `divergent` or `incomparable`.
    pub result: &'static str,
    /// Why nothing could be compared.
    pub reason: Option<&'static str>,
    /// The cluster of its divergences, in hexadecimal digits.
    pub cluster: Option<String>,
    /// Where the answers differ.
    pub divergences: Vec<DivergenceRecord>,
    /// Whether there are more.
    pub has_more_divergences: bool,
    /// The request, as live got it.
    pub request: RedactedMessage,
    /// How live answered.
    pub live: AnswerRecord,
    /// How the target did.
    pub shadow: AnswerRecord,
    /// How the control did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<AnswerRecord>,
}

/// One place at which two answers differ, without secrets.
#[derive(Clone, Debug, Serialize)]
pub struct DivergenceRecord {
    /// How they differ there.
    pub kind: &'static str,
    /// Where, without indices.
    pub path: String,
    /// Where, with them: live's.
    pub place: String,
    /// The place in the target's answer, where its indices are others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_place: Option<String>,
    /// What live has there; nothing where there is nothing.
    pub live: Option<String>,
    /// What the target has there.
    pub shadow: Option<String>,
}

/// How a request was answered, without secrets.
#[derive(Clone, Debug, Serialize)]
pub struct AnswerRecord {
    /// The status code; nothing where there is no answer.
    pub status: Option<u16>,
    /// Why it cannot be compared.
    pub reason: Option<&'static str>,
    /// From the last byte of the request to the first one of the answer, in seconds.
    pub first_byte_seconds: Option<f64>,
    /// To the last one.
    pub last_byte_seconds: Option<f64>,
    /// The answer; nothing where not all of it is there.
    pub message: Option<RedactedMessage>,
}

impl Record {
    /// Makes a record, and takes the secrets out. Of each content at most `content_bytes` are kept.
    #[must_use]
    pub fn new(told: &Told<'_>, redactor: &Redactor, content_bytes: usize) -> Self {
        let (divergences, is_cut) = match told.compared {
            Ok(compared) => (compared.divergences.as_slice(), compared.is_cut),
            Err(_reason) => (&[][..], false),
        };
        let answer = |answered| AnswerRecord::new(answered, redactor, content_bytes);
        Self {
            time: told.at,
            exchange: told.exchange.to_owned(),
            experiment: told.experiment.to_owned(),
            target: told.target.to_owned(),
            endpoint: redactor.place(told.endpoint),
            result: told.result.as_str(),
            reason: told.reason.map(IncomparableReason::as_str),
            cluster: told.cluster.map(|cluster| format!("{cluster:016x}")),
            divergences: divergences
                .iter()
                .map(|divergence| DivergenceRecord::new(divergence, redactor))
                .collect(),
            has_more_divergences: is_cut,
            request: redactor.request(told.request, content_bytes),
            live: answer(told.live),
            shadow: answer(told.shadow),
            control: told.control.map(answer),
        }
    }

    /// Bytes that it holds, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let divergences = self.divergences.iter().map(|divergence| {
            let DivergenceRecord { kind: _, path, place, shadow_place, live, shadow } = divergence;
            let texts = text(shadow_place) + text(live) + text(shadow);
            size_of::<DivergenceRecord>() + path.len() + place.len() + texts
        });
        let answers = [Some(&self.live), Some(&self.shadow), self.control.as_ref()];
        let messages = answers.into_iter().flatten().filter_map(|answer| answer.message.as_ref());
        let names = [&self.exchange, &self.experiment, &self.target, &self.endpoint];
        size_of::<Self>()
            + names.into_iter().map(String::len).sum::<usize>()
            + divergences.sum::<usize>()
            + self.request.bytes()
            + messages.map(RedactedMessage::bytes).sum::<usize>()
    }
}

impl DivergenceRecord {
    fn new(divergence: &Divergence, redactor: &Redactor) -> Self {
        let Divergence { kind, path, place, other_place, live, other } = redactor.divergence(divergence);
        let (kind, path, shadow_place) = (kind.as_str(), path.to_string(), other_place);
        Self { kind, path, place, shadow_place, live, shadow: other }
    }
}

impl AnswerRecord {
    fn new(answered: &Answered, redactor: &Redactor, content_bytes: usize) -> Self {
        let timing = answered.timing().and_then(Result::ok);
        let (reason, message) = match answered {
            Answered::Whole(answer) => (None, Some(redactor.answer(answer, content_bytes))),
            Answered::Partly { reason, .. } | Answered::Not(reason) => (Some(reason.as_str()), None),
        };
        Self {
            status: answered.status(),
            reason,
            first_byte_seconds: timing.map(|timing| timing.to_first_byte().as_secs_f64()),
            last_byte_seconds: timing.map(|timing| timing.to_last_byte().as_secs_f64()),
            message,
        }
    }
}

pub(in crate::io) fn written<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}
