//! The command line of the load tool.

use std::time::Duration;

/// What is printed beside a complaint.
pub(crate) const USAGE: &str = "load --url http://127.0.0.1:PORT/sse | --url http://127.0.0.1:PORT/mcp | --ceiling
  --key KEY          sent as a bearer token
  --clients N        clients, each with a session of its own (16)
  --in-flight N      calls that a client has in flight, each on a connection of its own (8)
  --seconds S        how long to measure (5) ...
  --requests N       ... or how many calls in all, with no warm-up
  --warm-up S        seconds before the measuring (1)
  --payload BYTES    bytes added to each text (0)
  --timeout S        an answer that takes longer is missing (10)
  --ids same         each call in flight has an id that it uses again and again, and so has every client's: 1, 2 ... (default)
  --ids counting     each client counts 1, 2, 3 ..., as the SDKs do
  --ids distinct     each client counts, and no two clients share an id
  --tool NAME        a tool that gives its only string back (echo)
  --json             one JSON object instead of a line
  --ceiling          measures this tool against a responder inside it that does next to nothing";

/// Which ids the calls have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    /// The number of the slot that the call is in: the ids in flight are the same in every client at every moment.
    Same,
    /// 1, 2, 3 ... in each client; they drift apart as the clients do.
    Counting,
    /// The same, far apart.
    Distinct,
}

/// What to do.
#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    pub(crate) url: String,
    pub(crate) key: Option<String>,
    pub(crate) clients: usize,
    pub(crate) in_flight: usize,
    pub(crate) seconds: f64,
    pub(crate) requests: Option<u64>,
    pub(crate) warm_up: f64,
    pub(crate) payload: usize,
    pub(crate) timeout: Duration,
    pub(crate) ids: Ids,
    pub(crate) tool: String,
    pub(crate) json: bool,
    pub(crate) ceiling: bool,
}

impl Arguments {
    /// Reads the command line. The error says which argument is wrong.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut it = Self {
            url: String::new(),
            key: None,
            clients: 16,
            in_flight: 8,
            seconds: 5.0,
            requests: None,
            warm_up: 1.0,
            payload: 0,
            timeout: Duration::from_secs(10),
            ids: Ids::Same,
            tool: "echo".to_owned(),
            json: false,
            ceiling: false,
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => it.json = true,
                "--ceiling" => it.ceiling = true,
                name => {
                    let value = words.next().ok_or_else(|| format!("{name} needs a value, or is unknown"))?;
                    it.set(name, value)?;
                }
            }
        }
        if it.requests.is_some() {
            it.warm_up = 0.0;
        }
        if it.url.is_empty() != it.ceiling {
            return Err("one of --url and --ceiling is needed".to_owned());
        }
        Ok(it)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "--url" => self.url = value,
            "--key" => self.key = Some(value),
            "--tool" => self.tool = value,
            "--ids" => {
                self.ids = match value.as_str() {
                    "same" => Ids::Same,
                    "counting" => Ids::Counting,
                    "distinct" => Ids::Distinct,
                    _ => return Err("--ids is same, counting or distinct".to_owned()),
                }
            }
            "--clients" => self.clients = number(name, &value)?,
            "--in-flight" => self.in_flight = number(name, &value)?,
            "--seconds" => self.seconds = number(name, &value)?,
            "--requests" => self.requests = Some(number(name, &value)?),
            "--warm-up" => self.warm_up = number(name, &value)?,
            "--payload" => self.payload = number(name, &value)?,
            "--timeout" => self.timeout = Duration::from_secs(number(name, &value)?),
            _ => return Err(format!("{name} is unknown")),
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name}: {value} is not a number that fits"))
}
