//! Medians of few samples, and how figures are printed.

use std::time::Duration;

/// Returns the median, the upper one of two; zero if there are no samples.
pub(crate) fn median(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Returns the maximum; zero if there are no samples.
pub(crate) fn max(samples: &[Duration]) -> Duration {
    samples.iter().max().copied().unwrap_or_default()
}

/// Formats milliseconds.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Formats microseconds.
pub(crate) fn us(time: Duration) -> String {
    format!("{:.0} us", time.as_secs_f64() * 1e6)
}

/// Formats whether a target is met.
pub(crate) fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_any_order() {
        let all = [5, 1, 9].map(Duration::from_millis);
        assert_eq!(median(&all), Duration::from_millis(5));
        assert_eq!(max(&all), Duration::from_millis(9));
        assert_eq!(median(&[]), Duration::ZERO);
    }
}
