//! Exercise 6: LoRA over a weight in 4 bits.

use super::task;
use crate::Page;
use crate::layers::LayersConfig;
use crate::lesson002::check::show;
use crate::lesson002::library::{Twin, alike, base, lora, lora_name, single};
use crate::lesson002::lora::LoraLayer;
use crate::lesson002::module::{Frozen, Module, Parameter};
use crate::lesson002::tensors::{Source, largest, norm, values};
use anyhow::Result;
use peft_core::Pass;
use peft_core::quant::{Nf4, Nf4Config};
use peft_core::report::commas;
use tch::{Kind, Tensor};

/// Values that share a scale.
const BLOCK: i64 = 64;

/// The share of the normal distribution below its outermost quantile: the mean of 1 − 1/30 and 1 − 1/32, with the seven
/// digits that everybody uses.
const OUTERMOST: f64 = 0.967_708_3;

/// The 16 values of NF4, f32: quantiles of the normal distribution at equal distances, over the largest; eight above zero,
/// seven below, and zero itself. Dettmers et al. 2023, <https://arxiv.org/abs/2305.14314>, appendix E. The shares are
/// spaced in f32, as where the published digits come from.
pub fn code_book(source: Source) -> Result<Tensor> {
    let half = |n: i64| -> Result<Tensor> {
        let shares = Tensor::f_linspace(OUTERMOST, 0.5, n + 1, (Kind::Float, source.0))?.f_narrow(0, 0, n)?;
        Ok(shares.f_to_kind(Kind::Double)?.f_special_ndtri()?)
    };
    let all = Tensor::f_cat(&[half(7)?.f_neg()?, source.zeros(&[1])?, half(8)?.f_flip([0])?], 0)?;
    let all = all.f_to_kind(Kind::Float)?;
    Ok(all.f_div(&all.f_max()?)?)
}

/// A weight in 4 bits: `W ≈ book[code] · absmax`, with one absmax for each block of 64 values, row by row.
#[derive(Debug)]
pub struct Nf4ByHand {
    /// `[16]`, f32
    book: Tensor,
    /// `[n/64, 64]`: a number from 0 to 15 for each value.
    codes: Tensor,
    /// `[n/64, 1]`, f32
    absmax: Tensor,
    shape: [i64; 2],
}

impl Nf4ByHand {
    /// In f32, as everybody computes it: `code = the nearest value to w / absmax`, the lower one in the middle.
    pub fn quantise(weight: &Tensor, book: &Tensor) -> Result<Self> {
        let (w, book) =
            (weight.f_to_kind(Kind::Float)?.f_reshape([-1, BLOCK])?, book.f_to_kind(Kind::Float)?);
        let absmax = w.f_abs()?.f_amax([1i64].as_slice(), true)?;
        let middles = book.f_narrow(0, 0, 15)?.f_add(&book.f_narrow(0, 1, 15)?)?.f_div_scalar(2.0)?;
        // The code is how many of the 15 borders lie below.
        let codes = Tensor::f_bucketize(&w.f_mul(&absmax.f_reciprocal()?)?, &middles, false, false)?;
        Ok(Self { book, codes, absmax, shape: weight.size2()?.into() })
    }

    /// W `[out, in]` again, f32.
    pub fn dequantise(&self) -> Result<Tensor> {
        let flat = self.book.f_index_select(0, &self.codes.f_view([-1])?)?;
        Ok(flat.f_view_as(&self.codes)?.f_mul(&self.absmax)?.f_view(self.shape)?)
    }

    /// Two codes a byte, and an f32 for each block.
    pub fn bytes(&self) -> i64 {
        self.codes.numel() as i64 / 2 + 4 * self.absmax.numel() as i64
    }
}

/// `Y = X Ŵᵀ + s · X Aᵀ Bᵀ`, Ŵ formed of 4 bits whenever it is needed: QLoRA without its second quantisation.
///
/// Backward: `dX = G Ŵ + s · G B A`. The gradient goes through Ŵ and not into it: codes have no derivative, and nobody
/// asks for one.
#[derive(Debug)]
pub struct QuantisedLora {
    pub weight: Nf4ByHand,
    pub lora: LoraLayer,
}

impl QuantisedLora {
    fn base(&self, kind: Kind) -> Result<Frozen> {
        Ok(Frozen { weight: self.weight.dequantise()?.f_to_kind(kind)?, bias: None })
    }
}

impl Module for QuantisedLora {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        Ok(self.base(x.kind())?.forward(x)?.f_add(&self.lora.forward(x)?)?)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        Ok(self.base(grad.kind())?.backward(grad)?.f_add(&self.lora.backward(grad)?)?)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        self.lora.parameters()
    }
}

const OUT: i64 = 24;
const IN: i64 = 32;
const RANK: i64 = 2;

pub(super) fn solve(page: &mut Page, source: Source) -> Result<String> {
    task(page, 6, "LoRA over a weight in 4 bits")?;
    let book = code_book(source)?;
    let weight = source.normal(&[OUT, IN], 1.0 / (IN as f64).sqrt())?;
    let ours = Nf4ByHand::quantise(&weight, &book)?;
    let dense = ours.dequantise()?;
    let config = Nf4Config::default();
    let theirs = Nf4::quantise("weight", &weight.f_to_kind(Kind::Float)?, &config)?;
    // A block whose largest value is 1 comes back as the code book itself.
    let ends = Nf4::quantise("book", &book.f_unsqueeze(0)?, &config)?.dequantise()?;
    let apart = largest(&ends.f_sub(&book)?)?;
    let different = dense.f_ne_tensor(&theirs.dequantise()?)?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
    let error = norm(&dense.f_to_kind(Kind::Double)?.f_sub(&weight)?)? / norm(&weight)?;
    let bits = 8.0 * ours.bytes() as f64 / weight.numel() as f64;
    page.line(format!("Code book from normal quantiles: differs from the library's by {apart}"))?;
    page.line(format!(
        "Weight: {different} of {} values differ from the library's",
        commas(weight.numel() as i64)
    ))?;
    page.line(format!("Bits a value: {bits}, error {:.2} % of the weight", 100.0 * error))?;
    page.fact("four_bits.book", values(&book)?);
    page.fact("four_bits.book_difference", apart);
    page.fact("four_bits.different", different);
    page.fact("four_bits.error", error);
    page.fact("four_bits.bits", bits);

    let b = source.normal(&[OUT, RANK], 0.3)?;
    let lora_path = LoraLayer::of(source.normal(&[RANK, IN], 0.3)?, b, 4.0)?;
    let mut layer = QuantisedLora { weight: ours, lora: lora_path };
    let (x, grad) = (source.normal(&[2, 3, IN], 1.0)?, source.normal(&[2, 3, OUT], 1.0)?);
    page.line(format!("Trained: {} of A and B alone", commas(layer.count())))?;
    show(page, "QuantisedLora", &mut layer, &x, &grad)?;
    library_has_the_same(page, &weight, &mut layer, [&x, &grad])?;
    let dx = layer.backward(&grad)?;
    let straight = grad.f_matmul(&weight)?.f_add(&grad.f_matmul(&layer.lora.delta()?)?)?;
    let off = norm(&dx.f_sub(&straight)?)? / norm(&straight)?;
    page.fact("four_bits.dx", off);
    Ok(format!(
        "6: the gradient of x is that of the dequantised weight, {:.1} % from the dense one's; it trains A \
         and B alone.",
        100.0 * off
    ))
}

/// The library's LoRA over the library's weight in 4 bits.
fn library_has_the_same(
    page: &mut Page,
    weight: &Tensor,
    ours: &mut QuantisedLora,
    [x, grad]: [&Tensor; 2],
) -> Result<()> {
    let dense =
        base(LayersConfig::new(IN, 1).linear("fc", IN, OUT, false), vec![single("fc.weight", weight)?])?;
    let twin = Twin {
        title: "LoraConfig over Nf4",
        base: dense.quantised(&Nf4Config::default())?,
        methods: vec![("", lora(RANK, 4.0, &["fc"]))],
        more: Vec::new(),
        name: &|letter| lora_name("fc", letter),
        stored: &alike,
        forward: &|view, x| Ok(view.linear("fc")?.forward(x, Pass::eval())?),
    };
    let peft = twin.agree(page, ours, x, grad)?;
    let trained: Vec<String> = peft.trainable(&["0"])?.into_iter().map(|(name, _)| name).collect();
    page.fact("four_bits.trained", trained);
    Ok(())
}
