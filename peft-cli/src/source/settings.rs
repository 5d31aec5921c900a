//! What the environment says of the Hub, as Python's programs read it.

use std::env;
use std::fmt;
use std::fs;
use std::path::PathBuf;

/// Where the Hub's cache is, whether the Hub may be asked, and by whose name.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `HF_HUB_CACHE`; or `hub` in `HF_HOME`, which is `~/.cache/huggingface` unless set.
    pub cache: PathBuf,
    /// The variable that says that the Hub is not to be asked: `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`.
    pub offline: Option<&'static str>,
    /// `HF_ENDPOINT`: another address than the Hub's own.
    pub endpoint: Option<String>,
    pub token: Option<Token>,
}

/// A secret, which nothing prints, and where it was found.
#[derive(Clone)]
pub struct Token {
    pub(super) secret: String,
    /// The name of a variable, or the path of a file.
    pub from: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a token from {}", self.from)
    }
}

impl Settings {
    pub fn from_environment() -> Self {
        let home = path("HF_HOME").unwrap_or_else(|| {
            path("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache")).join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let endpoint = variable("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned());
        let from_file = || {
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
            let secret = fs::read_to_string(&file).ok()?.trim().to_owned();
            (!secret.is_empty()).then(|| Token { secret, from: file.display().to_string() })
        };
        Self {
            cache: cache.unwrap_or_else(|| home.join("hub")),
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(|name| is_on(name)),
            endpoint,
            token: ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
                .into_iter()
                .find_map(|name| Some(Token { secret: variable(name)?, from: name.to_owned() }))
                .or_else(from_file)
                .filter(|_| !is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
        }
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn is_on(name: &str) -> bool {
    variable(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()))
}

fn path(name: &str) -> Option<PathBuf> {
    let value = PathBuf::from(env::var_os(name).filter(|value| !value.is_empty())?);
    Some(value.strip_prefix("~").map(|rest| home().join(rest)).unwrap_or(value))
}

fn home() -> PathBuf {
    env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}
