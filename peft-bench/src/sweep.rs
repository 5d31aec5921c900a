//! Every case over every seed, in processes of their own or in this one.

use crate::cases::Case;
use crate::job::Say;
use crate::record::{Data, Job, Message, Outcome, Work};
use crate::results::{Results, Run};
use crate::synthetic::{PRETRAIN_STEPS, STEPS};
use crate::text::Source;
use crate::worker;
use anyhow::{Result, anyhow};
use peft_core::device::Threads;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Sweep {
    pub cases: Vec<&'static Case>,
    pub seeds: Vec<i64>,
    pub on: On,
    /// As on the command line.
    pub device: String,
    /// CPU threads of a run.
    pub threads: Threads,
    /// Instead of the task's own.
    pub steps: Option<u64>,
    pub batch: Option<usize>,
    /// Instead of each case's own.
    pub lr: Option<f64>,
}

/// What is trained on.
#[derive(Debug, Clone)]
pub enum On {
    /// The synthetic task, over a base that is pre-trained for each seed. With `scratch`, a fresh model is trained on
    /// the task as well, all of it: what pre-training is worth.
    Synthetic {
        pretrain_steps: u64,
        scratch: bool,
    },
    Text(Source),
}

/// The run of a fresh model.
pub const SCRATCH: &str = "scratch";

/// Where jobs run.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// In this process, one after the other; memory is not measured.
    Here,
    /// So many at a time, each in a process of its own, which is this program once more: see [`worker::asked`].
    Workers(usize),
}

/// A job with its place in the sweep.
#[derive(Debug)]
pub struct Planned {
    /// Its place in the order of the results.
    pub index: usize,
    pub seed: i64,
    /// None pre-trains the seed's base.
    pub method: Option<&'static str>,
    job: Job,
}

impl Planned {
    /// `seed 0: lora`.
    pub fn title(&self) -> String {
        format!("seed {}: {}", self.seed, self.method.unwrap_or("base"))
    }
}

impl Sweep {
    /// Cases over seeds on the synthetic task, with all settings of the task's own.
    pub fn synthetic(cases: Vec<&'static Case>, seeds: Vec<i64>) -> Self {
        let on = On::Synthetic { pretrain_steps: PRETRAIN_STEPS, scratch: false };
        let (device, threads) = ("cpu".into(), Threads::default());
        Self { cases, seeds, on, device, threads, steps: None, batch: None, lr: None }
    }

    /// Steps of all jobs together, pre-training included; unknown on text, which nobody has read yet.
    pub fn steps(&self) -> Option<u64> {
        let (before, more, usual) = match &self.on {
            On::Synthetic { pretrain_steps, scratch } => {
                (*pretrain_steps, usize::from(*scratch), Some(STEPS))
            }
            On::Text(_) => (0, 0, None),
        };
        let runs = (self.cases.len() + more) as u64;
        Some(self.seeds.len() as u64 * (before + runs * self.steps.or(usual)?))
    }

    /// Runs everything. `seen` hears what every job says, its end included, and ends the sweep by an error of its own.
    /// A run that fails is one of the results.
    ///
    /// # Errors
    /// That of `seen`, and no place for the bases' files.
    pub fn run(
        &self,
        place: Place,
        mut seen: impl FnMut(&Planned, &Message) -> Result<()>,
    ) -> Result<Results> {
        let dir = tempfile::tempdir()?;
        let plan = self.plan(dir.path());
        let cases_of = |seed: i64| plan.iter().filter(move |p| p.seed == seed && p.method.is_some());
        let mut bases: VecDeque<&Planned> = plan.iter().filter(|p| p.method.is_none()).collect();
        // Where nothing is pre-trained, nobody has to wait.
        let mut ready: VecDeque<&Planned> =
            if bases.is_empty() { plan.iter().collect() } else { VecDeque::new() };
        let mut found = BTreeMap::new();
        let mut ended: Vec<_> = plan.iter().map(|_| None).collect();
        std::thread::scope(|scope| {
            let (tell, hear) = mpsc::channel();
            let mut running = 0;
            loop {
                while running < place.at_once() {
                    // One at a time goes seed by seed, so that something is finished early. Several begin with the
                    // bases: the last of them would keep the others waiting.
                    let next = match place.at_once() {
                        1 => ready.pop_front().or_else(|| bases.pop_front()),
                        _ => bases.pop_front().or_else(|| ready.pop_front()),
                    };
                    let Some(planned) = next else { break };
                    let tell = tell.clone();
                    scope.spawn(move || {
                        let say = |message| {
                            tell.send((planned, message)).map_err(|_| anyhow!("the sweep has ended"))
                        };
                        let last = place.run(&planned.job, &mut { say });
                        let _ = say(last.map_or_else(Message::Failed, Message::Ended));
                    });
                    running += 1;
                }
                if running == 0 {
                    return anyhow::Ok(());
                }
                let (planned, message): (&Planned, _) = hear.recv()?;
                seen(planned, &message)?;
                match message {
                    Message::Progress(..) | Message::Note(_) => continue,
                    Message::Ended(Outcome::Pretrained(base)) => {
                        found.insert(planned.seed, base);
                        ready.extend(cases_of(planned.seed));
                    }
                    Message::Ended(Outcome::Trained(figures)) => ended[planned.index] = Some(Ok(*figures)),
                    Message::Failed(why) if planned.method.is_none() => {
                        for case in cases_of(planned.seed) {
                            let _ = tell.send((case, Message::Failed(why.clone())));
                            running += 1;
                        }
                    }
                    Message::Failed(why) => ended[planned.index] = Some(Err(why)),
                }
                running -= 1;
            }
        })?;
        let runs = plan.iter().zip(ended);
        let runs =
            runs.filter_map(|(p, result)| Some(Run { method: p.method?, seed: p.seed, result: result? }));
        Ok(Results { runs: runs.collect(), bases: found })
    }

    /// All jobs: seed by seed, the base first.
    fn plan(&self, dir: &Path) -> Vec<Planned> {
        let mut plan = Vec::new();
        for &seed in &self.seeds {
            let mut add = |method, work| {
                let job = Job { seed, device: self.device.clone(), threads: self.threads, work };
                plan.push(Planned { index: plan.len(), seed, method, job });
            };
            let case = |name: &str, data| {
                let (method, steps, batch, lr) = (name.to_owned(), self.steps, self.batch, self.lr);
                Work::Case { method, data, steps, batch, lr }
            };
            let data = match &self.on {
                On::Text(source) => Data::Text(source.clone()),
                On::Synthetic { pretrain_steps, .. } => {
                    let base = dir.join(format!("{seed}.safetensors"));
                    add(None, Work::Pretrain { base: base.clone(), steps: *pretrain_steps });
                    Data::Synthetic { base: Some(base) }
                }
            };
            for c in &self.cases {
                add(Some(c.name), case(c.name, data.clone()));
            }
            if matches!(self.on, On::Synthetic { scratch: true, .. }) {
                add(Some(SCRATCH), case("full", Data::Synthetic { base: None }));
            }
        }
        plan
    }
}

impl Place {
    /// A worker for each processor core, if this program can be one.
    pub fn fastest() -> Self {
        match std::thread::available_parallelism() {
            Ok(cores) if worker::possible() => Self::Workers(cores.get()),
            _ => Self::Here,
        }
    }

    fn at_once(self) -> usize {
        match self {
            Place::Here => 1,
            Place::Workers(n) => n.max(1),
        }
    }

    fn run(self, job: &Job, say: Say<'_>) -> std::result::Result<Outcome, String> {
        match self {
            // Who waits for a job has to hear of its end, even of this one.
            Place::Here => catch_unwind(AssertUnwindSafe(|| job.run(say)))
                .map_err(|_| "panicked".to_owned())?
                .map_err(|e| format!("{e:#}")),
            Place::Workers(_) => worker::run(job, say),
        }
    }
}
