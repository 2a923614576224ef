//! What the program prints: text for people, or JSON for scripts.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::Health;
use crate::failure::Failure;

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A person.
    Text,
    /// A script.
    Json,
}

/// Standard output, until its reader closes it.
pub(crate) struct Output {
    form: Form,
    /// Why nothing more can be written.
    end: Option<io::Error>,
}

impl Output {
    pub(crate) fn new(form: Form) -> Self {
        Self { form, end: None }
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Prints a result, as JSON or in the words of `text`.
    pub(crate) fn print(&mut self, result: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.form == Form::Json {
            let json = serde_json::to_string(result);
            let json = json.map_err(|error| Failure::new("cannot write the result as JSON").because(&error))?;
            self.line(&json);
        } else {
            self.line(&text());
        }
        Ok(())
    }

    /// Writes a line. After the first error, such as the end of the reader of a pipe, nothing more is written.
    pub(crate) fn line(&mut self, text: &str) {
        if self.end.is_none() {
            let mut stdout = io::stdout().lock();
            self.end = writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()).err();
        }
    }

    /// Prints a failure, and says how the program ends.
    pub(crate) fn finish(self, result: Result<Health, Failure>) -> ExitCode {
        let result = match self.end {
            // The reader of the pipe has what it wanted.
            Some(end) if end.kind() != ErrorKind::BrokenPipe => {
                result.and(Err(Failure::new("cannot write to standard output").because(&end)))
            }
            _ => result,
        };
        let failure = match result {
            Ok(Health::Well) => return ExitCode::SUCCESS,
            Ok(Health::Unwell) => return ExitCode::from(1),
            Err(failure) => failure,
        };
        let json = || serde_json::to_string(&failure).unwrap_or_default();
        let text = match (self.form, &failure.advice) {
            (Form::Json, _) => json(),
            (Form::Text, None) => format!("error: {}", failure.error),
            (Form::Text, Some(advice)) => format!("error: {}\nwhat to do: {advice}", failure.error),
        };
        // The error cannot be reported anywhere.
        let _ = writeln!(io::stderr(), "{text}");
        ExitCode::from(failure.code)
    }
}

/// Lays rows out in columns. The first row has the headings.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let cell = |row: &[String], column: usize| row.get(column).map(|text| printable(text)).unwrap_or_default();
    let width = |column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = widths.iter().enumerate().map(|(column, width)| format!("{:width$}", cell(row, column)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Replaces characters that would control the terminal. Some texts come from OPs.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// The longest name that is printed whole, in characters.
const LONGEST_NAME: usize = 60;

/// A name from a configuration, such as an issuer, cut off if it is long; a dash for none.
pub(crate) fn name(name: Option<&str>) -> String {
    let Some(name) = name else { return "-".to_owned() };
    match name.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}

/// The word that JSON has for a value.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// A progress bar on standard error, if that is a terminal and a person reads the output.
pub(crate) fn bar(form: Form, template: &str) -> ProgressBar {
    let bar = match form {
        Form::Text => ProgressBar::no_length(),
        Form::Json => ProgressBar::hidden(),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A number with its noun.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(number: N, one: &str, many: &str) -> String {
    let noun = if number == N::from(1) { one } else { many };
    format!("{number} {noun}")
}

/// A duration for people, such as `4h`, or a dash.
pub(crate) fn rough(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "-".to_owned(), |duration| format!("{:#}", HumanDuration(duration)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [row(&["ID", "STATE", "DUE"]), row(&["a", "waiting", "4h"]), row(&["grün", "", "-"])];
        assert_eq!(table(&rows), "ID    STATE    DUE\na     waiting  4h\ngrün           -");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn control_characters_from_an_op_are_not_printed() {
        assert_eq!(table(&[row(&["\u{1b}[2Jgone\r\n"])]), "\u{fffd}[2Jgone\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_name_has_a_limited_length() {
        assert_eq!(name(None), "-");
        assert_eq!(name(Some("https://op.example")), "https://op.example");
        let long = name(Some(&"ü".repeat(5_000)));
        assert_eq!((long.chars().count(), long.ends_with("ü…")), (61, true));
    }

    #[test]
    fn one_thing_is_counted_in_the_singular() {
        let of = |number: u64| counted(number, "row", "rows");
        assert_eq!([of(0), of(1), of(2)], ["0 rows", "1 row", "2 rows"]);
    }

    #[test]
    fn durations_are_rounded_for_display() {
        let of = |seconds| rough(Some(Duration::from_secs(seconds)));
        assert_eq!([of(0), of(59), of(7_200), of(86_400 * 3)], ["0s", "59s", "2h", "3d"]);
        assert_eq!(rough(None), "-");
    }
}
