//! Enters: method, path and body of a request. Leaves: the command that it means, and the answer as JSON.

use std::time::SystemTime;

use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Answer, Change, Command, ControlError, time::parse_expiry};
use crate::io::{
    config::parse_rule,
    fleet::FleetError,
    telling::{Ask, AskError, Told},
};

/// Why a request is not answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wish {
    /// That something is done.
    Command(Command),
    /// To know what was compared, or that some of it is noise.
    Ask(Ask),
    /// An address at which a browser opens a session.
    Invite,
    /// To know how this agent is, in a form that adds up.
    FleetSelf,
    /// To know how all agents are.
    Fleet,
    /// A cookie for the token.
    OpenSession,
    /// The end of that.
    CloseSession,
}

/// Understands a request.
pub(super) fn understand(method: &Method, path: &str, body: &[u8]) -> Result<Wish, Refusal> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let wish = match (method, &segments[..]) {
        (&Method::GET | &Method::HEAD, ["v1", "state"]) => Command::State,
        (&Method::POST, ["v1", "pause"]) => Command::Pause { experiment: which(body)? },
        (&Method::POST, ["v1", "resume"]) => Command::Resume { experiment: which(body)? },
        (&Method::POST, ["v1", "experiments", name, "percent"]) => {
            let PercentBody { percent } = parse(body)?;
            Command::SetPercent { experiment: decode(name)?, percent }
        }
        (&Method::POST, ["v1", "experiments", name, "expiry"]) => {
            let ExpiryBody { expires } = parse(body)?;
            let expires = parse_expiry(&expires, SystemTime::now()).map_err(bad)?;
            Command::SetExpiry { experiment: decode(name)?, expires }
        }
        (&Method::GET | &Method::HEAD, ["v1", "report"]) => {
            return Ok(Wish::Ask(Ask::Report { experiment: None, samples: false }));
        }
        (&Method::GET | &Method::HEAD, ["v1", "experiments", name, "report"]) => {
            let experiment = Some(decode(name)?);
            return Ok(Wish::Ask(Ask::Report { experiment, samples: true }));
        }
        (&Method::GET | &Method::HEAD, ["v1", "experiments", name, "verdicts"]) => {
            return Ok(Wish::Ask(Ask::Verdicts { experiment: decode(name)? }));
        }
        (&Method::GET | &Method::HEAD, ["v1", "experiments", name, "clusters", key]) => {
            let cluster = cluster(key).ok_or_else(|| bad("a cluster's key has 16 hexadecimal digits"))?;
            return Ok(Wish::Ask(Ask::Cluster { experiment: decode(name)?, cluster }));
        }
        (&Method::POST, ["v1", "experiments", name, "rules"]) => {
            return rules_wish(decode(name)?, parse(body)?).map(Wish::Ask);
        }
        (&Method::POST, ["v1", "invitations"]) => return Ok(Wish::Invite),
        (&Method::GET | &Method::HEAD, ["v1", "fleet"]) => return Ok(Wish::Fleet),
        (&Method::GET | &Method::HEAD, ["v1", "fleet", "self"]) => return Ok(Wish::FleetSelf),
        (&Method::POST, ["v1", "session"]) => return Ok(Wish::OpenSession),
        (&Method::DELETE, ["v1", "session"]) => return Ok(Wish::CloseSession),
        (
            _,
            ["v1", "state" | "report" | "fleet"]
            | ["v1", "fleet", "self"]
            | ["v1", "experiments", _, "report" | "verdicts"]
            | ["v1", "experiments", _, "clusters", _],
        ) => {
            return Err(wrong_method("GET"));
        }
        (_, ["v1", "session"]) => return Err(wrong_method("POST and DELETE")),
        (
            _,
            ["v1", "pause" | "resume" | "invitations"]
            | ["v1", "experiments", _, "percent" | "expiry" | "rules"],
        ) => {
            return Err(wrong_method("POST"));
        }
        _ => {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "there are /v1/state, /v1/report, /v1/pause, /v1/resume, /v1/experiments/NAME/percent, \
                 /v1/experiments/NAME/expiry, /v1/experiments/NAME/report, /v1/experiments/NAME/verdicts, \
                 /v1/experiments/NAME/clusters/KEY, /v1/experiments/NAME/rules, /v1/fleet, /v1/fleet/self, \
                 /v1/invitations and /v1/session",
            ));
        }
    };
    Ok(Wish::Command(wish))
}

/// What came of a command.
pub(super) fn answer(answer: Result<Answer, ControlError>) -> Result<Vec<u8>, Refusal> {
    let json = match answer.map_err(refusal)? {
        Answer::State(state) => serde_json::to_vec(&state),
        Answer::Changed(changes) => serde_json::to_vec(&Changes { changes }),
    };
    json.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// What the thread that compares answered.
pub(super) fn told(told: Result<Told, AskError>) -> Result<Vec<u8>, Refusal> {
    let json = match told.map_err(ask_refusal)? {
        Told::Report(json) => return Ok(json),
        Told::Rules { after, .. } => serde_json::to_vec(&after),
        // Only asked for by the agent itself.
        Told::Portions(_) => return Err(Refusal::new(StatusCode::NOT_FOUND, "see /v1/fleet")),
    };
    json.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn rules_wish(experiment: String, body: RulesBody) -> Result<Ask, Refusal> {
    match body {
        RulesBody { accept: Some(AcceptBody::Names(names)), add: None, remove: None } => {
            Ok(Ask::Accept { experiment, names: Some(names) })
        }
        RulesBody { accept: Some(AcceptBody::All(AllProposed::Proposed)), add: None, remove: None } => {
            Ok(Ask::Accept { experiment, names: None })
        }
        RulesBody { accept: None, add: Some(rule), remove: None } => {
            let rule = parse_rule(&rule).map_err(|error| bad(format!("the rule: {error}")))?;
            Ok(Ask::Add { experiment, rule: Box::new(rule) })
        }
        RulesBody { accept: None, add: None, remove: Some(name) } => Ok(Ask::Remove { experiment, name }),
        _ => Err(bad("one of `accept`, `add` and `remove` is needed")),
    }
}

fn ask_refusal(error: AskError) -> Refusal {
    let status = match &error {
        AskError::Unknown { .. } | AskError::UnknownRule { .. } | AskError::UnknownCluster => {
            StatusCode::NOT_FOUND
        }
        AskError::Rule(_) => StatusCode::BAD_REQUEST,
        AskError::Busy | AskError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal::new(status, error.to_string())
}

/// What agents say, of themselves or together.
pub(super) fn fleet<T: Serialize>(told: Result<T, FleetError>) -> Result<Vec<u8>, Refusal> {
    let told = told.map_err(|error| {
        let status = match &error {
            FleetError::Control(_) | FleetError::Ask(_) => StatusCode::SERVICE_UNAVAILABLE,
            FleetError::NoFleet => StatusCode::NOT_FOUND,
            FleetError::Join(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal::new(status, error.to_string())
    })?;
    serde_json::to_vec(&told)
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// A refusal as JSON.
pub(super) fn refused(refusal: &Refusal) -> Vec<u8> {
    let body = ErrorBody { error: refusal.message.clone() };
    // One string: nothing that JSON cannot hold.
    serde_json::to_vec(&body).unwrap_or_default()
}

/// The changes that an order made, in JSON.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Changes {
    pub(super) changes: Vec<Change>,
}

/// What went wrong, in JSON.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ErrorBody {
    pub(super) error: String,
}

/// Where a browser opens a session, in JSON.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Invited {
    /// The address; it is good once.
    pub(super) url: String,
    /// For how long, in seconds.
    pub(super) seconds: u64,
}

/// Body of pause and resume.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) experiment: Option<String>,
}

/// Body of a change of percent.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PercentBody {
    pub(super) percent: f64,
}

/// Body of a change of the rules: one of the keys.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RulesBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) accept: Option<AcceptBody>,
    /// A rule as in a configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) add: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) remove: Option<String>,
}

/// Which proposals are accepted.
#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum AcceptBody {
    /// These.
    Names(Vec<String>),
    /// All.
    All(AllProposed),
}

/// All that there are.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AllProposed {
    /// What is proposed at the moment.
    Proposed,
}

/// Body of a change of expiry.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpiryBody {
    pub(super) expires: String,
}

/// The number of a cluster, as reports write it.
fn cluster(key: &str) -> Option<u64> {
    let is_whole = key.len() == 16 && key.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_whole.then(|| u64::from_str_radix(key, 16).ok()).flatten()
}

/// The name as one segment of a path (RFC 3986 section 2.1).
pub(super) fn encode(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

fn decode(segment: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        rest = others;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = others.split_first_chunk::<2>();
        let value = digits.and_then(|(digits, _)| {
            let digits =
                digits.iter().all(u8::is_ascii_hexdigit).then(|| str::from_utf8(digits).ok()).flatten();
            digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())
        });
        bytes.push(value.ok_or_else(|| bad("the path is not well encoded"))?);
        rest = others.get(2..).unwrap_or_default();
    }
    String::from_utf8(bytes).map_err(|_error| bad("the path is not UTF-8"))
}

/// The experiment of the body; an empty one means all.
fn which(body: &[u8]) -> Result<Option<String>, Refusal> {
    if body.is_empty() {
        return Ok(None);
    }
    parse::<WhichBody>(body).map(|body| body.experiment)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| bad(format!("the body: {error}")))
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, message)
}

fn wrong_method(allowed: &str) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed} here"))
}

fn refusal(error: ControlError) -> Refusal {
    let status = match &error {
        ControlError::UnknownExperiment { .. } => StatusCode::NOT_FOUND,
        ControlError::Ended { .. } => StatusCode::CONFLICT,
        ControlError::Percent { .. } | ControlError::Past => StatusCode::BAD_REQUEST,
        ControlError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        ControlError::Stopping | ControlError::Unanswered => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal::new(status, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_with_any_characters_survives_the_path() {
        for name in ["orders-v2", "a b/c", "%41", "é\n", "?#"] {
            assert_eq!(decode(&encode(name)).unwrap(), name);
        }
        for bad in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(decode(bad).unwrap_err().status, StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn request_with_an_unknown_key_is_refused_and_not_taken_for_all() {
        let refusal = understand(&Method::POST, "/v1/pause", br#"{"experment": "a"}"#).unwrap_err();
        assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
        assert!(refusal.message.contains("experment"), "{}", refusal.message);
    }
}
