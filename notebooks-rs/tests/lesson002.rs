//! Lesson 002 against the recorded NumPy run (`golden/seed002.json`): the demo's lines, forward and backward of closed-form
//! numbers to 1e-12; and every gradient by hand against autograd, finite differences and the library.

mod common;

use anyhow::{Context, Result, ensure};
use common::{alone, golden, number, run, same_curves, same_lines, strings};
use notebooks_rs::Page;
use notebooks_rs::lesson002::check::{STEP, check};
use notebooks_rs::lesson002::compare::{Sizes, compare};
use notebooks_rs::lesson002::module::{Module, Parameter};
use notebooks_rs::lesson002::sections::lora::{batch, example};
use notebooks_rs::lesson002::tensors::{Source, norm};
use notebooks_rs::measure::small;
use notebooks_rs::page::Table;
use peft_core::commas;
use peft_plot::Panel;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

const CPU: Source = Source(Device::Cpu);
/// Gradients by hand against autograd, both in f64.
const AUTOGRAD: f64 = 1e-13;
/// Against central differences with a step of 1e-5.
const DIFFERENCES: f64 = 1e-7;
/// Against the library's, in f32.
const SINGLE: f64 = 5e-6;

fn table<'p>(page: &'p Page, title: &str) -> Result<&'p Table> {
    page.tables().iter().find(|t| t.title == title).with_context(|| format!("no table `{title}`"))
}

fn titles(page: &Page) -> Vec<&str> {
    page.tables().iter().map(|t| t.title.as_str()).collect()
}

/// Whether a table of errors has these rows, the errors of the fact `{about}.errors`, and none above its limit.
fn errors(page: &Page, about: &str, rows: &[(&str, &str)], limits: &[f64]) -> Result<()> {
    let title = match limits {
        [SINGLE] => format!("{about} of the library, in f32: relative difference"),
        _ => format!("{about}: gradients by hand, relative difference"),
    };
    let (title, table) = (title.as_str(), table(page, &title)?);
    let facts = &page.facts()[&format!("{about}.errors")];
    let facts = facts.as_array().with_context(|| format!("no errors of {about}"))?;
    ensure!(facts.len() == rows.len(), "{about}: {facts:?}");
    for (row, fact) in table.rows.iter().zip(facts) {
        let fact = if fact.is_array() { floats(fact)? } else { vec![fact.as_f64().context("an error")?] };
        let cells: Vec<String> = fact.into_iter().map(small).collect();
        ensure!(row[2..] == cells, "{title}: {row:?}, the errors are {cells:?}");
    }
    ensure!(table.rows.len() == rows.len(), "{title}: {:?}", table.rows);
    for (row, (name, shape)) in table.rows.iter().zip(rows) {
        ensure!(row[0] == *name && row[1] == *shape, "{title}: {row:?}, not {name} {shape}");
        ensure!(row.len() == 2 + limits.len(), "{row:?}");
        for (cell, limit) in row[2..].iter().zip(limits) {
            let error: f64 = cell.parse().with_context(|| cell.clone())?;
            ensure!((0.0..*limit).contains(&error), "{title}: {row:?}, more than {limit:e}");
        }
    }
    Ok(())
}

/// The gradients by hand of `class` by these parameters, and those of its `twin` in the library.
fn right(page: &Page, class: &str, twin: &str, y: &str, parameters: &[(&str, &str)], x: &str) -> Result<()> {
    let mut rows = parameters.to_vec();
    rows.push(("x", x));
    errors(page, class, &rows, &[AUTOGRAD, DIFFERENCES])?;
    ensure!(number(page, &format!("{class}.autograd"))? < AUTOGRAD);
    ensure!(number(page, &format!("{class}.differences"))? < DIFFERENCES);
    if twin.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = parameters.iter().map(|(name, _)| format!("d{name}")).collect();
    let mut rows = vec![("y", y), ("dx", x)];
    rows.extend(names.iter().zip(parameters).map(|(name, (_, shape))| (name.as_str(), *shape)));
    errors(page, twin, &rows, &[SINGLE])?;
    ensure!(number(page, &format!("{twin}.difference"))? < SINGLE);
    Ok(())
}

fn floats(value: &Value) -> Result<Vec<f64>> {
    value.as_array().context("no list")?.iter().map(|v| v.as_f64().context("no number")).collect()
}

fn fact(page: &Page, name: &str) -> Result<Vec<f64>> {
    floats(page.facts().get(name).with_context(|| format!("no fact `{name}`"))?)
}

/// The recorded tensors, to 1e-12, and their rows in the table: name, formula, shape, and three numbers.
fn recorded(page: &Page, golden: &Value, names: &[[&str; 3]]) -> Result<()> {
    let table = table(page, "Forward and backward of closed-form numbers")?;
    ensure!(table.rows.len() == names.len(), "{:?}", table.rows);
    for (row, [name, formula, shape]) in table.rows.iter().zip(names) {
        ensure!(row[1] == *formula && row[2] == *shape, "{row:?}, not {formula} {shape}");
        let found = fact(page, name)?;
        let size = found.iter().map(|v| v * v).sum::<f64>().sqrt();
        if *name != "y" || golden.get("y").is_some() {
            let expected = floats(&golden[name])?;
            ensure!(found.len() == expected.len(), "{name}: {} numbers", found.len());
            for (found, expected) in found.iter().zip(&expected) {
                ensure!((found - expected).abs() <= 1e-12, "{name}: {found}, recorded {expected}");
            }
        }
        let cells = [found[0], found[found.len() - 1], size].map(|v| format!("{v:.6}"));
        ensure!(row[0] == *name && row[3..] == cells, "{row:?}, not {cells:?}");
    }
    Ok(())
}

/// What the mistakes say, `[as written, right]`.
fn mistaken(page: &Page) -> Vec<[&str; 2]> {
    page.mistaken().iter().map(|m| [m.as_written.as_str(), m.right.as_str()]).collect()
}

/// `‖dA‖ = .., ‖dB‖ = ..` of the gradients that autograd has of `loss`.
fn norms(names: &[&str], leaves: &[&Tensor], loss: &dyn Fn() -> Result<Tensor>) -> Result<String> {
    for leaf in leaves {
        let _ = leaf.f_set_requires_grad(true)?;
    }
    let leaves: Vec<Tensor> = leaves.iter().map(|t| t.shallow_clone()).collect();
    let grads = Tensor::f_run_backward(&[loss()?], &leaves, false, false)?;
    let one = |(name, grad): (&&str, &Tensor)| Ok(format!("‖d{name}‖ = {:.4}", norm(grad)?));
    Ok(names.iter().zip(&grads).map(one).collect::<Result<Vec<_>>>()?.join(", "))
}

fn sum(t: Tensor) -> Tensor {
    t.sum(Kind::Double)
}

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
fn lora_has_the_recorded_numbers() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_lora")?;
    let golden = &golden("seed002")?["lora"];
    same_lines(
        page.lines(),
        &[
            "LoRALayer: A (2, 6), B (5, 2), scaling 2",
            "LoRALinear: frozen W (5, 6), 22 parameters",
            "Input shape: (2, 3, 6)",
            "Output shape: (2, 3, 5)",
            "Gradients computed: A=(2, 6), B=(5, 2)",
        ],
    )?;
    recorded(
        &page,
        golden,
        &[
            ["y", "x Wᵀ + H Bᵀ, H = s x Aᵀ", "(2, 3, 5)"],
            ["A_grad", "(s G B)ᵀ x", "(2, 6)"],
            ["B_grad", "Gᵀ H", "(5, 2)"],
            ["grad_x", "G W + s G B A", "(2, 3, 6)"],
            ["merged", "W + s B A", "(5, 6)"],
        ],
    )?;
    ensure!(page.tables().len() == 3, "{:?}", titles(&page));
    right(&page, "LoRALinear", "LoraConfig", "(2, 3, 5)", &[("A", "(2, 6)"), ("B", "(5, 2)")], "(2, 3, 6)")?;
    ensure!(number(&page, "LoraConfig.merged")? < SINGLE);
    ensure!(number(&page, "merge.error")? < 1e-14);
    ensure!(number(&page, "start.change")? == 0.0);
    let start = fact(&page, "start.gradients")?;
    ensure!(start[0] == 0.0 && start[1] > 0.0, "{start:?}");
    ensure!(
        page.to_see()[1].contains(&format!("{:.1e}", number(&page, "merge.error")?))
            || number(&page, "merge.error")? == 0.0
    );
    ensure!(page.to_see().len() == 4 && page.to_see()[0].contains(&format!("‖dB‖ = {:.4}", start[1])));
    Ok(())
}

#[test]
fn lora_mistakes_are_shown_by_numbers() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_lora")?;
    let mut layer = example(CPU)?;
    let [x, grad] = batch(CPU)?;
    let other = CPU.ramp(&[2, 3, 6], [0.29, 0.8, 1.0])?;
    let (w, a, b) =
        (&layer.base.weight, layer.lora.a.value.shallow_clone(), layer.lora.b.value.shallow_clone());
    let loss =
        |x: &Tensor| sum((x.linear(w, None::<&Tensor>) + x.matmul(&a.tr()).matmul(&b.tr()) * 2.0) * &grad);
    let last = norms(&["A", "B"], &[&a, &b], &|| Ok(loss(&other)))?;
    let both = norms(&["A", "B"], &[&a, &b], &|| Ok(loss(&x) + loss(&other)))?;
    let found = mistaken(&page);
    ensure!(found.len() == 3 && last != both);
    ensure!(
        found[0]
            == [
                format!("after two batches, the second one's alone: {last}"),
                format!("the sum of both: {both}")
            ]
    );
    // 6 rows, r = 2: 6 products of 6·2 with 6 or 5 columns, and 2 more.
    let (wide, narrow) = (6 * 6 * 2, 6 * 2 * 5);
    let once = 3 * wide + 3 * narrow;
    let lesson = once + wide + narrow;
    ensure!(found[1][0].starts_with(&format!("{lesson} ")) && found[1][1].starts_with(&format!("{once},")));
    ensure!(found[2] == ["forward, merge", "forward, merged, backward to (2, 3, 6), count 22"]);
    ensure!(layer.forward(&x)?.size() == [2, 3, 5]);
    Ok(())
}

/// A gradient check has its V: the best step of central differences is near ε^(1/3), of one-sided ones near ε^(1/2).
#[test]
fn the_best_step_is_between_curve_and_rounding() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_lora")?;
    let [picture] = page.pictures() else { anyhow::bail!("{} pictures", page.pictures().len()) };
    let Panel::Lines(lines) = &picture.figure.rows[0][0] else { anyhow::bail!("no lines") };
    ensure!(picture.name == "scratch_lora_steps" && lines.series.len() == 3 && lines.x.log && lines.y.log);
    let names = ["one-sided, f64", "central, f64", "central, f32"];
    let curves = names.map(|name| fact(&page, &format!("step.{name}.errors")));
    same_curves(&page, "scratch_lora_steps", 0, &curves.into_iter().collect::<Result<Vec<_>>>()?)?;
    let expected = [
        ("one-sided, f64", 1e-9, 1e-6, 1e-6),
        ("central, f64", 1e-6, 1e-3, 1e-9),
        ("central, f32", 1e-3, 1e-1, 1e-3),
    ];
    for (series, (name, low, high, error)) in lines.series.iter().zip(expected) {
        let best = series.points.iter().min_by(|a, b| a.1.total_cmp(&b.1)).context("no point")?;
        ensure!(series.name == name && series.points.len() == 31);
        ensure!((low..high).contains(&best.0) && best.1 < error, "{name}: {best:?}");
        let ends = [series.points[0].1, series.points[30].1];
        ensure!(ends.iter().all(|e| *e > 100.0 * best.1), "{name}: {ends:?} for {best:?}");
        ensure!(fact(&page, &format!("step.{name}"))? == [best.0, best.1]);
        ensure!(page.to_see()[3].contains(&format!("{name} {:.0e} (error {:.0e})", best.0, best.1)));
    }
    Ok(())
}

#[test]
fn adapter_has_the_recorded_numbers() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_adapter")?;
    let lines = [
        "Adapter parameters: 36",
        "Bottleneck dimension: 3",
        "Gradients computed: W_down=(6, 3), W_up=(3, 6)",
    ];
    same_lines(page.lines(), &lines)?;
    recorded(
        &page,
        &golden("seed002")?["adapter"],
        &[
            ["y", "x + relu(Z) U, Z = x D", "(2, 3, 6)"],
            ["W_down_grad", "xᵀ (G Uᵀ ⊙ [Z > 0])", "(6, 3)"],
            ["W_up_grad", "relu(Z)ᵀ G", "(3, 6)"],
            ["grad_x", "G + (G Uᵀ ⊙ [Z > 0]) Dᵀ", "(2, 3, 6)"],
        ],
    )?;
    ensure!(page.tables().len() == 3, "{:?}", titles(&page));
    let hand = [("W_down", "(6, 3)"), ("W_up", "(3, 6)")];
    right(&page, "Adapter", "", "", &hand, "(2, 3, 6)")?;
    // The library stores both the other way round.
    let rows = [("y", "(2, 3, 6)"), ("dx", "(2, 3, 6)"), ("dW_down", "(3, 6)"), ("dW_up", "(6, 3)")];
    errors(&page, "BottleneckConfig", &rows, &[SINGLE])?;

    let start = fact(&page, "start")?;
    let found = mistaken(&page);
    ensure!((0.005..0.02).contains(&start[0]) && start[1] == 0.0, "{start:?}");
    ensure!(found.len() == 2 && found[0][0].contains(&format!("{:.3} %", 100.0 * start[0])));
    ensure!(found[0][1].starts_with("0 %"));
    let ramp = |shape: &[i64], abc| CPU.ramp(shape, abc);
    let (down, up) = (ramp(&[6, 3], [0.8, 0.2, 0.6])?, ramp(&[3, 6], [0.6, 0.5, 0.6])?);
    let (x, other) = (ramp(&[2, 3, 6], [0.53, 0.4, 1.0])?, ramp(&[2, 3, 6], [0.29, 0.8, 1.0])?);
    let grad = ramp(&[2, 3, 6], [0.37, 0.6, 1.0])?;
    let loss = |x: &Tensor| sum((x + x.matmul(&down).relu().matmul(&up)) * &grad);
    let last = norms(&["W_down", "W_up"], &[&down, &up], &|| Ok(loss(&other)))?;
    let both = norms(&["W_down", "W_up"], &[&down, &up], &|| Ok(loss(&x) + loss(&other)))?;
    ensure!(
        found[1]
            == [
                format!("after two batches, the second one's alone: {last}"),
                format!("the sum of both: {both}")
            ]
    );

    let off = x.matmul(&down).le(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    ensure!(number(&page, "off")? == off);
    let [residual, units, biases] = page.to_see() else { anyhow::bail!("{:?}", page.to_see()) };
    let own =
        CPU.ramp(&[2, 3, 6], [0.37, 0.6, 1.0])?.view([-1]) - Tensor::from_slice(&fact(&page, "grad_x")?);
    ensure!(residual.contains(&format!("‖G‖ = {:.4}", norm(&grad)?)), "{residual}");
    ensure!(residual.contains(&format!("‖dx − G‖ = {:.4}", norm(&own)?)), "{residual}");
    ensure!(units.starts_with(&format!("{:.0} %", 100.0 * off)), "{units}");
    ensure!(biases.contains(&format!("{} more parameters", 3 + 6)), "{biases}");
    Ok(())
}

#[test]
fn prompt_has_the_recorded_numbers() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_prompt")?;
    let lines = [
        "Original sequence length: 3",
        "With soft prompt: 7",
        "Prompt parameters: 24",
        "Gradients computed: prompt=(4, 6)",
    ];
    same_lines(page.lines(), &lines)?;
    let golden = &golden("seed002")?["prompt"];
    recorded(
        &page,
        golden,
        &[
            ["y", "[P; x]", "(2, 7, 6)"],
            ["prompt_grad", "Σ_batch G[:, :n]", "(4, 6)"],
            ["grad_x", "G[:, n:]", "(2, 3, 6)"],
        ],
    )?;
    ensure!(golden["y_shape"] == serde_json::json!([2, 7, 6]));
    ensure!(table(&page, "Forward and backward of closed-form numbers")?.rows[0][2] == "(2, 7, 6)");
    let (p, x) = (CPU.ramp(&[4, 6], [0.45, 0.15, 1.0])?, CPU.ramp(&[2, 3, 6], [0.53, 0.4, 1.0])?);
    let y = Tensor::cat(&[p.unsqueeze(0).expand([2, 4, 6], false), x], 1);
    ensure!(fact(&page, "y")? == Vec::<f64>::try_from(y.view([-1]))?);
    ensure!(page.tables().len() == 3, "{:?}", titles(&page));
    right(&page, "PromptTuning", "PromptTuningConfig", "(2, 7, 6)", &[("prompt", "(4, 6)")], "(2, 3, 6)")?;

    let [grad, other] = [[0.37, 0.6, 1.0], [0.29, 0.8, 1.0]].map(|abc| CPU.ramp(&[2, 7, 6], abc));
    let of = |grad: &Tensor| grad.narrow(1, 0, 4).sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
    let (grad, other) = (of(&grad?), of(&other?));
    let line = |t: &Tensor| Ok::<_, anyhow::Error>(format!("‖dprompt‖ = {:.4}", norm(t)?));
    let expected = [
        format!("after two batches, the second one's alone: {}", line(&other)?),
        format!("the sum of both: {}", line(&(grad + other))?),
    ];
    ensure!(mistaken(&page) == [expected.each_ref().map(String::as_str)], "{expected:?}");
    ensure!(number(&page, "rows.difference")? < AUTOGRAD);
    let start = fact(&page, "start")?;
    ensure!(start[0] < 0.2 && (start[1] / start[2] - 1.0).abs() < 0.1, "{start:?}");
    ensure!(page.to_see().len() == 2 && page.to_see()[1].contains(&format!("a word {:.2}", start[2])));
    Ok(())
}

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

/// A layer whose backward pass forgets the scale of A: the check has to say so.
#[derive(Debug)]
struct Wrong(notebooks_rs::lesson002::lora::LoraLinear);

impl Module for Wrong {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        let dx = self.0.backward(grad)?;
        let a = &self.0.lora.a;
        a.accumulate(&a.grad.f_mul_scalar(-0.5)?)?;
        Ok(dx)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        self.0.parameters()
    }
}

#[test]
fn a_wrong_gradient_is_found() -> Result<()> {
    let _alone = alone();
    let [x, grad] = batch(CPU)?;
    let found = check(&mut Wrong(example(CPU)?), &x, &grad)?;
    for (gradient, of) in found.iter().zip(["A", "B", "x"]) {
        let wrong = [gradient.autograd > 0.4, gradient.differences > 0.4];
        ensure!(gradient.of == of && wrong == [of == "A"; 2], "{gradient:?}");
    }
    ensure!(found.len() == 3 && STEP == 1e-5);
    Ok(())
}

/// Without a forward pass there is nothing to go back through.
#[test]
fn backward_comes_after_forward() -> Result<()> {
    let _alone = alone();
    let [_, grad] = batch(CPU)?;
    let error = example(CPU)?.backward(&grad).err().context("no error")?;
    ensure!(error.to_string() == "the backward pass comes after a forward pass", "{error}");
    Ok(())
}
