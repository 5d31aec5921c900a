//! The catalogue's entries. Learning rates are those of the papers and of PEFT's examples, from the lowest to the highest,
//! widened about three times to either side.

mod others;
mod weights;

use super::{Entry, Family, Merges};

/// What entries have unless they say otherwise.
const PLAIN: Entry = Entry {
    name: "",
    aliases: &[],
    title: "",
    peft_type: "LORA",
    family: Family::Weights,
    sets: "{}",
    needs: "{}",
    merges: Merges::Yes,
    acts: "",
    formula: "",
    paper: "",
    take_it_when: "",
    read_by: "PEFT",
    learning_rates: (1e-5, 5e-3),
};

const OWN: &str = "this program alone: PEFT has no such method (merged, everybody reads the model)";
const LINEAR: &str = "linear layers, by default query and value of attention";
const TRANSFORMERS: &str = "PEFT, transformers; others seldom: `peft convert --to-lora` makes a LoRA of it";
const MOST_REFUSE: &str =
    "PEFT, transformers; most others refuse it: `peft convert --for` makes a plain LoRA of it, exactly";

pub(super) const ALL: &[&[Entry]] =
    &[weights::LORA, weights::WEIGHTS, others::VECTORS, others::PROMPTS, others::ADAPTERS, others::COPIES];
