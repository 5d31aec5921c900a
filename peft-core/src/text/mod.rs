//! Text for training and prediction: files of many forms, a Hub tokenizer, batches.
//!
//! | file | what it is | loss of a causal model on |
//! |---|---|---|
//! | one text a line | texts | all of it |
//! | `{"text"}`, or a string | texts | all of it |
//! | `{"prompt", "completion"}` | strings, joined as they are; or lists of messages | the completion |
//! | `{"instruction", "input", "output"}` | Alpaca, put into its [prompt](PROMPT_WITH_INPUT) | the output |
//! | `{"messages"}` with `role` and `content`, and `tools`; ShareGPT's `{"conversations"}` with `from` and `value` | chats, by the model's [`ChatTemplate`] | what the assistant writes, or what [`Learn`] says |
//! | `{"text", "label"}`, or `sentence` for `text` | texts with a class | – |
//! | `{"sentence1", "sentence2", "label"}` and GLUE's other names ([`PAIRS`]) | pairs with a class | – |
//!
//! Objects come as JSON lines, one after the other over any number of lines, in one array, or as the rows of a table (CSV,
//! TSV) whose first line names their fields. A label is a class, or a number to be learned by regression
//! ([`Dataset::numbers`]). [`Corpus`] reads what a causal
//! model learns to write, [`Dataset`] what a classifier learns, [`texts`] and [`pairs`] what is there to be predicted.
//! All is UTF-8; a byte order mark is skipped. What a file has and nothing reads is among the `warnings`.

mod answers;
mod chat;
mod corpus;
mod dataset;
mod encoded;
mod encoder;
mod label;
mod learning;
mod lengths;
mod limits;
mod messages;
mod prepare;
mod records;
mod render;
mod sequences;
mod source;
mod table;
pub(crate) mod tokenizer;

pub use answers::{Answers, Learn};
pub use chat::ChatTemplate;
pub use corpus::{Corpus, Example, Form, PROMPT, PROMPT_WITH_INPUT, texts};
pub use dataset::{Dataset, PAIRS, Row, pairs};
pub use encoded::{Encoded, Inputs};
pub use encoder::TextEncoder;
pub use lengths::bucketed;
pub use limits::Limits;
pub use prepare::{Preparation, Prepared};
pub use sequences::{Document, Sequences};
