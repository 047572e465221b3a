//! Enters: other mirrors, each as a line that starts it. Leaves: what they cost and do to live, beside the agent, in one run.

mod builtin;
mod running;

use anyhow::{Result, bail};
use clap::Args;
use mirror_tests::{load::Pace, traffic::Same};

use self::running::Peering;
use crate::{
    report::{Cell, Figure, Mark, Table},
    trial::{Beside, Setup, Stage, Trial, Watch, Work},
    workloads::{Effort, MIB, bare_rate, others},
};

/// Other mirrors to measure beside the agent, as options name them.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PeerOptions {
    /// Another mirror to measure (repeat); what nginx is, and Envoy where it is installed, the bench knows by itself
    #[arg(long = "peer", value_name = "NAME")]
    names: Vec<String>,
    /// How it is started, for `sh -c` on live's host, once for each `--peer` in their order. It is told the network
    /// interface as MIRROR_INTERFACE and host:port of live and shadow as MIRROR_LIVE and MIRROR_SHADOW; what stands in
    /// the way listens at MIRROR_ENTRY, and the load is sent there if anybody does
    #[arg(long = "start", value_name = "COMMAND")]
    starts: Vec<String>,
    /// How it is stopped, for all of `--peer` or none; what still runs is ended by SIGTERM, then by SIGKILL
    #[arg(long = "stop", value_name = "COMMAND")]
    stops: Vec<String>,
}

/// Another mirror.
#[derive(Debug)]
struct Peer {
    name: String,
    start: String,
    stop: Option<String>,
}

impl PeerOptions {
    /// The mirrors that are named.
    ///
    /// # Errors
    ///
    /// They have not all a line that starts them, or only some a line that stops them.
    fn peers(&self) -> Result<Vec<Peer>> {
        let (names, starts, stops) = (self.names.len(), self.starts.len(), self.stops.len());
        if starts != names || (stops != names && stops != 0) {
            bail!(
                "{names} × --peer with {starts} × --start and {stops} × --stop: each has to be started, and each or none stopped"
            );
        }
        let stops = self.stops.iter().map(|stop| Some(stop.clone())).chain(std::iter::repeat(None));
        let peers = self.names.iter().zip(&self.starts).zip(stops);
        Ok(peers
            .map(|((name, start), stop)| Peer { name: name.clone(), start: start.clone(), stop })
            .collect())
    }

    /// Says what is wrong before anything is measured.
    ///
    /// # Errors
    ///
    /// As [`Self::peers`].
    pub(crate) fn check(&self) -> Result<()> {
        self.peers().map(drop)
    }
}

/// One work with each of them.
struct Row {
    name: String,
    trials: Vec<Trial>,
    /// Of a peer, as many as trials.
    peerings: Vec<Peering>,
}

/// Measures nothing, the bare sender, the agent and each peer, interleaved.
pub(crate) fn measure(
    stage: &Stage,
    effort: Effort,
    options: &PeerOptions,
) -> Result<(Vec<Table>, Vec<Mark>)> {
    let folder = tempfile::tempdir()?;
    let (mut peers, mut missing) = builtin::peers(stage, folder.path())?;
    peers.extend(options.peers()?);
    peers.retain(|peer| match running::try_out(stage, peer) {
        Ok(()) => true,
        Err(error) => {
            missing.push(format!("{}: left out, since {error:#}.", peer.name));
            false
        }
    });
    let post = Work {
        request: Same::post(64 << 10),
        setup: Setup::Options(&["--methods", "all"]),
        ..Work::gets("64 KiB POSTs, 1000/s", Pace::PerSecond(1_000.0))
    };
    let works =
        [Work::gets("GET 10000/s", Pace::PerSecond(10_000.0)), Work::gets("GET max", Pace::ClosedLoop), post];
    let mut table = Table::new("peers", "Beside other mirrors", &COLUMNS);
    let mut all = Vec::new();
    for work in works {
        let rows = interleaved(stage, effort, &work, &peers)?;
        table.rows.extend(cells(&work, &rows));
        all.extend(rows.into_iter().flat_map(|row| row.trials));
    }
    table.note(
        "CPU: user and system, ms for 1,000 requests at the shadow, of all processes of the peer; those that ended meanwhile are \
         not in it. Of a proxy it includes the passing on to live. As fast as it goes, the bare sender keeps the agent's rate.",
    );
    for reason in missing {
        table.note(reason);
    }
    table.note(others(&all));
    Ok((vec![table], Vec::new()))
}

const COLUMNS: [&str; 12] = [
    "work",
    "beside live",
    "at shadow at end %",
    "CPU",
    "× bare",
    "live req/s",
    "ratio",
    "p50 µs",
    "p99 µs",
    "p99.9 µs",
    "PSS MiB",
    "failed",
];

fn interleaved(stage: &Stage, effort: Effort, work: &Work, peers: &[Peer]) -> Result<Vec<Row>> {
    let names = ["nothing", "mirror-agent", "bare sender"].into_iter();
    let names = names.chain(peers.iter().map(|peer| peer.name.as_str()));
    let mut rows = names
        .map(|name| Row { name: name.to_owned(), trials: Vec::new(), peerings: Vec::new() })
        .collect::<Vec<_>>();
    for _ in 0..effort.rounds {
        let mut rate = bare_rate(work, None);
        for (number, row) in rows.iter_mut().enumerate() {
            let trial = match number {
                0 => stage.run(work, Beside::Nothing, effort.duration)?,
                1 => stage.run(work, Beside::Mirror(Watch::Outside), effort.duration)?,
                2 => stage.run(work, Beside::BareSender(rate), effort.duration)?,
                _ => {
                    let Some(peer) = peers.get(number - 3) else { continue };
                    let (trial, peering) = running::run(stage, peer, work, effort.duration)?;
                    row.peerings.push(peering);
                    trial
                }
            };
            if number == 1 {
                rate = bare_rate(work, Some(&trial));
            }
            row.trials.push(trial);
        }
    }
    Ok(rows)
}

fn cells(work: &Work, rows: &[Row]) -> Vec<Vec<Cell>> {
    let cpu = |row: &Row| {
        let of_trial = |trial: &Trial| {
            let mirror = trial.mirror.as_ref().map(|one| one.cpu_per_thousand());
            mirror.or_else(|| Some(trial.bare?.cpu_per_thousand()))
        };
        let of_trials = row.trials.iter().filter_map(of_trial);
        Figure::of(of_trials.chain(row.peerings.iter().filter_map(Peering::cpu_per_thousand)))
    };
    let rate = |row: &Row| Figure::of(row.trials.iter().map(|trial| trial.rate));
    let (alone, bare) = (rows.first().and_then(rate), rows.get(2).and_then(cpu));
    let cells = rows.iter().map(|row| {
        let latency =
            |index: usize| Cell::from(Figure::of(row.trials.iter().map(|trial| trial.latency[index])));
        let ours = || row.trials.iter().filter_map(|trial| trial.mirror.as_ref());
        let share = ours().map(|one| one.share_at_end());
        let memory = ours().map(|one| one.memory).chain(row.peerings.iter().map(|one| one.memory));
        vec![
            work.name.as_str().into(),
            row.name.as_str().into(),
            Figure::of(share.chain(row.peerings.iter().map(Peering::share_at_end))).into(),
            cpu(row).into(),
            cpu(row).zip(bare).map(|(cpu, bare)| cpu.median / bare.median).into(),
            rate(row).into(),
            rate(row).zip(alone).map(|(rate, alone)| rate.median / alone.median).into(),
            latency(0),
            latency(1),
            latency(2),
            Figure::of(memory.map(|bytes| bytes as f64 / MIB)).into(),
            (row.trials.iter().map(Trial::failed).sum::<u64>() as f64).into(),
        ]
    });
    cells.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(names: &[&str], starts: &[&str], stops: &[&str]) -> PeerOptions {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        PeerOptions { names: owned(names), starts: owned(starts), stops: owned(stops) }
    }

    #[test]
    fn peers_have_their_lines_in_order() {
        let peers = options(&["a", "b"], &["run a", "run b"], &["end a", "end b"]).peers().unwrap();
        let told = peers.iter().map(|peer| (&*peer.name, &*peer.start, peer.stop.as_deref()));
        assert_eq!(told.collect::<Vec<_>>(), [("a", "run a", Some("end a")), ("b", "run b", Some("end b"))]);
        assert!(options(&["a"], &["run a"], &[]).peers().unwrap()[0].stop.is_none());
    }

    #[test]
    fn peer_without_its_line_is_refused() {
        assert!(options(&["a", "b"], &["run a"], &[]).peers().is_err());
        assert!(options(&[], &["run a"], &[]).peers().is_err());
        assert!(options(&["a", "b"], &["run a", "run b"], &["end a"]).peers().is_err());
    }
}
