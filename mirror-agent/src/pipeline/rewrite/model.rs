//! Enters: rules, and the parts of a request. Leaves: the parts of its copy, found the slow way.
//!
//! It knows nothing of the agent's code, only of lists: the fuzz target `rewrite` is held against it, too.

/// What is to be changed, as it is configured.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Prefixes of paths, and what takes their place.
    pub prefixes: Vec<(String, String)>,
    /// What stands in the Host line, where it is not kept.
    pub host: Option<String>,
    /// Header lines to leave out.
    pub remove: Vec<String>,
    /// Header lines to set.
    pub set: Vec<(String, String)>,
    /// Header lines to add.
    pub add: Vec<(String, String)>,
    /// Parameters to leave out.
    pub remove_query: Vec<String>,
    /// Parameters to set.
    pub set_query: Vec<(String, String)>,
    /// Whether sampled flags are cleared.
    pub clear: bool,
}

/// A head, taken apart: values are without the whitespace around them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parts {
    /// The method.
    pub method: Vec<u8>,
    /// The target.
    pub target: Vec<u8>,
    /// Whether it is HTTP/1.0.
    pub is_old: bool,
    /// Names and values of the header lines.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What only the mirror writes.
const MARKERS: [&str; 3] = ["x-shadow", "x-mirror-experiment", "x-mirror-match"];

/// What becomes of `parts`, but for the markers.
pub fn expected(given: &Given, parts: &Parts) -> Parts {
    let mut fields = parts.fields.clone();
    fields.retain(|(name, _)| !given.remove.iter().any(|removed| is_same(name, removed)));
    fields.retain(|(name, _)| !MARKERS.iter().any(|marker| is_same(name, marker)));
    if given.clear {
        let configured = |name: &[u8]| given.set.iter().any(|(set, _)| is_same(name, set));
        for (name, value) in fields.iter_mut().filter(|(name, _)| !configured(name)) {
            *value = cleared(name, value).unwrap_or(value.clone());
        }
    }
    if let Some(host) = &given.host {
        let spelled = fields.iter().find(|(name, _)| is_same(name, "host")).map(|(name, _)| name.clone());
        if let Some(name) = spelled.or_else(|| (!parts.is_old).then(|| b"Host".to_vec())) {
            put(&mut fields, (name, host.clone().into_bytes()));
        }
    }
    for (name, value) in &given.set {
        put(&mut fields, (name.clone().into_bytes(), value.trim_matches([' ', '\t']).as_bytes().to_vec()));
    }
    for (name, value) in &given.add {
        fields.push((name.clone().into_bytes(), value.trim_matches([' ', '\t']).as_bytes().to_vec()));
    }
    Parts { target: target(given, &parts.target), fields, ..parts.clone() }
}

/// Puts a field in the place of the first of its name, or behind all others; the others of its name are left out.
fn put(fields: &mut Vec<(Vec<u8>, Vec<u8>)>, field: (Vec<u8>, Vec<u8>)) {
    let is_met = |known: &(Vec<u8>, Vec<u8>)| known.0.eq_ignore_ascii_case(&field.0);
    let Some(first) = fields.iter().position(is_met) else { return fields.push(field) };
    let mut index = 0;
    fields.retain(|known| {
        index += 1;
        !is_met(known) || index == first + 1
    });
    fields[first] = field;
}

fn is_same(name: &[u8], configured: &str) -> bool {
    name.eq_ignore_ascii_case(configured.as_bytes())
}

/// The value of a field of tracing without its sampled flag; `None` where it is no such field, or malformed.
fn cleared(name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    // Bytes of which no rule speaks may be any: each is taken for the character of its number.
    let text: String = value.iter().copied().map(char::from).collect();
    let text = text.as_str();
    let is_hex = |part: &str, len: usize| part.len() == len && part.chars().all(|c| c.is_ascii_hexdigit());
    let parts: Vec<&str> = text.split('-').collect();
    let cleared = match name.to_ascii_lowercase().as_slice() {
        b"traceparent" => {
            let [version, trace, parent, flags, rest @ ..] = parts.as_slice() else { return None };
            let lens = [(*version, 2), (*trace, 32), (*parent, 16), (*flags, 2)];
            let digits = lens.map(|(part, _)| part).concat();
            let is_valid = lens.iter().all(|(part, len)| is_hex(part, *len))
                && digits == digits.to_lowercase()
                && *version != "ff"
                && (*version != "00" || rest.is_empty())
                && u128::from_str_radix(trace, 16) != Ok(0)
                && u64::from_str_radix(parent, 16) != Ok(0);
            let flags = u8::from_str_radix(flags, 16).ok().filter(|_| is_valid)? & !1;
            [&[*version, trace, parent, &format!("{flags:02x}")], rest].concat().join("-")
        }
        b"b3" => match parts.as_slice() {
            ["1" | "d"] => "0".to_owned(),
            [trace, span, "1" | "d", parent @ ..]
                if (is_hex(trace, 16) || is_hex(trace, 32))
                    && is_hex(span, 16)
                    && parent.len() <= 1
                    && parent.iter().all(|parent| is_hex(parent, 16)) =>
            {
                [&[*trace, span, "0"], parent].concat().join("-")
            }
            _ => return None,
        },
        b"x-b3-sampled" if text == "1" || text.to_lowercase() == "true" => "0".to_owned(),
        b"x-b3-flags" if text == "1" => "0".to_owned(),
        _ => return None,
    };
    cleared.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect()
}

fn target(given: &Given, target: &[u8]) -> Vec<u8> {
    let scheme = target.windows(3).position(|window| window == b"://").filter(|len| {
        let scheme = &target[..*len];
        scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
    });
    let (mut authority, hierarchy) = match scheme {
        _ if target.starts_with(b"/") => (Vec::new(), target),
        None => return target.to_vec(),
        Some(len) => {
            let start = len + 3;
            let end = target[start..]
                .iter()
                .position(|byte| b"/?#".contains(byte))
                .map_or(target.len(), |at| start + at);
            let host = given.host.as_deref().map_or(&target[start..end], str::as_bytes);
            ([&target[..start], host].concat(), &target[end..])
        }
    };
    let (hierarchy, fragment) = split(hierarchy, b'#');
    let (path, query) = split(hierarchy, b'?');
    authority.extend(replaced(given, path));
    if let Some(query) = edited(given, query) {
        authority.push(b'?');
        authority.extend(query);
    }
    if let Some(fragment) = fragment {
        authority.push(b'#');
        authority.extend(fragment);
    }
    authority
}

fn split(bytes: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    let place = bytes.iter().position(|byte| *byte == at);
    place.map_or((bytes, None), |place| (&bytes[..place], Some(&bytes[place + 1..])))
}

/// The path, element by element.
fn replaced(given: &Given, path: &[u8]) -> Vec<u8> {
    let elements = |path: &[u8]| path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let configured = |path: &str| elements(path.strip_suffix('/').unwrap_or(path).as_bytes());
    let of_path = elements(path);
    let fitting = given.prefixes.iter().filter(|(from, _)| of_path.starts_with(&configured(from)));
    let Some((from, to)) =
        fitting.max_by_key(|(from, _)| configured(from).concat().len() + configured(from).len())
    else {
        return path.to_vec();
    };
    let joined = [&configured(to), &of_path[configured(from).len()..]].concat().join(&b'/');
    if joined.is_empty() { b"/".to_vec() } else { joined }
}

/// The query, parameter by parameter.
fn edited(given: &Given, query: Option<&[u8]>) -> Option<Vec<u8>> {
    if given.remove_query.is_empty() && given.set_query.is_empty() {
        return query.map(<[u8]>::to_vec);
    }
    let mut pieces: Vec<Vec<u8>> =
        query.into_iter().flat_map(|query| query.split(|byte| *byte == b'&')).map(<[u8]>::to_vec).collect();
    let before = pieces.len();
    pieces.retain(|piece| !given.remove_query.iter().any(|name| decoded_name(piece) == name.as_bytes()));
    if pieces.len() < before && pieces == [b""] {
        pieces.clear();
    }
    for (name, value) in &given.set_query {
        let parameter = format!("{}={}", encoded(name), encoded(value)).into_bytes();
        let is_met = |piece: &Vec<u8>| decoded_name(piece) == name.as_bytes();
        match pieces.iter().position(is_met) {
            Some(first) => {
                let mut index = 0;
                pieces.retain(|piece| {
                    index += 1;
                    !is_met(piece) || index == first + 1
                });
                pieces[first] = parameter;
            }
            None if pieces == [b""] => pieces = vec![parameter],
            None => pieces.push(parameter),
        }
    }
    (!pieces.is_empty()).then(|| pieces.join(&b'&'))
}

fn decoded_name(piece: &[u8]) -> Vec<u8> {
    let name = split(piece, b'=').0;
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < name.len() {
        let hex = name.get(at + 1..at + 3).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        match (name[at], hex) {
            (b'%', Some(hex)) => {
                decoded.push(u8::from_str_radix(&String::from_utf8_lossy(hex), 16).unwrap_or_default());
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    decoded
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || "-._~!$'()*,:@/?".contains(char::from(byte));
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
