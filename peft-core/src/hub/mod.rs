//! Hub model directories: `config.json`, `model.safetensors` or its shards (or `pytorch_model.bin`), `tokenizer.json`.

mod heads;
mod quantised;
mod save;
mod shards;

use crate::error::{Error, Result};
use crate::hub::quantised::Plan;
use crate::hub::shards::WeightFiles;
use crate::io::directory;
pub use crate::io::names::MODEL as CONFIG;
pub use crate::io::token_ids::TokenIds;
use crate::io::{dtype, dtypes};
use crate::models::{self, Described, Family};
pub use crate::models::{Head, HubModel};
use crate::peft::Peft;
use crate::quant::Nf4Config;
use crate::seam::{Params, is_finite, is_float};
use crate::text::{Limits, TextEncoder};
use crate::warning::Warning;
use crate::{io, quant};
pub use save::{TOKENIZER, save, save_with, writable};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// A model from disk.
#[derive(Debug)]
pub struct Opened {
    /// The model, frozen, without adapters.
    pub peft: Peft,
    /// Tensors of the file that belong to something else and were not used.
    pub unused: Vec<String>,
    /// Tensors that the file lacks and that were drawn: the new head.
    pub fresh: Vec<String>,
    /// What the directory says and does not count.
    pub warnings: Vec<Warning>,
}

/// How a model directory is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Which head a classifier has; a model of next tokens has [`Head::Stored`].
    pub head: Head,
    /// Casts all floats to this dtype; the file's own for `None`.
    pub kind: Option<Kind>,
    /// Quantises the linear layers as they are read: the dense weights are held one at a time. A directory that is in
    /// 4 bits already is opened without.
    pub quantise: Option<Nf4Config>,
    /// Names for the classes of the head, in the order of their logits; the file's own where this is empty.
    pub classes: Vec<String>,
}

impl Options {
    /// A classifier with a head for these classes: the file's, which must have as many, or a fresh one if it has none.
    pub fn named(classes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let classes: Vec<String> = classes.into_iter().map(Into::into).collect();
        let number = i64::try_from(classes.len()).unwrap_or(i64::MAX);
        Self { classes, ..Head::Classes(number).into() }
    }
}

impl From<Head> for Options {
    fn from(head: Head) -> Self {
        Self { head, kind: None, quantise: None, classes: Vec::new() }
    }
}

/// The family of the model in a directory, of which only `config.json` need be there.
///
/// # Errors
/// A file that is missing or malformed, and a `model_type` that is none of [`FAMILIES`](crate::models::FAMILIES).
pub fn family(dir: impl AsRef<Path>) -> Result<&'static Family> {
    let (json, path) = directory::config(dir.as_ref())?;
    models::family(&json, &path.display().to_string())
}

/// The architecture of a model directory, of which only `config.json` need be there.
///
/// # Errors
/// A file that is missing or malformed, a `model_type` that is none of [`FAMILIES`](crate::models::FAMILIES), a
/// configuration that asks for something this crate does not have.
pub fn architecture(dir: impl AsRef<Path>, head: Head) -> Result<Arc<dyn HubModel>> {
    describe(dir.as_ref(), head).map(|((model, _), ..)| model)
}

/// What `config.json` comes to, the file and the file's place.
fn describe(dir: &Path, head: Head) -> Result<(Described, Value, String)> {
    let (json, path) = directory::config(dir)?;
    let place = path.display().to_string();
    heads::check_number(head, &place)?;
    let described = models::family(&json, &place)?.describe(&json, &place, head.classes())?;
    Ok((described, json, place))
}

/// The tokenizer of a model directory, with the limits of the model. [`Limits::within`] makes room for virtual tokens.
///
/// # Errors
/// As [`TextEncoder::open`] and [`Limits::of`].
pub fn encoder(dir: impl AsRef<Path>, peft: &Peft) -> Result<TextEncoder> {
    TextEncoder::open(&dir, Limits::of(&peft.outline().dims, &dir)?)
}

/// Opens a model directory, dense or as transformers saves it with bitsandbytes' NF4.
///
/// # Errors
/// As [`architecture`], and for tensors that are missing, superfluous or of a wrong shape; a head for classes, or names of
/// them, asked of a model of next tokens.
pub fn open(dir: impl AsRef<Path>, device: Device, options: impl Into<Options>) -> Result<Opened> {
    let dir = dir.as_ref();
    let Options { head, kind, quantise, classes } = options.into();
    let ((model, mut warnings), json, json_place) = describe(dir, head)?;
    if let Some(kind) = kind.filter(|kind| dtype(*kind).is_none()) {
        return Err(Error::Input(format!("a model is of floats, and not of {kind:?}")));
    }
    heads::check_asked(head, &model.dims(), &classes)?;
    let files = WeightFiles::find(dir)?;
    let file = &files.place;
    let place = file.display().to_string();
    let explain = |error| heads::explain(error, model.as_ref(), &json, &files);
    let drawn = match head {
        Head::Stored => Vec::new(),
        _ => {
            // Before anything of a size is drawn that a broken file may have made up.
            check_width(model.as_ref(), &files)?;
            model.fresh_head()?
        }
    };
    let plan = match &quantise {
        Some(_) if json.get(quant::FIELD).is_some_and(|q| !q.is_null()) => {
            let message = "the model is in 4 bits already: open it as it is, without quantising (`quantise: None`; \
                           programs: without --nf4)";
            return Err(Error::config(json_place, quant::FIELD, message));
        }
        Some(how) => Plan::new(how, &model, (file, &files.paths), &drawn).map_err(explain)?,
        None => Plan::default(),
    };
    let (mut unused, mut tensors, mut packed) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let mut repeated = files.repeated.clone();
    let (mut again, mut broken) = (BTreeSet::new(), None);
    for path in &files.paths {
        io::tensors::read_each(path, |name, tensor| {
            if again.contains(&name) {
                return Ok(());
            }
            again.extend(repeated.take(&name));
            let Some(own) = model.rename(&name) else {
                unused.push(name);
                return Ok(());
            };
            if broken.is_none() && !is_finite(&tensor)? {
                let message = "has values that are NaN or infinite: what is computed with them is so, too";
                broken = Some(Warning::new(path.display(), &name, message));
            }
            let twice = match plan.quantise(&own, &tensor, kind)? {
                Some(weight) => packed.insert(own.clone(), weight).is_some(),
                None => tensors.insert(own.clone(), tensor).is_some(),
            };
            if twice { Err(Error::format(file, format!("two tensors are called `{own}`"))) } else { Ok(()) }
        })?;
    }
    unused.sort();
    packed.append(&mut quantised::take((&json, &json_place), &place, &mut tensors, kind)?);
    unused.extend(drop_tied(model.as_ref(), file, &mut tensors)?);
    heads::check(head, model.as_ref(), (&json, &json_place), |name| tensors.contains_key(name))?;
    warnings.extend(files.warnings.iter().cloned());
    warnings.extend(broken);
    let adapter = dir.join(io::adapter::CONFIG);
    if adapter.exists() {
        let message =
            "is beside the model, and is not applied: transformers does that unasked, here Peft::load does";
        warnings.push(Warning::new(dir.display(), io::adapter::CONFIG, message));
    }
    let dims = model.dims();
    let words = dims.word_embedding().unwrap_or_default();
    let (one, warning) = dtypes::of_all((&json, &json_place), words, &tensors, kind);
    warnings.extend(warning);
    if let Some(kind) = one {
        for t in tensors.values_mut().filter(|t| is_float(t)) {
            *t = t.f_to_kind(kind)?;
        }
    }
    let kind = tensors.get(words).map_or(Kind::Float, Tensor::kind);
    let mut fresh = Vec::new();
    for (name, tensor) in drawn {
        let stored = tensors.get(&name).map(Tensor::size);
        let stored = stored.or_else(|| packed.get(&name).map(|w| w.size().to_vec()));
        match stored {
            Some(stored) if matches!(head, Head::Classes(_)) => same_classes(file, &name, stored, &tensor)?,
            _ => {
                packed.remove(&name);
                tensors.insert(name.clone(), tensor.f_to_kind(kind)?);
                fresh.push(name);
            }
        }
    }
    let params = Params::from_tensors(place, device, tensors)?;
    packed.iter().try_for_each(|(name, w)| params.insert_nf4(name, w))?;
    let mut peft = Peft::of(params, model.clone()).map_err(explain)?;
    if !classes.is_empty() {
        peft = peft.named(&classes)?;
    }
    Ok(Opened { peft, unused, fresh, warnings })
}

/// Files of models with a tied head may have it a second time, but not as something else.
fn drop_tied(
    model: &dyn HubModel,
    file: &Path,
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<Option<String>> {
    let Some([head, words]) = model.tied() else { return Ok(None) };
    match (tensors.remove(head), tensors.get(words)) {
        (Some(own), Some(embedding)) if own.size() != embedding.size() || !own.f_equal(embedding)? => {
            let message = format!("`{head}` is not `{words}`, which it is tied to");
            let hint = "to keep it, set tie_word_embeddings to false in config.json";
            Err(Error::format(file, format!("{message}; {hint}")))
        }
        (own, _) => Ok(own.map(|_| head.to_owned())),
    }
}

/// That the file's word embedding is as wide as the configuration says, as far as its header tells.
fn check_width(model: &dyn HubModel, files: &WeightFiles) -> Result<()> {
    let dims = model.dims();
    let (Some(words), Ok(sizes)) = (dims.word_embedding(), dims.sizes()) else { return Ok(()) };
    for path in &files.paths {
        for (name, t) in io::tensors::phantoms(path)? {
            let (found, expected) = (t.size(), vec![sizes.vocab, sizes.hidden]);
            if model.rename(&name).as_deref() == Some(words) && found.last() != expected.last() {
                let hint = "; is config.json of another model?".to_owned();
                return Err(Error::Shape { place: path.display().to_string(), name, expected, found, hint });
            }
        }
    }
    Ok(())
}

fn same_classes(file: &Path, name: &str, found: Vec<i64>, wanted: &Tensor) -> Result<()> {
    let expected = wanted.size();
    if expected == found {
        return Ok(());
    }
    let hint =
        "; the file's head is for other classes: ask for a fresh one to replace it (Head::Fresh, --new-head)"
            .to_owned();
    Err(Error::Shape { place: file.display().to_string(), name: name.to_owned(), expected, found, hint })
}
