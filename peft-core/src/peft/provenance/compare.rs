//! A base compared with the one that an adapter was made for.

use crate::error::{Error, Result};
use crate::peft::Peft;
use crate::peft::provenance::hashes::{NF4, NF4_DOUBLE, dtype, hash_as, kind};
use crate::peft::provenance::{Base, OtherBase, Provenance, TensorHash};
use crate::quant::{Nf4, Nf4Config};
use crate::warning::Warning;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

impl Peft {
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

fn called(name: &str) -> String {
    if name.is_empty() { "a base without a name".into() } else { format!("`{name}`") }
}
