//! What NF4 costs and saves: errors of the weights, and bytes.

use crate::Page;
use crate::measure::row;
use anyhow::Result;
use peft_core::Peft;
use peft_core::estimate::{Blueprint, Storage};
use peft_core::quant::Nf4Config;
use peft_core::report::commas;
use tch::{Kind, Tensor};

/// Of the bars and of the table.
pub const FORMATS: [&str; 4] = ["f32", "bf16", "NF4", "NF4, double"];

/// Values a block.
const BLOCK: i64 = 64;

fn nf4(double_quant: bool) -> Nf4Config {
    Nf4Config { double_quant, ..Nf4Config::default() }
}

/// 4 bits by hand, evenly spaced: in blocks of 64, `round(7 w / max|w|)` in units of a seventh of the maximum.
fn evenly(w: &Tensor) -> Result<Tensor> {
    let blocks = w.f_view([-1, BLOCK])?;
    let scale = blocks.f_abs()?.f_amax([1i64].as_slice(), true)?.f_div_scalar(7.0)?;
    Ok(blocks.f_div(&scale)?.f_round()?.f_mul(&scale)?.f_view_as(w)?)
}

/// `√(Σ (Ŵ − W)² / Σ W²)` and `max |Ŵ − W|` over all linear weights of the blocks, for each way to round them.
pub fn errors(base: &Peft, page: &mut Page) -> Result<()> {
    let single = base.quantised(&nf4(false))?.base().nf4s();
    let double = base.quantised(&nf4(true))?.base().nf4s();
    let dense = base.base().tensors();
    let ways = ["NF4", "NF4, double quantisation", "evenly spaced, by hand"];
    let mut sums = [[0.0f64; 2]; 3];
    let mut squares = 0.0;
    for (name, w) in dense.iter().filter(|(name, _)| single.contains_key(*name)) {
        let rounded = [single[name].dequantise()?, double[name].dequantise()?, evenly(w)?];
        squares += w.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        for (sum, rounded) in sums.iter_mut().zip(rounded) {
            let off = rounded.f_sub(w)?;
            sum[0] += off.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
            sum[1] = sum[1].max(off.f_abs()?.f_max()?.f_double_value(&[])?);
        }
    }
    let found = sums.map(|[sum, most]| [(sum / squares).sqrt(), most]);
    let rows = ways
        .iter()
        .zip(found)
        .map(|(way, [rms, most])| row([way, &format!("{:.2}", 100.0 * rms), &format!("{most:.4}")]));
    page.table(
        &format!("Rounding {} weight matrices to 4 bits, in blocks of {BLOCK}", single.len()),
        ["way", "rms error, % of the weights", "largest error"],
        rows.collect(),
    )?;
    page.fact("errors", found.concat());
    Ok(())
}

/// Bytes of all weights, of the small model as it is and of a large one by its configuration.
pub fn bytes(base: &Peft, large: &Blueprint, page: &mut Page) -> Result<[i64; 4]> {
    let storages = [
        Storage::Dense(Kind::Float),
        Storage::Dense(Kind::BFloat16),
        Storage::Nf4 { config: nf4(false), rest: Kind::BFloat16 },
        Storage::Nf4 { config: nf4(true), rest: Kind::BFloat16 },
    ];
    let packed = |double: bool| -> Result<i64> {
        let bf16 = base.to_kind(Kind::BFloat16)?.quantised(&nf4(double))?;
        let dense: usize = bf16.base().tensors().values().map(Tensor::numel).sum();
        let packed: usize = bf16.base().nf4s().values().map(|w| w.bytes()).sum();
        Ok((2 * dense + packed) as i64)
    };
    let all = base.report(&[])?.all;
    let here = [4 * all, 2 * all, packed(false)?, packed(true)?];
    let mut there = [0; 4];
    for (bytes, storage) in there.iter_mut().zip(&storages) {
        *bytes = large.weights(storage)?;
    }
    let rows = FORMATS.iter().zip(here).zip(there).map(|((format, here), there)| {
        let bits = 8.0 * there as f64 / large.parameters() as f64;
        row([format, &commas(here), &format!("{:.2}", there as f64 / 1e9), &format!("{bits:.2}")])
    });
    page.table(
        "Weights of the base",
        ["format", "the small Llama, bytes", "LLaMA-7B, GB", "bits a parameter there"],
        rows.collect(),
    )?;
    page.fact("bytes", here.to_vec());
    page.fact("bytes.llama7b", there.to_vec());
    Ok(there)
}
