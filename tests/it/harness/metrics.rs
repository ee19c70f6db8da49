//! The metrics of a gateway, as its admin listener shows them.

/// One reading, in the OpenMetrics text format.
#[derive(Debug)]
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// Samples: the name, the labels as they are written (with braces, or empty), the value.
    pub(crate) fn samples(&self) -> impl Iterator<Item = (&str, &str, f64)> {
        self.0.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_at(series.find('{').unwrap_or(series.len()));
            (name, labels, value.parse().unwrap())
        })
    }

    /// The sum over all samples of that name whose labels hold `label` (such as `reason="crashed"`, or nothing).
    pub(crate) fn sum(&self, name: &str, label: &str) -> f64 {
        self.samples().filter(|(n, labels, _)| *n == name && labels.contains(label)).map(|(.., value)| value).sum()
    }

    /// Sessions open.
    pub(crate) fn sessions(&self) -> f64 {
        self.sum("sluice_sessions", "")
    }

    /// Children running.
    pub(crate) fn children(&self) -> f64 {
        self.sum("sluice_children", "")
    }

    /// Messages not delivered, for a reason.
    pub(crate) fn dropped(&self, reason: &str) -> f64 {
        self.sum("sluice_dropped_messages_total", &format!("reason=\"{reason}\""))
    }
}
