//! Keeps the lake fast and small while a service runs: one instance at a time, every so often.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use legwork_lake::{LakeConfig, LakeError, Lease, Maintained, Maintenance, Upkeep};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::Config;
use crate::delivery::LakeTables;
use crate::service::wall_clock_us;

/// The first round waits no longer than this, so that an instance that restarts often gets to it.
const FIRST_AFTER_MAX: Duration = Duration::from_secs(60);
/// Rounds that may fail to happen before another instance takes over.
const ROUNDS_MISSED_MAX: u32 = 3;
/// Shortest lease: a round that compacts a large day renews it only between two days.
const LEASE_MIN: Duration = Duration::from_secs(300);

/// When the lake is maintained and by which rules.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// Name under which the lease is held.
    owner: String,
    every: Duration,
    repair_every: Duration,
    upkeep: Upkeep,
}

impl Schedule {
    /// As configured; none where `lake.maintain_every` is 0s.
    pub(crate) fn of(config: &Config) -> Option<Schedule> {
        let every = config.lake.maintain_every.duration();
        let retention = config.lake.retention.iter().map(|(table, span)| (table.clone(), span.duration())).collect();
        (!every.is_zero()).then(|| Schedule {
            owner: config.instance.id.clone(),
            every,
            repair_every: config.lake.repair_every.duration(),
            upkeep: Upkeep { now_ms: 0, late_horizon: config.time.late_horizon.duration(), retention },
        })
    }

    /// How long a lease lasts: its holder renews it every round, so that the others do nothing.
    fn lease_lasts(&self) -> Duration {
        (self.every * ROUNDS_MISSED_MAX).max(LEASE_MIN)
    }

    /// Maintains until it is told to stop, whenever this instance holds the lease. A round that is under way then is given up: each of its
    /// steps has happened or has not.
    pub(crate) async fn run(
        self,
        lake: &LakeTables,
        repair: impl Fn() -> BoxFuture<'static, anyhow::Result<()>> + Sync,
        mut stopped: watch::Receiver<bool>,
    ) {
        let mut lease = None;
        let mut pause = self.every.min(FIRST_AFTER_MAX);
        let mut repaired_at: Option<Instant> = None;
        loop {
            let held = lease.clone();
            let is_due = repaired_at.is_none_or(|at| at.elapsed() >= self.repair_every);
            let round = async {
                tokio::time::sleep(pause).await;
                let lease = self.round(lake, held).await;
                // Whoever maintains the lake repairs it; two that do at once are told apart by their number.
                let does_repair = lease.is_some() && is_due && !self.repair_every.is_zero();
                if does_repair && let Err(error) = repair().await {
                    warn!(error = format!("{error:#}"), "late events are not repaired this time");
                }
                (lease, does_repair)
            };
            tokio::select! {
                (next, has_repaired) = round => {
                    lease = next;
                    if has_repaired {
                        repaired_at = Some(Instant::now());
                    }
                }
                _ = stopped.wait_for(|&stop| stop) => break,
            }
            pause = self.every;
        }
        if let Some(lease) = lease
            && let Err(error) = lake.lake().release(&lease).await
        {
            warn!(%error, "the lease of the lake's maintenance was not given back: it ends by itself");
        }
    }

    /// One round. *Returns* the lease that is held afterwards.
    async fn round(&self, lake: &LakeTables, held: Option<Lease>) -> Option<Lease> {
        let lease = match self.elect(lake, held).await {
            Ok(lease) => lease?,
            Err(error) => {
                warn!(%error, "the lake is not maintained this time: its lease cannot be had");
                return None;
            }
        };
        let upkeep = Upkeep { now_ms: now_ms(), ..self.upkeep.clone() };
        let Maintenance { tables, lease } = lake.lake().maintain(&lake.all(), &upkeep, lease).await;
        let (n_failed, sum) = summed(&tables);
        if sum != Maintained::default() || n_failed > 0 {
            info!(
                n_failed,
                n_days_dropped = sum.n_days_dropped,
                n_days_resolved = sum.n_days_resolved,
                n_files_merged = sum.n_files_merged,
                n_files_written = sum.n_files_written,
                n_bytes_written = sum.n_bytes_written,
                n_files_deleted = sum.n_files_deleted,
                n_orphans_deleted = sum.n_orphans_deleted,
                "the lake was maintained"
            );
        }
        lease
    }

    /// Renews the lease that is held, or takes it when it is free.
    async fn elect(&self, lake: &LakeTables, held: Option<Lease>) -> Result<Option<Lease>, LakeError> {
        if let Some(held) = held
            && let Some(renewed) = lake.lake().renew(&held, now_ms()).await?
        {
            return Ok(Some(renewed));
        }
        let taken = lake.lake().lease(&self.owner, now_ms(), self.lease_lasts()).await?;
        if taken.is_some() {
            info!(owner = self.owner, "this instance maintains the lake now");
        }
        Ok(taken)
    }
}

/// Settings of the lake, as the configuration has them.
pub(crate) fn lake_config(config: &Config) -> LakeConfig {
    LakeConfig { file_bytes_target: config.lake.file_bytes_target.0, ..LakeConfig::default() }
}

fn now_ms() -> i64 {
    wall_clock_us() / 1_000
}

/// How many tables failed, and what was done about the others.
fn summed(tables: &[(String, Result<Maintained, LakeError>)]) -> (usize, Maintained) {
    let mut sum = Maintained::default();
    let mut n_failed = 0;
    for (_, done) in tables {
        let Ok(done) = done else {
            n_failed += 1;
            continue;
        };
        sum.n_days_dropped += done.n_days_dropped;
        sum.n_days_resolved += done.n_days_resolved;
        sum.n_files_merged += done.n_files_merged;
        sum.n_files_written += done.n_files_written;
        sum.n_bytes_written += done.n_bytes_written;
        sum.n_files_deleted += done.n_files_deleted;
        sum.n_orphans_deleted += done.n_orphans_deleted;
    }
    (n_failed, sum)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashMap;

    use futures::FutureExt;
    use legwork_lake::Lake;

    use super::*;
    use crate::config::Span;

    fn schedule(owner: &str) -> Schedule {
        let mut config = Config::default();
        config.instance.id = owner.to_owned();
        config.lake.maintain_every = Span(10_000);
        Schedule::of(&config).unwrap()
    }

    #[test]
    fn it_follows_the_configuration() {
        let mut config = Config::default();
        let schedule = Schedule::of(&config).unwrap();
        assert_eq!((schedule.every, schedule.lease_lasts()), (Duration::from_secs(600), Duration::from_secs(1_800)));
        assert_eq!(schedule.upkeep.late_horizon, Duration::from_secs(7 * 86_400));
        assert_eq!(schedule.upkeep.retention["gps_pings"], Duration::from_secs(60 * 86_400));
        config.lake.maintain_every = Span(0);
        assert!(Schedule::of(&config).is_none());
    }

    #[tokio::test]
    async fn one_instance_maintains_and_lets_go_when_it_stops() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        let open = || LakeTables::new(Lake::open(&url, &HashMap::new(), LakeConfig::default()).unwrap());
        let (first, second) = (open(), open());
        let (a, b) = (schedule("a"), schedule("b"));
        let held = a.round(&first, None).await;
        assert!(held.is_some());
        assert!(b.round(&second, None).await.is_none(), "a holds it");
        let again = a.round(&first, held).await.unwrap();
        first.lake().release(&again).await.unwrap();
        assert!(b.round(&second, None).await.is_some());
        let (stop, stopped) = watch::channel(false);
        let third = open();
        stop.send(true).unwrap();
        tokio::time::timeout(
            Duration::from_secs(10),
            schedule("c").run(&third, || std::future::ready(Ok(())).boxed(), stopped),
        )
        .await
        .unwrap();
    }
}
