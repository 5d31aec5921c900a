//! What section 5 does: the lesson's `setup_peft_training` and `load_and_merge_adapter`, and what lies between them, from
//! files to files.

use super::catalogue::{self, Arguments, Warmup};
use super::prompt::INIT_TEXT;
use super::text::{Example, Text};
use crate::measure::max_abs;
use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::methods::{Common, LoraConfig, PrefixTuningConfig, PromptInit, PromptTuningConfig};
use peft_core::seam::MethodConfig;
use peft_core::{Model, Pass, Peft, TaskType};
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// The lesson's methods, each with a rate that suits it on this model.
pub const METHODS: [(&str, f64); 3] = [("lora", 3e-3), ("prefix", 1e-1), ("prompt", 1e-1)];
/// Rows that are trained on.
pub const ROWS: usize = 640;
/// The lesson's `TrainingArguments`; its fp16 is for a GPU.
pub const LESSONS: Arguments =
    Arguments { epochs: 3, batch: 4, accumulation: 4, lr: 2e-4, warmup: Warmup::Steps(100) };

/// The lesson's `setup_peft_training`: a configuration by its name. A name that it does not know is an error.
pub fn method(name: &str, model: &Path) -> Result<Box<dyn MethodConfig>> {
    let model = model.to_str().context("the model's path")?.to_owned();
    let common = Common {
        task_type: Some(TaskType::CausalLm),
        base_model_name_or_path: Some(model.clone()),
        ..Common::default()
    };
    Ok(match name {
        "lora" => {
            let targets = ["q_proj", "v_proj", "k_proj", "o_proj"].into();
            let (r, lora_alpha, lora_dropout) = (16, 32.0, 0.05);
            LoraConfig { r, lora_alpha, targets, lora_dropout, common, ..LoraConfig::default() }.into()
        }
        "prefix" => {
            PrefixTuningConfig { num_virtual_tokens: 20, common, ..PrefixTuningConfig::default() }.into()
        }
        "prompt" => PromptTuningConfig {
            num_virtual_tokens: 20,
            prompt_tuning_init: PromptInit::Text,
            prompt_tuning_init_text: Some(INIT_TEXT.into()),
            tokenizer_name_or_path: Some(model),
            common,
            ..PromptTuningConfig::default()
        }
        .into(),
        other => {
            bail!("no method `{other}`; there are {}", METHODS.map(|(name, _)| name).join(", "))
        }
    })
}

/// The lesson's `load_and_merge_adapter`: the base and the adapter from their directories, folded into one model.
pub fn load_and_merge(model: &Path, adapter: &Path, device: Device) -> Result<(Peft, Result<Peft>)> {
    let hub::Opened { mut peft, warnings, .. } = hub::open(model, device, Head::Stored)?;
    for warning in warnings.into_iter().chain(peft.load("loaded", adapter)?) {
        eprintln!("warning: {warning}");
    }
    let merged = peft.merged(&["loaded"]).map_err(anyhow::Error::from);
    Ok((peft, merged))
}

/// A method, trained with the lesson's arguments and with a rate of its own.
#[derive(Debug)]
pub struct Trained {
    pub name: &'static str,
    /// Loss of every update, and test rows that are right: with the lesson's arguments, and with the rate.
    pub lessons: (Vec<f64>, i64),
    pub suited: (Vec<f64>, i64),
    pub rate: f64,
    /// Where the last epoch lies, and how many bytes the adapter has.
    pub saved: PathBuf,
    pub bytes: u64,
    /// Largest difference of logits between what was trained and what was loaded.
    pub reloaded: f64,
    /// The same for the merged model; why there is none.
    pub merged: Result<f64, String>,
}

/// Where everything is, and what it is done with.
#[derive(Debug)]
pub struct Flow<'a> {
    pub text: &'a Text,
    /// The base's directory.
    pub model: PathBuf,
    pub device: Device,
    pub bar: &'a ProgressBar,
}

impl Flow<'_> {
    /// The base from its files, with a method by its name.
    pub fn open(&self, name: &str) -> Result<Peft> {
        let mut peft = hub::open(&self.model, self.device, Head::Stored)?.peft;
        peft.add(name, method(name, &self.model)?)?;
        Ok(peft)
    }

    /// Trains a method twice, saves it after every epoch of the first, and takes it up again from its files.
    pub fn run(&self, (name, rate): (&'static str, f64)) -> Result<Trained> {
        let rows = (self.text, &self.text.train[..ROWS]);
        let peft = self.open(name)?;
        let out = self.text.path().join("peft-output").join(name);
        let losses = catalogue::train(&peft, name, rows, &LESSONS, |epoch| {
            self.bar.inc(1);
            Ok(peft.save(name, out.join(format!("epoch-{epoch}")))?)
        })?;
        let right = catalogue::correct(&peft, &[name], self.text)?;

        let other = self.open(name)?;
        let (batch, accumulation) = (LESSONS.batch * LESSONS.accumulation, 1);
        let own = Arguments { lr: rate, warmup: Warmup::Tenth, batch, accumulation, ..LESSONS };
        let suited = catalogue::train(&other, name, rows, &own, |_| {
            self.bar.inc(1);
            Ok(())
        })?;
        let suited = (suited, catalogue::correct(&other, &[name], self.text)?);

        let saved = out.join(format!("epoch-{}", LESSONS.epochs));
        let bytes = std::fs::metadata(saved.join("adapter_model.safetensors"))?.len();
        let (loaded, merged) = load_and_merge(&self.model, &saved, self.device)?;
        let trained = self.logits(&peft.view(&[name])?)?;
        let reloaded = max_abs(&self.logits(&loaded.view(&["loaded"])?)?, &trained)?;
        let merged = match merged {
            Ok(model) => Ok(max_abs(&self.logits(&model.view(&[])?)?, &trained)?),
            Err(why) => Err(why.to_string()),
        };
        Ok(Trained { name, lessons: (losses, right), suited, rate, saved, bytes, reloaded, merged })
    }

    fn logits(&self, model: &dyn Model) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let rows: Vec<&Example> = self.text.test.iter().take(16).collect();
        Ok(model.forward(&self.text.questions(&rows, self.device)?.0, Pass::eval())?)
    }
}
