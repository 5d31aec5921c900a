//! How far a training is: a bar on a terminal, a line now and then elsewhere.

use crate::output::{Output, say};
use crate::watch::Step;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::{Display, Formatter};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Where there is no terminal, a line at least so often, as far as updates are done in that time.
const EVERY: Duration = Duration::from_secs(10);
/// Loss and speed are means of about so many updates.
const SPAN: f64 = 20.0;

/// Shows how far a training is, on stderr. On a terminal that is a bar; elsewhere, in a log file say, a line every ten
/// seconds, and the last update. With `--quiet` it is nothing.
#[derive(Debug)]
pub struct Progress {
    show: Show,
    pace: Pace,
}

#[derive(Debug)]
enum Show {
    Bar(ProgressBar),
    Lines { last: Instant },
    Nothing,
}

impl Progress {
    /// A training of `total` updates, of which `done` are behind it: those before a run was resumed.
    pub fn new(output: &Output, done: u64, total: u64) -> Self {
        let show = match (output.quiet, std::io::stderr().is_terminal()) {
            (true, _) => Show::Nothing,
            (false, true) => Show::Bar(bar(done, total)),
            (false, false) => Show::Lines { last: Instant::now() },
        };
        Self { show, pace: Pace::new(done, total) }
    }

    /// An update was done.
    pub fn step(&mut self, step: &Step) {
        self.pace.step(step);
        match &mut self.show {
            Show::Nothing => {}
            Show::Bar(bar) => {
                bar.set_message(self.pace.to_string());
                bar.set_position(step.step);
            }
            Show::Lines { last } => {
                if last.elapsed() >= EVERY || step.step >= self.pace.total {
                    *last = Instant::now();
                    say(format_args!("step {}/{}  {}", step.step, self.pace.total, self.pace));
                }
            }
        }
    }

    /// What is being done between updates, in place of the figures: "evaluating 3/40".
    pub fn passing(&self, what: impl Display) {
        if let Show::Bar(bar) = &self.show {
            bar.set_message(what.to_string());
            bar.tick();
        }
    }

    /// Has something else write to stderr or stdout: what it says stays above the bar.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.show {
            Show::Bar(bar) => bar.suspend(write),
            _ => write(),
        }
    }

    /// The training is over, or has stopped: the bar goes, and the last figures stay.
    pub fn end(&self) {
        if let Show::Bar(bar) = &self.show {
            bar.abandon_with_message(self.pace.to_string());
        }
    }
}

fn bar(done: u64, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_position(done);
    // As it is written, the template is one; otherwise the bar is indicatif's own.
    if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len}  {wide_msg}") {
        bar.set_style(style);
    }
    bar.tick();
    bar
}

/// The figures of a training as they are shown: smoothed loss, learning rate, tokens a second, and the time that the rest
/// will take at the pace of this process. What was done before a run was resumed does not count for that.
#[derive(Debug, Clone)]
pub struct Pace {
    total: u64,
    first: u64,
    at: u64,
    began: Instant,
    /// Of the time that is over, what was spent in updates and beside them.
    spent: Duration,
    loss: Smooth,
    /// Tokens and seconds are smoothed alone, so that the speed is that of all tokens in all seconds.
    tokens: Smooth,
    seconds: Smooth,
    lr: f64,
}

impl Pace {
    /// A training of `total` updates, of which `done` are behind it.
    pub fn new(done: u64, total: u64) -> Self {
        let [loss, tokens, seconds] = [Smooth::over(SPAN); 3];
        let (began, spent) = (Instant::now(), Duration::ZERO);
        Self { total, first: done, at: done, began, spent, loss, tokens, seconds, lr: 0.0 }
    }

    /// An update was done now.
    pub fn step(&mut self, step: &Step) {
        self.step_after(step, self.began.elapsed());
    }

    /// An update was done so long after the process began to train.
    pub fn step_after(&mut self, step: &Step, spent: Duration) {
        (self.at, self.spent, self.lr) = (step.step, spent, step.lr);
        self.loss.take(step.loss);
        self.tokens.take(step.tokens as f64);
        self.seconds.take(step.seconds);
    }

    /// The loss of the last updates: each counts a little less than the one after it.
    pub fn loss(&self) -> Option<f64> {
        self.loss.value()
    }

    /// Tokens a second in the last updates.
    pub fn speed(&self) -> Option<f64> {
        let seconds = self.seconds.value().filter(|s| *s > 0.0)?;
        Some(self.tokens.value()? / seconds)
    }

    /// The time that the rest will take, evaluations and what else comes between updates included.
    pub fn left(&self) -> Option<Duration> {
        let done = self.at.checked_sub(self.first).filter(|n| *n > 0)?;
        let each = self.spent.as_secs_f64() / done as f64;
        Duration::try_from_secs_f64(each * self.total.saturating_sub(self.at) as f64).ok()
    }
}

impl Display for Pace {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        if let Some(loss) = self.loss() {
            write!(f, "loss {loss:.4}  lr {:.2e}", self.lr)?;
        }
        if let Some(speed) = self.speed() {
            write!(
                f,
                "  {} tokens/s",
                if speed < 100.0 { format!("{speed:.1}") } else { format!("{speed:.0}") }
            )?;
        }
        match self.left() {
            Some(left) if self.at < self.total => write!(f, "  {} left", Span(left)),
            _ => Ok(()),
        }
    }
}

/// A span of time for people: `2d 3h`, `1h 5m`, `4m 10s`, `12s`.
#[derive(Debug, Clone, Copy)]
pub struct Span(pub Duration);

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let s = self.0.as_secs_f64().round() as u64;
        let (days, hours, minutes, seconds) = (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds}s"),
            (0, 0, _) => write!(f, "{minutes}m {seconds}s"),
            (0, ..) => write!(f, "{hours}h {minutes}m"),
            _ => write!(f, "{days}d {hours}h"),
        }
    }
}

/// An exponential mean that does not lean to zero at its start. What is no number is passed over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Smooth {
    inertia: f64,
    sum: f64,
    weight: f64,
}

impl Smooth {
    /// A mean of about so many values.
    pub fn over(span: f64) -> Self {
        Self { inertia: 1.0 - 1.0 / span, sum: 0.0, weight: 0.0 }
    }

    pub fn take(&mut self, value: f64) {
        if value.is_finite() {
            self.sum = self.inertia * self.sum + (1.0 - self.inertia) * value;
            self.weight = self.inertia * self.weight + (1.0 - self.inertia);
        }
    }

    pub fn value(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}
