//! What the model says to some prompts, without the adapter and with it.

use crate::recipe::Settings;
use crate::training::setup::ADAPTER;
use crate::watch::Event;
use anyhow::Result;
use peft_core::generate::{GenerateConfig, GenerationSettings, generate};
use peft_core::tch::Device;
use peft_core::text::{ChatTemplate, Form, PROMPT, TextEncoder};
use peft_core::{Batch, Peft};
use serde_json::json;
use std::path::Path;

/// Prompts, and what the model answers without the adapter.
#[derive(Debug)]
pub struct Samples {
    prompts: Vec<String>,
    /// The prompts in the form that the training data have.
    asked: Vec<String>,
    answers: Vec<String>,
    encoder: TextEncoder,
    config: GenerateConfig,
    device: Device,
}

impl Samples {
    /// The prompts of a recipe, asked as the training asks: as an instruction where the data are Alpaca's, as what a user says
    /// where they are chats, and as they are otherwise.
    ///
    /// # Errors
    /// Files of the model that are malformed; a chat template that refuses a prompt.
    pub fn new(
        settings: &Settings,
        model: &Path,
        encoder: TextEncoder,
        form: Option<Form>,
        device: Device,
    ) -> Result<Self> {
        let defaults = GenerateConfig { max_new_tokens: 40, ..Default::default() };
        let config = match settings.samples.is_empty() {
            true => defaults,
            false => GenerationSettings::read(model, defaults)?.config,
        };
        // The likeliest tokens: both answers are to differ by the adapter alone.
        let config = GenerateConfig { sampling: None, ..config };
        let template = match form {
            Some(Form::Messages | Form::Conversations) => ChatTemplate::open(model)?,
            _ => None,
        };
        let asked = settings.samples.iter().map(|prompt| {
            Ok(match (&template, form) {
                (Some(template), _) => {
                    template.render(&[json!({ "role": "user", "content": prompt })], None, true)?
                }
                (None, Some(Form::Alpaca)) => PROMPT.replace("{instruction}", prompt),
                _ => prompt.clone(),
            })
        });
        let asked = asked.collect::<Result<_>>()?;
        Ok(Self { prompts: settings.samples.clone(), asked, answers: Vec::new(), encoder, config, device })
    }

    fn answer(&self, peft: &Peft, active: &[&str], prompt: &str) -> Result<String> {
        let batch = Batch::padded(&[self.encoder.ids(prompt)?], self.config.pad_token_id, self.device)?;
        let new = generate(&peft.view(active)?, &batch, &self.config)?;
        let mut ids = Vec::<i64>::try_from(new.f_reshape([-1])?)?;
        ids.truncate(ids.iter().position(|id| self.config.eos_token_ids.contains(id)).unwrap_or(ids.len()));
        Ok(self.encoder.text(&ids)?)
    }

    /// Asks the model without the adapter.
    pub fn before(&mut self, peft: &Peft) -> Result<()> {
        self.answers = self.asked.iter().map(|p| self.answer(peft, &[], p)).collect::<Result<_>>()?;
        Ok(())
    }

    /// What the model says with the adapter, beside what it said without.
    pub fn after(&mut self, peft: &Peft, step: u64) -> Result<Vec<Event>> {
        if self.answers.is_empty() {
            self.before(peft)?; // the run was resumed
        }
        let all = self.prompts.iter().zip(&self.asked).zip(&self.answers);
        all.map(|((prompt, asked), before)| {
            let text = self.answer(peft, &[ADAPTER], asked)?;
            Ok(Event::Sample { step, prompt: prompt.clone(), before: Some(before.clone()), text })
        })
        .collect()
    }
}
