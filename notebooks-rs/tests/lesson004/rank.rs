//! 1: the rank of real changes.

use super::*;

/// The matrices of the model in which changes are measured, and their shapes.
const MATRICES: [(&str, [usize; 2]); 4] =
    [("attn.in_proj", [192, 64]), ("attn.out_proj", [64, 64]), ("ff.0", [256, 64]), ("ff.2", [64, 256])];

/// What share of the energy is in the first 0, 1, 2, .. singular values, in percent.
fn energy(values: &[f64]) -> Vec<f64> {
    let total: f64 = values.iter().map(|s| s * s).sum();
    (0..=values.len()).map(|r| 100.0 * values[..r].iter().map(|s| s * s).sum::<f64>() / total).collect()
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
