//! LoRA and its family.

use super::{Row, Start};
use crate::subject::Sizes;
use peft_core::methods::{Common, InitLora, LoraConfig};
use peft_core::target::Names;

pub(super) fn rows(s: &Sizes, common: &Common) -> Vec<Row> {
    let lora = LoraConfig {
        r: 4,
        lora_alpha: 10.0,
        lora_dropout: 0.1,
        target_modules: Some(Names::list(s.targets.iter().map(|t| t.name))),
        common: common.clone(),
        ..LoraConfig::default()
    };
    let (whole, whole_count) = s.whole;
    let count = |r: i64| s.layers * s.targets.iter().map(|t| r * (t.inp + t.out)).sum::<i64>() + s.head;
    let row =
        |name, config: LoraConfig| Row { dropout: true, ..Row::new(name, config.clone(), count(config.r)) };
    let init = |name: &str| InitLora::Named(name.into());
    let saving = Common { modules_to_save: Some(vec![whole.into()]), ..common.clone() };
    let saved = count(4) + whole_count;
    vec![
        row("LoRA", lora.clone()),
        row("LoRA, gaussian", LoraConfig { r: 3, init_lora_weights: init("gaussian"), ..lora.clone() }),
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
    ]
}
