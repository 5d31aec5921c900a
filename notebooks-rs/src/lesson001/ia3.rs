//! 3.2 (IA)³: `l_k ⊙ K`, `l_v ⊙ V`, and `W₂ (l_ff ⊙ σ(W₁ x))`: three vectors a layer, which start at one.

use super::measure::at;
use super::small_llama::{LAYERS, Sizes, loss, train};
use crate::layers::{LayersConfig, LayersPeft};
use crate::measure::{max_abs, row, small, torch_size};
use crate::{Mistake, Page, Setting};
use anyhow::{Context, Result};
use peft_core::estimate::{Blueprint, Setup};
use peft_core::methods::Ia3Config;
use peft_core::report::commas;
use peft_core::seam::PREFIX;
use peft_core::target::Names;
use peft_core::{Model, Pass, Peft};
use peft_plot::{Axis, Figure, Lines, Panel, Series};
use tch::{Device, Kind, Tensor};

/// The lesson's `dim`, which it has for all three vectors.
const D: i64 = 64;
/// The small Llama: as wide as the lesson's class, with grouped heads and a feed-forward of its own width.
const SIZES: Sizes = Sizes { vocab: 64, hidden: D, ffn: 176, heads: 4, kv_heads: 2 };
const STEPS: u64 = 80;
const LR: f64 = 5e-2;

/// `IA3Layer(64)`: three layers of one width, so that one `dim` does.
pub fn class(device: Device) -> Result<LayersPeft> {
    let names = ["key", "value", "ffn"];
    let layers = names.iter().fold(LayersConfig::new(D, 1), |c, name| c.linear(name, D, D, false));
    let mut peft = layers.init(device)?;
    let config = Ia3Config {
        targets: Names::list(names).into(),
        feedforward_modules: Some(Names::list(Vec::<String>::new())),
        ..Ia3Config::default()
    };
    peft.add("ia3", config)?;
    Ok(peft)
}

/// The library's (IA)³ in the small Llama, trained, and what it did.
struct Trained {
    peft: Peft,
    is_identity: bool,
    losses: [f64; 2],
    /// Largest difference of the logits once l is in the weights, and how large they are.
    merged: [f64; 2],
}

impl Trained {
    fn new(setting: Setting) -> Result<Self> {
        tch::manual_seed(setting.seed);
        let mut peft = SIZES.draw(setting.device)?;
        let text = SIZES.text(16, 24, setting)?;
        peft.add("ia3", Ia3Config::default())?;
        let logits = |peft: &Peft, active: &[&str]| -> Result<Tensor> {
            let _guard = tch::no_grad_guard();
            Ok(peft.view(active)?.forward(&text, Pass::eval())?)
        };
        let is_identity = logits(&peft, &[])?.f_equal(&logits(&peft, &["ia3"])?)?;
        let before = loss(&peft, &["ia3"], &text)?;
        train(&peft, "ia3", &text, STEPS, LR)?;
        let adapted = logits(&peft, &["ia3"])?;
        let merged = logits(&peft.merged(&["ia3"])?, &[])?;
        let merged = [max_abs(&merged, &adapted)?, adapted.f_abs()?.f_max()?.f_double_value(&[])?];
        let losses = [before, loss(&peft, &["ia3"], &text)?];
        Ok(Self { peft, is_identity, losses, merged })
    }

    /// All values of a layer kind, from the smallest to the largest.
    fn values(&self, leaf: &str) -> Result<Vec<f64>> {
        let own = self.peft.params("ia3")?.tensors();
        let vectors = own.iter().filter(|(name, _)| name.contains(leaf));
        let flat = vectors.map(|(_, t)| t.f_detach()?.f_flatten(0, -1));
        let all = Tensor::f_cat(&flat.collect::<std::result::Result<Vec<_>, _>>()?, 0)?;
        Ok(Vec::<f64>::try_from(all.f_to_kind(Kind::Double)?.f_to(Device::Cpu)?.f_sort(0, false)?.0)?)
    }
}

const TARGETS: [(&str, &str); 3] = [("l_k", "k_proj"), ("l_v", "v_proj"), ("l_ff", "down_proj")];

/// Widths and numbers in the small Llama, from the adapter's report.
fn widths(trained: &Trained, page: &mut Page) -> Result<()> {
    let report = trained.peft.report(&["ia3"])?;
    let mut rows = Vec::new();
    for (vector, leaf) in TARGETS {
        let own = report.rows.iter().find(|r| r.name.contains(leaf)).context("a target")?;
        let width: i64 = own.shape.iter().product();
        let values = trained.values(leaf)?;
        let (least, most) = (values.first().copied().unwrap_or(1.0), values.last().copied().unwrap_or(1.0));
        let place = own.name.trim_start_matches(PREFIX).trim_end_matches(".ia3_l");
        rows.push(row([
            &vector,
            &place,
            &width,
            &commas(own.trainable),
            &format!("{least:.3}"),
            &format!("{most:.3}"),
        ]));
        page.fact(leaf, vec![least, most]);
    }
    let (all, class) = (commas(report.trainable), commas(3 * D * LAYERS));
    rows.push(row([&"all", &"", &"", &all, &"", &""]));
    rows.push(row([&"the lesson's class", &"", &D, &class, &"", &""]));
    page.table(
        &format!("(IA)³ in a Llama of {LAYERS} layers, {STEPS} steps"),
        ["vector", "at", "width", "parameters", "least", "greatest"],
        rows,
    )?;
    page.fact("small", report.trainable);
    Ok(())
}

/// 3.2 IA³.
pub fn run(setting: Setting, page: &mut Page) -> Result<()> {
    let class = class(setting.device)?;
    let own = class.params("ia3")?;
    page.line(format!("IA3 parameters: {}", commas(class.report(&["ia3"])?.trainable)))?;
    for (vector, site) in [("l_k", "key"), ("l_v", "value"), ("l_ff", "ffn")] {
        page.line(format!("{vector} shape: {}", torch_size(&at(own, site, "ia3_l")?.f_view([-1])?)))?;
    }
    let trained = Trained::new(setting)?;
    page.line(format!("Identity at init: {}", trained.is_identity))?;
    let [before, after] = trained.losses;
    page.line(format!("Loss: {before:.4} before, {after:.4} after {STEPS} steps"))?;
    widths(&trained, page)?;
    let llama = Blueprint::about(7_000_000_000)?;
    let dims = &llama.outline().dims;
    let by_class = 3 * dims.sizes()?.hidden * dims.sizes()?.layers;
    let at_7b = llama.estimate(Ia3Config::default(), &Setup::default())?.report;
    let hidden_units = Tensor::f_ones([2, 5, SIZES.ffn], (Kind::Float, setting.device))?;
    let scale_ffn = hidden_units.f_mul(&Tensor::f_ones([D], (Kind::Float, setting.device))?);
    let refused = scale_ffn.map_or_else(first_line, |_| "it fits".into());
    page.fact("class", class.report(&["ia3"])?.trainable);
    page.fact("losses", trained.losses.to_vec());
    page.fact("merged", trained.merged.to_vec());
    page.fact("llama7b", at_7b.trainable);
    page.fact("llama7b.class", by_class);
    page.figure("unified_ia3", figure(&trained)?)?;
    page.mistakes(&[
        Mistake::new(
            "One `dim` for keys, values and the feed-forward's hidden units",
            format!("`scale_ffn` of {} hidden units by a vector of {D}: {refused}", SIZES.ffn),
            format!(
                "each vector has the width of what it scales: {} keys, {} values, {} hidden units",
                SIZES.kv(),
                SIZES.kv(),
                SIZES.ffn
            ),
        ),
        Mistake::new(
            "So the count for LLaMA-7B is too low",
            format!("{} with one width of {}", commas(by_class), dims.sizes()?.hidden),
            format!("{} = {:.4} %", commas(at_7b.trainable), at_7b.percent()),
        ),
        Mistake::new(
            "\"ffn outputs\" are scaled, the lesson says",
            format!("behind W₂ a vector has {} values", SIZES.hidden),
            format!(
                "the paper scales the hidden units before W₂, {} values: there the library's is",
                SIZES.ffn
            ),
        ),
    ])?;
    let [off, size] = trained.merged;
    page.what_to_see(&[
        format!(
            "Values below one inhibit, those above amplify. {} numbers brought the loss from {before:.2} to {after:.2} over \
             random weights.",
            page.facts()["small"]
        ),
        format!(
            "l is a diagonal on the weights, diag(l_k) W_k and W₂ diag(l_ff), so it merges: the logits, up to {size:.1}, \
             move by {}, rounding.",
            small(off)
        ),
        "Ones at the start are the identity, to the last bit.".into(),
    ])?;
    Ok(())
}

/// Errors of libtorch have a stack of C++ after their first line.
fn first_line(error: tch::TchError) -> String {
    let text = error.to_string();
    let text = text.trim_start_matches("Internal torch error: ");
    text.lines().next().unwrap_or_default().to_owned()
}

fn figure(trained: &Trained) -> Result<Figure> {
    let curve = |(vector, leaf): (&str, &str)| -> Result<Series> {
        let values = trained.values(leaf)?;
        let last = (values.len() - 1).max(1) as f64;
        let points = values.iter().enumerate().map(|(i, v)| (100.0 * i as f64 / last, *v)).collect();
        Ok(Series { name: format!("{vector} at {leaf}"), points, ..Series::default() })
    };
    let mut series = TARGETS.map(curve).into_iter().collect::<Result<Vec<_>>>()?;
    series.push(Series {
        name: "the start".into(),
        points: vec![(0.0, 1.0), (100.0, 1.0)],
        ..Series::default()
    });
    let panel = Lines {
        title: format!("Learned scales after {STEPS} steps, sorted"),
        x: Axis { label: "share of the vectors' values (%)".into(), ..Axis::default() },
        y: Axis { label: "scale".into(), ..Axis::default() },
        series,
    };
    Ok(Figure {
        title: "(IA)³ inhibits and amplifies".into(),
        rows: vec![vec![Panel::Lines(panel)]],
        note: Some("Below 1 a unit is inhibited, above 1 amplified.".into()),
    })
}
