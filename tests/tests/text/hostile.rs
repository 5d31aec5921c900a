//! Templates and tokenizers that would hang, abort or panic.

use crate::{folder, given};
use anyhow::{Context, Result};
use peft_core::text::{ChatTemplate, TextEncoder};
use serde_json::json;
use tests::{limits, refused};

fn rendered(template: &str) -> Result<peft_core::Result<String>> {
    let file = given("chat_template.jinja", template)?;
    let dir = file.as_ref().parent().context("a directory")?;
    let message = json!({ "role": "user", "content": "Hi" });
    Ok(ChatTemplate::open(dir)
        .and_then(|t| t.map_or(Ok(String::new()), |t| t.render(&[message], None, false))))
}

fn wrong(template: &str, part: &str) -> Result<()> {
    let short: String = template.chars().take(60).collect();
    refused(&short, rendered(template)?, &["chat_template.jinja", "chat template: ", part])?;
    Ok(())
}

/// Without end, beyond all memory, too deep for the stack.
#[test]
fn a_template_has_so_much_time_memory_and_depth() -> Result<()> {
    let often = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    wrong(often, "fuel")?;
    wrong("{{ 'a' * 100000000000 }}", "fuel")?;
    let doubled =
        "{% set ns = namespace(s=START) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}";
    wrong(&format!("{doubled}{{{{ ns.s }}}}").replace("START", "'a'"), "fuel")?;
    wrong(&format!("{doubled}{{{{ ns.s | tojson }}}}").replace("START", "['a']"), "does not end")?;
    wrong("{{ messages | tojson(indent=100000000000) }}", "indent")?;
    wrong(&format!("{{{{ {}1 }}}}", "not ".repeat(100_000)), "bytes")?;
    for deep in ["not ", "-", "1 if 1 else "] {
        // As long as it may be: however deep that is, it is read or refused.
        let _ = rendered(&format!("{{{{ {}1 }}}}", deep.repeat((128 << 10) / deep.len() - 2)))?;
    }
    Ok(())
}

#[test]
fn a_post_processor_knows_its_tokens() -> Result<()> {
    let mut json = peft_core::io::read_json(folder("llama").join("tokenizer.json"))?;
    let known = json.pointer_mut("/post_processor/special_tokens").context("special_tokens")?;
    *known = json!({});
    let alone = json["post_processor"].clone();
    let several = json!({ "type": "Sequence", "processors": [alone] });
    for processor in [alone, several] {
        json["post_processor"] = processor;
        let file = given("tokenizer.json", json.to_string())?;
        let encoder = TextEncoder::open(file.as_ref().parent().context("a directory")?, limits(26, 64, 0));
        let parts = ["tokenizer.json", "post_processor.special_tokens", "`<s>`"];
        refused("a token that is not there", encoder.and_then(|e| e.ids("the cat")), &parts)?;
    }
    Ok(())
}
