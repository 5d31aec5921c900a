//! The formulas of the methods that PEFT has no golden for, against the model written out by hand.

use anyhow::{Result, ensure};
use peft_core::methods::{
    Activation, BottleneckConfig, HiddenPrefixConfig, Placement, PrefixTuningConfig, PromptInit,
    PromptTuningConfig, Scaling,
};
use peft_core::seam::{MethodConfig, Role};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use tests::reference::{Formula, Part, Plain, attention, tiny};
use tests::subject::TINY;
use tests::subject::Tiny;
use tests::subject::{Subject, logits, move_away};
use tests::{assert_close, relative_error, serial};

type Tensors = BTreeMap<String, Tensor>;

/// The moved adapter computes what the formula says, and that is not what the base computes.
fn check<F: Formula>(
    what: &str,
    method: impl MethodConfig + 'static,
    formula: impl FnOnce(Tensors) -> F,
) -> Result<()> {
    let _serial = serial();
    let mut peft = Tiny::base()?;
    peft.add("a", method)?;
    move_away(peft.params("a")?, 5)?;
    let (batch, _) = Tiny::batch()?;
    let ids = batch.ids()?;
    let by_hand = |formula: &dyn Formula| tiny(&peft.base().tensors(), &TINY, ids, formula);
    let plain = by_hand(&Plain);
    assert_close("the base", &logits(&peft, &[])?, &plain, 1e-5)?;
    let expected = by_hand(&formula(peft.params("a")?.tensors())).detach();
    assert_close(what, &logits(&peft, &["a"])?, &expected, 1e-5)?;
    let effect = relative_error(&expected, &plain)?;
    ensure!(effect > 1e-2, "{what}: the adapter does nearly nothing ({effect:.1e})");
    Ok(())
}

/// `f(x) + s (U σ(D h + b_d) + b_u)`, h = f(x), or x in parallel; layer norms of h, of what is added, or of the sum.
struct Bottleneck {
    tensors: Tensors,
    config: BottleneckConfig,
}

impl Formula for Bottleneck {
    fn around(&self, layer: i64, role: Role, x: &Tensor, part: Part<'_>) -> Tensor {
        let y = part(x);
        if !self.config.placement.iter().any(|p| Role::from(*p) == role) {
            return y;
        }
        let block = match role {
            Role::Attention => ".attn",
            Role::FeedForward => ".ff",
            Role::Layer => "",
        };
        if self.config.leave_out.contains(&layer) {
            return y;
        }
        let own = |leaf: &str| &self.tensors[&format!("base_model.model.layers.{layer}{block}.{leaf}")];
        let norm = |x: Tensor, name: &str| {
            let centred = &x - x.mean_dim(-1, true, None::<Kind>);
            let variance = centred.square().mean_dim(-1, true, None::<Kind>);
            let weight = own(&format!("adapter_norm_{name}.weight"));
            centred / (variance + 1e-5).sqrt() * weight + own(&format!("adapter_norm_{name}.bias"))
        };
        let h = if self.config.is_parallel { x.copy() } else { y.copy() };
        let h = if self.config.ln_before { norm(h, "before") } else { h };
        let h = h.matmul(&own("adapter_down.weight").tr()) + own("adapter_down.bias");
        let h = match self.config.non_linearity {
            Activation::Relu => h.clamp_min(0),
            Activation::Gelu => &h * 0.5 * ((&h / 2f64.sqrt()).erf() + 1),
            Activation::Silu => &h * h.sigmoid(),
            Activation::Tanh => h.tanh(),
            Activation::LeakyRelu => h.clamp_min(0) + h.clamp_max(0) * 0.01,
        };
        let h = h.matmul(&own("adapter_up.weight").tr()) + own("adapter_up.bias");
        let h = match self.config.scaling {
            Scaling::Fixed(s) => h * s,
            Scaling::Learned => h * own("adapter_scale"),
        };
        match (self.config.ln_after, self.config.adapter_residual_before_ln) {
            (false, _) => y + h,
            (true, false) => y + norm(h, "after"),
            (true, true) => norm(y + h, "after"),
        }
    }
}

#[test]
fn bottlenecks() -> Result<()> {
    use {Activation::*, Placement::*};
    for (non_linearity, placement, is_parallel, scaling) in [
        (Gelu, vec![Attention, FeedForward], false, Scaling::Fixed(1.0)),
        (Relu, vec![FeedForward], false, Scaling::Fixed(0.5)),
        (Silu, vec![Layer], false, Scaling::Learned),
        (Tanh, vec![FeedForward], true, Scaling::Fixed(4.0)),
        (Gelu, vec![Attention], true, Scaling::Learned),
    ] {
        let what = format!("{non_linearity:?} {placement:?} parallel {is_parallel} {scaling:?}");
        let config = BottleneckConfig {
            bottleneck_size: 7,
            non_linearity,
            placement,
            is_parallel,
            scaling,
            ..BottleneckConfig::default()
        };
        check(&what, config.clone(), |tensors| Bottleneck { tensors, config })?;
    }
    Ok(())
}

#[test]
fn bottlenecks_with_adapterhubs_options() -> Result<()> {
    let norms = |ln_before, ln_after, adapter_residual_before_ln| BottleneckConfig {
        bottleneck_size: 5,
        non_linearity: Activation::LeakyRelu,
        scaling: Scaling::Fixed(1.5),
        ln_before,
        ln_after,
        adapter_residual_before_ln,
        ..BottleneckConfig::default()
    };
    for config in [
        norms(true, false, false),
        norms(false, true, false),
        norms(true, true, true),
        BottleneckConfig { is_parallel: true, ..norms(true, true, false) },
        BottleneckConfig { leave_out: vec![0], ..norms(false, false, false) },
        BottleneckConfig::houlsby(),
        BottleneckConfig::pfeiffer(),
        BottleneckConfig::parallel(),
    ] {
        check(&format!("{config:?}"), config.clone(), |tensors| Bottleneck { tensors, config })?;
    }
    Ok(())
}

/// The width of a bottleneck by either field: AdapterHub divides, rounds down, and stops at 1.
#[test]
fn bottlenecks_of_a_share_of_the_width() {
    let size =
        |factor| BottleneckConfig { reduction_factor: Some(factor), ..BottleneckConfig::houlsby() }.size(32);
    assert_eq!([16.0, 2.0, 5.0, 0.5, 100.0].map(size), [2, 16, 6, 64, 1]);
    assert_eq!(BottleneckConfig { bottleneck_size: 7, ..BottleneckConfig::default() }.size(32), 7);
}

/// `attention([P; x])`, and its first rows cut off again.
struct HiddenPrefix(Tensors);

impl Formula for HiddenPrefix {
    fn around(&self, layer: i64, role: Role, x: &Tensor, part: Part<'_>) -> Tensor {
        if role != Role::Attention {
            return part(x);
        }
        let prefix = &self.0[&format!("base_model.model.layers.{layer}.attn.prefix")];
        let n = prefix.size()[0];
        let rows = prefix.unsqueeze(0).repeat([x.size()[0], 1, 1]);
        part(&Tensor::cat(&[&rows, x], 1)).slice(1, n, None, 1)
    }
}

#[test]
fn hidden_prefixes() -> Result<()> {
    let config = HiddenPrefixConfig { num_virtual_tokens: 3, ..HiddenPrefixConfig::default() };
    check("hidden-state prefix", config, HiddenPrefix)
}

/// `softmax(Q [P_k; K]ᵀ/√d) [P_v; V]`, with the keys of layer l in slot 2l and its values in 2l + 1.
struct Prefix(Tensors);

impl Formula for Prefix {
    fn attention(&self, layer: i64, heads: [Tensor; 3], _: &dyn Fn(&Tensor) -> [Tensor; 3]) -> Tensor {
        let [q, k, v] = heads;
        let (batch, heads, _, d) = k.size4().expect("[batch, heads, t, d]");
        let longer = |slot: i64, words: &Tensor| {
            let own = self.0["prompt_embeddings"].narrow(1, slot * heads * d, heads * d).contiguous();
            let own = own.view([-1, heads, d]).transpose(0, 1).unsqueeze(0).repeat([batch, 1, 1, 1]);
            Tensor::cat(&[&own, words], 2)
        };
        attention(&q, &longer(2 * layer, &k), &longer(2 * layer + 1, &v))
    }
}

#[test]
fn prefixes() -> Result<()> {
    let config = PrefixTuningConfig { num_virtual_tokens: 3, ..PrefixTuningConfig::default() };
    check("prefix", config, Prefix)
}

/// `[P; E(x)]`; the head reads the words alone.
struct Prompt(Tensors);

impl Formula for Prompt {
    fn input(&self, words: Tensor) -> (Tensor, i64) {
        let prompt = &self.0["prompt_embeddings"];
        let rows = prompt.unsqueeze(0).repeat([words.size()[0], 1, 1]);
        (Tensor::cat(&[rows, words], 1), prompt.size()[0])
    }
}

#[test]
fn prompts() -> Result<()> {
    let config = PromptTuningConfig { num_virtual_tokens: 3, ..PromptTuningConfig::default() };
    check("prompt", config, Prompt)
}

/// A prompt that starts from words is rows of the word embedding, other rows for another seed.
#[test]
fn sampled_prompts_are_words() -> Result<()> {
    let _serial = serial();
    let mut peft = Tiny::base()?;
    let words = peft.base().tensors()["embed.weight"].copy();
    for (name, seed) in [("a", 1), ("b", 2)] {
        tch::manual_seed(seed);
        let init = PromptInit::SampleVocab;
        peft.add(
            name,
            PromptTuningConfig { num_virtual_tokens: 6, prompt_tuning_init: init, ..Default::default() },
        )?;
        let prompt = peft.params(name)?.tensors()["prompt_embeddings"].detach();
        // [6, 1, hidden] against [vocab, hidden]
        let found = prompt.unsqueeze(1).eq_tensor(&words).all_dim(-1, false);
        ensure!(bool::try_from(found.any_dim(-1, false).all())?, "a row of the prompt is no word");
        let kinds = i64::try_from(found.any_dim(0, false).sum(Kind::Int64))?;
        ensure!(kinds > 1, "the same word six times");
    }
    let get =
        |name: &str| -> Result<Tensor> { Ok(peft.params(name)?.tensors()["prompt_embeddings"].detach()) };
    ensure!(!get("a")?.equal(&get("b")?), "the same words for another seed");
    Ok(())
}
