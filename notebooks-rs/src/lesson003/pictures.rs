//! Section 4: what LoRA adds to a weight, and what a prefix does to attention.

use super::classifier::{Classifier, GATED};
use crate::numpy::RandomState;
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_plot::{Colours, Figure, Heat, Panel};

/// A matrix as rows.
pub type Matrix = Vec<Vec<f64>>;

/// Sizes of the lesson's example: W₀ is `d x k`, the update has rank r; attention over a sequence with a prefix.
const D: usize = 8;
const R: usize = 2;
const SEQ: usize = 10;
pub const PREFIX_LEN: usize = 3;

/// What cell 4 draws and computes, as its author meant it: numpy has no `np.random.softmax`.
#[derive(Debug)]
pub struct Cell4 {
    pub w0: Matrix,
    pub w_down: Matrix,
    pub w_up: Matrix,
    /// `W_down W_up`
    pub delta: Matrix,
    pub sum: Matrix,
    pub attention: Matrix,
    /// Before and after the columns of the prefix are halved.
    pub with_prefix: Matrix,
    pub halved: Matrix,
}

impl Cell4 {
    /// Only this cell draws from numpy.
    pub fn draw(seed: i64) -> Self {
        let mut random = RandomState::new(seed as u32);
        let w0 = random.normals(D, D);
        let [w_down, w_up] = [(D, R), (R, D)].map(|(m, n)| map(&random.normals(m, n), |_, v| v * 0.1));
        let delta = product(&w_down, &w_up);
        let sum = w0.iter().zip(&delta).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect();
        let [attention, with_prefix] = [SEQ, SEQ + PREFIX_LEN].map(|n| softmax(&random.normals(SEQ, n)));
        let halved = map(&with_prefix, |column, v| if column < PREFIX_LEN { v * 0.5 } else { v });
        Self { w0, w_down, w_up, delta, sum, attention, with_prefix, halved }
    }
}

fn map(m: &Matrix, f: impl Fn(usize, f64) -> f64) -> Matrix {
    m.iter().map(|row| row.iter().enumerate().map(|(column, &v)| f(column, v)).collect()).collect()
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    let columns = b.first().map_or(0, Vec::len);
    let entry = |row: &[f64], j: usize| row.iter().zip(b).map(|(x, other)| x * other[j]).sum();
    a.iter().map(|row| (0..columns).map(|j| entry(row, j)).collect()).collect()
}

/// Softmax of each row.
fn softmax(m: &Matrix) -> Matrix {
    let of = |row: &Vec<f64>| -> Vec<f64> {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exps: Vec<f64> = row.iter().map(|v| (v - max).exp()).collect();
        let sum: f64 = exps.iter().sum();
        exps.iter().map(|e| e / sum).collect()
    };
    m.iter().map(of).collect()
}

/// Smallest and largest sum of a row.
pub fn row_sums(m: &Matrix) -> (f64, f64) {
    let sums = m.iter().map(|row| row.iter().sum::<f64>());
    sums.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), s| (low.min(s), high.max(s)))
}

/// `max |m|`
fn largest(m: &Matrix) -> f64 {
    m.iter().flatten().fold(0.0, |max, v| max.max(v.abs()))
}

/// 4. Visualizing How PEFT Methods Work.
pub fn review_pictures(setting: Setting, page: &mut Page) -> Result<()> {
    let cell = Cell4::draw(setting.seed);
    page.figure("review_pictures_lora", weights(&cell))?;
    page.figure("review_pictures_attention_drawn", drawn(&cell))?;
    let classifier = Classifier::train(setting, page)?;
    let [plain, prefixed] = [classifier.attention(&[])?, classifier.attention(&[GATED])?];
    page.figure("review_pictures_attention", real(&plain, &prefixed))?;

    let sums = [&cell.attention, &cell.halved, &plain, &prefixed].map(row_sums);
    page.table(
        "Attention: what the weights of a query sum to",
        ["matrix", "size", "smallest sum", "largest sum"],
        [
            "drawn, without a prefix",
            "drawn, prefix halved (lesson)",
            "real, without a prefix",
            "real, with a prefix",
        ]
        .into_iter()
        .zip([&cell.attention, &cell.halved, &plain, &prefixed])
        .zip(sums)
        .map(|((name, m), (low, high))| {
            let size = format!("{} x {}", m.len(), m.first().map_or(0, Vec::len));
            vec![name.into(), size, format!("{low:.4}"), format!("{high:.4}")]
        })
        .collect(),
    )?;
    page.fact("drawn.row_sums", vec![sums[1].0, sums[1].1]);
    page.fact("real.row_sums", vec![sums[3].0, sums[3].1]);
    let original = (PREFIX_LEN as f64 - 0.5 + (SEQ + PREFIX_LEN) as f64 - 0.5) / 2.0;
    page.mistakes(&[
        Mistake::new(
            "Cell 4 stops: np.random.softmax does not exist, random numbers have no softmax",
            "AttributeError after the first figure",
            "exp(z - max z) / sum of the row's: the figures here",
        ),
        Mistake::new(
            "Halving softmax weights (\"gating effect\") takes attention away without giving it to anybody",
            format!("rows sum to {:.2} ... {:.2}", sums[1].0, sums[1].1),
            format!(
                "cell 3's own gate is on the scores, before the softmax: rows sum to {:.4} ... {:.4}",
                sums[3].0, sums[3].1
            ),
        ),
        Mistake::new(
            "The word \"Original\" is not over the original tokens' middle",
            format!("at x = {}", PREFIX_LEN as f64 + (SEQ - PREFIX_LEN) as f64 / 2.0),
            format!("at x = {original}"),
        ),
    ])?;
    let share = 100.0 * prefixed.iter().map(|row| row[..PREFIX_LEN].iter().sum::<f64>()).sum::<f64>()
        / prefixed.len() as f64;
    page.fact("prefix.share", share);
    page.fact("classifier.right", classifier.right.to_vec());
    page.fact("classifier.losses", classifier.losses.clone());
    page.what_to_see(&[
        format!(
            "The update has rank {R}: every row of it is a mixture of the same {R} rows. Entries reach \
             {:.3}, those of W0 {:.2}, so W0 + BA looks like W0.",
            largest(&cell.delta),
            largest(&cell.w0)
        ),
        format!(
            "The second attention figure is a forward pass of a trained classifier (lesson 000's, with its seed set to \
             {}): head 0 of the first layer on the first training row, {PREFIX_LEN} prefix tokens.",
            setting.seed
        ),
        format!(
            "There the prefix has {share:.1} % of a query's attention on average; what it gets, the words lose."
        ),
        classifier.learned(),
    ])?;
    Ok(())
}

/// Heat maps of W₀, BA and W₀ + BA, the lesson's second figure; W₀ and the sum share one scale.
fn weights(cell: &Cell4) -> Figure {
    let bound = largest(&cell.w0).max(largest(&cell.sum));
    let heat = |title: &str, rows: &Matrix, bound: f64| {
        Panel::Heat(Heat {
            title: title.into(),
            x: "Input dimension".into(),
            y: "Output dimension".into(),
            rows: rows.clone(),
            colours: Colours::Diverging,
            range: Some((-bound, bound)),
            divider: None,
        })
    };
    Figure {
        title: format!("A weight and its update of rank r = {R}"),
        rows: vec![vec![
            heat("Original Weight W0 (Frozen)", &cell.w0, bound),
            heat("LoRA Update BA (Trainable)", &cell.delta, largest(&cell.delta)),
            heat("Final Weight W0 + BA", &cell.sum, bound),
        ]],
        note: Some("The update's scale is its own: its entries are far smaller than those of W0.".into()),
    }
}

/// A pair of attention maps, without and with a prefix, on one scale.
fn pair(title: &str, plain: &Matrix, prefixed: &Matrix, note: String) -> Figure {
    let bound = largest(plain).max(largest(prefixed));
    let heat = |title: &str, rows: &Matrix, divider| {
        Panel::Heat(Heat {
            title: title.into(),
            x: "Key/Value positions".into(),
            y: "Query positions".into(),
            rows: rows.clone(),
            colours: Colours::Sequential,
            range: Some((0.0, bound)),
            divider,
        })
    };
    let divider = Some((PREFIX_LEN, "Prefix".into(), "Original".into()));
    Figure {
        title: title.into(),
        rows: vec![vec![
            heat("Standard Attention", plain, None),
            heat("Prefix-tuning Attention", prefixed, divider),
        ]],
        note: Some(note),
    }
}

/// The lesson's third figure, of drawn numbers.
fn drawn(cell: &Cell4) -> Figure {
    let (low, high) = row_sums(&cell.halved);
    let note = format!(
        "As the lesson meant it: drawn numbers, prefix columns halved, so that rows on the right sum to {low:.2} ... {high:.2}."
    );
    pair("Attention, drawn at random", &cell.attention, &cell.halved, note)
}

/// The same of a forward pass.
fn real(plain: &Matrix, prefixed: &Matrix) -> Figure {
    let note = "Weights of head 0, first layer, first training row. Every row sums to one.";
    pair("Attention of a trained classifier", plain, prefixed, note.into())
}
