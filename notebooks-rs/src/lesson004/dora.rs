//! DoRA, announced and absent, in the lesson's test: `W' = m ⊙ (W + (α/r) B A) / ‖W + (α/r) B A‖` by row, with a trained
//! magnitude m that starts as the norms of W's rows. Liu et al. 2024, <https://arxiv.org/abs/2402.09353>.

use super::layer::{LAYER, LORA, OUT, R, Test, lora, matrix_rank};
use super::spectrum::Spectrum;
use super::{lines, percent, series};
use crate::measure::{max_abs, norm};
use crate::{Page, Setting};
use anyhow::Result;
use peft_core::Pass;
use peft_core::methods::LoraConfig;
use peft_core::report::commas;
use peft_plot::{Figure, Panel, Series};
use tch::{Kind, Tensor};

const DORA: &str = "dora";

/// What a new weight changes in the rows of W.
struct Rows {
    title: String,
    /// `‖W' − W‖`, and how many directions it has.
    delta: f64,
    rank: i64,
    /// Mean of `|‖w'‖/‖w‖ − 1|`, and mean angle between w' and w in degrees.
    length: f64,
    angle: f64,
    values: Vec<f64>,
}

impl Rows {
    /// In f64, where a rank can be told from rounding.
    fn of(title: impl Into<String>, old: &Tensor, new: &Tensor) -> Result<Self> {
        let (old, new) = (old.f_to_kind(Kind::Double)?, new.f_to_kind(Kind::Double)?);
        let [was, is] = [row_norms(&old)?, row_norms(&new)?];
        let mean = |t: Tensor| t.f_mean(Kind::Double)?.f_double_value(&[]);
        let delta = new.f_sub(&old)?;
        let cosine = old.f_mul(&new)?.f_sum_dim_intlist(1, false, Kind::Double)?.f_div(&was.f_mul(&is)?)?;
        Ok(Self {
            title: title.into(),
            delta: norm(&delta)?,
            rank: matrix_rank(&delta)?,
            length: mean(is.f_div(&was)?.f_sub_scalar(1.0)?.f_abs()?)?,
            angle: mean(cosine.f_clamp(-1.0, 1.0)?.f_acos()?)?.to_degrees(),
            values: Spectrum::of(&delta)?.values,
        })
    }
}

/// `‖wᵢ‖`, `[out]`.
fn row_norms(w: &Tensor) -> Result<Tensor> {
    Ok(w.f_norm_scalaropt_dim(2, 1, false)?)
}

/// `m ⊙ V/‖V‖` by row, V = `W + ΔW`, in f64.
fn directed(w: &Tensor, delta: &Tensor, m: &Tensor) -> Result<Tensor> {
    let v = w.f_to_kind(Kind::Double)?.f_add(delta)?;
    Ok(v.f_mul(&m.f_to_kind(Kind::Double)?.f_div(&row_norms(&v)?)?.f_unsqueeze(1)?)?)
}

/// 2 DoRA.
pub fn dora(setting: Setting, page: &mut Page) -> Result<()> {
    let mut test = Test::new(setting)?;
    let config = LoraConfig { use_dora: true, ..lora(R) };
    test.peft.add(DORA, config.clone())?;
    let (w, m) = (test.weight()?, test.at(DORA, "lora_magnitude_vector")?.f_detach_copy()?);
    let y = test.forward(&[DORA], Pass::train())?;
    let change = |test: &Test| -> Result<Tensor> {
        let merged = test.peft.view(&[DORA])?.linear(LAYER)?.merged()?;
        Ok(merged.weight.f_detach()?.f_sub(&w)?)
    };
    test.print(DORA, "DoRA", &y, ("ΔW", norm(&change(&test)?)?), page)?;
    page.fact("identity", max_abs(&y, &test.forward(&[], Pass::eval())?)?);
    page.fact("magnitude_error", max_abs(&m, &row_norms(&w)?)?);

    test.as_if_trained(DORA, &format!("{LAYER}.lora_B.weight"))?;
    let delta = test.delta(DORA, &config)?.f_to_kind(Kind::Double)?;
    let w64 = w.f_to_kind(Kind::Double)?;
    let longer = m.f_mul_scalar(1.1)?;
    let looks = [
        Rows::of("LoRA: W + s B A", &w64, &w64.f_add(&delta)?)?,
        Rows::of("DoRA: the same A and B, m as it starts", &w64, &directed(&w, &delta, &m)?)?,
        Rows::of("DoRA: B = 0, m a tenth longer", &w64, &directed(&w, &delta.f_zeros_like()?, &longer)?)?,
    ];
    let library = change(&test)?;
    page.fact("library_error", max_abs(&library, &directed(&w, &delta, &m)?.f_sub(&w64)?)?);
    page.fact("library_scale", library.f_abs()?.f_max()?.f_double_value(&[])?);
    let y = test.forward(&[DORA], Pass::eval())?;
    let merged = test.peft.merged(&[DORA])?;
    let y_merged = merged.view(&[])?.linear(LAYER)?.forward(&test.x, Pass::eval())?;
    page.fact("merge_error", max_abs(&y, &y_merged)?);
    compare(&looks, page)?;
    seen(&test, &looks, page)
}

fn compare(looks: &[Rows], page: &mut Page) -> Result<()> {
    let row = |l: &Rows| {
        vec![
            l.title.clone(),
            format!("{:.4}", l.delta),
            l.rank.to_string(),
            percent(l.length),
            format!("{:.2}°", l.angle),
        ]
    };
    let columns = ["weight", "‖ΔW‖", "rank of ΔW", "rows longer or shorter", "rows turned"];
    page.table("What becomes of W's rows (B from N(0, 0.02²))", columns, looks.iter().map(row).collect())?;
    for (key, value) in [("delta", 0), ("rank", 1), ("length", 2), ("angle", 3)] {
        let of = |l: &Rows| [l.delta, l.rank as f64, l.length, l.angle][value];
        page.fact(key, looks.iter().map(of).collect::<Vec<_>>());
    }
    page.fact("singular_values", looks.iter().take(2).map(|l| l.values.clone()).collect::<Vec<_>>());
    let numbered = |l: &Rows| {
        let above = l.values.iter().take(l.rank as usize);
        let points = (1..).zip(above).map(|(i, s)| (f64::from(i), *s)).collect();
        Series { markers: l.rank == R, ..series(&l.title, points) }
    };
    let mut plot = lines("", "i", "σᵢ", looks.iter().take(2).map(numbered).collect());
    (plot.x.log, plot.y.log) = (true, true);
    let figure = Figure {
        title: "Singular values of ΔW that are not zero".into(),
        rows: vec![vec![Panel::Lines(plot)]],
        note: Some(format!("There are {OUT} in all; both have the same A and B of rank {R}.")),
    };
    page.figure("depth_dora_singular_values", figure)
}

fn seen(test: &Test, looks: &[Rows; 3], page: &mut Page) -> Result<()> {
    let [lora, dora, longer] = looks;
    let (own, other) = (test.peft.report(&[DORA])?.trainable, test.peft.report(&[LORA])?.trainable);
    page.what_to_see(&[
        format!(
            "The lesson announces DoRA and its document ends before it. It trains {} more parameters than LoRA, one \
             magnitude a row.",
            commas(own - other)
        ),
        format!(
            "With m as the norms of W's rows it starts as the identity. The same A and B then turn the rows by {:.2}° in \
             both, and leave their lengths to m: {} off in LoRA, {} in DoRA.",
            dora.angle,
            percent(lora.length),
            percent(dora.length)
        ),
        format!("m alone changes lengths and turns nothing: {} and {:.2}°.", percent(longer.length), longer.angle),
        format!(
            "ΔW of DoRA has rank {}, not r = {R}: scaling rows is not a change of low rank, though it takes few parameters.",
            dora.rank
        ),
    ])?;
    Ok(())
}
