//! What cannot be drawn is an error that says where and why.

mod common;

use common::*;
use peft_plot::*;

fn fails(panel: Panel, expected: &str) {
    let error = one(panel).svg().unwrap_err().to_string();
    assert_eq!(error, expected);
}

#[test]
fn nothing_to_draw() {
    for rows in [vec![], vec![vec![]], vec![vec![Panel::Bars(bars(&[1.0]))], vec![]]] {
        let empty = Figure { title: "empty".into(), rows, note: None };
        assert_eq!(empty.svg().unwrap_err().to_string(), "figure `empty` has a row without panels");
    }
    fails(Panel::Bars(bars(&[])), "panel `bars`: no categories or no groups of bars");
    fails(
        Panel::Bars(Bars { groups: vec![], ..bars(&[1.0]) }),
        "panel `bars`: no categories or no groups of bars",
    );
    fails(Panel::Lines(Lines { series: vec![], ..lines(&[]) }), "panel `lines`: no curves");
    fails(Panel::Lines(lines(&[])), "panel `lines`: curve `s` has no points");
    fails(Panel::Points(points(&[])), "panel `points`: no points");
    fails(Panel::Heat(heat(&[])), "panel `heat`: no cells");
    fails(Panel::Heat(heat(&[&[]])), "panel `heat`: no cells");
}

#[test]
fn lengths_that_differ() {
    let changed = |change: &dyn Fn(&mut BarGroup)| {
        let mut bars = bars(&[1.0, 2.0]);
        change(&mut bars.groups[0]);
        Panel::Bars(bars)
    };
    fails(changed(&|g| g.values.truncate(1)), "panel `bars`: group `g` has 1 values for 2 categories");
    fails(changed(&|g| g.errors = Some(vec![])), "panel `bars`: group `g` has 0 errors for 2 categories");
    fails(
        changed(&|g| g.labels = Some(vec!["a".into(); 3])),
        "panel `bars`: group `g` has 3 labels for 2 categories",
    );
    let mut curve = lines(&[(0.0, 1.0), (1.0, 1.0)]);
    curve.series[0].band = Some(vec![0.1]);
    fails(Panel::Lines(curve), "panel `lines`: the band of curve `s` has 1 values for 2 points");
    fails(Panel::Heat(heat(&[&[1.0, 2.0], &[3.0]])), "panel `heat`: row 1 has 1 values, the first one 2");
}

#[test]
fn numbers_that_cannot_be_drawn() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 1e-300] {
        let drawn = format!("{value}, which cannot be drawn");
        fails(Panel::Bars(bars(&[value])), &format!("panel `bars`: `c0` of group `g` is {drawn}"));
        fails(
            Panel::Lines(lines(&[(value, 1.0)])),
            &format!("panel `lines`: x of point 0 of curve `s` is {drawn}"),
        );
        fails(
            Panel::Lines(lines(&[(1.0, value)])),
            &format!("panel `lines`: y of point 0 of curve `s` is {drawn}"),
        );
        fails(Panel::Points(points(&[(value, 1.0)])), &format!("panel `points`: x of `p0` is {drawn}"));
        fails(Panel::Points(points(&[(1.0, value)])), &format!("panel `points`: y of `p0` is {drawn}"));
        fails(Panel::Heat(heat(&[&[1.0, value]])), &format!("panel `heat`: row 0, column 1 is {drawn}"));

        let mut with_error = bars(&[1.0]);
        with_error.groups[0].errors = Some(vec![value]);
        fails(Panel::Bars(with_error), &format!("panel `bars`: the error of `c0` of group `g` is {drawn}"));
        let mut banded = lines(&[(1.0, 1.0)]);
        banded.series[0].band = Some(vec![value]);
        fails(Panel::Lines(banded), &format!("panel `lines`: the band at point 0 of curve `s` is {drawn}"));
        let mut sized = points(&[(1.0, 1.0)]);
        sized.points[0].area = value;
        fails(Panel::Points(sized), &format!("panel `points`: the area of `p0` is {drawn}"));
        let mut ranged = bars(&[1.0]);
        ranged.y = axis("y", false, Some((0.0, value)));
        fails(Panel::Bars(ranged), &format!("panel `bars`: the range of `y` is {drawn}"));
    }
}

#[test]
fn below_zero() {
    let mut with_error = bars(&[1.0]);
    with_error.groups[0].errors = Some(vec![-1.0]);
    fails(Panel::Bars(with_error), "panel `bars`: the error of `c0` of group `g` is -1, below zero");
    let mut sized = points(&[(1.0, 1.0)]);
    sized.points[0].area = -2.0;
    fails(Panel::Points(sized), "panel `points`: the area of `p0` is -2, below zero");
    let mut banded = lines(&[(1.0, 1.0)]);
    banded.series[0].band = Some(vec![-0.5]);
    fails(Panel::Lines(banded), "panel `lines`: the band at point 0 of curve `s` is -0.5, below zero");
}

#[test]
fn logarithms() {
    let log = axis("log", true, None);
    let above = "and a logarithmic axis starts above zero";
    let bar = Bars { y: log.clone(), ..bars(&[1.0, 0.0]) };
    fails(Panel::Bars(bar), &format!("panel `bars`: `c1` of group `g` is 0, {above}"));
    let curve = Lines { x: log.clone(), ..lines(&[(0.0, 1.0), (1.0, 1.0)]) };
    fails(Panel::Lines(curve), &format!("panel `lines`: x of point 0 of curve `s` is 0, {above}"));
    let point = Points { y: log, ..points(&[(1.0, -1.0)]) };
    fails(Panel::Points(point), &format!("panel `points`: y of `p0` is -1, {above}"));
    let range = Lines { x: axis("x", true, Some((0.0, 1.0))), ..lines(&[(1.0, 1.0)]) };
    fails(Panel::Lines(range), "panel `lines`: `x`: a logarithmic axis cannot go from 0 to 1");
}

#[test]
fn ranges() {
    let backwards = Lines { y: axis("y", false, Some((1.0, 1.0))), ..lines(&[(1.0, 1.0)]) };
    fails(Panel::Lines(backwards), "panel `lines`: `y`: an axis cannot go from 1 to 1");
    let high = Bars { y: axis("y", false, Some((0.0, 1.0))), ..bars(&[1.5]) };
    fails(Panel::Bars(high), "panel `bars`: `c0` of group `g` is 1.5, outside of the axis from 0 to 1");
    let left = Points { x: axis("x", false, Some((0.0, 1.0))), ..points(&[(-1.0, 0.0)]) };
    fails(Panel::Points(left), "panel `points`: x of `p0` is -1, outside of the axis from 0 to 1");
    let unseen = Lines { x: axis("x", false, Some((5.0, 6.0))), ..lines(&[(1.0, 1.0), (2.0, 2.0)]) };
    fails(Panel::Lines(unseen), "panel `lines`: there is nothing to draw");
    let colours = Heat { range: Some((1.0, 0.0)), ..heat(&[&[1.0]]) };
    fails(Panel::Heat(colours), "panel `heat`: colours cannot go from 1 to 0");
}

#[test]
fn matrices() {
    let row = vec![0.0; 300];
    let large = Heat { rows: vec![row; 300], ..heat(&[]) };
    fails(Panel::Heat(large), "panel `heat`: 300 × 300 cells are more than 256 × 256");
    for at in [0, 2] {
        let divided = Heat { divider: Some((at, "a".into(), "b".into())), ..heat(&[&[1.0, 2.0]]) };
        fails(
            Panel::Heat(divided),
            &format!("panel `heat`: a divider before column {at} is not inside of 2 columns"),
        );
    }
}

#[test]
fn letters_that_no_file_may_hold() {
    let bell = Bars { x: "a\u{7}b".into(), ..bars(&[1.0]) };
    fails(Panel::Bars(bell), "panel `bars`: \"a\\u{7}b\" has the character '\\u{7}', which cannot be drawn");
}
