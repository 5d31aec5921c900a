//! What base an adapter was made for, and by what: `peft_rs.json` beside its two files.
//!
//! An adapter is a change of weights, and over other weights than those it was trained on it is another change, of which
//! nothing is said anywhere: the shapes fit. So a [`Provenance`] keeps a hash of each of the base's tensors where the adapter
//! is, and [`Peft::load`] compares them with those of the base that is there.
//!
//! ```
//! # use peft_core::{Peft, methods::LoraConfig, models::TinyConfig, io::IfExists};
//! # use peft_core::provenance::{OtherBase, Provenance};
//! # use peft_core::tch::Device;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let config = TinyConfig::default();
//! # let open = || Peft::new(config.init(Device::Cpu)?, config.clone());
//! # let dir = tempfile::tempdir()?;
//! let mut peft = open()?;
//! peft.add("mine", LoraConfig::new(8).targets(["ff.0"]))?;
//! let made = peft.provenance("mine")?.recipe(serde_json::json!({ "lr": 1e-3 }));
//! peft.save_with_provenance("mine", dir.path(), IfExists::Refuse, &made)?;
//!
//! let mut other = open()?; // drawn anew: other weights of the same shapes
//! let error = other.load("mine", dir.path()).unwrap_err().to_string();
//! assert!(error.contains("another base: 2 of 4 tensors have other values, `layers.0.ff.0.weight` first"), "{error}");
//! for warning in other.load_with("mine", dir.path(), OtherBase::Accept)? {
//!     eprintln!("warning: {warning}");
//! }
//! # Ok(())
//! # }
//! ```

use crate::error::{Error, Result};
use crate::io;
use crate::peft::{Adapted, Peft};
use crate::quant::{self, Nf4, Nf4Config};
use crate::run::Scope;
use crate::warning::Warning;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use tch::{Kind, Tensor};

/// The version of the file's form.
const FORMAT: u64 = 1;

/// What becomes of an adapter that was made for another base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtherBase {
    /// Loading it is [`Error::OtherBase`].
    #[default]
    Refuse,
    /// It is loaded, and what differs is a warning.
    Accept,
}

impl OtherBase {
    /// For a program's `--force`.
    #[must_use]
    pub fn accept(yes: bool) -> Self {
        if yes { Self::Accept } else { Self::Refuse }
    }
}

/// What base an adapter was made for, and by what. The base is frozen, so one is made once and saved as often as the adapter
/// is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    format: u64,
    /// Programs and libraries that made the adapter, with their versions.
    pub versions: BTreeMap<String, String>,
    /// The base.
    pub base: Base,
    /// SHA-256 of the base's `tokenizer.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// How it was trained: whatever the program that did it calls a recipe.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub recipe: Value,
}

/// The base that an adapter was made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Base {
    /// `base_model_name_or_path` of the adapter's configuration; empty where it has none.
    pub name: String,
    /// `model_type` of the Hub's configuration.
    pub model_type: String,
    /// SHA-256 over names, dtypes, shapes and hashes of `tensors`.
    pub fingerprint: String,
    /// The tensors where the adapter is: weights and biases of the layers that it adapts, and what is within blocks that it
    /// adapts, but for those that its own file has. For an adapter at no layer, the word embedding, or else all there are.
    pub tensors: BTreeMap<String, TensorHash>,
}

/// What is known of a tensor of the base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorHash {
    /// As safetensors have it (`F32`), or `NF4` and `NF4_DOUBLE` for a weight in 4 bits.
    pub dtype: String,
    /// Shape, as a file has it; of the dense weight, for one in 4 bits.
    pub shape: Vec<i64>,
    /// The first 16 digits of the SHA-256 of its bytes; of a weight in 4 bits, of its codes and scales.
    pub sha256: String,
    /// The same of a tensor of `F32` once it is rounded to these dtypes: the base may be opened in one of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rounded: BTreeMap<String, String>,
}

impl Provenance {
    /// Adds the recipe, any JSON.
    #[must_use]
    pub fn recipe(self, recipe: impl Into<Value>) -> Self {
        Self { recipe: recipe.into(), ..self }
    }

    /// Adds the version of a program or a library.
    #[must_use]
    pub fn version(mut self, of: impl Into<String>, version: impl Into<String>) -> Self {
        self.versions.insert(of.into(), version.into());
        self
    }

    /// Adds the hash of `tokenizer.json` in the base's directory, where there is one.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn tokenizer_of(self, dir: impl AsRef<Path>) -> Result<Self> {
        Ok(Self { tokenizer: tokenizer(dir.as_ref())?, ..self })
    }

    /// Whether the base's directory has the tokenizer that the adapter was made with; the warning where it has another one.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn check_tokenizer(&self, dir: impl AsRef<Path>) -> Result<Option<Warning>> {
        let dir = dir.as_ref();
        Ok(match (&self.tokenizer, tokenizer(dir)?) {
            (Some(made), Some(found)) if *made != found => {
                let message =
                    "is another one than the adapter was made with: the same text may have other tokens";
                Some(Warning::new(dir.join(TOKENIZER).display(), "sha256", message))
            }
            _ => None,
        })
    }

    /// What an adapter's directory says of this; `None` where it says nothing.
    ///
    /// # Errors
    /// A file that is damaged, or of a version that is not known here.
    pub fn read(dir: impl AsRef<Path>) -> Result<Option<Self>> {
        let (dir, path) = (dir.as_ref(), dir.as_ref().join(io::adapter::PROVENANCE));
        if !io::adapter::exists(dir)? {
            return Ok(None);
        }
        io::adapter::provenance(dir)?.map(|json| Self::parse(&json, &path)).transpose()
    }

    /// The file.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|e| Error::format(io::adapter::PROVENANCE, e))
    }

    fn parse(json: &Value, path: &Path) -> Result<Self> {
        match json.get("format").and_then(Value::as_u64) {
            Some(FORMAT) => {}
            found => {
                let found = found.map_or("none".to_owned(), |f| f.to_string());
                let message = format!(
                    "format: is {found}, and {FORMAT} is what is known here: another version wrote it"
                );
                return Err(Error::format(path, message));
            }
        }
        let made: Self = serde_path_to_error::deserialize(json)
            .map_err(|e| Error::format(path, format!("{}: {}", e.path(), e.inner())))?;
        if made.base.fingerprint != fingerprint(&made.base.tensors) {
            let message =
                "base: its fingerprint is not that of its tensors: the file was changed or is damaged";
            return Err(Error::format(path, message));
        }
        Ok(made)
    }
}

/// Name of the tokenizer's file.
const TOKENIZER: &str = "tokenizer.json";

fn tokenizer(dir: &Path) -> Result<Option<String>> {
    let path = dir.join(TOKENIZER);
    if !path.exists() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_err(|e| Error::file(&path, e))?;
    Ok(Some(hex(&Sha256::digest(&bytes))))
}

impl Peft {
    /// What base an adapter is for: this one. Its tensors where the adapter is are hashed, at about a gigabyte a second.
    ///
    /// # Errors
    /// A name that is unknown.
    pub fn provenance(&self, name: &str) -> Result<Provenance> {
        let adapted = self.adapter(name)?;
        let tensors = self.places(adapted)?.into_iter().map(|param| {
            let hash = self.hash_of(&param)?;
            Ok(hash.map(|hash| (param, hash)))
        });
        let tensors: BTreeMap<_, _> = tensors.filter_map(Result::transpose).collect::<Result<_>>()?;
        let file = adapted.file()?;
        let base = file.as_ref().and_then(|f| f.get("base_model_name_or_path")).and_then(Value::as_str);
        let base = Base {
            name: base.unwrap_or_default().to_owned(),
            model_type: self.outline().dims.model_type.clone(),
            fingerprint: fingerprint(&tensors),
            tensors,
        };
        let versions = BTreeMap::from([("peft-core".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        Ok(Provenance { format: FORMAT, versions, base, tokenizer: None, recipe: Value::Null })
    }

    /// The stored names of the parameters that an adapter stands over.
    fn places(&self, adapted: &Adapted) -> Result<BTreeSet<String>> {
        let run = self.run(vec![adapted.active("")]);
        self.architecture().build(&Scope::root(&run))?;
        let places: BTreeSet<String> =
            run.active.iter().flat_map(|a| a.places.borrow().iter().cloned().collect::<Vec<_>>()).collect();
        let active = adapted.active("");
        let own = |param: &&String| active.overlay(param).is_none();
        let params: Vec<&String> = self.outline().params.iter().filter(own).collect();
        let stored = |param: &str| self.outline().stored_name(param).to_owned();
        let within = |param: &str| {
            let above = param.match_indices('.').filter_map(|(at, _)| param.get(..at));
            places.contains(param) || above.into_iter().any(|site| places.contains(site))
        };
        let mut found: BTreeSet<String> = params.iter().map(|p| stored(p)).filter(|p| within(p)).collect();
        if found.is_empty() {
            let words = self.outline().dims.word_embedding();
            found.extend(params.iter().filter(|p| Some(p.as_str()) == words.as_deref()).map(|p| stored(p)));
        }
        if found.is_empty() {
            found.extend(params.iter().map(|p| stored(p)));
        }
        Ok(found)
    }

    /// What is known of a tensor of the base; `None` where there is none of that name.
    fn hash_of(&self, name: &str) -> Result<Option<TensorHash>> {
        if let Some(packed) = self.base().find_nf4(name) {
            return self.hash_of_nf4(name, &packed).map(Some);
        }
        let Some(tensor) = self.base().find(name) else { return Ok(None) };
        let also: &[Kind] = if tensor.kind() == Kind::Float { &[Kind::BFloat16, Kind::Half] } else { &[] };
        let rounded = also.iter().map(|&kind| Ok((dtype(kind), hash_as(&tensor, kind)?)));
        Ok(Some(TensorHash {
            dtype: dtype(tensor.kind()),
            shape: tensor.size(),
            sha256: hash_as(&tensor, tensor.kind())?,
            rounded: rounded.collect::<Result<_>>()?,
        }))
    }

    fn hash_of_nf4(&self, name: &str, packed: &Nf4) -> Result<TensorHash> {
        let mut parts = BTreeMap::new();
        quant::file::put(name, packed, &mut parts)?;
        let mut hash = Sha256::new();
        // One of the parts says the dtype of the dense weight as well, which may be cast without touching the codes.
        for (_, part) in parts.iter().filter(|(name, _)| !name.contains("quant_state")) {
            hash.update(io::tensors::bytes(part)?);
        }
        let dtype = if packed.config().double_quant { NF4_DOUBLE } else { NF4 };
        let mut shape = packed.size().to_vec();
        if self.is_transposed(name) {
            shape.reverse();
        }
        Ok(TensorHash { dtype: dtype.to_owned(), shape, sha256: short(hash), rounded: BTreeMap::new() })
    }

    /// Whether a weight is stored as `[in, out]`, and in 4 bits the other way round.
    fn is_transposed(&self, name: &str) -> bool {
        self.outline().sites.iter().any(|s| s.transposed && s.weight() == name)
    }

    /// Compares this base with the one that an adapter was made for.
    pub(crate) fn check_base(&self, made: &Value, path: &Path, other: OtherBase) -> Result<Vec<Warning>> {
        let compared = Provenance::parse(made, path).and_then(|made| self.compare(&made.base, path));
        match (compared, other) {
            (Err(e @ Error::OtherBase { .. }), OtherBase::Accept) => {
                let Error::OtherBase { base, differs, .. } = &e else { return Err(e) };
                let message = format!("the adapter was made for {base}, and this is another base: {differs}");
                Ok(vec![Warning::new(path.display(), "base", message)])
            }
            (Err(e @ Error::Format { .. }), OtherBase::Accept) => {
                Ok(vec![Warning::new(path.display(), "base", format!("is not compared: {e}"))])
            }
            (compared, _) => compared,
        }
    }

    fn compare(&self, made: &Base, path: &Path) -> Result<Vec<Warning>> {
        let mut found: BTreeMap<Verdict, Vec<&str>> = BTreeMap::new();
        for (name, was) in &made.tensors {
            found.entry(self.verdict(name, was)?).or_default().push(name);
        }
        let (all, mut differs, mut warnings) = (made.tensors.len(), Vec::new(), Vec::new());
        for (verdict, names) in &found {
            let first = names.first().copied().unwrap_or_default();
            let (n, some) = (names.len(), made.tensors.get(first));
            let (have, are) = if n == 1 { ("has", "is") } else { ("have", "are") };
            let was = some.map_or(String::new(), |s| format!("{:?}", s.shape));
            match verdict {
                Verdict::Same => {}
                Verdict::Missing => {
                    differs.push(format!("{n} of {all} tensors {are} not there, `{first}` first"))
                }
                Verdict::Shape(now) => differs.push(format!("`{first}` has shape {now:?}, and had {was}")),
                Verdict::Values => {
                    differs.push(format!("{n} of {all} tensors {have} other values, `{first}` first"))
                }
                Verdict::Stored(was, now) => {
                    let message = format!(
                        "the base is the adapter's, but {n} of {all} tensors {are} {now} here and were {was} when it was \
                         made, `{first}` first: the numbers differ by the rounding"
                    );
                    warnings.push(Warning::new(path.display(), "base", message));
                }
                Verdict::Unknown(was, now) => {
                    let message = format!(
                        "{n} of {all} tensors {are} {now} here and were {was} when the adapter was made, `{first}` first: \
                         whether it is the same base ({}) cannot be told",
                        called(&made.name)
                    );
                    warnings.push(Warning::new(path.display(), "base", message));
                }
            }
        }
        if !differs.is_empty() {
            let (path, base) = (path.to_owned(), called(&made.name));
            return Err(Error::OtherBase { path, base, differs: differs.join("; ") });
        }
        Ok(warnings)
    }

    /// What this base has under a name, compared with what there was.
    fn verdict(&self, name: &str, was: &TensorHash) -> Result<Verdict> {
        let was_nf4 = [NF4, NF4_DOUBLE].contains(&was.dtype.as_str());
        if let Some(packed) = self.base().find_nf4(name) {
            let now = self.hash_of_nf4(name, &packed)?;
            return Ok(match () {
                () if now.shape != was.shape => Verdict::Shape(now.shape),
                () if now.dtype == was.dtype && now.sha256 == was.sha256 => Verdict::Same,
                () if now.dtype == was.dtype => Verdict::Values,
                () => Verdict::Unknown(was.dtype.clone(), now.dtype),
            });
        }
        let Some(tensor) = self.base().find(name) else { return Ok(Verdict::Missing) };
        let now = dtype(tensor.kind());
        if tensor.size() != was.shape {
            return Ok(Verdict::Shape(tensor.size()));
        }
        if was_nf4 {
            // The same weights come to the same codes.
            let dense = if self.is_transposed(name) { tensor.f_tr()? } else { tensor };
            let config = Nf4Config { double_quant: was.dtype == NF4_DOUBLE, ..Nf4Config::default() };
            let again = self.hash_of_nf4(name, &Nf4::quantise(name, &dense, &config)?)?;
            let same = again.sha256 == was.sha256;
            return Ok(if same { Verdict::Stored(was.dtype.clone(), now) } else { Verdict::Values });
        }
        if now == was.dtype {
            let same = hash_as(&tensor, tensor.kind())? == was.sha256;
            return Ok(if same { Verdict::Same } else { Verdict::Values });
        }
        // One of the two is the other one rounded.
        let rounded = was.rounded.get(&now).cloned();
        let same = match (rounded, kind(&was.dtype)) {
            (Some(rounded), _) => hash_as(&tensor, tensor.kind())? == rounded,
            (None, Some(kind)) => hash_as(&tensor, kind)? == was.sha256,
            (None, None) => return Ok(Verdict::Unknown(was.dtype.clone(), now)),
        };
        Ok(if same { Verdict::Stored(was.dtype.clone(), now) } else { Verdict::Values })
    }
}

/// How a tensor of a base compares with that of the base an adapter was made for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Same,
    Missing,
    /// Another shape, this one.
    Shape(Vec<i64>),
    /// Other values, rounding apart.
    Values,
    /// The same values, stored in one way then and in another now.
    Stored(String, String),
    /// Stored in two ways of which neither comes from the other.
    Unknown(String, String),
}

const NF4: &str = "NF4";
const NF4_DOUBLE: &str = "NF4_DOUBLE";

fn called(name: &str) -> String {
    if name.is_empty() { "a base without a name".into() } else { format!("`{name}`") }
}

/// What safetensors call a dtype, or libtorch where they have none.
fn dtype(kind: Kind) -> String {
    io::tensors::dtype(kind).map_or_else(|| format!("{kind:?}"), |dtype| format!("{dtype:?}"))
}

fn kind(dtype_name: &str) -> Option<Kind> {
    [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Double].into_iter().find(|k| dtype(*k) == dtype_name)
}

fn hash_as(tensor: &Tensor, kind: Kind) -> Result<String> {
    let bytes = io::tensors::bytes(&if tensor.kind() == kind {
        tensor.shallow_clone()
    } else {
        tensor.f_to_kind(kind)?
    })?;
    Ok(short(Sha256::new().chain_update(bytes)))
}

fn fingerprint(tensors: &BTreeMap<String, TensorHash>) -> String {
    let mut hash = Sha256::new();
    for (name, t) in tensors {
        hash.update(format!("{name}\n{} {:?} {}\n", t.dtype, t.shape, t.sha256));
    }
    hex(&hash.finalize())
}

fn short(hash: Sha256) -> String {
    let mut digits = hex(&hash.finalize());
    digits.truncate(16);
    digits
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
