//! LoRA and its family.

use super::{Row, Start};
use crate::subject::Sizes;
use peft_core::methods::{Bias, Common, InitLora, LoraConfig, TokenIndices, TrainableTokensConfig};
use peft_core::target::{Names, Patterns};

pub(super) fn rows(s: &Sizes, common: &Common) -> Vec<Row> {
    let lora = LoraConfig {
        r: 4,
        lora_alpha: 10.0,
        lora_dropout: 0.1,
        targets: Names::list(s.targets.iter().map(|t| t.name)).into(),
        common: common.clone(),
        ..LoraConfig::default()
    };
    let (whole, whole_count) = s.whole;
    let count = |r: i64| s.layers * s.targets.iter().map(|t| r * (t.inp + t.out)).sum::<i64>() + s.head;
    let row =
        |name, config: LoraConfig| Row { dropout: true, ..Row::new(name, config.clone(), count(config.r)) };
    let saving = Common { modules_to_save: Some(vec![whole.into()]), ..common.clone() };
    let saved = count(4) + whole_count;
    let outs = s.layers * s.targets.iter().map(|t| t.out).sum::<i64>();
    // As `row`, with more trained than A and B.
    let with = |row: Row, extra: i64| Row { count: row.count + extra, more: row.more + extra, ..row };
    let near = |name, config| Row { from_base: true, ..row(name, config).starts(Start::Near(1e-4)) };
    let dora = |row: Row| Row { slope: false, commutes: false, ..with(row, outs) };
    let started = |start| LoraConfig { init_lora_weights: start, ..lora.clone() };
    let tokens: Vec<i64> = (0..s.words.inp).step_by(3).collect();
    let token_count = tokens.len() as i64 * s.words.out;
    let first = s.targets.first().map_or("", |t| t.name);
    let first_size = s.targets.first().map_or(0, |t| s.layers * (t.inp + t.out));
    let embedding = LoraConfig { lora_dropout: 0.0, targets: [s.words.name].into(), ..lora.clone() };
    let embedding_count = 4 * (s.words.inp + s.words.out) + s.head;
    let mut rows = vec![
        dora(row("DoRA", LoraConfig { use_dora: true, ..lora.clone() })),
        Row {
            from_base: true,
            ..dora(near("DoRA, pissa", LoraConfig { use_dora: true, ..started(InitLora::Pissa) }))
        },
        near("LoRA, pissa", started(InitLora::Pissa)),
        near("LoRA, olora", LoraConfig { r: 3, ..started(InitLora::Olora) }),
        with(
            row(
                "LoRA, patterns",
                LoraConfig {
                    rank_pattern: Patterns::new([(first, 6)]),
                    alpha_pattern: Patterns::new([(first, 3)]),
                    ..lora.clone()
                },
            ),
            (6 - 4) * first_size,
        ),
        Row::new("LoRA, embedding", embedding.clone(), embedding_count),
        Row {
            slope: false,
            commutes: false,
            ..Row::new(
                "DoRA, embedding",
                LoraConfig { use_dora: true, ..embedding },
                embedding_count + s.words.out,
            )
        },
        with(
            row(
                "LoRA, tokens",
                LoraConfig {
                    trainable_token_indices: Some(TokenIndices::Layers(
                        [(s.words.name.to_owned(), tokens.clone())].into(),
                    )),
                    ..lora.clone()
                },
            ),
            token_count,
        ),
        Row::new(
            "trainable tokens",
            TrainableTokensConfig {
                token_indices: tokens,
                common: common.clone(),
                ..TrainableTokensConfig::default()
            },
            token_count,
        ),
        Row {
            count: count(4) + s.biases,
            ..row("LoRA, all biases", LoraConfig { bias: Bias::All, ..lora.clone() })
        },
    ];
    if s.biases > 0 {
        rows.push(with(row("LoRA, bias of B", LoraConfig { lora_bias: true, ..lora.clone() }), outs));
        rows.push(Row {
            count: count(4) + outs,
            ..row("LoRA, its biases", LoraConfig { bias: Bias::LoraOnly, ..lora.clone() })
        });
    }
    rows.extend([
        row("LoRA", lora.clone()),
        row("LoRA, gaussian", LoraConfig { r: 3, init_lora_weights: InitLora::Gaussian, ..lora.clone() }),
        row("rsLoRA", LoraConfig { use_rslora: true, lora_alpha: 3.0, ..lora.clone() }),
        row(
            "LoRA, init false",
            LoraConfig { r: 2, init_lora_weights: InitLora::Flag(false), ..lora.clone() },
        )
        .starts(Start::Other),
        Row {
            count: saved,
            more: saved,
            ..row("LoRA, modules_to_save", LoraConfig { common: saving, ..lora })
        },
    ]);
    rows
}
