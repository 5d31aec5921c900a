//! What holds for every picture, on those of the gallery.

#[path = "../examples/gallery.rs"]
#[allow(dead_code)]
mod gallery;

use gallery::figures;
use peft_plot::Figure;
use resvg::tiny_skia::Pixmap;
use resvg::usvg::{Group, Node, Options, Rect, Tree};
use serde_json::Value;
use std::sync::LazyLock;

/// A picture as another program than the one that made it lays it out.
struct Layout {
    size: (f32, f32),
    texts: Vec<(String, Rect)>,
    /// What the font has no glyph for.
    missing: String,
}

static GALLERY: LazyLock<Vec<(&str, Figure, Layout)>> = LazyLock::new(|| {
    let with_layout = |(name, figure)| {
        let layout = Layout::new(&figure);
        (name, figure, layout)
    };
    figures().into_iter().map(with_layout).collect()
});

impl Layout {
    fn new(figure: &Figure) -> Self {
        let mut options = Options::default();
        options.fontdb_mut().load_font_data(include_bytes!("../font/DejaVuSans.ttf").to_vec());
        let tree = Tree::from_str(&figure.svg().unwrap(), &options).unwrap();
        let size = (tree.size().width(), tree.size().height());
        let mut layout = Layout { size, texts: Vec::new(), missing: String::new() };
        layout.read(tree.root());
        layout
    }

    fn read(&mut self, group: &Group) {
        for node in group.children() {
            match node {
                Node::Group(group) => self.read(group),
                Node::Text(text) => {
                    let words = text.chunks().iter().map(|chunk| chunk.text()).collect();
                    self.texts.push((words, text.abs_bounding_box()));
                    let glyphs = text.layouted().iter().flat_map(|span| &span.positioned_glyphs);
                    glyphs
                        .filter(|glyph| glyph.id.0 == 0)
                        .for_each(|glyph| self.missing.push_str(&glyph.text));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn texts_are_within_the_picture_and_apart() {
    for (name, _, Layout { size: (width, height), texts, .. }) in &*GALLERY {
        for (i, (text, r)) in texts.iter().enumerate() {
            let inside = r.left() >= 0.0 && r.top() >= 0.0 && r.right() <= *width && r.bottom() <= *height;
            assert!(inside, "{name}: `{text}` is outside: {r:?} of {width} × {height}");
            for (other, s) in &texts[..i] {
                let across = r.right().min(s.right()) - r.left().max(s.left());
                let down = r.bottom().min(s.bottom()) - r.top().max(s.top());
                assert!(
                    across <= 1.0 || down <= 1.5,
                    "{name}: `{text}` and `{other}` overlap by {across} × {down}"
                );
            }
        }
    }
}

/// All words of a figure, as far as they are to be seen.
fn words(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|v| words(v, found)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::Array(groups) if key == "groups" && groups.len() == 1 => {
                        words(&groups[0]["labels"], found)
                    }
                    Value::Array(series) if key == "series" && series.len() == 1 => {}
                    _ if key == "colours" => {}
                    _ => words(value, found),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn every_word_is_drawn() {
    for (name, figure, layout) in &*GALLERY {
        let squeeze = |text: &str| text.split_whitespace().collect::<String>();
        let drawn: String = layout.texts.iter().map(|(text, _)| squeeze(text)).collect();
        let mut all = Vec::new();
        words(&serde_json::to_value(figure).unwrap(), &mut all);
        assert!(all.len() > 2);
        for text in all {
            assert!(drawn.contains(&squeeze(&text)), "{name}: no `{text}`");
        }
    }
}

#[test]
fn every_letter_has_a_glyph() {
    let with = |title: &str| Layout::new(&Figure { title: title.into(), ..figures().swap_remove(0).1 });
    assert_eq!(with("W₀ ΔW α β σ × ± ² ³ · − ∥ ≤ ≥ ⁻ → √ ∑ ∇").missing, "");
    assert_eq!(with("a\u{10fffd}b").missing, "\u{10fffd}");
    for (name, _, layout) in &*GALLERY {
        assert_eq!(layout.missing, "", "{name}");
    }
}

#[test]
fn the_same_figure_is_the_same_picture() {
    for (name, figure, _) in &*GALLERY {
        assert!(figure.svg().unwrap() == figure.svg().unwrap(), "{name}");
    }
    let figure = &GALLERY[0].1;
    assert!(figure.png().unwrap() == figure.png().unwrap());
}

#[test]
fn png_has_two_pixels_a_unit_and_is_not_blank() {
    let kinds = ["bars", "lines", "points", "heat"];
    for (name, figure, layout) in GALLERY.iter().filter(|(name, ..)| kinds.contains(name)) {
        let pixels = Pixmap::decode_png(&figure.png().unwrap()).unwrap();
        let size = (pixels.width() as f32 / 2.0, pixels.height() as f32 / 2.0);
        assert_eq!(size, layout.size, "{name}");
        let white =
            pixels.pixels().iter().filter(|p| (p.red(), p.green(), p.blue()) == (255, 255, 255)).count();
        let share = white as f64 / pixels.pixels().len() as f64;
        assert!((0.2..0.98).contains(&share), "{name}: {share} of it is white");
        assert!(pixels.pixels().iter().all(|p| p.alpha() == 255), "{name} is opaque");
    }
}
