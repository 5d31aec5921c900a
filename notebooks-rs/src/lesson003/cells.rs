//! What the lesson's cells 2, 3 and 6 draw.
//!
//! The lesson sets its seed once, so what a cell draws depends on the cells before it. Here each cell draws those before
//! it again: a few million numbers, some hundredths of a second.

use crate::Setting;
use crate::layers::{LayersConfig, LayersPeft};
use anyhow::Result;
use peft_core::Params;
use peft_core::methods::{FullConfig, Gate, LoraConfig, PartialConfig, ZeroInitAttentionConfig};
use peft_core::seam::{Init, PREFIX};
use peft_core::target::Names;
use tch::{Device, Kind, Tensor};

/// d, the width of everything.
pub const WIDTH: i64 = 768;
/// Heads of the attention.
pub const HEADS: i64 = 12;
/// Prefix tokens.
pub const TOKENS: i64 = 10;
/// Vocabulary, layers and rank of the code-review model.
pub const VOCAB: i64 = 30_000;
pub const LAYERS: i64 = 4;
pub const RANK: i64 = 16;

/// LoRA with the lesson's α of 16, whatever the rank: s = α/r is 2 for r = 8 and 1 for r = 16.
pub fn lora(r: i64, targets: &[&str]) -> LoraConfig {
    LoraConfig { r, lora_alpha: 16.0, targets: targets.into(), ..Default::default() }
}

/// Name of the one layer of cell 2, and of the adapters over it.
pub const LAYER: &str = "linear";
pub const LORA: &str = "lora";

/// Cell 2: three layers `[768, 768]`.
#[derive(Debug)]
pub struct Cell2 {
    /// A frozen weight and LoRA over it.
    pub r8: LayersPeft,
    pub r16: LayersPeft,
    /// `nn.Linear`, trained as a whole by the adapter `full`.
    pub full: LayersPeft,
}

impl Cell2 {
    /// Starts from the seed.
    pub fn draw(setting: Setting) -> Result<Self> {
        tch::manual_seed(setting.seed);
        let layer = LayersConfig::new(WIDTH, 1);
        let layer_with_lora = |r| -> Result<LayersPeft> {
            let weight = frozen(WIDTH, WIDTH, setting.device)?;
            let base = params(setting.device, [(format!("{LAYER}.weight"), weight)])?;
            let mut peft = LayersPeft::new(base, layer.clone().linear(LAYER, WIDTH, WIDTH, false))?;
            peft.add(LORA, lora(r, &[LAYER]))?;
            Ok(peft)
        };
        let (r8, r16) = (layer_with_lora(8)?, layer_with_lora(16)?);
        let mut full = layer.linear(LAYER, WIDTH, WIDTH, true).init(setting.device)?;
        full.add("full", FullConfig::default())?;
        Ok(Self { r8, r16, full })
    }
}

/// Names of the two tensors of a gated prefix.
pub const PROMPT: &str = "base_model.model.layers.0.self_attn.zero_init_prompt";
pub const GATE: &str = "base_model.model.layers.0.self_attn.zero_init_gate";

/// Cell 3: attention with a prefix, and attention without.
#[derive(Debug)]
pub struct Cell3 {
    /// Four frozen projections without biases; over them the adapters `sigmoid`, the lesson's, and `tanh`,
    /// LLaMA-Adapter's, with the same ten tokens and the same gate of zero.
    pub prefix: LayersPeft,
    /// The parameters of `nn.MultiheadAttention`, trained by the adapter `full`.
    pub standard: LayersPeft,
}

impl Cell3 {
    /// Cell 2, then this one.
    pub fn draw(setting: Setting) -> Result<Self> {
        Cell2::draw(setting)?;
        let device = setting.device;
        let prompt = Init::Normal { std: 1.0 }.tensor(&[TOKENS, WIDTH], device)?;
        let mut prefix = LayersConfig::new(WIDTH, HEADS).attention().init(device)?;
        for (name, gate) in [("sigmoid", Gate::Sigmoid), ("tanh", Gate::Tanh)] {
            let config = ZeroInitAttentionConfig { num_virtual_tokens: TOKENS, gate, ..Default::default() };
            let closed = Init::Zeros.tensor(&[1], device)?;
            prefix.add_with(
                name,
                config,
                [(PROMPT.into(), prompt.shallow_clone()), (GATE.into(), closed)],
            )?;
        }
        Ok(Self { prefix, standard: standard(device)? })
    }
}

/// `nn.MultiheadAttention(768, 12)`: PyTorch draws the output projection first, and zeroes both biases afterwards.
fn standard(device: Device) -> Result<LayersPeft> {
    let (out, packed) = ("out_proj", "in_proj");
    let tensors = [
        (format!("{out}.weight"), Init::KaimingUniform.tensor(&[WIDTH, WIDTH], device)?),
        (format!("{out}.bias"), Init::ZerosDrawn.tensor(&[WIDTH], device)?),
        (format!("{packed}.weight"), Init::XavierUniform.tensor(&[3 * WIDTH, WIDTH], device)?),
        (format!("{packed}.bias"), Init::Zeros.tensor(&[3 * WIDTH], device)?),
    ];
    let config = LayersConfig::new(WIDTH, HEADS).linear(packed, WIDTH, 3 * WIDTH, true);
    let mut peft = LayersPeft::new(params(device, tensors)?, config.linear(out, WIDTH, WIDTH, true))?;
    peft.add("full", FullConfig::default())?;
    Ok(peft)
}

/// The four projections of an attention, in the order of the draws.
pub const PROJECTIONS: [&str; 4] = ["q_proj", "k_proj", "v_proj", "o_proj"];
/// What is adapted in the code-review model.
pub const TARGETS: [&str; 5] = ["q_proj", "k_proj", "v_proj", "o_proj", "output_proj"];
/// Its two layer norms a layer.
pub const NORMS: [&str; 2] = ["layer_norm1", "layer_norm2"];

/// Cell 6: the code-review model, words and four attentions and an output layer, all frozen, with the adapters `lora`
/// and `norms`, the layer norms, which the lesson forgets to freeze.
pub fn cell6(setting: Setting) -> Result<LayersPeft> {
    Cell3::draw(setting)?;
    let device = setting.device;
    let mut config = LayersConfig::new(WIDTH, HEADS).words(VOCAB);
    let (mut base, mut adapter) = (Vec::new(), Vec::new());
    // One `LoRALayer`: its frozen weight, then its A; B is zero, which draws nothing.
    let layer = |name: &str, out: i64| -> Result<[(String, Tensor); 3]> {
        let weight = frozen(out, WIDTH, device)?;
        let a = Init::KaimingUniform.tensor(&[RANK, WIDTH], device)?;
        let b = Init::Zeros.tensor(&[out, RANK], device)?;
        let adapter = |factor| format!("{PREFIX}{name}.lora_{factor}.weight");
        Ok([(format!("{name}.weight"), weight), (adapter("A"), a), (adapter("B"), b)])
    };
    base.push(("embed.weight".into(), frozen(VOCAB, WIDTH, device)?));
    for i in 0..LAYERS {
        config = config.attention();
        for name in PROJECTIONS {
            let [weight, a, b] = layer(&format!("layers.{i}.self_attn.{name}"), WIDTH)?;
            base.push(weight);
            adapter.extend([a, b]);
        }
        for name in NORMS {
            let name = format!("layers.{i}.{name}");
            base.push((format!("{name}.weight"), Init::Constant(1.0).tensor(&[WIDTH], device)?));
            base.push((format!("{name}.bias"), Init::Zeros.tensor(&[WIDTH], device)?));
            config = config.norm(&name, WIDTH);
        }
    }
    let [weight, a, b] = layer("output_proj", VOCAB)?;
    base.push(weight);
    adapter.extend([a, b]);
    let mut peft = LayersPeft::new(params(device, base)?, config.linear("output_proj", WIDTH, VOCAB, false))?;
    peft.add_with(LORA, lora(RANK, &TARGETS), adapter)?;
    let norms = PartialConfig { target_parameters: Some(Names::list(NORMS)), ..Default::default() };
    peft.add("norms", norms)?;
    Ok(peft)
}

/// The lesson calls no layer; its inputs are ours, from the next seed: x `[4, 128, 768]` from N(0, 1) and the ids of
/// two rows of eight words.
pub fn inputs(setting: Setting) -> Result<(Tensor, Tensor)> {
    tch::manual_seed(setting.seed.saturating_add(1));
    let x = Init::Normal { std: 1.0 }.tensor(&[4, 128, WIDTH], setting.device)?;
    let ids = Tensor::f_randint(VOCAB, [2, 8], (Kind::Int64, Device::Cpu))?;
    Ok((x, ids.f_to(setting.device)?))
}

/// A weight as the lesson has its pre-trained ones, `[out, in]` from N(0, 1).
fn frozen(out: i64, inp: i64, device: Device) -> Result<Tensor> {
    Ok(Init::Normal { std: 1.0 }.tensor(&[out, inp], device)?)
}

fn params(device: Device, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Params> {
    Ok(Params::from_tensors("the lesson's layers", device, tensors)?)
}
