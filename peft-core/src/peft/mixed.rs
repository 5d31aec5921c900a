//! Mixed batches: each row of a batch has an adapter of its own, or none, in one pass.
//!
//! `yᵢ = base(x)ᵢ + (xᵢ Aᵢ) Bᵢ`, with the rows' matrices gathered into `[batch, in, r]` and `[batch, r, out]` and
//! multiplied in two batched products.

use crate::error::{Error, Result};
use crate::peft::Peft;
use crate::run::{Copied, Model, Origin, Rewrite};
use crate::seam::layer::Placed;
use crate::seam::{Adapter, Batch, Data, Inner, Kernel, Layer, LowRank, Pass};
use std::collections::BTreeSet;
use tch::Tensor;

impl Peft {
    /// A view for batches whose row i has the adapter `rows[i]`, or none: requests for several adapters in one pass.
    /// It is for inference, also step by step with a cache of the same rows, and has copies of the adapters as they
    /// are now.
    ///
    /// ```text
    /// let model = peft.view_rows(&[Some("french"), None, Some("legal"), Some("french")])?;
    /// let logits = model.forward(&batch, Pass::eval())?; // a batch of 4
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an adapter whose change of the weights is not low-rank and additive (DoRA, prompts,
    /// copies of whole modules), naming the site; in the forward pass, [`Error::Input`] for a batch of another size.
    pub fn view_rows(&self, rows: &[Option<&str>]) -> Result<Box<dyn Model>> {
        let names: BTreeSet<&str> = rows.iter().copied().flatten().collect();
        let active = self.active(&names.into_iter().collect::<Vec<_>>())?;
        let mix = Mix { rows, words: self.outline().dims.word_embedding() };
        let (view, _) = self.rewritten(active, &mix)?;
        Ok(Box::new(RowsView { view, rows: mix.size() }))
    }
}

/// Puts one adapter for all rows in the place of those of the single adapters.
#[derive(Debug)]
struct Mix<'a> {
    rows: &'a [Option<&'a str>],
    /// Name of the word embedding.
    words: Option<&'a str>,
}

impl Mix<'_> {
    fn size(&self) -> i64 {
        i64::try_from(self.rows.len()).unwrap_or(i64::MAX)
    }

    fn unsupported(site: &str, method: &'static str, what: &str) -> Error {
        let why = format!("{what}, which the rows of one batch cannot have each for itself");
        Error::Unsupported { method, site: site.to_owned(), why }
    }
}

impl Rewrite for Mix<'_> {
    fn layer(&self, layer: &mut Layer, origin: &Origin<'_>) -> Result<()> {
        let Some(method) = layer.adapters.first().map(|first| first.method) else { return Ok(()) };
        if origin.length_first {
            let what = "its layer works with the length of the rows in front";
            return Err(Self::unsupported(&layer.name, method, what));
        }
        if !layer.kernel.has_matrix() {
            let what = "it changes a layer that is neither linear nor an embedding";
            return Err(Self::unsupported(&layer.name, method, what));
        }
        let _guard = tch::no_grad_guard();
        let mut found = Vec::new();
        for (placed, owner) in layer.adapters.iter().zip(&origin.owners) {
            let change = placed.adapter.low_rank()?.ok_or_else(|| {
                Self::unsupported(&layer.name, placed.method, "its change is not low-rank and additive")
            })?;
            found.push((owner.name, change));
        }
        let stack = Stack::new(&found)?;
        let rows = self.rows.iter().map(|row| stack.index(&found, *row)).collect::<Vec<i64>>();
        let rows = Tensor::f_from_slice(&rows)?.f_to(stack.a.device())?;
        let mixed: Box<dyn Adapter> = match layer.kernel {
            Kernel::Embedding => {
                Box::new(stack.embedding(&rows, self.words != Some(origin.weight.as_str()))?)
            }
            _ => Box::new(stack.linear(&rows)?),
        };
        layer.adapters = vec![Placed { method, adapter: mixed }];
        Ok(())
    }

    fn param(&self, name: &str, [own, value]: [&Tensor; 2], (owner, _): Copied<'_>) -> Result<()> {
        match own.f_equal(value)? {
            true => Ok(()),
            false => Err(Self::unsupported(name, owner.method().name(), "it has a copy of a parameter")),
        }
    }

    fn hidden(&self, name: &str, values: [&Tensor; 2], copy: Copied<'_>) -> Result<()> {
        self.param(name, values, copy)
    }

    fn tied(&self, name: &str, values: [&Tensor; 2], copy: Option<Copied<'_>>) -> Result<()> {
        copy.map_or(Ok(()), |copy| self.param(name, values, copy))
    }

    fn refuse(&self, site: &str, method: &'static str) -> Error {
        Self::unsupported(site, method, "it is not a change of weights")
    }
}

/// The adapters at one site, ranks that differ padded with zeros, and zeros for a row without one.
struct Stack {
    /// `[n + 1, in, r]`, the scale folded in.
    a: Tensor,
    /// `[n + 1, r, out]`
    b: Tensor,
    /// `[n + 1, 1, out]`
    bias: Option<Tensor>,
}

impl Stack {
    fn new(found: &[(&str, LowRank)]) -> Result<Self> {
        let ranks = found.iter().map(|(_, c)| c.rank()).collect::<Result<Vec<_>>>()?;
        let rank = ranks.into_iter().max().unwrap_or_default();
        let (mut a, mut b, mut bias) = (Vec::new(), Vec::new(), Vec::new());
        for (_, change) in found {
            let more = rank.saturating_sub(change.rank()?);
            let scaled = change.a.f_mul_scalar(change.scale)?;
            a.push(scaled.f_tr()?.f_constant_pad_nd([0, more])?);
            b.push(change.b.f_tr()?.f_constant_pad_nd([0, 0, 0, more])?);
            bias.push(change.bias_or_zeros()?);
        }
        let stacked = |mut all: Vec<Tensor>| -> Result<Tensor> {
            let zeros = all.first().map(Tensor::f_zeros_like).transpose()?;
            all.extend(zeros);
            Ok(Tensor::f_stack(&all, 0)?.f_detach()?)
        };
        let biased = found.iter().any(|(_, c)| c.bias.is_some());
        let bias = if biased { Some(stacked(bias)?.f_unsqueeze(1)?) } else { None };
        Ok(Self { a: stacked(a)?, b: stacked(b)?, bias })
    }

    /// Where a row's matrices are.
    fn index(&self, found: &[(&str, LowRank)], row: Option<&str>) -> i64 {
        let position = found.iter().position(|(name, _)| Some(*name) == row);
        i64::try_from(position.unwrap_or(found.len())).unwrap_or(i64::MAX)
    }

    fn linear(self, rows: &Tensor) -> Result<RowsLinear> {
        let gather = |t: &Tensor| t.f_index_select(0, rows);
        let bias = self.bias.as_ref().map(gather).transpose()?;
        Ok(RowsLinear { a: gather(&self.a)?, b: gather(&self.b)?, bias })
    }

    fn embedding(self, rows: &Tensor, shared: bool) -> Result<RowsEmbedding> {
        let (_, vocab, _) = self.a.size3()?;
        let first = rows.f_mul_scalar(vocab)?.f_unsqueeze(1)?;
        let b = self.b.f_index_select(0, rows)?;
        Ok(RowsEmbedding { a: self.a.f_flatten(0, 1)?, first, b, shared })
    }
}

/// Checks that the call is one for these rows.
fn check(rows: i64, found: &Tensor, pass: Pass<'_>) -> Result<()> {
    if pass.train {
        return Err(Error::Input("a view of mixed rows is for inference, not for training".into()));
    }
    match found.size().first() {
        Some(n) if *n == rows => Ok(()),
        n => {
            let found = n.copied().unwrap_or_default();
            Err(Error::Input(format!("a batch of {found} rows for a view of {rows} rows")))
        }
    }
}

/// `y + h B`, `[batch, t, out]`; `y` may have any number of dimensions for t.
fn add(y: Tensor, h: &Tensor, b: &Tensor) -> Result<Tensor> {
    let shape = y.size();
    let mut flat = y.f_view([h.size3()?.0, h.size3()?.1, b.size3()?.2])?;
    let y = if y.kind() == h.kind() {
        flat.f_baddbmm_(h, b)?
    } else {
        flat.f_add(&h.f_bmm(b)?)?.f_to_kind(y.kind())?
    };
    Ok(y.f_view(shape.as_slice())?)
}

/// The rows' changes of a linear layer.
#[derive(Debug)]
struct RowsLinear {
    /// `[batch, in, r]`
    a: Tensor,
    /// `[batch, r, out]`
    b: Tensor,
    /// `[batch, 1, out]`
    bias: Option<Tensor>,
}

impl Adapter for RowsLinear {
    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let (rows, width, _) = self.a.size3()?;
        check(rows, x, inner.pass)?;
        let h = x.f_reshape([rows, -1, width])?.f_to_kind(self.a.kind())?.f_bmm(&self.a)?;
        let y = add(inner.forward(x)?, &h, &self.b)?;
        let Some(bias) = &self.bias else { return Ok(y) };
        // One for each row, whatever is between it and the width.
        let between = y.size().iter().skip(2).map(|_| 1).collect::<Vec<i64>>();
        let shape = [&[rows], between.as_slice(), &[-1]].concat();
        Ok(y.f_add(&bias.f_view(shape.as_slice())?)?.f_to_kind(y.kind())?)
    }
}

/// The rows' changes of an embedding.
#[derive(Debug)]
struct RowsEmbedding {
    /// `[(n + 1) vocab, r]`
    a: Tensor,
    /// Where each row's part of it starts, `[batch, 1]`.
    first: Tensor,
    /// `[batch, r, dim]`
    b: Tensor,
    /// One row of ids may stand for all, as with positions.
    shared: bool,
}

impl Adapter for RowsEmbedding {
    fn forward(&self, ids: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let rows = self.first.size2()?.0;
        let one = self.shared && ids.size2()?.0 == 1;
        let ids = if one { ids.f_expand([rows, -1], false)? } else { ids.shallow_clone() };
        check(rows, &ids, inner.pass)?;
        let h = Tensor::f_embedding(&self.a, &ids.f_add(&self.first)?, -1, false, false)?;
        add(inner.forward(&ids)?, &h, &self.b)
    }
}

/// Checks the batch where it enters, whatever the rows' adapters are.
#[derive(Debug)]
struct RowsView {
    view: Box<dyn Model>,
    rows: i64,
}

impl Model for RowsView {
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor> {
        let (Data::Ids(data) | Data::Features(data)) = &batch.data;
        check(self.rows, data, pass)?;
        self.view.forward(batch, pass)
    }
}
