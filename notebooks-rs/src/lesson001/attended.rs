//! A forward pass of section 4.1's attention, with its prefix and without, weight by weight.

use super::prefix::{HEAD_DIM, HEADS, HIDDEN, Lesson, PREFIX, WORDS};
use crate::Setting;
use crate::layers::Layers;
use crate::measure::max_abs;
use anyhow::{Context, Result};
use peft_core::Pass;
use peft_plot::{Colours, Figure, Heat, Panel};
use tch::{Device, Kind, Tensor};

/// Weights of the first layer's attention over some words, `[batch, heads, words, keys]`.
#[derive(Debug)]
pub struct Attended {
    alone: Tensor,
    pub prefixed: Tensor,
    /// The same without 1/√d, as the lesson's formula has it.
    pub unscaled: Tensor,
    /// Outputs of the layer by the library, without the prefix and with it.
    outputs: [Tensor; 2],
    /// Largest difference between the prefixed output and the one computed of `prefixed`.
    pub error: f64,
}

impl Attended {
    pub fn new(lesson: &Lesson, setting: Setting) -> Result<Self> {
        let x = Tensor::f_randn([1, WORDS, HIDDEN], (Kind::Float, Device::Cpu))?.f_to(setting.device)?;
        let [keys, values] = lesson.right(1)?;
        let (keys, values) = (keys.f_get(0)?, values.f_get(0)?);
        let (plain, with) = (lesson.peft.view(&[])?, lesson.peft.view(&["prefix"])?);
        let heads = plain.attention(0)?.heads(&x, Pass::eval())?;
        let longer = Tensor::f_cat(&[&keys, &heads.k], 2)?;
        let weights = |k: &Tensor, scale: f64| -> Result<Tensor> {
            let scores = heads.q.f_matmul(&k.f_transpose(-2, -1)?)?.f_mul_scalar(scale)?;
            Ok(scores.f_softmax(-1, None::<Kind>)?)
        };
        let scale = 1.0 / (HEAD_DIM as f64).sqrt();
        let prefixed = weights(&longer, scale)?;
        let output = |view: &Layers| -> Result<Tensor> { Ok(view.attention(0)?.forward(&x, Pass::eval())?) };
        let outputs = [output(&plain)?, output(&with)?];
        let by_hand = prefixed.f_matmul(&Tensor::f_cat(&[&values, &heads.v], 2)?)?;
        let by_hand = by_hand.f_transpose(1, 2)?.f_reshape([1, WORDS, HIDDEN])?;
        let name = "layers.0.self_attn.o_proj.weight";
        let o = lesson.peft.base().find(name).context(name)?;
        let error = max_abs(&by_hand.f_linear(&o, None::<Tensor>)?, &outputs[1])?;
        Ok(Self {
            alone: weights(&heads.k, scale)?,
            prefixed,
            unscaled: weights(&longer, 1.0)?,
            outputs,
            error,
        })
    }

    /// Share of the attention that the prefix gets, over all heads and words.
    pub fn share(&self) -> Result<f64> {
        let on_prefix = self.prefixed.f_narrow(-1, 0, PREFIX)?.f_sum(Kind::Double)?;
        Ok(f64::try_from(on_prefix)? / (HEADS * WORDS) as f64)
    }

    /// `‖y' − y‖ / ‖y‖`, of the layer's output with the prefix and without.
    pub fn change(&self) -> Result<f64> {
        let [alone, with] = &self.outputs;
        Ok(f64::try_from(with.f_sub(alone)?.f_norm()?)? / f64::try_from(alone.f_norm()?)?)
    }

    pub fn figure(&self, share: f64) -> Result<Figure> {
        // Nothing looks at a prefix that is not there.
        let alone = self.alone.f_constant_pad_nd([PREFIX, 0])?;
        let most = largest(&alone.f_get(0)?.f_get(0)?)?;
        let panel = |title: &str, weights: &Tensor| -> Result<Panel> {
            let rows = Vec::<Vec<f64>>::try_from(weights.f_get(0)?.f_get(0)?.f_to_kind(Kind::Double)?)?;
            Ok(Panel::Heat(Heat {
                title: title.into(),
                x: "key".into(),
                y: "query: word".into(),
                rows,
                colours: Colours::Sequential,
                range: Some((0.0, most)),
                divider: Some((PREFIX as usize, "prefix".into(), "words".into())),
            }))
        };
        Ok(Figure {
            title: format!("Attention of {WORDS} words, layer 0, head 0"),
            rows: vec![vec![
                panel("without a prefix", &alone)?,
                panel("with a prefix, untrained", &self.prefixed)?,
            ]],
            note: Some(format!(
                "A row is a softmax: over all heads the prefix takes {:.0}% of it at once.",
                100.0 * share
            )),
        })
    }
}

/// `max |a|`
pub fn largest(t: &Tensor) -> Result<f64> {
    Ok(f64::try_from(t.f_abs()?.f_max()?)?)
}
