#!/bin/sh
# Usage: scripts/outside.sh
#
# Does what the README's "In a crate of your own" says, in a temporary folder and with nothing of this workspace's
# environment: the program of peft-core's page as a crate, one set-up, `cargo run`, `cargo test`, and the program alone.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
name=outside-of-the-workspace
mkdir "$dir/$name" "$dir/$name/src" "$dir/elsewhere"
cd "$dir/$name"

cat > Cargo.toml << END
[package]
name = "$name"
edition = "2024"

[dependencies]
peft-core = { path = "$root/peft-core" }
tempfile = "3"

END
# The same versions and profiles as here, so that what is compiled already need not be compiled again.
sed -n '/^\[profile/,$p' "$root/Cargo.toml" >> Cargo.toml
cp "$root/Cargo.lock" .
# The first block of code of the crate's page.
sed -n '/^\/\/! ```$/,/^\/\/! ```$/s/^\/\/! \{0,1\}//p' "$root/peft-core/src/lib.rs" |
  sed -e 1d -e '/^```/,$d' -e 's/^# //' > src/main.rs
printf '#[test]\nfn runs() {\n    main().unwrap();\n}\n' >> src/main.rs

plain() { env -i "PATH=$PATH" "HOME=$HOME" "$@"; }
here() { plain "CARGO_TARGET_DIR=$root/target" "CARGO_NET_OFFLINE=true" "$@"; }

# A libtorch that was given to this run is the user's; afterwards the crate has to know it by itself.
here ${LIBTORCH:+"LIBTORCH=$LIBTORCH"} ${LIBTORCH_USE_PYTORCH:+"LIBTORCH_USE_PYTORCH=$LIBTORCH_USE_PYTORCH"} \
  cargo run --quiet --manifest-path "$root/peft-setup/Cargo.toml"
here cargo run
here cargo test --quiet
cd "$dir/elsewhere"
plain "$root/target/debug/$name"
echo "$name: builds, and runs wherever it is started"
