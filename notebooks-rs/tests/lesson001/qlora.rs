//! 2.2: QLoRA.

use super::*;

#[test]
fn qlora_says_what_it_computes() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["tables"];
    let page = run("unified_qlora")?;
    drawn(&page, "unified_qlora")?;
    let (d, f, vocab, r) = (256i64, 704i64, 256i64, 64i64);
    let packed = 2 * (4 * d * d + 3 * d * f);
    let trainable = 2 * r * (4 * 2 * d + 3 * (d + f));
    let base = packed + 2 * vocab * d + 5 * d;
    let counted = trainable + base - packed / 2;
    let counts = [trainable, trainable + base, packed, counted].map(|n| n as f64);
    ensure!(numbers(&page, "counts")? == counts, "{counts:?}");
    let percent = 100.0 * trainable as f64 / counted as f64;
    same_lines(
        page.lines(),
        &[format!("Trainable: {} / {} ({percent:.2}%)", commas(trainable), commas(counted))],
    )?;

    let at_7b = numbers(&page, "llama7b")?;
    let all = 6_738_415_616i64;
    ensure!(golden["peft_0.21.2_counts_llama7b"]["setup_qlora r=64, seven targets"] == at_7b[0] as i64);
    ensure!(golden["llama7b_recomputed"]["LoRA r=64 q,v"] == at_7b[4] as i64);
    let linears = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008);
    ensure!(at_7b[1] as i64 == all + 159_907_840 && at_7b[2] as i64 == linears, "{at_7b:?}");
    ensure!(at_7b[3] as i64 == at_7b[1] as i64 - linears / 2);
    mistaken(&page, &commas(counted), &commas(trainable + base))?;
    mistaken(&page, &format!("{}, 4.37 %", commas(at_7b[3] as i64)), "6,898,323,456, 2.32 %")?;
    mistaken(&page, "33,554,432", "159,907,840, 2.37 % of the base")?;

    let e = numbers(&page, "errors")?;
    ensure!(e[0] < 0.1 && e[0] < e[4] && (e[2] - e[0]).abs() < 1e-3, "NF4 should be closest: {e:?}");
    let ways = ["NF4", "NF4, double quantisation", "evenly spaced, by hand"];
    let rounding =
        ways.iter().zip(e.chunks(2)).map(|(way, e)| format!("{way} | {:.2} | {:.4}", 100.0 * e[0], e[1]));
    // Codes, code book and scales; with double quantisation the scales' bytes, their scales and their code book.
    let rest = 2 * (base - packed);
    let of = |n: i64, double: bool| {
        let blocks = n / 64;
        n / 2 + 64 + if double { blocks + 4 * blocks.div_euclid(256).max(1) + 1024 } else { 4 * blocks }
    };
    let shapes = [d * d, d * d, d * d, d * d, d * f, d * f, d * f];
    let nf4 = |double| rest + 2 * shapes.iter().map(|n| of(*n, double)).sum::<i64>();
    let (here, there) = (numbers(&page, "bytes")?, numbers(&page, "bytes.llama7b")?);
    ensure!(here == [4 * base, 2 * base, nf4(false), nf4(true)].map(|n| n as f64), "{here:?}");
    ensure!(
        there[..2] == [4 * all, 2 * all].map(|n| n as f64)
            && there[3] < there[2]
            && there[2] < there[1] / 3.0
    );
    let formats = ["f32", "bf16", "NF4", "NF4, double"];
    let bytes = formats.iter().zip(&here).zip(&there).map(|((format, here), there)| {
        let bits = 8.0 * there / all as f64;
        format!("{format} | {} | {:.2} | {bits:.2}", commas(*here as i64), there / 1e9)
    });
    let l = numbers(&page, "logits")?;
    ensure!(l[0] == 0.0 && l[1] > 0.0 && l[1] < 0.02 * l[3] && l[2] > l[1], "{l:?}");
    let others = ["the same numbers in a dense base", "products in bf16", "the base before it was quantised"];
    let logits = others
        .iter()
        .zip(&l)
        .map(|(name, off)| format!("{name} | {} | {:.2}", small(*off), 100.0 * off / l[3]));
    let fit = numbers(&page, "fit")?;
    ensure!(fit[1] < 0.1 * fit[0] && fit[3] < 0.1 * fit[2], "{fit:?}");
    let merged = numbers(&page, "merged")?;
    ensure!(merged[0] < 0.2 * merged[1], "requantising should cost more than bf16: {merged:?}");
    same_tables(
        &page,
        &[
            ("Rounding 14 weight matrices to 4 bits, in blocks of 64", rounding.collect()),
            ("Weights of the base", bytes.collect()),
            ("Logits of the 4-bit base with products in f32, against those of", logits.collect()),
            (
                "30 steps on a text that counts",
                vec![
                    format!("QLoRA, NF4 base | {:.4} | {:.4}", fit[0], fit[1]),
                    format!("LoRA, dense f32 base | {:.4} | {:.4}", fit[2], fit[3]),
                ],
            ),
        ],
    )
}
