//! Section 3: a prefix behind a gate, the lesson's and LLaMA-Adapter's.

use super::cells::{Cell3, GATE, HEADS, PROMPT, TOKENS, WIDTH, inputs};
use super::count::{count_parameters, print_parameter_stats};
use super::probe::Probe;
use crate::layers::LayersPeft;
use crate::measure::{max_abs, norm, relative_change};
use crate::{Mistake, Page, Setting};
use anyhow::{Context, Result};
use peft_core::Pass;
use peft_core::report::commas;
use peft_plot::{Axis, Figure, Lines, Panel, Series};
use tch::{Kind, Tensor};

/// The attention of cell 3 on one input.
#[derive(Debug)]
pub struct Gated {
    pub cell: Cell3,
    x: Tensor,
    /// Without any prefix.
    pub plain: Tensor,
}

impl Gated {
    /// Draws the cell and the input.
    pub fn new(setting: Setting) -> Result<Self> {
        let cell = Cell3::draw(setting)?;
        let (x, _) = inputs(setting)?;
        let plain = attend(&cell.prefix, &[], &x)?;
        Ok(Self { cell, x, plain })
    }

    /// The attention's output with the adapter of that name, `[4, 128, 768]`.
    pub fn output(&self, gate: &str) -> Result<Tensor> {
        attend(&self.cell.prefix, &[gate], &self.x)
    }

    /// Sets the gate to `g`.
    pub fn set(&self, gate: &str, g: f64) -> Result<()> {
        let g = Tensor::f_from_slice(&[g as f32])?;
        Ok(self.cell.prefix.params(gate)?.assign(GATE, &g)?)
    }

    /// How much the prefix changes the output with the gate at `g`, relative; the gate is back at zero afterwards.
    pub fn change(&self, gate: &str, g: f64) -> Result<f64> {
        self.set(gate, g)?;
        let change = relative_change(&self.output(gate)?, &self.plain)?;
        self.set(gate, 0.0)?;
        Ok(change)
    }

    /// The share of the attention weights that the prefix gets within the one softmax, with the gate at `g`, in percent.
    fn share(&mut self, g: f64) -> Result<f64> {
        let probe = Probe::default();
        self.cell.prefix.add("probe", probe.clone())?;
        self.set("sigmoid", g)?;
        drop(attend(&self.cell.prefix, &["probe", "sigmoid"], &self.x)?);
        self.set("sigmoid", 0.0)?;
        self.cell.prefix.delete("probe")?;
        let weights = probe.take().pop().context("no attention")?;
        let prefix = weights.f_narrow(-1, 0, TOKENS)?.f_sum_dim_intlist(-1, false, None::<Kind>)?;
        Ok(100.0 * prefix.f_mean(None::<Kind>)?.f_double_value(&[])?)
    }

    /// Norms of the gradients of the tokens and of the gate, for the loss mean(y²).
    fn gradients(&self, gate: &str) -> Result<[f64; 2]> {
        let model = self.cell.prefix.view(&[gate])?;
        let y = model.attention(0)?.forward(&self.x, Pass::train())?;
        y.f_square()?.f_mean(None::<Kind>)?.f_backward()?;
        let params = self.cell.prefix.params(gate)?;
        let of = |name: &str| norm(&params.find(name).context("no such tensor")?.f_grad()?);
        Ok([of(PROMPT)?, of(GATE)?])
    }
}

fn attend(peft: &LayersPeft, active: &[&str], x: &Tensor) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    Ok(peft.view(active)?.attention(0)?.forward(x, Pass::eval())?)
}

/// The gate values of the sweep.
pub const SWEEP: [f64; 13] = [-6.0, -4.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0];

/// 3. Zero-init Attention Prefix-tuning - Mathematical Foundation.
pub fn review_zero_init(setting: Setting, page: &mut Page) -> Result<()> {
    let mut gated = Gated::new(setting)?;
    let prefix = count_parameters(&gated.cell.prefix, &["sigmoid"])?;
    let standard = count_parameters(&gated.cell.standard, &["full"])?;
    page.line("")?;
    page.line("Prefix-tuning Parameter Analysis:")?;
    print_parameter_stats(page, &prefix, "Zero-init Prefix Attention")?;
    print_parameter_stats(page, &standard, "Standard Multi-head Attention")?;

    let changes = sweep(&gated, page)?;
    page.figure("review_zero_init_gate", figure(&changes))?;
    let closed = gated.change("sigmoid", f64::NEG_INFINITY)?;
    let start = gated.change("sigmoid", 0.0)?;
    let exact = max_abs(&gated.output("tanh")?, &gated.plain)?;
    let shares = [gated.share(0.0)?, gated.share(f64::NEG_INFINITY)?];
    page.fact("sigmoid.start", start);
    page.fact("sigmoid.start_max_abs", max_abs(&gated.output("sigmoid")?, &gated.plain)?);
    page.fact("sigmoid.closed", closed);
    page.fact("sigmoid.shares", shares.to_vec());
    page.fact("tanh.start_max_abs", exact);
    page.mistakes(&[
        Mistake::new(
            "The lesson's zero-init gate is not zero at the start",
            format!(
                "scores times sigmoid(0) = {}: the output changes by {:.1} % at the start",
                sigmoid(0.0),
                100.0 * start
            ),
            format!("a softmax of its own times tanh(0) = {}: max |change| = {exact}", 0f64.tanh()),
        ),
        Mistake::new(
            "A score of zero is not a weight of zero: this gate cannot be closed",
            format!(
                "gate at minus infinity: the output still changes by {:.1} %, as {TOKENS} tokens have {:.2} % of the \
                 attention ({:.2} % at the start)",
                100.0 * closed,
                shares[1],
                shares[0]
            ),
            format!(
                "tanh at g = 0: the prefix adds 0 times its values, the weights over the words stay as they were; \
                 change {:.1} %",
                100.0 * gated.change("tanh", 0.0)?
            ),
        ),
        Mistake::new(
            "The text trains keys and values K_p and V_p, the code trains tokens",
            format!("text: 2 x {TOKENS} x {WIDTH} = {} trained numbers", commas(2 * TOKENS * WIDTH)),
            format!(
                "code, and LLaMA-Adapter: {} tokens go through W_k and W_v, {} and one gate",
                TOKENS,
                commas(prefix.trainable - 1)
            ),
        ),
        Mistake::new(
            "The two attentions that are counted are not the same",
            format!("standard {} - prefix {}", commas(standard.all), commas(prefix.all)),
            format!(
                "nn.MultiheadAttention has {} biases that the prefix layer lacks; without them both have {}",
                commas(4 * WIDTH),
                commas(prefix.all - prefix.trainable)
            ),
        ),
    ])?;
    let [[sigmoid_tokens, sigmoid_gate], [tanh_tokens, tanh_gate]] =
        [gated.gradients("sigmoid")?, gated.gradients("tanh")?];
    page.fact("gradients.sigmoid", vec![sigmoid_tokens, sigmoid_gate]);
    page.fact("gradients.tanh", vec![tanh_tokens, tanh_gate]);
    page.what_to_see(&[
        format!(
            "tanh: at the start the tokens' gradient is {tanh_tokens} and the gate's {tanh_gate:.1e}: the gate opens \
             first, the tokens learn afterwards. sigmoid: {sigmoid_tokens:.1e} and {sigmoid_gate:.1e}, both at once."
        ),
        format!(
            "The sigmoid moves the output between {:.1} % and {:.1} % only: it weighs the prefix, it does not switch it.",
            100.0 * changes[0].iter().copied().fold(f64::INFINITY, f64::min),
            100.0 * changes[0].iter().copied().fold(0.0, f64::max),
        ),
        format!(
            "The d under the root is a head's, {} / {HEADS} = {}, as in the code; the text does not say so.",
            WIDTH,
            WIDTH / HEADS
        ),
    ])?;
    Ok(())
}

fn sigmoid(g: f64) -> f64 {
    1.0 / (1.0 + (-g).exp())
}

/// The change at each gate value, for both gates.
fn sweep(gated: &Gated, page: &mut Page) -> Result<[Vec<f64>; 2]> {
    let bar = page.progress("gates", SWEEP.len() as u64);
    let (mut changes, mut rows) = ([Vec::new(), Vec::new()], Vec::new());
    for g in SWEEP {
        let [s, t] = [gated.change("sigmoid", g)?, gated.change("tanh", g)?];
        changes[0].push(s);
        changes[1].push(t);
        rows.push(vec![
            format!("{g:.1}"),
            format!("{:.4}", sigmoid(g)),
            format!("{:.2}", 100.0 * s),
            format!("{:.4}", g.tanh()),
            format!("{:.2}", 100.0 * t),
        ]);
        bar.inc(1);
    }
    bar.finish_and_clear();
    page.table(
        "Change of the attention's output by the prefix, |y - y0| / |y0|",
        ["gate g", "sigmoid(g)", "lesson: change (%)", "tanh(g)", "LLaMA-Adapter: change (%)"],
        rows,
    )?;
    Ok(changes)
}

fn figure(changes: &[Vec<f64>; 2]) -> Figure {
    let series = |name: &str, changes: &[f64]| Series {
        name: name.into(),
        points: SWEEP.into_iter().zip(changes.iter().map(|c| 100.0 * c)).collect(),
        markers: true,
        ..Default::default()
    };
    Figure {
        title: "What the prefix changes, by its gate".into(),
        rows: vec![vec![Panel::Lines(Lines {
            title: format!("{HEADS} heads, {TOKENS} prefix tokens, not trained"),
            x: Axis { label: "gate value g".into(), ..Default::default() },
            y: Axis { label: "change of the output (%)".into(), ..Default::default() },
            series: vec![
                series("lesson: sigmoid(g) on the scores", &changes[0]),
                series("LLaMA-Adapter: tanh(g) on a softmax of its own", &changes[1]),
            ],
        })]],
        note: Some("Both start at g = 0; only tanh changes nothing there.".into()),
    }
}
