//! 1: 4096 × 4096, and the sum over singular values.

use super::*;

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
