//! What is drawn is what the numbers say.

mod common;

use common::*;
use peft_plot::*;

const BLUE: &str = "#0072B2";
const VERMILION: &str = "#D55E00";

fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 0.01 * a.abs().max(b.abs()).max(1.0), "{a} is not near {b}");
}

#[test]
fn bars_are_as_long_as_their_values() {
    let mut two = bars(&[1.0, 2.0, 4.0]);
    two.groups.push(BarGroup { name: "other".into(), values: vec![3.0, 0.0, -1.0], ..BarGroup::default() });
    let all = shapes(&one(Panel::Bars(two)).svg().unwrap());
    let heights = |colour| {
        let found: Vec<f64> =
            coloured(&all, "rect", "fill", colour).iter().map(|s| s.number("height")).collect();
        assert_eq!(found.len(), 4, "three bars and one in the legend");
        found
    };
    let (first, second) = (heights(BLUE), heights(VERMILION));
    near(first[1], 2.0 * first[0]);
    near(first[2], 4.0 * first[0]);
    near(second[0], 3.0 * first[0]);
    assert_eq!(second[1], 0.0);
    near(second[2], first[0]);
}

#[test]
fn decades_are_equally_long() {
    let mut log = bars(&[10.0, 100.0, 1000.0]);
    log.y.log = true;
    let all = shapes(&one(Panel::Bars(log)).svg().unwrap());
    let heights: Vec<f64> = coloured(&all, "rect", "fill", BLUE).iter().map(|s| s.number("height")).collect();
    assert!(heights[0] > 0.0);
    near(heights[1] - heights[0], heights[2] - heights[1]);
}

#[test]
fn labels_stand_over_their_bars_and_error_bars() {
    let mut one_group = bars(&[5.0, 1.0]);
    one_group.groups[0].errors = Some(vec![1.0, 0.5]);
    one_group.groups[0].labels = Some(vec!["first\nline".into(), "second".into()]);
    let all = shapes(&one(Panel::Bars(one_group)).svg().unwrap());
    let y = |text: &str| all.iter().find(|s| s.text == text).unwrap().number("y");
    let tops: Vec<f64> = coloured(&all, "rect", "fill", BLUE).iter().map(|s| s.number("y")).collect();
    assert!(y("first") < y("line") && y("line") < tops[0] && y("second") < tops[1]);
    // Line and two caps for each.
    let errors: Vec<_> = coloured(&all, "polyline", "stroke", "#222222");
    assert_eq!(errors.len(), 6);
    let line = errors[0].points();
    near(line[0].1 - line[1].1, 2.0 / 5.0 * coloured(&all, "rect", "fill", BLUE)[0].number("height"));
    assert!(y("line") < line[1].1, "the label is above the error bar");
}

#[test]
fn a_curve_has_all_its_points() {
    let quadratic: Vec<_> = (0..=10).map(|i| (f64::from(i), f64::from(i * i))).collect();
    let mut curve = lines(&quadratic);
    curve.series[0].name.clear();
    let all = shapes(&one(Panel::Lines(curve)).svg().unwrap());
    let found = coloured(&all, "polyline", "stroke", BLUE);
    assert_eq!(found.len(), 1);
    let drawn = found[0].points();
    assert_eq!(drawn.len(), 11);
    let unit = drawn[0].1 - drawn[1].1;
    for (i, (x, y)) in drawn.iter().enumerate() {
        near(x - drawn[0].0, i as f64 * (drawn[1].0 - drawn[0].0));
        assert!((drawn[0].1 - y - (i * i) as f64 * unit).abs() < 60.0);
    }
}

#[test]
fn each_curve_has_its_colour_and_its_entry() {
    let series = |i: usize| Series {
        name: format!("curve {i}"),
        points: vec![(0.0, i as f64), (1.0, 2.0 * i as f64)],
        band: (i == 0).then(|| vec![0.5, 0.5]),
        markers: i == 1,
        ..Series::default()
    };
    let eight = Lines { series: (0..8).map(series).collect(), ..lines(&[]) };
    let all = shapes(&one(Panel::Lines(eight)).svg().unwrap());
    let colours: std::collections::HashSet<&String> = all
        .iter()
        .filter(|s| s.tag == "polyline" && s.attributes["stroke-width"] == "20")
        .map(|s| &s.attributes["stroke"])
        .collect();
    assert_eq!(colours.len(), 8);
    for i in 0..8 {
        assert_eq!(all.iter().filter(|s| s.text == format!("curve {i}")).count(), 1);
    }
    assert_eq!(all.iter().filter(|s| s.tag == "polygon").count(), 1, "one band");
    assert_eq!(coloured(&all, "rect", "fill", VERMILION).len(), 3, "two markers and one in the legend");
}

#[test]
fn curves_stay_within_the_range() {
    let mut curve = lines(&[(0.0, 0.0), (1.0, 10.0), (2.0, 0.0)]);
    curve.y.range = Some((0.0, 5.0));
    curve.series[0].name.clear();
    curve.series[0].band = Some(vec![1.0; 3]);
    let all = shapes(&one(Panel::Lines(curve)).svg().unwrap());
    let pieces = coloured(&all, "polyline", "stroke", BLUE);
    assert_eq!(pieces.len(), 2);
    let (up, down) = (pieces[0].points(), pieces[1].points());
    assert_eq!(up[1].1, down[0].1);
    near((up[1].0 - up[0].0) / (down[1].0 - up[0].0), 0.25);
    let band = all.iter().find(|s| s.tag == "polygon").unwrap().points();
    assert!(band.iter().all(|p| (up[1].1..=up[0].1).contains(&p.1)));
}

#[test]
fn areas_of_bubbles_are_their_values() {
    let mut bubbles = points(&[(1.0, 1.0), (2.0, 3.0), (3.0, 2.0)]);
    for (point, area) in bubbles.points.iter_mut().zip([1.0, 4.0, 9.0]) {
        point.area = area;
    }
    bubbles.area = Some("memory (GB)".into());
    let all = shapes(&one(Panel::Points(bubbles)).svg().unwrap());
    let radius = |colour| coloured(&all, "circle", "fill", colour)[0].number("r");
    near(radius(VERMILION), 2.0 * radius(BLUE));
    near(radius("#009E73"), 3.0 * radius(BLUE));
    assert!(all.iter().any(|s| s.text == "area: memory (GB)"));
}

#[test]
fn colours_are_symmetric_and_the_first_row_is_on_top() {
    let all = shapes(&one(Panel::Heat(heat(&[&[2.0, 0.0, -2.0], &[1.0, -1.0, 0.0]]))).svg().unwrap());
    let cells: Vec<_> = all.iter().filter(|s| s.tag == "rect").skip(1).take(6).collect();
    let fills: Vec<&str> = cells.iter().map(|s| s.attributes["fill"].as_str()).collect();
    assert_eq!((fills[0], fills[1], fills[2], fills[5]), ("#67001F", "#FFFFFF", "#053061", "#FFFFFF"));
    assert!(cells[0].number("y") < cells[3].number("y") && cells[0].number("x") < cells[1].number("x"));
    near(cells[0].number("width"), cells[0].number("height"));
    let texts: Vec<&str> = all.iter().map(|s| s.text.as_str()).collect();
    assert!(texts.contains(&"2") && texts.contains(&"−2"), "the ends of the colour bar: {texts:?}");
}

#[test]
fn a_map_is_as_large_as_its_cells() {
    let size = |rows: usize, columns: usize| {
        let all = shapes(&one(Panel::Heat(heat(&vec![&vec![1.0; columns][..]; rows]))).svg().unwrap());
        let cells = coloured(&all, "rect", "fill", "#67001F");
        // A unit is ten steps.
        let [width, height] = ["width", "height"].map(|name| all[0].number(name) / 10.0);
        (["width", "height"].map(|name| cells[0].number(name) / 10.0), width, height)
    };
    let (cell, _, square) = size(16, 16);
    assert_eq!(cell, [20.0, 20.0]);
    let (cell, wide, low) = size(16, 26);
    assert_eq!((cell, low), ([20.0, 20.0], square), "columns make a map wider, not its cells smaller");
    assert!(wide > 26.0 * 20.0 && wide < 26.0 * 20.0 + 160.0, "{wide}");
    let (cell, narrow, high) = size(5, 8);
    assert_eq!(cell, [40.0, 40.0]);
    assert!(narrow < wide && high < low && high < 5.0 * 40.0 + 140.0, "{narrow} × {high}");
}

#[test]
fn maps_side_by_side_begin_at_one_height() {
    let plain = heat(&[&[1.0, 0.0], &[0.0, 0.0]]);
    let divided = Heat { divider: Some((1, "prefix".into(), "words".into())), ..plain.clone() };
    let rows = vec![vec![Panel::Heat(plain), Panel::Heat(divided)]];
    let svg = Figure { title: "two".into(), rows, note: None }.svg().unwrap();
    let all = shapes(&svg);
    let first: Vec<f64> = coloured(&all, "rect", "fill", "#67001F")
        .iter()
        .filter(|s| s.number("width") == 400.0)
        .map(|s| s.number("y"))
        .collect();
    assert_eq!(first.len(), 2);
    assert_eq!(first[0], first[1]);
}

#[test]
fn one_curve_needs_no_legend() {
    let entries = |lines: Lines| {
        let all = shapes(&one(Panel::Lines(lines)).svg().unwrap());
        all.iter().filter(|s| s.text == "s").count()
    };
    let mut curves = lines(&[(0.0, 0.0), (1.0, 1.0)]);
    assert_eq!(entries(curves.clone()), 0);
    curves.series.push(Series { name: "other".into(), ..curves.series[0].clone() });
    assert_eq!(entries(curves), 1);
}

#[test]
fn a_colour_that_stands_for_more_says_so() {
    let mut cut = heat(&[&[0.0, 0.5], &[0.9, 1.0]]);
    (cut.colours, cut.range, cut.divider) =
        (Colours::Sequential, Some((0.1, 0.8)), Some((1, "prefix".into(), "tokens".into())));
    let all = shapes(&one(Panel::Heat(cut)).svg().unwrap());
    let x =
        |text: &str| all.iter().find(|s| s.text == text).unwrap_or_else(|| panic!("no {text}")).number("x");
    x("≥ 0.8");
    x("≤ 0.1");
    assert!(x("prefix") < x("tokens"));
}

#[test]
fn a_faint_curve_is_behind_the_others() {
    let mut curves = lines(&[(0.0, 1.0), (1.0, 2.0)]);
    let single = Series { name: "single".into(), faint: true, ..curves.series[0].clone() };
    curves.series.push(single);
    let all = shapes(&one(Panel::Lines(curves)).svg().unwrap());
    let place =
        |colour: &str| all.iter().position(|s| s.attributes.get("stroke").is_some_and(|c| c == colour));
    assert!(place("#B8B8B8").unwrap() < place(BLUE).unwrap());
}

#[test]
fn a_small_plot_has_letters_as_large() {
    let figure = one(Panel::Lines(lines(&[(0.0, 1.0), (1.0, 2.0)])));
    let letters = |svg: &str| -> Vec<f64> {
        shapes(svg).iter().filter(|s| s.tag == "text").map(|s| s.number("font-size")).collect()
    };
    let width = |svg: &str| svg.split('"').nth(1).unwrap().parse::<f64>().unwrap();
    let (large, small) = (figure.svg().unwrap(), figure.svg_of((330.0, 220.0)).unwrap());
    assert_eq!(width(&large) - width(&small), 290.0);
    assert_eq!(letters(&small)[0], letters(&large)[0]);
    for plot in [(0.0, 220.0), (330.0, 1e9), (f64::NAN, 220.0)] {
        assert!(figure.svg_of(plot).unwrap_err().to_string().contains("should have 200"));
    }
}
