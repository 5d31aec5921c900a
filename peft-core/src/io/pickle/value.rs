//! What a pickle of weights can hold, and the functions it can call.

use crate::io::pickle::archive::Archive;
use crate::io::pickle::refusal::{Refused, broken, foreign};
use crate::io::pickle::view::{Storage, View};
use tch::Kind;

/// A value: small, or a place on the [`Heap`]. Nothing nests, so that nothing can be too deep.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Float,
    Text(&'a str),
    Global(Global),
    Tuple(usize),
    List(usize),
    Dict(usize),
    Storage(usize),
    Tensor(usize),
}

/// The Python objects that a file may name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
    OrderedDict,
    Tensor,
    Parameter,
    Storage(Kind),
}

impl Global {
    /// The object, if it is one of these.
    pub fn named(module: &str, name: &str) -> Refused<Self> {
        let storages = [
            ("FloatStorage", Kind::Float),
            ("DoubleStorage", Kind::Double),
            ("HalfStorage", Kind::Half),
            ("BFloat16Storage", Kind::BFloat16),
            ("LongStorage", Kind::Int64),
            ("IntStorage", Kind::Int),
            ("ShortStorage", Kind::Int16),
            ("CharStorage", Kind::Int8),
            ("ByteStorage", Kind::Uint8),
            ("BoolStorage", Kind::Bool),
        ];
        let storage = storages.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        match (module, name, storage) {
            ("collections", "OrderedDict", _) => Ok(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2", _) => Ok(Global::Tensor),
            ("torch._utils", "_rebuild_parameter", _) => Ok(Global::Parameter),
            ("torch", _, Some(kind)) => Ok(Global::Storage(kind)),
            _ => {
                let name: String = format!("{module}.{name}").escape_debug().take(100).collect();
                foreign(format!("asks for the Python object `{name}`, which weights do not need"))
            }
        }
    }
}

/// What values point to.
#[derive(Debug, Default)]
pub(super) struct Heap<'a> {
    sequences: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<View>,
}

/// The place of a new thing.
fn push<T>(all: &mut Vec<T>, new: T) -> usize {
    all.push(new);
    all.len().saturating_sub(1)
}

impl<'a> Heap<'a> {
    pub fn tuple(&mut self, values: Vec<Value<'a>>) -> Value<'a> {
        Value::Tuple(push(&mut self.sequences, values))
    }

    pub fn list(&mut self) -> Value<'a> {
        Value::List(push(&mut self.sequences, Vec::new()))
    }

    pub fn dict(&mut self) -> Value<'a> {
        Value::Dict(push(&mut self.dicts, Vec::new()))
    }

    /// Adds to a list.
    pub fn extend(&mut self, list: Value<'a>, values: Vec<Value<'a>>) -> Refused<()> {
        let Value::List(at) = list else { return broken(format!("adds values to {}", self.describe(list))) };
        self.sequences.get_mut(at).ok_or("has no such list")?.extend(values);
        Ok(())
    }

    /// Adds pairs, key and value in turn, to a dictionary.
    pub fn insert(&mut self, dict: Value<'a>, values: &[Value<'a>]) -> Refused<()> {
        let Value::Dict(at) = dict else { return broken(format!("sets items of {}", self.describe(dict))) };
        let (pairs, []) = values.as_chunks::<2>() else {
            return broken("sets a key without a value");
        };
        self.dicts.get_mut(at).ok_or("has no such dictionary")?.extend(pairs.iter().map(|[k, v]| (*k, *v)));
        Ok(())
    }

    /// Sets attributes of an object: `_metadata` of a dictionary, versions of modules that no number depends on.
    pub fn build(&mut self, object: Value<'a>, state: Value<'a>) -> Refused<()> {
        let allowed = match (object, self.pairs(state)) {
            (Value::Dict(_), Some(pairs)) => {
                pairs.iter().all(|pair| matches!(pair, (Value::Text("_metadata"), Value::Dict(_))))
            }
            _ => false,
        };
        match allowed {
            true => Ok(()),
            false => {
                foreign(format!("sets attributes of {}, which weights do not need", self.describe(object)))
            }
        }
    }

    /// Calls a function. Which ones there are is [`Global`]'s to say.
    pub fn call(&mut self, function: Value<'a>, arguments: Value<'a>) -> Refused<Value<'a>> {
        let Value::Tuple(at) = arguments else { return broken("calls without a tuple of arguments") };
        let arguments = self.sequences.get(at).cloned().unwrap_or_default();
        match (function, arguments.as_slice()) {
            (Value::Global(Global::OrderedDict), []) => Ok(self.dict()),
            (
                Value::Global(Global::Tensor),
                [storage, offset, shape, strides, Value::Bool, hooks, more @ ..],
            ) if self.is_empty(*hooks) && more.iter().all(|m| self.is_empty(*m)) => {
                let view = self.view(*storage, *offset, *shape, *strides)?;
                Ok(Value::Tensor(push(&mut self.tensors, view)))
            }
            (Value::Global(Global::Parameter), [tensor @ Value::Tensor(_), Value::Bool, hooks])
                if self.is_empty(*hooks) =>
            {
                Ok(*tensor)
            }
            _ => {
                let count = arguments.len();
                foreign(format!(
                    "calls {} with {count} arguments that are not a weight's",
                    self.describe(function)
                ))
            }
        }
    }

    /// A persistent id: `('storage', type, key, location, numel)`. Everything is read onto the CPU.
    pub fn storage(&mut self, id: Value<'a>, archive: &Archive<'_>) -> Refused<Value<'a>> {
        let id = if let Value::Tuple(at) = id { self.sequences.get(at).cloned() } else { None };
        let Some(
            &[
                Value::Text("storage"),
                Value::Global(Global::Storage(kind)),
                Value::Text(key),
                Value::Text(_),
                numel,
            ],
        ) = id.as_deref()
        else {
            return broken("names bytes otherwise than by ('storage', type, key, location, numel)");
        };
        let shown: String = key.escape_debug().take(40).collect();
        let size = archive
            .size(key)
            .ok_or_else(|| format!("names the bytes `data/{shown}`, which are not there"))?;
        let (Value::Int(numel), Some(has)) = (numel, size.checked_div(kind.elt_size_in_bytes())) else {
            return broken("has a size that is no number");
        };
        if usize::try_from(numel) != Ok(has) || has.checked_mul(kind.elt_size_in_bytes()) != Some(size) {
            return broken(format!("`data/{shown}` has {size} bytes, expected {numel} values of {kind:?}"));
        }
        Ok(Value::Storage(push(&mut self.storages, Storage { key, kind, numel })))
    }

    fn view(
        &self,
        storage: Value<'a>,
        offset: Value<'a>,
        shape: Value<'a>,
        strides: Value<'a>,
    ) -> Refused<View> {
        let stored = if let Value::Storage(at) = storage { self.storages.get(at) } else { None };
        let (Some(stored), Value::Int(offset), Some(shape), Some(strides)) =
            (stored, offset, self.numbers(shape), self.numbers(strides))
        else {
            return broken("makes a tensor otherwise than of a storage, an offset, a shape and strides");
        };
        View::of(stored, offset, shape, strides)
    }

    fn numbers(&self, tuple: Value<'a>) -> Option<Vec<i64>> {
        let Value::Tuple(at) = tuple else { return None };
        self.sequences.get(at)?.iter().map(|v| if let Value::Int(n) = v { Some(*n) } else { None }).collect()
    }

    /// No hooks, no metadata.
    fn is_empty(&self, value: Value<'a>) -> bool {
        matches!(value, Value::None) || self.pairs(value).is_some_and(<[_]>::is_empty)
    }

    fn pairs(&self, dict: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        if let Value::Dict(at) = dict { self.dicts.get(at).map(Vec::as_slice) } else { None }
    }

    pub fn take_dict(&mut self, at: usize) -> Vec<(Value<'a>, Value<'a>)> {
        self.dicts.get_mut(at).map(std::mem::take).unwrap_or_default()
    }

    pub fn tensor(&self, value: Value<'a>) -> Option<View> {
        if let Value::Tensor(at) = value { self.tensors.get(at).cloned() } else { None }
    }

    /// Whether a value is a dictionary of tensors.
    pub fn has_tensors(&self, value: Value<'a>) -> bool {
        self.pairs(value).is_some_and(|pairs| pairs.iter().any(|(_, v)| matches!(v, Value::Tensor(_))))
    }

    /// A value in words.
    pub fn describe(&self, value: Value<'a>) -> &'static str {
        match value {
            Value::None => "None",
            Value::Bool => "a truth value",
            Value::Int(_) | Value::Float => "a number",
            Value::Text(_) => "a text",
            Value::Global(Global::OrderedDict) => "OrderedDict",
            Value::Global(Global::Tensor) => "_rebuild_tensor_v2",
            Value::Global(Global::Parameter) => "_rebuild_parameter",
            Value::Global(Global::Storage(_)) => "the type of a storage",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dictionary",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}
