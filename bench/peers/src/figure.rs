//! Figures: what they are made of many measurements by, and how they are told, to people and to `bench/run`.

use std::fs::OpenOptions;
use std::io::Write;

/// Names the file that figures are added to for `bench/run`: a line for each, its fields parted by tabs, the claim, the
/// value, its unit, `<=`, `>=` or `-`, and the target.
const RESULTS: &str = "BENCH_RESULTS";

/// The median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value that this share of the sorted values does not exceed.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// The median of the slopes between all pairs of points (Theil-Sen), whose x are distinct: 29 % of them may be wild.
pub fn robust_slope(points: &[(f64, f64)]) -> f64 {
    let pairs = points
        .iter()
        .enumerate()
        .flat_map(|(i, (x, y))| points[i + 1..].iter().map(move |(later_x, later_y)| (later_y - y) / (later_x - x)));
    median(pairs.collect())
}

/// Tells a figure that has to reach a target and says whether it does.
pub fn verdict_at_least(what: &str, value: f64, unit: &str, at_least: f64) -> bool {
    let met = value >= at_least;
    println!("{what:<58} {value:8.2} {unit:<4} at least {at_least:.2}  {}", if met { "met" } else { "MISSED" });
    record(what, value, unit, ">=", Some(at_least));
    met
}

/// Tells a figure that must not exceed its target and says whether it is met.
pub fn verdict(what: &str, value: f64, unit: &str, at_most: f64) -> bool {
    let met = value <= at_most;
    println!("{what:<58} {value:8.2} {unit:<4} at most {at_most:.2}  {}", if met { "met" } else { "MISSED" });
    record(what, value, unit, "<=", Some(at_most));
    met
}

/// Tells a figure that has no target.
pub fn tell(what: &str, value: f64, unit: &str) {
    println!("{what:<58} {value:8.2} {unit}");
    record(what, value, unit, "-", None);
}

fn record(what: &str, value: f64, unit: &str, direction: &str, target: Option<f64>) {
    let Some(file) = std::env::var_os(RESULTS) else { return };
    let target = target.map_or_else(String::new, |target| target.to_string());
    let line = format!("{what}\t{value}\t{unit}\t{direction}\t{target}\n");
    let file = OpenOptions::new().create(true).append(true).open(file);
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("BENCH_RESULTS can be written");
}

#[cfg(test)]
mod tests {
    use super::{quantile, robust_slope};

    #[test]
    fn a_wild_point_does_not_move_the_slope() {
        let mut points: Vec<(f64, f64)> = (0..20).map(|x| (f64::from(x), 3.0 * f64::from(x))).collect();
        points[7].1 = 1e9;
        assert!((robust_slope(&points) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn the_last_quantile_is_the_maximum() {
        let close = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-9);
        close(quantile(&[1.0, 2.0, 9.0], 1.0), 9.0);
        close(quantile(&[1.0, 2.0, 9.0], 0.5), 2.0);
    }
}
