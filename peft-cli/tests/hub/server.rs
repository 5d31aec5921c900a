//! A Hub on loopback: the answers that fetching a model needs, with faults to order.

use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const REPO: &str = "maker/tiny";

/// What goes wrong. Large files are those whose name ends with `.safetensors` or `.bin`.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Answers for a large file that end after so many bytes.
    pub break_off: u32,
    pub break_after: usize,
    /// Starts from the beginning whatever is asked for.
    pub no_ranges: bool,
    /// Sends other bytes of the same length.
    pub corrupt: bool,
    /// Wants this token.
    pub token: Option<String>,
    /// Answers 503 to everything.
    pub down: bool,
}

/// A line a request: method, path, range.
pub type Log = Vec<String>;

pub struct Server {
    pub endpoint: String,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    files: BTreeMap<String, Vec<u8>>,
    faults: Faults,
    log: Log,
    /// Where large files are.
    store: String,
    /// Requests to the store that had a token.
    leaked: usize,
}

impl Server {
    pub fn start(files: BTreeMap<String, Vec<u8>>, faults: Faults) -> Self {
        let listeners = [0, 1].map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [endpoint, store] =
            [0, 1].map(|i: usize| format!("http://{}", listeners[i].local_addr().unwrap()));
        let shared = Arc::new(Mutex::new(Shared { files, faults, log: Log::new(), store, leaked: 0 }));
        for (listener, is_store) in listeners.into_iter().zip([false, true]) {
            let shared = shared.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let shared = shared.clone();
                    std::thread::spawn(move || answer(stream, &shared, is_store));
                }
            });
        }
        Self { endpoint, shared }
    }

    pub fn set(&self, faults: Faults) {
        self.shared.lock().unwrap().faults = faults;
    }

    /// The requests since the last time.
    pub fn requests(&self) -> Log {
        std::mem::take(&mut self.shared.lock().unwrap().log)
    }

    pub fn leaked(&self) -> usize {
        self.shared.lock().unwrap().leaked
    }
}

pub fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}

/// A large file's name is its sha256; a small one's comes from git, which is not made again here.
pub fn etag(bytes: &[u8], large: bool) -> String {
    let sha = format!("{:x}", Sha256::digest(bytes));
    if large { sha } else { sha[..40].to_owned() }
}

struct Request {
    method: String,
    path: String,
    range: Option<usize>,
    token: Option<String>,
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut request = Request { method, path, range: None, token: None };
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_lowercase().as_str() {
            "range" => request.range = value.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok(),
            "authorization" => request.token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    Some(request)
}

fn answer(mut stream: TcpStream, shared: &Mutex<Shared>, is_store: bool) {
    let Some(request) = read(&stream) else { return };
    let mut shared = shared.lock().unwrap();
    let range = request.range.map(|start| format!(" from {start}")).unwrap_or_default();
    shared.log.push(format!("{} {}{range}", request.method, request.path));
    shared.leaked += usize::from(is_store && request.token.is_some());
    let mut send = |status: &str, headers: &[(&str, String)], body: &[u8]| {
        let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !headers.iter().any(|(name, _)| *name == "Content-Length") {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        let _ = stream.write_all((text + "\r\n").as_bytes());
        if request.method != "HEAD" {
            let _ = stream.write_all(body);
        }
    };
    let refuse =
        |code: &str, words: &str| [("X-Error-Code", code.to_owned()), ("X-Error-Message", words.to_owned())];
    if shared.faults.down {
        return send("503 Service Unavailable", &[], b"");
    }
    if !is_store && shared.faults.token.is_some() && shared.faults.token != request.token {
        return send("401 Unauthorized", &refuse("GatedRepo", "Access to this model is restricted."), b"");
    }
    if let Some(rest) = request.path.strip_prefix("/api/models/") {
        let Some(revision) = rest.strip_prefix(&format!("{REPO}/revision/")) else {
            return send("404 Not Found", &refuse("RepoNotFound", "Repository not found"), b"");
        };
        if !["main", "v1", COMMIT].contains(&revision) {
            return send("404 Not Found", &refuse("RevisionNotFound", "Invalid rev id"), b"");
        }
        let siblings: Vec<_> = shared.files.keys().map(|name| json!({ "rfilename": name })).collect();
        let info = json!({ "id": REPO, "sha": COMMIT, "siblings": siblings }).to_string();
        return send("200 OK", &[("Content-Type", "application/json".into())], info.as_bytes());
    }
    let prefix = if is_store { "/".into() } else { format!("/{REPO}/resolve/{COMMIT}/") };
    let found =
        request.path.strip_prefix(&prefix).and_then(|name| Some((name, shared.files.get(name)?.clone())));
    let Some((name, mut bytes)) = found else {
        return send("404 Not Found", &refuse("EntryNotFound", "Entry not found"), b"");
    };
    let large = is_large(name);
    let tag = format!("\"{}\"", etag(&bytes, large));
    if large && !is_store {
        let headers = [
            ("X-Repo-Commit", COMMIT.to_owned()),
            ("X-Linked-Etag", tag),
            ("X-Linked-Size", bytes.len().to_string()),
            ("Location", format!("{}/{name}", shared.store)),
        ];
        return send("302 Found", &headers, b"");
    }
    if large && shared.faults.corrupt {
        bytes.iter_mut().for_each(|b| *b ^= 1);
    }
    let start = request.range.filter(|_| !shared.faults.no_ranges).unwrap_or(0);
    let rest = &bytes[start.min(bytes.len())..];
    let mut headers = vec![("ETag", tag), ("Content-Length", rest.len().to_string())];
    let status = if start > 0 {
        headers.push(("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())));
        "206 Partial Content"
    } else {
        "200 OK"
    };
    let sent = if large && request.method == "GET" && shared.faults.break_off > 0 {
        shared.faults.break_off -= 1;
        &rest[..shared.faults.break_after.min(rest.len())]
    } else {
        rest
    };
    send(status, &headers, sent);
}
