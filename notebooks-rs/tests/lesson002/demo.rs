//! The demo, the summary, the comparison.

use super::*;

#[test]
fn the_demo_has_every_line() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_demo")?;
    let lines = strings(&golden("seed002")?["demo_stdout"])?;
    ensure!(lines.len() == 32);
    same_lines(page.lines(), &lines)?;
    ensure!(number(&page, "remaining")? == 6.25);
    ensure!(mistaken(&page)[1] == ["Compression: 6.25%", "6.25% remain: compressed 16 times, by 93.75%"]);
    ensure!(page.to_see().len() == 1);
    Ok(())
}

#[test]
fn every_class_has_forward_backward_and_count() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_demo")?;
    let deep = "(2, 16, 256)";
    let rows = [
        ["LoRALayer", "forward, backward, merge, count", deep, deep, "A (8, 256), B (256, 8)", "4,096"],
        ["LoRALinear", "forward, merge", deep, deep, "A (8, 256), B (256, 8)", "4,096"],
        ["Adapter", "forward, backward, count", deep, deep, "W_down (256, 64), W_up (64, 256)", "32,768"],
        ["PrefixTuning", "get_prefix, count", "(2, 5, 8)", "(2, 5, 8)", "prefix (2, 2, 3, 2, 4)", "96"],
        ["PromptTuning", "forward, backward, count", deep, "(2, 36, 256)", "prompt (20, 256)", "5,120"],
    ];
    let expected = rows.map(|[class, lesson, x, y, trained, count]| {
        [class.into(), lesson.into(), format!("{x} to {y}"), format!("{x}; {trained}"), count.to_owned()]
            .to_vec()
    });
    ensure!(table(&page, "What each class has")?.rows == expected, "{:?}", page.tables());
    let [written, right] = mistaken(&page)[0];
    ensure!(written.starts_with("3 of 5 classes") && right.starts_with("all 5 are"), "{written} {right}");
    Ok(())
}

#[test]
fn comparison_has_the_lessons_table_and_the_real_shares() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_comparison")?;
    let golden = golden("seed002")?;
    let demo = strings(&golden["demo_stdout"])?;
    same_lines(page.lines(), &demo[demo.len() - 7..])?;
    let (d, layers, vocab, inner) = (4096, 32, 32_000, 11_008);
    let all: i64 = 2 * vocab * d + layers * (4 * d * d + 3 * d * inner + 2 * d) + d;
    ensure!(all == 6_738_415_616 && number(&page, "llama.parameters")? == all as f64);
    let rows = compare(&Sizes::default());
    let biases = layers * 2 * (64 + d);
    let counted = [all, rows[1].params, rows[2].params + biases, rows[3].params, rows[4].params];
    let of = |count: i64, whole: i64| format!("{:.4}%", 100.0 * count as f64 / whole as f64);
    let mut expected = Vec::new();
    for (row, counted) in rows.iter().zip(counted) {
        let recorded = &golden["compare_peft_methods"][row.key];
        ensure!(recorded["params"] == row.params && recorded["ratio"] == row.ratio, "{row:?}");
        let name = row.name.to_owned();
        let (lesson, model) = (of(row.params, rows[0].params), of(row.params, all));
        expected.push(vec![name, commas(row.params), lesson, model, commas(counted), of(counted, all)]);
    }
    ensure!(
        page.tables().len() == 1
            && page.tables()[0].title == format!("Of LLaMA-7B, {} parameters", commas(all))
    );
    ensure!(page.tables()[0].rows == expected, "{:?}", page.tables()[0].rows);
    ensure!(expected[1][2] == "0.1953%" && expected[1][3] == "0.0622%");

    let found = mistaken(&page);
    ensure!(found.len() == 3);
    ensure!(found[0] == ["LoRA 0.1953% of 2,147,483,648", "LoRA 0.0622% of 6,738,415,616"]);
    ensure!(found[1] == ["2,147,483,648 parameters", "6,738,415,616, 3.14 times as many"]);
    ensure!(
        found[2][0] == "printed: full_fine_tuning, prefix_tuning, prompt_tuning; keys: full, prefix, prompt"
    );
    let see = page.to_see();
    ensure!(see.len() == 3 && see[0].contains(&format!("{} more", commas(biases))));
    ensure!(see[1].contains("0.1953%") && see[1].contains(&of(rows[1].params, 2 * rows[0].params)));
    ensure!(see[2].contains(&commas(rows[1].params / 8)) && see[2].contains("r = 64"));

    let [picture] = page.pictures() else { anyhow::bail!("{} pictures", page.pictures().len()) };
    let Panel::Bars(bars) = &picture.figure.rows[0][0] else { anyhow::bail!("no bars") };
    ensure!(bars.y.log && bars.categories == rows.each_ref().map(|r| r.name));
    ensure!(fact(&page, "llama.trainable")? == counted.map(|n| n as f64) && bars.groups.len() == 2);
    for (group, whole) in bars.groups.iter().zip([rows[0].params, all]) {
        let label = |v: &f64| if *v >= 10.0 { format!("{v:.1}") } else { format!("{v:.4}") };
        let labels: Vec<String> = group.values.iter().map(label).collect();
        ensure!(group.labels.as_ref() == Some(&labels), "{:?}", group.labels);
        ensure!(group.values == rows.each_ref().map(|r| 100.0 * r.params as f64 / whole as f64));
    }
    Ok(())
}
