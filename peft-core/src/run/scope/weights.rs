//! The frozen weights of a layer, as a scope fetches them: from the base, or an overlay's copy in their place.

use crate::error::{Error, Result};
use crate::quant::Nf4;
use crate::run::active::Active;
use crate::run::scope::Scope;
use crate::run::scope::stored::Stored;
use crate::seam::{Base, Counting, Kernel, Overlay, Weights, is_float};
use tch::Tensor;

impl Scope<'_> {
    /// The frozen weights of a layer.
    pub(super) fn base(&self, kernel: &Kernel, stored: &Stored<'_>) -> Result<Base> {
        let weight = match stored.tied {
            Some(other) => self.tied_param(&stored.weight, other, stored.shape)?,
            None => match self.run.base.find_nf4(&self.join(&stored.weight)) {
                Some(packed) if *kernel == Kernel::Linear => return self.packed(stored, packed),
                _ => stored.turn(self.stored(&stored.weight, &stored.dims())?)?,
            },
        };
        Ok(Base::Dense(Weights { weight, bias: self.bias(stored)? }))
    }

    /// As [`Scope::base`], of a weight in 4 bits: that is `[out, in]` always. An overlay's copy of it is dense.
    fn packed(&self, stored: &Stored<'_>, weight: Nf4) -> Result<Base> {
        let name = self.join(&stored.weight);
        if weight.size() != stored.shape {
            let (place, expected) = (self.run.base.label().to_owned(), stored.shape.to_vec());
            let hint = ", in 4 bits".to_owned();
            return Err(Error::Shape { place, name, expected, found: weight.size().to_vec(), hint });
        }
        self.run.params.borrow_mut().push(name.clone());
        let dense = || Ok(stored.turn(weight.dequantise()?)?.f_contiguous()?);
        let own = self.overlaid(&name, &stored.dims(), dense, |_| true)?;
        let bias = self.bias(stored)?;
        Ok(match own {
            Some(own) => Base::Dense(Weights { weight: stored.turn(own)?, bias }),
            None => Base::Nf4 { weight: Box::new(weight), bias },
        })
    }

    fn bias(&self, stored: &Stored<'_>) -> Result<Option<Tensor>> {
        stored.bias.as_ref().map(|(leaf, length)| self.stored(leaf, &[*length])).transpose()
    }

    /// A parameter of the base by its full name.
    fn floats(&self, name: &str, dims: &[i64]) -> Result<Tensor> {
        let tensor = self.run.base.get(name, dims)?;
        if is_float(&tensor) {
            return Ok(tensor);
        }
        let (place, found) = (self.run.base.label().to_owned(), tensor.kind());
        Err(Error::Dtype { place, name: name.to_owned(), found })
    }

    /// A parameter of the base, or the active overlay's copy of it.
    pub(super) fn stored(&self, leaf: &str, dims: &[i64]) -> Result<Tensor> {
        let name = self.join(leaf);
        let base = self.floats(&name, dims)?;
        self.run.params.borrow_mut().push(name.clone());
        Ok(self.overlaid(&name, dims, || Ok(base.shallow_clone()), |_| true)?.unwrap_or(base))
    }

    /// The tensor of parameter `other`, under a name of its own. It follows what trains `other` in place, and
    /// parts from it where it is copied itself, as PEFT's `modules_to_save` does with a tied head.
    fn tied_param(&self, leaf: &str, other: &str, dims: &[i64]) -> Result<Tensor> {
        let name = self.join(leaf);
        let base = self.floats(other, dims)?;
        self.run.params.borrow_mut().push(name.clone());
        self.run.tied.borrow_mut().push((name.clone(), other.to_owned()));
        let own = || Ok(base.shallow_clone());
        if let Some(own) = self.overlaid(&name, dims, own, |o| o.counting == Counting::Adds)? {
            return Ok(own);
        }
        // What `other` has is seen where the constructor asks for it under its own name, and not once more here: by now
        // it may have been changed further.
        let copy = self.copies(other, dims, own, |o| o.counting == Counting::Replaces)?.pop();
        let tensor = copy.as_ref().map_or(&base, |copy| &copy.value).shallow_clone();
        if let Some(rewrite) = self.run.rewrite {
            rewrite.tied(&name, [&base, &tensor], copy.as_ref().map(|copy| (copy.owner, &copy.overlay)))?;
        }
        Ok(tensor)
    }

    /// The copy of parameter `name` that stands in its place, if an active adapter has one.
    fn overlaid(
        &self,
        name: &str,
        dims: &[i64],
        base: impl Fn() -> Result<Tensor>,
        accept: impl Fn(&Overlay) -> bool,
    ) -> Result<Option<Tensor>> {
        let mut copies = self.copies(name, dims, &base, accept)?;
        let Some(Copy { owner, overlay, value }) = copies.pop() else { return Ok(None) };
        if let Some(rewrite) = self.run.rewrite {
            let base = base()?;
            for hidden in &copies {
                rewrite.hidden(name, [&base, &hidden.value], (hidden.owner, &hidden.overlay))?;
            }
            rewrite.param(name, [&base, &value], (owner, &overlay))?;
        }
        Ok(Some(value))
    }

    /// The copies of parameter `name` that active adapters have, the one that counts last: that of the last adapter which
    /// trains it, and a frozen one, the base's as a file happens to have it, only where none does.
    fn copies(
        &self,
        name: &str,
        dims: &[i64],
        base: impl Fn() -> Result<Tensor>,
        accept: impl Fn(&Overlay) -> bool,
    ) -> Result<Vec<Copy<'_>>> {
        let mut copies = Vec::new();
        for owner in &self.run.active {
            let Some(overlay) = owner.overlay(name).filter(&accept) else { continue };
            if !overlay.saved_beside {
                owner.hits.set(owner.hits.get().saturating_add(1));
            }
            let value = owner.params.get_or_else(&overlay.key, dims, || Ok(base()?.f_detach_copy()?))?;
            copies.push(Copy { owner, overlay, value });
        }
        copies.sort_by_key(|copy| !copy.owner.frozen(&copy.overlay.key));
        Ok(copies)
    }
}

/// An active adapter's copy of a parameter.
struct Copy<'a> {
    owner: &'a Active<'a>,
    overlay: Overlay,
    value: Tensor,
}
