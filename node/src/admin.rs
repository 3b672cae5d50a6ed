//! The admin port: metrics, liveness, readiness, status. For the operator's own network only; it changes nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use polder_consensus::Evidence;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Node;
use crate::admin_seats::Seats;
use crate::evidence;
use crate::metrics::Metrics;
use crate::report::{Check, Report};

/// A report that is older than this says nothing of now: an event loop makes ten a second, unless it stands.
const REPORT_AGE_MAX: Duration = Duration::from_secs(2);

/// What the port answers from: a node, once one has started.
#[derive(Clone, Default)]
pub(crate) struct Admin {
    node: Arc<OnceLock<Started>>,
}

/// What a started node shows.
struct Started {
    report: watch::Receiver<Option<Arc<Report>>>,
    /// When the last report came.
    reported: Arc<Mutex<Instant>>,
    evidence: watch::Receiver<Vec<Arc<Evidence>>>,
    metrics: Arc<Metrics>,
}

impl Started {
    /// Why its report cannot be believed, if it is an old one.
    fn stands(&self) -> Option<String> {
        let age = self.reported.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let seconds = age.as_secs();
        (age > REPORT_AGE_MAX).then(|| format!("its event loop has stood for {seconds} s: is a disk stuck?"))
    }
}

/// Notes when reports come, until there are none any more.
async fn note_reports(mut report: watch::Receiver<Option<Arc<Report>>>, reported: Arc<Mutex<Instant>>) {
    while report.changed().await.is_ok() {
        *reported.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Binds the port. What is bound serves until the runtime ends or the future of [`serve`] is dropped.
///
/// # Errors
///
/// When the address is taken.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves `/metrics` (Prometheus; empty before the node has started), `/livez`, `/readyz` and `/status` (JSON; null
/// before the node has started). `/livez?verbose` and `/readyz?verbose` say of each check whether it holds, one a line,
/// as Kubernetes and etcd do.
///
/// # Errors
///
/// When the listener fails.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .with_state(admin);
    axum::serve(Seats::of(listener), router).await
}

impl Admin {
    /// From now on the port speaks of this node. To be called within a tokio runtime.
    pub(crate) fn started(&self, node: &Node) {
        self.node.get_or_init(|| {
            let reported = Arc::new(Mutex::new(Instant::now()));
            tokio::spawn(note_reports(node.report(), reported.clone()));
            Started { report: node.report(), reported, evidence: node.evidence(), metrics: node.metrics() }
        });
    }

    fn report(&self) -> Option<Arc<Report>> {
        self.node.get().and_then(|node| node.report.borrow().clone())
    }

    /// Against whom it has evidence since its start (R41); the evidence itself is in its data folder.
    fn evidence(&self) -> Value {
        let found = self.node.get().map(|node| node.evidence.borrow().clone()).unwrap_or_default();
        let said = |evidence: &Arc<Evidence>| json!({"replica": evidence.culprit().0, "kind": evidence::word(evidence.kind())});
        found.iter().map(said).collect()
    }

    /// What must hold for it to serve.
    fn ready(&self) -> Vec<Check> {
        let check = |name, why: Option<&str>| Check { name, outcome: why.map_or(Ok(()), |why| Err(why.to_owned())) };
        match (self.node.get(), self.report()) {
            (node, Some(report)) => {
                let stands = node.and_then(Started::stands);
                let of_port = [check("started", None), check("event-loop", stands.as_deref())];
                of_port.into_iter().chain(report.checks()).collect()
            }
            (Some(_), None) => vec![check("started", Some("starting"))],
            (None, None) => vec![check("started", Some("starting: recovering the state"))],
        }
    }

    /// What must hold for it to be alive: it may recover, lag, or wait for others.
    fn live(&self) -> Vec<Check> {
        let is_over = self.node.get().is_some_and(|node| node.report.has_changed().is_err());
        let outcome = if is_over { Err("it has ended".to_owned()) } else { Ok(()) };
        vec![Check { name: "process", outcome: Ok(()) }, Check { name: "event-loop", outcome }]
    }
}

/// `ok`, or why not: the first check that does not hold. If the query asks for it, all of them.
fn checked(checks: Vec<Check>, query: Option<String>) -> (StatusCode, String) {
    let why = checks.iter().find_map(|check| check.outcome.as_ref().err());
    let status = if why.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !query.is_some_and(|query| query.split('&').any(|key| matches!(key, "verbose" | "verbose=" | "verbose=true"))) {
        return (status, why.map_or("ok\n".to_owned(), |why| format!("{why}\n")));
    }
    let line = |check: &Check| match &check.outcome {
        Ok(()) => format!("[+]{} ok\n", check.name),
        Err(why) => format!("[-]{} failed: {why}\n", check.name),
    };
    let last = if why.is_none() { "ok\n" } else { "not ok\n" };
    (status, checks.iter().map(line).chain([last.to_owned()]).collect())
}

async fn metrics_text(State(admin): State<Admin>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        admin.node.get().map(|node| node.metrics.text()).unwrap_or_default(),
    )
}

/// Alive: the process runs. Whether it serves is `/readyz`.
async fn live(State(admin): State<Admin>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    checked(admin.live(), query)
}

/// Ready: it took part in a recent quorum. The answer says why not.
async fn ready(State(admin): State<Admin>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    checked(admin.ready(), query)
}

async fn status(State(admin): State<Admin>) -> Json<Value> {
    let Some(report) = admin.report() else { return Json(Value::Null) };
    let mut said = to_json(&report);
    if let Some(why) = admin.node.get().and_then(Started::stands) {
        said["ready"] = Value::from(false);
        said["why_not_ready"] = Value::from(why);
    }
    said["evidence"] = admin.evidence();
    Json(said)
}

/// A report as JSON: what `/status` answers.
fn to_json(report: &Report) -> Value {
    let (status, core, planner) = (&report.status, &report.status.core, &report.status.planner);
    let peers = report.peers.iter().map(|peer| {
        json!({
            "replica": peer.replica.0,
            "connected": peer.is_connected,
            "heard_ms_ago": peer.heard_ms_ago,
            "last_error": peer.last_error,
        })
    });
    let ignored = core.ignored.iter().map(|(why, count)| (why.to_string(), Value::from(*count)));
    json!({
        "id": status.me.0,
        "ready": report.ready().is_ok(),
        "why_not_ready": report.ready().err(),
        "summary": status.to_string(),
        "role": if core.is_leader { "leader" } else { "backup" },
        "view": core.view.0,
        "leader": core.leader.0,
        "low_watermark": core.low.0,
        "committed": core.committed.0,
        "executed": status.executed.0,
        "stable_checkpoint": status.certified.0,
        "certified_by_others": status.stable.0,
        "recoverable_to": planner.frontier.0,
        "oldest_image": planner.oldest_image.map(|cut| cut.0),
        "image_bytes": planner.image_bytes,
        "root": status.root.map(|root| hex(&root.0)),
        "waiting_requests": core.waiting,
        "view_changes": core.view_changes,
        "sessions": status.sessions,
        "state_bytes": status.state_bytes,
        "clients": report.clients,
        "log_bytes": report.log_bytes,
        "disk_bytes": report.disk_bytes,
        "disk_free_bytes": report.space.map(|space| space.free_bytes),
        "disk_reserve_bytes": report.space.map(|space| space.reserve_bytes),
        "disk_space_low": report.space.is_some_and(|space| space.is_low),
        "ignored": ignored.collect::<serde_json::Map<_, _>>(),
        "peers": peers.collect::<Vec<_>>(),
    })
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_node_that_recovers_is_alive_and_says_why_it_is_not_ready() -> io::Result<()> {
        let listener = bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(serve(listener, Admin::default()));
        let (live, ready) = (get(address, "/livez").await?, get(address, "/readyz").await?);
        assert!(live.starts_with("HTTP/1.0 200") && live.ends_with("ok\n"), "{live}");
        assert!(ready.starts_with("HTTP/1.0 503") && ready.ends_with("starting: recovering the state\n"), "{ready}");
        let (live, ready) = (get(address, "/livez?verbose").await?, get(address, "/readyz?verbose").await?);
        assert!(
            live.starts_with("HTTP/1.0 200") && live.ends_with("\r\n[+]process ok\n[+]event-loop ok\nok\n"),
            "{live}"
        );
        let lines = "\r\n[-]started failed: starting: recovering the state\nnot ok\n";
        assert!(ready.starts_with("HTTP/1.0 503") && ready.ends_with(lines), "{ready}");
        for path in ["/metrics", "/status"] {
            let answer = get(address, path).await?;
            assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        }
        serving.abort();
        Ok(())
    }

    /// A loop that stands reports no more: what it said last is not so for ever.
    #[tokio::test]
    async fn an_old_report_makes_nobody_ready() -> Result<(), Box<dyn std::error::Error>> {
        let (sender, report) = watch::channel(None);
        let reported = Arc::new(Mutex::new(Instant::now()));
        let noting = tokio::spawn(note_reports(report.clone(), reported.clone()));
        let admin = Admin::default();
        let metrics = Arc::new(Metrics::new(polder_types::ReplicaId(0))?);
        let evidence = watch::channel(Vec::new()).1;
        admin.node.get_or_init(|| Started { report, reported: reported.clone(), evidence, metrics });
        let ready = || checked(admin.ready(), None);
        let past = Instant::now().checked_sub(10 * REPORT_AGE_MAX).ok_or("a clock that runs")?;
        let set = |at| *reported.lock().unwrap_or_else(PoisonError::into_inner) = at;
        set(past);
        sender.send_replace(Some(Arc::new(crate::report::tests::ready())));
        while reported.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > REPORT_AGE_MAX {
            tokio::task::yield_now().await;
        }
        assert_eq!(ready(), (StatusCode::OK, "ok\n".to_owned()));
        set(past);
        let (status, why) = ready();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(why.starts_with("its event loop has stood for "), "{why}");
        drop(sender);
        noting.await?;
        Ok(())
    }

    #[test]
    fn each_check_is_a_line_when_that_is_asked_for() {
        let checks = || {
            let held = Check { name: "caught-up", outcome: Ok(()) };
            vec![held, Check { name: "in-a-quorum", outcome: Err("2 more replicas must be reachable".to_owned()) }]
        };
        let asked = |query: &str| checked(checks(), Some(query.to_owned()));
        let all = "[+]caught-up ok\n[-]in-a-quorum failed: 2 more replicas must be reachable\nnot ok\n".to_owned();
        for query in ["verbose", "verbose=true", "x=1&verbose"] {
            assert_eq!(asked(query), (StatusCode::SERVICE_UNAVAILABLE, all.clone()));
        }
        let first = (StatusCode::SERVICE_UNAVAILABLE, "2 more replicas must be reachable\n".to_owned());
        assert_eq!((asked("verbose=false"), checked(checks(), None)), (first.clone(), first));
        let held = checks().drain(..1).collect::<Vec<_>>();
        let words = checked(held, Some("verbose".to_owned()));
        assert_eq!(words, (StatusCode::OK, "[+]caught-up ok\nok\n".to_owned()));
    }
}
