//! The admin port: metrics, liveness, readiness, status. For the operator's own network only; it changes nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::Node;
use crate::metrics::Metrics;
use crate::report::Report;

/// What the port answers from: a node, once one has started.
#[derive(Clone, Default)]
pub(crate) struct Admin {
    node: Arc<OnceLock<Started>>,
}

/// What a started node shows.
struct Started {
    report: watch::Receiver<Option<Arc<Report>>>,
    metrics: Arc<Metrics>,
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
/// before the node has started).
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
    axum::serve(listener, router).await
}

impl Admin {
    /// From now on the port speaks of this node.
    pub(crate) fn started(&self, node: &Node) {
        self.node.get_or_init(|| Started { report: node.report(), metrics: node.metrics() });
    }

    fn report(&self) -> Option<Arc<Report>> {
        self.node.get().and_then(|node| node.report.borrow().clone())
    }

    /// Whether it serves, and if not, why.
    fn ready(&self) -> Result<(), String> {
        match self.report() {
            Some(report) => report.ready(),
            None if self.node.get().is_some() => Err("starting".to_owned()),
            None => Err("starting: recovering the state".to_owned()),
        }
    }
}

async fn metrics_text(State(admin): State<Admin>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        admin.node.get().map(|node| node.metrics.text()).unwrap_or_default(),
    )
}

/// Alive: the process runs. Whether it serves is `/readyz`.
async fn live() -> &'static str {
    "ok\n"
}

/// Ready: it took part in a recent quorum. The answer says why not.
async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    match admin.ready() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn status(State(admin): State<Admin>) -> Json<Value> {
    Json(admin.report().map_or(Value::Null, |report| to_json(&report)))
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
        for path in ["/metrics", "/status"] {
            let answer = get(address, path).await?;
            assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        }
        serving.abort();
        Ok(())
    }
}
