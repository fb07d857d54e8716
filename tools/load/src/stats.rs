//! Medians, and how they are printed.

use std::time::Duration;

/// The value in the middle; the upper one of two. Zero when there is none.
pub(crate) fn median(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The value that 99 of 100 do not exceed. Zero when there is none.
pub(crate) fn p99(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() * 99 / 100).min(sorted.len().max(1) - 1)).copied().unwrap_or_default()
}

/// The greatest value. Zero when there is none.
pub(crate) fn worst(samples: &[Duration]) -> Duration {
    samples.iter().max().copied().unwrap_or_default()
}

/// As milliseconds.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// As microseconds.
pub(crate) fn us(time: Duration) -> String {
    format!("{:.0} us", time.as_secs_f64() * 1e6)
}

/// Whether a target is met, in a word that is seen.
pub(crate) fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_any_order() {
        let all = [5, 1, 9].map(Duration::from_millis);
        assert_eq!(median(&all), Duration::from_millis(5));
        assert_eq!(worst(&all), Duration::from_millis(9));
        assert_eq!(median(&[]), Duration::ZERO);
    }
}
