//! What a node counts. The rooms below return facts; only this file knows a metric.

use std::collections::BTreeMap;
use std::fmt;

use polder_types::ReplicaId;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::replica::Phase;
use crate::report::Report;

/// What a node counts; `/metrics` of its admin port prints it.
pub struct Metrics {
    registry: Registry,
    pub(crate) log: DiskMetrics,
    pub(crate) state: DiskMetrics,
    pub(crate) requests: IntCounter,
    pub(crate) requests_busy: IntCounter,
    pub(crate) requests_bad: IntCounter,
    pub(crate) replies: IntCounter,
    pub(crate) commands: IntCounter,
    pub(crate) peer_messages: IntCounter,
    pub(crate) peer_messages_unwanted: IntCounter,
    pub(crate) peer_messages_bad: IntCounterVec,
    pub(crate) peer_messages_dropped: IntCounterVec,
    pub(crate) frames_sent: IntCounter,
    pub(crate) frames_dropped: IntCounterVec,
    pub(crate) evidence: IntCounterVec,
    pub(crate) events_per_turn: Histogram,
    pub(crate) turn_seconds: Histogram,
    pub(crate) image_partitions: IntCounter,
    view: IntGauge,
    is_leader: IntGauge,
    has_leader: IntGauge,
    is_ready: IntGauge,
    executed: IntGauge,
    committed: IntGauge,
    stable: IntGauge,
    durable: IntGauge,
    low: IntGauge,
    view_changes: IntCounter,
    timeout_ms: IntGauge,
    waiting: IntGauge,
    in_flight: IntGauge,
    ignored: IntCounterVec,
    phase: IntGaugeVec,
    peer_connected: IntGaugeVec,
    client_connections: IntGauge,
    log_bytes: IntGauge,
    disk_bytes: IntGauge,
    disk_free_bytes: IntGauge,
    is_space_low: IntGauge,
}

/// What is counted of one store.
#[derive(Clone)]
pub(crate) struct DiskMetrics {
    pub(crate) sync_seconds: Histogram,
    pub(crate) merged_writes: Histogram,
    pub(crate) written_bytes: IntCounter,
}

/// 50 µs to 3.3 s, doubling.
fn time_buckets() -> Vec<f64> {
    (0..17).map(|power| 0.000_05 * f64::from(1u32 << power)).collect()
}

/// 1 to 4096, doubling.
fn count_buckets() -> Vec<f64> {
    (0..13).map(|power| f64::from(1u32 << power)).collect()
}

impl DiskMetrics {
    fn new(disk: &str, registry: &Registry) -> Result<Self, prometheus::Error> {
        let named = |name: &str| format!("polder_{disk}_{name}");
        Ok(Self {
            sync_seconds: histogram(
                registry,
                &named("sync_seconds"),
                "Time of a write and sync of this store",
                time_buckets(),
            )?,
            merged_writes: histogram(
                registry,
                &named("merged_writes"),
                "Writes that one write of this store carried",
                count_buckets(),
            )?,
            written_bytes: counter(registry, &named("written_bytes_total"), "Bytes given to this store")?,
        })
    }

    /// Metrics that nobody reads.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(crate) fn unregistered() -> Self {
        Self::new("test", &Registry::new()).unwrap()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Metrics at zero, all of them labelled with the replica.
    ///
    /// # Errors
    ///
    /// Never with the names below; a name used twice would be found by the first test that starts a node.
    pub fn new(me: ReplicaId) -> Result<Self, prometheus::Error> {
        let labels = [("replica".to_owned(), me.0.to_string())].into();
        let registry = Registry::new_custom(None, Some(labels))?;
        let r = &registry;
        Ok(Self {
            log: DiskMetrics::new("log", r)?,
            state: DiskMetrics::new("state", r)?,
            requests: counter(r, "polder_requests_total", "Client requests received")?,
            requests_busy: counter(r, "polder_requests_busy_total", "Client requests not taken for want of room")?,
            requests_bad: counter(r, "polder_requests_bad_total", "Client requests with a bad signature")?,
            replies: counter(r, "polder_replies_total", "Replies sent to clients")?,
            commands: counter(r, "polder_commands_total", "Commands executed since the start, copies left out")?,
            peer_messages: counter(r, "polder_peer_messages_total", "Messages received from replicas")?,
            peer_messages_unwanted: counter(
                r,
                "polder_peer_messages_unwanted_total",
                "Messages of replicas dropped before their signature was checked, because they came too late to matter",
            )?,
            peer_messages_bad: counters(
                r,
                "polder_peer_messages_bad_total",
                "Messages of a replica that do not decode or verify",
                "peer",
            )?,
            peer_messages_dropped: counters(
                r,
                "polder_peer_messages_dropped_total",
                "Messages of a replica dropped because it sent too many",
                "peer",
            )?,
            frames_sent: counter(r, "polder_frames_sent_total", "Frames queued for other replicas")?,
            frames_dropped: counters(
                r,
                "polder_frames_dropped_total",
                "Frames for a replica dropped because it is slow or away",
                "peer",
            )?,
            evidence: counters(r, "polder_evidence_total", "Proofs that a replica lied (R41)", "peer")?,
            events_per_turn: histogram(
                r,
                "polder_loop_events",
                "Events that one turn of the event loop handled",
                count_buckets(),
            )?,
            turn_seconds: histogram(
                r,
                "polder_loop_turn_seconds",
                "Time of one turn of the event loop",
                time_buckets(),
            )?,
            image_partitions: counter(r, "polder_image_partitions_total", "Partitions whose image was asked for")?,
            view: gauge(r, "polder_view", "The view")?,
            is_leader: gauge(r, "polder_is_leader", "1 if this replica leads its view")?,
            has_leader: gauge(
                r,
                "polder_has_leader",
                "1 if the view has started here and its leader is not suspected",
            )?,
            is_ready: gauge(r, "polder_is_ready", "1 if the node takes part in a quorum and answers clients")?,
            executed: gauge(r, "polder_executed_slot", "The last slot executed")?,
            committed: gauge(r, "polder_committed_slot", "The slot up to which all are committed")?,
            stable: gauge(r, "polder_stable_slot", "The newest certified cut")?,
            durable: gauge(r, "polder_durable_slot", "The newest cut that this node can recover to from its disk")?,
            low: gauge(r, "polder_low_watermark_slot", "The low watermark")?,
            view_changes: counter(r, "polder_view_changes_total", "Views left since the start")?,
            timeout_ms: gauge(r, "polder_view_timeout_ms", "The time-out of the view")?,
            waiting: gauge(r, "polder_requests_waiting", "Requests held that are undecided")?,
            in_flight: gauge(r, "polder_slots_in_flight", "Slots proposed by this leader and undecided")?,
            ignored: counters(r, "polder_inputs_ignored_total", "Inputs that the ordering core ignored", "reason")?,
            phase: gauges(r, "polder_phase", "1 for what the replica is doing", "phase")?,
            peer_connected: gauges(r, "polder_peer_connected", "1 if the connection to a replica stands", "peer")?,
            client_connections: gauge(r, "polder_client_connections", "Connections of clients")?,
            log_bytes: gauge(r, "polder_log_disk_bytes", "Bytes that the ordering log takes on disk")?,
            disk_bytes: gauge(r, "polder_disk_bytes", "Bytes that all data takes on disk")?,
            disk_free_bytes: gauge(r, "polder_disk_free_bytes", "Bytes free on the disk of the data")?,
            is_space_low: gauge(
                r,
                "polder_disk_space_low",
                "1 while less than disk_reserve_bytes are free, so that no new commands are taken",
            )?,
            registry,
        })
    }

    /// All of it in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut bytes = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut bytes) {
            Ok(()) => String::from_utf8(bytes).unwrap_or_default(),
            Err(error) => format!("# {error}\n"),
        }
    }

    pub(crate) fn observe(&self, report: &Report) {
        let core = &report.status.core;
        let slot = |seq: polder_types::Seq| i64::try_from(seq.0).unwrap_or(i64::MAX);
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.view.set(number(core.view.0));
        self.is_leader.set(core.is_leader.into());
        self.has_leader.set((core.entered && !core.suspects).into());
        self.is_ready.set(report.ready().is_ok().into());
        self.executed.set(slot(report.status.executed));
        self.committed.set(slot(core.committed));
        self.stable.set(slot(report.status.stable));
        self.durable.set(slot(report.status.planner.frontier));
        self.low.set(slot(core.low));
        raise(&self.view_changes, core.view_changes);
        self.timeout_ms.set(number(core.timeout_ms));
        self.waiting.set(number(core.waiting as u64));
        self.in_flight.set(number(core.in_flight));
        for (reason, count) in &core.ignored {
            raise(&self.ignored.with_label_values(&[&reason.to_string()]), *count);
        }
        let phases: BTreeMap<&str, bool> = BTreeMap::from([
            ("remembering", matches!(report.status.phase, Phase::Remembering { .. })),
            ("running", matches!(report.status.phase, Phase::Running)),
            ("fetching", matches!(report.status.phase, Phase::Fetching { .. })),
        ]);
        for (phase, is_on) in phases {
            self.phase.with_label_values(&[phase]).set(is_on.into());
        }
        for peer in &report.peers {
            self.peer_connected.with_label_values(&[&peer.replica.0.to_string()]).set(peer.is_connected.into());
        }
        self.client_connections.set(number(report.clients as u64));
        self.log_bytes.set(number(report.log_bytes));
        self.disk_bytes.set(number(report.disk_bytes));
        if let Some(space) = report.space {
            self.disk_free_bytes.set(number(space.free_bytes));
            self.is_space_low.set(space.is_low.into());
        }
    }
}

/// Brings a counter to what was counted elsewhere.
fn raise(counter: &IntCounter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let metric = IntCounter::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let metric = IntGauge::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, prometheus::Error> {
    let metric = IntGaugeVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, prometheus::Error> {
    let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_used_once_and_everything_carries_the_replica() -> Result<(), prometheus::Error> {
        let metrics = Metrics::new(ReplicaId(3))?;
        metrics.requests.inc();
        let text = metrics.text();
        assert!(text.contains("polder_requests_total{replica=\"3\"} 1"), "{text}");
        assert!(text.contains("polder_log_sync_seconds_count{replica=\"3\"} 0"), "{text}");
        Ok(())
    }
}
