//! What a proxy tells of itself: counters of its `/metrics`.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Decisions on requests, and those of them that were remembered.
const DECISIONS: &str = "sidegate_authz_decisions_total{decision_point=\"ingress\"";
const REMEMBERED: &str = "sidegate_authz_decisions_remembered_total";

/// Decisions up to now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Decisions {
    made: f64,
    remembered: f64,
}

impl Decisions {
    /// Asks for them; `None` where it does not tell which were remembered.
    pub(super) async fn read(admin: SocketAddr) -> Result<Option<Self>> {
        let mut stream = TcpStream::connect(admin).await?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(
            answer.starts_with("HTTP/1.1 200 "),
            "the metrics cannot be read"
        );
        Self::parse(&answer)
    }

    fn parse(metrics: &str) -> Result<Option<Self>> {
        let made = sum(metrics, DECISIONS)?.unwrap_or_default();
        let remembered = sum(metrics, REMEMBERED)?;
        Ok(remembered.map(|remembered| Self { made, remembered }))
    }

    /// The share that was remembered of those made since, from 0 to 1.
    pub(super) fn rate_since(self, before: Self) -> Option<f64> {
        let made = self.made - before.made;
        (made > 0.0).then(|| (self.remembered - before.remembered) / made)
    }
}

/// The sum of the samples whose name, with the labels that are told, begins so; `None` where there
/// are none.
fn sum(metrics: &str, name: &str) -> Result<Option<f64>> {
    let samples = metrics.lines().filter(|line| line.starts_with(name));
    samples
        .map(|line| {
            let value = line.rsplit(' ').next().unwrap_or_default();
            let value: f64 = value.parse().with_context(|| format!("`{line}`"))?;
            Ok(value)
        })
        .try_fold(None, |sum: Option<f64>, value: Result<f64>| {
            Ok(Some(sum.unwrap_or_default() + value?))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
# TYPE sidegate_authz_decisions counter
sidegate_authz_decisions_total{decision_point=\"ingress\",verdict=\"allow\",reason=\"policy\"} 10
sidegate_authz_decisions_total{decision_point=\"connect\",verdict=\"allow\",reason=\"policy\"} 90
sidegate_authz_decisions_remembered_total 2
";
    const AFTER: &str = "\
sidegate_authz_decisions_total{decision_point=\"ingress\",verdict=\"allow\",reason=\"policy\"} 100
sidegate_authz_decisions_total{decision_point=\"ingress\",verdict=\"deny\",reason=\"policy\"} 10
sidegate_authz_decisions_remembered_total 77
";

    #[test]
    fn the_rate_counts_decisions_on_requests_since_the_first_look() {
        let before = Decisions::parse(BEFORE).unwrap().unwrap();
        let after = Decisions::parse(AFTER).unwrap().unwrap();
        assert_eq!(after.rate_since(before), Some(0.75));
        assert_eq!(after.rate_since(after), None);
    }

    #[test]
    fn there_is_no_rate_where_none_is_told() {
        let line = "sidegate_authz_decisions_total{decision_point=\"ingress\"} 10\n";
        assert_eq!(Decisions::parse(line).unwrap(), None);
        assert!(Decisions::parse("sidegate_authz_decisions_remembered_total x\n").is_err());
    }
}
