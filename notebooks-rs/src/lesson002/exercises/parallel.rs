//! Exercise 3: the parallel adapter.

use super::task;
use crate::Page;
use crate::layers::LayersConfig;
use crate::lesson002::adapter::Bottleneck;
use crate::lesson002::check::show;
use crate::lesson002::library::{Twin, base, bottleneck, bottleneck_name, no_biases, single, transposed};
use crate::lesson002::module::{Frozen, Module, Parameter};
use crate::lesson002::tensors::{Source, norm};
use anyhow::Result;
use peft_core::Pass;
use peft_core::report::commas;
use peft_core::seam::Role;
use tch::Tensor;

/// `Y = f(X) + relu(X D) U`: beside a block f, not after it (He et al. 2022, <https://arxiv.org/abs/2110.04366>).
///
/// Backward: `dX = f.backward(G) + bottleneck.backward(G)`. Behind f in sequence, the bottleneck's part would have to go
/// through f as well.
#[derive(Debug)]
pub struct ParallelAdapter {
    pub block: Box<dyn Module>,
    pub path: Bottleneck,
}

impl Module for ParallelAdapter {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        Ok(self.block.forward(x)?.f_add(&self.path.forward(x)?)?)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        Ok(self.block.backward(grad)?.f_add(&self.path.backward(grad)?)?)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        self.path.parameters()
    }
}

/// `Y = f(X) + relu(f(X) D) U`: the lesson's adapter after f.
#[derive(Debug)]
struct Sequential(ParallelAdapter);

impl Module for Sequential {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        let y = self.0.block.forward(x)?;
        Ok(y.f_add(&self.0.path.forward(&y)?)?)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        let dy = grad.f_add(&self.0.path.backward(grad)?)?;
        self.0.block.backward(&dy)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        self.0.parameters()
    }
}

const WIDTH: i64 = 8;
const SIZE: i64 = 3;

pub(super) fn solve(page: &mut Page, source: Source) -> Result<String> {
    task(page, 3, "Parallel adapter")?;
    let (x, grad) = (source.normal(&[2, 5, WIDTH], 1.0)?, source.normal(&[2, 5, WIDTH], 1.0)?);
    let weight = source.normal(&[WIDTH, WIDTH], 1.0 / (WIDTH as f64).sqrt())?;
    let (down, up) = (source.normal(&[WIDTH, SIZE], 0.5)?, source.normal(&[SIZE, WIDTH], 0.5)?);
    let adapter = || -> Result<ParallelAdapter> {
        let block = Box::new(Frozen { weight: weight.shallow_clone(), bias: None });
        Ok(ParallelAdapter { block, path: Bottleneck::of(down.f_detach_copy()?, up.f_detach_copy()?)? })
    };
    let (mut parallel, mut sequential) = (adapter()?, Sequential(adapter()?));
    let [p, s] = [parallel.forward(&x)?, sequential.forward(&x)?];
    let apart = norm(&p.f_sub(&s)?)? / norm(&s)?;
    page.line(format!("Adapter parameters: {} in parallel and in sequence", commas(parallel.count())))?;
    page.line(format!("Outputs of the two differ by {:.0} %", 100.0 * apart))?;
    page.fact("parallel.apart", apart);
    show(page, "ParallelAdapter", &mut parallel, &x, &grad)?;
    show(page, "Adapter in sequence", &mut sequential, &x, &grad)?;
    library_has_the_same(page, &weight, &mut parallel, [&x, &grad])?;
    Ok("3: in parallel the adapter reads what the block reads, so both can run at once, and the gradient \
        reaches the adapter without passing the block."
        .into())
}

/// The same of the library, around the same linear block.
fn library_has_the_same(
    page: &mut Page,
    weight: &Tensor,
    ours: &mut ParallelAdapter,
    [x, grad]: [&Tensor; 2],
) -> Result<()> {
    let layers =
        LayersConfig::new(WIDTH, 1).linear("f", WIDTH, WIDTH, false).block("block", Role::FeedForward, WIDTH);
    let twin = Twin {
        title: "BottleneckConfig in parallel",
        base: base(layers, vec![single("f.weight", weight)?])?,
        methods: vec![("", bottleneck(SIZE, true))],
        more: no_biases([SIZE, WIDTH], x.device())?,
        name: &bottleneck_name,
        stored: &transposed,
        forward: &|view, x| {
            let f = view.linear("f")?;
            view.around("block", x, Pass::eval(), &|x, pass| f.forward(x, pass))
        },
    };
    twin.agree(page, ours, x, grad)?;
    Ok(())
}
