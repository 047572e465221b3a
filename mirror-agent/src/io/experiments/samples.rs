//! Enters: the experiments of the configuration. Leaves: what the kernel program can decide of their samples, which
//! connections it takes by that, and of which ports the answers are read.

use std::collections::BTreeSet;

use mirror_common::sample::{connection_draw, is_in_share};

use crate::{
    io::{
        capture::{Matched, PortSample, port_samples},
        config::{ExperimentConfig, SampleConfig, SampleKey},
    },
    pipeline::{FlowKey, policy::connection_key},
};

/// Which connections the kernel program takes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reach {
    /// Those to these servers.
    pub matched: Matched,
    /// Of them, those that are in a sample, where there is one of their port.
    pub samples: Vec<PortSample>,
}

impl Reach {
    /// Whether a probe that was not seen while `before` was taken might be seen now: more servers are, or of a port of which
    /// so few connections were taken that an address may have none of them, more are.
    #[must_use]
    pub fn shows_more_than(&self, before: &Self) -> bool {
        let lanes_of = |reach: &Self, port: u16| {
            reach.samples.iter().find(|sample| sample.port == port).map(|sample| sample.lanes.clone())
        };
        let shows_more = |sample: &PortSample| {
            let is_hidden = sample.lanes.iter().all(|(_, millionths)| *millionths < LEAST_SHOWN_MILLIONTHS);
            is_hidden && lanes_of(self, sample.port).as_ref() != Some(&sample.lanes)
        };
        self.matched.takes_more_than(&before.matched) || before.samples.iter().any(shows_more)
    }

    /// Whether segments of this connection are taken, unless it is shed.
    #[must_use]
    pub fn takes(&self, flow: &FlowKey) -> bool {
        let FlowKey { client, server, .. } = flow;
        let is_in = |(key, millionths): &(u64, u32)| {
            is_in_share(connection_draw(*key, client.addr.octets(), client.port), *millionths)
        };
        let sample = self.samples.iter().find(|sample| sample.port == server.port);
        self.matched.takes(server.addr, server.port)
            && sample.is_none_or(|sample| sample.lanes.iter().any(is_in))
    }
}

/// A sample this large has some of the connections that an address can begin, but for one address in 10^13: there are 64,512
/// ports to come from.
const LEAST_SHOWN_MILLIONTHS: u32 = 500;

/// Of which connections to which ports the kernel program has to copy segments for these experiments, and no others.
#[must_use]
pub fn connection_samples(experiments: &[ExperimentConfig]) -> Vec<PortSample> {
    let lane = |experiment: &ExperimentConfig| {
        let SampleConfig { share, by, .. } = &experiment.sample;
        (*by == SampleKey::Connection).then(|| (connection_key(&experiment.name), share.millionths()))
    };
    port_samples(experiments.iter().map(|experiment| (&experiment.ports[..], lane(experiment))))
}

/// The live ports of which these experiments read the answers.
#[must_use]
pub fn answer_ports(experiments: &[ExperimentConfig]) -> BTreeSet<u16> {
    let readers = experiments.iter().filter(|experiment| experiment.reads_answers());
    readers.flat_map(|experiment| &experiment.ports).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        io::{
            config::{ComparisonConfig, Expiry, MatchConfig, MissingKey},
            experiments::compile,
        },
        pipeline::{
            Endpoint, FlowKey, Policy,
            http::RequestHead,
            policy::{ExperimentId, Methods, Share},
        },
    };

    fn experiment(by: SampleKey, percent: f64) -> ExperimentConfig {
        ExperimentConfig {
            name: "orders-v2".to_owned(),
            owner: None,
            expires: Expiry::Never,
            ports: vec![80],
            addresses: Vec::new(),
            pods: None,
            matches: vec![MatchConfig::of_methods(Methods::All)],
            excludes: Vec::new(),
            sample: SampleConfig {
                share: Share::from_percent(percent).unwrap(),
                by,
                missing: MissingKey::Skip,
            },
            targets: Vec::new(),
            compare: None,
        }
    }

    #[test]
    fn kernel_program_and_agent_decide_alike() {
        let experiment = experiment(SampleKey::Connection, 30.0);
        let samples = connection_samples(std::slice::from_ref(&experiment));
        let [PortSample { port: 80, lanes }] = &samples[..] else { panic!("{samples:?}") };
        let (key, millionths) = lanes[0];
        let policy = Policy::from(compile(ExperimentId(0), &experiment).unwrap());
        let head = RequestHead::parse(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let end = |port| Endpoint::from(std::net::SocketAddr::from(([192, 0, 2, 1], port)));
        let mut taken = 0;
        for port in 1..10_000 {
            let flow = FlowKey { client: end(port), server: end(80), vlan: 0, vni: 0 };
            let by_agent = policy.decide(&flow, &head, 1, |_, _| {}).is_ok();
            let draw = connection_draw(key, flow.client.addr.octets(), port);
            assert_eq!(by_agent, is_in_share(draw, millionths), "{port}");
            let reach = Reach { matched: Matched::new(&[80], &[]), samples: samples.clone() };
            assert_eq!(by_agent, reach.takes(&flow), "{port}");
            taken += u32::from(by_agent);
        }
        assert!((2_800..3_200).contains(&taken), "{taken}");
    }

    #[test]
    fn reach_shows_more_where_a_sample_that_hid_everything_has_become_another() {
        let reach = |millionths: Option<u32>| {
            let sample = millionths.map(|millionths| PortSample { port: 80, lanes: vec![(7, millionths)] });
            Reach { matched: Matched::new(&[80], &[]), samples: sample.into_iter().collect() }
        };
        let nothing = Reach::default();
        assert!(reach(Some(0)).shows_more_than(&nothing), "another port");
        for (before, now, shows_more) in [
            (Some(0), Some(0), false),
            (Some(0), Some(1), true),
            (Some(0), None, true),
            (Some(400), Some(500), true),
            (Some(500), Some(600_000), false),
            (Some(500), None, false),
            (None, Some(0), false),
        ] {
            assert_eq!(reach(now).shows_more_than(&reach(before)), shows_more, "{before:?} to {now:?}");
        }
    }

    #[test]
    fn the_answers_of_ports_are_read_that_an_experiment_compares() {
        let other = experiment(SampleKey::Request, 1.0);
        let compare = Some(ComparisonConfig::default());
        let comparing = ExperimentConfig { ports: vec![81, 82], compare, ..other.clone() };
        assert_eq!(answer_ports(std::slice::from_ref(&other)), BTreeSet::new());
        assert_eq!(answer_ports(&[other.clone(), comparing.clone()]), BTreeSet::from([81, 82]));
        let reads = |config| compile(ExperimentId(0), config).unwrap().reads_answers;
        assert_eq!((reads(&other), reads(&comparing)), (false, true));
    }

    #[test]
    fn what_is_sampled_by_anything_else_is_left_to_the_agent() {
        let experiments = [experiment(SampleKey::Connection, 1.0), experiment(SampleKey::Client, 1.0)];
        assert_eq!(connection_samples(&experiments), []);
        assert_eq!(connection_samples(&[experiment(SampleKey::Connection, 100.0)]), []);
    }
}
