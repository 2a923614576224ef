//! The images of docs/performance.md. They have a light background of their own, so that they are readable on a dark
//! page too.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use plotters::coord::combinators::LogCoord;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Failed;
use crate::population::StoreKind;
use crate::results::{Results, grouped};
use crate::run::Measured;

const SIZE: (u32, u32) = (760, 420);
const INK: RGBColor = RGBColor(31, 35, 40);
const FAINT: RGBColor = RGBColor(208, 215, 222);
const LIMIT: RGBColor = RGBColor(110, 119, 129);
const STORES: [(StoreKind, &str, RGBColor); 3] = [
    (StoreKind::Memory, "MemoryStore", RGBColor(9, 105, 218)),
    (StoreKind::Sqlite, "SqliteStore", RGBColor(188, 76, 0)),
    (StoreKind::Postgres, "PostgresStore", RGBColor(26, 127, 55)),
];

/// One line: its data and its style.
struct Line<'a> {
    /// Its label in the legend, if any.
    label: Option<&'a str>,
    color: RGBColor,
    is_dashed: bool,
    value: &'a dyn Fn(&Measured) -> f64,
    store: StoreKind,
}

/// An image: its texts and its lines.
struct Image<'a> {
    title: &'a str,
    unit: &'a str,
    range: Range<f64>,
    limit: (f64, &'a str),
    lines: Vec<Line<'a>>,
}

pub(crate) fn draw(results: &Results, into: &Path) -> Result<(), Failed> {
    let measured: Vec<_> = results.of_kind().collect();
    if measured.is_empty() {
        return Err("nothing is measured yet: scale growth".into());
    }
    fs::create_dir_all(into)?;
    let (median, late) = (|of: &Measured| of.punctuality.p50_ms, |of: &Measured| of.punctuality.p99_ms);
    let halves = STORES.iter().flat_map(|(store, name, color)| {
        let line = |label, is_dashed, value| Line { label, color: *color, is_dashed, value, store: *store };
        [line(Some(*name), false, &late as &dyn Fn(&Measured) -> f64), line(None, true, &median)]
    });
    let lateness = Image {
        title: "How late polls reach the OP (dashed: half of them, solid: 99 of 100)",
        unit: "milliseconds",
        range: 0.1..100_000.0,
        limit: (1_000.0, "goal: 99 of 100 within 1 s"),
        lines: halves.collect(),
    };
    lateness.draw(&measured, &into.join("lateness.svg"))?;
    let polling = |of: &Measured| of.polling_mb;
    let lines = STORES.iter().map(|(store, name, color)| Line {
        label: Some(name),
        color: *color,
        is_dashed: false,
        value: &polling,
        store: *store,
    });
    let memory = Image {
        title: "Physical memory of the polling process, at most",
        unit: "megabytes",
        range: 10.0..10_000.0,
        limit: (150.0, "goal with a database: 150 MB"),
        lines: lines.collect(),
    };
    memory.draw(&measured, &into.join("memory.svg"))
}

impl Image<'_> {
    fn draw(&self, measured: &[&Measured], file: &Path) -> Result<(), Failed> {
        let sizes = || measured.iter().map(|of| of.pending as f64);
        let (least, most) = (sizes().fold(f64::MAX, f64::min), sizes().fold(0.0, f64::max));
        let root = SVGBackend::new(file, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let font = |size: u32| ("system-ui, sans-serif", size).into_font().color(&INK);
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, font(22))
            .margin(14)
            .margin_right(34)
            .x_label_area_size(52)
            .y_label_area_size(76)
            .build_cartesian_2d((least * 0.9..most * 1.1).log_scale(), self.range.clone().log_scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .x_desc("pending processes")
            .y_desc(self.unit)
            .x_labels(4)
            .y_labels(6)
            .x_label_formatter(&|number| grouped(*number))
            .y_label_formatter(&|number| if *number < 1.0 { number.to_string() } else { grouped(*number) })
            .label_style(font(16))
            .axis_desc_style(font(17))
            .draw()?;
        let ends = [least * 0.9, most * 1.1];
        let goal = ends.map(|end| (end, self.limit.0));
        chart.draw_series(DashedLineSeries::new(goal, 2, 4, LIMIT.stroke_width(1)))?;
        let words = font(15).color(&LIMIT).pos(Pos::new(HPos::Right, VPos::Bottom));
        let label = Text::new(self.limit.1.to_owned(), (ends[1] * 0.97, self.limit.0 * 1.06), words);
        chart.draw_series([label])?;
        for line in &self.lines {
            line.draw(&mut chart, measured, self.range.start)?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .label_font(font(16))
            .draw()?;
        Ok(root.present()?)
    }
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogCoord<f64>, LogCoord<f64>>>;

impl Line<'_> {
    fn draw(&self, chart: &mut Chart<'_, '_>, measured: &[&Measured], least: f64) -> Result<(), Failed> {
        let of_store = measured.iter().filter(|of| of.store == self.store);
        // The latest measurement of each size.
        let points: BTreeMap<_, _> = of_store.map(|of| (of.pending, (self.value)(of).max(least))).collect();
        let points: Vec<_> = points.into_iter().map(|(pending, value)| (pending as f64, value)).collect();
        if points.is_empty() {
            return Ok(());
        }
        let style = self.color.stroke_width(2);
        let drawn = match self.is_dashed {
            true => chart.draw_series(DashedLineSeries::new(points.iter().copied(), 6, 4, style))?,
            false => chart.draw_series(LineSeries::new(points.iter().copied(), style))?,
        };
        if let Some(label) = self.label {
            drawn.label(label).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, self.color.filled())))?;
        Ok(())
    }
}
