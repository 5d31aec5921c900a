//! A method of one's own: `W' = W diag(s)`, the inputs of every linear layer scaled. It trains, stacks and merges.
use peft_core::{Peft, Result, models::TinyConfig, seam::*, tch};

#[derive(Debug)]
struct Scale;
impl Method for Scale {
    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let Some((_, inp)) = site.linear() else { return Ok(None) };
        Ok(Some(Box::new(Scaled(site.param(params, "scale", &[inp], Init::Constant(1.0))?))))
    }
}

#[derive(Debug)]
struct Scaled(tch::Tensor);
impl Adapter for Scaled {
    fn reweight(&self, w: Weights) -> Result<Weights> {
        Ok(Weights { weight: w.weight.f_mul(&self.0)?, ..w })
    }
}

fn main() -> Result<()> {
    let mut peft = Peft::new(TinyConfig::default().init(tch::Device::Cpu)?, TinyConfig::default())?;
    peft.add("mine", Scale)?;
    peft.report(&["mine"]).map(|report| println!("{report}"))
}
