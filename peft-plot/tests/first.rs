//! The first picture of a program is like all others. Alone in its file: it has to be the first.

mod common;

use common::*;
use peft_plot::*;

#[test]
fn the_first_picture_is_like_the_second() {
    let mut wide = bars(&[1.0; 9]);
    wide.categories.iter_mut().for_each(|name| *name = "intermediate".into());
    let figure = one(Panel::Bars(wide));
    assert!(figure.svg().unwrap() == figure.svg().unwrap());
}
