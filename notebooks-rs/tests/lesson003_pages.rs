//! What lesson 003's programs show beside the lesson's lines: tables, mistakes, our own words.

mod common;

use anyhow::{Context, Result, ensure};
use common::{alone, close, golden, number, numbers, run, same_curves, same_lines, strings};
use notebooks_rs::lesson003::{Gated, SWEEP};
use notebooks_rs::{Page, Setting};
use peft_core::report::commas;
use peft_plot::Panel;
use tch::Device;

const SETTING: Setting = Setting { seed: 42, device: Device::Cpu };

/// The cells of the table whose title starts so.
fn table<'p>(page: &'p Page, title: &str) -> Result<&'p [Vec<String>]> {
    let found = page.tables().iter().find(|t| t.title.starts_with(title));
    Ok(&found.with_context(|| format!("no table {title}"))?.rows)
}

/// Whether a table is what its rows' text, parted by bars, says.
fn same_table(page: &Page, title: &str, rows: &[String]) -> Result<()> {
    let found: Vec<String> = table(page, title)?.iter().map(|row| row.join(" | ")).collect();
    same_lines(&found, rows)
}

/// Parameters of LLaMA-7B, as Hugging Face's model of it has them, and of prefix, LoRA r = 8 and r = 16.
const LLAMA: f64 = 6_738_415_616.0;
const ADAPTERS: [i64; 3] = [1_228_830, 4_194_304, 8_388_608];

#[test]
fn tables_of_counts() -> Result<()> {
    let _alone = alone();
    let page = run("review_parameters")?;
    ensure!(number(&page, "llama.params")? == LLAMA && number(&page, "llama.lora")? == ADAPTERS[2] as f64);
    let rows = [1, 2, 5, 10, 20].map(|n| {
        let n = f64::from(n);
        let (copies, adapters) = (2e-9 * LLAMA * n, 2e-9 * (LLAMA + ADAPTERS[2] as f64 * n));
        format!("{n} | {copies:.2} | {adapters:.2} | {:.2}", copies / adapters)
    });
    same_table(&page, "LLaMA-7B in half precision", &rows)?;
    let stored =
        [1.0, 2.0, 5.0, 10.0, 20.0].map(|n| (2e-9 * LLAMA * n, 2e-9 * (LLAMA + ADAPTERS[2] as f64 * n)));
    let curves = [stored.map(|s| s.0).to_vec(), stored.map(|s| s.1).to_vec()];
    same_curves(&page, "review_parameters_storage", 0, &curves)?;

    let rows = [1, 2, 4, 8, 16, 64, 384, 768].map(|r| {
        let share = 100.0 * 2.0 * r as f64 / 768.0;
        format!("{r} | {} | {share:.2} | {:.4}", commas(r * 1536), 16.0 / r as f64)
    });
    let page = run("review_lora")?;
    same_table(&page, "Parameters of LoRA by rank", &rows)?;
    ensure!(number(&page, "start.max_abs")? == 0.0);
    ensure!(number(&page, "by_hand.max_abs")? < 1e-4 && number(&page, "merged.max_abs")? < 1e-3);

    let golden = &golden("seed003")?["cell6"];
    let page = run("review_model")?;
    let parts = &golden["lora_params_breakdown"];
    let part = |name: &str| parts[name].as_i64().context("a number");
    let (attention, norms, output) =
        (part("attention LoRA")?, part("layer norms (not LoRA)")?, part("output_proj LoRA")?);
    let all = golden["lora_params"].as_i64().context("a number")?;
    let row = |name: &str, n: i64| format!("{name} | {} | {:.2}", commas(n), 100.0 * n as f64 / all as f64);
    same_table(
        &page,
        "What the lesson counts as LoRA",
        &[
            row("LoRA at q, k, v and o of 4 layers", attention),
            row("LoRA at the output layer", output),
            row("layer norms (not LoRA)", norms),
            row("all that is trained", all),
        ],
    )?;
    let gradients = [
        "as written | 50 | 10 | 9",
        "with attention, start | 34 | 34 | 17",
        "with attention, 1 step | 34 | 34 | 34",
    ];
    same_table(&page, "Which trained tensors get a gradient", &gradients.map(str::to_owned))?;
    for (fact, expected) in [
        ("gradients.written", [50, 10, 9]),
        ("gradients.start", [34, 34, 17]),
        ("gradients.later", [34, 34, 34]),
        ("breakdown", [attention, norms, output]),
    ] {
        ensure!(numbers(&page, fact)? == expected.map(|n| n as f64), "{fact}");
    }
    ensure!(number(&page, "base_params")? == 55_529_472.0 && number(&page, "lora_params")? == all as f64);
    for (fact, name) in
        [("full_model_params", "full_model_params"), ("savings", "savings_pct"), ("storage", "storage_MB")]
    {
        close(name, number(&page, fact)?, golden[name].as_f64().context("a number")?)?;
    }
    close(
        "one inventory",
        number(&page, "savings.one_inventory")?,
        100.0 * (1.0 - 885_504.0 / 55_529_472.0),
    )?;
    close("training", number(&page, "training.full")?, 16.0 * 55_529_472.0 / 1_048_576.0)?;
    close("training", number(&page, "training.lora")?, 4.0 * (55_529_472.0 + 4.0 * 885_504.0) / 1_048_576.0)
}

#[test]
fn tables_of_attention() -> Result<()> {
    let _alone = alone();
    let gated = Gated::new(SETTING)?;
    let page = run("review_zero_init")?;
    let (mut rows, mut curves) = (Vec::new(), vec![Vec::new(); 2]);
    for g in SWEEP {
        let [s, t] = [gated.change("sigmoid", g)?, gated.change("tanh", g)?].map(|c| 100.0 * c);
        // The tanh branch is linear in tanh(g), and nothing at zero.
        let unit = 100.0 * gated.change("tanh", 1.0)? / 1f64.tanh();
        ensure!((t - unit * g.tanh().abs()).abs() < 0.01 && (g != 0.0 || t == 0.0), "{g}: {t}");
        ensure!(s > 23.0, "the lesson's gate closes at {g}");
        curves[0].push(s);
        curves[1].push(t);
        rows.push(format!("{g:.1} | {:.4} | {s:.2} | {:.4} | {t:.2}", 1.0 / (1.0 + (-g).exp()), g.tanh()));
    }
    same_table(&page, "Change of the attention's output", &rows)?;
    same_curves(&page, "review_zero_init_gate", 0, &curves)?;
    let shares = numbers(&page, "sigmoid.shares")?;
    let shares: Vec<String> = shares.iter().map(|s| format!("{s:.2}")).collect();
    ensure!(shares == ["6.97", "6.89"], "{shares:?}");
    ensure!(number(&page, "tanh.start_max_abs")? == 0.0 && numbers(&page, "gradients.tanh")?[0] == 0.0);
    let closed = 100.0 * number(&page, "sigmoid.closed")?;
    ensure!(format!("{closed:.1}") == "23.7", "{closed}");

    let plots = &golden("seed003")?["plots"]["cell4_arrays_float64"];
    let sums: Vec<f64> = serde_json::from_value(plots["row_sums_after_gating"].clone())?;
    let (low, high) = (sums.iter().copied().fold(2.0, f64::min), sums.iter().copied().fold(0.0, f64::max));
    let one = "1.0000 | 1.0000";
    let page = run("review_pictures")?;
    for (found, expected) in numbers(&page, "drawn.row_sums")?.into_iter().zip([low, high]) {
        close("row sums", found, expected)?;
    }
    ensure!(numbers(&page, "real.row_sums")?.iter().all(|s| (s - 1.0).abs() < 1e-6));
    // The share of the prefix is that of the figure's columns.
    let shown =
        page.pictures().iter().find(|p| p.name == "review_pictures_attention").context("no figure")?;
    let panels: Vec<_> = shown.figure.rows.iter().flatten().collect();
    let [Panel::Heat(_), Panel::Heat(heat)] = panels[..] else { anyhow::bail!("{} panels", panels.len()) };
    let share =
        heat.rows.iter().map(|row| row[..3].iter().sum::<f64>()).sum::<f64>() / heat.rows.len() as f64;
    close("share", number(&page, "prefix.share")?, 100.0 * share)?;
    trained(&page)?;
    same_table(
        &page,
        "Attention: what the weights",
        &[
            format!("drawn, without a prefix | 10 x 10 | {one}"),
            format!("drawn, prefix halved (lesson) | 10 x 13 | {low:.4} | {high:.4}"),
            format!("real, without a prefix | 10 x 10 | {one}"),
            format!("real, with a prefix | 10 x 13 | {one}"),
        ],
    )
}

/// Whether the prefix has learned to classify.
fn trained(page: &Page) -> Result<()> {
    let (right, losses) = (numbers(page, "classifier.right")?, numbers(page, "classifier.losses")?);
    ensure!(right.len() == 3 && right[2] == 160.0 && right[0] < 16.0 && right[1] > 60.0, "{right:?}");
    ensure!(losses.len() == 150 && losses[149] < 0.5 * losses[0], "{losses:?}");
    Ok(())
}

#[test]
fn tables_of_results() -> Result<()> {
    let _alone = alone();
    let frame = &golden("seed003")?["plots"]["cell5_table"];
    let column = |name: &str| -> Result<Vec<f64>> { Ok(serde_json::from_value(frame[name].clone())?) };
    let (comments, refinement) = (column("Review Comment Generation")?, column("Code Refinement")?);
    let (millions, storage) = (column("Trainable Params (M)")?, column("Storage (MB)")?);
    let methods = strings(&frame["Method"])?;
    let of_best = |scores: &[f64], i: usize| 100.0 * scores[i] / scores[2];
    let page = run("review_results")?;
    let rows = [0, 1, 2].map(|i| {
        let relative = [of_best(&comments, i), of_best(&refinement, i)];
        let (method, comments, refinement) = (&methods[i], comments[i], refinement[i]);
        format!("{method} | {comments:.2} | {:.1} | {refinement:.2} | {:.1}", relative[0], relative[1])
    });
    same_table(&page, "The paper's results", &rows)?;
    let rows = [0, 1, 2].map(|i| {
        let n = ADAPTERS[i];
        format!(
            "{} | {:.1} | {} | {:.4} | {:.1} | {:.2}",
            methods[i],
            millions[i],
            commas(n),
            100.0 * n as f64 / LLAMA,
            storage[i],
            n as f64 / 524_288.0
        )
    });
    same_table(&page, "Where its sizes come from", &rows)?;
    trained(&page)?;
    let relative =
        [&comments, &refinement].map(|scores| (0..3).map(|i| of_best(scores, i)).collect::<Vec<_>>());
    same_curves(&page, "review_results_bars", 2, &relative)?;
    let says = |title: &str, expected: &[&str]| -> Result<()> {
        let found: Vec<String> = table(&page, title)?.iter().map(|row| row[1].clone()).collect();
        same_lines(&found, expected)
    };
    says(
        "Why LoRA Outperforms Prefix-tuning",
        &[
            "BLEU on comments +10.5 %, with 6.8 times the parameters",
            "the lesson has no number",
            "BLEU +0.06 and +0.68 for 4,194,304 more parameters",
            "the lesson has no number",
        ],
    )?;
    says(
        "Practical Considerations",
        &[
            "highest BLEU, 5.70 and 82.27",
            "adapter 0.0168 GB, model 13.48 GB",
            "a task takes 16.0 MB (2^20 bytes)",
            "adapter 0.0025 GB, model 13.48 GB: nothing is gained",
            "a task takes 2.34 MB (2^20 bytes)",
            "against section 7; see below",
            "share 0.12 % of 6,738,415,616",
        ],
    )
}

#[test]
fn tables_of_insights() -> Result<()> {
    let _alone = alone();
    let page = run("review_insights")?;
    let found: Vec<String> =
        table(&page, "The lesson's conclusions")?.iter().map(|row| row[1].clone()).collect();
    same_lines(
        &found,
        &[
            "it has 5.70; yet the bubble chart puts full fine-tuning at 100 and it at 98",
            "trained 8,388,608, but the model that runs has 6,746,804,224: 31 times the baseline",
            "half precision 16.0 MB; the baseline in single precision 839 MB; its own base 12853 MB",
            "it has 90.5 % of LoRA r = 16",
            "it is not: review_results trains one",
            "it has 50 % of the parameters and 98.9 % of the BLEU of r = 16",
            "r = 384 has as many parameters as a weight 768 x 768; quality at such ranks is not in the lesson",
            &format!(
                "yes: a merged layer of cell 2 differs by {:.0e}, relative",
                number(&page, "merged.relative_change")?
            ),
            &format!(
                "yes: two over one base, outputs differ by {:.2} %, the base by 0",
                100.0 * number(&page, "swapped.relative_change")?
            ),
            "yes, NF4: 14.1 % of the weight's bytes, output changed by 9.2 %",
            "settings; the lesson trains nothing",
        ],
    )?;
    for (name, expected) in [("nf4.bytes", "14.1"), ("nf4.relative_change", "9.2")] {
        let whole = if name == "nf4.bytes" { 4.0 * 768.0 * 768.0 } else { 1.0 };
        ensure!(format!("{:.1}", 100.0 * number(&page, name)? / whole) == expected, "{name}");
    }
    let shown = page.pictures().iter().find(|p| p.name == "review_insights_tradeoff").context("no figure")?;
    let [Panel::Points(chart)] = &shown.figure.rows[0][..] else { anyhow::bail!("no points") };
    let frame = &golden("seed003")?["plots"]["cell5_table"]["Review Comment Generation"];
    let comments: Vec<f64> = serde_json::from_value(frame.clone())?;
    ensure!(chart.points.len() == 3);
    for ((point, n), score) in chart.points.iter().zip(ADAPTERS).zip(&comments) {
        close("share", point.x, 100.0 * n as f64 / LLAMA)?;
        close("performance", point.y, 100.0 * score / comments[2])?;
        close("storage", point.area, n as f64 / 524_288.0)?;
    }
    ensure!(number(&page, "merged.relative_change")? < 1e-5);
    let swapped = number(&page, "swapped.relative_change")?;
    ensure!(swapped > 1e-3 && swapped < 0.1, "{swapped}");
    same_table(
        &page,
        "The bubble chart",
        &[
            "LoRA (r=16) | 99.87 | 99.8755 | 98 | 100.0 | 16.0 | 16.00".into(),
            "LoRA (r=8) | 99.93 | 99.9378 | 95 | 98.9 | 8.0 | 8.00".into(),
            "Prefix-tuning | 99.98 | 99.9818 | 85 | 90.5 | 2.4 | 2.34".into(),
        ],
    )
}

/// Parts of each mistake's two sides, as written and right.
const MISTAKES: [(&str, &[[&str; 2]]); 7] = [
    ("review_parameters", &[["6,738,415,616 parameters x 2 bytes = 13.48 GB", "108 GB"]]),
    (
        "review_lora",
        &[
            ["[8, 768], its lora_up [768, 8]", "[768, 768]"],
            ["590,592", "589,824"],
            ["2.04 %", "2.083 % of W;"],
        ],
    ),
    (
        "review_zero_init",
        &[
            ["sigmoid(0) = 0.5: the output changes by 24.3 %", "tanh(0) = 0: max |change| = 0"],
            ["still changes by 23.7 %, as 10 tokens have 6.89 %", "change 0.0 %"],
            ["15,360", "7,680 and one gate"],
            [
                "2,362,368 - prefix 2,366,977",
                "3,072 biases that the prefix layer lacks; without them both have 2,359,296",
            ],
        ],
    ),
    ("review_pictures", &[["AttributeError", "exp"], ["0.64 ... 0.96", "1.0000 ... 1.0000"], ["6.5", "7.5"]]),
    (
        "review_results",
        &[["exclude each other", "of 160"], ["8.23 beside 5.70", "82.27 and 5.70"], ["6.8 times", "r = 2.3"]],
    ),
    (
        "review_model",
        &[
            ["40 of 50", "34 of 34"],
            ["897,792 trained, 1.59 %", "885,504 || all params: 56,414,976 || trainable%: 1.5696"],
            [
                "1 - 897,792 / 55,517,184 = 98.383 %",
                "= 98.405 %; memory in training, frozen base included: 225 instead of 847 MB",
            ],
            ["1.59 %", "4.17 % for d = 768, 0.78 % for 4096"],
        ],
    ),
    (
        "review_insights",
        &[
            ["95 and prefix at 85", "98.9 %, prefix 90.5 %"],
            ["850 MB of a 220M", "13.48 GB"],
            ["99.93", "99.94"],
            ["0.11", "logarithmic"],
        ],
    ),
];

/// What our own words rest on, a part of each line.
const WORDS: [(&str, &[&str]); 7] = [
    ("review_parameters", &["report", "2.04 % here, but 0.062 %", "16.8 MB a task: 803"]),
    ("review_lora", &["max |change| = 0", "reach 136", "= 384", "by 2 and r = 16 by 1"]),
    ("review_zero_init", &["gradient is 0 and", "between 23.7 % and 26.3 %", "768 / 12 = 64"]),
    (
        "review_pictures",
        &["reach 0.038, those of W0 1.96", "3 prefix tokens", "% of a query's", "160 training rows"],
    ),
    (
        "review_results",
        &["90.5 % of LoRA's BLEU on comments, 93.2 %", "+0.06 BLEU on comments, +1.1 %", "error bar"],
    ),
    (
        "review_model",
        &["56 % of the LoRA", "17 of 34 tensors move first; after one step it is 34", "output_proj"],
    ),
    (
        "review_insights",
        &["6.8 times", "+0.48 BLEU with 3.4 times the parameters, from there to r = 16 +0.06 with 2.0 times"],
    ),
];

#[test]
fn mistakes_and_our_own_words() -> Result<()> {
    let _alone = alone();
    for ((program, sides), (same, parts)) in MISTAKES.into_iter().zip(WORDS) {
        ensure!(program == same);
        let page = run(program)?;
        ensure!(page.mistaken().len() == sides.len(), "{program}: {:?}", page.mistaken());
        for (mistake, [wrong, right]) in page.mistaken().iter().zip(sides) {
            ensure!(
                mistake.as_written.contains(wrong) && mistake.right.contains(right),
                "{program}: {mistake:?}"
            );
        }
        ensure!(page.to_see().len() == parts.len(), "{program}: {:?}", page.to_see());
        for (line, part) in page.to_see().iter().zip(parts) {
            ensure!(line.contains(part), "{program}: {line}\nlacks {part}");
        }
    }
    Ok(())
}
