//! Small figures, and what is in an SVG.
#![allow(dead_code)]

use peft_plot::*;
use resvg::usvg::roxmltree::Document;
use std::collections::HashMap;

pub fn one(panel: Panel) -> Figure {
    Figure { title: "figure".into(), rows: vec![vec![panel]], note: None }
}

pub fn axis(label: &str, log: bool, range: Option<(f64, f64)>) -> Axis {
    Axis { label: label.into(), log, range }
}

pub fn bars(values: &[f64]) -> Bars {
    Bars {
        title: "bars".into(),
        categories: (0..values.len()).map(|i| format!("c{i}")).collect(),
        groups: vec![BarGroup { name: "g".into(), values: values.to_vec(), ..BarGroup::default() }],
        ..Bars::default()
    }
}

pub fn lines(points: &[(f64, f64)]) -> Lines {
    let series = vec![Series { name: "s".into(), points: points.to_vec(), ..Series::default() }];
    Lines { title: "lines".into(), series, ..Lines::default() }
}

pub fn points(at: &[(f64, f64)]) -> Points {
    let point =
        |(i, &(x, y)): (usize, &(f64, f64))| Point { label: format!("p{i}"), x, y, ..Point::default() };
    Points { title: "points".into(), points: at.iter().enumerate().map(point).collect(), ..Points::default() }
}

pub fn heat(rows: &[&[f64]]) -> Heat {
    Heat { title: "heat".into(), rows: rows.iter().map(|row| row.to_vec()).collect(), ..Heat::default() }
}

/// An element with its attributes.
#[derive(Debug)]
pub struct Shape {
    pub tag: String,
    pub attributes: HashMap<String, String>,
    pub text: String,
}

impl Shape {
    pub fn number(&self, name: &str) -> f64 {
        self.attributes[name].parse().unwrap()
    }

    /// The points of a curve or an area.
    pub fn points(&self) -> Vec<(f64, f64)> {
        let pair =
            |p: &str| p.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap();
        self.attributes["points"].split_whitespace().map(pair).collect()
    }
}

pub fn shapes(svg: &str) -> Vec<Shape> {
    let document = Document::parse(svg).unwrap();
    let shape = |node: resvg::usvg::roxmltree::Node| Shape {
        tag: node.tag_name().name().to_owned(),
        attributes: node.attributes().map(|a| (a.name().to_owned(), a.value().to_owned())).collect(),
        text: node.text().unwrap_or_default().trim().to_owned(),
    };
    document.root_element().children().filter(|node| node.is_element()).map(shape).collect()
}

/// The elements of a kind that are filled, or drawn, with a colour.
pub fn coloured<'a>(shapes: &'a [Shape], tag: &str, attribute: &str, colour: &str) -> Vec<&'a Shape> {
    let has = |s: &&Shape| s.tag == tag && s.attributes.get(attribute).is_some_and(|c| c == colour);
    shapes.iter().filter(has).collect()
}
