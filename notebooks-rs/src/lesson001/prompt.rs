//! Section 4.2, prompt tuning: trained vectors before the embedded words, `[P; E(x)]`.
//!
//! The lesson draws `P` `[tokens, hidden]` from N(0, 0.02²) or takes rows of the vocabulary. The library's
//! [`PromptTuningConfig`] starts as PEFT does: N(0, 1), drawn words, or the words of a text.

use super::text::Text;
use crate::layers::{LayersConfig, LayersPeft};
use crate::{Mistake, Page, Setting};
use anyhow::{Context, Result};
use peft_core::Pass;
use peft_core::methods::{PromptInit, PromptTuningConfig};
use peft_core::report::commas;
use peft_core::seam::Init;
use tch::{Device, Kind, Tensor};

/// Sizes of the recorded class: virtual tokens, width, vocabulary.
const TOKENS: i64 = 20;
const HIDDEN: i64 = 64;
const VOCAB: i64 = 100;
/// What section 5 starts a prompt from.
pub const INIT_TEXT: &str = "Classify the sentiment of this text: ";

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// The lesson's class twice, in the order of the recorded draws.
#[derive(Debug)]
pub struct Lesson {
    pub peft: LayersPeft,
    /// `[3, 7, hidden]`, and the same behind the prompt.
    pub x: Tensor,
    pub y: Tensor,
    /// Rows of the vocabulary.
    pub from_vocab: Tensor,
}

impl Lesson {
    pub fn new(setting: Setting) -> Result<Self> {
        tch::manual_seed(setting.seed);
        let normal = Init::Normal { std: 0.02 }.tensor(&[TOKENS, HIDDEN], setting.device)?;
        let x = Tensor::f_randn([3, 7, HIDDEN], CPU)?.f_to(setting.device)?;
        let mut peft = LayersConfig::new(HIDDEN, 1).words(VOCAB).init(setting.device)?;
        let ids = Tensor::f_randint(VOCAB, [TOKENS], (Kind::Int64, Device::Cpu))?.f_to(setting.device)?;
        let from_vocab = words(&peft)?.f_index_select(0, &ids)?;
        for (name, start) in [("normal", &normal), ("vocab", &from_vocab)] {
            peft.add_with(
                name,
                PromptTuningConfig::default(),
                [("prompt_embeddings".into(), start.f_detach_copy()?)],
            )?;
        }
        let y = peft.view(&["normal"])?.prompted(x.shallow_clone(), Pass::eval())?;
        Ok(Self { peft, x, y, from_vocab })
    }
}

/// The word embedding `[vocab, hidden]`.
fn words(peft: &LayersPeft) -> Result<Tensor> {
    peft.base().find("embed.weight").context("no word embedding")
}

fn prompt(peft: &LayersPeft, name: &str) -> Result<Tensor> {
    peft.params(name)?.find("prompt_embeddings").context("no prompt")
}

/// How many rows of a prompt are rows of the vocabulary, and how long they are on average.
fn look(peft: &LayersPeft, name: &str) -> Result<(i64, f64)> {
    let (prompt, words) = (prompt(peft, name)?, words(peft)?);
    let same = prompt.f_unsqueeze(1)?.f_eq_tensor(&words.f_unsqueeze(0)?)?.f_all_dim(2, false)?;
    let norm =
        prompt.f_square()?.f_sum_dim_intlist(1, false, Kind::Double)?.f_sqrt()?.f_mean(Kind::Double)?;
    Ok((same.f_any_dim(1, false)?.f_sum(Kind::Int64)?.f_int64_value(&[])?, f64::try_from(norm)?))
}

/// 4.2 Prompt Tuning.
pub fn run(setting: Setting, page: &mut Page) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let lesson = Lesson::new(setting)?;
    let trainable = lesson.peft.report(&["normal"])?.trainable;
    page.line(format!("Prompt parameters: {}", commas(trainable)))?;
    page.line(format!("Input shape: {:?}", lesson.x.size()))?;
    page.line(format!("Output shape: {:?}", lesson.y.size()))?;
    page.fact("trainable", trainable);

    // The same starts from the library, and one from a text, which needs the words that a tokenizer knows.
    let text = Text::new()?;
    let mut peft = LayersConfig::new(HIDDEN, 1).words(text.vocab).init(setting.device)?;
    let path = text.path().to_str().map(str::to_owned).context("the path of the tokenizer")?;
    let start = |init| PromptTuningConfig { prompt_tuning_init: init, ..PromptTuningConfig::default() };
    peft.add("random", start(PromptInit::Random))?;
    peft.add("sampled", start(PromptInit::SampleVocab))?;
    let from_text = PromptTuningConfig {
        prompt_tuning_init_text: Some(INIT_TEXT.into()),
        tokenizer_name_or_path: Some(path),
        ..start(PromptInit::Text)
    };
    peft.add("text", from_text)?;
    let mut rows = Vec::new();
    for (what, peft, name) in [
        ("the lesson's default, N(0, 0.02²)", &lesson.peft, "normal"),
        ("the lesson's init_from_vocab", &lesson.peft, "vocab"),
        ("PEFT's RANDOM, N(0, 1)", &peft, "random"),
        ("PEFT's SAMPLE_VOCAB", &peft, "sampled"),
        ("PEFT's TEXT", &peft, "text"),
    ] {
        let (same, norm) = look(peft, name)?;
        page.fact(&format!("{name}.words"), same);
        page.fact(&format!("{name}.norm"), norm);
        rows.push(vec![what.to_owned(), format!("{same} of {TOKENS}"), format!("{norm:.2}")]);
    }
    page.table("How a prompt starts", ["start", "rows that are words", "mean length of a row"], rows)?;

    let ids = text.encoder.ids(INIT_TEXT)?;
    let names = ids.iter().map(|id| text.word(*id)).collect::<Result<Vec<_>>>()?;
    page.fact("text.tokens", names.clone());
    page.mistakes(&[Mistake::new(
        "init_from_vocab=True without vocab_embeddings draws noise and says nothing",
        format!(
            "rows of length {:.2}, {} of them a word",
            look(&lesson.peft, "normal")?.1,
            look(&lesson.peft, "normal")?.0
        ),
        refused(setting)?,
    )])?;
    let (random, word) = (look(&peft, "random")?.1, look(&peft, "sampled")?.1);
    page.what_to_see(&[
        format!(
            "A prompt makes every input {TOKENS} tokens longer: {} words become {}, in every layer and for every request.",
            lesson.x.size()[1],
            lesson.y.size()[1]
        ),
        format!(
            "TEXT repeats the {} tokens of \"{}\" until the prompt is full: {}.",
            ids.len(),
            INIT_TEXT.trim(),
            names.join(" ")
        ),
        format!(
            "This embedding is N(0, 1), so PEFT's RANDOM has the words' length ({random:.1}, words {word:.1}); the embeddings of \
             trained models are often far shorter, and then it starts outside of them."
        ),
        "A prompt that starts as words can be read; after training its rows are words no more.".into(),
    ])?;
    Ok(())
}

/// What the library says to a prompt from the vocabulary over a model that has none.
fn refused(setting: Setting) -> Result<String> {
    let mut peft = LayersConfig::new(HIDDEN, 1).init(setting.device)?;
    let config = PromptTuningConfig { prompt_tuning_init: PromptInit::SampleVocab, ..Default::default() };
    let error = peft.add("prompt", config).err().context("a prompt from no vocabulary")?;
    Ok(format!("an error: {error}"))
}
