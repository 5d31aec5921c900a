//! The six exercises.

use super::*;

#[test]
fn exercises_have_right_gradients() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_exercises")?;
    ensure!(page.tables().len() == 13, "{:?}", titles(&page));
    let x = "(2, 5, 8)";
    let parts = [("up.A", "(2, 8)"), ("up.B", "(32, 2)"), ("down.A", "(2, 32)"), ("down.B", "(8, 2)")];
    right(&page, "FeedForward", "LoraConfig on feed-forward layers", x, &parts, x)?;
    let parts = [("A", "(2, 6)"), ("B", "(5, 2)")];
    right(&page, "DroppedLora", "LoraConfig with dropout", "(2, 3, 5)", &parts, "(2, 3, 6)")?;
    let hand = [("W_down", "(8, 3)"), ("W_up", "(3, 8)")];
    right(&page, "ParallelAdapter", "", "", &hand, x)?;
    right(&page, "Adapter in sequence", "", "", &hand, x)?;
    let rows = [("y", x), ("dx", x), ("dW_down", "(3, 8)"), ("dW_up", "(8, 3)")];
    errors(&page, "BottleneckConfig in parallel", &rows, &[SINGLE])?;
    let x = "(4, 5, 8)";
    let parts = [("E", "(3, 8)"), ("W1", "(6, 8)"), ("b1", "(6,)"), ("W2", "(32, 6)"), ("b2", "(32,)")];
    right(&page, "PrefixMlp", "PrefixTuningConfig with a projection", x, &parts, x)?;
    let x = "(2, 3, 8)";
    let [a, b] = ["(2, 8)", "(8, 2)"];
    let parts = [("prompt", "(4, 8)"), ("lora.q.A", a), ("lora.q.B", b), ("lora.v.A", a), ("lora.v.B", b)];
    right(&page, "Combined", "PromptTuningConfig and LoraConfig", x, &parts, x)?;
    let parts = [("A", "(2, 32)"), ("B", "(24, 2)")];
    right(&page, "QuantisedLora", "LoraConfig over Nf4", "(2, 3, 24)", &parts, "(2, 3, 32)")
}

#[test]
fn exercises_are_solved() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_exercises")?;
    let n = |name: &str| number(&page, name);
    let [mean, errors] = [n("dropout.mean")?, n("dropout.errors")?];
    let zeros = n("dropout.zeros")? as i64;
    ensure!((1..36).contains(&zeros) && n("dropout.off")? == 0.0);
    // 30 numbers, each within 4 standard errors.
    ensure!(errors < 4.0 && mean < 0.02, "{mean} {errors}");
    let largest = floats(&golden("seed002")?["lora"]["y"])?.into_iter().map(f64::abs).fold(0.0, f64::max);
    let prefix = fact(&page, "prefix_mlp.losses")?;
    ensure!(prefix.len() == 101 && prefix[100] < prefix[0] / 20.0, "{prefix:?}");
    let mut lines = vec![
        "1. LoRA on feed-forward layers".into(),
        format!("LoRA parameters: {} beside {} frozen ones", 2 * 2 * (8 + 32), 2 * 8 * 32 + 8 + 32),
        "Change at the start: 0".into(),
        String::new(),
        "2. Dropout on the LoRA path".into(),
        format!("Mean of 20000 masks: {mean:.4} from the output without dropout, of {largest:.4}"),
        format!("That is {errors:.2} standard errors at most, of 30 numbers"),
        format!("One mask (2, 3, 6): {zeros} of 36 are zero, for p = 0.25"),
        String::new(),
        "3. Parallel adapter".into(),
        format!("Adapter parameters: {} in parallel and in sequence", 2 * 8 * 3),
        format!("Outputs of the two differ by {:.0} %", 100.0 * n("parallel.apart")?),
        String::new(),
        "4. Prefix from an embedding, by an MLP".into(),
        format!("Loss over 100 steps: {:.4} to {:.4}", prefix[0], prefix[100]),
        format!(
            "Trained: {} parameters, kept: 96 of prefix (2, 2, 3, 2, 4)",
            3 * 8 + 6 * 8 + 6 + 32 * 6 + 32
        ),
        "Output without the MLP: differs by 0".into(),
        String::new(),
        "5. LoRA and prompt tuning together, on a transformer layer".into(),
    ];
    let mut ends = Vec::new();
    for (name, count) in
        [("prompt alone", 4 * 8), ("LoRA alone", 2 * 2 * 16), ("LoRA and prompt", 4 * 8 + 64)]
    {
        let losses = fact(&page, &format!("combination.{name}"))?;
        ensure!(losses.len() == 301);
        let (first, last) = (losses[0], losses[300]);
        lines.push(format!("{name}: {count} parameters, loss {first:.4} to {last:.6} in 300 steps"));
        ends.push(last);
    }
    ensure!(ends[2] < 0.05 * ends[0].min(ends[1]), "{ends:?}");
    ensure!(n("combination.better")? == ends[0].min(ends[1]) / ends[2]);
    let bits = 4.0 + 32.0 / 64.0;
    lines.extend([
        String::new(),
        "6. LoRA over a weight in 4 bits".into(),
        "Code book from normal quantiles: differs from the library's by 0".into(),
        "Weight: 0 of 768 values differ from the library's".into(),
        format!("Bits a value: {bits}, error {:.2} % of the weight", 100.0 * n("four_bits.error")?),
        format!("Trained: {} of A and B alone", 2 * (32 + 24)),
    ]);
    same_lines(page.lines(), &lines)?;
    let trained = strings(&page.facts()["four_bits.trained"])?;
    ensure!(trained.len() == 2 && trained.iter().all(|name| name.contains(".lora_")), "{trained:?}");
    ensure!((0.05..0.15).contains(&n("four_bits.error")?) && n("four_bits.dx")? < 0.15);
    ensure!(fact(&page, "four_bits.book")?.len() == 16);

    for (name, expected) in [
        ("feed_forward.change", 0.0),
        ("prefix_mlp.apart", 0.0),
        ("four_bits.book_difference", 0.0),
        ("four_bits.different", 0.0),
        ("four_bits.bits", bits),
    ] {
        ensure!(n(name)? == expected, "{name}: {}", n(name)?);
    }
    let curves = ["prompt alone", "LoRA alone", "LoRA and prompt"];
    let curves = curves.map(|name| fact(&page, &format!("combination.{name}")));
    let curves = curves.into_iter().collect::<Result<Vec<_>>>()?;
    same_curves(&page, "scratch_exercises_combination", 0, &curves)?;
    let [picture] = page.pictures() else { anyhow::bail!("{} pictures", page.pictures().len()) };
    let Panel::Lines(curves) = &picture.figure.rows[0][0] else { anyhow::bail!("no lines") };
    let last: Vec<f64> = curves.series.iter().filter_map(|s| s.points.last()).map(|p| p.1).collect();
    ensure!(last == ends && page.mistaken().is_empty());

    let words = [
        format!("have {} weights, an attention of the same width {};", 2 * 8 * 32, 4 * 8 * 8),
        "after training the difference is 0.".into(),
        "without passing the block".into(),
        format!("differ by 0, and {} of {} parameters", 302 - 96, 302),
        format!("After 300 steps each alone has a loss at least {:.0} times", n("combination.better")?),
        format!("{:.1} % from the dense one's", 100.0 * n("four_bits.dx")?),
    ];
    ensure!(page.to_see().len() == words.len());
    for (number, (line, words)) in (1..).zip(page.to_see().iter().zip(words)) {
        ensure!(line.starts_with(&format!("{number}: ")) && line.contains(&words), "{line}\nlacks {words}");
    }
    Ok(())
}
