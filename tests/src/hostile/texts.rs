//! Recipes, rows and chat templates.

use crate::golden;
use crate::hostile::cases::{Kind, raw};
use crate::hostile::json;
use crate::random::Random;
use serde_json::Value;

/// A recipe, changed. What would train for long is said on the command line.
pub fn recipe(text: &str, random: &mut Random) -> Vec<u8> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    match random.below(8) {
        0 => return raw(text.as_bytes().to_vec(), random),
        1 => return "a = [".repeat(50_000).into_bytes(),
        2 => return format!("{text}{}", "[a.b.c]\n".repeat(3)).into_bytes(),
        _ => {}
    }
    for _ in 0..=random.below(3) {
        let at = random.below(lines.len());
        let name = lines[at].split(" = ").next().unwrap_or_default().to_owned();
        // Several seeds are several trainings.
        if name == "seeds" || name.is_empty() || name.starts_with('[') {
            continue;
        }
        match random.below(6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, format!("{name}s = 1")),
            2 => {
                let twice = lines[at].clone();
                lines.insert(at, twice);
            }
            3 => {
                lines[at] = format!(
                    "{name} = {}",
                    random.of(&["nan", "-inf", "1979-05-27", "0x7fffffffffffffff", "'''"])
                )
            }
            _ => lines[at] = format!("{name} = {}", toml(&json::value(random))),
        }
    }
    lines.join("\n").into_bytes()
}

fn toml(value: &Value) -> String {
    match value {
        Value::Null => "[{}]".into(),
        Value::Object(_) => "{ a = 1 }".into(),
        other => other.to_string(),
    }
}

/// Rows of data, changed.
pub fn rows(text: Vec<u8>, kind: Kind, array: bool, random: &mut Random) -> Vec<u8> {
    if kind == Kind::Table {
        return match random.below(6) {
            0 => b"text,label\n\"the cat".to_vec(),
            1 => b"text,label\nthe cat\n\n,,,,\n".to_vec(),
            2 => format!("{}\n", "text,".repeat(50_000)).into_bytes(),
            3 => format!("text,label\n{},a\n", "the ".repeat(100_000)).into_bytes(),
            _ => raw(text, random),
        };
    }
    let mut rows: Vec<Value> =
        text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    match random.below(10) {
        0 => return raw(text, random),
        1 => return [text, b"{\"text\": \"\\ud800\", \"label\": \"a\"}\n".to_vec()].concat(),
        2 => return [text, b"{\"text\": ".repeat(20_000)].concat(),
        3 => return [b"\xef\xbb\xbf".to_vec(), text].concat(),
        4 => {
            let long = "the cat ".repeat(50_000);
            let at = random.below(rows.len());
            rows[at] = match kind {
                Kind::Chats => serde_json::json!({ "messages": [{ "role": "user", "content": long },
                    { "role": "assistant", "content": "a" }] }),
                _ => serde_json::json!({ "text": long, "label": "a" }),
            };
        }
        5 => rows = vec![json::value(random)],
        _ => {
            for _ in 0..=random.below(3) {
                let at = random.below(rows.len());
                json::at_random(&mut rows[at], random);
            }
        }
    }
    match array {
        true => Value::Array(rows).to_string().into_bytes(),
        false => rows.iter().flat_map(|row| format!("{row}\n").into_bytes()).collect(),
    }
}

/// Chat templates that never end, want all memory, call what is not there; and sound ones, changed.
pub fn template(random: &mut Random) -> String {
    let evil = [
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'a' * 1000000000 }}",
        "{{ ('a' * 100000) * 100000 }}",
        "{{ [0] * 1000000000 }}",
        "{{ range(99999) | list | tojson }}{{ range(99999) | list | tojson }}",
        "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(s=['a']) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(s=['a']) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s | tojson }}",
        "{% set ns = namespace(s=['a']) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s | join }}",
        "{% set ns = namespace(s='a') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(s='aa') %}{% for i in range(40) %}{% set ns.s = ns.s.replace('a', 'aaaa') %}{% endfor %}",
        "{% set ns = namespace(s='a,a') %}{% for i in range(40) %}{% set ns.s = ns.s.split(',') | join(ns.s) %}{% endfor %}",
        "{{ 'x' | center(1000000000) }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'x' | indent(1000000000) }}",
        "{{ messages | tojson(indent=1000000000) }}",
        "{{ 2 ** 100000000 }}",
        "{{ 9223372036854775807 + 1 }}{{ -9223372036854775807 - 5 }}",
        "{{ 1 // 0 }}{{ 1 % 0 }}{{ 1 / 0 }}",
        "{{ 'abc'[9223372036854775807:-9223372036854775808:-1] }}",
        "{{ messages[-99999999999999999999] }}",
        "{{ range(0, 10, 0) | list }}",
        "{{ range(-9223372036854775807, 9223372036854775807) | length }}",
        "{% include 'other' %}",
        "{% extends 'default' %}",
        "{% include 'chat_template' %}",
        "{% import 'default' as x %}{{ x.f() }}",
        "{{ raise_exception('no\nway\u{1b}[2J') }}",
        "{{ raise_exception(messages) }}",
        "{{ strftime_now('%' * 100000) }}",
        "{{ strftime_now('%Q%q%') }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{% generation %}{% generation %}{% endgeneration %}",
        "{% endgeneration %}{{ messages }}",
        "{% set messages = 1 %}{{ messages.x.y.z }}",
        "{{",
        "{% if",
        "{% for x in %}",
        "",
    ];
    let deep =
        |open: &str, close: &str, n: usize| format!("{{{{ {}1{} }}}}", open.repeat(n), close.repeat(n));
    match random.below(74) {
        n @ 0..=45 => evil[n.min(evil.len() - 1)].to_owned(),
        46 => deep("(", ")", 100_000),
        47 => deep("[", "]", 100_000),
        48 => deep("-", "", 100_000),
        49 => deep("not ", "", 100_000),
        50 => "{% if 1 %}".repeat(50_000),
        51 => format!("{{{{ 1{} }}}}", " + 1".repeat(200_000)),
        52 => format!("{{{{ a{} }}}}", ".a".repeat(200_000)),
        53 => format!("{{{{ a{} }}}}", "|e".repeat(200_000)),
        54 => format!("{{{{ 'a'{} }}}}", " ~ 'a'".repeat(100_000)),
        55 => format!("{{{{ 1{} }}}}", " ** 1".repeat(100_000)),
        56 => format!("{{{{ {}1 }}}}", "1 if 1 else ".repeat(100_000)),
        _ => {
            let sound = std::fs::read(golden("text/chatml/chat_template.jinja")).unwrap_or_default();
            String::from_utf8_lossy(&raw(sound, random)).into_owned()
        }
    }
}
