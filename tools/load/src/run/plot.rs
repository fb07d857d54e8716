//! The picture of a run: latency and rate over time, with the takeovers.

use super::ledger::{Interval, Ledger, Nanos};
use plotters::coord::ranged1d::Ranged;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (1000, 640);
const TITLE_HEIGHT: u32 = 60;
/// What fits into a line of words.
const TITLE_CHARS: usize = 105;
/// Of the rest, what latency takes; the rate has the remainder.
const LATENCY_HEIGHT: u32 = 340;
const LEFT: u32 = 64;
/// Beside the charts, for the names of their lines.
const RIGHT: u32 = 120;
/// Two marks that are nearer share one label, in pixels.
const LABEL_WIDTH: f64 = 150.0;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(150, 154, 162);
const GRID: RGBColor = RGBColor(228, 230, 234);
const MEDIAN: RGBColor = RGBColor(0, 128, 128);
const HIGH: RGBColor = RGBColor(224, 122, 24);
const LONGEST: RGBColor = RGBColor(178, 182, 190);
const RATE: RGBColor = RGBColor(52, 101, 164);
const DELIVERED: RGBColor = RGBColor(120, 80, 160);
const MARK: RGBColor = RGBColor(190, 30, 45);

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'a, 'b, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Y>>;

/// Something that happened at one time.
struct Mark {
    at: f64,
    words: String,
    color: RGBColor,
}

/// Draws the run, under two lines of words, as SVG.
///
/// # Errors
/// There is nothing to draw, or it can't be drawn.
pub(crate) fn draw(ledger: &Ledger, title: &str, subtitle: &str) -> Result<String, String> {
    let shown = shown(ledger);
    if shown.is_empty() {
        return Err("nothing was measured".to_owned());
    }
    let mut svg = String::new();
    let drawn = draw_into(&mut svg, ledger, &shown, [title, subtitle]);
    drawn.map_err(|error| format!("the picture: {error}"))?;
    Ok(svg)
}

/// What is before the end of the measured time; the last answers and the reading back come later.
fn shown(ledger: &Ledger) -> Vec<Interval> {
    let all = ledger.intervals.iter().copied();
    all.filter(|one| one.length > 0 && one.began < ledger.window.1).collect()
}

fn draw_into(
    svg: &mut String,
    ledger: &Ledger,
    shown: &[Interval],
    [title, subtitle]: [&str; 2],
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, rest) = root.split_vertically(TITLE_HEIGHT);
    let left = i32::try_from(LEFT)?;
    let title = match title.char_indices().nth(TITLE_CHARS) {
        Some((end, _)) => &format!("{}…", &title[..end]),
        None => title,
    };
    head.draw_text(title, &(FONT, 17).into_text_style(&head).color(&INK), (left, 12))?;
    head.draw_text(subtitle, &(FONT, 14).into_text_style(&head).color(&FAINT), (left, 38))?;
    let (upper, lower) = rest.split_vertically(LATENCY_HEIGHT);
    let end = shown.last().map_or(1.0, |one| seconds(one.began + one.length));
    let times = (seconds(ledger.window.0).min(end), end);
    let marks = marks(ledger, end);
    draw_latency(&upper, shown, times, &marks)?;
    draw_rate(&lower, shown, times, &marks)?;
    root.present()?;
    Ok(())
}

fn draw_latency(
    area: &Area<'_>,
    shown: &[Interval],
    (warm_up, end): (f64, f64),
    marks: &[Mark],
) -> Result<(), Box<dyn std::error::Error>> {
    let all = shown.iter().flat_map(|one| [one.p50, one.longest]).flatten().map(ms);
    let (least, most) = all.fold((f64::MAX, 0.0_f64), |(a, b), one| (a.min(one), b.max(one)));
    let (least, most) = if most > 0.0 { (least.max(0.001), most) } else { (0.1, 10.0) };
    // Whole decades would waste half of the picture.
    let range = (least * 0.6)..(most * 2.0);
    let mut chart = ChartBuilder::on(area)
        .margin_right(RIGHT)
        .margin_top(4)
        .x_label_area_size(8)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(0.0..end, range.clone().log_scale().with_key_points(steps(&range)))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .x_labels(0)
        .y_labels(12)
        .y_label_formatter(&|value| number(*value))
        .label_style((FONT, 13, &INK))
        .axis_desc_style((FONT, 14, &INK))
        .draw()?;
    shade(&mut chart, warm_up, (range.start, range.end))?;
    type Value = fn(&Interval) -> Option<Nanos>;
    let series: [(&str, RGBColor, Value); 3] = [
        ("longest", LONGEST, |one| one.longest),
        ("p99", HIGH, |one| one.p99),
        ("p50", MEDIAN, |one| one.p50),
    ];
    for (_, color, value) in series {
        let points = shown.iter().map(|one| (middle(one), value(one).map(ms)));
        let points: Vec<(f64, Option<f64>)> = points.collect();
        draw_line(&mut chart, &points, color)?;
    }
    draw_marks(&mut chart, marks, end, (range.start, range.end), true)?;
    legend(area, "latency, ms", &series.map(|(name, color, _)| (name, color)))
}

fn draw_rate(
    area: &Area<'_>,
    shown: &[Interval],
    (warm_up, end): (f64, f64),
    marks: &[Mark],
) -> Result<(), Box<dyn std::error::Error>> {
    let per_second = |count: u64, one: &Interval| count as f64 / seconds(one.length).max(1e-9);
    let acked = shown.iter().map(|one| (middle(one), per_second(one.acked, one)));
    let acked: Vec<(f64, f64)> = acked.collect();
    let delivered = shown.iter().map(|one| (middle(one), per_second(one.delivered, one)));
    let delivered: Vec<(f64, f64)> = delivered.collect();
    let most = acked.iter().chain(&delivered).map(|(_, rate)| *rate).fold(1.0, f64::max) * 1.2;
    let mut chart = ChartBuilder::on(area)
        .margin_right(RIGHT)
        .margin_bottom(8)
        .x_label_area_size(40)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(0.0..end, 0.0..most)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .x_labels(12)
        .y_labels(5)
        .x_desc("seconds")
        .x_label_formatter(&|value| number(*value))
        .y_label_formatter(&|value| number(*value))
        .label_style((FONT, 13, &INK))
        .axis_desc_style((FONT, 14, &INK))
        .draw()?;
    shade(&mut chart, warm_up, (0.0, most))?;
    chart.draw_series(AreaSeries::new(acked.iter().copied(), 0.0, RATE.mix(0.15)))?;
    let line = |points: &[(f64, f64)]| -> Vec<(f64, Option<f64>)> {
        points.iter().map(|(at, rate)| (*at, Some(*rate))).collect()
    };
    let mut names = vec![("acknowledged", RATE)];
    if delivered.iter().any(|(_, rate)| *rate > 0.0) {
        draw_line(&mut chart, &line(&delivered), DELIVERED)?;
        names.insert(0, ("delivered", DELIVERED));
    }
    draw_line(&mut chart, &line(&acked), RATE)?;
    draw_marks(&mut chart, marks, end, (0.0, most), false)?;
    legend(area, "per second", &names)
}

/// The time before the measured one.
fn shade<Y>(
    chart: &mut Chart<'_, '_, Y>,
    warm_up: f64,
    (low, high): (f64, f64),
) -> Result<(), Box<dyn std::error::Error>>
where
    Y: Ranged<ValueType = f64>,
{
    let shade = Rectangle::new([(0.0, low), (warm_up, high)], INK.mix(0.05).filled());
    chart.draw_series(std::iter::once(shade))?;
    Ok(())
}

/// A line that is broken where there is nothing.
fn draw_line<Y>(
    chart: &mut Chart<'_, '_, Y>,
    points: &[(f64, Option<f64>)],
    color: RGBColor,
) -> Result<(), Box<dyn std::error::Error>>
where
    Y: Ranged<ValueType = f64>,
{
    for piece in points.split(|(_, value)| value.is_none()).filter(|one| !one.is_empty()) {
        let line = piece.iter().filter_map(|(at, value)| value.map(|value| (*at, value)));
        chart.draw_series(LineSeries::new(line, color.stroke_width(2)))?;
    }
    Ok(())
}

/// Upright lines, with words where there is room.
fn draw_marks<Y>(
    chart: &mut Chart<'_, '_, Y>,
    marks: &[Mark],
    end: f64,
    (low, high): (f64, f64),
    has_words: bool,
) -> Result<(), Box<dyn std::error::Error>>
where
    Y: Ranged<ValueType = f64>,
{
    let width = f64::from(SIZE.0 - LEFT - RIGHT) / end;
    let mut free = 0.0;
    for Mark { at, words, color } in marks {
        let line = DashedLineSeries::new([(*at, low), (*at, high)], 5, 4, color.stroke_width(1));
        chart.draw_series(line)?;
        if !has_words || at * width < free {
            continue;
        }
        free = at * width + LABEL_WIDTH;
        let is_late = (end - at) * width < LABEL_WIDTH;
        let (side, space) = if is_late { (HPos::Right, -4) } else { (HPos::Left, 4) };
        let style = (FONT, 13).into_font().color(color).pos(Pos::new(side, VPos::Top));
        let text = EmptyElement::at((*at, high)) + Text::new(words.clone(), (space, 4), style);
        chart.draw_series(std::iter::once(text))?;
    }
    Ok(())
}

/// What is shown, and the names of the lines, beside them.
fn legend(
    area: &Area<'_>,
    unit: &str,
    names: &[(&str, RGBColor)],
) -> Result<(), Box<dyn std::error::Error>> {
    let left = i32::try_from(SIZE.0 - RIGHT)? + 12;
    let style = (FONT, 13).into_font().color(&FAINT).pos(Pos::new(HPos::Left, VPos::Center));
    area.draw_text(unit, &style, (left, 16))?;
    for ((name, color), row) in names.iter().zip(0..) {
        let top = 38 + row * 20;
        let line = PathElement::new([(left, top), (left + 14, top)], color.stroke_width(3));
        area.draw(&line)?;
        let style = (FONT, 13).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw_text(name, &style, (left + 20, top))?;
    }
    Ok(())
}

/// 1, 2 and 5 of each decade.
fn steps(range: &std::ops::Range<f64>) -> Vec<f64> {
    let decades = (range.start.log10().floor() as i32)..=(range.end.log10().ceil() as i32);
    let all = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(decade)));
    all.filter(|step| range.contains(step)).collect()
}

fn marks(ledger: &Ledger, end: f64) -> Vec<Mark> {
    let takeovers = ledger.takeovers.iter().map(|one| Mark {
        at: seconds(one.at),
        words: format!("takeover, {} ms", number(ms(one.after))),
        color: MARK,
    });
    let storms = ledger.storms.iter().map(|one| Mark {
        at: seconds(one.at),
        words: one.took.map_or("all reconnect".to_owned(), |took| {
            format!("all reconnect, {} ms", number(ms(took)))
        }),
        color: FAINT,
    });
    let mut marks: Vec<Mark> = takeovers.chain(storms).filter(|one| one.at <= end).collect();
    marks.sort_by(|one, other| one.at.total_cmp(&other.at));
    marks
}

fn middle(one: &Interval) -> f64 {
    seconds(one.began + one.length / 2)
}

fn seconds(time: Nanos) -> f64 {
    time as f64 / 1e9
}

fn ms(time: Nanos) -> f64 {
    time as f64 / 1e6
}

/// A number with as many places as are read.
fn number(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", rounded(value / 1e6)),
        value if value >= 1e4 => format!("{}k", rounded(value / 1e3)),
        value => rounded(value),
    }
}

fn rounded(value: f64) -> String {
    let places = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ledger::Takeover;
    use std::time::Duration;

    #[test]
    fn numbers_are_as_long_as_they_are_read() {
        let table = [
            (0.0, "0"),
            (0.25, "0.25"),
            (3.10, "3.1"),
            (42.55, "42.5"),
            (100.0, "100"),
            (1234.0, "1234"),
            (20_000.0, "20k"),
            (312_400.0, "312k"),
            (1_250_000.0, "1.25M"),
        ];
        for (value, text) in table {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_takeover_is_in_the_picture() {
        let mut ledger = Ledger::new(Duration::ZERO, Duration::from_secs(2));
        assert!(draw(&ledger, "a title", "").is_err(), "nothing was measured");
        for at in 1..=20 {
            // For a while nothing was acknowledged.
            if !(8..12).contains(&at) {
                ledger.note_acked(1_000_000 * at);
            }
            ledger.end_interval(100_000_000 * at);
        }
        let primary = "127.0.0.1:5001".parse().unwrap();
        ledger.takeovers.push(Takeover { at: 1_100_000_000, after: 12_300_000, primary });
        let svg = draw(&ledger, "a title", "below it").unwrap();
        for words in ["a title", "below it", "takeover, 12.3 ms", "p99", "acknowledged"] {
            assert!(svg.contains(words), "{words}");
        }
    }
}
