//! Draws one figure of each kind, and the hard cases: `cargo run -p peft-plot --example gallery -- DIR`.

use peft_plot::*;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: gallery DIR")?);
    for (name, figure) in figures() {
        for path in figure.save(&dir, name)? {
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// A repeatable noise between -1 and 1.
fn noise(i: usize) -> f64 {
    let x = (i as f64 * 12.9898).sin() * 43758.5453;
    2.0 * (x - x.floor()) - 1.0
}

fn axis(label: &str) -> Axis {
    Axis { label: label.into(), ..Axis::default() }
}

fn log(label: &str) -> Axis {
    Axis { log: true, ..axis(label) }
}

fn names(of: &[&str]) -> Vec<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

fn figure(title: &str, rows: Vec<Vec<Panel>>, note: Option<&str>) -> Figure {
    Figure { title: title.into(), rows, note: note.map(str::to_owned) }
}

const METHODS: [&str; 12] = [
    "full",
    "LoRA",
    "DoRA",
    "QLoRA",
    "AdaLoRA",
    "bottleneck",
    "(IA)³",
    "prefix",
    "prompt",
    "BitFit",
    "diff pruning",
    "partial",
];

const PARAMETERS: [f64; 12] = [
    124e6, 294_912.0, 304_128.0, 294_912.0, 442_368.0, 1.8e6, 55_296.0, 9.8e6, 15_360.0, 102_912.0, 6e6, 14e6,
];

pub fn figures() -> Vec<(&'static str, Figure)> {
    vec![
        ("bars", bars()),
        ("bars-grouped", grouped()),
        ("lines", lines()),
        ("lines-small", single()),
        ("points", points()),
        ("bubbles", bubbles()),
        ("heat", heat()),
        ("attention", attention()),
        ("shapes", shapes()),
        ("bars-labels", labels()),
        ("mixed", mixed()),
        ("extremes", extremes()),
    ]
}

fn bars() -> Figure {
    let values = PARAMETERS.to_vec();
    let labels = values.iter().map(|v| format!("{:.2}M\n{:.3}%", v / 1e6, v / 124e4)).collect();
    let bars = Bars {
        title: "Trainable parameters of GPT-2 small".into(),
        categories: names(&METHODS),
        x: "method".into(),
        y: log("trainable parameters"),
        groups: vec![BarGroup { name: "".into(), values, labels: Some(labels), errors: None }],
    };
    figure("What each method trains", vec![vec![Panel::Bars(bars)]], Some("Rank 8, on query and value."))
}

fn grouped() -> Figure {
    let group = |name: &str, scale: f64, k: usize| BarGroup {
        name: name.into(),
        values: (0..5).map(|i| scale * (0.7 + 0.2 * noise(7 * i + k))).collect(),
        errors: Some((0..5).map(|i| 0.05 * (1.0 + noise(i + k))).collect()),
        labels: Some((0..5).map(|i| format!("{:.2}", scale * (0.7 + 0.2 * noise(7 * i + k)))).collect()),
    };
    let memory = |parts: &[&str]| Bars {
        title: "Memory of a 7B model".into(),
        categories: names(parts),
        x: "".into(),
        y: axis("memory (GB)"),
        groups: vec![BarGroup {
            name: "full".into(),
            values: vec![14.0, 14.0, 56.0, 0.5],
            errors: None,
            labels: Some(names(&["14.0 GB", "14.0 GB", "56.0 GB", "0.5 GB"])),
        }],
    };
    let accuracy = Bars {
        title: "Accuracy on the synthetic task, mean and standard deviation over five seeds".into(),
        categories: names(&[
            "LoRA",
            "prefix tuning",
            "prompt tuning with a vocabulary start",
            "(IA)³",
            "BitFit",
        ]),
        x: "method, each at its own learning rate".into(),
        y: Axis { range: Some((0.0, 1.0)), ..axis("accuracy (share of the examples)") },
        groups: vec![group("training", 1.1, 1), group("validation", 0.95, 5), group("test", 0.9, 9)],
    };
    let change = Bars {
        title: "Change against the base".into(),
        categories: names(&["a", "b", "c"]),
        x: "layer".into(),
        y: axis("change (points)"),
        groups: vec![BarGroup {
            values: vec![3.0, -2.0, 0.0],
            labels: Some(names(&["+3.0", "−2.0", "0"])),
            errors: Some(vec![0.5, 0.5, 0.1]),
            name: "".into(),
        }],
    };
    let parts = memory(&["weights", "gradients", "optimizer states", "activations"]);
    figure(
        "Bars in groups, with errors, below zero",
        vec![vec![Panel::Bars(accuracy)], vec![Panel::Bars(parts), Panel::Bars(change)]],
        Some(
            "The note may be as long as it likes: it is broken into lines between words, so that it never leaves the \
              picture, and says where the numbers come from, what was measured, over which seeds, and what to look at.",
        ),
    )
}

fn lines() -> Figure {
    let curve = |k: usize, name: &str| Series {
        name: name.into(),
        points: (0..60).map(|i| (10.0 * i as f64, 0.1 * k as f64 + 2.0 * (-0.05 * i as f64).exp())).collect(),
        band: k.is_multiple_of(3).then(|| (0..60).map(|i| 0.04 + 0.002 * i as f64).collect()),
        ..Series::default()
    };
    let eight: Vec<Series> = METHODS[..8].iter().enumerate().map(|(k, name)| curve(k, name)).collect();
    let lines = Lines {
        title: "Loss of eight methods".into(),
        x: axis("step"),
        y: axis("cross-entropy (nats)"),
        series: eight,
    };
    let spectrum = Lines {
        title: "Singular values of ΔW and the energy up to each rank, with W₀ beside them".into(),
        x: log("rank r"),
        y: log("singular value σ"),
        series: ["ΔW = s·BA", "W₀", "noise"]
            .iter()
            .enumerate()
            .map(|(k, name)| Series {
                name: (*name).into(),
                points: (1..=64).map(|i| (i as f64, 10f64.powf(-(k as f64) - 0.04 * i as f64))).collect(),
                markers: k == 0,
                ..Series::default()
            })
            .collect(),
    };
    figure("Curves", vec![vec![Panel::Lines(lines), Panel::Lines(spectrum)]], None)
}

fn single() -> Figure {
    let series = (0..8)
        .map(|k| Series {
            name: format!("series {k} with markers and a longer name"),
            points: (0..6).map(|i| (i as f64, (i * k) as f64 * 1e4)).collect(),
            markers: true,
            ..Series::default()
        })
        .collect();
    let lines = Lines {
        title: "Markers".into(),
        x: axis("epoch"),
        y: Axis { range: Some((0.0, 2e5)), ..axis("tokens") },
        series,
    };
    figure("Curves that leave the range", vec![vec![Panel::Lines(lines)]], None)
}

fn points() -> Figure {
    let points = METHODS
        .iter()
        .zip(PARAMETERS)
        .enumerate()
        .map(|(i, (label, x))| Point {
            label: (*label).into(),
            x,
            y: 0.85 + 0.1 * noise(i),
            error: Some(0.02 + 0.01 * noise(i + 40)),
            area: 0.0,
        })
        .collect();
    let points = Points {
        title: "Accuracy against trainable parameters".into(),
        x: log("trainable parameters"),
        y: axis("accuracy, mean ± standard deviation over 5 seeds"),
        points,
        area: None,
    };
    figure("The comparison", vec![vec![Panel::Points(points)]], None)
}

fn bubbles() -> Figure {
    let points = METHODS[..7]
        .iter()
        .enumerate()
        .map(|(i, label)| Point {
            label: format!("{label}\n{} GB", 4 * i + 1),
            x: 20.0 + 10.0 * noise(3 * i),
            y: 80.0 + 10.0 * noise(i + 2),
            error: None,
            area: 4.0 * i as f64 + 1.0,
        })
        .collect();
    let points = Points {
        title: "Speed, quality and memory".into(),
        x: axis("throughput (examples/s)"),
        y: axis("accuracy (%)"),
        points,
        area: Some("memory (GB)".into()),
    };
    figure("Bubbles", vec![vec![Panel::Points(points)]], None)
}

fn matrix(rows: usize, columns: usize, scale: f64, k: usize) -> Vec<Vec<f64>> {
    (0..rows).map(|i| (0..columns).map(|j| scale * noise(i * columns + j + k)).collect()).collect()
}

fn outer(n: usize) -> Vec<Vec<f64>> {
    (0..n).map(|i| (0..n).map(|j| 0.02 * noise(i) * noise(j + 99)).collect()).collect()
}

fn map(title: &str, rows: Vec<Vec<f64>>) -> Heat {
    Heat { title: title.into(), x: "input".into(), y: "output".into(), rows, ..Heat::default() }
}

fn heat() -> Figure {
    let (w, change) = (matrix(64, 64, 0.05, 0), outer(64));
    let sum = w.iter().zip(&change).map(|(a, b)| a.iter().zip(b).map(|(x, y)| x + y).collect()).collect();
    let three = [("W₀", w), ("ΔW = (α/r)·BA", change), ("W₀ + ΔW", sum)]
        .map(|(title, rows)| Panel::Heat(map(title, rows)));
    let factors = [("B", matrix(64, 4, 0.3, 9)), ("A", matrix(4, 64, 0.3, 4)), ("0", vec![vec![0.0; 8]; 8])];
    let factors = factors.map(|(title, rows)| Panel::Heat(map(title, rows)));
    figure(
        "Low-rank update of a weight",
        vec![three.into(), factors.into()],
        Some("Rank 1 on a matrix of 64 × 64."),
    )
}

fn attention() -> Figure {
    let weights = |prefix: usize| -> Vec<Vec<f64>> {
        let row = |i: usize| {
            let raw: Vec<f64> = (0..prefix + 12)
                .map(|j| if j <= prefix + i { (2.0 * noise(17 * i + j)).exp() } else { 0.0 })
                .collect();
            let sum: f64 = raw.iter().sum();
            raw.into_iter().map(|v| v / sum).collect()
        };
        (0..12).map(row).collect()
    };
    let heat = |title: &str, prefix: usize| Heat {
        x: "key".into(),
        y: "query".into(),
        colours: Colours::Sequential,
        range: Some((0.0, 0.4)),
        divider: (prefix > 0).then(|| (prefix, "prefix".into(), "tokens".into())),
        ..map(title, weights(prefix))
    };
    let panels = vec![
        Panel::Heat(heat("Attention without a prefix", 0)),
        Panel::Heat(heat("Attention with a prefix", 2)),
    ];
    figure("Attention of head 0", vec![panels], None)
}

fn shapes() -> Figure {
    let tall = |i: usize| Panel::Heat(map(&format!("attn.out_proj, {i}"), matrix(16, 4, 0.5, i)));
    let wide = |title: &str, rows, columns, at| {
        let divider = Some((at, "prefix".into(), "words".into()));
        Panel::Heat(Heat { divider, ..map(title, matrix(rows, columns, 0.5, 3)) })
    };
    let (row, one) = (map("One row", matrix(1, 30, 0.5, 1)), map("One cell", matrix(1, 1, 0.5, 1)));
    figure(
        "Cells are squares, maps of any shape are near each other",
        vec![
            (0..4).map(tall).collect(),
            vec![wide("16 × 26", 16, 26, 10), wide("5 × 3", 5, 3, 1)],
            vec![Panel::Heat(row), Panel::Heat(one)],
        ],
        None,
    )
}

/// Labels that are wider than their bars would be in a panel of the usual width.
fn labels() -> Figure {
    let group = |k: usize| BarGroup {
        name: format!("run {k}"),
        values: (0..5).map(|i| 0.5 + 0.01 * (i + k) as f64).collect(),
        labels: Some((0..5).map(|i| format!("{:.4} %", 50.0 + (i + k) as f64)).collect()),
        errors: None,
    };
    let panel = |groups| Bars {
        title: format!("{groups} bars a category"),
        categories: names(&METHODS[..5]),
        y: axis("share"),
        groups: (0..groups).map(group).collect(),
        ..Bars::default()
    };
    let rows = [1, 2, 3, 6].map(|groups| vec![Panel::Bars(panel(groups))]);
    figure("Labels have room", rows.into(), None)
}

fn mixed() -> Figure {
    let one = |f: Figure| f.rows.into_iter().flatten().next();
    let panels = [one(lines()), one(bubbles()), one(heat()), one(bars())].into_iter().flatten();
    let mut rows: Vec<Vec<Panel>> = panels.map(|p| vec![p]).collect();
    let last = rows.split_off(2).into_iter().flatten().collect();
    let first = rows.into_iter().flatten().collect();
    figure("All kinds of panels in one figure", vec![first, last], Some("Rows share the width."))
}

fn extremes() -> Figure {
    let line = |title: &str, scale: f64, offset: f64| {
        let points = (0..20).map(|i| (i as f64, offset + scale * noise(i))).collect();
        let series = vec![Series { name: "".into(), points, ..Series::default() }];
        Panel::Lines(Lines { title: title.into(), x: axis("x"), y: axis("y"), series })
    };
    let long =
        "averyveryverylongnamewithoutanyspaceinit_and_more_of_it_still_to_come_until_it_has_to_be_broken";
    let bars = Bars {
        title: long.repeat(2),
        categories: vec![long.into(), "short".into()],
        x: long.repeat(2),
        y: axis(&long.repeat(2)),
        groups: vec![
            BarGroup {
                name: long.repeat(2),
                values: vec![1e12, 3.2e12],
                labels: Some(names(&[long, "3"])),
                errors: None,
            },
            BarGroup {
                name: "<&>\"'".into(),
                values: vec![2e12, 0.0],
                labels: Some(names(&["<2>", "0"])),
                errors: None,
            },
        ],
    };
    figure(
        "Tiny and huge numbers, long names",
        vec![
            vec![line("tiny", 3e-7, 0.0), line("huge", 4e17, 1e17), line("nearly equal", 1e-3, 1e4)],
            vec![line("equal", 0.0, 5.0), line("zero", 0.0, 0.0), Panel::Bars(bars)],
        ],
        None,
    )
}
