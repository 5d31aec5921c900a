//! Products other than LoRA's: LoHa, LoKr, OFT.

use super::{Row, Start};
use crate::subject::{Sizes, Target};
use peft_core::methods::{Common, InitLoKr, LoHaConfig, LoKrConfig, OftConfig};
use peft_core::target::{Names, Patterns, Targets};

pub(super) fn rows(s: &Sizes, common: &Common) -> Vec<Row> {
    [loha(s, common), lokr(s, common), oft(s, common)].into_iter().flatten().collect()
}

fn targets(s: &Sizes) -> Targets {
    Names::list(s.targets.iter().map(|t| t.name)).into()
}

/// Parameters of all adapters, from those of one.
fn count(s: &Sizes, one: impl Fn(&Target) -> i64) -> i64 {
    s.layers * s.targets.iter().map(one).sum::<i64>() + s.head
}

fn loha(s: &Sizes, common: &Common) -> Vec<Row> {
    let loha =
        LoHaConfig { r: 3, alpha: 7.0, targets: targets(s), common: common.clone(), ..LoHaConfig::default() };
    let row = |name, config: LoHaConfig| {
        Row::new(name, config.clone(), count(s, |t| 2 * config.r * (t.inp + t.out)))
    };
    // Of rank 36, more than is thin in these models.
    let wide = LoHaConfig { r: 6, alpha: 9.0, ..loha.clone() };
    let first = s.targets[0].name;
    let pattern = LoHaConfig {
        rank_pattern: Patterns::new([(first, 2)]),
        alpha_pattern: Patterns::new([(format!(".*{first}"), 5)]),
        ..loha.clone()
    };
    let own = |t: &Target| 2 * (if t.name == first { 2 } else { 3 }) * (t.inp + t.out);
    vec![
        row("LoHa", loha.clone()),
        Row { dropout: true, ..row("LoHa, rank dropout", LoHaConfig { rank_dropout: 0.3, ..wide }) },
        row("LoHa, init false", LoHaConfig { init_weights: false, alpha: 20.0, ..loha }).starts(Start::Other),
        Row::new("LoHa, patterns", pattern, count(s, own)),
    ]
}

/// The two factors of n that are most alike.
fn alike(n: i64) -> (i64, i64) {
    let low = (1..=n).take_while(|m| m * m <= n).filter(|m| n % m == 0).last().unwrap_or(1);
    (low, n / low)
}

fn lokr(s: &Sizes, common: &Common) -> Vec<Row> {
    let lokr =
        LoKrConfig { r: 2, alpha: 5.0, targets: targets(s), common: common.clone(), ..LoKrConfig::default() };
    let low = |t: &Target| {
        let ((ol, ok), (im, inp)) = (alike(t.out), alike(t.inp));
        ol * im + 2 * (ok + inp)
    };
    let both = |t: &Target| {
        let ((ol, ok), (im, inp)) = (alike(t.out), alike(t.inp));
        ol + im + ok + inp
    };
    let full = |t: &Target| 4 * 4 + (t.out / 4) * (t.inp / 4);
    let lycoris = LoKrConfig {
        r: 100,
        alpha: 300.0,
        decompose_factor: 4,
        init_weights: InitLoKr::Lycoris,
        ..lokr.clone()
    };
    let random = LoKrConfig { init_weights: InitLoKr::Flag(false), alpha: 9.0, ..lokr.clone() };
    let dropped = LoKrConfig { rank_dropout: 0.3, rank_dropout_scale: true, ..lokr.clone() };
    let row = |name, config, one: &dyn Fn(&Target) -> i64| Row::new(name, config, count(s, one));
    vec![
        row("LoKr, both factors", LoKrConfig { r: 1, decompose_both: true, ..lokr.clone() }, &both),
        row("LoKr", lokr, &low),
        row("LoKr, full, lycoris", lycoris, &full),
        row("LoKr, init false", random, &low).starts(Start::Other),
        Row { dropout: true, ..row("LoKr, rank dropout", dropped, &low) },
    ]
}

fn oft(s: &Sizes, common: &Common) -> Vec<Row> {
    let oft =
        OftConfig { oft_block_size: 8, targets: targets(s), common: common.clone(), ..OftConfig::default() };
    let pairs = |size: i64| size * (size - 1) / 2;
    let shared = OftConfig { r: 4, oft_block_size: 0, block_share: true, ..oft.clone() };
    // All but the longest of the tests' Q are within it.
    let coft =
        OftConfig { coft: true, eps: 8.0, oft_block_size: 5, num_cayley_neumann_terms: 4, ..oft.clone() };
    let random = OftConfig { init_weights: false, num_cayley_neumann_terms: 2, ..oft.clone() };
    let blocks = |t: &Target| t.inp / 8 * pairs(8);
    let row = |name, config, one: &dyn Fn(&Target) -> i64| Row {
        commutes: false, // W (x R) + B A x
        ..Row::new(name, config, count(s, one))
    };
    vec![
        row("OFT, exact", OftConfig { use_cayley_neumann: false, ..oft.clone() }, &blocks),
        row("OFT, one block for all", shared, &|t| pairs(t.inp / 4)),
        row("constrained OFT, blocks of nearly 5", coft, &|t| t.inp / 4 * pairs(4)),
        row("OFT, init false", random, &blocks).starts(Start::Other),
        row("OFT", oft, &blocks),
    ]
}
