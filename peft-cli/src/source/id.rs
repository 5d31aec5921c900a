//! Ids of the Hub.

/// `owner/name`, or `name` alone as some old models have it; then the folder in it, and `@revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    repo: String,
    folder: String,
    revision: Option<String>,
}

impl Id {
    /// `None` for what cannot be an id: a path that begins at the root, in a home or with a dot, or strange characters.
    pub fn parse(given: &str) -> Option<Self> {
        let (names, revision) = match given.split_once('@') {
            Some((names, revision)) => (names, Some(revision)),
            None => (given, None),
        };
        let parts: Vec<_> = names.split('/').collect();
        let sound = parts.iter().all(|part| plain(part)) && revision.is_none_or(|r| r.split('/').all(plain));
        let (repo, folder) = parts.split_at(parts.len().min(2));
        let (repo, folder) = (repo.join("/"), folder.join("/"));
        let listed = repo.len() <= 96 && !repo.contains("--") && !repo.contains("..");
        (sound && listed).then(|| Self { repo, folder, revision: revision.map(str::to_owned) })
    }

    /// `owner/name`.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// The folder in the repository, `""` for its root.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }
}

/// Whether `name` may be one part of an address or of a path, without leading out of it.
pub fn plain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_id() {
        let id = Id::parse("owner/na.me/a/b@refs/pr/1").unwrap();
        assert_eq!((id.repo(), id.folder(), id.revision()), ("owner/na.me", "a/b", Some("refs/pr/1")));
        assert_eq!(Id::parse("gpt2").unwrap().repo(), "gpt2");
        for wrong in
            ["", "/x", "./x", "a/../b", "a//b", "a/b@", "a/b@x y", "a--b/c", "a/b?c", "ä/b", "a/b@../x"]
        {
            assert!(Id::parse(wrong).is_none(), "{wrong}");
        }
        assert!(Id::parse(&"x".repeat(97)).is_none());
    }
}
