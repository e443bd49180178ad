//! Metrics for Prometheus: what is counted, under names that dashboards rely on.

mod collect;
mod http;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::serve::engine::Engine;
pub(crate) use collect::text;

/// Serves metrics until it is stopped.
#[derive(Debug)]
pub(crate) struct Server {
    until: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Begins to answer.
    pub(crate) fn start(listener: TcpListener, engine: Arc<Engine>) -> Self {
        let (until, dropped) = oneshot::channel::<()>();
        let stopped = async {
            // An error is what comes when it is dropped.
            let _ = dropped.await;
        };
        let task = tokio::spawn(async move { http::serve(listener, move || text(&engine), stopped).await });
        Self { until, task }
    }

    /// Answers no more; the address is free when this returns.
    pub(crate) async fn stop(self) {
        drop(self.until);
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "metrics have ended badly");
        }
    }
}
