//! 1.1: the two boxes.

use super::*;

#[test]
fn memory_of_the_two_boxes() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["tables"];
    let memory = &golden["memory_7B"];
    let page = run("unified_memory")?;
    let gb = |name: &str| count(memory, name).map(|n| format!("{n}GB"));
    let lora = count(&golden["llama7b_recomputed"], "LoRA r=8 q,v")?;
    let lines = [
        "Full fine-tuning of 7B parameters".into(),
        "- Parameters: 7B".into(),
        format!("- FP16 memory: {}", gb("fp16_weights_GB")?),
        format!("- Optimizer states: {}", gb("adam_two_fp32_moments_GB")?),
        format!("- Gradients: {}", gb("fp16_gradients_GB")?),
        format!("- Total: {}", gb("total_GB")?),
        "LoRA (rank=8) over it".into(),
        format!("- Trainable parameters: {} (0.06%)", commas(lora)),
        format!("- Additional memory: {:.0}MB", 16.0 * lora as f64 / 1e6),
        format!("- Storage: 13.48GB original + {:.1}MB adapter", 4.0 * lora as f64 / 1e6),
    ];
    same_lines(page.lines(), &lines)?;

    let all = 6_738_415_616.0;
    // NF4: half a byte a weight, one a block of 64, four bytes for 256 blocks; embeddings, norms and head in 16 bits.
    let linear = 32.0 * (4.0 * 4096.0 * 4096.0 + 3.0 * 4096.0 * 11008.0);
    let packed = linear * (0.5 + 1.0 / 64.0 + 4.0 / (64.0 * 256.0)) + 2.0 * (all - linear);
    let row = |name: &str, weights: f64, adapter: f64| {
        let parts = [weights, 4.0 * adapter, 4.0 * adapter, 8.0 * adapter, weights + 16.0 * adapter];
        std::iter::once(name.to_owned()).chain(parts.map(|b| format!("{:.2}", b / 1e9))).collect::<Vec<_>>()
    };
    let full = |name: &str, n: f64| {
        let parts = [2.0 * n, 0.0, 2.0 * n, 8.0 * n, 12.0 * n];
        std::iter::once(name.to_owned()).chain(parts.map(|b| format!("{:.2}", b / 1e9))).collect::<Vec<_>>()
    };
    let r64 = count(&golden["llama7b_recomputed"], "LoRA r=64 all seven (setup_qlora targets)")? as f64;
    let expected = [
        full("full, 7B", 7e9),
        full("full, LLaMA-7B", all),
        row("LoRA r=8 at q, v", 2.0 * all, lora as f64),
        row("QLoRA r=8 at q, v", packed, lora as f64),
        row("QLoRA r=64 at all linear layers", packed, r64),
    ];
    same_rows(rows(&page, 0)?, &expected)?;

    // The small model: a vocabulary of the text's, width 64, 2 layers, feed-forward 128, tied.
    let [expected, held, peak] =
        ["small.expected", "small.held", "small.peak"].map(|name| number(&page, name));
    let (expected, held, peak) = (expected?, held?, peak?);
    ensure!(held >= expected && held < 1.005 * expected, "{held} bytes for {expected}");
    ensure!(peak > 2.0 * held, "{peak} at the peak, {held} otherwise");
    let adapter = 2.0 * 2.0 * 8.0 * (64.0 + 64.0);
    let base = expected - 16.0 * adapter;
    let layers = 2.0 * (4.0 * 64.0 * 64.0 + 3.0 * 64.0 * 128.0 + 2.0 * 64.0) + 64.0;
    let words = (base / 4.0 - layers) / 64.0;
    ensure!(words.fract() == 0.0 && words > 100.0, "{words} words");
    let parts = [base, 4.0 * adapter, 4.0 * adapter, 8.0 * adapter, expected, held, peak];
    let cells: Vec<String> =
        std::iter::once("LoRA r=8, f32".into()).chain(parts.map(|b| commas(b as i64))).collect();
    same_rows(rows(&page, 1)?, &[cells])?;
    let Panel::Bars(bars) = &figure(&page, "unified_memory_parts")?.rows[0][0] else {
        anyhow::bail!("no bars")
    };
    ensure!(bars.groups.len() == 4 && bars.categories.len() == 5 && bars.groups[3].values[0] == 56.0);
    says(&page, &["0.0622%", "0.1245%", "112 GB", "13.48 GB stay"])
}
