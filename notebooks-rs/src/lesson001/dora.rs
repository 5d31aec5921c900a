//! 2.3 DoRA: `W' = m ⊙ (W + s · B A) / ‖W + s · B A‖`, with one magnitude m and one norm for each output.

use super::dora_fit;
use super::lora::config;
use super::measure::{at, linear};
use crate::layers::{LayersConfig, LayersPeft};
use crate::measure::{max_abs, norm, randn, row, small};
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::methods::LoraConfig;
use peft_core::report::commas;
use peft_core::seam::{Init, PREFIX};
use tch::{Kind, Tensor};

const K: i64 = 64;
const D: i64 = 48;

/// DoRA at a layer, with the lesson's rank and alpha.
pub fn dora(targets: &[&str]) -> LoraConfig {
    LoraConfig { use_dora: true, ..config(targets) }
}

/// The lesson's `DoRALayer.forward`, by hand. Its gradient flows through the norm; with `detached` it does not, as in the
/// paper's section 4.3.
#[derive(Debug)]
pub struct ByHand {
    /// W `[d, k]`, A `[r, k]`, B `[d, r]`, m `[d]`
    pub w: Tensor,
    pub a: Tensor,
    pub b: Tensor,
    pub m: Tensor,
    pub s: f64,
}

impl ByHand {
    /// `x W'ᵀ`, without the layer's bias, which the lesson drops.
    pub fn forward(&self, x: &Tensor, detached: bool) -> Result<Tensor> {
        let adapted = self.w.f_add(&self.b.f_matmul(&self.a)?.f_mul_scalar(self.s)?)?;
        let norms = adapted.f_linalg_norm(2, [1i64].as_slice(), true, None::<Kind>)?;
        let norms = if detached { norms.f_detach()? } else { norms };
        let direction = adapted.f_div(&norms.f_add_scalar(1e-8)?)?;
        Ok(x.f_linear(&self.m.f_unsqueeze(1)?.f_mul(&direction)?, None::<&Tensor>)?)
    }

    /// Gradients of `mean(y²)` by A, B and m.
    fn grads(&self, y: &Tensor) -> Result<Vec<Tensor>> {
        let loss = y.f_square()?.f_mean(Kind::Float)?;
        Ok(Tensor::f_run_backward(&[loss], &[&self.a, &self.b, &self.m], true, false)?)
    }
}

/// The lesson's class over `nn.Linear(64, 48)` step by step, and the library's DoRA of the same numbers.
#[derive(Debug)]
pub struct Trace {
    pub peft: LayersPeft,
    pub by_hand: ByHand,
    /// `[4, k]`
    pub x: Tensor,
    /// `x Wᵀ`
    pub y_base: Tensor,
    /// With m = 1, as the lesson starts, and with m = ‖W‖.
    pub y_ones: Tensor,
    pub y_norms: Tensor,
    /// `‖W‖` by output, `[d]`
    pub norms: Tensor,
    /// How far the library's DoRA is from the base at the start, bias included.
    pub off: f64,
    /// With B from N(0, 0.02²): the output and its gradients, as written, with the norm detached, and the library's.
    pub y: Tensor,
    pub y_library: Tensor,
    pub grads: [Vec<Tensor>; 3],
}

impl Trace {
    pub fn new(setting: Setting) -> Result<Self> {
        tch::manual_seed(setting.seed);
        let mut peft = LayersConfig::new(K, 1).linear("linear", K, D, true).init(setting.device)?;
        peft.add("dora", dora(&["linear"]))?;
        let own = peft.params("dora")?;
        let library =
            ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"].map(|n| at(own, "linear", n));
        let library = library.into_iter().collect::<Result<Vec<_>>>()?;
        let base = peft.base().tensors();
        let (w, bias) = (base["linear.weight"].shallow_clone(), base["linear.bias"].shallow_clone());
        let copy = |t: &Tensor| -> Result<Tensor> { Ok(t.f_detach_copy()?.f_set_requires_grad(true)?) };
        let mut by_hand = ByHand {
            a: copy(&library[0])?,
            b: copy(&library[1])?,
            m: Init::Constant(1.0).tensor(&[D], setting.device)?,
            s: config(&[]).scaling(),
            w,
        };
        let x = randn(&[4, K], setting.device)?;
        let y_base = x.f_linear(&by_hand.w, None::<&Tensor>)?;
        let y_ones = by_hand.forward(&x, false)?.f_detach()?;
        let norms = by_hand.w.f_linalg_norm(2, [1i64].as_slice(), false, None::<Kind>)?;
        by_hand.m = copy(&norms)?;
        let y_norms = by_hand.forward(&x, false)?.f_detach()?;
        let off = max_abs(&linear(&peft, &["dora"], "linear", &x)?, &linear(&peft, &[], "linear", &x)?)?;

        let trained = Init::Normal { std: 0.02 }.tensor(&[D, config(&[]).r], setting.device)?;
        own.assign(&format!("{PREFIX}linear.lora_B.weight"), &trained)?;
        by_hand.b = copy(&trained)?;
        let y = by_hand.forward(&x, false)?;
        // The library's layer keeps its bias; the lesson has none.
        let y_library = linear(&peft, &["dora"], "linear", &x)?.f_sub(&bias)?;
        let loss = y_library.f_square()?.f_mean(Kind::Float)?;
        let grads = [
            by_hand.grads(&y)?,
            by_hand.grads(&by_hand.forward(&x, true)?)?,
            Tensor::f_run_backward(&[loss], &library.iter().collect::<Vec<_>>(), false, false)?,
        ];
        let (y, y_library) = (y.f_detach()?, y_library.f_detach()?);
        Ok(Self { peft, by_hand, x, y_base, y_ones, y_norms, norms, off, y, y_library, grads })
    }
}

/// The norm of the gradient by each of A, B and m, and how far it is from the library's. Also gives those by A and B, as
/// written and the library's.
fn gradients(trace: &Trace, page: &mut Page) -> Result<[[f64; 2]; 2]> {
    let mut rows = Vec::new();
    let mut all = Vec::new();
    let names = ["as written: through the norm", "by hand, the norm detached", "the library's"];
    for (name, grads) in names.iter().zip(&trace.grads) {
        let mut cells = row([name]);
        for (grad, library) in grads.iter().zip(&trace.grads[2]) {
            let (size, off) = (norm(grad)?, norm(&grad.f_sub(library)?)? / norm(library)?);
            cells.extend([format!("{size:.4}"), small(off)]);
            all.extend([size, off]);
        }
        rows.push(cells);
    }
    let columns = ["gradient", "‖∂L/∂A‖", "off by", "‖∂L/∂B‖", "off by", "‖∂L/∂m‖", "off by"];
    page.table("Gradients of one loss, and their distance from the library's", columns, rows)?;
    let by = |method: usize| -> Result<[f64; 2]> {
        Ok([norm(&trace.grads[method][0])?, norm(&trace.grads[method][1])?])
    };
    page.fact("gradients", all);
    Ok([by(0)?, by(2)?])
}

/// 2.3 DoRA.
pub fn run(setting: Setting, page: &mut Page) -> Result<()> {
    let trace = Trace::new(setting)?;
    let report = trace.peft.report(&["dora"])?;
    let range = |t: Tensor| -> Result<f64> { Ok(t.f_double_value(&[])?) };
    let (least, most) = (range(trace.norms.f_min()?)?, range(trace.norms.f_max()?)?);
    let [ones, norms] = [&trace.y_ones, &trace.y_norms].map(|y| max_abs(y, &trace.y_base));
    let (ones, norms) = (ones?, norms?);
    page.line(format!("DoRA parameters: {}  (LoRA and {D} magnitudes)", commas(report.trainable)))?;
    page.line(format!("Row norms of W: {least:.4} to {most:.4}"))?;
    page.line(format!("Magnitude = 1: max |y - x W'| at init {ones:.4}"))?;
    page.line(format!("Magnitude = row norm: max |y - x W'| at init {norms:.1e}"))?;
    page.line(format!("The library's DoRA: at init {}", small(trace.off)))?;
    for (name, number) in [
        ("trainable", report.trainable as f64),
        ("norm_min", least),
        ("norm_max", most),
        ("ones", ones),
        ("norms", norms),
        ("library", trace.off),
        ("library_off_hand", max_abs(&trace.y, &trace.y_library)?),
    ] {
        page.fact(name, number);
    }
    let [[a, b], [a_detached, b_detached]] = gradients(&trace, page)?;
    let fitted = dora_fit::run(setting, page)?;
    let bias = trace.peft.base().tensors()["linear.bias"].f_abs()?.f_max()?.f_double_value(&[])?;
    page.fact("bias", bias);
    page.mistakes(&[
        Mistake::new(
            "The magnitude starts at one",
            format!("every row of W gets length 1: the output is off by {ones:.4} before training"),
            format!("the magnitude starts as the row norm: off by {norms:.1e}, and 0 in the library's arrangement"),
        ),
        Mistake::new(
            "The gradient flows through the norm",
            format!("‖∂L/∂A‖ = {a:.4}, ‖∂L/∂B‖ = {b:.4}"),
            format!(
                "section 4.3 of the paper detaches it, which saves memory: {a_detached:.4} and {b_detached:.4}, as in PEFT \
                 and here"
            ),
        ),
        Mistake::new(
            "`F.linear(x, W')` without the layer's bias",
            format!("the bias is lost: the output is off by up to {bias:.4}"),
            "the adapter changes the weight alone, and the layer keeps its bias".to_owned(),
        ),
        Mistake::new(
            "`DoRALayer` calls `math.sqrt`, and `math` is not imported",
            "NameError at the first layer",
            format!("{} parameters once it is", commas(report.trainable)),
        ),
    ])?;
    page.what_to_see(&[
        format!(
            "W = ‖W‖ · W/‖W‖ row by row: {D} lengths and {D} directions. With m = ‖W‖ the start is the base; with m = 1 all \
             that the rows' lengths ({least:.2} to {most:.2}) say is forgotten."
        ),
        "A and B turn the rows, m alone makes them longer or shorter; LoRA does both with B A.".into(),
        fitted,
    ])?;
    Ok(())
}

/// `W'` of the adapters that are active, `[out, in]`.
pub fn weight(peft: &LayersPeft, active: &[&str], name: &str) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    Ok(peft.view(active)?.linear(name)?.merged()?.weight)
}
