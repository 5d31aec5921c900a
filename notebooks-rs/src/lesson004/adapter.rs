//! The bottleneck adapter, announced and absent, in the lesson's test: `y = h + U gelu(D h + b_d) + b_u` behind the layer,
//! h = W x + b, D `[16, 256]`, U `[256, 16]` and zero at the start. Houlsby et al. 2019, <https://arxiv.org/abs/1902.00751>.

use super::layer::{INP, LAYER, LORA, OUT, R, Test, lora, matrix_rank};
use super::{lines, percent, series};
use crate::layers::LayersConfig;
use crate::measure::{max_abs, norm};
use crate::{Page, Setting};
use anyhow::Result;
use peft_core::Pass;
use peft_core::estimate::{Blueprint, Setup};
use peft_core::methods::{BottleneckConfig, LoraConfig, Placement};
use peft_core::report::commas;
use peft_core::seam::MethodConfig;
use peft_core::seam::Role;
use peft_plot::{Figure, Panel};
use tch::Tensor;

const ADAPTER: &str = "adapter";

fn bottleneck(size: i64) -> BottleneckConfig {
    let placement = vec![Placement::FeedForward];
    BottleneckConfig { bottleneck_size: size, placement, ..BottleneckConfig::default() }
}

/// What a method adds to the outputs, looked at as a function of the layer's output.
struct Change {
    /// `‖y − y₀‖` over the 32 rows, and how many directions they have.
    norm: f64,
    rank: i64,
    /// How far the change half-way between two inputs is from half the sum of both, relative: 0 for a matrix.
    bend: f64,
}

impl Change {
    fn of(test: &Test, method: &str) -> Result<Self> {
        let added = |x: &Tensor| -> Result<Tensor> {
            Ok(test.through(x, &[method], Pass::eval())?.f_sub(&test.through(x, &[], Pass::eval())?)?)
        };
        let change = added(&test.x)?;
        let other = test.x.f_flip([0])?;
        let between = added(&test.x.f_add(&other)?.f_mul_scalar(0.5)?)?;
        let mean = change.f_add(&added(&other)?)?.f_mul_scalar(0.5)?;
        let bend = norm(&between.f_sub(&mean)?)? / norm(&mean)?;
        Ok(Self { norm: norm(&change)?, rank: matrix_rank(&change)?, bend })
    }
}

/// 3 Adapters.
pub fn adapter(setting: Setting, page: &mut Page) -> Result<()> {
    let mut test = Test::new(setting)?;
    test.peft.add(ADAPTER, bottleneck(R))?;
    let (base, y) = (test.forward(&[], Pass::eval())?, test.forward(&[ADAPTER], Pass::train())?);
    test.print(ADAPTER, "Adapter", &y, ("change of the output", norm(&y.f_sub(&base)?)?), page)?;
    page.fact("identity", max_abs(&y, &base)?);

    test.as_if_trained(LORA, &format!("{LAYER}.lora_B.weight"))?;
    test.as_if_trained(ADAPTER, "after.adapter_up.weight")?;
    let looks = [Change::of(&test, LORA)?, Change::of(&test, ADAPTER)?];
    let refusal = match test.peft.merged(&[ADAPTER]) {
        Err(e) => e.to_string(),
        Ok(_) => anyhow::bail!("a bottleneck was merged"),
    };
    page.fact("refusal", refusal.clone());
    compare(&test, &looks, page)?;
    counts(page)?;
    let [own, other] = [test.peft.report(&[ADAPTER])?.trainable, test.peft.report(&[LORA])?.trainable];
    let [lora, adapter] = &looks;
    page.what_to_see(&[
        "The lesson announces adapters and its document ends before them. With U = 0 this one starts as the identity."
            .into(),
        format!(
            "It reads the layer's {OUT} outputs, where LoRA reads its {INP} inputs, so the same width {R} takes {} \
             parameters and not {}.",
            commas(own),
            commas(other)
        ),
        format!(
            "Both add no more than {R} directions ({} and {}), but the adapter's change is no matrix: half-way between two \
             inputs it is {} off half the sum, LoRA's {:.0e}.",
            lora.rank,
            adapter.rank,
            percent(adapter.bend),
            lora.bend
        ),
        format!("So it cannot be folded into W and stays as work to be done: \"{refusal}\"."),
    ])?;
    Ok(())
}

fn compare(test: &Test, looks: &[Change; 2], page: &mut Page) -> Result<()> {
    let [lora, adapter] = looks;
    let base = test.peft.report(&[])?.all;
    let trained = |method: &str| -> Result<String> {
        let n = test.peft.report(&[method])?.trainable;
        Ok(format!("{} ({})", commas(n), percent(n as f64 / base as f64)))
    };
    let row = |what: &str, cells: [String; 2]| {
        let [a, b] = cells;
        vec![what.to_owned(), a, b]
    };
    let both = |f: &dyn Fn(&Change) -> String| [f(lora), f(adapter)];
    let rows = vec![
        row("trained (of the layer)", [trained(LORA)?, trained(ADAPTER)?]),
        row("change of 32 outputs, ‖y − y₀‖", both(&|c| format!("{:.4}", c.norm))),
        row("directions of that change", both(&|c| c.rank.to_string())),
        row("half-way against half the sum", both(&|c| format!("{:.1e}", c.bend))),
    ];
    for (name, look) in [("lora", lora), ("adapter", adapter)] {
        page.fact(&format!("{name}.change"), look.norm);
        page.fact(&format!("{name}.rank"), look.rank);
        page.fact(&format!("{name}.bend"), look.bend);
    }
    page.table("As if trained: B and U from N(0, 0.02²)", ["", "LoRA", "adapter"], rows)?;
    Ok(())
}

/// Trained parameters of the three methods at this layer, by rank or width: shapes alone, no tensor is made.
fn counts(page: &mut Page) -> Result<()> {
    let layers =
        LayersConfig::new(OUT, 1).linear(LAYER, INP, OUT, true).block("after", Role::FeedForward, OUT);
    let blueprint = Blueprint::of(layers)?;
    let sizes = [1, 2, 4, 8, 16, 32, 64, 128];
    type Make = fn(i64) -> Box<dyn MethodConfig>;
    let methods: [(&str, Make); 3] = [
        ("LoRA", |r| lora(r).into()),
        ("DoRA", |r| LoraConfig { use_dora: true, ..lora(r) }.into()),
        ("adapter", |r| bottleneck(r).into()),
    ];
    let mut curves = Vec::new();
    let mut rows: Vec<Vec<String>> = sizes.iter().map(|r| vec![r.to_string()]).collect();
    for (name, make) in methods {
        let count = |r: &i64| Ok(blueprint.estimate(make(*r), &Setup::default())?.report.trainable);
        let counts = sizes.iter().map(count).collect::<Result<Vec<i64>>>()?;
        rows.iter_mut().zip(&counts).for_each(|(row, n)| row.push(commas(*n)));
        let points = sizes.iter().zip(&counts).map(|(r, n)| (*r as f64, *n as f64)).collect();
        curves.push(peft_plot::Series { markers: true, ..series(name, points) });
        page.fact(&format!("counts.{name}"), counts);
    }
    page.table("Trained parameters at this layer", ["rank or width", "LoRA", "DoRA", "adapter"], rows)?;
    let whole = blueprint.parameters() as f64;
    curves.push(series("the layer itself", sizes.iter().map(|r| (*r as f64, whole)).collect()));
    let mut plot = lines("", "rank or width", "trained parameters", curves);
    (plot.x.log, plot.y.log) = (true, true);
    let title = format!("Parameters at a layer from {INP} to {OUT}");
    page.figure("depth_adapter_counts", Figure { title, rows: vec![vec![Panel::Lines(plot)]], note: None })
}
