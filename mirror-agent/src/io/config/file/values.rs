//! Enters: single values as they are written in a file. Leaves: what they mean, checked, and their schemas.

use std::{borrow::Cow, fmt, net::SocketAddr, time::Duration};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Serialize, Serializer,
    de::{self, Deserialize, Deserializer, Visitor},
};

use super::words;
use crate::{
    io::{
        config::{Expiry, HostPolicy, PeerConfig, SampleKey},
        target::Target,
        units::{parse_duration, parse_size, parse_timestamp, write_duration, write_size},
    },
    pipeline::policy::Share,
};

/// A value that is written as a text.
macro_rules! text_value {
    ($(#[$meta:meta])* $name:ident($inner:ty), $expected:literal, $parse:expr, $schema:tt) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub(super) struct $name(pub(super) $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let parse: fn(&str) -> Result<$inner, String> = $parse;
                deserializer.deserialize_str(TextVisitor { expected: $expected, parse }).map(Self)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

struct TextVisitor<T> {
    expected: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

text_value! {
    /// A time with its unit.
    Time(Duration), "a time with its unit, such as 5s", |text| parse_duration(text).map_err(|error| error.to_string()),
    { "type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h|d)$" }
}
text_value! {
    /// When an experiment ends.
    Expires(Expiry), "a point in time such as 2027-01-31T00:00:00Z, or `never`", expiry,
    { "anyOf": [{ "const": "never" }, { "type": "string", "format": "date-time" }] }
}
text_value! {
    /// The name of an experiment or of a target.
    Name(String), "a text", words::name,
    { "type": "string", "pattern": "^[a-z0-9-]{1,63}$" }
}
text_value! {
    /// Where a target is.
    Url(Target), "a URL", |text| text.parse::<Target>().map_err(|error| error.to_string()),
    { "type": "string", "pattern": "^[A-Za-z]+://" }
}
text_value! {
    /// The name of a namespace.
    PodName(String), "a text", words::name,
    { "type": "string", "pattern": "^[a-z0-9-]{1,63}$" }
}
text_value! {
    /// The key or the value of a label.
    LabelValue(String), "a text in quotes or a word", words::pod_label,
    { "type": "string", "maxLength": 317 }
}
text_value! {
    /// An address or a network.
    Network(IpNet), "an address or a network", words::network,
    { "type": "string" }
}
text_value! {
    /// An interface, a pattern, or `auto`, maybe with a role.
    Interface(String), "a text", words::interface,
    { "type": "string", "minLength": 1 }
}
text_value! {
    /// Address and port to listen on.
    Listen(SocketAddr), "an address with a port", words::socket,
    { "type": "string" }
}
text_value! {
    /// A path.
    PathText(String), "a path", words::path,
    { "type": "string", "pattern": "^/" }
}
text_value! {
    /// The name of a header field.
    HeaderName(String), "a text", words::header_name,
    { "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" }
}
text_value! {
    /// The value of a header field.
    HeaderValue(String), "a text", words::header_value,
    { "type": "string", "pattern": "^[^\\u0000\\r\\n]*$" }
}
text_value! {
    /// A method.
    Method(String), "a text", words::method,
    { "type": "string", "pattern": "^[A-Z_-]+$" }
}
text_value! {
    /// A host name, or `*.` and a suffix.
    Hostname(String), "a text", words::hostname,
    { "type": "string", "minLength": 1 }
}
text_value! {
    /// What stands in the Host line.
    Host(HostPolicy), "`preserve`, `target` or a host", words::host,
    { "type": "string", "examples": ["preserve", "target", "shadow.example.com"] }
}
text_value! {
    /// A key by which is sampled.
    By(SampleKey), "what to sample by, such as `header:x-user-id`", words::sample_key,
    {
        "type": "string",
        "pattern": "^(request|connection|client|(header|cookie|query|jwt):.+)$"
    }
}
text_value! {
    /// A share, in percent with its sign.
    Ratio(f64), "a share such as 10%", words::ratio,
    { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?%$" }
}
text_value! {
    /// The name of a query parameter.
    ParameterName(String), "a text", words::parameter_name,
    { "type": "string", "minLength": 1 }
}
text_value! {
    /// A share, in percent with its sign, that may be none.
    Part(f64), "a share such as 0.03%", words::part,
    { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?%$" }
}
text_value! {
    /// A place in JSON.
    JsonPath(String), "a JSON path such as $.items[*].price", words::json_path,
    { "type": "string", "pattern": "^\\$" }
}
text_value! {
    /// A regular expression that is looked for anywhere in a value.
    Expression(String), "a regular expression", words::expression,
    { "type": "string", "minLength": 1 }
}
text_value! {
    /// A path with placeholders.
    Template(String), "a path such as /orders/{id}", words::template,
    { "type": "string", "pattern": "^/" }
}
text_value! {
    /// A method and a path with placeholders.
    EndpointName(String), "an endpoint such as `GET /orders/{id}`", words::endpoint,
    { "type": "string", "pattern": "^([A-Z_-]+ /|other$)" }
}
text_value! {
    /// The first digit of a status code.
    StatusDigit(u8), "a class of status codes such as 5xx", words::status_class,
    { "enum": ["1xx", "2xx", "3xx", "4xx", "5xx"] }
}
text_value! {
    /// A name or a key that is not empty.
    Label(String), "a text", words::label,
    { "type": "string", "minLength": 1 }
}
text_value! {
    /// A host with a port.
    Broker(String), "a host with a port", words::broker,
    { "type": "string", "pattern": ":[0-9]+$" }
}
text_value! {
    /// Another agent, or several.
    Peer(PeerConfig), "HOST:PORT or dns:HOST:PORT", super::fleet::peer,
    { "type": "string", "pattern": ":[0-9]+$" }
}
text_value! {
    /// The name of a topic of Kafka's.
    Topic(String), "a text", words::topic,
    { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,249}$" }
}

fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry::Never);
    }
    let time = parse_timestamp(text);
    time.map(Expiry::At).ok_or_else(|| {
        format!("{text:?} is no point in time; expected one such as 2027-01-31T00:00:00Z, or `never`")
    })
}

/// For the defaults in the schema.
macro_rules! written {
    ($($name:ident: $write:expr;)*) => {
        $(
            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    let write: fn(&Self) -> _ = $write;
                    write(self).serialize(serializer)
                }
            }
        )*
    };
}

written! {
    By: |by| words::write_sample_key(&by.0);
    Count: |count| count.0;
    ErrorRatio: |ratio| ratio.0;
    Host: |host| words::write_host(&host.0);
    Listen: |listen| listen.0;
    PathText: |path| path.0.clone();
    // Nothing but the default is written.
    Percent: |_all| 100;
    Part: |part| words::write_ratio(part.0);
    Port: |port| port.0;
    Ratio: |ratio| words::write_ratio(ratio.0);
    Size: |size| write_size(size.0);
    Time: |time| write_duration(time.0);
}

/// A size in bytes: a number, or a text with a unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub(super) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;

        impl Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 64Ki, 256Mi or 4096")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                parse_size(text).map(Size).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(SizeVisitor)
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+ ?([kKMG]|[KMG]i)?B?$" },
            ]
        })
    }
}

/// A number within bounds, which are inclusive.
macro_rules! number_value {
    ($(#[$meta:meta])* $name:ident($inner:ty), $expected:literal, $convert:expr, $schema:tt) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name(pub(super) $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let convert: fn(f64) -> Option<$inner> = $convert;
                deserializer.deserialize_any(NumberVisitor { expected: $expected, convert }).map(Self)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

struct NumberVisitor<T> {
    expected: &'static str,
    convert: fn(f64) -> Option<T>,
}

impl<T> Visitor<'_> for NumberVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        // No bound comes near the numbers that a float cannot tell apart.
        let float = u32::try_from(number).map_or(f64::INFINITY, f64::from);
        (self.convert)(float).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        Err(E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        (self.convert)(number).ok_or_else(|| E::invalid_value(de::Unexpected::Float(number), &self))
    }
}

number_value! {
    /// A share of requests.
    Percent(Share), "a number from 0 to 100", Share::from_percent,
    { "type": "number", "minimum": 0, "maximum": 100 }
}
number_value! {
    /// A share of copies.
    ErrorRatio(f64), "a number from 0 to 1", |number| (0.0..=1.0).contains(&number).then_some(number),
    { "type": "number", "minimum": 0, "maximum": 1 }
}
number_value! {
    /// A number of copies a second.
    PerSecond(f64), "a number from 0.001 to 1000000", |number| (0.001..=1e6).contains(&number).then_some(number),
    { "type": "number", "minimum": 0.001, "maximum": 1_000_000 }
}
number_value! {
    /// By how much two numbers may differ.
    Distance(f64), "a number from 0 to 1000000000", |number| (0.0..=1e9).contains(&number).then_some(number),
    { "type": "number", "minimum": 0, "maximum": 1_000_000_000 }
}
number_value! {
    /// A multiple of a time.
    Factor(f64), "a number from 0.1 to 100", |number| (0.1..=100.0).contains(&number).then_some(number),
    { "type": "number", "minimum": 0.1, "maximum": 100 }
}
number_value! {
    /// A TCP or UDP port.
    Port(u16), "a port from 1 to 65535", |number| whole(number, 65_535).and_then(|port| u16::try_from(port).ok()),
    { "type": "integer", "minimum": 1, "maximum": 65_535 }
}
number_value! {
    /// A number of things, at least one.
    Count(u32), "a number from 1 to 1000000", |number| whole(number, 1_000_000),
    { "type": "integer", "minimum": 1, "maximum": 1_000_000 }
}
number_value! {
    /// A number of copies on one connection, at least one.
    Depth(u32), "a number from 1 to 64", |number| whole(number, 64),
    { "type": "integer", "minimum": 1, "maximum": 64 }
}

/// A whole number from 1 to `most`.
fn whole(number: f64, most: u32) -> Option<u32> {
    let is_whole = number.fract() == 0.0 && (1.0..=f64::from(most)).contains(&number);
    // In range by the line above, so the cast can neither wrap nor lose its sign.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 1,000,000")]
    is_whole.then_some(number as u32)
}
