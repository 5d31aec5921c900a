//! Exercise 4: a prefix from an embedding, by a network.

use super::task;
use crate::Page;
use crate::layers::LayersPeft;
use crate::lesson002::check::show;
use crate::lesson002::library::{Twin, alike};
use crate::lesson002::module::{Module, Parameter, kept};
use crate::lesson002::prefix::{PrefixTuning, Stack};
use crate::lesson002::sections::prefix::{
    HEADS, LAYERS, PREFIX_LENGTH, WIDTH, attend, layers, library, stored, weights,
};
use crate::lesson002::tensors::{Source, relative, shape};
use crate::lesson002::train::{ends, fit};
use anyhow::Result;
use peft_core::methods::PrefixTuningConfig;
use peft_core::report::commas;
use tch::{Kind, Tensor};

/// A prefix that is computed: `P = tanh(E W₁ᵀ + b₁) W₂ᵀ + b₂` (Li & Liang 2021, section 4.3).
///
/// ```text
/// T = tanh(E W₁ᵀ + b₁)      [n, w] [w, h]   = [n, h]
/// P = T W₂ᵀ + b₂            [n, h] [h, 2Lw] = [n, 2Lw]   a row a token: keys and values of all L layers
/// ```
///
/// Backward, with `G = ∂L/∂P` from the attention layers, and `tanh' = 1 − tanh²`:
///
/// ```text
/// dW₂ = Gᵀ T                [2Lw, n] [n, h] = [2Lw, h]        db₂ = Σ_n G
/// dU  = (G W₂) ⊙ (1 − T²)   [n, 2Lw] [2Lw, h] = [n, h]
/// dW₁ = dUᵀ E               [h, n] [n, w]   = [h, w]          db₁ = Σ_n dU
/// dE  = dU W₁               [n, h] [h, w]   = [n, w]
/// ```
#[derive(Debug)]
pub struct PrefixMlp {
    /// E `[n, w]`
    embedding: Parameter,
    /// W₁ `[h, w]`, b₁ `[h]`
    first: [Parameter; 2],
    /// W₂ `[2 L w, h]`, b₂ `[2 L w]`
    last: [Parameter; 2],
    layers: Stack,
    /// T `[n, h]`
    cache: Option<Tensor>,
}

impl PrefixMlp {
    fn new(source: Source, layers: Stack, hidden: i64) -> Result<Self> {
        let all = 2 * LAYERS * WIDTH;
        let linear = |out: i64, inp: i64| -> Result<[Parameter; 2]> {
            let weight = source.normal(&[out, inp], 1.0 / (inp as f64).sqrt())?;
            Ok([Parameter::new(weight)?, Parameter::new(source.zeros(&[out])?)?])
        };
        let embedding = Parameter::new(source.normal(&[PREFIX_LENGTH, WIDTH], 1.0)?)?;
        Ok(Self { embedding, first: linear(hidden, WIDTH)?, last: linear(all, hidden)?, layers, cache: None })
    }

    /// P `[layers, 2, n, heads, d]`: all that is left of the network after training.
    pub fn prefix(&mut self) -> Result<Tensor> {
        let linear = |x: &Tensor, [w, b]: &[Parameter; 2]| x.f_linear(&w.value, Some(&b.value));
        let t = linear(&self.embedding.value, &self.first)?.f_tanh()?;
        let p = linear(&t, &self.last)?;
        self.cache = Some(t);
        Ok(p.f_view([PREFIX_LENGTH, LAYERS, 2, HEADS, WIDTH / HEADS])?.f_permute([1, 2, 0, 3, 4])?)
    }
}

impl Module for PrefixMlp {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        let prefix = self.prefix()?;
        self.layers.forward(x, &prefix)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        let (dx, prefix) = self.layers.backward(grad)?;
        let (t, g) = (kept(&self.cache)?, stored(&prefix)?);
        let sum = |g: &Tensor| g.f_sum_dim_intlist([0i64].as_slice(), false, None::<Kind>);
        let ([w1, b1], [w2, b2]) = (&self.first, &self.last);
        w2.accumulate(&g.f_tr()?.f_matmul(t)?)?;
        b2.accumulate(&sum(&g)?)?;
        let du = g.f_matmul(&w2.value)?.f_mul(&t.f_square()?.f_neg()?.f_add_scalar(1.0)?)?;
        w1.accumulate(&du.f_tr()?.f_matmul(&self.embedding.value)?)?;
        b1.accumulate(&sum(&du)?)?;
        self.embedding.accumulate(&du.f_matmul(&w1.value)?)?;
        Ok(dx)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        let ([w1, b1], [w2, b2]) = (&self.first, &self.last);
        let all = [("E", &self.embedding), ("W1", w1), ("b1", b1), ("W2", w2), ("b2", b2)];
        all.map(|(name, p)| (name.to_owned(), p)).into()
    }
}

const HIDDEN: i64 = 6;
const STEPS: i32 = 100;

pub(super) fn solve(page: &mut Page, source: Source) -> Result<String> {
    task(page, 4, "Prefix from an embedding, by an MLP")?;
    let weights = weights(source)?;
    let mut mlp = PrefixMlp::new(source, Stack(layers(&weights)), HIDDEN)?;
    let (x, grad) = (source.normal(&[4, 5, WIDTH], 1.0)?, source.normal(&[4, 5, WIDTH], 1.0)?);
    // What another prefix makes of x is what this one learns.
    let shape5 = [LAYERS, 2, PREFIX_LENGTH, HEADS, WIDTH / HEADS];
    let target = PrefixTuning::of(source.normal(&shape5, 1.0)?, layers(&weights))?.forward(&x)?;
    let losses = fit(&mut mlp, &x, &target, STEPS, 0.05)?;
    let [first, last] = ends(&losses)?;
    let prefix = mlp.prefix()?;
    let mut plain = PrefixTuning::of(prefix.f_detach_copy()?, layers(&weights))?;
    let apart = relative(&plain.forward(&x)?, &mlp.forward(&x)?)?;
    page.line(format!("Loss over {STEPS} steps: {first:.4} to {last:.4}"))?;
    page.line(format!(
        "Trained: {} parameters, kept: {} of prefix {}",
        commas(mlp.count()),
        commas(plain.count()),
        shape(&prefix)
    ))?;
    page.line(format!("Output without the MLP: differs by {apart}"))?;
    page.fact("prefix_mlp.losses", losses);
    page.fact("prefix_mlp.apart", apart);
    show(page, "PrefixMlp", &mut mlp, &x, &grad)?;
    library_has_the_same(page, library(&weights)?, &mut mlp, [&x, &grad])?;
    Ok(format!(
        "4: the network is there for training alone. Its output is the prefix: with that table in its \
         place the outputs differ by {apart}, and {} of {} parameters are thrown away.",
        commas(mlp.count() - plain.count()),
        commas(mlp.count())
    ))
}

/// The same of the library, which calls it `prefix_projection`.
fn library_has_the_same(
    page: &mut Page,
    base: LayersPeft,
    mlp: &mut PrefixMlp,
    [x, grad]: [&Tensor; 2],
) -> Result<()> {
    let config = PrefixTuningConfig {
        num_virtual_tokens: PREFIX_LENGTH,
        prefix_projection: true,
        encoder_hidden_size: Some(HIDDEN),
        ..PrefixTuningConfig::default()
    };
    let twin = Twin {
        title: "PrefixTuningConfig with a projection",
        base,
        methods: vec![("", config.into())],
        more: Vec::new(),
        name: &|name| {
            let leaf = match name {
                "E" => "embedding.weight",
                "W1" => "transform.0.weight",
                "b1" => "transform.0.bias",
                "W2" => "transform.2.weight",
                _ => "transform.2.bias",
            };
            format!("encoder.{leaf}")
        },
        stored: &alike,
        forward: &attend,
    };
    twin.agree(page, mlp, x, grad)?;
    Ok(())
}
