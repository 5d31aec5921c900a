//! Exercise 1: LoRA on feed-forward layers.

use super::task;
use crate::Page;
use crate::layers::LayersConfig;
use crate::lesson002::check::show;
use crate::lesson002::library::{Twin, alike, base, lora, lora_name, single};
use crate::lesson002::lora::{LoraLayer, LoraLinear};
use crate::lesson002::module::{Frozen, Module, Parameter, kept, within};
use crate::lesson002::tensors::{Source, largest};
use crate::lesson002::train::shake;
use anyhow::Result;
use peft_core::Pass;
use peft_core::report::commas;
use tch::Tensor;

/// `Y = down(relu(up(X)))` of two linear layers of any kind, `[N, d]` to `[N, 4 d]` and back.
///
/// Backward: `dH = down.backward(G)`, `dZ = dH ⊙ [Z > 0]`, `dX = up.backward(dZ)`. The layers know the rest.
#[derive(Debug)]
pub struct FeedForward {
    up: Box<dyn Module>,
    down: Box<dyn Module>,
    /// Z `[.., 4 d]`
    cache: Option<Tensor>,
}

impl FeedForward {
    pub fn new(up: impl Module + 'static, down: impl Module + 'static) -> Self {
        Self { up: Box::new(up), down: Box::new(down), cache: None }
    }
}

impl Module for FeedForward {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        let z = self.up.forward(x)?;
        let h = z.f_relu()?;
        self.cache = Some(z);
        self.down.forward(&h)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        let dh = self.down.backward(grad)?;
        self.up.backward(&dh.f_mul(&kept(&self.cache)?.f_gt(0.0)?)?)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        let up = within("up", self.up.parameters());
        up.into_iter().chain(within("down", self.down.parameters())).collect()
    }
}

const WIDTH: i64 = 8;
const INNER: i64 = 32;
const RANK: i64 = 2;

pub(super) fn solve(page: &mut Page, source: Source) -> Result<String> {
    task(page, 1, "LoRA on feed-forward layers")?;
    let (x, grad) = (source.normal(&[2, 5, WIDTH], 1.0)?, source.normal(&[2, 5, WIDTH], 1.0)?);
    let frozen = |out: i64, inp: i64| -> Result<Frozen> {
        Ok(Frozen {
            weight: source.normal(&[out, inp], 1.0 / (inp as f64).sqrt())?,
            bias: Some(source.normal(&[out], 0.1)?),
        })
    };
    let (up, down) = (frozen(INNER, WIDTH)?, frozen(WIDTH, INNER)?);
    let lora = |base: &Frozen| -> Result<LoraLinear> {
        let lora = LoraLayer::new(source, base.weight.size2()?.into(), RANK, 4.0)?;
        Ok(LoraLinear { base: copy(base), lora })
    };
    let mut adapted = FeedForward::new(lora(&up)?, lora(&down)?);
    let plain = FeedForward::new(copy(&up), copy(&down)).forward(&x)?;
    let change = largest(&adapted.forward(&x)?.f_sub(&plain)?)?;
    page.line(format!(
        "LoRA parameters: {} beside {} frozen ones",
        commas(adapted.count()),
        commas([&up, &down].iter().map(|f| f.weight.numel() as i64).sum::<i64>() + INNER + WIDTH)
    ))?;
    page.line(format!("Change at the start: {change}"))?;
    page.fact("feed_forward.change", change);
    shake(&adapted, source, 0.1)?;
    show(page, "FeedForward", &mut adapted, &x, &grad)?;
    library_has_the_same(page, [&up, &down], &mut adapted, [&x, &grad])?;
    Ok(format!(
        "1: these two layers have {} weights, an attention of the same width {}; LoRA costs r (in + out) \
         for each, {} and {}.",
        2 * WIDTH * INNER,
        4 * WIDTH * WIDTH,
        RANK * (WIDTH + INNER),
        RANK * (INNER + WIDTH)
    ))
}

fn copy(f: &Frozen) -> Frozen {
    Frozen { weight: f.weight.shallow_clone(), bias: f.bias.as_ref().map(Tensor::shallow_clone) }
}

/// The same two layers of the library, with a relu between them.
fn library_has_the_same(
    page: &mut Page,
    frozen: [&Frozen; 2],
    ours: &mut FeedForward,
    [x, grad]: [&Tensor; 2],
) -> Result<()> {
    let mut weights = Vec::new();
    for (name, f) in ["up", "down"].iter().zip(frozen) {
        weights.push(single(format!("{name}.weight"), &f.weight)?);
        if let Some(bias) = &f.bias {
            weights.push(single(format!("{name}.bias"), bias)?);
        }
    }
    let config =
        LayersConfig::new(WIDTH, 1).linear("up", WIDTH, INNER, true).linear("down", INNER, WIDTH, true);
    let twin = Twin {
        title: "LoraConfig on feed-forward layers",
        base: base(config, weights)?,
        methods: vec![("", lora(RANK, 4.0, &["up", "down"]))],
        more: Vec::new(),
        name: &|name| lora_name("*", name),
        stored: &alike,
        forward: &|view, x| {
            let h = view.linear("up")?.forward(x, Pass::eval())?.f_relu()?;
            Ok(view.linear("down")?.forward(&h, Pass::eval())?)
        },
    };
    twin.agree(page, ours, x, grad)?;
    Ok(())
}
