//! Lesson 004 against the recorded run of PyTorch 2.11 (`golden/seed004.json`), and what its own sections measure.
//!
//! Numbers that come out of training differ from machine to machine: of them, what has to hold everywhere is tested, and
//! that each table says what was measured.

mod common;

use anyhow::{Context, Result, ensure};
use common::{
    alone, close, golden, number, numbers, recorded_kind, run, same_curves, same_lines, sha, strings,
};
use notebooks_rs::lesson004::{Spectrum, Test, Trace, redirected, similarity};
use notebooks_rs::{Page, Setting};
use peft_core::{Pass, commas};
use tch::{Device, Kind, Tensor};

/// The matrices of the model in which changes are measured, and their shapes.
const MATRICES: [(&str, [usize; 2]); 4] =
    [("attn.in_proj", [192, 64]), ("attn.out_proj", [64, 64]), ("ff.0", [256, 64]), ("ff.2", [64, 256])];

/// Whether the page has these tables: titles, and rows whose cells are parted by ` | `.
fn same_tables(page: &Page, expected: &[(&str, Vec<String>)]) -> Result<()> {
    ensure!(page.tables().len() == expected.len(), "{} tables", page.tables().len());
    for (table, (title, rows)) in page.tables().iter().zip(expected) {
        ensure!(table.title == *title, "the table is `{}`, expected `{title}`", table.title);
        let found: Vec<String> = table.rows.iter().map(|row| row.join(" | ")).collect();
        same_lines(&found, rows).context(table.title.clone())?;
    }
    Ok(())
}

/// Whether the page has the figures of these names, and each can be drawn.
fn figures(page: &Page, names: &[&str]) -> Result<()> {
    let found: Vec<&str> = page.pictures().iter().map(|p| p.name.as_str()).collect();
    ensure!(found == names, "{found:?}");
    page.pictures().iter().try_for_each(|p| Ok(p.figure.svg().map(drop)?))
}

/// The facts of the lesson's test of a layer of 131,328 parameters, of which a method trains this many more.
fn tested(page: &Page, trained: i64) -> Result<()> {
    let (all, trained) = (131_328.0, trained as f64);
    for (name, expected) in [
        ("trainable", trained),
        ("total", all + trained),
        ("reduction", 1.0 - trained / (all + trained)),
        ("reduction_of_the_layer", 1.0 - trained / all),
    ] {
        close(name, number(page, name)?, expected)?;
    }
    ensure!(number(page, "start_norm")? == 0.0 && number(page, "total")? == all + trained);
    Ok(())
}

/// What share of the energy is in the first 0, 1, 2, .. singular values, in percent.
fn energy(values: &[f64]) -> Vec<f64> {
    let total: f64 = values.iter().map(|s| s * s).sum();
    (0..=values.len()).map(|r| 100.0 * values[..r].iter().map(|s| s * s).sum::<f64>() / total).collect()
}

/// Whether the page's words are these.
fn said(page: &Page, part: &str) -> Result<()> {
    let mistakes = page.mistaken().iter().flat_map(|m| [&m.as_written, &m.right]);
    let all: Vec<&String> = mistakes.chain(page.to_see()).collect();
    ensure!(all.iter().any(|text| text.contains(part)), "nowhere `{part}` in {all:#?}");
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

#[test]
fn every_printed_line() -> Result<()> {
    let _alone = alone();
    let mut lines = Vec::new();
    for section in ["depth_setup", "depth_lora"] {
        lines.extend(run(section)?.lines().to_vec());
    }
    same_lines(&lines, &strings(&golden("seed004")?["printed"])?)
}

#[test]
fn lora_has_the_recorded_bits() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed004")?["sections"]["004.lora"];
    let test = Test::new(Setting::default())?;
    let base = test.peft.base().tensors();
    let (a, b) = (test.at("lora", "lora_A.weight")?, test.at("lora", "lora_B.weight")?);
    let trace = Trace::new(Setting::default())?;
    let report = test.peft.report(&["lora"])?;
    ensure!(golden["trainable"] == report.trainable && golden["total"] == report.all, "{report}");
    ensure!(golden["identity_at_init"] == 1 && trace.y_start == trace.test.forward(&[], Pass::eval())?);
    ensure!(f64::try_from(trace.delta_start.abs().max())? == 0.0);
    close(
        "‖ΔW‖",
        f64::try_from(trace.delta.norm())?,
        golden["delta_w_norm"]["value"].as_f64().context("norm")?,
    )?;
    let rank = trace.delta.to_kind(Kind::Double).linalg_matrix_rank_atol_rtol_float(None, 1e-6, false);
    ensure!(golden["rank_of_delta_w"] == rank.int64_value(&[]));

    // As the class computes it, with the same draws: the branch is scaled last, and added to the base's output. The
    // library scales the thin product and adds in the matrix product, which may round differently.
    let again = Test::new(Setting::default())?;
    let branch = |x: Tensor| -> Result<Tensor> {
        let b = again.at("lora", "lora_B.weight")?;
        Ok(again.forward(&[], Pass::eval())? + x.matmul(&a.tr()).matmul(&b.tr()) * 2.0)
    };
    let start = branch(again.x.dropout(0.1, true))?;
    again.as_if_trained("lora", "original_layer.lora_B.weight")?;
    let written = [branch(again.x.dropout(0.1, true))?, branch(again.x.shallow_clone())?];
    for (written, library) in written.iter().zip([&trace.y_dropped[0], &trace.y]) {
        ensure!(written.allclose(library, 2e-5, 1e-6, false), "the library's LoRA differs");
    }
    if !recorded_kind() {
        eprintln!("not the recorded kind of processor: bits are not compared");
        return Ok(());
    }
    for (name, t) in [
        ("init.lora_A", &a),
        ("init.lora_B", &b),
        ("init.original_layer.weight", &base["original_layer.weight"]),
        ("init.original_layer.bias", &base["original_layer.bias"]),
        ("x", &test.x),
        ("y_train_mode", &start),
        ("y_train_mode", &trace.y_start),
        ("y_dropout_B_nonzero", &written[0]),
        ("y_eval_B_nonzero", &written[1]),
        ("delta_w", &trace.delta),
    ] {
        ensure!(golden[name] == sha(t)?, "{name} has other bits");
    }
    let norm = format!("{:08x}", f32::try_from(trace.delta.norm())?.to_bits());
    ensure!(golden["delta_w_norm"]["f32_hex"] == norm, "{norm}");
    Ok(())
}

#[test]
fn setup_says_what_it_computes() -> Result<()> {
    let _alone = alone();
    let page = run("depth_setup")?;
    // LLaMA-7B by hand: 32 layers of four 4096 × 4096, three 4096 × 11008 and two norms, words, head and a norm.
    let (d, f, layers, vocab) = (4096_i64, 11008, 32, 32000);
    let n = layers * (4 * d * d + 3 * d * f + 2 * d) + 2 * vocab * d + d;
    let everywhere = |r: i64| layers * r * (4 * 2 * d + 3 * (d + f));
    let trained = [n, n, layers * 8 * 4 * d, everywhere(16), everywhere(64), everywhere(64)];
    ensure!(number(&page, "parameters")? == n as f64);
    ensure!(numbers(&page, "trained")? == trained.map(|t| t as f64));
    // Weights, gradients and two moments: 4 times 4 or 2 bytes a parameter; an adapter has 4 times 4 beside the base.
    let bytes = numbers(&page, "bytes")?;
    let base = |i: usize| bytes[i] - 16.0 * trained[i] as f64;
    ensure!(bytes[0] == 16.0 * n as f64 && bytes[1] == 8.0 * n as f64);
    ensure!((2..5).all(|i| base(i) == 2.0 * n as f64) && base(5) < 0.6 * n as f64);

    let names = ["full, f32", "full, bf16", "LoRA, r = 8, q and v", "LoRA, r = 16, all linear"];
    let names = names.into_iter().chain(["LoRA, r = 64, all linear", "QLoRA, r = 64, all linear"]);
    let gb = |b: f64| format!("{:.1}", b / 1e9);
    let rows = names.zip(trained).zip(&bytes).enumerate().map(|(i, ((name, t), all))| {
        let model = [4.0 * n as f64, 2.0 * n as f64].get(i).copied().unwrap_or(base(i));
        let share = format!("{:.2}%", 100.0 * t as f64 / n as f64);
        [name.into(), commas(t), share, gb(model), gb(all - model), gb(*all)].join(" | ")
    });
    let title = format!("Training a model of {} parameters with Adam, activations not counted", commas(n));
    let here: Vec<String> = page.tables()[0].rows.iter().map(|r| r.join(" | ")).collect();
    ensure!(here[0] == format!("threads within an operation | {}", tch::get_num_threads()));
    ensure!(here.len() == 6 && page.facts()["threads"] == tch::get_num_threads());
    same_tables(&page, &[("libtorch here", here), (&title, rows.collect())])?;
    for part in
        ["108 GB in f32, of which 81 GB", "13.5 GB, of which 0.07 GB", "(0.06%)", "(0.59%)", "(2.37%)"]
    {
        said(&page, part)?;
    }
    let base = |i: usize| if i < 2 { bytes[i] / 4.0 } else { bytes[i] - 16.0 * trained[i] as f64 };
    let model: Vec<f64> = (0..6).map(|i| base(i) / 1e9).collect();
    let rest: Vec<f64> = (0..6).map(|i| (bytes[i] - base(i)) / 1e9).collect();
    same_curves(&page, "depth_setup_memory", 0, &[model, rest])?;
    ensure!(page.facts()["cuda"] == false);
    figures(&page, &["depth_setup_memory"])
}

#[cfg(unix)]
#[test]
fn a_shell_redirects_as_said() -> Result<()> {
    let _alone = alone();
    let page = run("depth_setup")?;
    let files: Vec<String> = strings(&page.facts()["files"])?;
    ensure!(files == ["=4.35.0", "=0.24.0", "=2.14.0", "=0.7.0", "=0.41.0"]);
    said(&page, "runs `pip install -q transformers`, any version")?;
    said(&page, "to a file named `=4.35.0`; 5 such lines, 5 such files")?;
    let dir = tempfile::tempdir()?;
    for command in ["echo transformers>=4.35.0", "echo torch", "echo peft>=0.7.0 --quiet"] {
        let done = std::process::Command::new("sh").args(["-c", command]).current_dir(&dir).output()?;
        let (_, file) = redirected(command);
        ensure!(file.is_some() == done.stdout.is_empty(), "{command}");
        if let Some(file) = file {
            ensure!(dir.path().join(&file).is_file(), "{command}: no {file}");
        }
    }
    ensure!(std::fs::read_dir(&dir)?.count() == 2);
    Ok(())
}

#[test]
fn lora_says_what_it_computes() -> Result<()> {
    let _alone = alone();
    let (page, golden) = (run("depth_lora")?, golden("seed004")?);
    let math = &golden["math_examples"];
    close(
        "reduction",
        100.0 * number(&page, "reduction")?,
        math["reduction_as_printed_pct"].as_f64().context("pct")?,
    )?;
    let of_layer = math["reduction_vs_original_layer_pct"].as_f64().context("pct")?;
    close("of the layer", 100.0 * number(&page, "reduction_of_the_layer")?, of_layer)?;
    ensure!(number(&page, "identity")? == 0.0 && number(&page, "delta_rank")? == 16.0);
    ensure!(number(&page, "between_eval_passes")? == 0.0 && number(&page, "between_passes")? > 0.01);
    ensure!(number(&page, "scale_of_defaults")? == 8.0 && number(&page, "scale_of_the_test")? == 2.0);
    let titles: Vec<&str> = page.mistaken().iter().map(|m| m.about.as_str()).collect();
    ensure!(titles.len() == 4, "{titles:?}");
    for part in [
        "91.4% of layer",
        "90.6% of the layer",
        "scale by 8, its test, rank 16, by 2",
        "8/8 give 1",
        "0.0255",
    ] {
        said(&page, part)?;
    }
    said(&page, &format!("two passes differ by up to {:.3}", number(&page, "between_passes")?))?;
    said(&page, &format!("‖ΔW‖ is {:.4} and its rank 16", number(&page, "delta_norm")?))?;

    let [std, a, b, adam, sgd, loss] = ["std", "grad_a", "grad_b", "adam", "sgd", "loss"]
        .map(|key| numbers(&page, &format!("starts.{key}")));
    let [std, a, b, adam, sgd, loss] = [std?, a?, b?, adam?, sgd?, loss?];
    for (found, expected) in std.iter().zip([0.01, (3.0 * 512_f64).sqrt().recip(), 1.0 / 16.0]) {
        // The spread of 8,192 draws is known to about one in a hundred.
        ensure!((found / expected - 1.0).abs() < 0.03, "{found} for {expected}");
    }
    ensure!(a == [0.0; 3] && b.iter().all(|g| *g > 0.0));
    // Adam's first step of B does not depend on the gradient's size, SGD's does: σ once, and σ twice.
    for (found, power) in [(&adam, 1), (&sgd, 2)] {
        for i in [1, 2] {
            let ratio = (found[i] / found[0]) / (std[i] / std[0]).powi(power);
            ensure!((0.75..1.35).contains(&ratio), "{ratio}");
        }
    }
    let tiny = |v: f64| if v == 0.0 { "0".to_owned() } else { format!("{v:.2e}") };
    let names = ["N(0, 0.01²), the lesson's", "U(±1/√in), PEFT's", "N(0, 1/r²), PEFT's `gaussian`"];
    let row = |(i, name): (usize, &str)| {
        let cells =
            [format!("{:.4}", std[i]), tiny(a[i]), tiny(b[i]), tiny(adam[i]), tiny(sgd[i]), tiny(loss[i])];
        format!("{name} | {}", cells.join(" | "))
    };
    let title = "The first step from three starts of A, learning rate 0.001, and 60 steps of Adam";
    same_tables(&page, &[(title, names.into_iter().enumerate().map(row).collect())])?;
    said(&page, &format!("{:.1} times as far", adam[1] / adam[0]))?;
    said(&page, &format!("{:.1} times with SGD", sgd[1] / sgd[0]))?;
    let losses: Vec<Vec<f64>> = serde_json::from_value(page.facts()["starts.losses"].clone())?;
    ensure!(losses.iter().map(|l| l[l.len() - 1]).collect::<Vec<_>>() == loss && losses[0].len() == 60);
    same_curves(&page, "depth_lora_starts", 0, &losses)?;
    tested(&page, 512 * 16 + 16 * 256)?;
    figures(&page, &["depth_lora_starts"])
}

#[test]
fn arithmetic_is_the_lessons() -> Result<()> {
    let _alone = alone();
    let (page, golden) = (run("depth_arithmetic")?, golden("seed004")?);
    let math = &golden["math_examples"];
    ensure!(math["full_4096"] == page.facts()["full"] && math["lora_r64"] == page.facts()["lora"]);
    ensure!(math["fewer_pct"] == page.facts()["fewer"]);
    let lines = [
        "Full fine-tuning: 4096 × 4096 = 16,777,216 parameters",
        "LoRA, r = 64: (4096 + 4096) × 64 = 524,288 parameters",
        "Fewer parameters: 96.875%",
        "B (4096 × 4) times A (4 × 4096): [4096, 4096]",
    ];
    same_lines(page.lines(), &lines)?;
    let full = 4096.0 * 4096.0;
    let sizes = [1, 4, 8, 16, 64, 256, 1024, 2048, 4096].map(|r: i64| {
        let n = 2 * 4096 * r;
        let share = 100.0 * n as f64 / full;
        format!("{r} | {} | {share:.3}% | {:.3}% | {:.1}×", commas(n), 100.0 - share, 100.0 / share)
    });
    ensure!(numbers(&page, "counts")?[4] == 524_288.0);

    // Eckart and Young: the cut is off by the tail of the singular values, and nothing of its rank is closer.
    let [svd, tail, random, learned] = ["svd", "tail", "random", "learned"].map(|key| numbers(&page, key));
    let [svd, tail, random, learned] = [svd?, tail?, random?, learned?];
    let ranks = [1, 2, 4, 8, 16, 32];
    ensure!(svd.len() == ranks.len() && svd.windows(2).all(|w| w[1] < w[0]));
    for i in 0..ranks.len() {
        ensure!((svd[i] - tail[i]).abs() < 1e-12, "{} {}", svd[i], tail[i]);
        ensure!(learned[i] >= svd[i] - 1e-6 && random[i] > svd[i]);
        // Trained factors come close to the least there is.
        ensure!(learned[i] < 1.02 * svd[i], "rank {}: {} {}", ranks[i], learned[i], svd[i]);
    }
    ensure!(number(&page, "sum_error")? < 1e-12);
    let cuts = ranks
        .iter()
        .enumerate()
        .map(|(i, r)| format!("{r} | {:.4} | {:.4} | {:.4} | {:.4}", svd[i], tail[i], learned[i], random[i]));
    let title = "How far from a real ΔW (ff.0, 256 × 64, 40 steps of fine-tuning), of ‖ΔW‖";
    same_tables(&page, &[("LoRA of a 4096 × 4096 weight", sizes.to_vec()), (title, cuts.collect())])?;
    said(
        &page,
        "524,288 instead of 16,777,216: 96.875% fewer, of one matrix; it is 0% at r = d/2 = 2048, and r = d has 100% more",
    )?;
    said(&page, &format!("At r = 4 that is {:.3}", svd[2]))?;
    let counts = [1, 4, 8, 16, 64, 256, 1024, 2048, 4096].map(|r| f64::from(2 * 4096 * r));
    ensure!(numbers(&page, "counts")? == counts);
    let percents = [svd, learned, random].map(|all| all.into_iter().map(|v| 100.0 * v).collect());
    same_curves(&page, "depth_arithmetic_distance", 0, &percents)?;
    figures(&page, &["depth_arithmetic_distance"])
}

#[test]
fn similarity_is_that_of_the_subspaces() -> Result<()> {
    let _alone = alone();
    tch::manual_seed(0);
    let eye = Tensor::eye(6, (Kind::Double, Device::Cpu));
    // Rows 0 and 1, and rows 1, 2 and 0, each with falling lengths: φ by hand.
    let weighed = |rows: &[i64]| {
        let lengths: Vec<f64> = (0..rows.len()).map(|i| 9.0 - i as f64).collect();
        Spectrum::of(
            &(eye.index_select(0, &Tensor::from_slice(rows)) * Tensor::from_slice(&lengths).unsqueeze(1)),
        )
    };
    let phi = similarity(&weighed(&[0, 1])?, &weighed(&[1, 2, 0])?)?;
    let expected = [[0.0, 0.0, 1.0], [1.0, 0.5, 1.0]];
    for (row, expected) in phi.iter().zip(expected) {
        ensure!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{phi:?}");
    }
    // Random subspaces: max(i, j)/d on average.
    let (d, n) = (40, 50);
    let mut sum = 0.0;
    for _ in 0..n {
        let draw = |r: i64| Spectrum::of(&Tensor::randn([r, d], (Kind::Double, Device::Cpu)));
        sum += similarity(&draw(4)?, &draw(10)?)?[3][9];
    }
    ensure!((sum / f64::from(n) - 0.25).abs() < 0.03, "{}", sum / f64::from(n));
    Ok(())
}

#[test]
fn ranks_of_real_changes() -> Result<()> {
    let _alone = alone();
    let page = run("depth_rank")?;
    let (before, full) = (number(&page, "before")?, number(&page, "full")?);
    ensure!(full > before + 0.2 && number(&page, "parameters")? == 56_644.0);
    ensure!(
        page.lines().len() == 4 && page.lines()[0] == "Base: 56,644 parameters, pre-trained for 500 steps"
    );
    let own = percent(number(&page, "pretrained")?);
    ensure!(page.lines()[1] == format!("Its own tasks, held out      : {own}"));
    ensure!(page.lines()[3].starts_with("New task, full, 150 steps"));
    ensure!(page.lines()[2].ends_with(&percent(before)) && page.lines()[3].ends_with(&percent(full)));

    let (mut ranks, mut alike, mut ninety) = (Vec::new(), Vec::new(), Vec::new());
    let shares = [0.5, 0.9, 0.95, 0.99];
    for (matrix, [out, inp]) in MATRICES {
        let mut listed = Vec::new();
        for of in [matrix.to_owned(), format!("{matrix}.random")] {
            let values = numbers(&page, &format!("{of}.singular_values"))?;
            ensure!(values.len() == 64 && values.windows(2).all(|w| w[0] >= w[1]) && values[63] >= 0.0);
            let total: f64 = values.iter().map(|s| s * s).sum();
            let mut kept = 0.0;
            let energy: Vec<f64> = values
                .iter()
                .map(|s| {
                    kept += s * s;
                    kept / total
                })
                .collect();
            let needed = shares.map(|share| energy.iter().take_while(|e| **e < share).count() as f64 + 1.0);
            ensure!(numbers(&page, &format!("{of}.ranks"))? == needed, "{of}");
            listed.push(needed);
        }
        ninety.push((listed[0][1], format!("{} of 64 ({matrix})", listed[0][1])));
        // Real changes have fewer directions than noise, at every share.
        ensure!(listed[0].iter().zip(listed[1]).all(|(own, noise)| *own < noise), "{matrix}: {listed:?}");
        let relative = percent(number(&page, &format!("{matrix}.relative"))?);
        let text = |r: &[f64; 4]| r.map(|r| r.to_string()).join(" / ");
        ranks.push(format!(
            "{matrix} ({out} × {inp}) | {relative} | 64 | {} | {}",
            text(&listed[0]),
            text(&listed[1])
        ));

        let phi = |key: &str| -> Result<Vec<Vec<f64>>> {
            Ok(serde_json::from_value(page.facts()[&format!("{matrix}.{key}")].clone())?)
        };
        let (learned, random) = (phi("similarity")?, phi("random.similarity")?);
        ensure!(learned.len() == 4 && learned[0].len() == 16);
        for cell in learned.iter().chain(&random).flatten() {
            ensure!((0.0..=1.0 + 1e-9).contains(cell), "{cell}");
        }
        // The learned subspaces overlap more than drawn ones do, and more than drawn ones would on average.
        let mean = 16.0 / inp as f64;
        ensure!(learned[3][15] > random[3][15] && learned[3][15] > mean, "{matrix}: {}", learned[3][15]);
        let with_full = number(&page, &format!("{matrix}.similarity_with_full"))?;
        ensure!(with_full > mean && with_full <= 1.0);
        let pair =
            |i: usize, j: usize| format!("{:.2} ({:.2})", learned[i - 1][j - 1], j as f64 / inp as f64);
        let cells = [pair(1, 1), pair(1, 16), pair(4, 16), format!("{with_full:.2} ({mean:.2})")];
        alike.push(format!("{matrix} | {}", cells.join(" | ")));
        said(&page, &format!("{matrix} {:.2}", learned[0][15]))?;
        said(&page, &format!("{matrix} {} (random {})", listed[0][1], listed[1][1]))?;
    }

    ninety.sort_by(|a, b| a.0.total_cmp(&b.0));
    said(&page, &format!("90 % in {}, in {}", ninety[0].1, ninety[3].1))?;

    let [rank, kept, cut] = ["rank", "kept", "accuracy"].map(|key| numbers(&page, &format!("cut.{key}")));
    let (rank, kept, cut) = (rank?, kept?, cut?);
    let (lora, trainable) = (numbers(&page, "lora.accuracy")?, numbers(&page, "lora.trainable")?);
    ensure!(rank == [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0]);
    ensure!(kept.windows(2).all(|w| w[0] <= w[1]) && (kept[11] - 1.0).abs() < 1e-6);
    // At full rank the cut change is the change: the same logits up to rounding, and the same rows right.
    ensure!(number(&page, "full_rank.logit_error")? < 1e-4 * number(&page, "full_rank.logit_scale")?);
    ensure!((cut[11] - full).abs() * number(&page, "test_rows")? <= 1.5, "{} {full}", cut[11]);
    ensure!(cut[0] < cut[11] && lora.iter().all(|a| *a > before), "{cut:?} {lora:?}");
    let trained: Vec<f64> = [1.0, 2.0, 4.0, 8.0, 16.0].map(|r| r * (256.0 + 128.0 + 320.0 + 320.0)).to_vec();
    ensure!(trainable == trained, "{trainable:?}");
    let mut trains = [1.0, 2.0, 4.0, 8.0, 16.0].iter().zip(lora.iter().zip(&trainable)).peekable();
    let rows = rank.iter().enumerate().map(|(i, r)| {
        let (accuracy, n) = match trains.next_if(|(at, _)| *at == r) {
            Some((_, (accuracy, n))) => {
                (percent(*accuracy), format!("{} ({})", commas(*n as i64), percent(n / 56_644.0)))
            }
            None => ("–".into(), "–".into()),
        };
        [r.to_string(), percent(kept[i]), percent(cut[i]), accuracy, n].join(" | ")
    });
    let rows = rows.collect();
    same_tables(
        &page,
        &[
            ("Ranks that keep 50 / 90 / 95 / 99 % of ‖ΔW‖² after full fine-tuning", ranks),
            ("Accuracy on the new task with no more than this rank", rows),
            ("Input directions that A of rank 4 and A of rank 16 share (of random ones: the mean)", alike),
        ],
    )?;
    let won = (cut[3] - before) / (full - before);
    close("won at rank 4", number(&page, "won_at_4")?, won)?;
    said(&page, &format!("with {} of ‖ΔW‖² left, the model keeps {} of", percent(kept[3]), percent(won)))?;
    let best = lora.iter().copied().fold(0.0, f64::max);
    said(&page, &format!("gets {}, full fine-tuning {}", percent(best), percent(full)))?;
    let choices = numbers(&page, "choices.accuracy")?;
    // The rate is what pays; the start is the lesson's, and need not be the better one.
    ensure!(choices.len() == 3 && choices[0] == lora[2] && choices[1] < choices[0], "{choices:?}");
    ensure!(choices[2] > before, "{choices:?}");
    let mut energies = Vec::new();
    for (panel, (matrix, _)) in MATRICES.into_iter().enumerate() {
        let of = |name: String| numbers(&page, &format!("{name}.singular_values"));
        let (own, noise) = (of(matrix.to_owned())?, of(format!("{matrix}.random"))?);
        energies.push(energy(&own));
        if panel == 3 {
            energies.push(energy(&noise));
        }
        same_curves(&page, "depth_rank_singular_values", panel, &[own, noise])?;
        for (row, key) in [(0, "similarity"), (4, "random.similarity")] {
            let phi: Vec<Vec<f64>> =
                serde_json::from_value(page.facts()[&format!("{matrix}.{key}")].clone())?;
            let columns: Vec<Vec<f64>> = (0..16).map(|j| phi.iter().map(|row| row[j]).collect()).collect();
            same_curves(&page, "depth_rank_subspaces", row + panel, &columns)?;
        }
    }
    same_curves(&page, "depth_rank_energy", 0, &energies)?;
    let hundred = |all: &[f64]| all.iter().map(|a| 100.0 * a).collect::<Vec<_>>();
    let curves = [hundred(&cut), hundred(&lora), vec![100.0 * full; 12], vec![100.0 * before; 12]];
    same_curves(&page, "depth_rank_accuracy", 0, &curves)?;
    let below = number(&page, "below_one_percent")?;
    said(&page, &format!("here {below} of {} are below", number(&page, "directions")?))?;
    figures(
        &page,
        &["depth_rank_singular_values", "depth_rank_energy", "depth_rank_accuracy", "depth_rank_subspaces"],
    )
}

/// The lines of a method in the lesson's test.
fn layer_lines(title: &str, trained: i64, reduction: &str, last: &str) -> Vec<String> {
    vec![
        format!("🔧 Creating a test linear layer and its {title} version..."),
        "Original layer parameters: 131,328".into(),
        format!("{title} trainable parameters: {}", commas(trained)),
        format!("{title} total parameters: {}", commas(131_328 + trained)),
        format!("Parameter reduction: {reduction}%"),
        "Input shape: torch.Size([32, 512])".into(),
        "Output shape: torch.Size([32, 256])".into(),
        format!("Initial {last} norm: 0.000000 (should be ~0)"),
    ]
}

#[test]
fn dora_in_the_lessons_test() -> Result<()> {
    let _alone = alone();
    let page = run("depth_dora")?;
    same_lines(page.lines(), &layer_lines("DoRA", 16 * (512 + 256) + 256, "91.3", "ΔW"))?;
    ensure!(number(&page, "identity")? == 0.0 && number(&page, "magnitude_error")? < 1e-6);
    let (error, scale) = (number(&page, "library_error")?, number(&page, "library_scale")?);
    ensure!(error < 1e-5 * scale.max(0.01) && number(&page, "merge_error")? < 1e-5, "{error}");
    let [delta, rank, length, angle] = ["delta", "rank", "length", "angle"].map(|key| numbers(&page, key));
    let (delta, rank, length, angle) = (delta?, rank?, length?, angle?);
    ensure!(rank == [16.0, 256.0, 256.0]);
    // The same direction in both; lengths only where m says so.
    ensure!((angle[0] - angle[1]).abs() < 1e-6 && angle[2] < 1e-5 && angle[0] > 1.0, "{angle:?}");
    ensure!(length[0] > 1e-3 && length[1] < 1e-6 && (length[2] - 0.1).abs() < 1e-6, "{length:?}");
    let names =
        ["LoRA: W + s B A", "DoRA: the same A and B, m as it starts", "DoRA: B = 0, m a tenth longer"];
    let row = |(i, name): (usize, &str)| {
        format!("{name} | {:.4} | {} | {} | {:.2}°", delta[i], rank[i], percent(length[i]), angle[i])
    };
    let rows = names.into_iter().enumerate().map(row).collect();
    same_tables(&page, &[("What becomes of W's rows (B from N(0, 0.02²))", rows)])?;
    said(&page, "256 more parameters than LoRA")?;
    said(&page, &format!("turn the rows by {:.2}° in both", angle[1]))?;
    said(&page, &format!("{} off in LoRA, {} in DoRA", percent(length[0]), percent(length[1])))?;
    said(&page, "10.0% and 0.00°")?;
    said(&page, "ΔW of DoRA has rank 256, not r = 16")?;
    let values: Vec<Vec<f64>> = serde_json::from_value(page.facts()["singular_values"].clone())?;
    let curves: Vec<Vec<f64>> =
        values.iter().zip(&rank).map(|(v, r)| v.iter().take(*r as usize).copied().collect()).collect();
    same_curves(&page, "depth_dora_singular_values", 0, &curves)?;
    tested(&page, 16 * (512 + 256) + 256)?;
    figures(&page, &["depth_dora_singular_values"])
}

#[test]
fn adapter_in_the_lessons_test() -> Result<()> {
    let _alone = alone();
    let page = run("depth_adapter")?;
    let trained = |r: i64| 2 * 256 * r + r + 256;
    same_lines(page.lines(), &layer_lines("Adapter", trained(16), "93.9", "change of the output"))?;
    ensure!(number(&page, "identity")? == 0.0);
    ensure!(number(&page, "lora.rank")? == 16.0 && number(&page, "adapter.rank")? == 16.0);
    // One is a matrix, the other is not.
    ensure!(number(&page, "lora.bend")? < 1e-5 && number(&page, "adapter.bend")? > 0.05);
    let pair = |key: &str| -> Result<[f64; 2]> {
        Ok([number(&page, &format!("lora.{key}"))?, number(&page, &format!("adapter.{key}"))?])
    };
    let two = |[a, b]: [f64; 2], f: &dyn Fn(f64) -> String| format!("{} | {}", f(a), f(b));
    let changes = vec![
        format!("trained (of the layer) | 12,288 (9.4%) | {} (6.4%)", commas(trained(16))),
        format!("change of 32 outputs, ‖y − y₀‖ | {}", two(pair("change")?, &|v| format!("{v:.4}"))),
        format!("directions of that change | {}", two(pair("rank")?, &|v| v.to_string())),
        format!("half-way against half the sum | {}", two(pair("bend")?, &|v| format!("{v:.1e}"))),
    ];
    let counts = [1, 2, 4, 8, 16, 32, 64, 128]
        .map(|r: i64| [r, 768 * r, 768 * r + 256, trained(r)].map(commas).join(" | "));
    same_tables(
        &page,
        &[
            ("As if trained: B and U from N(0, 0.02²)", changes),
            ("Trained parameters at this layer", counts.to_vec()),
        ],
    )?;
    said(&page, "takes 8,464 parameters and not 12,288")?;
    said(&page, &format!("it is {} off half the sum", percent(number(&page, "adapter.bend")?)))?;
    said(&page, "bottleneck adapter at `after` cannot be merged")?;
    let widths = [1, 2, 4, 8, 16, 32, 64, 128];
    let counts =
        [widths.map(|r: i64| 768 * r), widths.map(|r| 768 * r + 256), widths.map(trained), [131_328; 8]];
    let counts = counts.map(|all| all.map(|n| n as f64).to_vec());
    for (name, expected) in ["counts.LoRA", "counts.DoRA", "counts.adapter"].into_iter().zip(&counts) {
        ensure!(numbers(&page, name)? == *expected, "{name}");
    }
    same_curves(&page, "depth_adapter_counts", 0, &counts)?;
    tested(&page, trained(16))?;
    let refusal = page.facts()["refusal"].as_str().context("a refusal")?;
    said(&page, &format!("\"{refusal}\""))?;
    figures(&page, &["depth_adapter_counts"])
}
