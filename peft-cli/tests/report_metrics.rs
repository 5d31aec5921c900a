//! What is kept of a run while it goes on: lines of JSON and TensorBoard's records, over kills and resumes.

use peft_cli::watch::{Event, Log, METRICS, Pace, Span, Step, TENSORBOARD, events};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

fn step(step: u64, loss: f64) -> Event {
    let (epoch, lr) = (step as f64 / 10.0, 1e-3 / step as f64);
    Event::Step(Step {
        step,
        epoch,
        loss,
        lr,
        grad_norm: Some(0.5),
        tokens: 512,
        learned: 100,
        seconds: 0.25,
        memory: Some(1 << 30),
    })
}

fn eval(step: u64, loss: f64) -> Event {
    let figures = [("accuracy".to_owned(), 0.75), ("f1".to_owned(), 0.5)].into();
    Event::Eval { step, epoch: 0.5, loss, figures, seconds: 1.5 }
}

/// One scalar of TensorBoard's: tag, update, value.
type Scalar = (String, u64, f32);

/// TensorBoard's records as its reader takes them: checksums hold; a session that starts takes away what older files have
/// from its update on; a last record that is cut short ends its file.
fn scalars(run: &Path) -> Vec<Scalar> {
    let mut files: Vec<_> = fs::read_dir(run.join(TENSORBOARD)).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let mut rest = bytes.as_slice();
        let mut number = 0;
        while let Some((event, tail)) = record(rest) {
            rest = tail;
            let fields = fields(event);
            assert!(matches!(fields[0], (1, Field::Eight(time)) if f64::from_bits(time) > 1.7e9));
            let step =
                fields.iter().find_map(|f| if let (2, Field::Number(n)) = f { Some(*n) } else { None });
            let step = step.unwrap_or(0);
            match (number, &fields.last().unwrap()) {
                (0, (3, Field::Bytes(version))) => assert_eq!(*version, b"brain.Event:2"),
                (1, (7, Field::Bytes(b"\x08\x01"))) => all.retain(|(_, at, _)| *at < step),
                (2.., (5, Field::Bytes(summary))) => {
                    for (field, value) in self::fields(summary) {
                        let Field::Bytes(value) = value else { panic!("{value:?}") };
                        let value = self::fields(value);
                        let [(1, Field::Bytes(tag)), (2, Field::Four(bits))] = value[..] else {
                            panic!("{value:?}")
                        };
                        assert_eq!(field, 1);
                        all.push((String::from_utf8(tag.to_vec()).unwrap(), step, f32::from_bits(bits)));
                    }
                }
                other => panic!("{other:?}"),
            }
            number += 1;
        }
    }
    all
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let sum = |bytes: &[u8]| {
        let crc = bytes.iter().fold(!0_u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(c & 1)))
        });
        (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
    };
    let (length, rest) = bytes.split_at_checked(8)?;
    let (check, rest) = rest.split_at_checked(4)?;
    assert_eq!(sum(length).to_le_bytes(), check);
    let (event, rest) = rest.split_at_checked(u64::from_le_bytes(length.try_into().unwrap()) as usize)?;
    let (check, rest) = rest.split_at_checked(4)?;
    assert_eq!(sum(event).to_le_bytes(), check);
    Some((event, rest))
}

#[derive(Debug, Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Eight(u64),
    Four(u32),
    Bytes(&'a [u8]),
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(n);
        *bytes = rest;
        taken
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Eight(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
            2 => {
                let n = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, n))
            }
            5 => Field::Four(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap())),
            kind => panic!("kind {kind}"),
        };
        found.push((key >> 3, value));
    }
    found
}

fn of(all: &[Scalar], tag: &str) -> Vec<(u64, f32)> {
    all.iter().filter(|(t, ..)| t == tag).map(|(_, step, value)| (*step, *value)).collect()
}

#[test]
fn every_event_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let all = [
        Event::Sample { step: 0, prompt: "Say\n\"hi\"".into(), before: None, text: "…\u{1f600}".into() },
        step(1, 3.0),
        step(2, 2.5),
        eval(2, 2.75),
        Event::Note { step: 2, text: "batch halved to 4".into() },
        Event::Sample { step: 2, prompt: "p".into(), before: Some("b".into()), text: "a".into() },
    ];
    let (mut log, warnings) = Log::open(dir.path(), None).unwrap();
    assert!(warnings.is_empty());
    for (i, event) in all.iter().enumerate() {
        log.record(event).unwrap();
        // It is there at once, whatever becomes of the process.
        assert_eq!(events(dir.path()).unwrap(), (all[..=i].to_vec(), vec![]));
    }
    log.sync().unwrap();
    let text = fs::read_to_string(dir.path().join(METRICS)).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&line["event"], &line["loss"], &line["step"]), (&"step".into(), &3.0.into(), &1.into()));

    let board = scalars(dir.path());
    assert_eq!(of(&board, "train/loss"), [(1, 3.0), (2, 2.5)]);
    assert_eq!(of(&board, "train/lr"), [(1, 1e-3), (2, 5e-4)]);
    assert_eq!(of(&board, "train/grad_norm"), [(1, 0.5), (2, 0.5)]);
    assert_eq!(of(&board, "train/tokens_per_second"), [(1, 2048.0), (2, 2048.0)]);
    assert_eq!(of(&board, "eval/loss"), [(2, 2.75)]);
    assert_eq!(of(&board, "eval/accuracy"), [(2, 0.75)]);
    assert_eq!(of(&board, "eval/f1"), [(2, 0.5)]);
}

#[test]
fn a_run_that_goes_on_forgets_what_it_does_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), None).unwrap();
    for i in 1..=7 {
        log.record(&step(i, i as f64)).unwrap();
        if i % 2 == 0 {
            log.record(&eval(i, i as f64)).unwrap();
        }
    }
    drop(log);
    for (resumed, loss) in [(4, 40.0), (5, 50.0), (5, 60.0), (0, 70.0)] {
        let (mut log, warnings) = Log::open(dir.path(), Some(resumed)).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let (kept, _) = events(dir.path()).unwrap();
        assert!(kept.iter().all(|e| e.step() <= resumed));
        assert_eq!(kept.iter().filter(|e| matches!(e, Event::Step(_))).count() as u64, resumed);
        assert_eq!(kept.iter().filter(|e| matches!(e, Event::Eval { .. })).count() as u64, resumed / 2);
        log.record(&step(resumed + 1, loss)).unwrap();
        log.record(&step(resumed + 2, loss)).unwrap();

        let lines: Vec<(u64, f32)> = events(dir.path()).unwrap().0.iter().filter_map(loss_of).collect();
        assert_eq!(lines.len() as u64, resumed + 2);
        assert_eq!(of(&scalars(dir.path()), "train/loss"), lines);
    }
    // One that begins again forgets all of it.
    drop(Log::open(dir.path(), None).unwrap());
    assert_eq!(events(dir.path()).unwrap(), (vec![], vec![]));
    assert_eq!(scalars(dir.path()), []);
}

fn loss_of(event: &Event) -> Option<(u64, f32)> {
    if let Event::Step(s) = event { Some((s.step, s.loss as f32)) } else { None }
}

#[test]
fn killed_at_any_byte_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), None).unwrap();
    for i in 1..=3 {
        log.record(&step(i, 0.1 * i as f64)).unwrap();
    }
    drop(log);
    let path = dir.path().join(METRICS);
    let whole = fs::read(&path).unwrap();
    let board = fs::read_dir(dir.path().join(TENSORBOARD)).unwrap().next().unwrap().unwrap().path();
    let records = fs::read(&board).unwrap();
    for cut in (0..=whole.len()).step_by(7) {
        fs::remove_dir_all(dir.path().join(TENSORBOARD)).unwrap();
        fs::create_dir(dir.path().join(TENSORBOARD)).unwrap();
        fs::write(&path, &whole[..cut]).unwrap();
        fs::write(&board, &records[..cut * records.len() / whole.len()]).unwrap();
        let lines = whole[..cut].iter().filter(|b| **b == b'\n').count();

        let (mut log, warnings) = Log::open(dir.path(), Some(3)).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        log.record(&step(4, 0.4)).unwrap();
        let (found, warnings) = events(dir.path()).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(found.len(), lines + 1);
        assert_eq!(found.last(), Some(&step(4, 0.4)));
        assert_eq!(of(&scalars(dir.path()), "train/loss").last(), Some(&(4, 0.4)));
    }
}

#[test]
fn what_is_no_event_is_said_and_nothing_else_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), None).unwrap();
    log.record(&step(1, 1.0)).unwrap();
    let path = dir.path().join(METRICS);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"\0\0\0\0\n{\"event\":\"leap\",\"step\":2}\n\xff\xfe\n").unwrap();
    // The log knows its own lines only.
    drop(log);
    for resume in [false, true] {
        let warnings = match resume {
            false => events(dir.path()).unwrap().1,
            true => Log::open(dir.path(), Some(9)).unwrap().1,
        };
        let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("metrics.jsonl: line 2: is no event"), "{said:?}");
        assert!(said[1].contains("line 3") && said[1].contains("leap"), "{said:?}");
    }
    assert_eq!(events(dir.path()).unwrap(), (vec![step(1, 1.0)], vec![]));
}

#[test]
fn numbers_that_are_none_survive() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), None).unwrap();
    let figures = BTreeMap::from([("mse".to_owned(), f64::NAN)]);
    log.record(&Event::Step(Step { step: 1, loss: f64::INFINITY, ..Step::default() })).unwrap();
    log.record(&Event::Eval { step: 1, epoch: 0.0, loss: f64::NAN, figures, seconds: 0.0 }).unwrap();
    let (found, warnings) = events(dir.path()).unwrap();
    assert!(warnings.is_empty());
    assert!(matches!(&found[0], Event::Step(s) if s.loss.is_nan() && s.grad_norm.is_none()));
    assert!(
        matches!(&found[1], Event::Eval { loss, figures, .. } if loss.is_nan() && figures["mse"].is_nan())
    );
}

#[test]
fn a_place_that_cannot_be_written_to_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = format!("{:#}", Log::open(&file, None).unwrap_err());
    assert!(error.contains("file"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

#[test]
fn the_pace_is_that_of_this_process_and_of_all_its_tokens() {
    let mut pace = Pace::new(100, 200);
    assert_eq!((pace.left(), pace.loss(), pace.speed(), pace.to_string()), (None, None, None, String::new()));
    let mut at = |n, tokens, seconds, spent| {
        let step = Step { step: n, loss: 2.0, lr: 1e-4, tokens, seconds, ..Step::default() };
        pace.step_after(&step, Duration::from_secs_f64(spent));
        pace.clone()
    };
    // The first step of a process that resumed: not 101 steps were done in 2 seconds, but one.
    assert_eq!(at(101, 1000, 1.0, 2.0).left(), Some(Duration::from_secs(198)));
    let pace = at(102, 0, 3.0, 6.0);
    assert_eq!(pace.left(), Some(Duration::from_secs(294)));
    assert!((pace.loss().unwrap() - 2.0).abs() < 1e-12);
    // Means of the speeds would be 500; these are about 1000 tokens in 4 seconds.
    let speed = pace.speed().unwrap();
    assert!((235.0..=250.0).contains(&speed), "{speed}");
    assert_eq!(pace.to_string(), format!("loss 2.0000  lr 1.00e-4  {speed:.0} tokens/s  4m 54s left"));
    assert!(!at(200, 1000, 1.0, 300.0).to_string().contains("left"));
}

#[test]
fn spans_are_for_people() {
    let said = |s| Span(Duration::from_secs_f64(s)).to_string();
    assert_eq!(
        [0.4, 59.6, 3599.0, 3600.0, 86_399.0, 180_000.0].map(said),
        ["0s", "1m 0s", "59m 59s", "1h 0m", "23h 59m", "2d 2h"]
    );
}
