//! What the LoRA paper measured: whether LoRAs of different rank learn the same input directions.

use super::change::Change;
use super::spectrum::{Spectrum, similarity};
use super::transfer::Transfer;
use crate::Page;
use anyhow::{Context, Result};
use peft_plot::{Colours, Figure, Heat, Panel};
use tch::{Device, Kind, Tensor};

/// φ(i, j) of two matrices.
type Phi = Vec<Vec<f64>>;

fn at(phi: &Phi, i: i64, j: i64) -> Result<f64> {
    let cell = phi.get(i as usize - 1).and_then(|row| row.get(j as usize - 1));
    cell.copied().context("no such pair of directions")
}

/// Compares the trained A of two ranks, matrix by matrix, and says `φ(1, large)` of each.
pub fn subspaces(
    transfer: &Transfer,
    changes: &[Change],
    [small, large]: [i64; 2],
    name: impl Fn(i64) -> String,
    page: &mut Page,
) -> Result<Vec<f64>> {
    let (mut first, mut rows) = (Vec::new(), Vec::new());
    let mut panels = [Vec::new(), Vec::new()];
    for c in changes {
        let inp = c.size[1];
        let learned = |r: i64| Spectrum::of(&transfer.lora_a(&name(r), c.matrix)?);
        let random = |r: i64| Spectrum::of(&Tensor::f_randn([r, inp], (Kind::Double, Device::Cpu))?);
        let own = similarity(&learned(small)?, &learned(large)?)?;
        let chance = similarity(&random(small)?, &random(large)?)?;
        let full = at(&similarity(&learned(small)?, &c.own)?, small, large)?;

        let mean = |j: i64| j as f64 / inp as f64;
        let pair = |i, j| at(&own, i, j).map(|phi| format!("{phi:.2} ({:.2})", mean(j)));
        let last = format!("{full:.2} ({:.2})", mean(large));
        rows.push(vec![c.matrix.to_owned(), pair(1, 1)?, pair(1, large)?, pair(small, large)?, last]);
        page.fact(&format!("{}.similarity", c.matrix), serde_json::to_value(&own)?);
        page.fact(&format!("{}.random.similarity", c.matrix), serde_json::to_value(&chance)?);
        page.fact(&format!("{}.similarity_with_full", c.matrix), full);
        first.push(at(&own, 1, large)?);
        for (panels, (what, phi)) in panels.iter_mut().zip([("learned", own), ("random", chance)]) {
            panels.push(Panel::Heat(heat(format!("{}, {what}", c.matrix), phi, [small, large])));
        }
    }
    let columns = [
        "matrix".to_owned(),
        "φ(1, 1)".into(),
        format!("φ(1, {large})"),
        format!("φ({small}, {large})"),
        format!("with ΔW, φ({small}, {large})"),
    ];
    let title = format!(
        "Input directions that A of rank {small} and A of rank {large} share (of random ones: the mean)"
    );
    page.table(&title, columns, rows)?;
    let figure = Figure {
        title: format!(
            "φ(i, j): how much of the first i directions of rank {small} is in the first j of rank {large}"
        ),
        rows: panels.into(),
        note: Some(
            "As section 7.2, figure 3, of the LoRA paper; the two trainings share nothing that is drawn."
                .into(),
        ),
    };
    page.figure("depth_rank_subspaces", figure)?;
    Ok(first)
}

/// φ with j downwards, so that the cells of a small rank beside a large one are a column.
fn heat(title: String, phi: Phi, [small, large]: [i64; 2]) -> Heat {
    let rows = (0..large as usize).map(|j| phi.iter().filter_map(|row| row.get(j).copied()).collect());
    Heat {
        title,
        x: format!("i − 1, rank {small}"),
        y: format!("j − 1, rank {large}"),
        rows: rows.collect(),
        colours: Colours::Sequential,
        range: Some((0.0, 1.0)),
        divider: None,
    }
}
