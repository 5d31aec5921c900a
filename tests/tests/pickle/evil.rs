//! Files made to do harm: each is refused by name, without panic, and before anything large is held.

use crate::write::{dict, file, global, int, storage, tensor, text, weights, zip};
use anyhow::{Result, ensure};
use peft_core::io::tensors;
use tests::refused;

/// Reads a file of weights with this program.
fn run(program: &[u8]) -> Result<peft_core::Result<Vec<String>>> {
    let (_dir, path) = file(&weights(program)?)?;
    Ok(tensors::read(&path).map(|all| all.into_keys().collect()))
}

fn wrong(program: &[u8], parts: &[&str]) -> Result<()> {
    refused(&String::from_utf8_lossy(program), run(program)?, &[parts, &["pytorch_model.bin"]].concat())?;
    Ok(())
}

fn floats() -> Vec<u8> {
    storage("FloatStorage", "0", 6)
}

/// What the files below change is well without the change.
#[test]
fn the_writer_writes_weights() -> Result<()> {
    ensure!(run(&dict(&[("w", tensor(floats(), 0, &[2, 3], &[3, 1]))]))?? == ["w"]);
    ensure!(run(b"\x80\x02}.")??.is_empty(), "tensors out of nothing");
    Ok(())
}

/// Names of functions, by any way in which a pickle can ask for one, and before it is called.
#[test]
fn no_function_is_called() -> Result<()> {
    let call = |module: &str, name: &str| [global(module, name), text("echo"), b"\x85R.".to_vec()].concat();
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("__builtin__", "eval"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_qtensor"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("torch", "FloatStorage.from_file"),
        ("torch.nn", "FloatStorage"),
        ("collections", "OrderedDict.fromkeys"),
        ("numpy.core.multiarray", "_reconstruct"),
    ] {
        let full = format!("`{module}.{name}`");
        let parts = ["a/data.pkl", "byte", "asks for the Python object", &full, "None of it was run"];
        wrong(&call(module, name), &parts)?;
        wrong(&[text(module), text(name), b"\x93)R.".to_vec()].concat(), &parts)?;
    }
    // A long name, or one with a terminal's control codes, is cut and escaped.
    wrong(&global("os\x1b[2J", &"x".repeat(5000)), &["os\\u{1b}[2J.xxx"])?;
    // The instructions that make or change objects, take others' places, or have a class called by name.
    for code in [
        b"\x81", b"\x92", b"i", b"o", b"P", b"\x82", b"\x83", b"\x84", b"B", b"C", b"V", b"I", b"0", b"2",
        b"\x98",
    ] {
        wrong(&[&b"\x80\x04})"[..], code, b"."].concat(), &["instruction", "None of it was run"])?;
    }
    Ok(())
}

#[test]
fn the_functions_of_weights_take_weights_alone() -> Result<()> {
    let rebuild = global("torch._utils", "_rebuild_tensor_v2");
    wrong(&[rebuild.clone(), b")R.".to_vec()].concat(), &["calls _rebuild_tensor_v2"])?;
    wrong(&[global("torch", "FloatStorage"), b")R.".to_vec()].concat(), &["calls the type of a storage"])?;
    let ordered = global("collections", "OrderedDict");
    wrong(&[ordered.clone(), b"]\x85R.".to_vec()].concat(), &["calls OrderedDict"])?;
    wrong(b"\x80\x02)]R.", &["without a tuple"])?;
    wrong(b"\x80\x02K\x01)R.", &["calls a number"])?;
    // Hooks, and metadata (a sign that is not in the values).
    let good = tensor(floats(), 0, &[6], &[1]);
    let hooked = [&good[..good.len() - 2], &text("hook"), &int(1), b"stR"].concat();
    wrong(&dict(&[("w", hooked)]), &["calls _rebuild_tensor_v2"])?;
    let negated = [&good[..good.len() - 2], b"}", &text("neg"), b"\x88stR"].concat();
    wrong(&dict(&[("w", negated)]), &["calls _rebuild_tensor_v2"])?;
    // State: of anything but a dictionary, and other than its versions.
    wrong(&[&good[..], b"}", &text("_metadata"), b"}sb."].concat(), &["sets attributes of a tensor"])?;
    wrong(&[b"}}", &text("__class__")[..], b"}sb."].concat(), &["sets attributes of a dictionary"])?;
    wrong(&[b"}}", &text("_metadata")[..], &text("x"), b"sb."].concat(), &["sets attributes"])?;
    wrong(&[ordered, b"}b.".to_vec()].concat(), &["sets attributes of OrderedDict"])
}

/// Shapes, strides and offsets are those of values that are there.
#[test]
fn tensors_stay_within_their_storage() -> Result<()> {
    let (big, low) = (i64::MAX, i64::MIN);
    for (offset, shape, strides) in [
        (1, &[2, 3][..], &[3, 1][..]),
        (-1, &[2], &[1]),
        (7, &[0], &[1]),
        (big, &[1], &[1]),
        (0, &[7], &[1]),
        (0, &[2, 3], &[4, 1]),
        (0, &[3, 2], &[-1, 1]),
        (5, &[6], &[-1]),
        (0, &[2, 2], &[big, big]),
        (0, &[big], &[0]),
        (0, &[1 << 40], &[0]),
        (0, &[1 << 32, 1 << 32], &[0, 0]),
        (0, &[big, big, 0], &[0, 0, 0]),
        (0, &[-2, -3], &[3, 1]),
        (0, &[low], &[1]),
        (0, &[0], &[-1]),
        (0, &[6], &[]),
        (0, &[], &[1]),
        (0, &[2, 3], &[1]),
    ] {
        let program = dict(&[("w", tensor(floats(), offset, shape, strides))]);
        wrong(&program, &["makes a tensor", &format!("offset {offset}"), "6 values in `data/0`"])?;
    }
    wrong(&dict(&[("w", tensor(floats(), 0, &[1; 65], &[1; 65]))]), &["makes a tensor"])?;
    wrong(&dict(&[("w", tensor(text("0"), 0, &[6], &[1]))]), &["otherwise than of a storage"])?;
    // Expanded and overlapping views of what is there are well.
    run(&dict(&[
        ("w", tensor(floats(), 0, &[1, 6], &[0, 1])),
        ("v", tensor(floats(), 0, &[2, 3], &[1, 1])),
    ]))??;
    Ok(())
}

#[test]
fn storages_are_those_of_the_zip() -> Result<()> {
    let with =
        |kind: &str, key: &str, numel: i64| dict(&[("w", tensor(storage(kind, key, numel), 0, &[1], &[1]))]);
    for numel in [0, 5, 7, -1, i64::MAX] {
        wrong(
            &with("FloatStorage", "0", numel),
            &["`data/0` has 24 bytes", &format!("{numel} values of Float")],
        )?;
    }
    wrong(&with("LongStorage", "0", 6), &["24 bytes", "Int64"])?;
    for key in ["1", "../data.pkl", "", "\u{1b}"] {
        wrong(&with("FloatStorage", key, 6), &["names the bytes `data/", "not there"])?;
    }
    for id in [&b"\x80\x02)Q."[..], b"\x80\x02K\x01Q.", b"\x80\x02]Q."] {
        wrong(id, &["('storage', type, key, location, numel)"])?;
    }
    // The bytes of floats are no truth values.
    let bools = dict(&[("w", tensor(storage("BoolStorage", "0", 24), 0, &[24], &[1]))]);
    wrong(&bools, &["tensor `w`", "neither true nor false"])
}

#[test]
fn what_is_on_top() -> Result<()> {
    let good = || tensor(floats(), 0, &[6], &[1]);
    let one = |name: &str, value: &[u8]| dict(&[(name, value.to_vec())]);
    wrong(&one("lr", b"G\0\0\0\0\0\0\0\0"), &["`lr`", "a number and no tensor"])?;
    let nested = [b"}", &text("w")[..], &good(), b"s"].concat();
    wrong(&one("model", &nested), &["`model`", "a dictionary", "checkpoint of training", "w['model']"])?;
    wrong(&dict(&[("w", good()), ("w", good())]), &["two tensors called `w`"])?;
    wrong(&[b"\x80\x02}K\x01", &good()[..], b"s."].concat(), &["a key that is a number"])?;
    for top in [&b"\x80\x02]."[..], b"\x80\x02N.", b"\x80\x02)."] {
        wrong(top, &["no dictionary of weights"])?;
    }
    wrong(b"\x80\x02}.}", &["behind its end"])?;
    wrong(b"\x80\x02}}.", &["values that nothing takes"])?;
    wrong(b"\x80\x02(}.", &["values that nothing takes"])
}

/// Programs that would be deep, large or endless.
#[test]
fn bombs() -> Result<()> {
    let many = |code: &[u8], n: usize, end: &[u8]| [&b"\x80\x04"[..], &code.repeat(n), end].concat();
    // A tuple in a tuple in a tuple, a million times: dropping it must not recurse.
    wrong(&many(b"\x85", 1_000_000, b"."), &["a value that is not there"])?;
    wrong(
        &many(b"", 0, &[&b")"[..], &b"\x85".repeat(1_000_000), b"."].concat()),
        &["a tuple and no dictionary"],
    )?;
    // A list of lists twice as long, thirty times; a list in itself.
    wrong(&many(b"", 0, &[&b")q\0"[..], &b"h\0h\0\x86q\0".repeat(30), b"."].concat()), &["nothing takes"])?;
    wrong(b"\x80\x02]q\0h\0a.", &["a list and no dictionary"])?;
    wrong(&many(b"(", 1_000_000, b"t."), &["a tuple and no", "nothing takes"][1..])?;
    wrong(&many(b"]", 5_000_000, b"."), &["more than 4194304 instructions"])?;
    wrong(&many(b"\x94", 10, b"."), &["not there"])?;
    wrong(b"\x80\x02j\xff\xff\xff\xff.", &["recalls value 4294967295"])?;
    wrong(b"\x80\x02X\xff\xff\xff\xffabc.", &["cut off"])?;
    wrong(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.", &["cut off"])?;
    wrong(b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff}.", &["cut off"])?;
    wrong(b"\x80\x02\x8a\xff.", &["cut off"])?;
    wrong(&[&b"\x80\x02\x8a\x09"[..], &[1; 9], b"."].concat(), &["a number of 9 bytes"])?;
    wrong(b"\x80\x02X\x02\0\0\0\xff\xfe.", &["a text that is none"])?;
    wrong(b"\x80\x01}.", &["protocol 1"])?;
    // Many tensors that are all the same bytes.
    let names: Vec<String> = (0..200).map(|i| format!("w{i}")).collect();
    let one = || tensor(storage("FloatStorage", "0", 65536), 0, &[65536], &[1]);
    let program = dict(&names.iter().map(|name| (name.as_str(), one())).collect::<Vec<_>>());
    let bytes = zip(&[("a/data.pkl", &program), ("a/data/0", &vec![0; 65536 * 4])])?;
    let (_dir, path) = file(&bytes)?;
    refused("shared", tensors::read(&path), &["more than 16 times its size"])?;
    Ok(())
}

/// Zips that are not as `torch.save` writes them.
#[test]
fn other_zips() -> Result<()> {
    let program = dict(&[("w", tensor(floats(), 0, &[6], &[1]))]);
    let program = program.as_slice();
    let zipped = |files: &[(&str, &[u8])], parts: &[&str]| {
        let (_dir, path) = file(&zip(files)?)?;
        refused(&format!("{files:?}"), tensors::read(&path), &[parts, &["pytorch_model.bin"]].concat())
    };
    let pickle = ("a/data.pkl", program);
    zipped(&[("a/version", b"3")], &["no `a/data.pkl`"])?;
    zipped(&[pickle], &["`data/0`", "not there"])?;
    zipped(
        &[pickle, ("a/data/0", &[0; 24]), ("a/run.py", b"")],
        &["`a/run.py`", "none of a pickle of weights"],
    )?;
    zipped(&[pickle, ("a/data/x", &[0; 24])], &["`a/data/x`"])?;
    zipped(&[pickle, ("b/data/0", &[0; 24])], &["two folders", "`a`", "`b`"])?;
    zipped(&[pickle, pickle], &["two files `a/data.pkl`"])?;
    zipped(&[pickle, ("a/data/0", &[0; 24]), ("a/byteorder", b"big")], &["byte order", "little"])?;
    zipped(&[pickle, ("a/constants.pkl", b"")], &["TorchScript"])?;
    zipped(&[pickle, ("a/code/x.py", b"")], &["TorchScript"])?;
    // The files beside can be missing.
    let (_dir, path) = file(&zip(&[pickle, ("a/data/0", &[0; 24])])?)?;
    ensure!(tensors::read(&path)?.len() == 1);

    let bytes = weights(program)?;
    let at = |what: &[u8]| bytes.windows(what.len()).position(|w| w == what).unwrap_or_default();
    let changed = |at: usize, to: &[u8], parts: &[&str]| {
        let mut bytes = bytes.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        let (_dir, path) = file(&bytes)?;
        refused(&format!("{parts:?}"), tensors::read(&path), parts)
    };
    let central = at(b"PK\x01\x02");
    changed(central + 10, &[8], &["`a/data.pkl` compressed"])?;
    changed(central + 8, &[1], &["`a/data.pkl` compressed or encrypted"])?;
    changed(at(&5f32.to_le_bytes()), &[1], &["tensor `w`", "`a/data/0`", "checksum"])?;
    changed(at(b"FloatStorage"), b"X", &["`a/data.pkl`", "checksum"])?;
    Ok(())
}
