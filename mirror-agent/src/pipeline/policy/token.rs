//! Enters: the value of an Authorization line. Leaves: claims of the bearer token in it.
//!
//! The signature is not verified: live does that. Who makes a token up can choose whether their own requests are in a
//! sample, as with any other key.

use std::borrow::Cow;

use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};

/// Longest payload of a token that is looked into, in bytes as sent. Servers take heads of 8 to 16 KiB.
const MAX_PAYLOAD_BYTES: usize = 16 * 1024;

/// Without padding as RFC 7515 section 2 has it, or with it, as some write it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The claims of a JSON web token (RFC 7519).
#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// Those of `Bearer` and a token in compact serialisation (RFC 7515 section 7.1): three parts, of which the second is
    /// a JSON object.
    pub(super) fn of_authorization(value: &[u8]) -> Option<Self> {
        let (scheme, token) = value.split_at_checked(value.iter().position(|byte| *byte == b' ')?)?;
        if !scheme.eq_ignore_ascii_case(b"bearer") {
            return None;
        }
        let mut parts = token.trim_ascii().split(|byte| *byte == b'.');
        let (Some(_), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        if payload.len() > MAX_PAYLOAD_BYTES {
            return None;
        }
        serde_json::from_slice(&BASE64.decode(payload).ok()?).ok().map(Self)
    }

    /// A claim as text: a string as it is, a number in decimal digits, `true` or `false`. Equal numbers have the same
    /// text however they are written.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match self.0.get(name)? {
            Value::String(text) => Some(Cow::Borrowed(text.as_bytes())),
            Value::Bool(true) => Some(Cow::Borrowed(b"true")),
            Value::Bool(false) => Some(Cow::Borrowed(b"false")),
            Value::Number(number) => {
                let integer = number.as_u64().map(i128::from).or_else(|| number.as_i64().map(i128::from));
                let text = match integer {
                    Some(integer) => integer.to_string(),
                    None => number.as_f64()?.to_string(),
                };
                Some(Cow::Owned(text.into_bytes()))
            }
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}
