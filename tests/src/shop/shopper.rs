//! Enters: a seed. Leaves: the requests of people who shop, always the same for the same seed.

use super::pages::{COUNTRIES, RARE_COUNTRY};
use crate::{load::Source, rng::Rng};

/// A kind of request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// `GET /orders/{id}`.
    Order,
    /// `GET /orders?cursor=…`.
    Orders,
    /// `GET /products/{sku}`.
    Product,
    /// `GET /products/search?q=…`.
    Search,
    /// `POST /quotes`.
    Quote,
    /// `GET /loyalty/{user}`.
    Loyalty,
    /// `GET /shipping/{country}`.
    Shipping,
    /// `GET /health`.
    Health,
    /// `GET /reports/{day}.csv`.
    Report,
    /// `GET /images/{sku}.png`.
    Image,
}

impl Place {
    /// All of them, with how many of a thousand requests are such.
    pub const MIX: [(Self, usize); 10] = [
        (Self::Order, 300),
        (Self::Orders, 80),
        (Self::Product, 220),
        (Self::Search, 100),
        (Self::Quote, 100),
        (Self::Loyalty, 80),
        (Self::Shipping, 60),
        (Self::Health, 30),
        (Self::Report, 15),
        (Self::Image, 15),
    ];
}

/// Of a hundred requests for shipping, those for the country that is rare.
const RARE_PERCENT: usize = 5;

/// Makes the requests.
#[derive(Clone, Copy, Debug)]
pub struct Shopper {
    seed: u64,
}

impl Shopper {
    /// The shopper with this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The request with a number: its kind and its bytes.
    #[must_use]
    pub fn request(&self, number: u64) -> (Place, Vec<u8>) {
        let mut rng = Rng::new(self.seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        let place = Place::MIX[rng.weighted(&Place::MIX.map(|(_, weight)| weight))].0;
        let sku = format!("p-{:05}", rng.below(100_000));
        let target = match place {
            Place::Order => format!("/orders/{}", rng.between(1_000_000, 9_999_999)),
            Place::Orders => format!("/orders?cursor={:016x}", rng.word()),
            Place::Product => format!("/products/{sku}"),
            Place::Search => format!("/products/search?q={}+{}", rng.below(1_000), rng.below(1_000)),
            Place::Quote => "/quotes".to_owned(),
            Place::Loyalty => format!("/loyalty/u{:07}", rng.below(10_000_000)),
            Place::Shipping if rng.percent(RARE_PERCENT) => format!("/shipping/{RARE_COUNTRY}"),
            Place::Shipping => format!("/shipping/{}", rng.pick(&COUNTRIES)),
            Place::Health => "/health".to_owned(),
            Place::Report => format!("/reports/2026-{:02}-{:02}.csv", rng.between(1, 12), rng.between(1, 28)),
            Place::Image => format!("/images/{sku}.png"),
        };
        let fields = "Host: shop.example\r\nUser-Agent: shopper/1\r\nAccept-Encoding: gzip\r\n";
        let request = if place == Place::Quote {
            let body = format!("{{\"sku\":\"{sku}\",\"quantity\":{}}}", rng.between(1, 99));
            format!(
                "POST {target} HTTP/1.1\r\n{fields}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        } else {
            format!("GET {target} HTTP/1.1\r\n{fields}\r\n")
        };
        (place, request.into_bytes())
    }
}

impl Source for Shopper {
    fn write(&mut self, number: u64, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(&self.request(number).1);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_makes_the_same_requests() {
        let requests = |seed| (0..50).map(|number| Shopper::new(seed).request(number).1).collect::<Vec<_>>();
        assert_eq!(requests(1), requests(1));
        assert_ne!(requests(1), requests(2));
    }

    #[test]
    fn mix_is_of_a_thousand() {
        assert_eq!(Place::MIX.iter().map(|(_, weight)| weight).sum::<usize>(), 1000);
    }
}
