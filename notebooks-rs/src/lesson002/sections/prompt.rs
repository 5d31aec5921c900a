//! `PromptTuning`.

use super::computed;
use crate::layers::LayersConfig;
use crate::lesson002::check::{overwritten, show};
use crate::lesson002::library::{Twin, alike, base, single};
use crate::lesson002::module::Module;
use crate::lesson002::prompt::PromptTuning;
use crate::lesson002::tensors::{Source, norm, relative, shape};
use crate::measure::small;
use crate::{Page, Setting};
use anyhow::Result;
use peft_core::Pass;
use peft_core::methods::PromptTuningConfig;
use peft_core::report::commas;
use tch::Tensor;

pub fn section(setting: Setting, page: &mut Page) -> Result<()> {
    tch::manual_seed(setting.seed);
    let source = Source(setting.device);
    let mut prompt = PromptTuning::of(source.ramp(&[4, 6], [0.45, 0.15, 1.0])?)?;
    let (x, grad) = (source.ramp(&[2, 3, 6], [0.53, 0.4, 1.0])?, source.ramp(&[2, 7, 6], [0.37, 0.6, 1.0])?);
    let y = prompt.forward(&x)?;
    let dx = prompt.backward(&grad)?;
    let dp = prompt.prompt.grad.f_detach_copy()?;

    page.line(format!("Original sequence length: {}", x.size3()?.1))?;
    page.line(format!("With soft prompt: {}", y.size3()?.1))?;
    page.line(format!("Prompt parameters: {}", commas(prompt.count())))?;
    page.line(format!("Gradients computed: prompt={}", shape(&dp)))?;
    computed(
        page,
        "Forward and backward of closed-form numbers",
        &[("y", "[P; x]", &y), ("prompt_grad", "Σ_batch G[:, :n]", &dp), ("grad_x", "G[:, n:]", &dx)],
    )?;
    show(page, "PromptTuning", &mut prompt, &x, &grad)?;
    library_has_the_same(page, &mut prompt, [&x, &grad])?;

    let other = source.ramp(&[2, 7, 6], [0.29, 0.8, 1.0])?;
    page.mistakes(&[overwritten(&mut prompt, [[&x, &grad], [&x, &other]])?])?;
    let see = [shared(page, &mut prompt, &x, &other)?, starts(page, source)?];
    page.what_to_see(&see)?;
    Ok(())
}

/// The same prompt of the library.
fn library_has_the_same(page: &mut Page, prompt: &mut PromptTuning, [x, grad]: [&Tensor; 2]) -> Result<()> {
    let words = vec![single("embed.weight", &x.f_view([6, 6])?)?];
    let config = PromptTuningConfig { num_virtual_tokens: prompt.length()?, ..PromptTuningConfig::default() };
    let twin = Twin {
        title: "PromptTuningConfig",
        base: base(LayersConfig::new(6, 1).words(6), words)?,
        methods: vec![("", config.into())],
        more: Vec::new(),
        name: &|_| "prompt_embeddings".into(),
        stored: &alike,
        forward: &|view, x| Ok(view.prompted(x.shallow_clone(), Pass::eval())?),
    };
    twin.agree(page, prompt, x, grad)?;
    Ok(())
}

/// The gradient of a batch is the sum of those of its rows.
fn shared(page: &mut Page, prompt: &mut PromptTuning, x: &Tensor, grad: &Tensor) -> Result<String> {
    let mut of = |x: &Tensor, grad: &Tensor| -> Result<Tensor> {
        prompt.clear()?;
        let _ = prompt.forward(x)?;
        let _ = prompt.backward(grad)?;
        Ok(prompt.prompt.grad.f_detach_copy()?)
    };
    let all = of(x, grad)?;
    let rows = x.size3()?.0;
    let row = |t: &Tensor, i: i64| t.f_narrow(0, i, 1);
    let sum = (0..rows).try_fold(all.f_zeros_like()?, |sum, i| -> Result<Tensor> {
        Ok(sum.f_add(&of(&row(x, i)?, &row(grad, i)?)?)?)
    })?;
    let error = relative(&sum, &all)?;
    page.fact("rows.difference", error);
    Ok(format!(
        "All {rows} rows of the batch share the prompt: the gradients of the rows alone sum to that of the \
         batch, to {}.",
        small(error)
    ))
}

/// How long a prompt's vectors are at the start, beside words N(0, 1).
fn starts(page: &mut Page, source: Source) -> Result<String> {
    let (words, n) = (source.normal(&[100, 256], 1.0)?, 20);
    let length = |t: &Tensor| -> Result<f64> { Ok(norm(t)? / (t.size2()?.0 as f64).sqrt()) };
    let drawn = length(&PromptTuning::new(source, 256, n)?.prompt.value)?;
    let copied = length(&PromptTuning::from_vocab(&words, n)?.prompt.value)?;
    let word = length(&words)?;
    page.fact("start", vec![drawn, copied, word]);
    Ok(format!(
        "Drawn from N(0, 0.01²), a vector of the prompt has length {drawn:.2}, a word {word:.2} and a copy \
         of a word {copied:.2}: the start from the vocabulary looks like words from the first step on."
    ))
}
