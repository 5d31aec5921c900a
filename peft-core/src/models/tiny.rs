//! The lessons' model: a small post-norm transformer classifier of PyTorch's parts, with PyTorch's names, initial
//! values and order of operations, so that it has the bits of the Python original.
//!
//! Per layer `x = n1(x + attn(x))`, `x = n2(x + ff(x))`, `ff = W₂ gelu(W₁ x)`; logits from the mean over tokens.
//! There are no positions: it is a bag of tokens.

use crate::error::{Error, Result};
use crate::run::{Architecture, Model, Scope};
use crate::seam::{
    Attention, Batch, Block, Dims, Heads, Init, Input, Layer, Numerics, Params, Pass, Prompt, Role, Stack,
    TaskType, Transformer,
};
use tch::{Device, Kind, Tensor};

/// Sizes of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TinyConfig {
    pub vocab: i64,
    pub hidden: i64,
    pub layers: i64,
    pub heads: i64,
    pub ffn: i64,
    pub classes: i64,
}

impl Default for TinyConfig {
    /// The lesson's: 100 tokens, width 32, 2 layers of 4 heads, 4 classes; 28,740 parameters.
    fn default() -> Self {
        Self { vocab: 100, hidden: 32, layers: 2, heads: 4, ffn: 128, classes: 4 }
    }
}

impl TinyConfig {
    fn head_dim(&self) -> i64 {
        self.hidden.checked_div(self.heads).unwrap_or_default()
    }

    /// Fresh parameters, drawn in the order in which PyTorch's constructors draw them. All are trainable.
    pub fn init(&self, device: Device) -> Result<Params> {
        let params = Params::new("the tiny model", device);
        let d = self.hidden;
        let draw =
            |name: &str, dims: &[i64], init: Init| params.insert(name, init.tensor(dims, device)?, true);
        let linear = |name: &str, inp: i64, out: i64| -> Result<()> {
            draw(&format!("{name}.weight"), &[out, inp], Init::KaimingUniform)?;
            draw(&format!("{name}.bias"), &[out], Init::linear_bias(inp))
        };
        draw("embed.weight", &[self.vocab, d], Init::Normal { std: 1.0 })?;
        for i in 0..self.layers {
            let at = |leaf: &str| format!("layers.{i}.{leaf}");
            // nn.MultiheadAttention draws its output projection first, then the packed one, and zeroes both biases.
            draw(&at("attn.out_proj.weight"), &[d, d], Init::KaimingUniform)?;
            draw(&at("attn.out_proj.bias"), &[d], Init::ZerosDrawn)?;
            let packed = d.saturating_mul(3);
            draw(&at("attn.in_proj_weight"), &[packed, d], Init::XavierUniform)?;
            draw(&at("attn.in_proj_bias"), &[packed], Init::Zeros)?;
            linear(&at("ff.0"), d, self.ffn)?;
            linear(&at("ff.2"), self.ffn, d)?;
            for norm in ["n1", "n2"] {
                draw(&at(&format!("{norm}.weight")), &[d], Init::Constant(1.0))?;
                draw(&at(&format!("{norm}.bias")), &[d], Init::Zeros)?;
            }
        }
        linear("head", d, self.classes)?;
        Ok(params)
    }
}

/// A view of the model.
#[derive(Debug)]
pub struct Tiny {
    embed: Layer,
    prompts: Vec<Box<dyn Prompt>>,
    layers: Stack<TinyLayer>,
    head: Layer,
    vocab: i64,
}

impl Architecture for TinyConfig {
    fn build(&self, scope: &Scope<'_>) -> Result<Box<dyn Model>> {
        Ok(Box::new(Tiny::new(scope, self)?))
    }

    fn dims(&self) -> Dims {
        Dims {
            model_type: "tiny".into(),
            task: Some(TaskType::SeqCls),
            head: Some("head".into()),
            transformer: Some(Transformer {
                layers: self.layers,
                hidden: self.hidden,
                heads: self.heads,
                kv_heads: self.heads,
                head_dim: self.head_dim(),
                word_embedding: "embed.weight".into(),
                vocab: self.vocab,
                ..Transformer::default()
            }),
            ..Dims::default()
        }
    }

    fn numerics(&self) -> Numerics {
        Numerics::Exact
    }

    fn resized(&self, vocab: i64) -> Option<Box<dyn Architecture>> {
        Some(Self { vocab, ..self.clone() }.into())
    }
}

impl Tiny {
    /// The view in `scope`.
    ///
    /// # Errors
    /// Parameters that are missing or of another shape.
    pub fn new(s: &Scope<'_>, c: &TinyConfig) -> Result<Self> {
        Ok(Self {
            embed: s.embedding("embed", c.vocab, c.hidden)?,
            prompts: s.prompts()?,
            layers: Stack::new((0..c.layers).map(|i| TinyLayer::new(&s.at("layers").layer(i), c)))?,
            head: s.linear("head", c.hidden, c.classes, true)?,
            vocab: c.vocab,
        })
    }
}

impl Model for Tiny {
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor> {
        if batch.mask.is_some() {
            return Err(Error::Input("the tiny model takes rows of one length, without a mask".into()));
        }
        batch.check_ids(self.vocab)?;
        batch.check_unpacked()?;
        let embeds = self.embed.forward(batch.ids()?, pass)?;
        let input = Input { embeds, mask: None, position: 0, virtual_tokens: 0 };
        let input = self.prompts.iter().try_fold(input, |input, p| p.rewrite(input, pass))?;
        let mut x = self.layers.forward(input.embeds, pass, |layer, x, pass| layer.forward(x, pass))?;
        if input.virtual_tokens > 0 {
            x = x.f_slice(1, input.virtual_tokens, None, 1)?;
        }
        self.head.forward(&x.f_mean_dim(1, false, None::<Kind>)?, pass)
    }
}

#[derive(Debug)]
struct TinyLayer {
    whole: Block,
    attn_block: Block,
    attn: SelfAttention,
    n1: Layer,
    ff_block: Block,
    ff0: Layer,
    ff2: Layer,
    n2: Layer,
}

impl TinyLayer {
    fn new(s: &Scope<'_>, c: &TinyConfig) -> Result<Self> {
        let (d, ff) = (c.hidden, s.at("ff"));
        Ok(Self {
            attn_block: s.block("attn", Role::Attention, d)?,
            attn: SelfAttention::new(&s.at("attn").length_first(), c)?,
            n1: s.layer_norm("n1", d, 1e-5)?,
            ff_block: s.block("ff", Role::FeedForward, d)?,
            ff0: ff.linear("0", d, c.ffn, true)?,
            ff2: ff.linear("2", c.ffn, d, true)?,
            n2: s.layer_norm("n2", d, 1e-5)?,
            whole: s.block("", Role::Layer, d)?,
        })
    }

    fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        self.whole.around(x, pass, &|x, pass| {
            let a = self.attn_block.around(x, pass, &|x, pass| self.attn.forward(x, pass))?;
            let x = self.n1.forward(&x.f_add(&a)?, pass)?;
            let f = self.ff_block.around(&x, pass, &|x, pass| {
                self.ff2.forward(&self.ff0.forward(x, pass)?.f_gelu("none")?, pass)
            })?;
            self.n2.forward(&x.f_add(&f)?, pass)
        })
    }
}

/// `nn.MultiheadAttention(d, heads, batch_first=True)` on `x, x, x`, step by step: it works with the length first.
#[derive(Debug)]
struct SelfAttention {
    in_proj: Layer,
    core: Attention,
    out_proj: Layer,
    heads: i64,
    head_dim: i64,
}

impl SelfAttention {
    fn new(s: &Scope<'_>, c: &TinyConfig) -> Result<Self> {
        Ok(Self {
            in_proj: s.in_proj("in_proj", c.hidden, c.hidden.saturating_mul(3))?,
            core: s.multihead_attention("core", 0.0)?,
            out_proj: s.linear("out_proj", c.hidden, c.hidden, true)?,
            heads: c.heads,
            head_dim: c.head_dim(),
        })
    }

    /// q, k and v of `x` `[batch, t, d]`, each `[batch, heads, t, head_dim]`.
    fn project(&self, x: &Tensor, pass: Pass<'_>) -> Result<[Tensor; 3]> {
        let (b, t, d) = x.size3()?;
        let packed = self.in_proj.forward(&x.f_transpose(0, 1)?, pass)?;
        let packed = packed.f_view([t, b, 3, d])?.f_permute([2, 0, 1, 3])?.f_contiguous()?;
        let split = |i: i64| -> Result<Tensor> {
            Ok(packed.f_get(i)?.f_view([t, b, self.heads, self.head_dim])?.f_permute([1, 2, 0, 3])?)
        };
        Ok([split(0)?, split(1)?, split(2)?])
    }

    fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        let (b, t, d) = x.size3()?;
        let [q, k, v] = self.project(x, pass)?;
        let heads =
            Heads { q, k, v, mask: pass.mask.map(Tensor::shallow_clone), causal: pass.causal, window: None };
        // For adapters that put hidden states before the words': they need this layer's own keys and values of them.
        let attended = self.core.forward(heads, pass, &|hidden| {
            let [_, k, v] = self.project(hidden, pass)?;
            Ok((k, v))
        })?;
        let rows = b.saturating_mul(t);
        let join = |y: &Tensor| Ok(y.f_permute([2, 0, 1, 3])?.f_reshape([rows, d])?);
        // Through the output projection, behind which an adapter may add attention of its own.
        let y = attended.through(join, |y| self.out_proj.forward(&y, pass))?;
        Ok(y.f_view([t, b, d])?.f_transpose(0, 1)?)
    }
}
