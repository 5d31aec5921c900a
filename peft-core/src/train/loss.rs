//! Losses: what a training makes small.

use crate::error::{Error, Result};
use crate::seam::outside;
use tch::{Device, Kind, Reduction, Tensor};

/// The label of what does not count.
const MASKED: i64 = -100;

/// Mean cross entropy of `logits` `[batch, classes]` against class numbers `[batch]`; rows of the class −100 do not count.
///
/// # Errors
/// Classes that the logits do not have, and none that counts. On the CPU alone: elsewhere looking would make the device
/// wait, and there the loss is NaN where none counts.
pub fn cross_entropy(logits: &Tensor, classes: &Tensor) -> Result<Tensor> {
    check(logits, classes)?;
    Ok(logits.f_cross_entropy_loss(classes, None::<Tensor>, Reduction::Mean, MASKED, 0.0)?)
}

/// Mean cross entropy of a causal model: `logits` `[batch, virtual tokens + length, vocab]` at each token against the
/// next one of `labels` `[batch, length]`. Labels of −100 do not count, nor do a prompt's virtual tokens.
///
/// # Errors
/// What [`cross_entropy`] refuses, and labels of another length than the logits'.
pub fn next_token_loss(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let (_, t, vocab) = logits.size3()?;
    let length = labels.size2()?.1;
    let Some(prompt) = t.checked_sub(length).filter(|p| *p >= 0 && length > 0) else {
        return Err(Error::Input(format!("{length} labels a row for logits of {t} tokens")));
    };
    // The first real token is predicted by the last virtual one, which PEFT's labels have, too.
    let (from, first) = (prompt.saturating_sub(1).max(0), i64::from(prompt == 0));
    let targets = labels.f_narrow(1, first, length.saturating_sub(first))?;
    let logits = logits.f_narrow(1, from, targets.size2()?.1)?;
    cross_entropy(&logits.f_reshape([-1, vocab])?, &targets.f_reshape([-1])?)
}

/// That there is a logit for every class, and a class that counts.
fn check(logits: &Tensor, classes: &Tensor) -> Result<()> {
    let (&[rows, count], &[n]) = (logits.size().as_slice(), classes.size().as_slice()) else {
        let (logits, classes) = (logits.size(), classes.size());
        let message = format!(
            "logits of shape {logits:?} and classes of shape {classes:?}, expected [batch, classes] and [batch]"
        );
        return Err(Error::Input(message));
    };
    if rows != n {
        return Err(Error::Input(format!("{n} classes for {rows} rows of logits")));
    }
    if classes.kind() != Kind::Int64 {
        return Err(Error::Input(format!(
            "classes are numbers of dtype Int64, and not of {:?}",
            classes.kind()
        )));
    }
    if classes.device() != Device::Cpu {
        return Ok(());
    }
    let counted = classes.f_masked_select(&classes.f_ne(MASKED)?)?;
    if counted.numel() == 0 {
        let message =
            "every label is -100, so that none counts: there is no loss (was the text cut to its prompt?)";
        return Err(Error::Input(message.into()));
    }
    match outside(&counted, count)? {
        Some(class) => {
            let last = count.saturating_sub(1);
            let message = format!("label {class} is none of the model's {count} classes, 0 to {last}");
            Err(Error::Input(message))
        }
        None => Ok(()),
    }
}
