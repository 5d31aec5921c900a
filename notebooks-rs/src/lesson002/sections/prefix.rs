//! `PrefixTuning`.

use crate::layers::{Layers, LayersConfig, LayersPeft};
use crate::lesson002::attention::{NAMES, SelfAttention};
use crate::lesson002::check::show;
use crate::lesson002::library::{Twin, base, single};
use crate::lesson002::module::{Frozen, Module};
use crate::lesson002::prefix::PrefixTuning;
use crate::lesson002::tensors::{Source, norm, shape, values};
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::Pass;
use peft_core::methods::PrefixTuningConfig;
use peft_core::report::commas;
use peft_plot::{Colours, Figure, Heat, Panel};
use tch::{Kind, Tensor};

/// Sizes of the example.
pub const LAYERS: i64 = 2;
pub const WIDTH: i64 = 8;
pub const HEADS: i64 = 2;
pub const PREFIX_LENGTH: i64 = 3;

/// The weights of q, k, v and o of each layer.
pub type Weights = Vec<[Tensor; 4]>;

/// Weights that a layer might have: N(0, 1/width).
pub fn weights(source: Source) -> Result<Weights> {
    let std = 1.0 / (WIDTH as f64).sqrt();
    let one = || source.normal(&[WIDTH, WIDTH], std);
    (0..LAYERS).map(|_| Ok([one()?, one()?, one()?, one()?])).collect()
}

/// Frozen attention layers of these weights.
pub fn layers(weights: &Weights) -> Vec<SelfAttention> {
    let frozen =
        |w: &Tensor| -> Box<dyn Module> { Box::new(Frozen { weight: w.shallow_clone(), bias: None }) };
    weights.iter().map(|w| SelfAttention::new(w.each_ref().map(frozen), HEADS)).collect()
}

/// The same layers in the library.
pub fn library(weights: &Weights) -> Result<LayersPeft> {
    let config = (0..LAYERS).fold(LayersConfig::new(WIDTH, HEADS), |config, _| config.attention());
    let mut tensors = Vec::new();
    for (i, layer) in weights.iter().enumerate() {
        for (name, w) in NAMES.iter().zip(layer) {
            tensors.push(single(format!("layers.{i}.self_attn.{name}_proj.weight"), w)?);
        }
    }
    base(config, tensors)
}

/// One layer after another, in the library.
pub fn attend(view: &Layers, x: &Tensor) -> Result<Tensor> {
    (0..LAYERS as usize)
        .try_fold(x.shallow_clone(), |x, i| Ok(view.attention(i)?.forward(&x, Pass::eval())?))
}

/// `[layers, 2, n, heads, d]` as the library stores it, `[n, 2 · layers · width]`.
pub fn stored(prefix: &Tensor) -> Result<Tensor> {
    Ok(prefix.f_permute([2, 0, 1, 3, 4])?.f_reshape([PREFIX_LENGTH, -1])?)
}

pub fn section(setting: Setting, page: &mut Page) -> Result<()> {
    tch::manual_seed(setting.seed);
    let source = Source(setting.device);
    let weights = weights(source)?;
    let shape5 = [LAYERS, 2, PREFIX_LENGTH, HEADS, WIDTH / HEADS];
    let mut tuning = PrefixTuning::of(source.normal(&shape5, 1.0)?, layers(&weights))?;
    let (x, grad) = (source.normal(&[2, 5, WIDTH], 1.0)?, source.normal(&[2, 5, WIDTH], 1.0)?);
    let y = tuning.forward(&x)?;
    let dx = tuning.backward(&grad)?;
    let dp = tuning.prefix.grad.f_detach_copy()?;
    let share = prefix_share(&tuning)?;
    let attention = tuning.layers.weights(0)?.f_detach_copy()?;

    page.line(format!("Prefix shape: {}  (layers, keys and values, tokens, heads, d_head)", shape(&dp)))?;
    page.line(format!("Prefix parameters: {}", commas(tuning.count())))?;
    page.line(format!("Input shape: {}", shape(&x)))?;
    page.line(format!("Attention weights: {}", shape(&attention)))?;
    page.line(format!("Output shape: {}", shape(&y)))?;
    page.line(format!("Gradients computed: prefix={}", shape(&dp)))?;
    show(page, "PrefixTuning", &mut tuning, &x, &grad)?;
    library_has_the_same(page, &weights, &mut tuning, [&x, &grad])?;
    figure(page, &attention)?;
    page.mistakes(&[Mistake::new(
        "The lesson's class has no forward and no backward pass: what its keys and values do, and learn, \
         is left out",
        "get_prefix, num_parameters",
        format!(
            "forward to {}, backward to {} and {}, count {}",
            shape(&y),
            shape(&dx),
            shape(&dp),
            commas(tuning.count())
        ),
    )])?;
    page.fact("share", share);
    let small = small_start(page, source, &weights, &x)?;
    page.what_to_see(&[
        format!(
            "With N(0, 1) keys, {:.0} % of the first layer's attention goes to the prefix.",
            100.0 * share
        ),
        small,
        "The gradient by a key comes through the softmax, that by a value does not: dV = Pᵀ G.".into(),
    ])?;
    Ok(())
}

/// The mean share of the first layer's attention that goes to the prefix.
fn prefix_share(tuning: &PrefixTuning) -> Result<f64> {
    let sums = tuning.layers.weights(0)?.f_narrow(-1, 0, PREFIX_LENGTH)?;
    let sums = sums.f_sum_dim_intlist([-1i64].as_slice(), false, None::<Kind>)?;
    Ok(sums.f_mean(None::<Kind>)?.f_double_value(&[])?)
}

/// Keys and values near zero are not "nothing": a score of 0 has its share of the softmax.
fn small_start(page: &mut Page, source: Source, weights: &Weights, x: &Tensor) -> Result<String> {
    let mut fresh = PrefixTuning::new(source, layers(weights), PREFIX_LENGTH, [HEADS, WIDTH / HEADS])?;
    let behind = fresh.forward(x)?;
    let share = prefix_share(&fresh)?;
    let plain = layers(weights).iter_mut().try_fold(x.shallow_clone(), |x, layer| layer.forward(&x))?;
    let change = norm(&behind.f_sub(&plain)?)? / norm(&plain)?;
    page.fact("start.share", share);
    page.fact("start.change", change);
    Ok(format!(
        "The lesson starts it at N(0, 0.01²). That is not \"no prefix\": a score near 0 still gets {:.0} % \
         of the attention, and the output changes by {:.0} %.",
        100.0 * share,
        100.0 * change
    ))
}

/// The same prefix of the library.
fn library_has_the_same(
    page: &mut Page,
    weights: &Weights,
    tuning: &mut PrefixTuning,
    [x, grad]: [&Tensor; 2],
) -> Result<()> {
    let config = PrefixTuningConfig { num_virtual_tokens: PREFIX_LENGTH, ..PrefixTuningConfig::default() };
    let twin = Twin {
        title: "PrefixTuningConfig",
        base: library(weights)?,
        methods: vec![("", config.into())],
        more: Vec::new(),
        name: &|_| "prompt_embeddings".into(),
        stored: &stored,
        forward: &attend,
    };
    twin.agree(page, tuning, x, grad)?;
    Ok(())
}

/// The attention of the first row and head, layer 0.
fn figure(page: &mut Page, attention: &Tensor) -> Result<()> {
    let one = attention.f_get(0)?.f_get(0)?;
    let rows = values(&one)?.chunks(one.size2()?.1 as usize).map(<[f64]>::to_vec).collect();
    let heat = Heat {
        title: "attention weights, first layer, first head".into(),
        x: "key".into(),
        y: "query".into(),
        rows,
        colours: Colours::Sequential,
        range: Some((0.0, 1.0)),
        divider: Some((PREFIX_LENGTH as usize, "prefix".into(), "words".into())),
    };
    page.figure(
        "scratch_prefix_attention",
        Figure {
            title: "Attention behind a prefix".into(),
            rows: vec![vec![Panel::Heat(heat)]],
            note: Some("Each row sums to 1: what goes to the prefix is taken from the words.".into()),
        },
    )?;
    Ok(())
}
