//! Methods that train the base's own parameters, as copies of them.

use super::Row;
use crate::subject::Sizes;
use peft_core::methods::{BitFitConfig, Common, LnTuningConfig, PartialConfig};
use peft_core::target::Names;

pub(super) fn rows(s: &Sizes, common: &Common) -> Vec<Row> {
    let names = |list: &[&str]| Some(Names::list(list.iter().copied()));
    // Copies that stand for the original, beside the head's, which do not.
    let replacing = |name, config: PartialConfig, count: i64| Row {
        more: s.head,
        hides: config.last_layers.is_some(),
        ..Row::new(name, config, count + s.head)
    };
    let partial = PartialConfig { common: common.clone(), ..PartialConfig::default() };
    let norms = LnTuningConfig { targets: s.norms.0.into(), common: common.clone() };
    let mut rows = vec![
        Row::new("LN tuning", norms, s.norms.1 + s.head),
        replacing(
            "partial, the last layer",
            PartialConfig { last_layers: Some(1), ..partial.clone() },
            s.layer_params,
        ),
        replacing(
            "partial, by name",
            PartialConfig { target_parameters: names(&[s.whole.0]), ..partial },
            s.whole.1,
        ),
    ];
    if s.biases > 0 {
        let config = BitFitConfig { common: common.clone(), ..BitFitConfig::default() };
        rows.push(Row { more: s.head, ..Row::new("BitFit", config, s.biases + s.head) });
    }
    rows
}
