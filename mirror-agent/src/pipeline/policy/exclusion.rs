//! Enters: a request that was taken. Leaves: whether it is among what is to be left out of something.

use super::{
    Rule,
    asked::{Asked, Wanted},
};
use crate::pipeline::{FlowKey, http::RequestHead};

/// Rules of which any that fits leaves a request out, after an experiment has taken it.
#[derive(Clone, Debug, Default)]
pub struct Exclusion {
    rules: Vec<Rule>,
    wanted: Wanted,
}

impl Exclusion {
    /// Leaves out what fits any of these.
    #[must_use]
    pub fn new(mut rules: Vec<Rule>) -> Self {
        let mut wanted = Wanted::default();
        rules.iter_mut().for_each(|rule| rule.bind(&mut wanted));
        Self { rules, wanted }
    }

    /// Whether a request of `flow` is left out.
    #[must_use]
    pub fn fits(&self, flow: &FlowKey, head: &RequestHead<'_>) -> bool {
        let asked = Asked::new(&self.wanted, flow, head, 0);
        self.rules.iter().any(|rule| rule.fits_method(&asked) && rule.fits_beside_method(&asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{
        Endpoint,
        policy::{Methods, ValueRule},
    };

    #[test]
    fn any_rule_that_fits_leaves_a_request_out() {
        let with = |name, value: &[u8]| {
            Rule::of_methods(Methods::All).with_field(name, ValueRule::Exact(value.into())).unwrap()
        };
        let exclusion = Exclusion::new(vec![with("x-test", b"1"), with("user-agent", b"probe")]);
        let end = Endpoint::from(std::net::SocketAddr::from(([192, 0, 2, 1], 80)));
        let flow = FlowKey { client: end, server: end, vlan: 0, vni: 0 };
        let fits = |line: &str| {
            let raw = format!("GET / HTTP/1.1\r\n{line}\r\n\r\n");
            exclusion.fits(&flow, &RequestHead::parse(raw.as_bytes()).unwrap())
        };
        assert!(fits("X-Test: 1") && fits("user-agent: probe"));
        assert!(!fits("x-test: 2") && !fits("user-agent: 1") && !fits("a: b"));
    }
}
