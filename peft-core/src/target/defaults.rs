//! What PEFT targets when a config names nothing: its tables by model type, for the families of this crate.

/// Methods that share a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// LoRA, VeRA, LoHa, LoKr, OFT.
    Lora,
    AdaLora,
    Ia3,
    /// `feedforward_modules` of (IA)³.
    Ia3FeedForward,
    LnTuning,
}

/// The table's entry, if there is one.
pub fn defaults(family: Family, model_type: &str) -> Option<&'static [&'static str]> {
    Some(match (family, model_type) {
        (Family::Lora, "llama" | "mistral" | "qwen2") => &["q_proj", "v_proj"],
        (Family::AdaLora, "llama" | "qwen2") => &["q_proj", "v_proj"],
        (Family::Lora | Family::AdaLora, "gpt2") => &["c_attn"],
        (Family::Lora, "bert" | "roberta") | (Family::AdaLora, "bert") => &["query", "value"],
        (Family::AdaLora, "roberta") => &["query", "key", "value", "dense"],
        (Family::Ia3, "llama" | "mistral") => &["k_proj", "v_proj", "down_proj"],
        (Family::Ia3, "qwen2") => &["q_proj", "v_proj", "down_proj"],
        (Family::Ia3, "gpt2") => &["c_attn", "mlp.c_proj"],
        (Family::Ia3, "bert" | "roberta") => &["key", "value", "output.dense"],
        (Family::Ia3FeedForward, "llama" | "mistral" | "qwen2") => &["down_proj"],
        (Family::Ia3FeedForward, "gpt2") => &["mlp.c_proj"],
        (Family::Ia3FeedForward, "bert" | "roberta") => &["output.dense"],
        (Family::LnTuning, "llama" | "mistral") => &["input_layernorm", "post_attention_layernorm", "norm"],
        (Family::LnTuning, "qwen2") => &["post_attention_layernorm"],
        (Family::LnTuning, "gpt2") => &["ln_1", "ln_2", "ln_f"],
        _ => return None,
    })
}
