//! The layers of a model, one behind the other.

use crate::error::Result;
use crate::seam::pass::Pass;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::Tensor;

/// The layers of a model, one behind the other, each on what the one before gives. Where the call asks for it
/// ([`Pass::recompute`]), what is within them is not kept for the gradients, but computed again when those are due, so many
/// layers at a time: Chen et al. 2016, <https://arxiv.org/abs/1604.06174>. Only what goes from one such group to the next is
/// held then.
///
/// Gradients are the same to the bit, but for those of a parameter that several layers share, which are summed up in another
/// order.
#[derive(Debug)]
pub struct Stack<L> {
    /// Shared with the graph of the gradients, which may live longer than a view, and may run in a thread of its own.
    layers: Vec<Arc<Mutex<L>>>,
}

impl<L: Debug + Send + 'static> Stack<L> {
    /// Of these layers, the first one innermost.
    ///
    /// # Errors
    /// The first error among them.
    pub fn new(layers: impl IntoIterator<Item = Result<L>>) -> Result<Self> {
        let layers = layers.into_iter().map(|layer| Ok(Arc::new(Mutex::new(layer?))));
        Ok(Self { layers: layers.collect::<Result<_>>()? })
    }

    /// What the layers make of `x`; `forward` runs one of them, and has what else it needs of its own.
    ///
    /// # Errors
    /// What `forward` says.
    pub fn forward<F>(&self, x: Tensor, pass: Pass<'_>, forward: F) -> Result<Tensor>
    where
        F: Fn(&L, &Tensor, Pass<'_>) -> Result<Tensor> + Send + 'static,
    {
        let size = pass.recompute.filter(|_| pass.cache.is_none());
        let Some(size) = size else {
            return self.layers.iter().try_fold(x, |x, layer| forward(&lock(layer), &x, pass));
        };
        let forward = Arc::new(Mutex::new(forward));
        self.layers.chunks(size.get()).try_fold(x, |x, layers| {
            let (layers, forward, own) = (layers.to_vec(), Arc::clone(&forward), Owned::of(pass));
            peft_sys::recomputed(&x, move |x| {
                let forward = lock(&forward);
                let run = |x, layer: &Arc<Mutex<L>>| forward(&lock(layer), &x, own.pass());
                layers.iter().try_fold(x.shallow_clone(), run)
            })
        })
    }
}

/// Nobody else has it at the same time: forward and backward pass take turns.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What of a call the layers see, for when the call is over.
#[derive(Debug)]
struct Owned {
    train: bool,
    mask: Option<Tensor>,
    causal: bool,
}

impl Owned {
    fn of(pass: Pass<'_>) -> Self {
        Self { train: pass.train, mask: pass.mask.map(Tensor::shallow_clone), causal: pass.causal }
    }

    fn pass(&self) -> Pass<'_> {
        Pass { train: self.train, mask: self.mask.as_ref(), causal: self.causal, ..Pass::default() }
    }
}
