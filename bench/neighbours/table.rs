//! The table, on stdout as the rows are measured, and as Markdown.

use std::process::ExitCode;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::row::{AIM, Outcome};

/// What has been measured so far.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    arguments: &'a Arguments,
    markdown: String,
    failed: usize,
    above_aim: usize,
    rows: usize,
}

impl<'a> Table<'a> {
    /// Prints the head.
    pub(crate) fn new(arguments: &'a Arguments) -> Self {
        let size = format!(
            "{} windows alone and {} beside the attack, in turns; {} calls on each of two sessions in each",
            arguments.windows + 1,
            arguments.windows,
            arguments.calls
        );
        println!("{size}\n{:28} {HEAD}", "attack of one tenant");
        let columns = "|---|---|---|---|---|---|---|---|---|\n";
        let head = "| attack of one tenant | errors | p99 alone | beside | ratio | difference | new session alone | beside | |\n";
        Self { arguments, markdown: format!("{size}.\n\n{head}{columns}"), failed: 0, above_aim: 0, rows: 0 }
    }

    /// Prints a remark.
    pub(crate) fn note(&self, text: &str) {
        println!("  {text}");
    }

    /// Prints a row.
    pub(crate) fn add(&mut self, name: &str, outcome: Outcome) {
        if let Some(reason) = &outcome.skipped {
            println!("{name:28} skipped: {reason}");
            self.markdown += &format!("| {name} | skipped: {reason} | | | | | | | |\n");
            return;
        }
        self.rows += 1;
        let verdict = match (outcome.has_errors() || outcome.is_slow(self.arguments), outcome.ratio() > AIM) {
            (true, _) => "FAILED",
            (false, true) => "above the aim",
            (false, false) => "",
        };
        self.failed += usize::from(verdict == "FAILED");
        self.above_aim += usize::from(outcome.ratio() > AIM);
        println!("{name:28} {} {verdict}", outcome.line());
        for error in outcome.alone.errors.iter().chain(&outcome.beside.errors).take(5) {
            println!("  {}", error.chars().take(600).collect::<String>());
        }
        self.markdown +=
            &format!("| {name} | {} | {verdict} |\n", outcome.cells().map(|cell| cell.trim().to_owned()).join(" | "));
    }

    /// Says how many rows failed, and writes the Markdown.
    pub(crate) fn finish(self) -> ExitCode {
        println!("{} rows, {} failed, {} above the aim of {AIM}", self.rows, self.failed, self.above_aim);
        if let Some(path) = &self.arguments.markdown
            && let Err(error) = std::fs::write(path, &self.markdown)
        {
            println!("cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
        ExitCode::from(u8::from(self.failed > 0))
    }
}

const HEAD: &str = "errors  p99 alone     beside  ratio  difference  new alone     beside";

impl Outcome {
    fn cells(&self) -> [String; 7] {
        let errors = self.alone.errors.len() + self.beside.errors.len();
        let difference = milliseconds(self.beside.p99) - milliseconds(self.alone.p99);
        [
            format!("{errors:6}"),
            format!("{:7.2} ms", milliseconds(self.alone.p99)),
            format!("{:7.2} ms", milliseconds(self.beside.p99)),
            format!("{:5.2}", self.ratio()),
            format!("{difference:8.2} ms"),
            format!("{:6.0} ms", milliseconds(self.alone.new_session)),
            format!("{:6.0} ms", milliseconds(self.beside.new_session)),
        ]
    }

    /// The numbers in one line, under the head.
    pub(crate) fn line(&self) -> String {
        self.cells().join("  ")
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
