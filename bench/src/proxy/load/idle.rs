//! Idle connections: each asked for something once, and stays open.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use super::super::cases::{CONNECTIONS, Case};
use super::super::report::Figures;
use super::connect::Target;
use super::http1::{Client, Requests};

/// Those that are open before the first look: they pay for what all share.
const FIRST: usize = 160;

/// How long a proxy has until it is looked at: some give memory back a little later.
const SETTLE: Duration = Duration::from_secs(2);

/// How long all connections may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// Opens so many connections and tells what one of them costs. `memory` reads what the proxy holds,
/// in bytes.
pub(in super::super) async fn measure(
    target: &Target,
    connections: usize,
    memory: impl Fn() -> Result<f64>,
) -> Result<Figures> {
    let local = LocalSet::new();
    let opened = local.run_until(async {
        let mut first = open(target, FIRST).await?;
        tokio::time::sleep(SETTLE).await;
        let before = memory()?;
        let mut more = open(target, connections).await?;
        tokio::time::sleep(SETTLE).await;
        let after = memory()?;
        // Those that a proxy has closed in the meantime would cost nothing.
        for client in first.iter_mut().chain(&mut more) {
            let answered = client.once().await;
            answered.context("a connection did not stay open")?;
        }
        Ok(Figures::of_memory((after - before) / more.len() as f64))
    });
    timeout(PATIENCE, opened)
        .await
        .with_context(|| format!("{connections} connections take too long"))?
}

/// Opens connections, several at a time, and uses each once.
async fn open(target: &Target, count: usize) -> Result<Vec<Client>> {
    let mut tasks = JoinSet::new();
    for number in 0..CONNECTIONS {
        let target = target.clone();
        tasks.spawn_local(async move {
            let requests = Rc::new(Requests::new(Case::Idle, number));
            let mut clients = Vec::new();
            for index in (number..count).step_by(CONNECTIONS) {
                let requests = Rc::clone(&requests);
                let mut client = Client::connect(&target, number, requests, index).await?;
                client.once().await?;
                client.rest();
                clients.push(client);
            }
            anyhow::Ok(clients)
        });
    }
    let mut clients = Vec::with_capacity(count);
    while let Some(opened) = tasks.join_next().await {
        clients.append(&mut opened??);
    }
    Ok(clients)
}
