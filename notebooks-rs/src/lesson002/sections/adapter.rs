//! `Adapter`.

use super::computed;
use crate::layers::LayersConfig;
use crate::lesson002::adapter::{Adapter, Bottleneck};
use crate::lesson002::check::{overwritten, show};
use crate::lesson002::library::{Twin, base, bottleneck, bottleneck_name, no_biases, single, transposed};
use crate::lesson002::module::Module;
use crate::lesson002::tensors::{Source, norm, shape};
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::Pass;
use peft_core::report::commas;
use peft_core::seam::Role;
use tch::{Kind, Tensor};

pub fn section(setting: Setting, page: &mut Page) -> Result<()> {
    tch::manual_seed(setting.seed);
    let source = Source(setting.device);
    let (down, up) = (source.ramp(&[6, 3], [0.8, 0.2, 0.6])?, source.ramp(&[3, 6], [0.6, 0.5, 0.6])?);
    let mut adapter = Adapter(Bottleneck::of(down, up)?);
    let (x, grad) = (source.ramp(&[2, 3, 6], [0.53, 0.4, 1.0])?, source.ramp(&[2, 3, 6], [0.37, 0.6, 1.0])?);
    let y = adapter.forward(&x)?;
    let dx = adapter.backward(&grad)?;
    let [ddown, dup] = [&adapter.0.down, &adapter.0.up].map(|p| p.grad.f_detach_copy());
    let (ddown, dup) = (ddown?, dup?);

    page.line(format!("Adapter parameters: {}", commas(adapter.count())))?;
    page.line(format!("Bottleneck dimension: {}", adapter.0.size()?))?;
    page.line(format!("Gradients computed: W_down={}, W_up={}", shape(&ddown), shape(&dup)))?;
    computed(
        page,
        "Forward and backward of closed-form numbers",
        &[
            ("y", "x + relu(Z) U, Z = x D", &y),
            ("W_down_grad", "xᵀ (G Uᵀ ⊙ [Z > 0])", &ddown),
            ("W_up_grad", "relu(Z)ᵀ G", &dup),
            ("grad_x", "G + (G Uᵀ ⊙ [Z > 0]) Dᵀ", &dx),
        ],
    )?;
    show(page, "Adapter", &mut adapter, &x, &grad)?;
    let biases = library_has_the_same(page, &mut adapter, [&x, &grad])?;

    let other = source.ramp(&[2, 3, 6], [0.29, 0.8, 1.0])?;
    let near = near_identity(page, source)?;
    page.mistakes(&[near, overwritten(&mut adapter, [[&x, &grad], [&other, &grad]])?])?;
    let off = off_units(&adapter, &x)?;
    page.fact("off", off);
    page.what_to_see(&[
        format!(
            "The residual connection hands G on as it is, ‖G‖ = {:.4}; the adapter adds ‖dx − G‖ = {:.4}.",
            norm(&grad)?,
            norm(&dx.f_sub(&grad)?)?
        ),
        format!("{:.0} % of the units are off, and nothing flows back through them.", 100.0 * off),
        format!(
            "The lesson's adapter has no biases; the usual one, as in the library, has {biases} more \
                 parameters here."
        ),
    ])?;
    Ok(())
}

/// The same adapter of the library, its biases at zero; gives how many these are.
fn library_has_the_same(page: &mut Page, adapter: &mut Adapter, [x, grad]: [&Tensor; 2]) -> Result<i64> {
    // A base needs one weight at least: a word embedding that nobody reads.
    let words = vec![single("embed.weight", &x.f_zeros_like()?.f_view([6, 6])?)?];
    let twin = Twin {
        title: "BottleneckConfig",
        base: base(LayersConfig::new(6, 1).words(6).block("block", Role::FeedForward, 6), words)?,
        methods: vec![("", bottleneck(3, false))],
        more: no_biases([3, 6], x.device())?,
        name: &bottleneck_name,
        stored: &transposed,
        forward: &|view, x| view.block("block", x, Pass::eval()),
    };
    let peft = twin.agree(page, adapter, x, grad)?;
    Ok(peft.report(&["0"])?.trainable - adapter.count())
}

/// Both weights N(0, 0.01²) change the output a little; an up-projection of zeros does not.
fn near_identity(page: &mut Page, source: Source) -> Result<Mistake> {
    let x = source.normal(&[2, 16, 256], 1.0)?;
    let change =
        |adapter: &mut Adapter| -> Result<f64> { Ok(norm(&adapter.forward(&x)?.f_sub(&x)?)? / norm(&x)?) };
    let near = Bottleneck::new(source, 256, 64)?;
    let zero = Bottleneck::of(near.down.value.f_detach_copy()?, near.up.value.f_zeros_like()?)?;
    let (near, zero) = (change(&mut Adapter(near))?, change(&mut Adapter(zero))?);
    page.fact("start", vec![near, zero]);
    Ok(Mistake::new(
        "The adapter starts near the identity, so adding it changes the model before any training",
        format!("‖y − x‖/‖x‖ = {:.3} % for both weights N(0, 0.01²), width 256, bottleneck 64", 100.0 * near),
        format!("{} % with W_up = 0, as LoRA has B = 0", 100.0 * zero),
    ))
}

/// The share of units that the relu cuts.
fn off_units(adapter: &Adapter, x: &Tensor) -> Result<f64> {
    let z = x.f_matmul(&adapter.0.down.value)?;
    Ok(z.f_le(0.0)?.f_to_kind(Kind::Double)?.f_mean(None::<Kind>)?.f_double_value(&[])?)
}
