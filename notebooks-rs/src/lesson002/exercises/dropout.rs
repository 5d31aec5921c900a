//! Exercise 2: dropout on the LoRA path.

use super::task;
use crate::Page;
use crate::layers::LayersConfig;
use crate::lesson002::check::show;
use crate::lesson002::library::{Twin, alike, base, lora_name, single};
use crate::lesson002::lora::LoraLayer;
use crate::lesson002::module::{Frozen, Module, Parameter};
use crate::lesson002::sections::lora::{batch, example};
use crate::lesson002::tensors::{Source, largest, relative, rows, shape};
use anyhow::Result;
use peft_core::Pass;
use peft_core::methods::LoraConfig;
use tch::{Device, Kind, Tensor};

/// `Y = M ⊙ X`, where each element of M is 0 with probability p and otherwise `1/(1 − p)`, so that the mean is X.
///
/// Backward: `dX = M ⊙ G`, with the same M. It stays until the next one is drawn.
#[derive(Debug)]
pub struct Dropout {
    p: f64,
    /// None outside of training: `Y = X`.
    mask: Option<Tensor>,
}

impl Dropout {
    pub fn new(p: f64) -> Self {
        Self { p, mask: None }
    }

    /// A new M for inputs like x. It is drawn in f32, as the library draws it.
    pub fn draw(&mut self, x: &Tensor) -> Result<()> {
        let kept = x.f_zeros_like()?.f_to_kind(Kind::Float)?.f_to(Device::Cpu)?;
        let kept = kept.shallow_clone().f_bernoulli_float_(1.0 - self.p)?;
        self.mask = Some(kept.f_to_kind(x.kind())?.f_to(x.device())?.f_div_scalar(1.0 - self.p)?);
        Ok(())
    }

    /// Training is over.
    pub fn off(&mut self) {
        self.mask = None;
    }
}

impl Module for Dropout {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        Ok(match &self.mask {
            Some(mask) => x.f_mul(mask)?,
            None => x.shallow_clone(),
        })
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        self.forward(grad)
    }
}

/// `Y = X Wᵀ + s · (M ⊙ X) Aᵀ Bᵀ`: the frozen path keeps all of X.
///
/// Backward: `dX = G W + M ⊙ (s · G B A)`, `dA = (s · G B)ᵀ (M ⊙ X)`.
#[derive(Debug)]
pub struct DroppedLora {
    pub base: Frozen,
    pub dropout: Dropout,
    pub lora: LoraLayer,
}

impl Module for DroppedLora {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        let kept = self.dropout.forward(x)?;
        Ok(self.base.forward(x)?.f_add(&self.lora.forward(&kept)?)?)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        let through = self.lora.backward(grad)?;
        Ok(self.base.backward(grad)?.f_add(&self.dropout.backward(&through)?)?)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        self.lora.parameters()
    }
}

const P: f64 = 0.25;
const MASKS: i64 = 20_000;

pub(super) fn solve(page: &mut Page, source: Source) -> Result<String> {
    task(page, 2, "Dropout on the LoRA path")?;
    let crate::lesson002::lora::LoraLinear { base, lora } = example(source)?;
    let mut layer = DroppedLora { base, dropout: Dropout::new(P), lora };
    let [x, grad] = batch(source)?;
    let sure = layer.forward(&x)?;
    let (mean, furthest) = expectation(&mut layer, &x, &sure)?;
    page.line(format!(
        "Mean of {MASKS} masks: {mean:.4} from the output without dropout, of {:.4}",
        largest(&sure)?
    ))?;
    page.line(format!("That is {furthest:.2} standard errors at most, of {} numbers", sure.numel()))?;
    page.fact("dropout.mean", mean);
    page.fact("dropout.errors", furthest);
    layer.dropout.draw(&x)?;
    let off = layer.dropout.forward(&x.f_ones_like()?)?.f_eq(0.0)?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
    page.fact("dropout.zeros", off);
    page.line(format!("One mask {}: {off} of {} are zero, for p = {P}", shape(&x), x.numel()))?;
    show(page, "DroppedLora", &mut layer, &x, &grad)?;
    library_has_the_same(page, &mut layer, [&x, &grad])?;
    layer.dropout.off();
    let again = relative(&layer.forward(&x)?, &sure)?;
    page.fact("dropout.off", again);
    Ok(format!(
        "2: the mask multiplies x on the way to A and the gradient on the way back; the frozen path has \
         none. The scale 1/(1 − p) makes the mean over masks that of no dropout; after training the \
         difference is {again}."
    ))
}

/// The output's mean over many masks: how far it is from that without dropout, also in standard errors. The variance of
/// one output is `p/(1 − p) · Σₖ (xₖ ΔWₖ)²`.
fn expectation(layer: &mut DroppedLora, x: &Tensor, sure: &Tensor) -> Result<(f64, f64)> {
    let many = rows(x)?.f_unsqueeze(0)?.f_expand([MASKS, -1, -1], false)?;
    layer.dropout.draw(&many)?;
    let mean = layer.forward(&many)?.f_mean_dim([0i64].as_slice(), false, None::<Kind>)?;
    layer.dropout.off();
    let off = mean.f_sub(&rows(sure)?)?.f_abs()?;
    let variance = rows(x)?.f_square()?.f_matmul(&layer.lora.delta()?.f_square()?.f_tr()?)?;
    let error = variance.f_mul_scalar(P / (1.0 - P) / MASKS as f64)?.f_sqrt()?;
    Ok((largest(&off)?, largest(&off.f_div(&error)?)?))
}

/// The library's dropout, from the same place of the generator.
fn library_has_the_same(page: &mut Page, layer: &mut DroppedLora, [x, grad]: [&Tensor; 2]) -> Result<()> {
    let seed =
        Tensor::f_randint(i64::from(i32::MAX), [1], (Kind::Int64, Device::Cpu))?.f_int64_value(&[0])?;
    let config = LoraConfig {
        r: 2,
        lora_alpha: 4.0,
        lora_dropout: P,
        targets: ["fc"].into(),
        ..LoraConfig::default()
    };
    let weights = vec![single("fc.weight", &layer.base.weight)?];
    tch::manual_seed(seed);
    layer.dropout.draw(x)?;
    let twin = Twin {
        title: "LoraConfig with dropout",
        base: base(LayersConfig::new(6, 1).linear("fc", 6, 5, false), weights)?,
        methods: vec![("", config.into())],
        more: Vec::new(),
        name: &|letter| lora_name("fc", letter),
        stored: &alike,
        forward: &|view, x| {
            tch::manual_seed(seed);
            Ok(view.linear("fc")?.forward(x, Pass::train())?)
        },
    };
    twin.agree(page, layer, x, grad)?;
    Ok(())
}
