//! 3.1 and 3.2: bottleneck adapter and (IA)³.

use super::*;
use notebooks_rs::lesson001::{adapter, ia3};

#[test]
fn adapter_has_the_recorded_bits() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.3.1.adapter"];
    let start = adapter::Start::new(setting())?;
    let own = start.peft.params("adapter")?.tensors();
    let at = |leaf: &str| &own[&format!("{PREFIX}block.adapter_{leaf}")];
    same_bits(
        golden,
        &[
            ("init.down_proj.weight", at("down.weight")),
            ("init.down_proj.bias", at("down.bias")),
            ("init.up_proj.weight", at("up.weight")),
            ("init.up_proj.bias", at("up.bias")),
            ("x", &start.x),
            ("y", &start.y),
        ],
    )
}

#[test]
fn adapter_says_what_it_computes() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.3.1.adapter"];
    let page = run("unified_adapter")?;
    drawn(&page, "unified_adapter")?;
    ensure!(golden["total"] == 1096 && golden["trainable"] == number(&page, "parameters")? as i64);
    close("deviation", number(&page, "deviation")?, value(golden, "max_abs_deviation_from_identity")?)?;
    same_lines(
        page.lines(),
        &[
            "Adapter parameters: 1,096",
            "down_proj shape: torch.Size([8, 64])",
            "up_proj shape: torch.Size([64, 8])",
            "Input shape: torch.Size([4, 10, 64])",
            "Output shape: torch.Size([4, 10, 64])",
            "Largest change at init: 4.05e-5",
        ],
    )?;
    mistaken(&page, "4.05e-5", "moves by 0,")?;
    let (starts, grads) = (numbers(&page, "starts")?, numbers(&page, "gradients")?);
    // Ten times the deviation of both weights is a hundred times that of the product, up to gelu's curvature.
    ensure!((starts[2] / starts[1] - 100.0).abs() < 1.0 && (starts[1] / starts[0] - 100.0).abs() < 10.0);
    let zero = numbers(&page, "zero")?;
    ensure!(zero[0] == 0.0 && zero[1] == 0.0 && zero[2] > 0.0, "{zero:?}");
    let names = ["0.0001", "0.001", "0.01", "0.02", "0.1"].map(|std| format!("D, U ~ N(0, {std}²)"));
    let mut at_start: Vec<String> = names
        .iter()
        .zip(&starts)
        .zip(grads.chunks(2))
        .map(|((name, off), g)| format!("{name} | {} | {} | {}", small(*off), small(g[0]), small(g[1])))
        .collect();
    at_start.push(format!("D ~ N(0, 0.02²), U = 0 | 0 | 0 | {}", small(zero[2])));
    let moves = numbers(&page, "placed")?;
    ensure!(moves.chunks(2).all(|m| m[0] > 0.0 && m[1] == 0.0), "{moves:?}");
    // One adapter of width 8 at width 32: 2 · 8 · 32 + 8 + 32 parameters.
    let one = 2 * 8 * 32 + 8 + 32;
    let placed = [
        ("the diagram: after attention, after feed-forward", "layers.*.attn, layers.*.ff", 4),
        ("after feed-forward alone", "layers.*.ff", 2),
        ("after the layer, its residual and norm", "layers.*", 2),
        ("beside feed-forward", "layers.*.ff", 2),
    ];
    let placed = placed.iter().zip(moves.chunks(2)).map(|((name, blocks, n), m)| {
        format!("{name} | {blocks} | {n} | {} | {} | 0", commas(n * one), small(m[0]))
    });
    same_tables(
        &page,
        &[
            ("How an adapter starts", at_start),
            (
                "Adapters of width 8 in a transformer of two layers, and how far the logits move at the start",
                placed.collect(),
            ),
        ],
    )?;
    ensure!(number(&page, "llama7b")? as i64 == 64 * (2 * 4096 * 64 + 64 + 4096));
    Ok(())
}

#[test]
fn ia3_starts_as_recorded() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.3.2.ia3"];
    let class = ia3::class(Device::Cpu)?;
    let own = class.params("ia3")?.tensors();
    ensure!(own.len() == 3 && golden["total"] == class.report(&["ia3"])?.trainable);
    for (name, site) in [("l_k", "key"), ("l_v", "value"), ("l_ff", "ffn")] {
        // Ones have the same bits on every processor.
        let l = &own[&format!("{PREFIX}{site}.ia3_l")];
        ensure!(golden[format!("init.{name}")] == sha(l)?, "{name}");
    }
    Ok(())
}

#[test]
fn ia3_says_what_it_computes() -> Result<()> {
    let _alone = alone();
    let tables = &golden("seed001")?["tables"]["llama7b_recomputed"];
    let page = run("unified_ia3")?;
    drawn(&page, "unified_ia3")?;
    let losses = numbers(&page, "losses")?;
    ensure!(losses[1] < losses[0] - 0.5, "{losses:?}");
    let loss = format!("Loss: {:.4} before, {:.4} after 80 steps", losses[0], losses[1]);
    same_lines(
        page.lines(),
        &[
            "IA3 parameters: 192",
            "l_k shape: torch.Size([64])",
            "l_v shape: torch.Size([64])",
            "l_ff shape: torch.Size([64])",
            "Identity at init: true",
            &loss,
        ],
    )?;
    ensure!(tables["IA3 class of 3.2 (3*dim per layer)"] == number(&page, "llama7b.class")? as i64);
    ensure!(tables["IA3 with l_ff of size d_ff"] == number(&page, "llama7b")? as i64);
    let merged = numbers(&page, "merged")?;
    ensure!(merged[0] < 1e-5 * merged[1], "merging moves the logits: {merged:?}");
    mistaken(&page, "tensor a (176) must match the size of tensor b (64)", "32 keys, 32 values, 176 hidden")?;
    mistaken(&page, "393,216", "614,400 = 0.0091 %")?;
    mistaken(&page, "64 values", "176 values")?;
    let Panel::Lines(scales) = &page.pictures()[0].figure.rows[0][0] else { anyhow::bail!("no curves") };
    let row = |vector: &str, at: &str, width: i64, leaf: &str| -> Result<String> {
        let ends = numbers(&page, leaf)?;
        let curve = scales.series.iter().find(|s| s.name.starts_with(vector)).context("a curve")?;
        let ys: Vec<f64> = curve.points.iter().map(|p| p.1).collect();
        ensure!(ys.len() as i64 == 2 * width && ys.is_sorted(), "{leaf}: {} values", ys.len());
        ensure!(ys[0] == ends[0] && ys.last() == ends.last() && curve.points[0].0 == 0.0, "{leaf}: {ends:?}");
        ensure!(ends[0] < 1.0 && ends[1] > 1.0, "{leaf} neither inhibits nor amplifies: {ends:?}");
        Ok(format!(
            "{vector} | model.layers.*.{at} | {width} | {} | {:.3} | {:.3}",
            2 * width,
            ends[0],
            ends[1]
        ))
    };
    same_tables(
        &page,
        &[(
            "(IA)³ in a Llama of 2 layers, 80 steps",
            vec![
                row("l_k", "self_attn.k_proj", 32, "k_proj")?,
                row("l_v", "self_attn.v_proj", 32, "v_proj")?,
                row("l_ff", "mlp.down_proj", 176, "down_proj")?,
                "all |  |  | 480 |  | ".into(),
                "the lesson's class |  | 64 | 384 |  | ".into(),
            ],
        )],
    )
}
