//! Methods that change weights.

use super::{Entry, LINEAR, MOST_REFUSE, OWN, PLAIN, TRANSFORMERS};

pub(super) const LORA: &[Entry] = &[
    Entry {
        name: "lora",
        title: "LoRA",
        acts: "linear layers and embeddings, by default query and value of attention",
        formula: "y = W x + b + alpha/r · B A x",
        paper: "https://arxiv.org/abs/2106.09685",
        take_it_when: "nothing speaks for another one: it is the best known, merges, and every server reads it",
        read_by: "PEFT, transformers, vLLM, mistral.rs, llama.cpp's converter, LoRAX, TGI",
        ..PLAIN
    },
    Entry {
        name: "rslora",
        title: "rsLoRA",
        sets: r#"{"use_rslora": true}"#,
        acts: LINEAR,
        formula: "y = W x + b + alpha/√r · B A x",
        paper: "https://arxiv.org/abs/2312.03732",
        take_it_when: "the rank is 32 or more, where LoRA's own scale makes a higher rank learn no more",
        read_by: "PEFT, transformers, vLLM; llama.cpp's converter scales it wrongly and does not say so: \
                  `peft convert --for llama.cpp` makes a plain LoRA of it, exactly",
        ..PLAIN
    },
    Entry {
        name: "dora",
        title: "DoRA",
        sets: r#"{"use_dora": true}"#,
        acts: LINEAR,
        formula: "y = m ⊙ (W + alpha/r · B A) x / ‖W + alpha/r · B A‖ + b, the norm row by row",
        paper: "https://arxiv.org/abs/2402.09353",
        take_it_when: "a LoRA of small rank falls short of full fine-tuning and slower steps are acceptable",
        read_by: "PEFT, transformers; most others refuse it: merge it, or `peft convert --to-lora`",
        ..PLAIN
    },
    Entry {
        name: "pissa",
        title: "PiSSA",
        sets: r#"{"init_lora_weights": "pissa"}"#,
        acts: LINEAR,
        formula: "y = (W − s B₀A₀) x + b + s B A x, which starts at the r largest singular vectors of W: s B₀A₀ = U_r S_r V_rᵀ",
        paper: "https://arxiv.org/abs/2404.02948",
        take_it_when: "a LoRA should learn faster in few steps, and the base may be quantised with less error",
        read_by: MOST_REFUSE,
        learning_rates: (1e-6, 2e-3),
        ..PLAIN
    },
    Entry {
        name: "olora",
        title: "OLoRA",
        sets: r#"{"init_lora_weights": "olora"}"#,
        acts: LINEAR,
        formula: "y = (W − s B₀A₀) x + b + s B A x, which starts at the QR decomposition of W, B₀ = Q_r and A₀ = R_r",
        paper: "https://arxiv.org/abs/2406.01775",
        take_it_when: "a LoRA should learn faster in few steps and PiSSA's decomposition takes too long",
        read_by: MOST_REFUSE,
        learning_rates: (1e-6, 2e-3),
        ..PLAIN
    },
    Entry {
        name: "adalora",
        title: "AdaLoRA",
        peft_type: "ADALORA",
        needs: r#"{"total_step": 1000}"#,
        acts: LINEAR,
        formula: "y = W x + b + alpha/r · B (E ⊙ A) x, whose least important singular values E are set to 0 on the way",
        paper: "https://arxiv.org/abs/2303.10512",
        take_it_when: "the parameters are counted and which layers need rank is unknown",
        read_by: TRANSFORMERS,
        learning_rates: (1e-4, 1e-2),
        ..PLAIN
    },
];

pub(super) const WEIGHTS: &[Entry] = &[
    Entry {
        name: "loha",
        title: "LoHa",
        peft_type: "LOHA",
        acts: LINEAR,
        formula: "y = W x + b + alpha/r · (W₁ₐ W₁ᵦ ⊙ W₂ₐ W₂ᵦ) x",
        paper: "https://arxiv.org/abs/2108.06098",
        take_it_when: "the change needs a high rank from few parameters",
        learning_rates: (1e-5, 1e-2),
        ..PLAIN
    },
    Entry {
        name: "lokr",
        title: "LoKr",
        peft_type: "LOKR",
        acts: LINEAR,
        formula: "y = W x + b + alpha/r · (W₁ ⊗ W₂) x",
        paper: "https://arxiv.org/abs/2309.14859",
        take_it_when: "the file must be very small and the change may be of full rank",
        learning_rates: (1e-5, 1e-2),
        ..PLAIN
    },
    Entry {
        name: "vera",
        title: "VeRA",
        peft_type: "VERA",
        acts: "linear layers of one shape, by default query and value of attention",
        formula: "y = W x + b + λ_b ⊙ (B (λ_d ⊙ (A x))), with A and B drawn once for all layers and frozen",
        paper: "https://arxiv.org/abs/2310.11454",
        take_it_when: "very many adapters are kept, and each should be some vectors a layer",
        read_by: TRANSFORMERS,
        learning_rates: (1e-4, 5e-2),
        ..PLAIN
    },
    Entry {
        name: "oft",
        title: "OFT",
        peft_type: "OFT",
        acts: LINEAR,
        formula: "y = W R x + b, with R of orthogonal blocks",
        paper: "https://arxiv.org/abs/2306.07280",
        take_it_when: "what the model knows should be kept: angles between neurons stay as they are",
        learning_rates: (1e-6, 5e-3),
        ..PLAIN
    },
    Entry {
        name: "diff_pruning",
        title: "diff pruning",
        peft_type: "DIFF_PRUNING",
        needs: r#"{"target_modules": "all-linear"}"#,
        acts: "linear layers that are named",
        formula: "y = (W + z ⊙ δ) x + b, with gates z that a penalty closes",
        paper: "https://arxiv.org/abs/2012.07463",
        take_it_when: "the change should be a sparse one, some entries of the weights, and training may cost as much as full \
                       fine-tuning",
        read_by: OWN,
        learning_rates: (1e-6, 1e-2),
        ..PLAIN
    },
];
