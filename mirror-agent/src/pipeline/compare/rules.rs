//! Enters: nothing. Leaves: how answers are compared, as a configuration says it.

/// How the answers of one experiment are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct CompareRules {
    /// Header fields that are not compared, beside those that never are; in any case.
    pub ignored_headers: Vec<String>,
    /// Whether `1` and `1.0` are the same number.
    pub numbers: NumberForm,
    /// Arrays that are no sequences.
    pub arrays: Vec<ArrayRule>,
    /// What else is not a divergence.
    pub rules: Vec<Rule>,
    /// JSON paths of numbers that are followed on both sides.
    pub fields: Vec<String>,
    /// Longest content that is compared, in bytes, decoded; what is longer is `too_large`.
    pub content_bytes: usize,
}

impl Default for CompareRules {
    fn default() -> Self {
        Self {
            ignored_headers: Vec::new(),
            numbers: NumberForm::default(),
            arrays: Vec::new(),
            rules: Vec::new(),
            fields: Vec::new(),
            content_bytes: 1024 * 1024,
        }
    }
}

/// When two JSON numbers are the same.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NumberForm {
    /// By value, exactly: `1.0` is `1`, and `0.10005` is not `0.1001`.
    #[default]
    Value,
    /// As written: `1.0` is not `1`.
    Text,
}

/// An array that is no sequence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ArrayRule {
    /// JSON path of the array: `$.items`, `$.orders[*].lines`.
    pub path: String,
    /// What it is instead.
    pub form: ArrayForm,
}

/// What an array is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ArrayForm {
    /// A sequence.
    Ordered,
    /// A set: the order of its elements does not count.
    Set,
    /// A table by the value of this field of its elements.
    KeyedBy(String),
}

/// What is not a divergence.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name, in reports and metrics of how often it matched.
    pub name: String,
    /// Where it applies.
    pub place: Place,
    /// To which endpoint alone, as in reports: `GET /orders/{id}`; `None` for all.
    pub endpoint: Option<String>,
    /// What is done there.
    pub action: Action,
}

/// Where a rule applies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// A JSON path: `$.meta.*`, `$.items[*].id`, `$..etag`; in NDJSON of each line.
    Path(String),
    /// A header field, in any case.
    Header(String),
    /// A field of a form body.
    Form(String),
    /// The content as a whole, where it is text.
    Text,
    /// Answers of which live's status is in this class: nothing of them is compared but the status, or with
    /// [`Action::Ignore`] nothing at all.
    Status(StatusClass),
}

/// Status codes with this first digit, 1 to 5.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StatusClass(pub u8);

/// What a rule does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Differences there do not count.
    Ignore,
    /// Numbers may differ by so much.
    Tolerate(Tolerance),
    /// Points in time, in any common form, are all the same, if both are such.
    Timestamp,
    /// UUIDs are all the same, if both are such.
    Uuid,
    /// What the regular expression finds is replaced in both before they are compared.
    Replace {
        /// The regular expression.
        pattern: String,
        /// What takes the place of each find.
        with: String,
    },
}

/// By how much two numbers may differ: either is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerance {
    /// The largest difference.
    pub absolute: f64,
    /// The largest difference as a share of the larger of the two.
    pub relative: f64,
}
