//! The same from the library's own methods. They compute in f32, so the two agree to f32's rounding.

use super::module::Module;
use super::tensors::{dot, relative, shape};
use crate::Page;
use crate::layers::{Layers, LayersConfig, LayersPeft};
use crate::measure::small;
use anyhow::{Context, Result};
use peft_core::Params;
use peft_core::methods::{Activation, BottleneckConfig, LoraConfig, Placement};
use peft_core::seam::{MethodConfig, PREFIX};
use peft_core::tch::{Device, Kind, Tensor};

/// A tensor of ours as the library wants it, under the name that it has there.
pub fn single(name: impl Into<String>, t: &Tensor) -> Result<(String, Tensor)> {
    Ok((name.into(), t.f_to_kind(Kind::Float)?))
}

/// The parts of `config` with these weights.
pub fn base(config: LayersConfig, weights: Vec<(String, Tensor)>) -> Result<LayersPeft> {
    let device = weights.first().map_or(Device::Cpu, |(_, w)| w.device());
    Ok(LayersPeft::new(Params::from_tensors("the lesson's layers", device, weights)?, config)?)
}

/// LoRA on these layers.
pub fn lora(r: i64, lora_alpha: f64, targets: &[&str]) -> Box<dyn MethodConfig> {
    LoraConfig { r, lora_alpha, targets: targets.into(), ..LoraConfig::default() }.into()
}

/// The library's name of a LoRA parameter of ours, `q.A`, at the layer `pattern` with `q` in the place of `*`.
pub fn lora_name(pattern: &str, name: &str) -> String {
    let (part, letter) = name.rsplit_once('.').unwrap_or(("", name));
    let layer = pattern.replace('*', part.rsplit('.').next().unwrap_or_default());
    format!("{PREFIX}{layer}.lora_{letter}.weight")
}

/// A relu bottleneck of that size around feed-forward blocks.
pub fn bottleneck(bottleneck_size: i64, is_parallel: bool) -> Box<dyn MethodConfig> {
    let (non_linearity, placement) = (Activation::Relu, vec![Placement::FeedForward]);
    BottleneckConfig { bottleneck_size, non_linearity, placement, is_parallel, ..BottleneckConfig::default() }
        .into()
}

/// The library's name of `W_down` and `W_up` at the block `block`.
pub fn bottleneck_name(name: &str) -> String {
    format!("{PREFIX}block.adapter_{}.weight", name.trim_start_matches("W_"))
}

/// The biases that the lesson's adapter lacks: zeros.
pub fn no_biases([size, width]: [i64; 2], device: Device) -> Result<Vec<(String, Tensor)>> {
    let zeros = |leaf: &str, n: i64| -> Result<_> {
        Ok((format!("{PREFIX}block.adapter_{leaf}.bias"), Tensor::f_zeros([n], (Kind::Float, device))?))
    };
    Ok(vec![zeros("down", size)?, zeros("up", width)?])
}

/// For what the library stores as we do.
pub fn alike(t: &Tensor) -> Result<Tensor> {
    Ok(t.shallow_clone())
}

/// For what it stores the other way round.
pub fn transposed(t: &Tensor) -> Result<Tensor> {
    Ok(t.f_tr()?)
}

/// The library's counterpart of a module of ours.
pub struct Twin<'a> {
    pub title: &'a str,
    pub base: LayersPeft,
    /// Its adapters, the first one innermost. Each gets our parameters whose names begin with the given text.
    pub methods: Vec<(&'a str, Box<dyn MethodConfig>)>,
    /// What it has besides, under its own names.
    pub more: Vec<(String, Tensor)>,
    /// The name there of a parameter of ours.
    pub name: &'a dyn Fn(&str) -> String,
    /// A parameter of ours as it is laid out there.
    pub stored: &'a dyn Fn(&Tensor) -> Result<Tensor>,
    /// The module's computation, in f32.
    pub forward: &'a dyn Fn(&Layers, &Tensor) -> Result<Tensor>,
}

impl Twin<'_> {
    /// Gives it our parameters, runs both, and prints how far outputs and gradients are apart. What comes back has the
    /// adapters `0`, `1`, ..
    pub fn agree(
        self,
        page: &mut Page,
        ours: &mut dyn Module,
        x: &Tensor,
        grad: &Tensor,
    ) -> Result<LayersPeft> {
        ours.clear()?;
        let y = ours.forward(x)?;
        let dx = ours.backward(grad)?;

        let mut peft = self.base;
        let mut more = self.more;
        let adapters: Vec<String> = (0..self.methods.len()).map(|i| i.to_string()).collect();
        let x = x.f_to_kind(Kind::Float)?.f_set_requires_grad(true)?;
        let mut leaves = vec![x.shallow_clone()];
        let mut pairs = vec![("dx".to_owned(), dx)];
        for (adapter, (part, method)) in adapters.iter().zip(self.methods) {
            let parameters = ours.parameters().into_iter().filter(|(name, _)| name.starts_with(part));
            let parameters: Vec<_> = parameters.collect();
            let own = parameters.iter().map(|(name, p)| single((self.name)(name), &(self.stored)(&p.value)?));
            let own: Vec<_> = own.chain(more.drain(..).map(Ok)).collect::<Result<_>>()?;
            peft.add_with(adapter, method, own)?;
            let held = peft.params(adapter)?.tensors();
            for (name, p) in parameters {
                let there = (self.name)(&name);
                leaves.push(held.get(&there).with_context(|| there.clone())?.shallow_clone());
                pairs.push((format!("d{name}"), (self.stored)(&p.grad)?));
            }
        }
        let active: Vec<&str> = adapters.iter().map(String::as_str).collect();
        let theirs = (self.forward)(&peft.view(&active)?, &x)?;
        let loss = dot(&theirs, &grad.f_to_kind(Kind::Float)?)?;
        let gradients = Tensor::f_run_backward(&[loss], &leaves, false, false)?;
        let all = [("y".to_owned(), y)].into_iter().chain(pairs);
        agree(page, self.title, all.zip([theirs].into_iter().chain(gradients)))?;
        Ok(peft)
    }
}

/// Prints how far each pair is apart; the worst is a fact.
pub fn agree(
    page: &mut Page,
    title: &str,
    pairs: impl IntoIterator<Item = ((String, Tensor), Tensor)>,
) -> Result<()> {
    let (mut worst, mut errors) = (0f64, Vec::new());
    let mut rows = Vec::new();
    for ((what, ours), theirs) in pairs {
        let error = relative(&ours, &theirs)?;
        worst = worst.max(error);
        errors.push(error);
        rows.push(vec![what, shape(&ours), small(error)]);
    }
    page.fact(&format!("{title}.difference"), worst);
    page.fact(&format!("{title}.errors"), errors);
    let title = format!("{title} of the library, in f32: relative difference");
    page.table(&title, ["tensor", "shape", "from ours"], rows)?;
    Ok(())
}
