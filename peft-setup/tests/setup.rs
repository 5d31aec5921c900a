//! The set-up of crates in temporary folders, with a libtorch that is made of empty files.

use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const PACKAGE: &str = "[package]\nname = \"mine\"\n";

/// Three folders: a crate with these files, a libtorch of the right version, and a home.
struct Case {
    top: TempDir,
}

impl Case {
    fn new(files: &[(&str, &str)]) -> Self {
        let case = Self { top: tempfile::tempdir().unwrap() };
        write(&case.mine("src/main.rs"), "fn main() {}");
        for (name, text) in files {
            write(&case.mine(name), text);
        }
        let library =
            format!("lib/{}torch_cpu{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        for name in [library.as_str(), "include/torch/x.h"] {
            write(&case.libtorch().join(name), "");
        }
        write(&case.libtorch().join("build-version"), "2.11.0+cpu\n");
        case
    }

    fn mine(&self, name: &str) -> PathBuf {
        self.top.path().join("mine").join(name)
    }

    fn libtorch(&self) -> PathBuf {
        self.top.path().join("libtorch")
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.mine(name)).unwrap()
    }

    /// Whether it succeeded, and all that it said.
    fn run(&self, folder: &str, libtorch: Option<&Path>) -> (bool, String) {
        let mut command = Command::new(program());
        command.current_dir(self.mine(folder)).env("XDG_DATA_HOME", self.top.path().join("home"));
        command.env_remove("LIBTORCH").env_remove("LIBTORCH_USE_PYTORCH").env("PIP_NO_INDEX", "1");
        command.env("PIP_FIND_LINKS", self.top.path());
        command.envs(libtorch.map(|dir| ("LIBTORCH", dir)));
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.success(), said)
    }
}

/// The program, beside the folder that this test is in. (Cargo names it in `CARGO_BIN_EXE_peft-setup`, but a variable
/// with a hyphen does not get through the shell script that wraps rustc.)
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let name = format!("peft-setup{}", std::env::consts::EXE_SUFFIX);
    test.parent().and_then(Path::parent).unwrap().join(name)
}

fn write(file: &Path, text: &str) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

#[test]
fn a_new_crate_gets_both_and_a_second_time_changes_nothing() {
    let case = Case::new(&[("Cargo.toml", PACKAGE)]);
    let libtorch = case.libtorch();
    let (done, said) = case.run("", Some(&libtorch));
    assert!(done, "{said}");
    let config = format!("[env]\nLIBTORCH = \"{}\"\n", libtorch.display());
    assert_eq!(case.text(".cargo/config.toml"), config);
    let script = case.text("build.rs");
    assert!(script.contains("DEP_PEFT_LINK_ARG"), "{script}");
    // From the configuration alone, whether cargo puts it into the environment or not.
    for again in [None, Some(libtorch.as_path())] {
        let (done, said) = case.run("src", again);
        assert!(done, "{said}");
        assert_eq!(
            (case.text(".cargo/config.toml"), case.text("build.rs")),
            (config.clone(), script.clone())
        );
    }
}

#[test]
fn what_is_in_the_configuration_stays() {
    let before = "# mine\nbuild.jobs = 2 # two\n\n[env]\nA = \"1\"\n\n[net]\noffline = true\n";
    let case = Case::new(&[("Cargo.toml", PACKAGE), (".cargo/config.toml", before)]);
    let (done, said) = case.run("", Some(&case.libtorch()));
    assert!(done, "{said}");
    let line = format!("A = \"1\"\nLIBTORCH = \"{}\"\n", case.libtorch().display());
    assert_eq!(case.text(".cargo/config.toml"), before.replace("A = \"1\"\n", &line));
}

#[test]
fn a_configured_libtorch_is_taken_in_either_form() {
    let relative = "[env]\nLIBTORCH = { value = \"../libtorch\", relative = true }\n";
    let case = Case::new(&[("Cargo.toml", PACKAGE), (".cargo/config", relative)]);
    let (done, said) = case.run("", None);
    assert!(done, "{said}");
    assert_eq!(case.text(".cargo/config"), relative);
    assert!(!case.mine(".cargo/config.toml").exists());
}

#[test]
fn a_build_script_of_the_users_own_is_left_to_the_user() {
    let own = "fn main() {}\n";
    let manifest = format!("{PACKAGE}build = \"own.rs\"\n");
    let case = Case::new(&[("Cargo.toml", &manifest), ("own.rs", own)]);
    let (done, said) = case.run("", Some(&case.libtorch()));
    assert!(!done);
    assert!(said.contains("own.rs is your own") && said.contains("DEP_PEFT_LINK_ARG"), "{said}");
    assert_eq!(case.text("own.rs"), own);
    assert!(case.text(".cargo/config.toml").contains("LIBTORCH") && !case.mine("build.rs").exists());
}

#[test]
fn a_workspace_has_one_configuration_and_each_package_its_script() {
    let members = [("Cargo.toml", "[workspace]\nmembers = [\"one\"]\n"), ("one/Cargo.toml", PACKAGE)];
    let case = Case::new(&[members[0], members[1], ("one/src/main.rs", "fn main() {}")]);
    let (done, said) = case.run("", Some(&case.libtorch()));
    assert!(done && said.contains("each of its packages"), "{said}");
    assert!(!case.mine("build.rs").exists());
    let (done, said) = case.run("one", None);
    assert!(done && case.mine("one/build.rs").exists(), "{said}");
    assert!(!case.mine("one/.cargo").exists());
}

#[test]
fn what_is_no_libtorch_is_named() {
    let case = Case::new(&[("Cargo.toml", PACKAGE)]);
    let (done, said) = case.run("", Some(case.top.path()));
    assert!(!done && said.contains("has no include/torch"), "{said}");
    write(&case.libtorch().join("build-version"), "2.1.0\n");
    let (done, said) = case.run("", Some(&case.libtorch()));
    assert!(!done && said.contains("is libtorch 2.1.0") && said.contains("2.11.0"), "{said}");
    assert!(!case.mine(".cargo").exists() && !case.mine("build.rs").exists());
}

#[test]
fn where_there_is_no_crate_or_a_broken_one_nothing_is_written() {
    let case = Case::new(&[]);
    let (done, said) = case.run("", Some(&case.libtorch()));
    assert!(!done && said.contains("no crate here"), "{said}");
    for broken in ["[env", "env = 1"] {
        let case = Case::new(&[("Cargo.toml", PACKAGE), (".cargo/config.toml", broken)]);
        let (done, said) = case.run("", Some(&case.libtorch()));
        assert!(!done && said.contains("config.toml"), "{said}");
        assert_eq!(case.text(".cargo/config.toml"), broken);
    }
}
