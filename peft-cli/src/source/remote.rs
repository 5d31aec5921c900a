//! The Hub's side: what a repository has at a revision, and requests for its files.
//!
//! hf-hub answers the first question. Files are asked for here, since it neither goes on where a download broke off nor
//! compares what came with its hash.

use super::settings::Settings;
use anyhow::{Context, Result, anyhow, bail};
use hf_hub::{HFClient, HFClientSync, HFError, split_id};
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, LOCATION, RANGE};
use reqwest::redirect::Policy;
use std::error::Error;
use std::time::Duration;

/// How long the Hub may take to answer, or to send on.
const PATIENCE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// How often a question is asked again, and half of the time before the first.
const RETRIES: usize = 2;
const PAUSE: Duration = Duration::from_millis(100);
const AGENT: &str = concat!("peft-rs/", env!("CARGO_PKG_VERSION"));
/// Redirections within the Hub, from an old name to the new one.
const MOVES: usize = 5;

/// A connection to the Hub.
pub struct Remote {
    hub: HFClientSync,
    /// Follows no redirection: what is known of a file is in the answer that leads elsewhere.
    still: Client,
    follow: Client,
    endpoint: String,
    settings: Settings,
}

/// Why the Hub does not say what a repository has.
pub enum Refusal {
    /// It cannot be reached, or not now.
    Away(anyhow::Error),
    /// It says no.
    No(anyhow::Error),
}

/// A file of a repository, before it is fetched.
pub struct Meta {
    /// The name of its bytes: their sha256 for large files.
    pub etag: String,
    pub size: Option<u64>,
    pub url: String,
}

impl Remote {
    pub fn open(settings: &Settings) -> Result<Self> {
        let patient =
            reqwest::Client::builder().user_agent(AGENT).connect_timeout(CONNECT).read_timeout(PATIENCE);
        let mut builder = HFClient::builder()
            .client(patient.build()?)
            .cache_dir(&settings.cache)
            .retry_max_attempts(RETRIES)
            .retry_base_delay(PAUSE);
        if let Some(token) = &settings.token {
            builder = builder.token(&token.secret);
        }
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.endpoint(endpoint);
        }
        let hub = builder.build().map_err(|e| anyhow!("HF_ENDPOINT: {}", said(&e)))?;
        let endpoint = hub.endpoint().to_owned();
        let client = || Client::builder().user_agent(AGENT).connect_timeout(CONNECT).timeout(PATIENCE);
        Ok(Self {
            hub: HFClientSync::from_inner(hub)?,
            still: client().redirect(Policy::none()).build()?,
            follow: client().build()?,
            endpoint,
            settings: settings.clone(),
        })
    }

    /// The commit that `revision` is at, and the files it has.
    pub fn list(&self, repo: &str, revision: &str) -> Result<(String, Vec<String>), Refusal> {
        let (owner, name) = split_id(repo);
        let info = self.hub.model(owner, name).info().revision(revision).send();
        let info = info.map_err(|e| self.refusal(repo, revision, e))?;
        let strange = |what| Refusal::No(anyhow!("{} answers without {what}", self.endpoint));
        let commit =
            info.sha.filter(|sha| super::cache::is_commit(sha)).ok_or_else(|| strange("a commit"))?;
        let files = info.siblings.ok_or_else(|| strange("a list of files"))?;
        Ok((commit, files.into_iter().map(|file| file.rfilename).collect()))
    }

    fn refusal(&self, repo: &str, revision: &str, error: HFError) -> Refusal {
        let (HFError::AuthRequired { context: answer }
        | HFError::Forbidden { context: answer }
        | HFError::RepoNotFound { context: Some(answer), .. }
        | HFError::RevisionNotFound { context: Some(answer), .. }
        | HFError::RateLimited { context: answer, .. }
        | HFError::Http { context: answer }) = &error
        else {
            return Refusal::Away(anyhow!("{} cannot be asked: {}", self.endpoint, said(&error)));
        };
        let code = answer.error_code.as_deref().unwrap_or_default();
        let words = answer.server_message.as_deref().unwrap_or_default();
        let status = answer.status;
        let answered = anyhow!("{} answers {}", self.endpoint, answer_text(status, words));
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Refusal::Away(answered);
        }
        let hint = match (status.as_u16(), code) {
            (401 | 403, "GatedRepo") => self.gated(repo),
            (401 | 403, _) => format!("there is no {repo}, or it is private: {}", self.token()),
            (404, "RevisionNotFound") => format!("{repo} has no revision `{revision}`"),
            (404, _) => format!("there is no {repo} with a revision `{revision}`"),
            _ => return Refusal::No(answered),
        };
        Refusal::No(anyhow!("{hint} ({answered})"))
    }

    fn gated(&self, repo: &str) -> String {
        format!("{repo} is gated: accept its terms on its page there, and {}", self.token())
    }

    fn token(&self) -> String {
        match &self.settings.token {
            None => "set HF_TOKEN to a token that may read it".into(),
            Some(token) => format!("the token from {} may not read it", token.from),
        }
    }

    /// What is known of a file before it is fetched.
    pub fn meta(&self, repo: &str, commit: &str, name: &str) -> Result<Meta> {
        let url = format!("{}/{repo}/resolve/{commit}/{name}", self.endpoint);
        let mut at = reqwest::Url::parse(&url).with_context(|| url.clone())?;
        for _ in 0..MOVES {
            let request = self.authorized(self.still.head(at.clone()));
            let answer = request.send().map_err(|e| anyhow!("{name}: {}", said(&e)))?;
            let headers = answer.headers();
            let etag = text(headers, "x-linked-etag").or_else(|| text(headers, ETAG.as_str()));
            let moved = text(headers, LOCATION.as_str()).filter(|_| answer.status().is_redirection());
            match (etag, moved) {
                (Some(etag), _) if answer.status().is_success() || answer.status().is_redirection() => {
                    let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
                    if !super::id::plain(&etag) {
                        bail!(
                            "{name}: {} names it `{etag}`, which cannot be the name of a file",
                            self.endpoint
                        );
                    }
                    let size =
                        text(headers, "x-linked-size").or_else(|| text(headers, CONTENT_LENGTH.as_str()));
                    return Ok(Meta { etag, size: size.and_then(|size| size.parse().ok()), url });
                }
                (None, Some(to)) => at = at.join(&to).with_context(|| format!("{name}: leads to `{to}`"))?,
                _ if !answer.status().is_success() => return Err(self.turned_down(repo, name, &answer)),
                _ => bail!("{name}: {} sends it without an ETag, the name of its content", self.endpoint),
            }
        }
        bail!("{name}: {} leads from one address to the next", self.endpoint)
    }

    /// Asks for the bytes of a file from `start` on.
    pub fn bytes(&self, meta: &Meta, start: u64) -> reqwest::Result<Response> {
        let request = self.authorized(self.follow.get(&meta.url));
        if start == 0 { request } else { request.header(RANGE, format!("bytes={start}-")) }.send()
    }

    /// The error for an answer that is no file.
    pub fn turned_down(&self, repo: &str, name: &str, answer: &Response) -> anyhow::Error {
        let words = text(answer.headers(), "x-error-message").unwrap_or_default();
        let answered = format!("{} answers {}", self.endpoint, answer_text(answer.status(), &words));
        match answer.status().as_u16() {
            401 | 403 => anyhow!("{name}: {} ({answered})", self.gated(repo)),
            _ => anyhow!("{name}: {answered}"),
        }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.header(ACCEPT_ENCODING, "identity"); // lengths are those of the file
        match &self.settings.token {
            Some(token) => request.bearer_auth(&token.secret),
            None => request,
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn answer_text(status: StatusCode, words: &str) -> String {
    let words = words.lines().next().unwrap_or_default();
    if words.is_empty() { status.to_string() } else { format!("{status}: {words}") }
}

/// What is at the bottom of an error of the network, as text: a connection that closes is no pipe whose reader has seen
/// enough.
pub fn said(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}
