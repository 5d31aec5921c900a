//! 4.1 and 4.2: prefix and prompt.

use super::*;

#[test]
fn prefix_has_the_recorded_bits() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.4.1.prefix"];
    let lesson = prefix::Lesson::new(setting())?;
    let own = lesson.peft.params("prefix")?.tensors();
    let at = |name: &str| own.get(&format!("encoder.{name}")).context(name.to_owned());
    let [keys, values] = lesson.as_written(3)?;
    same_bits(
        golden,
        &[
            ("init.prefix_embedding.weight", at("embedding.weight")?),
            ("init.prefix_mlp.0.weight", at("transform.0.weight")?),
            ("init.prefix_mlp.0.bias", at("transform.0.bias")?),
            ("init.prefix_mlp.2.weight", at("transform.2.weight")?),
            ("init.prefix_mlp.2.bias", at("transform.2.bias")?),
            ("keys", &keys),
            ("values", &values),
        ],
    )?;
    ensure!(golden["keys_shape"] == sizes(&keys) && golden["keys_shape"] == sizes(&values));
    ensure!(golden["trainable"] == lesson.peft.report(&["prefix"])?.trainable);
    let [right, _] = lesson.right(3)?;
    ensure!(sizes(&right) == "2 3 4 10 16" && right.transpose(2, 3).equal(&keys));
    Ok(())
}

#[test]
fn prefix_says_what_it_computes() -> Result<()> {
    let _alone = alone();
    let golden = golden("seed001")?;
    let recorded = &golden["sections"]["001.4.1.prefix"];
    let page = run("unified_prefix")?;
    let shape = recorded["keys_shape"].as_str().context("a shape")?;
    let count = |name: &str| count(recorded, name);
    same_lines(
        page.lines(),
        &[
            format!("Prefix parameters: {}", commas(count("trainable")?)),
            format!("Prefix keys: {shape}"),
            format!("Prefix values: {shape}"),
        ],
    )?;
    let all = 6_738_415_616i64;
    let direct =
        golden["tables"]["llama7b_recomputed"]["Prefix len 10, direct"].as_i64().context("direct")?;
    let (d, out) = (4096, 32 * 2 * 4096);
    let projected = |h: i64| 10 * d + (d * h + h) + (h * out + out);
    let counts = [
        count("params_llama7b_default")?,
        count("params_llama7b_len20")?,
        projected(512),
        projected(d),
        direct,
    ];
    for (row, n) in rows(&page, 0)?.iter().zip(counts) {
        let percent = format!("{:.2}%", 100.0 * n as f64 / all as f64);
        ensure!(row[1..] == [commas(n), percent], "{row:?}, expected {n}");
    }
    ensure!(rows(&page, 0)?.len() == counts.len());

    ensure!(number(&page, "error")? < 1e-6);
    let share = number(&page, "share")?;
    ensure!((0.3..0.5).contains(&share), "{share}");
    let figure = figure(&page, "unified_prefix_attention")?;
    for (panel, from) in figure.rows[0].iter().zip([10, 0]) {
        let Panel::Heat(heat) = panel else { anyhow::bail!("no heat map") };
        ensure!(heat.rows.len() == 16 && heat.divider.as_ref().is_some_and(|d| d.0 == 10));
        for weights in &heat.rows {
            let sum: f64 = weights.iter().sum();
            ensure!(weights.len() == 26 && (sum - 1.0).abs() < 1e-6, "a softmax sums to {sum}");
            ensure!(weights[..from].iter().all(|w| *w == 0.0) && weights[from..].iter().all(|w| *w > 0.0));
        }
    }
    let percent = format!("{:.1}% of it", 100.0 * share);
    let change = format!("by {:.0}%", 100.0 * number(&page, "change")?);
    says(&page, &[&percent, &change, "2 3 10 4 16", "2 3 4 10 16", "cannot stand", "3 4 26 16"])
}

#[test]
fn prompt_has_the_recorded_bits() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.4.2.prompt"];
    let lesson = prompt::Lesson::new(setting())?;
    let normal = &lesson.peft.params("normal")?.tensors()["prompt_embeddings"];
    same_bits(
        golden,
        &[("init.prompt_embeddings", normal), ("y", &lesson.y), ("from_vocab", &lesson.from_vocab)],
    )?;
    ensure!(golden["y_shape"] == sizes(&lesson.y));
    let page = run("unified_prompt")?;
    same_lines(
        page.lines(),
        &[
            format!("Prompt parameters: {}", commas(count(golden, "trainable")?)),
            "Input shape: [3, 7, 64]".to_owned(),
            "Output shape: [3, 27, 64]".to_owned(),
        ],
    )
}

/// How prompts start: drawn ones are no words, the others are.
#[test]
fn prompts_start_as_words_or_not() -> Result<()> {
    let _alone = alone();
    let page = run("unified_prompt")?;
    let table = rows(&page, 0)?;
    ensure!(table.len() == 5);
    // √64 times the deviation of what is drawn.
    for (row, (name, words, norm)) in table.iter().zip([
        ("normal", 0, 0.16),
        ("vocab", 20, 8.0),
        ("random", 0, 8.0),
        ("sampled", 20, 8.0),
        ("text", 20, 8.0),
    ]) {
        ensure!(number(&page, &format!("{name}.words"))? == f64::from(words), "{row:?}");
        let found = number(&page, &format!("{name}.norm"))?;
        ensure!((found / norm - 1.0).abs() < 0.1, "{row:?}: {found}");
        ensure!(row[1..] == [format!("{words} of 20"), format!("{found:.2}")], "{row:?}");
    }
    let tokens = common::strings(&page.facts()["text.tokens"])?;
    ensure!(tokens.len() == 7 && tokens[1] == "the" && tokens[6] == ":", "{tokens:?}");
    says(&page, &[&tokens.join(" "), "embed.weight", "7 words become 27"])
}
