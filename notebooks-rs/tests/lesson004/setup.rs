//! 0: the set-up.

use super::*;

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
    let files: Vec<String> = strings(&page.facts()["redirected"])?;
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
