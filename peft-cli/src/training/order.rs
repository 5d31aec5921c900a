//! What is wanted of one run.

use crate::recipe::{Recipe, Settings};
use std::path::PathBuf;

/// What is wanted of a training: its recipe, and what that comes to.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub recipe: &'a Recipe,
    pub settings: &'a Settings,
    pub seed: u64,
}

impl Order<'_> {
    /// The recipe of this seed alone, in its own directory, so that it can be gone on with by itself.
    pub fn own(&self) -> Recipe {
        let output = match self.settings.seeds.len() > 1 {
            true => self.settings.output.join(format!("seed-{}", self.seed)).display().to_string(),
            false => self.settings.output.display().to_string(),
        };
        let merge = self.merge().map(|dir| dir.display().to_string());
        Recipe { output: Some(output), merge, seeds: Some(vec![self.seed]), ..self.recipe.clone() }
    }

    /// Where the merged model goes, if there is to be one: of several seeds each has its own.
    pub fn merge(&self) -> Option<PathBuf> {
        let dir = self.settings.merge.as_ref()?;
        let several = self.settings.seeds.len() > 1;
        Some(if several { dir.join(format!("seed-{}", self.seed)) } else { dir.clone() })
    }
}
