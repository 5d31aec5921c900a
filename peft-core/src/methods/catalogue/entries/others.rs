//! Methods that add vectors, prompts and small networks, and those that train parameters of the model.

use super::{Entry, Family, Merges, OWN, PLAIN, TRANSFORMERS};

pub(super) const VECTORS: &[Entry] = &[
    Entry {
        name: "ia3",
        title: "(IA)³",
        peft_type: "IA3",
        family: Family::Vectors,
        acts: "keys, values and the feed-forward's hidden units",
        formula: "y = l ⊙ (W x + b)",
        paper: "https://arxiv.org/abs/2205.05638",
        take_it_when: "there are less than a hundred examples, or adapters must be tiny",
        read_by: TRANSFORMERS,
        learning_rates: (1e-4, 5e-2),
        ..PLAIN
    },
    Entry {
        name: "ln_tuning",
        title: "LN tuning",
        peft_type: "LN_TUNING",
        family: Family::Vectors,
        acts: "norms",
        formula: "y = norm(x) ⊙ w' + b', with trained copies w', b'",
        paper: "https://arxiv.org/abs/2312.11420",
        take_it_when: "the domain changes more than the task, and adapters must be tiny",
        learning_rates: (1e-5, 1e-2),
        ..PLAIN
    },
    Entry {
        name: "beft",
        title: "BEFT",
        peft_type: "BEFT",
        family: Family::Vectors,
        merges: Merges::WithBias,
        acts: "value projections of attention",
        formula: "y = W x + b + v",
        paper: "https://arxiv.org/abs/2509.15974",
        take_it_when: "there is little data and the model has no biases of its own to train",
        learning_rates: (1e-5, 1e-2),
        ..PLAIN
    },
    Entry {
        name: "bitfit",
        title: "BitFit",
        peft_type: "BITFIT",
        family: Family::Copies,
        acts: "biases of the model, where it has any (BERT, GPT-2; not Llama)",
        formula: "y = W x + b', with trained copies b'",
        paper: "https://arxiv.org/abs/2106.10199",
        take_it_when: "an encoder is tuned on little data, and nothing should be added to the model",
        read_by: OWN,
        learning_rates: (1e-5, 1e-2),
        ..PLAIN
    },
    Entry {
        name: "trainable_tokens",
        title: "trainable tokens",
        peft_type: "TRAINABLE_TOKENS",
        family: Family::Copies,
        needs: r#"{"token_indices": [0, 1]}"#,
        acts: "chosen rows of the word embedding",
        formula: "E[i] = row i, trained, for the chosen tokens i",
        paper: "https://huggingface.co/docs/peft/package_reference/trainable_tokens",
        take_it_when: "tokens were added to the vocabulary; beside a LoRA it is LoRA's `trainable_token_indices`",
        learning_rates: (1e-5, 1e-2),
        ..PLAIN
    },
];

pub(super) const PROMPTS: &[Entry] = &[
    Entry {
        name: "prefix_tuning",
        aliases: &["prefix"],
        title: "prefix tuning",
        peft_type: "PREFIX_TUNING",
        family: Family::Prompts,
        merges: Merges::No,
        acts: "keys and values of attention in every layer",
        formula: "softmax(Q [P_k; K]ᵀ/√d) [P_v; V]",
        paper: "https://arxiv.org/abs/2101.00190",
        take_it_when: "weights must stay untouched and rows of one batch want adapters of their own",
        learning_rates: (1e-5, 1e-1),
        ..PLAIN
    },
    Entry {
        name: "prompt_tuning",
        aliases: &["prompt"],
        title: "prompt tuning",
        peft_type: "PROMPT_TUNING",
        family: Family::Prompts,
        merges: Merges::No,
        acts: "the input, before the words",
        formula: "[P; E(x)]",
        paper: "https://arxiv.org/abs/2104.08691",
        take_it_when: "the model is large (10 billion or so: below that it learns less) and one copy serves many tasks",
        learning_rates: (1e-4, 5e-1),
        ..PLAIN
    },
    Entry {
        name: "p_tuning",
        title: "P-tuning",
        peft_type: "P_TUNING",
        family: Family::Prompts,
        merges: Merges::No,
        acts: "the input, before the words",
        formula: "[f(e₁ … eₙ); E(x)], with a small network f that is for training alone",
        paper: "https://arxiv.org/abs/2103.10385",
        take_it_when: "prompt tuning is wanted and does not settle",
        learning_rates: (1e-5, 1e-1),
        ..PLAIN
    },
    Entry {
        name: "adaption_prompt",
        aliases: &["llama_adapter"],
        title: "LLaMA-Adapter",
        peft_type: "ADAPTION_PROMPT",
        family: Family::Prompts,
        needs: r#"{"adapter_len": 10, "adapter_layers": 2}"#,
        merges: Merges::No,
        acts: "attention in the last layers",
        formula: "attention + g · softmax(Q P_kᵀ/√d) P_v, with a gate g that starts at 0",
        paper: "https://arxiv.org/abs/2303.16199",
        take_it_when: "an instruction model is made of a Llama and training must start where the model is",
        learning_rates: (1e-4, 5e-2),
        ..PLAIN
    },
    Entry {
        name: "zero_init_attention",
        title: "zero-init attention",
        peft_type: "ZERO_INIT_ATTENTION",
        family: Family::Prompts,
        merges: Merges::No,
        acts: "attention in every layer",
        formula: "attention + tanh(g) · softmax(Q P_kᵀ/√d) P_v, or one softmax with σ(g) at the prompt's scores",
        paper: "https://arxiv.org/abs/2303.16199",
        take_it_when: "LLaMA-Adapter is wanted in all layers, or for an encoder",
        read_by: OWN,
        learning_rates: (1e-4, 5e-2),
        ..PLAIN
    },
    Entry {
        name: "hidden_prefix",
        title: "hidden prefix",
        peft_type: "HIDDEN_PREFIX",
        family: Family::Prompts,
        merges: Merges::No,
        acts: "hidden states before attention in every layer of an encoder",
        formula: "attention([P; x])[n:]",
        take_it_when: "lessons are followed: prefix tuning is the published one",
        read_by: OWN,
        learning_rates: (1e-4, 1e-1),
        ..PLAIN
    },
];

/// What the three bottleneck adapters have in common.
const BOTTLENECK: Entry = Entry {
    peft_type: "BOTTLENECK",
    family: Family::Adapters,
    merges: Merges::No,
    read_by: OWN,
    learning_rates: (1e-5, 1e-2),
    ..PLAIN
};

pub(super) const ADAPTERS: &[Entry] = &[
    Entry {
        name: "bottleneck",
        title: "bottleneck adapters",
        acts: "after attention and after feed-forward",
        formula: "y = f(x) + s · (U σ(D f(x) + b_d) + b_u)",
        paper: "https://arxiv.org/abs/1902.00751",
        take_it_when: "the task is far from what the model knows, and some more time a token is acceptable",
        ..BOTTLENECK
    },
    Entry {
        name: "houlsby",
        title: "Houlsby's adapters",
        sets: r#"{"bottleneck_size": 0, "reduction_factor": 16.0, "non_linearity": "silu", "init_weights": "near_identity"}"#,
        acts: "after attention and after feed-forward",
        formula: "y = f(x) + U silu(D f(x) + b_d) + b_u, a 16th of the width",
        paper: "https://arxiv.org/abs/1902.00751",
        take_it_when: "bottleneck adapters are wanted as first published, in AdapterHub's settings",
        ..BOTTLENECK
    },
    Entry {
        name: "pfeiffer",
        title: "Pfeiffer's adapters",
        sets: r#"{"bottleneck_size": 0, "reduction_factor": 16.0, "non_linearity": "relu", "placement": ["feed_forward"], "init_weights": "near_identity"}"#,
        acts: "after feed-forward",
        formula: "y = f(x) + U relu(D f(x) + b_d) + b_u, a 16th of the width",
        paper: "https://arxiv.org/abs/2005.00247",
        take_it_when: "bottleneck adapters should be half as many and nearly as good",
        ..BOTTLENECK
    },
    Entry {
        name: "parallel",
        title: "parallel adapters",
        sets: r#"{"bottleneck_size": 0, "reduction_factor": 2.0, "non_linearity": "relu", "placement": ["feed_forward"], "is_parallel": true, "scaling": 4.0, "init_weights": "mam_adapter"}"#,
        acts: "beside feed-forward",
        formula: "y = f(x) + 4 · (U relu(D x + b_d) + b_u), half of the width",
        paper: "https://arxiv.org/abs/2110.04366",
        take_it_when: "there is much data and many parameters may be trained",
        ..BOTTLENECK
    },
];

pub(super) const COPIES: &[Entry] = &[
    Entry {
        name: "partial",
        title: "partial fine-tuning",
        peft_type: "PARTIAL",
        family: Family::Copies,
        needs: r#"{"last_layers": 1}"#,
        acts: "the last layers, or parameters that are named",
        formula: "W' for W, trained copies",
        paper: "https://arxiv.org/abs/1801.06146",
        take_it_when: "features of the model are good and only its last part should change",
        read_by: OWN,
        learning_rates: (1e-6, 1e-3),
        ..PLAIN
    },
    Entry {
        name: "full",
        title: "full fine-tuning",
        peft_type: "FULL",
        family: Family::Copies,
        acts: "every parameter",
        formula: "W' for W, trained copies",
        take_it_when: "there are a hundred thousand examples or more and it fits: a LoRA learns less from so many",
        read_by: OWN,
        learning_rates: (1e-6, 1e-4),
        ..PLAIN
    },
];
