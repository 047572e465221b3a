//! Enters: nothing. Leaves: every reason for which a request, a flow or bytes can fall by the wayside.
//!
//! Each enum is the closed set of values of one metric label; `ALL` lets the metrics be created before the first
//! event, `as_str` is the label value.

/// Declares an enum of label values: `ALL`, `as_str`, `index`.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every reason, in the order of declaration.
            pub const ALL: [Self; [$($label,)+].len()] = [$(Self::$variant,)+];

            /// The label values, in the same order.
            pub const LABELS: [&'static str; Self::ALL.len()] = [$($label,)+];

            /// The label value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// Position in [`Self::ALL`].
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                let known = Self::ALL.into_iter().find(|known| known.as_str() == text);
                known.ok_or_else(|| serde::de::Error::unknown_variant(&text, &Self::LABELS))
            }
        }
    };
}

reasons! {
    /// Why a request was deliberately not mirrored.
    SkipReason {
        /// CONNECT: the connection becomes a tunnel.
        Connect => "connect",
        /// It is among what the experiment excludes.
        Excluded => "excluded",
        /// The target does not prove that it is a shadow, and the copy could write.
        Interlock => "interlock",
        /// The request already carries `x-mirror-id`: it is a copy.
        Marked => "marked",
        /// The method is not among those to mirror.
        Method => "method",
        /// It lacks the key by which is sampled.
        NoKey => "no_key",
        /// The experiment is paused.
        Paused => "paused",
        /// Not in the sample.
        Sampled => "sampled",
        /// It is not what any experiment is about, its method aside.
        Unmatched => "unmatched",
        /// The request asks for an upgrade of the connection.
        Upgrade => "upgrade",
    }
}

reasons! {
    /// Why a request that was seen is damaged and cannot be mirrored.
    LostReason {
        /// The flow ended before the request did.
        Aborted => "aborted",
        /// The body's length is ambiguous or smuggling-shaped; the flow is parsed again from a quiet moment on.
        AmbiguousFraming => "ambiguous_framing",
        /// Two segments claimed different bytes for the same place, or TCP calls some urgent.
        Conflict => "conflict",
        /// The flow was evicted before the request ended.
        Evicted => "evicted",
        /// Bytes of the request were never captured.
        Gap => "gap",
        /// The head is longer than the limit.
        HeadTooLarge => "head_too_large",
        /// The head or the chunk framing is not HTTP/1.x.
        Malformed => "malformed",
        /// The memory budget was exhausted while the body was held.
        Memory => "memory",
        /// The body is longer than `--max-body`.
        TooLarge => "too_large",
    }
}

reasons! {
    /// Why a whole flow is not parsed.
    FlowSkipReason {
        /// An HTTP/2 connection preface.
        Http2 => "http2",
        /// Bytes that are neither HTTP/1.x nor anything known.
        NotHttp => "not_http",
        /// One of the agent's own replay connections.
        Own => "own",
        /// The flow is in no sample of connections; counted by the kernel program.
        Sampled => "sampled",
        /// The flow began while the agent was short of processors or memory; counted by the kernel program.
        Shed => "shed",
        /// The connection was handed to another protocol by an upgrade or CONNECT.
        Upgraded => "upgraded",
        /// A TLS record.
        Tls => "tls",
    }
}

reasons! {
    /// Why a flow left the table before it ended.
    EvictReason {
        /// No segment for longer than the limit.
        Idle => "idle",
        /// More flows than the limit: this one was idle for longest.
        Limit => "limit",
        /// A new connection took the same addresses and ports.
        Reused => "reused",
    }
}

reasons! {
    /// Why the answers to a request cannot be compared.
    IncomparableReason {
        /// The answer was cut off: its connection broke, or the flow ended before it did.
        Aborted => "aborted",
        /// The comparison has more to do than it can.
        Busy => "busy",
        /// A content coding that is not known, or content that is not what its coding says.
        Coding => "coding",
        /// Two segments claimed different bytes for the same place, or TCP calls some urgent.
        Conflict => "conflict",
        /// The decoded content is longer than the limit: it may be a decompression bomb.
        DecodedTooLarge => "decoded_too_large",
        /// Bytes of the live answer were never captured.
        Gap => "gap",
        /// The live answer is not HTTP/1.x.
        Malformed => "malformed",
        /// The memory for answers was exhausted.
        Memory => "memory",
        /// The target did not answer, or not with HTTP/1.x.
        NoAnswer => "no_answer",
        /// There is no copy: it was skipped or dropped.
        NoCopy => "no_copy",
        /// The live answer did not come in time.
        Timeout => "timeout",
        /// An answer is longer than the limit.
        TooLarge => "too_large",
        /// It is not certain which request the live answer belongs to.
        Unpaired => "unpaired",
        /// The connection was handed to another protocol.
        Upgraded => "upgraded",
    }
}

reasons! {
    /// Why the time that an answer took is left out.
    UntimedReason {
        /// The answer began before the request had ended.
        Early => "early",
        /// The request was sent before those ahead of it had been answered.
        Pipelined => "pipelined",
        /// A point in time is not known.
        Unknown => "unknown",
    }
}

reasons! {
    /// What came of comparing two answers.
    ComparisonResult {
        /// Nothing differs.
        Equal => "equal",
        /// What differs is explained by rules.
        Noise => "noise",
        /// They differ.
        Divergent => "divergent",
        /// There is nothing to compare.
        Incomparable => "incomparable",
    }
}

reasons! {
    /// How two answers differ in one place.
    DivergenceKind {
        /// Another value of the same type.
        Value => "value",
        /// A value of another type.
        Type => "type",
        /// What live has, the other has not.
        Missing => "missing",
        /// What the other has, live has not.
        Extra => "extra",
        /// The same elements in another order.
        Order => "order",
        /// Arrays or contents of another length.
        Length => "length",
        /// Another status code.
        Status => "status",
        /// A header field that differs.
        Header => "header",
    }
}

reasons! {
    /// What came of a record that a sink was to take.
    SinkResult {
        /// It is where the sink writes to.
        Written => "written",
        /// More records waited than may.
        Dropped => "dropped",
        /// It could not be written.
        Failed => "failed",
    }
}

reasons! {
    /// What a verdict says.
    VerdictState {
        /// Every limit of the gate is kept.
        Pass => "pass",
        /// A limit of the gate is exceeded.
        Fail => "fail",
        /// It cannot be told yet.
        NotEnoughData => "not_enough_data",
    }
}

pub(crate) use reasons;
