//! 1.2: every entry of the classification.

use super::*;

#[test]
fn every_entry_of_the_classification_is_run() -> Result<()> {
    let _alone = alone();
    let page = run("unified_taxonomy")?;
    drawn(&page, "unified_taxonomy")?;
    // Width 32, feed-forward 128, two layers, rank 4, five virtual tokens.
    let (d, f, layers, r, n) = (32, 128, 2, 4, 5);
    let (add, low, select) = ("additive", "reparameterisation", "selective");
    let biases = layers * (3 * d + d + f + d + 2 * d) + 4;
    let entries = [
        (add, "Adapters", 2 * layers * (2 * d * r + r + d), "no | two products a block"),
        (add, "Prefix Tuning", layers * 2 * n * d, "no | keys and values a layer"),
        (add, "Prompt Tuning", n * d, "no | tokens before the words"),
        (add, "IA³", layers * (3 * d + f), "yes | nothing"),
        (low, "LoRA", layers * r * (d + f), "yes | nothing"),
        (low, "DoRA", layers * (r * (d + f) + f), "yes | nothing"),
        (low, "AdaLoRA", layers * 2 * r * (d + 1 + f), "yes | nothing"),
        (low, "QLoRA", layers * r * (d + f), "yes | dense weights"),
        (select, "BitFit", biases, "yes | nothing"),
        (select, "Diff Pruning", 2 * layers * (d * f + f), "yes | nothing"),
        (select, "Partial FT", 3 * d * d + d * d + 2 * d * f + f + 9 * d, "yes | nothing"),
    ];
    let mut lines = vec![format!("{:<20} {:<16} {:>10}", "Kind", "Method", "Trainable"), "-".repeat(48)];
    let mut table = Vec::new();
    for (kind, name, count, end) in entries {
        ensure!(number(&page, &format!("{name}.trainable"))? as i64 == count, "{name}: not {count}");
        let losses = numbers(&page, &format!("{name}.losses"))?;
        ensure!(losses[1] < losses[0] - 0.5, "{name} has not learned: {losses:?}");
        let percent = 100.0 * count as f64 / 28740.0;
        lines.push(format!("{kind:<20} {name:<16} {:>10}", commas(count)));
        let [first, last] = [losses[0], losses[1]];
        table.push(format!(
            "{kind} | {name} | {} | {percent:.2} | {first:.3} | {last:.3} | {end}",
            commas(count)
        ));
    }
    same_lines(page.lines(), &lines)?;
    same_tables(&page, &[("One base of 28,740 parameters, 40 steps of each method on a new task", table)])?;
    mistaken(&page, "1,280", "1,280")?;
    mistaken(&page, "3 of the 4", "7 of the 7")?;
    ensure!(number(&page, "merging")? == 8.0);
    Ok(())
}

#[test]
fn the_classification_leaves_its_base_alone_and_prunes() -> Result<()> {
    let _alone = alone();
    let page = run("unified_taxonomy")?;
    let tensors = number(&page, "base.tensors")?;
    // Twelve tensors a layer, the embedding, the head's two; dense and in 4 bits.
    ensure!(tensors == 2.0 * (2.0 * 12.0 + 3.0) && number(&page, "base.unchanged")? == tensors);
    let ranks = numbers(&page, "adalora")?;
    ensure!(
        ranks.len() == 2 && ranks.iter().sum::<f64>() == 8.0,
        "AdaLoRA left the ranks {ranks:?} of 8 and 8"
    );
    let gates = numbers(&page, "diff.gates")?;
    ensure!(
        gates[0] == 2.0 * (32.0 * 128.0 + 128.0) && gates[1] < 0.8 * gates[0] && gates[1] > 0.0,
        "{gates:?}"
    );
    let pruned = numbers(&page, "diff.pruned")?;
    let losses = numbers(&page, "Diff Pruning.losses")?;
    // Every open gate's difference is kept, and nothing else mattered.
    ensure!(pruned[0] == gates[1], "{pruned:?} {gates:?}");
    close("the second stage", pruned[1], losses[1])?;
    let seen = page.to_see().join(" ");
    for words in ["54 of 54 tensors", "16 singular values", "kept 8", &commas(gates[1] as i64)] {
        ensure!(seen.contains(words), "no `{words}` in {seen}");
    }
    Ok(())
}
