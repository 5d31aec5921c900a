//! The lessons' model written out a second time, in plain tensor operations, with places to change it: what a method's
//! formula says, computed without the crate's seam.

use peft_core::models::TinyConfig;
use peft_core::seam::Role;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// A part of the model, from its input to its output.
pub type Part<'a> = &'a dyn Fn(&Tensor) -> Tensor;

/// Changes to the model, by layer; every one defaults to "none".
pub trait Formula {
    /// What enters the first layer, from the words `[batch, t, hidden]`; and how many leading rows are no words.
    fn input(&self, words: Tensor) -> (Tensor, i64) {
        (words, 0)
    }

    /// The computation around a block, of which `part` is the model's own.
    fn around(&self, layer: i64, role: Role, x: &Tensor, part: Part<'_>) -> Tensor {
        let _ = (layer, role);
        part(x)
    }

    /// The attention core, from queries, keys and values `[batch, heads, t, d]`; `project` gives the three for other
    /// hidden states.
    fn attention(&self, layer: i64, heads: [Tensor; 3], project: &dyn Fn(&Tensor) -> [Tensor; 3]) -> Tensor {
        let _ = (layer, project);
        let [q, k, v] = heads;
        attention(&q, &k, &v)
    }
}

/// Nothing is changed.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

impl Formula for Plain {}

/// `softmax(q Kᵀ/√d) V`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let d = q.size().last().copied().unwrap_or(1) as f64;
    (q.matmul(&k.transpose(-2, -1)) / d.sqrt()).softmax(-1, None::<Kind>).matmul(v)
}

/// Logits of the lessons' model for `ids` `[batch, t]`.
pub fn tiny(base: &BTreeMap<String, Tensor>, c: &TinyConfig, ids: &Tensor, formula: &dyn Formula) -> Tensor {
    let linear = |x: &Tensor, name: &str| {
        x.linear(&base[&format!("{name}.weight")], base.get(&format!("{name}.bias")))
    };
    let norm = |x: &Tensor, name: &str| {
        let (w, b) = (&base[&format!("{name}.weight")], base.get(&format!("{name}.bias")));
        x.layer_norm([c.hidden], Some(w), b, 1e-5, true)
    };
    let batch = ids.size()[0];
    let words = base["embed.weight"].index_select(0, &ids.flatten(0, -1)).view([batch, -1, c.hidden]);
    let (mut x, virtual_tokens) = formula.input(words);
    for i in 0..c.layers {
        let at = |leaf: &str| format!("layers.{i}.{leaf}");
        let project = |x: &Tensor| -> [Tensor; 3] {
            let packed = x.linear(&base[&at("attn.in_proj_weight")], base.get(&at("attn.in_proj_bias")));
            let (batch, t, _) = x.size3().expect("[batch, t, hidden]");
            [0, 1, 2].map(|j| {
                let one = packed.narrow(2, j * c.hidden, c.hidden).contiguous();
                one.view([batch, t, c.heads, c.hidden / c.heads]).transpose(1, 2)
            })
        };
        let attend = |x: &Tensor| {
            let y = formula.attention(i, project(x), &project);
            linear(&y.transpose(1, 2).reshape(x.size()), &at("attn.out_proj"))
        };
        let feed_forward = |x: &Tensor| linear(&linear(x, &at("ff.0")).gelu("none"), &at("ff.2"));
        let layer = |x: &Tensor| {
            let x = norm(&(x + formula.around(i, Role::Attention, x, &attend)), &at("n1"));
            norm(&(&x + formula.around(i, Role::FeedForward, &x, &feed_forward)), &at("n2"))
        };
        x = formula.around(i, Role::Layer, &x, &layer);
    }
    let words = x.slice(1, virtual_tokens, None, 1);
    linear(&words.mean_dim(1, false, None::<Kind>), "head")
}
