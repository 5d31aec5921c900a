//! What PEFT targets when a config names nothing: its tables by model type, for the families of this crate. A method
//! whose table is its own has it in its own file.

/// Modules by model type, where PEFT has a default for it.
pub type Defaults = fn(&str) -> Option<&'static [&'static str]>;

/// LoRA, VeRA, LoHa, LoKr, OFT.
pub fn lora(model_type: &str) -> Option<&'static [&'static str]> {
    Some(match model_type {
        "llama" | "mistral" | "qwen2" => &["q_proj", "v_proj"],
        "gpt2" => &["c_attn"],
        "bert" | "roberta" => &["query", "value"],
        _ => return None,
    })
}

/// AdaLoRA: LoRA's, but for two families.
pub fn ada_lora(model_type: &str) -> Option<&'static [&'static str]> {
    match model_type {
        "mistral" => None,
        "roberta" => Some(&["query", "key", "value", "dense"]),
        other => lora(other),
    }
}

/// (IA)³.
pub fn ia3(model_type: &str) -> Option<&'static [&'static str]> {
    Some(match model_type {
        "llama" | "mistral" => &["k_proj", "v_proj", "down_proj"],
        "qwen2" => &["q_proj", "v_proj", "down_proj"],
        "gpt2" => &["c_attn", "mlp.c_proj"],
        "bert" | "roberta" => &["key", "value", "output.dense"],
        _ => return None,
    })
}

/// `feedforward_modules` of (IA)³.
pub fn ia3_feed_forward(model_type: &str) -> Option<&'static [&'static str]> {
    Some(match model_type {
        "llama" | "mistral" | "qwen2" => &["down_proj"],
        "gpt2" => &["mlp.c_proj"],
        "bert" | "roberta" => &["output.dense"],
        _ => return None,
    })
}

/// LN tuning.
pub fn ln_tuning(model_type: &str) -> Option<&'static [&'static str]> {
    Some(match model_type {
        "llama" | "mistral" => &["input_layernorm", "post_attention_layernorm", "norm"],
        "qwen2" => &["post_attention_layernorm"],
        "gpt2" => &["ln_1", "ln_2", "ln_f"],
        _ => return None,
    })
}
