//! `apply_lora_to_model`: which layers get a LoRA, and what is left trainable.

use super::lora::config;
use crate::layers::{LayersConfig, LayersPeft};
use crate::measure::row;
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::report::commas;
use peft_core::seam::{PREFIX, SiteKind};
use std::collections::BTreeMap;

/// Width of the two attentions, and classes of the head.
const D: i64 = 32;
const CLASSES: i64 = 4;
/// The lesson's default targets.
pub const TARGETS: [&str; 2] = ["q_proj", "v_proj"];

/// Two layers of q, k, v and o, and a head: all `nn.Linear` with biases.
pub fn net(setting: Setting) -> Result<LayersPeft> {
    tch::manual_seed(setting.seed);
    let mut config = LayersConfig::new(D, 1);
    for layer in 0..2 {
        for leaf in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            config = config.linear(&format!("layers.{layer}.{leaf}"), D, D, true);
        }
    }
    config.linear("head", D, CLASSES, true).init(setting.device)
}

/// The lesson's function, written by hand: a linear layer, and how often it was wrapped.
#[derive(Debug, Clone)]
pub struct ByHand {
    pub name: String,
    numel: i64,
    lora: i64,
    pub wraps: i64,
}

impl ByHand {
    /// The linear layers of a model, none of them wrapped.
    pub fn of(peft: &LayersPeft) -> Vec<Self> {
        let numels = peft.base().numels();
        let numel = |site: &str, leaf: &str| numels.get(&format!("{site}.{leaf}")).copied().unwrap_or(0);
        let linears = peft.outline().sites.iter().filter(|s| s.kind == SiteKind::Linear);
        let by_hand = |name: &String| {
            let (weight, bias) = (numel(name, "weight"), numel(name, "bias"));
            // r (out + in): the bias has `out` values, the weight `out · in`.
            let lora = config(&[]).r * (bias + weight / bias.max(1));
            Self { name: name.clone(), numel: weight + bias, lora, wraps: 0 }
        };
        linears.map(|s| by_hand(&s.name)).collect()
    }

    /// Wraps what has a target somewhere in its name. A wrapped layer's own linear is called `<name>.linear`, which has
    /// the target in its name as well.
    pub fn apply(linears: &mut [Self], targets: &[&str]) {
        for linear in linears.iter_mut().filter(|l| targets.iter().any(|t| l.name.contains(t))) {
            linear.wraps += 1;
        }
    }

    /// All parameters, and the trainable ones: wrapping freezes a layer, and nothing freezes the others.
    pub fn counts(linears: &[Self]) -> [i64; 2] {
        let sum = |f: fn(&Self) -> i64| linears.iter().map(f).sum();
        let own = |l: &Self| if l.wraps == 0 { l.numel } else { 0 };
        [sum(|l| l.numel + l.wraps * l.lora), sum(own) + sum(|l| l.wraps * l.lora)]
    }
}

/// The sites that the library adapts.
fn adapted(peft: &LayersPeft, adapter: &str) -> Result<Vec<String>> {
    let names = peft.params(adapter)?.tensors().into_keys();
    let site = |name: String| Some(name.strip_prefix(PREFIX)?.strip_suffix(".lora_A.weight")?.to_owned());
    Ok(names.filter_map(site).collect())
}

/// Both rules for one target, over layers with awkward names: what the lesson's finds, what the library's finds.
fn by_name(setting: Setting, page: &mut Page) -> Result<()> {
    const NAMES: [&str; 5] =
        ["layers.0.q_proj", "layers.0.kq_proj", "layers.0.o_proj", "q_proj_pool.dense", "layers.10.o_proj"];
    let model = NAMES.iter().fold(LayersConfig::new(D, 1), |c, name| c.linear(name, D, D, true));
    let mut peft = model.init(setting.device)?;
    let mut rows = Vec::new();
    for target in ["q_proj", "layers.1", "0.o_proj", "query"] {
        let by_part = NAMES.iter().filter(|n| n.contains(target)).copied().collect::<Vec<_>>().join(", ");
        let ours = match peft.add(target, config(&[target])) {
            Ok(()) => adapted(&peft, target)?.join(", "),
            Err(_) => "an error".into(),
        };
        rows.push(row([&target, &if by_part.is_empty() { "none".into() } else { by_part }, &ours]));
    }
    let columns = ["target", "the lesson's: anywhere in the name", "the library's: the end, from a dot on"];
    page.table("Which layers a target stands for", columns, rows)?;
    Ok(())
}

/// The counts, before and after; what is mistaken about them.
pub fn run(setting: Setting, page: &mut Page) -> Result<Vec<Mistake>> {
    let mut peft = net(setting)?;
    let mut by_hand = ByHand::of(&peft);
    let before = ByHand::counts(&by_hand);
    ByHand::apply(&mut by_hand, &TARGETS);
    let once = ByHand::counts(&by_hand);
    let left: i64 = by_hand.iter().filter(|l| l.wraps == 0).map(|l| l.numel).sum();
    ByHand::apply(&mut by_hand, &TARGETS);
    let twice = ByHand::counts(&by_hand);

    peft.add("lora", config(&TARGETS))?;
    let report = peft.report(&["lora"])?;
    let again = peft.add("lora", config(&TARGETS)).map_or_else(|e| e.to_string(), |()| "it was added".into());
    let unknown = peft.add("other", config(&["query"])).map_or_else(|e| e.to_string(), |()| "none".into());
    let wrapped = adapted(&peft, "lora")?;

    let counts = |what: &str, [all, trainable]: [i64; 2]| row([&what, &commas(all), &commas(trainable)]);
    page.table(
        "apply_lora_to_model on two attentions and a head",
        ["model", "all parameters", "trainable"],
        vec![
            counts("as it is", before),
            counts("the lesson's function, once", once),
            counts("the lesson's function, twice", twice),
            counts("the library's LoRA", [report.all, report.trainable]),
        ],
    )?;
    for (name, [all, trainable]) in [("before", before), ("once", once), ("twice", twice)] {
        page.fact(&format!("apply.{name}.all"), all);
        page.fact(&format!("apply.{name}.trainable"), trainable);
    }
    page.fact("apply.wrapped", wrapped.join(" "));
    by_name(setting, page)?;
    Ok(vec![
        Mistake::new(
            "`apply_lora_to_model` freezes the wrapped layers alone",
            format!(
                "{} of {} parameters are trainable, {} of them in layers without LoRA",
                commas(once[1]),
                commas(once[0]),
                commas(left)
            ),
            format!(
                "the base is frozen, whatever is a target: {} of {}",
                commas(report.trainable),
                commas(report.all)
            ),
        ),
        Mistake::new(
            "A second call finds `q_proj` in `q_proj.linear`, and wraps the wrapped layers",
            format!("{} parameters, {} of them trainable", commas(twice[0]), commas(twice[1])),
            format!("an adapter has a name, and a second one of that name is refused: {again}"),
        ),
        Mistake::new(
            "A target that is nowhere (`query` here) is passed over",
            {
                let mut none = ByHand::of(&peft);
                ByHand::apply(&mut none, &["query"]);
                format!(
                    "{} layers get a LoRA, and {} parameters stay trainable",
                    none.iter().filter(|l| l.wraps > 0).count(),
                    commas(ByHand::counts(&none)[1])
                )
            },
            format!("it is refused: {unknown}"),
        ),
    ])
}

/// A and B of the adapted layers, by the golden's names, and the base's tensors.
pub fn tensors(peft: &LayersPeft) -> Result<BTreeMap<String, tch::Tensor>> {
    let mut all = BTreeMap::new();
    let wrapped = adapted(peft, "lora")?;
    for (name, t) in peft.base().tensors() {
        let (site, leaf) = name.rsplit_once('.').unwrap_or_default();
        let inner = if wrapped.iter().any(|w| w == site) { ".linear" } else { "" };
        all.insert(format!("{site}{inner}.{leaf}"), t);
    }
    for (name, t) in peft.params("lora")?.tensors() {
        let name = name.trim_start_matches(PREFIX).replace(".lora_", ".lora.lora_").replace(".weight", "");
        all.insert(name, t);
    }
    Ok(all)
}
