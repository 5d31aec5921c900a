//! What of a curve or an area is inside a rectangle.

use crate::canvas::{At, Rect};

/// The pieces of a curve inside.
pub(crate) fn curve(points: &[At], r: Rect) -> Vec<Vec<At>> {
    let mut pieces: Vec<Vec<At>> = Vec::new();
    for ends in points.windows(2) {
        let Some((from, to)) = segment(ends[0], ends[1], r) else { continue };
        match pieces.last_mut() {
            Some(piece) if piece.last() == Some(&from) => piece.push(to),
            _ => pieces.push(vec![from, to]),
        }
    }
    pieces
}

/// The part of a segment inside, after Liang and Barsky.
fn segment(from: At, to: At, r: Rect) -> Option<(At, At)> {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let (mut start, mut end) = (0.0_f64, 1.0_f64);
    let borders =
        [(-dx, from.0 - r.left), (dx, r.right - from.0), (-dy, from.1 - r.top), (dy, r.bottom - from.1)];
    for (speed, distance) in borders {
        if speed == 0.0 && distance < 0.0 {
            return None;
        }
        if speed < 0.0 {
            start = start.max(distance / speed);
        } else if speed > 0.0 {
            end = end.min(distance / speed);
        }
    }
    let at = |t: f64| (from.0 + t * dx, from.1 + t * dy);
    // Ends that are inside stay as they are, so that pieces meet.
    let first = if start == 0.0 { from } else { at(start) };
    let last = if end == 1.0 { to } else { at(end) };
    (start <= end).then_some((first, last))
}

/// The part of an area inside, after Sutherland and Hodgman.
pub(crate) fn polygon(points: &[At], r: Rect) -> Vec<At> {
    let inside: [&dyn Fn(At) -> f64; 4] =
        [&|(x, _)| x - r.left, &|(x, _)| r.right - x, &|(_, y)| y - r.top, &|(_, y)| r.bottom - y];
    inside.into_iter().fold(points.to_vec(), |points, distance| {
        let mut kept = Vec::new();
        for (i, &to) in points.iter().enumerate() {
            let from = points[(i + points.len() - 1) % points.len()];
            let (a, b) = (distance(from), distance(to));
            if (a < 0.0) != (b < 0.0) {
                let t = a / (a - b);
                kept.push((from.0 + t * (to.0 - from.0), from.1 + t * (to.1 - from.1)));
            }
            if b >= 0.0 {
                kept.push(to);
            }
        }
        kept
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX: Rect = Rect { left: 0.0, top: 0.0, right: 10.0, bottom: 10.0 };

    #[test]
    fn a_curve_leaves_and_comes_back() {
        let pieces = curve(&[(1.0, 5.0), (5.0, 15.0), (9.0, 5.0), (9.0, 1.0)], BOX);
        assert_eq!(pieces, [vec![(1.0, 5.0), (3.0, 10.0)], vec![(7.0, 10.0), (9.0, 5.0), (9.0, 1.0)]]);
        assert!(curve(&[(-5.0, 1.0), (-1.0, 9.0)], BOX).is_empty());
        assert_eq!(curve(&[(-5.0, 5.0), (15.0, 5.0)], BOX), [vec![(0.0, 5.0), (10.0, 5.0)]]);
    }

    #[test]
    fn an_area_is_cut() {
        let cut = polygon(&[(5.0, 5.0), (15.0, 5.0), (15.0, 8.0), (5.0, 8.0)], BOX);
        let corners = [(5.0, 5.0), (10.0, 5.0), (10.0, 8.0), (5.0, 8.0)];
        assert!(cut.len() == 4 && corners.iter().all(|c| cut.contains(c)), "{cut:?}");
        assert!(polygon(&[(11.0, 11.0), (12.0, 11.0), (12.0, 12.0)], BOX).is_empty());
    }
}
