//! The special tokens of a tokenizer that has no `tokenizer.json`: names (`bos_token`, ..), flags, and those that are added.

use crate::error::{Error, Result};
use crate::text::tokenizer::{CONFIG, Class, SPECIAL_TOKENS, optional};
use serde_json::Value;
use std::path::Path;
use tokenizers::{AddedToken, Tokenizer};

/// Special tokens and other added ones.
#[derive(Debug)]
pub(super) struct Special {
    place: String,
    /// By name; other names of the file's (`image_token`) come behind.
    named: Vec<(String, AddedToken)>,
    /// `added_tokens_decoder` or `added_tokens.json`, by id.
    added: Vec<AddedToken>,
    /// `extra_special_tokens`, which were `additional_special_tokens`.
    extra: Vec<AddedToken>,
}

impl Special {
    /// What `tokenizer_config.json` says; where it has no `added_tokens_decoder`, `special_tokens_map.json` and
    /// `added_tokens.json` as well.
    pub fn read(dir: &Path, config: &Value, class: Class) -> Result<Self> {
        let place = dir.join(CONFIG).display().to_string();
        let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
        let map = if decoder.is_none() { optional(dir, "special_tokens_map.json")? } else { None };
        let map = map.unwrap_or_default();
        let field = |name: &str| map.get(name).or_else(|| config.get(name));
        let wrong = |name: &str, v: &Value| Error::config(&place, name, format!("{v} is no token"));
        let mut named = Vec::new();
        for name in SPECIAL_TOKENS {
            let token = match field(name) {
                Some(Value::Null) => None,
                Some(value) => Some(token(value, map.get(name).is_some()).ok_or_else(|| wrong(name, value))?),
                None => class.default(name).map(|content| AddedToken::from(content, true)),
            };
            named.extend(token.map(|token| (name.to_owned(), token)));
        }
        for (name, value) in config.as_object().into_iter().flatten() {
            if name.ends_with("_token") && !SPECIAL_TOKENS.contains(&name.as_str()) {
                named.extend(token(value, false).map(|token| (name.clone(), token)));
            }
        }
        let list = ["extra_special_tokens", "additional_special_tokens"].map(field);
        let list = list.into_iter().flatten().filter_map(Value::as_array).find(|list| !list.is_empty());
        let extra = list
            .into_iter()
            .flatten()
            .map(|v| token(v, true).ok_or_else(|| wrong("extra_special_tokens", v)));
        let extra = extra.collect::<Result<Vec<_>>>()?;
        let known = |content: &str| named.iter().map(|(_, t)| t).chain(&extra).any(|t| t.content == content);
        let mut added = Vec::new();
        for (id, value) in decoder.into_iter().flatten() {
            let wrong = || {
                Error::config(
                    &place,
                    "added_tokens_decoder",
                    format!("{id}: {value} is no token with its id"),
                )
            };
            let id: u32 = id.parse().map_err(|_| wrong())?;
            added.push((id, token(value, false).filter(|_| value.is_object()).ok_or_else(wrong)?));
        }
        let file = "added_tokens.json";
        let ids = if decoder.is_none() { optional(dir, file)? } else { None };
        for (content, id) in ids.iter().filter_map(Value::as_object).flatten() {
            let wrong = || Error::config(dir.join(file).display(), content, format!("{id} is no id"));
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong)?;
            added.push((id, AddedToken::from(content, known(content))));
        }
        added.sort_by_key(|(id, _)| *id);
        let added: Vec<AddedToken> = added.into_iter().map(|(_, token)| token).collect();
        for (_, token) in &mut named {
            if let Some(same) = added.iter().find(|a| a.content == token.content) {
                *token = same.clone();
            }
        }
        Ok(Self { place, named, added, extra })
    }

    /// The text of a named token.
    ///
    /// # Errors
    /// There is none.
    pub fn content(&self, name: &str) -> Result<String> {
        let found = self.named.iter().find(|(n, _)| n == name).map(|(_, token)| token.content.clone());
        found.ok_or_else(|| Error::config(&self.place, name, "is missing"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.named.iter().any(|(n, _)| n == name)
    }

    /// Adds them as transformers does, which decides the ids of those that are not in the vocabulary: first the added
    /// ones, by id, then the named and the extra ones that are not among them; `again` adds those as plain special ones.
    pub fn add(&self, tokenizer: &mut Tokenizer, again: bool) -> tokenizers::Result<()> {
        let mut tokens = self.added.clone();
        let special = || self.named.iter().map(|(_, token)| token).chain(&self.extra);
        for token in special() {
            if !self.added.iter().any(|a| a.content == token.content) && !tokens.contains(token) {
                tokens.push(token.clone());
            }
        }
        for token in &mut tokens {
            token.special |= self.named.iter().any(|(_, named)| named.content == token.content);
        }
        tokenizer.add_tokens(tokens)?;
        if again {
            tokenizer.add_tokens(special().map(|token| AddedToken::from(&token.content, true)))?;
        }
        Ok(())
    }
}

/// A text, or an object with flags; `special` is what an object is that does not say it.
fn token(value: &Value, special: bool) -> Option<AddedToken> {
    let Some(fields) = value.as_object() else {
        return value.as_str().map(|text| AddedToken::from(text, true));
    };
    let flag = |name: &str| fields.get(name).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(special);
    let token = AddedToken::from(fields.get("content")?.as_str()?, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false));
    Some(token.normalized(flag("normalized").unwrap_or(!special)))
}

impl Class {
    /// The token of that name where no file says another.
    fn default(self, name: &str) -> Option<&'static str> {
        match (self, name) {
            (Class::Bert, "unk_token") => Some("[UNK]"),
            (Class::Bert, "sep_token") => Some("[SEP]"),
            (Class::Bert, "pad_token") => Some("[PAD]"),
            (Class::Bert, "cls_token") => Some("[CLS]"),
            (Class::Bert, "mask_token") => Some("[MASK]"),
            (Class::Roberta, "bos_token" | "cls_token") => Some("<s>"),
            (Class::Roberta, "eos_token" | "sep_token") => Some("</s>"),
            (Class::Roberta, "unk_token") => Some("<unk>"),
            (Class::Roberta, "pad_token") => Some("<pad>"),
            (Class::Roberta, "mask_token") => Some("<mask>"),
            (Class::Gpt2, "bos_token" | "eos_token" | "unk_token") => Some("<|endoftext|>"),
            (Class::Qwen2, "eos_token" | "unk_token" | "pad_token") => Some("<|endoftext|>"),
            _ => None,
        }
    }
}
