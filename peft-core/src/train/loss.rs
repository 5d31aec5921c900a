//! Losses: what a training makes small.

use crate::error::{Error, Result};
use crate::seam::outside;
use tch::{Device, Kind, Reduction, Tensor};

/// The label of what does not count.
pub(super) const MASKED: i64 = -100;

/// Mean cross entropy of `logits` `[batch, classes]` against class numbers `[batch]`; rows of the class −100 do not count.
/// Of logits in 16 bits it is computed in f32, as transformers does.
///
/// # Errors
/// Classes that the logits do not have, and none that counts. On the CPU alone: elsewhere looking would make the device
/// wait, and there the loss is NaN where none counts.
pub fn cross_entropy(logits: &Tensor, classes: &Tensor) -> Result<Tensor> {
    check(logits, classes)?;
    let logits = wide(logits)?;
    Ok(logits.f_cross_entropy_loss(classes, None::<Tensor>, Reduction::Mean, MASKED, 0.0)?)
}

/// Mean cross entropy of a causal model: `logits` `[batch, virtual tokens + length, vocab]` at each token against the
/// next one of `labels` `[batch, length]`. Labels of −100 do not count, nor do a prompt's virtual tokens.
///
/// # Errors
/// What [`cross_entropy`] refuses, and labels of another length than the logits'.
pub fn next_token_loss(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let (logits, targets) = next_tokens(logits, labels)?;
    cross_entropy(&logits, &targets)
}

/// Logits `[n, vocab]` and the tokens `[n]` that they should predict, as [`next_token_loss`] compares them.
pub(super) fn next_tokens(logits: &Tensor, labels: &Tensor) -> Result<(Tensor, Tensor)> {
    let (_, t, vocab) = logits.size3()?;
    let length = labels.size2()?.1;
    let Some(prompt) = t.checked_sub(length).filter(|p| *p >= 0 && length > 0) else {
        return Err(Error::Input(format!("{length} labels a row for logits of {t} tokens")));
    };
    // The first real token is predicted by the last virtual one, which PEFT's labels have, too.
    let (from, first) = (prompt.saturating_sub(1).max(0), i64::from(prompt == 0));
    let targets = labels.f_narrow(1, first, length.saturating_sub(first))?;
    let logits = logits.f_narrow(1, from, targets.size2()?.1)?;
    Ok((logits.f_reshape([-1, vocab])?, targets.f_reshape([-1])?))
}

/// Mean squared error of the outputs `[batch, 1]` of a head for one number, against the numbers `[batch]`.
///
/// # Errors
/// Another shape than these.
pub fn squared_error(outputs: &Tensor, numbers: &Tensor) -> Result<Tensor> {
    let (outputs_size, size) = (outputs.size(), numbers.size());
    if outputs_size.as_slice() != [size.first().copied().unwrap_or_default(), 1] || size.len() != 1 {
        let message = format!(
            "outputs of shape {outputs_size:?} and numbers of shape {size:?}, expected [batch, 1] and [batch]"
        );
        return Err(Error::Input(message));
    }
    Ok(outputs.f_squeeze_dim(1)?.f_mse_loss(numbers, Reduction::Mean)?)
}

/// In f32 at least: sums over a vocabulary in 16 bits have two or three digits.
fn wide(logits: &Tensor) -> Result<Tensor> {
    match logits.f_kind()? {
        Kind::BFloat16 | Kind::Half => Ok(logits.f_to_kind(Kind::Float)?),
        _ => Ok(logits.shallow_clone()),
    }
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
        return Err(Error::Masked { rows: Vec::new() });
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

#[cfg(test)]
mod tests {
    use super::*;

    /// In their own dtype these would be a multiple of 1/64.
    #[test]
    fn a_loss_of_16_bits_is_computed_in_32() {
        let logits = Tensor::randn([5, 300], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
        let classes = Tensor::from_slice(&[0i64, 299, 17, 4, 100]);
        let loss = cross_entropy(&logits, &classes).unwrap();
        assert_eq!(loss.kind(), Kind::Float);
        assert!(loss.equal(&cross_entropy(&logits.to_kind(Kind::Float), &classes).unwrap()));
    }
}
