//! The models that the conformance laws run on, and what is done with one in a law.

mod models;

pub use models::{Bert, Gpt2, Llama, Qwen2, TINY, Tiny};

use crate::table::{Config, Row, rows};
use anyhow::{Result, bail, ensure};
use peft_core::methods::{Common, LoraConfig};
use peft_core::seam::MethodConfig;
use peft_core::train::{cross_entropy, next_token_loss};
use peft_core::{Batch, Model, Params, Pass, Peft};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use tch::Tensor;

/// Sizes of a model, for the formulas of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    pub layers: i64,
    pub hidden: i64,
    pub heads: i64,
    /// Width of all keys of a layer: key heads · size of a head.
    pub keys: i64,
    /// A token sees itself and those before it alone.
    pub causal: bool,
    /// Parameters of the whole model.
    pub all: i64,
    /// Linear layers for LoRA, once a layer of the model.
    pub targets: &'static [Target],
    /// The word embedding by its full name: vocabulary and width.
    pub words: Target,
    /// Full name of the output layer of a causal model, which is `[vocabulary, width]`.
    pub lm_head: Option<&'static str>,
    /// Its weight is the word embedding's.
    pub tied: bool,
    /// Parameters of all biases, those of the head that is trained beside the method not counted.
    pub biases: i64,
    /// Parameters of the head that is trained beside the method.
    pub head: i64,
    /// A module to train whole, with the number of its parameters in the whole model.
    pub whole: (&'static str, i64),
    /// Parameters of one layer of the model.
    pub layer_params: i64,
    /// The norms, with the number of their parameters in the whole model.
    pub norms: (&'static [&'static str], i64),
    /// Names of the first blocks.
    pub attention: &'static str,
    pub feed_forward: &'static str,
    pub layer: &'static str,
    /// The first and the last attention core.
    pub core: &'static str,
    pub last_core: &'static str,
}

/// A linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub name: &'static str,
    pub inp: i64,
    pub out: i64,
}

/// A model that every law is checked on.
pub trait Subject {
    const NAME: &'static str;
    /// The base, with the same numbers at every call. Leaves libtorch's generator anywhere.
    fn base() -> Result<Peft>;
    fn sizes() -> Sizes;
    fn common() -> Common;
    /// Four rows of random tokens and their classes, or for a causal model the tokens to predict; padded, where the model knows padding.
    fn batch() -> Result<(Batch, Tensor)>;
}

/// The model with a row's adapter `a`, fresh.
pub fn fresh<M: Subject>(config: &Config) -> Result<Peft> {
    fresh_method::<M>(config.method())
}

/// As [`fresh`].
pub fn fresh_method<M: Subject>(method: Box<dyn MethodConfig>) -> Result<Peft> {
    let mut peft = M::base()?;
    tch::manual_seed(1);
    peft.add("a", method)?;
    Ok(peft)
}

/// As [`fresh`], with every parameter of the adapter moved away from its start.
pub fn moved<M: Subject>(config: &Config) -> Result<Peft> {
    moved_method::<M>(config.method())
}

/// As [`moved`].
pub fn moved_method<M: Subject>(method: Box<dyn MethodConfig>) -> Result<Peft> {
    let peft = fresh_method::<M>(method)?;
    move_away(peft.params("a")?, 2)?;
    Ok(peft)
}

/// The smallest model with a LoRA `a`, which differs by `seed` too.
pub fn lora(r: i64, lora_alpha: f64, seed: i64) -> Result<Peft> {
    let targets = ["out_proj", "ff.0"].into();
    let peft = moved_method::<Tiny>(LoraConfig { r, lora_alpha, targets, ..Default::default() }.into())?;
    move_away(peft.params("a")?, seed)?;
    Ok(peft)
}

/// Adds noise to every tensor, and 1 to what is but one number (a gate, a scale), so that it matters.
pub fn move_away(params: &Params, seed: i64) -> Result<()> {
    tch::manual_seed(seed);
    for (name, t) in params.tensors() {
        let t = t.detach();
        let by = if t.numel() == 1 { 1.0 } else { 0.0 };
        params.assign(&name, &(&t + t.randn_like() * 0.15 + by))?;
    }
    Ok(())
}

/// As [`move_away`], of what is trained alone: frozen copies of the base's weights stay the base's.
pub fn move_trained(params: &Params, seed: i64) -> Result<()> {
    tch::manual_seed(seed);
    for (name, t) in params.trainable() {
        let t = t.detach();
        params.assign(&name, &(&t + t.randn_like() * 0.15))?;
    }
    Ok(())
}

/// The batch of the subject that `peft` is of.
fn batch_of(peft: &Peft) -> Result<(Batch, Tensor)> {
    match peft.outline().dims.model_type.as_str() {
        "tiny" => Tiny::batch(),
        "bert" => Bert::batch(),
        "llama" => Llama::batch(),
        "gpt2" => Gpt2::batch(),
        "qwen2" => Qwen2::batch(),
        other => bail!("no subject is of type `{other}`"),
    }
}

/// Logits in evaluation mode; of a causal model those of the words, without a prompt's.
pub fn logits(peft: &Peft, active: &[&str]) -> Result<Tensor> {
    let (batch, _) = batch_of(peft)?;
    let all = peft.view(active)?.forward(&batch, Pass::eval())?.detach();
    Ok(if peft.outline().dims.causal() { all.slice(1, -batch.ids()?.size()[1], None, 1) } else { all })
}

/// The training loss.
pub fn loss(peft: &Peft, active: &[&str]) -> Result<Tensor> {
    let (batch, labels) = batch_of(peft)?;
    let logits = peft.view(active)?.forward(&batch, Pass::train())?;
    Ok(match peft.outline().dims.causal() {
        true => next_token_loss(&logits, &labels)?,
        false => cross_entropy(&logits, &labels)?,
    })
}

/// Runs a generic law on every row, on every model; its failure names all rows that break it.
#[macro_export]
macro_rules! on_every_model {
    ($law:ident) => {{
        use $crate::subject::{Bert, Gpt2, Llama, Qwen2, Tiny, every_row};
        $crate::subject::in_halves(
            &[
                || every_row::<Tiny>($law::<Tiny>),
                || every_row::<Bert>($law::<Bert>),
                || every_row::<Gpt2>($law::<Gpt2>),
            ],
            &[|| every_row::<Llama>($law::<Llama>), || every_row::<Qwen2>($law::<Qwen2>)],
        )
    }};
}

/// As [`on_every_model`], for laws about model directories: on every model that the Hub has a form for.
#[macro_export]
macro_rules! on_every_hub_model {
    ($law:ident) => {{
        use $crate::subject::{Bert, Gpt2, Llama, Qwen2, every_row};
        $crate::subject::in_halves(
            &[|| every_row::<Bert>($law::<Bert>), || every_row::<Gpt2>($law::<Gpt2>)],
            &[|| every_row::<Llama>($law::<Llama>), || every_row::<Qwen2>($law::<Qwen2>)],
        )
    }};
}

/// Set for the process that runs a test's second half.
const SECOND_HALF: &str = "PEFT_TESTS_SECOND_HALF";

/// A part of a test: what is broken.
pub type Part = fn() -> Vec<String>;

/// Runs the parts of a test, half of them in a process of its own: libtorch has one generator a process, which a law needs
/// for itself, so this is how a test uses two cores. The process runs this same test, and nothing else.
pub fn in_halves(first: &[Part], second: &[Part]) -> Result<()> {
    let _serial = crate::serial();
    let run = |half: &[Part]| half.iter().flat_map(|part| part()).collect::<Vec<String>>();
    if std::env::var_os(SECOND_HALF).is_some() {
        return verdict(&run(second));
    }
    let thread = std::thread::current();
    let Some(test) = thread.name().filter(|name| *name != "main") else {
        return verdict(&[run(first), run(second)].concat());
    };
    let mut other = Command::new(std::env::current_exe()?);
    other.args(["--exact", test, "--nocapture"]).env(SECOND_HALF, "1").env("RUST_BACKTRACE", "0");
    let other = other.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let own = verdict(&run(first)).err().map(|e| format!("{e:#}"));
    let out = other.wait_with_output()?;
    let (said, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(said.contains("running 1 test"), "the second half of {test} did not run: {said}{errors}");
    let others = (!out.status.success()).then(|| format!("second half: {said}{errors}"));
    let broken: Vec<String> = own.into_iter().chain(others).collect();
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

/// Fails if any row broke a law.
pub fn verdict(broken: &[String]) -> Result<()> {
    if !broken.is_empty() {
        bail!("broken by {} rows:\n  {}", broken.len(), broken.join("\n  "));
    }
    Ok(())
}

/// The rows that break a law on one model, with the reason.
pub fn every_row<M: Subject>(law: fn(&Row) -> Result<()>) -> Vec<String> {
    let rows = rows(&M::sizes(), &M::common());
    let broken = rows.iter().filter_map(|row| {
        let why = match catch_unwind(AssertUnwindSafe(|| law(row))) {
            Ok(Ok(())) => return None,
            Ok(Err(e)) => format!("{e:#}").lines().next().unwrap_or_default().to_owned(),
            Err(_) => "panicked, see above".to_owned(),
        };
        Some(format!("{} · {}: {why}", M::NAME, row.name))
    });
    broken.collect()
}
