//! LoRA, DoRA and whole copies at the word embedding and the output layer, by the names that users write. PEFT treats
//! `embed_tokens` and `lm_head` apart: their files have the frozen weight as well. Where the two are one tensor, what
//! changes one of them parts it from the other.

use super::Row;
use crate::subject::Sizes;
use peft_core::methods::{Common, LoraConfig, PartialConfig, TrainableTokensConfig};
use peft_core::target::Names;

const RANK: i64 = 3;

pub(super) fn rows(s: &Sizes, common: &Common) -> Vec<Row> {
    let words = leaf(s.words.name);
    let (vocab, dim) = (s.words.inp, s.words.out);
    let Some(layer) = s.targets.first() else { return Vec::new() };
    let layers = RANK * s.layers * (layer.inp + layer.out) + s.head;
    let factors = RANK * (vocab + dim);
    let lora = |targets: &[&str]| LoraConfig {
        r: RANK,
        lora_alpha: 7.0,
        targets: targets.into(),
        common: common.clone(),
        ..LoraConfig::default()
    };
    let row = |name, config: LoraConfig, count: i64| {
        let targets = match &config.targets.target_modules {
            Some(Names::List(list)) => list.clone(),
            _ => Vec::new(),
        };
        Row { frozen: bases(s, &targets), ..Row::new(name, config, count) }
    };
    let dora = |row: Row| Row { slope: false, commutes: false, ..row };
    let saving = |module: &str| Common { modules_to_save: Some(vec![module.to_owned()]), ..common.clone() };
    let saves_words = LoraConfig { common: saving(words), ..lora(&[layer.name]) };
    let dora_config = LoraConfig { use_dora: true, ..lora(&[words]) };
    let mut rows = vec![
        row("LoRA, words", lora(&[words]), factors + s.head),
        row("LoRA, words and layers", lora(&[words, layer.name]), factors + layers),
        dora(row("DoRA, words", dora_config, factors + dim + s.head)),
        Row { hides: true, ..row("LoRA, words saved", saves_words, layers + vocab * dim) },
    ];
    let Some(head) = s.lm_head else { return rows };
    if s.tied && words == "embed_tokens" {
        let tied = |config: LoraConfig| LoraConfig { ensure_weight_tying: true, ..config };
        let dora = LoraConfig { use_dora: true, ..lora(&[words]) };
        let saves = LoraConfig { common: saving(words), ..lora(&[layer.name]) };
        rows.extend([
            Row { ..row("LoRA, tied words", tied(lora(&[words])), factors) },
            Row {
                slope: false,
                commutes: false,
                ..row("DoRA, tied words", tied(dora), factors + dim + vocab)
            },
            Row { hides: true, ..row("LoRA, tied words saved", tied(saves), layers + vocab * dim) },
        ]);
    }
    let saves_head = LoraConfig { common: saving(head), ..lora(&[words]) };
    let dora_config = LoraConfig { use_dora: true, ..lora(&[words, head]) };
    rows.extend([
        row("LoRA, output", lora(&[head]), factors),
        row("LoRA, words and output", lora(&[words, head]), 2 * factors),
        dora(row("DoRA, words and output", dora_config, 2 * factors + dim + vocab)),
        row("LoRA, words; output saved", saves_head, factors + vocab * dim),
    ]);
    rows
}

/// More that touches the word embedding, for stacks with the rows above.
pub fn beside(s: &Sizes, common: &Common) -> Vec<Row> {
    let tokens: Vec<i64> = (1..s.words.inp).step_by(4).collect();
    let count = tokens.len() as i64 * s.words.out;
    let tokens = TrainableTokensConfig {
        token_indices: tokens,
        common: common.clone(),
        ..TrainableTokensConfig::default()
    };
    let whole = PartialConfig {
        target_parameters: Some(Names::list([leaf(s.words.name)])),
        common: common.clone(),
        ..PartialConfig::default()
    };
    let whole = Row { more: 0, ..Row::new("partial, words", whole, s.words.inp * s.words.out + s.head) };
    let mut all = rows(s, common);
    all.extend([Row::new("trainable tokens, others", tokens, count), whole]);
    all
}

/// The last part of a name.
fn leaf(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The stored names of the frozen weights that PEFT adds, if one of the targets has a name that it knows.
fn bases(s: &Sizes, targets: &[String]) -> Vec<String> {
    let known = |name: &String| ["embed_tokens", "lm_head"].contains(&name.as_str());
    if !targets.iter().any(known) {
        return Vec::new();
    }
    let ends = [Some(s.words.name), s.lm_head].into_iter().flatten();
    let targeted = ends.filter(|site| targets.iter().any(|t| t == leaf(site)));
    targeted.map(|site| format!("base_model.model.{site}.base_layer.weight")).collect()
}
