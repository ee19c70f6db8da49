//! Prometheus metrics. Label values are configured server names, or words from the closed sets in `words`, so that
//! clients cannot add label values.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

use super::resolved::Resolved;
use super::words::{Direction, DropReason, ExitReason, MemoryUse, Rejection};

/// The label of a metric of one server.
type ServerLabels = [(&'static str, Arc<str>); 1];
/// The labels of a metric with two labels: the server, and a word from a closed set with the name of its label.
type WordLabels = (ServerLabels, [(&'static str, &'static str); 1]);

/// All metrics of one gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    children: ChildMetrics,
    traffic: TrafficMetrics,
    memory: MemoryMetrics,
    /// The metrics of connections to the public listener.
    pub connections: ConnectionMetrics,
    /// The number of child processes in the gateway's table and of their descendants, at the last count.
    pub processes_owned: Gauge,
    /// The number of processes below the gateway without the guardian, at the last count.
    pub processes_found: Gauge,
    /// The number of failed readings of the resource usage of children.
    pub watch_failures: Counter,
    /// The number of private folders that wait to be removed, including those whose removal failed.
    pub folders_waiting: Gauge,
    /// The number of attempts that did not remove a private folder completely.
    pub folder_failures: Counter,
}

/// The metrics of the connections to one listener.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    /// The number of open connections.
    pub open: Gauge<i64, AtomicI64>,
    rejected: Family<[(&'static str, &'static str); 1], Counter>,
}

impl ConnectionMetrics {
    fn register(to: &mut Registry) -> Self {
        let rejected = "Connections, and requests through proxies, that were refused or had to make way, by reason";
        Self {
            open: register(to, "connections", "Connections open on the public listener"),
            rejected: register(to, "connections_rejected", rejected),
        }
    }

    /// Counts a connection or a request that got no place, or had to make way.
    pub fn rejected(&self, reason: Rejection) {
        self.rejected.get_or_create(&[("reason", reason.as_str())]).inc();
    }
}

/// The metrics of child processes, by server.
#[derive(Debug)]
struct ChildMetrics {
    children: Family<ServerLabels, Gauge>,
    spawned: Family<ServerLabels, Counter>,
    exits: Family<WordLabels, Counter>,
    restarts: Family<ServerLabels, Counter>,
    replay_refusals: Family<ServerLabels, Counter>,
    over_limit: Family<WordLabels, Counter>,
    recycled: Family<WordLabels, Counter>,
    ended_idle: Family<WordLabels, Counter>,
    workers: Family<WordLabels, Gauge>,
    circuits: Family<WordLabels, Gauge>,
    pool_queue: Family<ServerLabels, Gauge>,
    spares: Family<ServerLabels, Gauge>,
}

/// The metrics of the memory budget.
#[derive(Debug)]
struct MemoryMetrics {
    held: Gauge,
    budget: Gauge,
    refusals: Family<[(&'static str, &'static str); 1], Counter>,
}

/// The metrics of messages between clients and servers.
#[derive(Debug)]
struct TrafficMetrics {
    sessions: Family<ServerLabels, Gauge>,
    evicted: Family<WordLabels, Counter>,
    messages: Family<WordLabels, Counter>,
    bytes: Family<WordLabels, Counter>,
    latency: Family<WordLabels, Histogram>,
    resent: Family<ServerLabels, Counter>,
    stdin_queue: Family<ServerLabels, Gauge>,
    dropped: Family<WordLabels, Counter>,
    auth_failures: Family<[(&'static str, &'static str); 1], Counter>,
    responses: Family<[(&'static str, u16); 1], Counter>,
    /// The responses by status, of the statuses that have occurred.
    known_responses: Resolved<u16, Counter, 16>,
}

/// The metrics of one server, looked up once and then used without locks.
#[derive(Debug, Clone)]
pub struct ServerMetrics {
    metrics: Arc<Metrics>,
    server: Arc<str>,
    /// The numbers of messages and bytes to the server, and to the client.
    flows: [(Counter, Counter); 2],
    /// The durations of requests by method, of the methods that have been answered. There are 20 labels of methods.
    latency: Arc<Resolved<&'static str, Histogram, 20>>,
    /// The number of bytes that wait for the stdin of the server's children.
    pub stdin_queue: Gauge,
    /// The number of open sessions.
    pub sessions: Gauge,
    /// The number of running children.
    pub children: Gauge,
    /// The number of children started.
    pub spawned: Counter,
    /// The number of children started to replace one that had ended.
    pub restarts: Counter,
    /// The number of calls sent again after a crash.
    pub resent: Counter,
    /// The number of requests that a new child refused although the previous child had granted them to the session.
    pub replay_refusals: Counter,
}

/// Registers a metric. `name` has neither the common prefix nor the suffix of counters.
fn register<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

impl ChildMetrics {
    fn register(to: &mut Registry) -> Self {
        let refused = "Log levels and subscriptions of sessions that another child has refused";
        let over_limit = "Children ended because they used more than they may, by limit";
        let circuits = "Circuits of a server that keeps crashing which are not closed, by state";
        Self {
            children: register(to, "children", "Children running"),
            spawned: register(to, "children_spawned", "Children started"),
            exits: register(to, "children_exits", "Children that ended, by reason"),
            restarts: register(to, "children_restarts", "Children started in the place of an ended one"),
            replay_refusals: register(to, "replay_refusals", refused),
            over_limit: register(to, "children_over_limit", over_limit),
            recycled: register(to, "children_recycled", "Children that were due to be replaced, by limit"),
            ended_idle: register(to, "idle_children_ended", "Idle children of sessions that were ended, by limit"),
            workers: register(to, "workers", "Children by state"),
            circuits: register(to, "circuits", circuits),
            pool_queue: register(to, "pool_queue", "Sessions that wait for a child"),
            spares: register(to, "spare_children", "Children that wait for a session"),
        }
    }
}

impl MemoryMetrics {
    fn register(to: &mut Registry) -> Self {
        let refusals = "What was refused, waits or was cut because the memory budget is used up, by what it was";
        Self {
            held: register(to, "memory_held_bytes", "Bytes of messages that the gateway holds, as charged"),
            budget: register(to, "memory_budget_bytes", "Bytes that the gateway may hold (limits.memory_budget)"),
            refusals: register(to, "memory_refusals", refusals),
        }
    }
}

impl TrafficMetrics {
    fn register(to: &mut Registry) -> Self {
        let latency =
            Family::new_with_constructor((|| Histogram::new(exponential_buckets(0.0005, 2.5, 14))) as fn() -> _);
        to.register("request_seconds", "From a request to its answer", latency.clone());
        Self {
            sessions: register(to, "sessions", "Sessions open"),
            evicted: register(to, "sessions_evicted", "Unused sessions ended for the room of others, by limit"),
            messages: register(to, "messages", "Messages carried"),
            bytes: register(to, "message_bytes", "Bytes of messages carried"),
            latency,
            resent: register(to, "calls_resent", "Calls sent again after a crash"),
            stdin_queue: register(to, "stdin_queue_bytes", "Bytes waiting for the stdin of children"),
            dropped: register(to, "dropped_messages", "Messages not delivered, by reason"),
            auth_failures: register(to, "auth_failures", "Requests refused by authentication"),
            responses: register(to, "http_responses", "HTTP responses by status"),
            known_responses: Resolved::default(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("sluice");
        let to = &mut registry;
        to.register("log_lines_lost", "Log lines that stderr did not take, of this process", super::logs::dropped());
        let found = "Processes below the gateway but for the guardian: more than owned were left behind";
        let not_removed = "Attempts to remove a private folder that did not remove all";
        Self {
            traffic: TrafficMetrics::register(to),
            children: ChildMetrics::register(to),
            memory: MemoryMetrics::register(to),
            connections: ConnectionMetrics::register(to),
            processes_owned: register(to, "processes_owned", "Children and everything below them"),
            processes_found: register(to, "processes_found", found),
            watch_failures: register(to, "watch_failures", "Looks at children that saw nothing"),
            folders_waiting: register(
                to,
                "folders_waiting",
                "Private folders that wait to be removed, or could not be",
            ),
            folder_failures: register(to, "folder_failures", not_removed),
            registry,
        }
    }
}

/// Converts a count to the value type of gauges.
pub fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Metrics {
    /// Looks up the metrics of the server with this name.
    pub fn server(self: &Arc<Self>, name: &str) -> ServerMetrics {
        let server: Arc<str> = name.into();
        let labels = [("server", Arc::clone(&server))];
        let flow = |direction| {
            let labels = (labels.clone(), [("direction", direction)]);
            let traffic = &self.traffic;
            (traffic.messages.get_or_create(&labels).clone(), traffic.bytes.get_or_create(&labels).clone())
        };
        ServerMetrics {
            flows: ["to_server", "to_client"].map(flow),
            latency: Arc::default(),
            stdin_queue: self.traffic.stdin_queue.get_or_create(&labels).clone(),
            sessions: self.traffic.sessions.get_or_create(&labels).clone(),
            children: self.children.children.get_or_create(&labels).clone(),
            spawned: self.children.spawned.get_or_create(&labels).clone(),
            restarts: self.children.restarts.get_or_create(&labels).clone(),
            resent: self.traffic.resent.get_or_create(&labels).clone(),
            replay_refusals: self.children.replay_refusals.get_or_create(&labels).clone(),
            metrics: Arc::clone(self),
            server,
        }
    }

    /// Counts a request that failed authentication. `reason` comes from a fixed set of words.
    pub fn auth_failure(&self, reason: &'static str) {
        self.traffic.auth_failures.get_or_create(&[("reason", reason)]).inc();
    }

    /// Sets the bytes that the gateway holds, and the memory budget.
    pub fn memory(&self, held: usize, budget: usize) {
        self.memory.held.set(as_gauge(held));
        self.memory.budget.set(as_gauge(budget));
    }

    /// Counts something for which the memory budget has no room.
    pub fn memory_refused(&self, what: MemoryUse) {
        self.memory.refusals.get_or_create(&[("what", what.label())]).inc();
    }

    /// Counts an HTTP response.
    pub fn response(&self, status: u16) {
        let TrafficMetrics { responses, known_responses, .. } = &self.traffic;
        let look_up = || responses.get_or_create(&[("status", status)]).clone();
        known_responses.with(status, look_up, |counter| {
            counter.inc();
        });
    }

    /// Sets the number of the server's children that are in a state.
    pub fn workers(&self, server: &str, state: &'static str, count: usize) {
        let labels = ([("server", server.into())], [("state", state)]);
        self.children.workers.get_or_create(&labels).set(as_gauge(count));
    }

    /// Sets the numbers of the server's circuit breakers that are open and half-open.
    pub fn circuits(&self, server: &str, open: usize, half_open: usize) {
        for (state, count) in [("open", open), ("half_open", half_open)] {
            let labels = ([("server", server.into())], [("state", state)]);
            self.children.circuits.get_or_create(&labels).set(as_gauge(count));
        }
    }

    /// Sets the number of sessions that wait for a child of the server, and the number of its spare children.
    pub fn pool(&self, server: &str, queued: usize, spares: usize) {
        let labels = [("server", server.into())];
        self.children.pool_queue.get_or_create(&labels).set(as_gauge(queued));
        self.children.spares.get_or_create(&labels).set(as_gauge(spares));
    }

    /// The OpenMetrics text of all metrics.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl ServerMetrics {
    /// Counts a delivered message of `bytes` bytes.
    pub fn carried(&self, direction: Direction, bytes: usize) {
        let [to_server, to_client] = &self.flows;
        let (messages, volume) = match direction {
            Direction::ToServer => to_server,
            Direction::ToClient => to_client,
        };
        messages.inc();
        volume.inc_by(bytes as u64);
    }

    /// Counts a message that was not delivered.
    pub fn dropped(&self, reason: DropReason) {
        self.metrics.traffic.dropped.get_or_create(&self.labels("reason", reason.label())).inc();
    }

    /// Counts something for which the memory budget has no room.
    pub fn memory_refused(&self, what: MemoryUse) {
        self.metrics.memory_refused(what);
    }

    /// Counts a message that was dropped because the memory budget has no room for it.
    pub fn had_no_room(&self, what: MemoryUse) {
        self.dropped(DropReason::Memory);
        self.memory_refused(what);
    }

    /// Counts a child that has ended.
    pub fn exited(&self, reason: ExitReason) {
        self.metrics.children.exits.get_or_create(&self.labels("reason", reason.as_str())).inc();
    }

    /// Counts a child that was ended because it exceeded a limit. `limit` comes from a fixed set of words.
    pub fn over_limit(&self, limit: &'static str) {
        self.metrics.children.over_limit.get_or_create(&self.labels("limit", limit)).inc();
    }

    /// Counts a child that had to be replaced. `limit` comes from a fixed set of words.
    pub fn recycled(&self, limit: &'static str) {
        self.metrics.children.recycled.get_or_create(&self.labels("limit", limit)).inc();
    }

    /// Counts a child that was ended because it was idle. `limit` comes from a fixed set of words.
    pub fn ended_idle(&self, limit: &'static str) {
        self.metrics.children.ended_idle.get_or_create(&self.labels("limit", limit)).inc();
    }

    /// Counts a session that was ended because another one needed its room. `limit` comes from a fixed set of words.
    pub fn evicted(&self, limit: &'static str) {
        self.metrics.traffic.evicted.get_or_create(&self.labels("limit", limit)).inc();
    }

    /// Records the duration of an answered request in seconds.
    pub fn answered(&self, method: &'static str, seconds: f64) {
        let look_up = || self.metrics.traffic.latency.get_or_create(&self.labels("method", method)).clone();
        self.latency.with(method, look_up, |histogram| histogram.observe(seconds));
    }

    fn labels(&self, name: &'static str, word: &'static str) -> WordLabels {
        ([("server", Arc::clone(&self.server))], [(name, word)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_what_was_counted() {
        let metrics = Arc::new(Metrics::default());
        let server = metrics.server("time");
        server.carried(Direction::ToServer, 10);
        server.dropped(DropReason::UnknownId);
        server.answered("tools/call", 0.01);
        server.answered("other", 0.01);
        let text = metrics.render().unwrap_or_default();
        for line in [
            "sluice_messages_total{server=\"time\",direction=\"to_server\"} 1",
            "sluice_dropped_messages_total{server=\"time\",reason=\"unknown_id\"} 1",
            "sluice_request_seconds_count{server=\"time\",method=\"other\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
