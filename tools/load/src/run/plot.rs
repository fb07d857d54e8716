//! The plot of a run as SVG: latency and rate over time, with takeovers and storms.

use super::counts::{Counts, Interval, ms, seconds};
use plotters::coord::Shift;
use plotters::prelude::*;

const SIZE: (u32, u32) = (1000, 640);
const TITLE_CHARS: usize = 105;
const FONT: &str = "sans-serif";
const GRAY: RGBColor = RGBColor(150, 154, 162);
const COLORS: [RGBColor; 3] = [RGBColor(0, 128, 128), RGBColor(224, 122, 24), GRAY];

type Series = (&'static str, Vec<(f64, Option<f64>)>);

/// Draws the measured time and the warm-up, under two lines of text.
pub(crate) fn draw(counts: &Counts, title: &str, subtitle: &str) -> Result<String, String> {
    let mut svg = String::new();
    draw_into(&mut svg, counts, title, subtitle).map_err(|error| format!("plot: {error}"))?;
    Ok(svg)
}

fn draw_into(
    svg: &mut String,
    counts: &Counts,
    title: &str,
    subtitle: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    // The last answers and the reading back come after the measured time.
    let is_shown = |one: &&Interval| one.length > 0 && one.began < counts.window.1;
    let shown: Vec<&Interval> = counts.intervals.iter().filter(is_shown).collect();
    let end = shown.last().map(|one| seconds(one.began + one.length)).ok_or("no interval")?;
    let series = |value: &dyn Fn(&Interval) -> Option<f64>| {
        shown.iter().map(|one| (seconds(one.began + one.length / 2), value(one))).collect()
    };
    // On a logarithmic scale.
    let latency = |at: usize| series(&|one| Some(ms(one.latency?[at]).max(1e-3).log10()));
    let per_second = |count: u64, one: &Interval| Some(count as f64 / seconds(one.length));
    let latencies = [("p50", latency(0)), ("p99", latency(1)), ("max", latency(2))];
    let rates = [
        ("acknowledged", series(&|one| per_second(one.acked, one))),
        ("delivered", series(&|one| per_second(one.delivered, one))),
    ];
    let takeovers = counts.takeovers.iter();
    let takeovers = takeovers.map(|one| (one.at, format!("takeover, {} ms", number(one.after_ms))));
    let storms = counts.storms.iter().map(|one| (one.at, "reconnect storm".to_owned()));
    let marks: Vec<(f64, String)> = takeovers.chain(storms).filter(|one| one.0 <= end).collect();

    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, rest) = root.split_vertically(60);
    let title: String = title.chars().take(TITLE_CHARS).collect();
    head.draw_text(&title, &(FONT, 17).into_text_style(&head), (64, 12))?;
    head.draw_text(subtitle, &(FONT, 14).into_text_style(&head).color(&GRAY), (64, 38))?;
    let (upper, lower) = rest.split_vertically(340);
    let decade = |y: &f64| number(10f64.powf(*y));
    panel(&upper, "latency, ms", &latencies, (end, seconds(counts.window.0)), &marks, &decade)?;
    panel(&lower, "per second", &rates, (end, seconds(counts.window.0)), &marks, &|y| number(*y))?;
    root.present()?;
    Ok(())
}

/// Draws series over time, with the warm-up shaded and vertical lines at the marks.
fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    name: &str,
    all: &[Series],
    (end, warm_up): (f64, f64),
    marks: &[(f64, String)],
    label: &dyn Fn(&f64) -> String,
) -> Result<(), Box<dyn std::error::Error>> {
    let values = all.iter().flat_map(|(_, points)| points.iter().filter_map(|point| point.1));
    let (min, max) = values.fold((0.0, 0.0), |(a, b): (f64, f64), one| (a.min(one), b.max(one)));
    let max = if max > min { max + (max - min) * 0.4 } else { min + 1.0 };
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(40)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, min..max)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .y_labels(6)
        .x_desc("seconds")
        .y_desc(name)
        .y_label_formatter(&label)
        .label_style((FONT, 13))
        .draw()?;
    let shade = Rectangle::new([(0.0, min), (warm_up.min(end), max)], GRAY.mix(0.15).filled());
    chart.draw_series([shade])?;
    for ((name, points), color) in all.iter().zip(COLORS) {
        // The line is interrupted where nothing was acknowledged.
        for (at, piece) in points.split(|point| point.1.is_none()).enumerate() {
            let line = piece.iter().filter_map(|(at, value)| Some((*at, (*value)?)));
            let drawn = chart.draw_series(LineSeries::new(line, color.stroke_width(2)))?;
            if at == 0 {
                drawn.label(*name).legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 14, y)], color.stroke_width(3))
                });
            }
        }
    }
    for (at, text) in marks {
        chart.draw_series(LineSeries::new([(*at, min), (*at, max)], RED.mix(0.6)))?;
        let text = Text::new(text.clone(), (*at, max), (FONT, 13).into_font().color(&RED));
        chart.draw_series([text])?;
    }
    let mut labels = chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperRight).label_font((FONT, 13)).draw()?;
    Ok(())
}

/// Formats a number with three significant digits.
fn number(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2}M", value / 1e6),
        value if value >= 1e4 => format!("{:.0}k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 || value == 0.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::counts::Takeover;
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_takeover_is_in_the_plot() {
        let mut counts = Counts::new(Duration::ZERO, Duration::from_secs(2));
        assert!(draw(&counts, "a title", "").is_err(), "nothing was measured");
        for at in 1..=20 {
            if !(8..12).contains(&at) {
                counts.record_ack(1_000_000 * at);
            }
            counts.end_interval(100_000_000 * at);
        }
        let primary = "127.0.0.1:5001".to_owned();
        counts.takeovers.push(Takeover { at: 1.1, after_ms: 12.3, reconnected_ms: None, primary });
        let svg = draw(&counts, "a title", "below it").unwrap();
        for words in ["a title", "below it", "takeover, 12.3 ms", "p99", "acknowledged"] {
            assert!(svg.contains(words), "{words}");
        }
    }
}
