//! LoRA on a model of one's own, a multi-layer perceptron over features: trained, saved, loaded and merged.
use peft_core::tch::{Device, Kind, Tensor};
use peft_core::train::{AdamConfig, Schedule, Trainer, cross_entropy};
use peft_core::{Batch, Model, Params, Pass, Peft, Result, build::*, io::IfExists, methods::LoraConfig};

#[derive(Debug)]
struct Mlp;
#[derive(Debug)]
struct MlpView(Layer, Layer);
impl Architecture for Mlp {
    fn build(&self, scope: &Scope<'_>) -> Result<Box<dyn Model>> {
        Ok(Box::new(MlpView(scope.linear("up", 4, 16, false)?, scope.linear("down", 16, 2, false)?)))
    }
}
impl Model for MlpView {
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor> {
        self.1.forward(&self.0.forward(batch.features()?, pass)?.f_relu()?, pass)
    }
}

fn main() -> Result<()> {
    let (dir, floats) = ("runs/mlp", (Kind::Float, Device::Cpu));
    let base = Params::new("the perceptron", Device::Cpu);
    base.insert("up.weight", Tensor::f_randn([16, 4], floats)?, false)?;
    base.insert("down.weight", Tensor::f_randn([2, 16], floats)?, false)?;
    let mut peft = Peft::new(base, Mlp)?;
    peft.add("mine", LoraConfig::new(4).targets("all-linear"))?;
    let x = Tensor::f_randn([256, 4], floats)?;
    let classes = x.f_narrow(1, 0, 2)?.f_prod_dim_int(1, false, None)?.f_gt(0)?.f_to_kind(Kind::Int64)?;
    let (batch, view) = (Batch::of_features(x), peft.view(&["mine"])?);
    let mut adam = Trainer::new(&peft, &["mine"], AdamConfig::default(), 1e-2, Schedule::Constant)?;
    for _ in 0..200 {
        let loss = cross_entropy(&view.forward(&batch, Pass::train())?, &classes)?;
        adam.step(&loss)?;
    }
    peft.save_with("mine", dir, IfExists::Replace)?;
    peft.load("saved", dir)?;
    let logits = peft.merged(&["saved"])?.view(&[])?.forward(&batch, Pass::eval())?;
    cross_entropy(&logits, &classes).map(|loss| println!("loss {:.3}", loss.double_value(&[])))
}
