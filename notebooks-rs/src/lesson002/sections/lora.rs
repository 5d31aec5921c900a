//! `LoRALayer` and `LoRALinear`.

use super::computed;
use super::steps;
use crate::layers::LayersConfig;
use crate::lesson002::check::{overwritten, show};
use crate::lesson002::library::{Twin, alike, base, lora, lora_name, single};
use crate::lesson002::lora::{LoraLayer, LoraLinear};
use crate::lesson002::module::{Frozen, Module};
use crate::lesson002::tensors::{Source, largest, norm, relative, rows, shape};
use crate::measure::small;
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::Pass;
use peft_core::report::commas;
use tch::Tensor;

/// A layer of 6 inputs and 5 outputs, rank 2, alpha 4, of closed-form numbers.
pub fn example(source: Source) -> Result<LoraLinear> {
    let base = Frozen { weight: source.ramp(&[5, 6], [0.31, 0.2, 1.0])?, bias: None };
    let (a, b) = (source.ramp(&[2, 6], [0.7, 0.1, 0.5])?, source.ramp(&[5, 2], [0.9, 0.3, 0.5])?);
    Ok(LoraLinear { base, lora: LoraLayer::of(a, b, 4.0)? })
}

/// Closed-form x `[2, 3, 6]` and ∂L/∂y `[2, 3, 5]`.
pub fn batch(source: Source) -> Result<[Tensor; 2]> {
    Ok([source.ramp(&[2, 3, 6], [0.53, 0.4, 1.0])?, source.ramp(&[2, 3, 5], [0.37, 0.6, 1.0])?])
}

pub fn section(setting: Setting, page: &mut Page) -> Result<()> {
    tch::manual_seed(setting.seed);
    let source = Source(setting.device);
    let mut layer = example(source)?;
    let [x, grad] = batch(source)?;
    let y = layer.forward(&x)?;
    let dx = layer.backward(&grad)?;
    let (a, b) = (&layer.lora.a, &layer.lora.b);
    let (da, db) = (a.grad.f_detach_copy()?, b.grad.f_detach_copy()?);
    let merged = layer.merged()?;

    page.line(format!(
        "LoRALayer: A {}, B {}, scaling {}",
        shape(&a.value),
        shape(&b.value),
        layer.lora.scaling
    ))?;
    page.line(format!(
        "LoRALinear: frozen W {}, {} parameters",
        shape(&layer.base.weight),
        commas(layer.count())
    ))?;
    page.line(format!("Input shape: {}", shape(&x)))?;
    page.line(format!("Output shape: {}", shape(&y)))?;
    page.line(format!("Gradients computed: A={}, B={}", shape(&da), shape(&db)))?;
    computed(
        page,
        "Forward and backward of closed-form numbers",
        &[
            ("y", "x Wᵀ + H Bᵀ, H = s x Aᵀ", &y),
            ("A_grad", "(s G B)ᵀ x", &da),
            ("B_grad", "Gᵀ H", &db),
            ("grad_x", "G W + s G B A", &dx),
            ("merged", "W + s B A", &merged),
        ],
    )?;
    let autograd = show(page, "LoRALinear", &mut layer, &x, &grad)?;
    library_has_the_same(page, &mut layer, [&x, &grad])?;
    let best = steps::figure(page, source)?;

    let other = source.ramp(&[2, 3, 6], [0.29, 0.8, 1.0])?;
    page.mistakes(&[
        overwritten(&mut layer, [[&x, &grad], [&other, &grad]])?,
        products(&layer, &x)?,
        Mistake::new(
            "LoRALinear has no backward pass and no count, so it cannot be trained or reported",
            "forward, merge",
            format!(
                "forward, merged, backward to {}, count {}",
                shape(&layer.backward(&grad)?),
                commas(layer.count())
            ),
        ),
    ])?;
    let error = largest(&x.f_linear(&merged, None::<&Tensor>)?.f_sub(&y)?)?;
    page.fact("merge.error", error);
    let start = at_the_start(page, source, &x, &grad)?;
    page.what_to_see(&[
        start,
        format!("Merged, the output differs by {}: rounding, in f64.", small(error)),
        format!("The gradients by hand are autograd's: they differ by {} at most.", small(autograd)),
        best,
    ])?;
    Ok(())
}

/// The same layer of the library; merged, too.
fn library_has_the_same(page: &mut Page, layer: &mut LoraLinear, [x, grad]: [&Tensor; 2]) -> Result<()> {
    let weights = vec![single("fc.weight", &layer.base.weight)?];
    let twin = Twin {
        title: "LoraConfig",
        base: base(LayersConfig::new(6, 1).linear("fc", 6, 5, false), weights)?,
        methods: vec![("", lora(2, 4.0, &["fc"]))],
        more: Vec::new(),
        name: &|letter| lora_name("fc", letter),
        stored: &alike,
        forward: &|view, x| Ok(view.linear("fc")?.forward(x, Pass::eval())?),
    };
    let peft = twin.agree(page, layer, x, grad)?;
    let merged = peft.view(&["0"])?.linear("fc")?.merged()?.weight;
    page.fact("LoraConfig.merged", relative(&layer.merged()?, &merged)?);
    Ok(())
}

/// `x Aᵀ` is computed for the output and again for the cache, `G B` for dA and again for dx.
fn products(layer: &LoraLinear, x: &Tensor) -> Result<Mistake> {
    let n = rows(x)?.size2()?.0;
    let ((r, inp), (out, _)) = (layer.lora.a.value.size2()?, layer.lora.b.value.size2()?);
    let [xa, hb, gb, ta] = [n * inp * r, n * r * out, n * out * r, n * r * inp];
    // dB and dA are one product each.
    let weights = n * out * r + n * r * inp;
    let (lesson, once) = (2 * xa + hb + 2 * gb + ta + weights, xa + hb + gb + ta + weights);
    Ok(Mistake::new(
        "`x @ A.T` is computed twice in the forward pass, `grad @ B` twice in the backward pass",
        format!("{} multiplications in the low-rank path, for {n} rows", commas(lesson)),
        format!("{}, each product once", commas(once)),
    ))
}

/// With B = 0 the first gradient of A is zero, that of B is not.
fn at_the_start(page: &mut Page, source: Source, x: &Tensor, grad: &Tensor) -> Result<String> {
    let mut fresh = LoraLinear { lora: LoraLayer::new(source, [5, 6], 2, 4.0)?, ..example(source)? };
    let change = largest(&fresh.forward(x)?.f_sub(&fresh.base.forward(x)?)?)?;
    let _ = fresh.backward(grad)?;
    let [da, db] = [norm(&fresh.lora.a.grad)?, norm(&fresh.lora.b.grad)?];
    page.fact("start.change", change);
    page.fact("start.gradients", vec![da, db]);
    Ok(format!(
        "B starts at zero: the output changes by {change}, and in the first step ‖dA‖ = {da} while ‖dB‖ = \
         {db:.4}; A learns from the second step on."
    ))
}
