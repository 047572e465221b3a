//! Enters: the queue of exchanges, and messages. Leaves: a thread that takes both until the queue is closed and empty.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::Serialize;
use tracing::{error, info, warn};

use super::{
    ask::{Ask, AskError, Installed, Latest, Message, Told, channel},
    experiment::Experiment,
    report::Report,
};
use crate::{
    io::{
        audit::Who,
        compare::{CompareQueue, Exchange},
        control::{Command, Control},
        ledger::Ledger,
        replay::clock,
        sinks::SinkLedger,
        telling::Teller,
    },
    pipeline::Timestamp,
};

/// How long the thread sleeps where there is nothing to do. Exchanges wait meanwhile: that they wake nobody is worth more
/// than that they are told of at once.
const PAUSE: Duration = Duration::from_millis(5);

/// The same where no experiment compares: nothing comes but questions, and the end.
const LONG_PAUSE: Duration = Duration::from_millis(50);

/// How many exchanges are compared between two looks at the messages.
const BATCH: usize = 64;

/// How long what waits may still be compared at the end.
const CLOSING_TIME: Duration = Duration::from_secs(1);

/// How often verdicts are looked at.
const VERDICT_INTERVAL: Duration = Duration::from_secs(2);

/// The thread, before it is started: it needs [`Control`], which needs the way to it.
#[derive(Debug)]
pub struct Telling {
    messages: mpsc::Receiver<Message>,
    latest: Arc<Latest>,
}

/// The thread that compares.
#[derive(Debug)]
pub struct TellingThread {
    queue: Arc<CompareQueue>,
    thread: Option<JoinHandle<()>>,
}

impl Telling {
    /// The thread, and the way to it.
    #[must_use]
    pub fn new() -> (Teller, Self) {
        let (teller, messages) = channel();
        let latest = teller.latest();
        (teller, Self { messages, latest })
    }

    /// Starts it. An experiment that fails is paused through `control`, where it asks for that.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn start(
        self,
        queue: Arc<CompareQueue>,
        ledger: Arc<Ledger>,
        sinks: SinkLedger,
        control: Control,
    ) -> io::Result<TellingThread> {
        let taken = Arc::clone(&queue);
        let work = Work {
            queue: taken,
            ledger,
            sinks,
            control,
            latest: self.latest,
            experiments: Vec::new(),
            due: Instant::now(),
        };
        let messages = self.messages;
        let thread = thread::Builder::new().name("compare".to_owned()).spawn(move || work.run(&messages))?;
        Ok(TellingThread { queue, thread: Some(thread) })
    }
}

impl TellingThread {
    /// Lets nothing more in, has what waits compared, and waits for the end.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("The thread that compares ended in a panic.");
        }
    }
}

impl Drop for TellingThread {
    fn drop(&mut self) {
        self.finish();
    }
}

struct Work {
    queue: Arc<CompareQueue>,
    ledger: Arc<Ledger>,
    sinks: SinkLedger,
    control: Control,
    latest: Arc<Latest>,
    experiments: Vec<Experiment>,
    /// When verdicts are looked at next.
    due: Instant,
}

impl Work {
    fn run(mut self, messages: &mpsc::Receiver<Message>) {
        let mut last = None;
        loop {
            if let Some(installed) = self.latest.take() {
                self.install(installed);
            }
            while let Ok(message) = messages.try_recv() {
                self.hear(message);
            }
            if Instant::now() >= self.due {
                self.judge();
                self.due = Instant::now() + VERDICT_INTERVAL;
            }
            let is_idle = (0..BATCH).any(|_| !self.compare_next());
            if is_idle {
                if self.queue.is_closed() {
                    break;
                }
                thread::sleep(if self.experiments.is_empty() { LONG_PAUSE } else { PAUSE });
            } else if self.queue.is_closed()
                && Instant::now() >= *last.get_or_insert(Instant::now() + CLOSING_TIME)
            {
                break;
            }
        }
        // There is no more time for what waits.
        while let Some(exchange) = self.queue.pop(Duration::ZERO) {
            self.give_up(&exchange);
        }
        self.experiments.iter_mut().for_each(Experiment::take_shed);
        self.experiments.iter().for_each(Experiment::close_sinks);
    }

    /// Compares the next exchange; false where there is none.
    fn compare_next(&mut self) -> bool {
        let Some(exchange) = self.queue.pop(Duration::ZERO) else { return false };
        let found = self.experiments.iter_mut().find(|known| known.is_of(&exchange.comparing));
        match found {
            Some(experiment) => experiment.take(&exchange),
            None => self.give_up(&exchange),
        }
        true
    }

    /// Counts an exchange that is not compared: its experiment compares in another way by now. One that was removed has
    /// nothing more to say.
    fn give_up(&self, exchange: &Exchange) {
        let name = &exchange.comparing.experiment;
        if let Some(experiment) = self.experiments.iter().find(|known| known.name() == *name) {
            experiment.give_up();
        }
    }

    fn judge(&mut self) {
        let now = clock::now();
        for experiment in &mut self.experiments {
            if experiment.judge(now)
                && !self
                    .control
                    .order(Who::Agent, Command::Pause { experiment: Some(experiment.name().to_owned()) })
            {
                warn!(experiment = experiment.name(), "The experiment fails and could not be paused.");
                experiment.not_paused();
            }
        }
    }

    fn hear(&mut self, message: Message) {
        let Message(ask, reply) = message;
        // Who asked may have gone meanwhile.
        drop(reply.send(self.answer(ask, clock::now())));
    }

    fn install(&mut self, installed: Vec<Installed>) {
        let mut before = std::mem::take(&mut self.experiments);
        let stays = |known: &Experiment| installed.iter().any(|installed| known.is_of(&installed.comparing));
        before.iter().filter(|known| !stays(known)).for_each(Experiment::close_sinks);
        for installed in installed {
            let known = before.iter().position(|known| known.name() == installed.comparing.experiment);
            let known = known.map(|position| before.swap_remove(position));
            match Experiment::install(known, installed.clone(), (&self.ledger, &self.sinks)) {
                Ok(experiment) => self.experiments.push(experiment),
                // The configuration was checked before it came into force.
                Err(error) => {
                    let experiment = &installed.comparing.experiment;
                    error!(experiment, %error, "The answers of the experiment cannot be compared.");
                }
            }
        }
        for gone in before {
            info!(experiment = gone.name(), "The answers of the experiment are compared no longer.");
        }
        let names: Vec<_> = self.experiments.iter().map(Experiment::name).collect();
        self.ledger.retain_comparisons(|books| names.contains(&books.experiment()));
    }

    fn answer(&mut self, ask: Ask, now: Timestamp) -> Result<Told, AskError> {
        match ask {
            Ask::Report { experiment: None, samples } => {
                let experiments =
                    self.experiments.iter_mut().map(|known| known.report(now, samples)).collect();
                Ok(Told::Report(json(&Report { experiments })))
            }
            Ask::Report { experiment: Some(name), samples } => {
                let report = self.find(&name)?.report(now, samples);
                Ok(Told::Report(json(&Report { experiments: vec![report] })))
            }
            Ask::Cluster { experiment, cluster } => {
                let told = self.find(&experiment)?.cluster(cluster).ok_or(AskError::UnknownCluster)?;
                Ok(Told::Report(json(&told)))
            }
            Ask::Verdicts { experiment } => Ok(Told::Report(json(&self.find(&experiment)?.verdicts()))),
            Ask::Portions => {
                Ok(Told::Portions(self.experiments.iter_mut().map(|known| known.portion(now)).collect()))
            }
            Ask::Accept { experiment, names } => self.find(&experiment)?.accept(names.as_deref(), now),
            Ask::Add { experiment, rule } => self.find(&experiment)?.add(*rule),
            Ask::Remove { experiment, name } => self.find(&experiment)?.remove(&name),
        }
    }

    fn find(&mut self, name: &str) -> Result<&mut Experiment, AskError> {
        let known: Vec<_> = self.experiments.iter().map(|known| known.name().to_owned()).collect();
        let unknown = || AskError::Unknown { name: name.to_owned(), known: known.join(", ") };
        self.experiments.iter_mut().find(|known| known.name() == name).ok_or_else(unknown)
    }
}

fn json(report: &impl Serialize) -> Vec<u8> {
    // Texts, numbers and lists: nothing that JSON cannot hold.
    serde_json::to_vec(report).unwrap_or_default()
}
