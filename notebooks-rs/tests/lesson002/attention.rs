//! Prefix, and LoRA in an attention.

use super::*;

#[test]
fn prefix_has_a_forward_and_a_backward() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_prefix")?;
    let shape = "(2, 2, 3, 2, 4)";
    let lines = [
        format!("Prefix shape: {shape}  (layers, keys and values, tokens, heads, d_head)"),
        format!("Prefix parameters: {}", 2 * 2 * 3 * 2 * 4),
        "Input shape: (2, 5, 8)".into(),
        "Attention weights: (2, 2, 5, 8)".into(),
        "Output shape: (2, 5, 8)".into(),
        format!("Gradients computed: prefix={shape}"),
    ];
    same_lines(page.lines(), &lines)?;
    ensure!(page.tables().len() == 2, "{:?}", titles(&page));
    right(&page, "PrefixTuning", "", "", &[("prefix", shape)], "(2, 5, 8)")?;
    let rows = [("y", "(2, 5, 8)"), ("dx", "(2, 5, 8)"), ("dprefix", "(3, 32)")];
    errors(&page, "PrefixTuningConfig", &rows, &[SINGLE])?;
    let right = format!("forward to (2, 5, 8), backward to (2, 5, 8) and {shape}, count 96");
    ensure!(mistaken(&page) == [["get_prefix, num_parameters", right.as_str()]]);

    let [picture] = page.pictures() else { anyhow::bail!("{} pictures", page.pictures().len()) };
    let Panel::Heat(heat) = &picture.figure.rows[0][0] else { anyhow::bail!("no heat map") };
    ensure!(
        heat.rows.len() == 5
            && heat.rows.iter().all(|r| r.len() == 8 && (r.iter().sum::<f64>() - 1.0).abs() < 1e-12)
    );
    let [share, start, change] = ["share", "start.share", "start.change"].map(|name| number(&page, name));
    let (share, start, change) = (share?, start?, change?);
    // 3 keys with scores near 0 among 8: near 3/8, less where the words' scores are spread.
    ensure!(
        (0.2..0.4).contains(&start) && change > 0.1 && (0.2..0.6).contains(&share),
        "{share} {start} {change}"
    );
    ensure!(page.to_see().len() == 3 && page.to_see()[0].contains(&format!("{:.0} %", 100.0 * share)));
    ensure!(page.to_see()[1].contains(&format!("{:.0} % of the attention", 100.0 * start)));
    ensure!(page.to_see()[1].contains(&format!("by {:.0} %", 100.0 * change)));
    Ok(())
}

#[test]
fn attention_takes_lora_where_it_is_told() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_attention")?;
    let lora = format!("(16, 16) LoRA, {} parameters", 2 * (16 + 16));
    let lines = [
        format!("q: {lora}"),
        "k: (16, 16) frozen".into(),
        format!("v: {lora}"),
        "o: (16, 16) frozen".into(),
        format!("Trainable: 128 of {}", commas(4 * 16 * 16 + 128)),
        "Input shape: (2, 6, 16)".into(),
        "Output shape: (2, 6, 16)".into(),
    ];
    same_lines(page.lines(), &lines)?;
    ensure!(page.tables().len() == 2, "{:?}", titles(&page));
    let parameters = [("q.A", "(2, 16)"), ("q.B", "(16, 2)"), ("v.A", "(2, 16)"), ("v.B", "(16, 2)")];
    right(&page, "SelfAttention", "LoraConfig", "(2, 6, 16)", &parameters, "(2, 6, 16)")?;
    let found = mistaken(&page);
    ensure!(found.len() == 3);
    ensure!(
        found[0]
            == [
                "everything stays frozen, 0 parameters",
                "an error: there is no projection `q_proj`: they are q, k, v, o"
            ]
    );
    ensure!(found[1] == ["2 of 4 have a forward pass", "all 4 are modules; 128 parameters"]);
    ensure!(number(&page, "start.change")? == 0.0 && page.to_see().len() == 3);
    Ok(())
}
