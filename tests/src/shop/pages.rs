//! Enters: a request, and the chance of this answer. Leaves: the page that either version of the shop makes of it.
//!
//! All that matters follows from the request alone, so both versions agree on it but for seeded bugs; the rest is noise.

use super::{
    bugs::{Bug, Bugs, Tally},
    json::Json,
    noise::Chance,
};
use crate::rng::Rng;

/// A request, as far as the shop looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) body: &'a [u8],
}

/// An answer before it is written down.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) media_type: &'static str,
    pub(super) content: Content,
    /// Header fields that belong to the page.
    pub(super) fields: Vec<(&'static str, String)>,
}

/// What a page holds.
#[derive(Debug)]
pub(super) enum Content {
    Json(Json),
    Text(String),
    Binary(Vec<u8>),
}

/// The country with the rare path.
pub(super) const RARE_COUNTRY: &str = "AX";

/// What makes the pages of one version.
pub(super) struct Kitchen<'a> {
    pub(super) bugs: Bugs,
    pub(super) tally: &'a Tally,
    pub(super) chance: &'a mut Chance,
}

impl Kitchen<'_> {
    /// The answer to a request.
    pub(super) fn page(&mut self, request: Request<'_>) -> Page {
        let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
        let facts = &mut facts_of(request);
        let segments = path.trim_matches('/').split('/').collect::<Vec<_>>();
        match (request.method, &segments[..]) {
            ("GET", ["health"]) => Page::json(vec![("status", Json::text("up"))]),
            ("GET", ["orders"]) => self.orders(facts),
            ("GET", ["orders", id]) => self.order(id, facts),
            ("GET", ["products", "search"]) => self.search(query, facts),
            ("GET", ["products", sku]) => self.product(sku, facts),
            ("POST", ["quotes"]) => self.quote(facts),
            ("GET", ["loyalty", user]) => self.loyalty(user, facts),
            ("GET", ["shipping", country]) => self.shipping(country, facts),
            ("GET", ["reports", day]) => self.report(day, facts),
            ("GET", ["images", _]) => self.image(facts),
            _ => Page::error(404, "no such page"),
        }
    }

    /// Whether a bug is there; if so, it changes this answer.
    fn is_hit(&self, bug: Bug) -> bool {
        let is_hit = self.bugs.has(bug);
        if is_hit {
            self.tally.note(bug);
        }
        is_hit
    }

    /// What a page tells about itself.
    fn about(&mut self, mut fields: Vec<(&'static str, Json)>) -> Page {
        fields.push(("generated_at", Json::text(self.chance.timestamp())));
        fields.push(("served_ms", Json::whole(self.chance.epoch_millis())));
        fields.push(("trace_id", Json::text(self.chance.uuid())));
        fields.push(("served_by", Json::text(self.chance.host())));
        Page::json(fields)
    }

    fn cookie(&mut self) -> (&'static str, String) {
        ("Set-Cookie", format!("session={}; Path=/; HttpOnly", self.chance.hex(32)))
    }

    fn etag(&mut self) -> (&'static str, String) {
        ("ETag", format!("\"{}\"", self.chance.hex(16)))
    }

    fn order(&mut self, id: &str, facts: &mut Rng) -> Page {
        let items = (0..facts.between(1, 4)).map(|_| {
            Json::Object(vec![
                ("sku", Json::text(sku(facts))),
                ("quantity", Json::whole(facts.between(1, 5) as u64)),
                ("price", Json::decimal(facts.between(100, 90_000) as u64, 2)),
            ])
        });
        let items = Json::List(items.collect());
        let mut delivery = vec![("country", Json::text(COUNTRIES[facts.below(COUNTRIES.len())]))];
        let carrier = Json::text(facts.pick(&["DHL", "UPS", "Posti", "PostNord"]));
        let is_special = facts.below(100) == 0;
        if !(is_special && self.is_hit(Bug::MissingField)) {
            delivery.push(("carrier", carrier));
        }
        delivery.push(("days", Json::whole(facts.between(1, 9) as u64)));
        let state = facts.pick(&["open", "paid", "sent", "done"]);
        let mut page = self.about(vec![
            ("id", Json::text(id)),
            ("state", Json::text(state)),
            ("items", items),
            ("delivery", Json::Object(delivery)),
        ]);
        page.fields.push(self.cookie());
        page
    }

    fn orders(&mut self, facts: &mut Rng) -> Page {
        let orders = (0..8).map(|_| {
            Json::Object(vec![
                ("id", Json::text(format!("{}", facts.between(10_000, 99_999)))),
                ("total", Json::decimal(facts.between(100, 200_000) as u64, 2)),
            ])
        });
        let orders = Json::List(orders.collect());
        let next = Json::text(self.chance.cursor());
        self.about(vec![("orders", orders), ("next_cursor", next)])
    }

    fn product(&mut self, sku: &str, facts: &mut Rng) -> Page {
        if facts.below(100) == 0 {
            return Page::error(404, "no such product");
        }
        let first = facts.below(5);
        let mut tags = TAGS[first..first + 5].to_vec();
        self.chance.shuffle(&mut tags);
        let tags = Json::List(tags.into_iter().map(Json::text).collect());
        let name = facts.pick(&["lamp", "chair", "mug", "tent", "kettle", "rug"]);
        let price = Json::decimal(facts.between(100, 90_000) as u64, 2);
        let stock = Json::whole(facts.below(500) as u64);
        let is_special = facts.below(40) == 0;
        let mut page = self.about(vec![
            ("sku", Json::text(sku)),
            ("name", Json::text(name)),
            ("price", price),
            ("stock", stock),
            ("tags", tags),
        ]);
        page.fields.push(self.etag());
        if !(is_special && self.is_hit(Bug::HeaderLost)) {
            page.fields.push(("Cache-Control", "public, max-age=60".to_owned()));
        }
        page
    }

    fn search(&mut self, query: &str, facts: &mut Rng) -> Page {
        let mut results = Vec::new();
        for _ in 0..facts.between(3, 8) {
            let parts = (0..9).map(|_| facts.below(1_000_000) as f64 / 9_000_000.0).collect::<Vec<_>>();
            // Falls with each result, so that the order follows from it.
            let score = self.chance.sum(&parts) / (1 + results.len()) as f64;
            results.push(Json::Object(vec![
                ("sku", Json::text(sku(facts))),
                ("score", Json::Bare(format!("{score}"))),
            ]));
        }
        let is_special = facts.below(10) == 0;
        if is_special && self.is_hit(Bug::Reordered) {
            results.swap(0, 1);
        }
        let next = Json::text(self.chance.cursor());
        let words = query.strip_prefix("q=").unwrap_or(query);
        self.about(vec![
            ("query", Json::text(words)),
            ("results", Json::List(results)),
            ("next_cursor", next),
        ])
    }

    fn quote(&mut self, facts: &mut Rng) -> Page {
        let cents = facts.between(100, 90_000) as u64;
        let rate = facts.pick(&[725_u64, 775, 825, 875, 1900, 2100]);
        // The exact tax is `cents * rate` millionths.
        let exact = cents * rate;
        let half_up = (exact + 50) / 100;
        let mut tax = half_up;
        let is_special = exact % 100 == 50 && half_up % 2 == 1;
        if is_special && self.is_hit(Bug::Rounding) {
            tax -= 1;
        }
        let mut page = self.about(vec![
            ("price", Json::decimal(cents, 2)),
            ("rate", Json::decimal(rate, 4)),
            ("tax", Json::decimal(tax, 4)),
            ("total", Json::decimal(cents * 100 + tax, 4)),
        ]);
        page.fields.push(self.cookie());
        page
    }

    fn loyalty(&mut self, user: &str, facts: &mut Rng) -> Page {
        let points = facts.between(0, 25_000).to_string();
        let points = if self.is_hit(Bug::TypeChange) { Json::Text(points) } else { Json::Bare(points) };
        let level = facts.pick(&["blue", "silver", "gold"]);
        let mut page =
            self.about(vec![("user", Json::text(user)), ("points", points), ("level", Json::text(level))]);
        page.fields.push(self.cookie());
        page
    }

    fn shipping(&mut self, country: &str, facts: &mut Rng) -> Page {
        if country == RARE_COUNTRY && self.is_hit(Bug::WrongStatus) {
            return Page::error(500, "no customs zone");
        }
        let fee = Json::decimal(facts.between(300, 4_000) as u64, 2);
        let days = Json::whole(facts.between(1, 20) as u64);
        self.about(vec![("country", Json::text(country)), ("fee", fee), ("days", days)])
    }

    fn report(&mut self, day: &str, facts: &mut Rng) -> Page {
        let mut text = "day,country,orders,turnover\n".to_owned();
        let day = day.trim_end_matches(".csv");
        for country in COUNTRIES {
            let (orders, turnover) = (facts.below(900), facts.below(9_000_000));
            text += &format!("{day},{country},{orders},{}.{:02}\n", turnover / 100, turnover % 100);
        }
        let fields = vec![self.etag()];
        Page { status: 200, media_type: "text/csv", content: Content::Text(text), fields }
    }

    fn image(&mut self, facts: &mut Rng) -> Page {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        let length = facts.between(1_000, 6_000);
        bytes.extend(facts.bytes(length));
        let fields = vec![self.etag()];
        Page { status: 200, media_type: "image/png", content: Content::Binary(bytes), fields }
    }
}

impl Page {
    fn json(fields: Vec<(&'static str, Json)>) -> Self {
        let content = Content::Json(Json::Object(fields));
        Self { status: 200, media_type: "application/json", content, fields: Vec::new() }
    }

    fn error(status: u16, why: &str) -> Self {
        Self { status, ..Self::json(vec![("error", Json::text(why))]) }
    }
}

/// Where the shop sends to.
pub(super) const COUNTRIES: [&str; 12] =
    ["DE", "FR", "FI", "SE", "NO", "DK", "NL", "BE", "AT", "IT", "ES", "PT"];

/// What products are called; of these each has some.
const TAGS: [&str; 9] = ["bulky", "gift", "heavy", "local", "new", "organic", "rare", "sale", "vegan"];

fn sku(facts: &mut Rng) -> String {
    format!("p-{:05}", facts.below(100_000))
}

/// What both versions know of a request: numbers that follow from all of it.
fn facts_of(request: Request<'_>) -> Rng {
    let bytes = [request.method.as_bytes(), request.target.as_bytes(), request.body].concat();
    // FNV-1a: there is no stranger here who would look for collisions.
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    Rng::new(hash)
}
