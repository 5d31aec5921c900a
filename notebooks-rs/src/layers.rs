//! A model that is nothing but named parts, so that a lesson can look at one layer at a time.

use anyhow::{Context, Result};
use peft_core::build::{Architecture, Scope};
use peft_core::quant::Nf4Config;
use peft_core::seam::{
    Attention, Block, Body, Dims, Heads, Init, Input, Layer, Numerics, Prompt, Role, Transformer,
};
use peft_core::{Batch, Model, Params, Pass, Peft};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use tch::{Device, Tensor};

/// One part.
#[derive(Debug, Clone)]
enum Part {
    Words { vocab: i64 },
    Linear { name: String, inp: i64, out: i64, bias: bool },
    Norm { name: String, width: i64 },
    Block { name: String, role: Role, width: i64 },
    Attention { layer: i64 },
}

/// Which parts there are, in the order in which they are drawn.
#[derive(Debug, Clone)]
pub struct LayersConfig {
    /// Width of the word embedding and of the attentions.
    pub hidden: i64,
    pub heads: i64,
    parts: Vec<Part>,
}

impl LayersConfig {
    /// No part yet.
    pub fn new(hidden: i64, heads: i64) -> Self {
        Self { hidden, heads, parts: Vec::new() }
    }

    fn with(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    /// A word embedding `embed`, `nn.Embedding(vocab, hidden)`.
    #[must_use]
    pub fn words(self, vocab: i64) -> Self {
        self.with(Part::Words { vocab })
    }

    /// A linear layer, `nn.Linear(inp, out, bias)`.
    #[must_use]
    pub fn linear(self, name: &str, inp: i64, out: i64, bias: bool) -> Self {
        self.with(Part::Linear { name: name.into(), inp, out, bias })
    }

    /// A layer norm, `nn.LayerNorm(width)`.
    #[must_use]
    pub fn norm(self, name: &str, width: i64) -> Self {
        self.with(Part::Norm { name: name.into(), width })
    }

    /// A place for bottleneck adapters.
    #[must_use]
    pub fn block(self, name: &str, role: Role, width: i64) -> Self {
        self.with(Part::Block { name: name.into(), role, width })
    }

    /// A self-attention `layers.<i>.self_attn` of `q_proj`, `k_proj`, `v_proj` and `o_proj`, without biases; i counts.
    #[must_use]
    pub fn attention(self) -> Self {
        let layer = self.layers();
        self.with(Part::Attention { layer })
    }

    fn head_dim(&self) -> i64 {
        self.hidden.checked_div(self.heads).unwrap_or_default()
    }

    fn layers(&self) -> i64 {
        self.parts.iter().filter(|p| matches!(p, Part::Attention { .. })).count() as i64
    }

    /// Draws the parameters part by part, as PyTorch's constructors do, and freezes them.
    pub fn init(self, device: Device) -> Result<LayersPeft> {
        let params = Params::new("the lesson's layers", device);
        let draw = |name: &str, dims: &[i64], init: Init| -> Result<()> {
            Ok(params.insert(name, init.tensor(dims, device)?, false)?)
        };
        for part in &self.parts {
            match part {
                Part::Words { vocab } => {
                    draw("embed.weight", &[*vocab, self.hidden], Init::Normal { std: 1.0 })?;
                }
                Part::Linear { name, inp, out, bias } => {
                    draw(&format!("{name}.weight"), &[*out, *inp], Init::KaimingUniform)?;
                    if *bias {
                        draw(&format!("{name}.bias"), &[*out], Init::linear_bias(*inp))?;
                    }
                }
                Part::Norm { name, width } => {
                    draw(&format!("{name}.weight"), &[*width], Init::Constant(1.0))?;
                    draw(&format!("{name}.bias"), &[*width], Init::Zeros)?;
                }
                Part::Block { .. } => {}
                Part::Attention { layer } => {
                    for leaf in PROJECTIONS {
                        let name = format!("layers.{layer}.self_attn.{leaf}.weight");
                        draw(&name, &[self.hidden, self.hidden], Init::KaimingUniform)?;
                    }
                }
            }
        }
        Ok(LayersPeft::new(params, self)?)
    }
}

const PROJECTIONS: [&str; 4] = ["q_proj", "k_proj", "v_proj", "o_proj"];

/// A view of the parts.
#[derive(Debug)]
pub struct Layers {
    words: Option<Layer>,
    prompts: Vec<Box<dyn Prompt>>,
    linears: BTreeMap<String, Layer>,
    norms: BTreeMap<String, Layer>,
    blocks: BTreeMap<String, Block>,
    attentions: Vec<SelfAttention>,
}

impl Architecture for LayersConfig {
    fn build(&self, scope: &Scope<'_>) -> peft_core::Result<Box<dyn Model>> {
        Ok(Box::new(Layers::new(scope, self)?))
    }

    fn dims(&self) -> Dims {
        let vocab = self.parts.iter().find_map(|p| match p {
            Part::Words { vocab } => Some(*vocab),
            _ => None,
        });
        Dims {
            model_type: "layers".into(),
            transformer: Some(Transformer {
                layers: self.layers(),
                hidden: self.hidden,
                heads: self.heads,
                kv_heads: self.heads,
                head_dim: self.head_dim(),
                word_embedding: "embed.weight".into(),
                vocab: vocab.unwrap_or_default(),
                ..Transformer::default()
            }),
            ..Dims::default()
        }
    }

    /// The lessons' layers are PyTorch's.
    fn numerics(&self) -> Numerics {
        Numerics::Exact
    }
}

/// The parts with their adapters; a view of them is [`Layers`], and not a model alone.
#[derive(Debug)]
pub struct LayersPeft {
    peft: Peft,
    config: LayersConfig,
}

impl LayersPeft {
    /// As [`Peft::new`].
    pub fn new(base: Params, config: LayersConfig) -> peft_core::Result<Self> {
        Ok(Self { peft: Peft::new(base, config.clone())?, config })
    }

    /// As [`Peft::view`].
    pub fn view(&self, active: &[&str]) -> peft_core::Result<Layers> {
        self.peft.view_as(active, |scope| Layers::new(scope, &self.config))
    }

    /// As [`Peft::quantised`].
    pub fn quantised(&self, how: &Nf4Config) -> peft_core::Result<Self> {
        Ok(Self { peft: self.peft.quantised(how)?, config: self.config.clone() })
    }

    /// As [`Peft::merged`].
    pub fn merged(&self, active: &[&str]) -> peft_core::Result<Self> {
        Ok(Self { peft: self.peft.merged(active)?, config: self.config.clone() })
    }
}

impl Deref for LayersPeft {
    type Target = Peft;

    fn deref(&self) -> &Peft {
        &self.peft
    }
}

impl DerefMut for LayersPeft {
    fn deref_mut(&mut self) -> &mut Peft {
        &mut self.peft
    }
}

impl Model for Layers {
    /// What would enter the first layer: the embedded words, after the prompts.
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> peft_core::Result<Tensor> {
        let Some(words) = &self.words else {
            return Err(peft_core::Error::Input("these layers have no word embedding".into()));
        };
        let embeds = words.forward(batch.ids()?, pass)?;
        self.prompted(embeds, pass)
    }
}

impl Layers {
    fn new(s: &Scope<'_>, c: &LayersConfig) -> peft_core::Result<Self> {
        let mut layers = Self {
            words: None,
            prompts: s.prompts()?,
            linears: BTreeMap::new(),
            norms: BTreeMap::new(),
            blocks: BTreeMap::new(),
            attentions: Vec::new(),
        };
        for part in &c.parts {
            match part {
                Part::Words { vocab } => layers.words = Some(s.embedding("embed", *vocab, c.hidden)?),
                Part::Linear { name, inp, out, bias } => {
                    layers.linears.insert(name.clone(), s.linear(name, *inp, *out, *bias)?);
                }
                Part::Norm { name, width } => {
                    layers.norms.insert(name.clone(), s.layer_norm(name, *width, 1e-5)?);
                }
                Part::Block { name, role, width } => {
                    layers.blocks.insert(name.clone(), s.block(name, *role, *width)?);
                }
                Part::Attention { layer } => {
                    layers.attentions.push(SelfAttention::new(&s.at("layers").layer(*layer), c)?);
                }
            }
        }
        Ok(layers)
    }

    /// `[batch, length, hidden]` after the prompts, `[batch, virtual tokens + length, hidden]`.
    pub fn prompted(&self, embeds: Tensor, pass: Pass<'_>) -> peft_core::Result<Tensor> {
        let input = Input { embeds, mask: None, position: 0, virtual_tokens: 0 };
        Ok(self.prompts.iter().try_fold(input, |input, p| p.rewrite(input, pass))?.embeds)
    }

    /// The linear layer `name`.
    pub fn linear(&self, name: &str) -> Result<&Layer> {
        self.linears.get(name).with_context(|| format!("no linear layer `{name}`"))
    }

    /// The layer norm `name`.
    pub fn norm(&self, name: &str) -> Result<&Layer> {
        self.norms.get(name).with_context(|| format!("no layer norm `{name}`"))
    }

    /// The place `name` around nothing: its adapters alone, over the identity.
    pub fn block(&self, name: &str, x: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        self.around(name, x, pass, &|x, _| Ok(x.shallow_clone()))
    }

    /// The place `name` around `body`.
    pub fn around(&self, name: &str, x: &Tensor, pass: Pass<'_>, body: Body<'_>) -> Result<Tensor> {
        let block = self.blocks.get(name).with_context(|| format!("no block `{name}`"))?;
        Ok(block.around(x, pass, body)?)
    }

    /// The self-attention of layer `index`.
    pub fn attention(&self, index: usize) -> Result<&SelfAttention> {
        self.attentions.get(index).with_context(|| format!("no attention {index}"))
    }
}

/// Multi-head self-attention of four linear layers, step by step.
#[derive(Debug)]
pub struct SelfAttention {
    projections: [Layer; 4],
    core: Attention,
    heads: i64,
    head_dim: i64,
}

impl SelfAttention {
    fn new(s: &Scope<'_>, c: &LayersConfig) -> peft_core::Result<Self> {
        let s = s.at("self_attn");
        let linear = |leaf| s.linear(leaf, c.hidden, c.hidden, false);
        let [q, k, v, o] = PROJECTIONS;
        Ok(Self {
            projections: [linear(q)?, linear(k)?, linear(v)?, linear(o)?],
            core: s.multihead_attention("", 0.0)?,
            heads: c.heads,
            head_dim: c.head_dim(),
        })
    }

    /// `[batch, length, hidden]` to `[batch, heads, length, head_dim]`.
    fn split(&self, x: &Tensor) -> peft_core::Result<Tensor> {
        let (batch, length, _) = x.size3()?;
        Ok(x.f_view([batch, length, self.heads, self.head_dim])?.f_transpose(1, 2)?)
    }

    /// q, k and v of `x`, each `[batch, heads, length, head_dim]`.
    pub fn heads(&self, x: &Tensor, pass: Pass<'_>) -> peft_core::Result<Heads> {
        let [q, k, v, _] = &self.projections;
        let of = |layer: &Layer| self.split(&layer.forward(x, pass)?);
        Ok(Heads { q: of(q)?, k: of(k)?, v: of(v)?, mask: None, causal: false, window: None })
    }

    /// `[batch, length, hidden]` to the same.
    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> peft_core::Result<Tensor> {
        let heads = self.heads(x, pass)?;
        let [_, k, v, o] = &self.projections;
        let project = |hidden: &Tensor| {
            Ok((self.split(&k.forward(hidden, pass)?)?, self.split(&v.forward(hidden, pass)?)?))
        };
        let join = |y: &Tensor| Ok(y.f_transpose(1, 2)?.f_contiguous()?.f_view(x.size3()?)?);
        self.core.forward(heads, pass, &project)?.through(join, |y| o.forward(&y, pass))
    }
}
