//! Enters: values. Leaves: JSON text, with keys in an order and numbers exactly as they were given.

/// A JSON value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Json {
    /// A string.
    Text(String),
    /// A number or literal, as it is written.
    Bare(String),
    /// An array.
    List(Vec<Self>),
    /// An object.
    Object(Vec<(&'static str, Self)>),
}

/// How an object is laid out: two programs hardly agree on that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Layout {
    /// Keys as given, nothing between the parts.
    Tight,
    /// Keys from the last to the first, a space behind each colon and comma.
    Wide,
}

impl Json {
    /// A string.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A whole number.
    pub(super) fn whole(number: u64) -> Self {
        Self::Bare(number.to_string())
    }

    /// A number with so many decimals, given in units of the last of them.
    pub(super) fn decimal(units: u64, decimals: u32) -> Self {
        let unit = 10_u64.pow(decimals);
        Self::Bare(format!("{}.{:0width$}", units / unit, units % unit, width = decimals as usize))
    }

    /// The text.
    pub(super) fn write(&self, layout: Layout) -> String {
        let mut out = String::new();
        self.append(layout, &mut out);
        out
    }

    fn append(&self, layout: Layout, out: &mut String) {
        let [comma, colon] = if layout == Layout::Tight { [",", ":"] } else { [", ", ": "] };
        match self {
            Self::Text(text) => append_string(text, out),
            Self::Bare(text) => out.push_str(text),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { comma } else { "" });
                    item.append(layout, out);
                }
                out.push(']');
            }
            Self::Object(fields) => {
                out.push('{');
                for index in 0..fields.len() {
                    let at = if layout == Layout::Tight { index } else { fields.len() - 1 - index };
                    let Some((key, value)) = fields.get(at) else { continue };
                    out.push_str(if index > 0 { comma } else { "" });
                    append_string(key, out);
                    out.push_str(colon);
                    value.append(layout, out);
                }
                out.push('}');
            }
        }
    }
}

/// The shop's texts need no escapes but these.
fn append_string(text: &str, out: &mut String) {
    out.push('"');
    out.push_str(&text.replace('\\', "\\\\").replace('"', "\\\""));
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_say_the_same() {
        let fields = vec![("a", Json::decimal(10_005, 4)), ("b", Json::List(vec![Json::text("x\"y")]))];
        let value = Json::Object(fields);
        let [tight, wide] = [Layout::Tight, Layout::Wide].map(|layout| value.write(layout));
        assert_eq!(tight, r#"{"a":1.0005,"b":["x\"y"]}"#);
        assert_eq!(wide, r#"{"b": ["x\"y"], "a": 1.0005}"#);
    }
}
