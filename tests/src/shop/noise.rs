//! Enters: chance and the time of day. Leaves: what two copies of one program never agree on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::rng::Rng;

/// A source of noise.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Noise {
    /// Points in time, as text and in milliseconds.
    Timestamps,
    /// Random UUIDs.
    Uuids,
    /// Request ids, in a header field.
    RequestIds,
    /// A set in random order.
    SetOrder,
    /// The names of rotating hosts.
    Hosts,
    /// Floats that differ in the last bit, as the order of a sum does.
    LastBit,
    /// Gzip against plain.
    Gzip,
    /// Opaque cursors of pages.
    Cursors,
    /// Entity tags.
    Etags,
    /// Session cookies.
    Cookies,
}

impl Noise {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Timestamps,
        Self::Uuids,
        Self::RequestIds,
        Self::SetOrder,
        Self::Hosts,
        Self::LastBit,
        Self::Gzip,
        Self::Cursors,
        Self::Etags,
        Self::Cookies,
    ];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timestamps => "timestamps",
            Self::Uuids => "UUIDs",
            Self::RequestIds => "request ids",
            Self::SetOrder => "random order of a set",
            Self::Hosts => "rotating hosts",
            Self::LastBit => "floats in the last bit",
            Self::Gzip => "gzip against plain",
            Self::Cursors => "pagination cursors",
            Self::Etags => "ETags",
            Self::Cookies => "cookies",
        }
    }

    /// Where it shows: header fields as `header:name`, else keys of JSON objects.
    #[must_use]
    pub const fn places(self) -> &'static [&'static str] {
        match self {
            Self::Timestamps => &["generated_at", "served_ms"],
            Self::Uuids => &["trace_id"],
            Self::RequestIds => &["header:x-request-id"],
            Self::SetOrder => &["tags"],
            Self::Hosts => &["served_by", "header:x-served-by"],
            Self::LastBit => &["score"],
            Self::Gzip => &["header:content-encoding", "header:content-length"],
            Self::Cursors => &["next_cursor"],
            Self::Etags => &["header:etag"],
            Self::Cookies => &["header:set-cookie"],
        }
    }

    /// Whether a templated path is one of its places: `$.results[].score`, `header:etag`, `header:set-cookie:session`.
    #[must_use]
    pub fn is_at(self, path: &str) -> bool {
        let key = path.trim_end_matches("[]").trim_end_matches("[*]");
        let key = key.rsplit('.').next().unwrap_or(key);
        let is_part = |place: &str| path.strip_prefix(place).is_some_and(|rest| rest.starts_with(':'));
        self.places().iter().any(|place| *place == path || *place == key || is_part(place))
    }
}

/// The chance of one answer of one server.
#[derive(Debug)]
pub(super) struct Chance {
    rng: Rng,
    pods: [String; 3],
    now: Duration,
}

impl Chance {
    /// That of the server with this seed, at its answer with this number.
    pub(super) fn new(seed: u64, number: u64, now: SystemTime) -> Self {
        let mut pods = Rng::new(seed);
        let pods = [0; 3].map(|_| format!("shop-{:05x}-{:05x}", pods.below(1 << 20), pods.below(1 << 20)));
        let rng = Rng::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
        Self { rng, pods, now: now.duration_since(UNIX_EPOCH).unwrap_or_default() }
    }

    /// The time as text, to the microsecond: `2026-11-21T17:05:00.123456Z`.
    pub(super) fn timestamp(&self) -> String {
        let date = Date::of(self.now);
        let seconds = self.now.as_secs() % 86_400;
        let [hour, minute, second] = [seconds / 3600, seconds / 60 % 60, seconds % 60];
        let micros = self.now.subsec_micros();
        format!("{date}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }

    /// The time in milliseconds.
    pub(super) fn epoch_millis(&self) -> u64 {
        u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX)
    }

    /// A random UUID.
    pub(super) fn uuid(&mut self) -> String {
        let (high, low) = (self.rng.word(), self.rng.word());
        let version = high & 0xffff_ffff_ffff_0fff | 0x4000;
        let variant = low & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000;
        let text = format!("{version:016x}{variant:016x}");
        [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
    }

    /// So many hexadecimal digits.
    pub(super) fn hex(&mut self, digits: usize) -> String {
        self.rng.bytes(digits.div_ceil(2)).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            [..digits]
            .to_owned()
    }

    /// The host that answers.
    pub(super) fn host(&mut self) -> String {
        let index = self.rng.below(self.pods.len());
        self.pods.get(index).cloned().unwrap_or_default()
    }

    /// An opaque cursor.
    pub(super) fn cursor(&mut self) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        (0..43).map(|_| char::from(LETTERS[self.rng.below(LETTERS.len())])).collect()
    }

    /// Whether something that happens to one in so many answers happens to this one.
    pub(super) fn is_one_in(&mut self, many: usize) -> bool {
        self.rng.below(many) == 0
    }

    /// The same items in any order.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.rng.below(last + 1);
            items.swap(last, other);
        }
    }

    /// The sum of the parts, added in any order: its last bits depend on that.
    pub(super) fn sum(&mut self, parts: &[f64]) -> f64 {
        let mut parts = parts.to_vec();
        self.shuffle(&mut parts);
        parts.iter().sum()
    }

    /// A number from a bell curve around 0 with a standard deviation of 1, between -6 and 6.
    pub(super) fn bell(&mut self) -> f64 {
        let uniform = |word: u64| (word >> 11) as f64 / (1_u64 << 53) as f64;
        (0..12).map(|_| uniform(self.rng.word())).sum::<f64>() - 6.0
    }
}

/// A day of the calendar.
#[derive(Clone, Copy, Debug)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
}

impl Date {
    /// The day of a time since the beginning of 1970.
    fn of(since_1970: Duration) -> Self {
        // Years are counted from March, so that the leap day is the last, in eras of 400 years.
        let days = since_1970.as_secs() / 86_400 + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self { year: era * 400 + year + u64::from(month <= 2), month, day }
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chance(seed: u64, seconds: u64) -> Chance {
        Chance::new(seed, 1, UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn time_is_written_as_the_calendar_has_it() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_795_280_308, "2026-11-21T16:58:28.000000Z"),
        ] {
            assert_eq!(chance(1, seconds).timestamp(), text);
        }
    }

    #[test]
    fn uuids_are_of_version_four() {
        let uuid = chance(1, 0).uuid();
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"), "{uuid}");
        assert!(["8", "9", "a", "b"].contains(&&uuid[19..20]), "{uuid}");
    }

    #[test]
    fn sums_differ_in_the_last_bits_only() {
        let parts = [0.1, 0.7, 0.13, 0.29, 0.31, 0.011, 0.47, 0.053];
        let sums = (0..100).map(|number| Chance::new(1, number, UNIX_EPOCH).sum(&parts));
        let mut sums = sums.collect::<Vec<_>>();
        sums.sort_by(f64::total_cmp);
        assert!(sums[99] > sums[0] && sums[99] - sums[0] < 1e-14, "{} {}", sums[0], sums[99]);
    }

    #[test]
    fn paths_are_known_by_their_last_key() {
        assert!(Noise::LastBit.is_at("$.results[].score") && !Noise::LastBit.is_at("$.scored"));
        assert!(Noise::SetOrder.is_at("$.tags") && Noise::SetOrder.is_at("$.tags[]"));
        assert!(Noise::Cookies.is_at("header:set-cookie:session"));
        assert!(Noise::Etags.is_at("header:etag") && !Noise::Etags.is_at("$.etag"));
    }

    #[test]
    fn servers_have_hosts_of_their_own() {
        let [one, other] = [1, 2].map(|seed| chance(seed, 0).pods);
        assert!(one.iter().all(|pod| !other.contains(pod)));
    }
}
