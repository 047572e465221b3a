//! Enters: the name of a header field. Leaves: whether it is compared, and as what.

/// Header fields that are not compared, in lower case, each with the reason. A last `*` stands for any end.
pub(super) const EXCLUDED: &[(&str, &str)] = &[
    // Of the connection, not of the answer (RFC 9110 section 7.6.1).
    ("connection", "hop by hop"),
    ("keep-alive", "hop by hop"),
    ("proxy-*", "hop by hop"),
    ("te", "hop by hop"),
    ("trailer", "hop by hop"),
    ("transfer-encoding", "hop by hop"),
    ("upgrade", "hop by hop"),
    // Said better by the content.
    ("content-digest", "of the coded content; the content itself is compared"),
    ("content-encoding", "content is compared decoded: gzip against plain is no difference"),
    ("content-length", "of the coded content; the content itself is compared"),
    ("content-md5", "of the coded content; the content itself is compared"),
    ("digest", "of the coded content; the content itself is compared"),
    ("repr-digest", "of the coded content; the content itself is compared"),
    // Of the moment.
    ("age", "how long a cache has had it"),
    ("date", "when it was answered"),
    ("server-timing", "how long it took"),
    ("x-envoy-upstream-service-time", "how long it took"),
    ("x-response-time", "how long it took"),
    ("x-runtime", "how long it took"),
    ("x-timer", "how long it took"),
    // Of the server and its place.
    ("alt-svc", "where else the server listens"),
    ("server", "what the server runs, which is meant to change"),
    ("via", "the way it took"),
    // Of the exchange.
    ("b3", "identifies the request"),
    ("cf-ray", "identifies the request"),
    ("correlation-id", "identifies the request"),
    ("request-id", "identifies the request"),
    ("traceparent", "identifies the request"),
    ("traceresponse", "identifies the request"),
    ("tracestate", "identifies the request"),
    ("x-amz-cf-id", "identifies the request"),
    ("x-amz-id-2", "identifies the request"),
    ("x-amz-request-id", "identifies the request"),
    ("x-amzn-requestid", "identifies the request"),
    ("x-amzn-trace-id", "identifies the request"),
    ("x-b3-*", "identifies the request"),
    ("x-cloud-trace-context", "identifies the request"),
    ("x-correlation-id", "identifies the request"),
    ("x-mirror-*", "says that it answers a copy"),
    ("x-request-id", "identifies the request"),
    ("x-trace-id", "identifies the request"),
];

/// What the values of a field are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// One value, whatever is in it; several lines are one with `, ` between (RFC 9110 section 5.3).
    Single,
    /// A list (RFC 9110 section 5.6.1): lines, spaces and empty elements do not count, the order does.
    List,
    /// A list without an order.
    Set(Case),
    /// A set of header fields (RFC 9110 section 12.5.5), of which `accept-encoding` does not count.
    Vary,
    /// A media type with parameters (RFC 9110 section 8.3).
    MediaType,
    /// The moment from which an answer is stale (RFC 9111 section 5.3).
    Expires,
    /// A cookie a line (RFC 6265 section 4.1).
    SetCookie,
}

/// Whether the case of letters counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Case {
    /// `GET` is not `get`.
    Counts,
    /// It does not.
    Ignored,
    /// It does behind the first `=`: `max-age=60`, but `private="X"`.
    OfName,
}

/// Fields that are not single values, in lower case, sorted. Lists of which the order is said to mean nothing, or says
/// nothing to any reader, are sets.
const FORMS: &[(&str, Form)] = &[
    ("accept", Form::Set(Case::Ignored)),
    ("accept-ch", Form::Set(Case::Ignored)),
    ("accept-encoding", Form::Set(Case::Ignored)),
    ("accept-patch", Form::Set(Case::Ignored)),
    ("accept-post", Form::Set(Case::Ignored)),
    ("accept-ranges", Form::Set(Case::Ignored)),
    ("access-control-allow-headers", Form::Set(Case::Ignored)),
    ("access-control-allow-methods", Form::Set(Case::Counts)),
    ("access-control-expose-headers", Form::Set(Case::Ignored)),
    ("allow", Form::Set(Case::Counts)),
    ("cache-control", Form::Set(Case::OfName)),
    ("cache-status", Form::List),
    ("cdn-cache-control", Form::Set(Case::OfName)),
    ("clear-site-data", Form::Set(Case::Counts)),
    ("content-language", Form::Set(Case::Ignored)),
    ("content-type", Form::MediaType),
    ("critical-ch", Form::Set(Case::Ignored)),
    ("dav", Form::Set(Case::Ignored)),
    ("expires", Form::Expires),
    ("link", Form::List),
    ("permissions-policy", Form::Set(Case::Counts)),
    ("pragma", Form::Set(Case::OfName)),
    ("preference-applied", Form::Set(Case::OfName)),
    ("set-cookie", Form::SetCookie),
    ("surrogate-control", Form::Set(Case::OfName)),
    ("timing-allow-origin", Form::Set(Case::Counts)),
    ("vary", Form::Vary),
    ("warning", Form::List),
];

/// Whether a field of this name, in lower case, is never compared.
pub(super) fn is_excluded(name: &[u8]) -> bool {
    EXCLUDED.iter().any(|(excluded, _)| match excluded.strip_suffix('*') {
        Some(begin) => name.starts_with(begin.as_bytes()),
        None => name == excluded.as_bytes(),
    })
}

/// What the values of the field of this name, in lower case, are.
pub(super) fn form(name: &[u8]) -> Form {
    let found = FORMS.binary_search_by(|(of, _)| of.as_bytes().cmp(name)).ok();
    found.and_then(|at| FORMS.get(at)).map_or(Form::Single, |(_, form)| *form)
}

#[cfg(test)]
mod tests {
    use super::{EXCLUDED, FORMS, Form, form, is_excluded};

    #[test]
    fn names_are_in_lower_case_and_in_order() {
        assert!(FORMS.is_sorted_by(|one, next| one.0 < next.0));
        let names = EXCLUDED.iter().map(|(name, _)| *name).chain(FORMS.iter().map(|(name, _)| *name));
        assert!(names.into_iter().all(|name| name == name.to_ascii_lowercase()));
    }

    #[test]
    fn fields_are_known_by_their_names() {
        assert!(is_excluded(b"date") && is_excluded(b"proxy-authenticate") && is_excluded(b"x-b3-spanid"));
        assert!(!is_excluded(b"dates") && !is_excluded(b"etag") && !is_excluded(b"x-proxy-a"));
        assert_eq!((form(b"vary"), form(b"etag")), (Form::Vary, Form::Single));
    }
}
