//! The page at the end of a run, and what a browser makes of it.

use peft_cli::watch::summary::{Fact, Memory, Tensors};
use peft_cli::watch::{Event, Run, Step, Summary, report};
use std::path::Path;
use std::process::Command;

/// Noise that is the same everywhere.
fn noise(i: u64) -> f64 {
    let x = (i.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
}

fn run(name: &str, seed: u64, steps: u64) -> Run {
    let mut events = Vec::new();
    let sample = |step, text: &str| Event::Sample {
        step,
        prompt: "Which section of Debian is a text editor in?\n\nAnswer:".into(),
        before: None,
        text: text.into(),
    };
    events.push(sample(
        0,
        " The section of the section of the section of the section of the section of the section",
    ));
    for i in 1..=steps {
        let t = i as f64 / steps as f64;
        let loss = 1.2 + 2.6 * (-4.0 * t).exp() + 0.5 * noise(i + 7919 * seed);
        events.push(Event::Step(Step {
            step: i,
            epoch: 3.0 * t,
            loss,
            lr: 1e-3 * (t * 10.0).min(1.0) * (1.0 - t).max(0.0),
            grad_norm: Some(0.8 + 0.6 * (-3.0 * t).exp() + 0.3 * noise(i + 13 + seed)),
            tokens: 2048,
            learned: 600,
            seconds: 0.7 + 0.1 * noise(i + 31 + seed),
            memory: Some(1_500_000_000),
        }));
        if i % (steps / 10) == 0 {
            let loss = 1.4 + 2.4 * (-4.0 * t).exp() + 0.3 * (t - 0.7).max(0.0) + 0.05 * noise(i + seed);
            let figures = [
                ("accuracy".to_owned(), 0.9 - 0.6 * (-3.0 * t).exp()),
                ("perplexity".to_owned(), loss.exp()),
            ];
            events.push(Event::Eval { step: i, epoch: 3.0 * t, loss, figures: figures.into(), seconds: 9.0 });
        }
    }
    events.push(Event::Note {
        step: steps / 2,
        text: "out of memory: micro-batches of 4 in place of 8 from here on".into(),
    });
    events.push(sample(steps, " editors\n\n(vim, emacs & <b>nano</b> are \"editors\")"));
    Run { name: name.to_owned(), events }
}

fn summary() -> Summary {
    let memory = |part: &str, predicted, measured| Memory { part: part.into(), predicted, measured };
    Summary {
        title: "LoRA on SmolLM2-135M-Instruct".into(),
        outcome: "Finished after 600 updates, 3 epochs; the best evaluation was after update 420.".into(),
        facts: vec![
            Fact::new("Base", "HuggingFaceTB/SmolLM2-135M-Instruct"),
            Fact::new("Method", "LoRA, r 8, alpha 16, on q_proj and v_proj of 30 layers"),
            Fact::new("Data", "data/instructions.jsonl: 3,200 rows to train on, 320 to evaluate on"),
            Fact::new("Saved in", "runs/a_rather_long_name_of_a_directory_without_a_single_space_in_it/adapter"),
        ],
        recipe: "# what to train\nmodel = \"HuggingFaceTB/SmolLM2-135M-Instruct\"\n\n[method]\nname = \"lora\"\nr = 8\ntarget_modules = [\"q_proj\", \"v_proj\", \"k_proj\", \"o_proj\", \"gate_proj\", \"up_proj\", \"down_proj\"]\n".into(),
        trainable: 460_800,
        all: 134_975_808,
        tensors: vec![Tensors { name: "base_model.model.model.layers.*.self_attn.q_proj.lora_A.weight".into(), count: 30, shape: vec![8, 576], parameters: 138_240 }],
        memory: vec![
            memory("base", Some(538_060_032), Some(538_060_032)),
            memory("optimizer", Some(3_686_400), Some(3_700_000)),
            memory("all", Some(1_400_000_000), Some(1_500_000_000)),
            memory("unknown", None, None),
        ],
        environment: vec![Fact::new("peft-rs", "0.1.0"), Fact::new("libtorch", "2.11.0+cpu"), Fact::new("Device", "CPU, 2 threads")],
        warnings: vec!["adapter_config.json: runtime_config: is Python's and changes no number here".into()],
    }
}

fn page(runs: &[Run]) -> String {
    report::html(&summary(), runs).unwrap()
}

#[test]
fn it_says_what_was_done() {
    let html = page(&[run("", 0, 600)]);
    for said in [
        "LoRA on SmolLM2-135M-Instruct",
        "460,800 of 134,975,808 parameters are trained, 0.3414 %",
        "target_modules = [",
        "8 × 576",
        "-6.7 %",
        "micro-batches of 4",
        "runtime_config",
        "2.11.0+cpu",
        "After update 600",
        "Before training",
        "(best)",
        "training, each update",
        "training, smoothed",
        ">Accuracy<",
        ">Perplexity<",
        ">Learning rate<",
    ] {
        assert!(html.contains(said), "{said}");
    }
    assert_eq!(html.matches("<svg").count(), 6);
    assert_eq!(html.matches("role=\"img\" aria-labelledby=\"t").count(), 6);
    assert!(html.contains("<desc id=\"d0\">Loss over updates. training, smoothed: from "));
    // Whatever a text holds, it is text.
    assert!(!html.contains("<b>nano") && html.contains("&lt;b&gt;nano"));
    assert!(!html.contains("<script"));
}

#[test]
fn long_runs_make_no_long_pages_and_peaks_stay() {
    let mut long = run("", 0, 200_000);
    let short = page(&[run("", 0, 600)]).len();
    for event in &mut long.events {
        if let Event::Step(step) = event
            && step.step == 123_457
        {
            step.loss = 77.0;
        }
    }
    let html = page(&[long]);
    assert!(html.len() < 2 * short, "{} bytes", html.len());
    // The axis goes as high as the one update.
    assert!(html.contains("\n80\n"));
}

#[test]
fn several_seeds_are_told_apart() {
    let html = page(&[run("seed 0", 0, 100), run("seed 1", 1, 100), run("seed 2", 2, 100)]);
    for said in [
        "seed 0: training, smoothed",
        "seed 2: evaluation",
        "±",
        "seed 1, update 50: out of memory",
        ">seed 2<",
    ] {
        assert!(html.contains(said), "{said}");
    }
}

#[test]
fn there_may_be_nothing_to_draw() {
    for runs in [vec![], vec![Run::default()]] {
        let html = report::html(&Summary::default(), &runs).unwrap();
        assert!(html.contains("nothing to draw") && !html.contains("<svg"));
    }
    let nan = Event::Step(Step { step: 1, loss: f64::NAN, lr: 0.1, ..Step::default() });
    let html = report::html(&Summary::default(), &[Run { name: "\u{1}".into(), events: vec![nan] }]).unwrap();
    assert_eq!(html.matches("<svg").count(), 1);
}

#[test]
fn it_is_written_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(report::FILE);
    std::fs::write(&path, "old").unwrap();
    report::write(&path, &summary(), &[run("", 0, 60)]).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("</html>\n"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let error = report::write(Path::new("/proc/none/report.html"), &summary(), &[]).unwrap_err();
    assert!(format!("{error:#}").contains("/proc/none"), "{error:#}");
}

#[test]
fn a_browser_opens_it() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/check_report.py");
    let dir = tempfile::tempdir().unwrap();
    let dir = std::env::var_os("PEFT_REPORT_DIR").map_or(dir.path().to_owned(), Into::into);
    let pages = [
        ("one.html", vec![run("", 0, 600)]),
        ("seeds.html", (0..3).map(|s| run(&format!("seed {s}"), s, 200)).collect()),
    ];
    for (name, runs) in pages {
        report::write(&dir.join(name), &summary(), &runs).unwrap();
    }
    let checked =
        Command::new("python3").arg(script).args([dir.join("one.html"), dir.join("seeds.html")]).output();
    match checked {
        Err(e) => eprintln!("not checked in a browser: python3 cannot be run ({e})"),
        Ok(done) => {
            let said =
                String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
            eprintln!("{said}");
            assert!(done.status.success(), "{said}");
        }
    }
}
