//! Many replicas, and everything that can happen to them: the long series of `make chaos`, and a short version of each.
//!
//! Each ends with the proof from the downloaded files, and with the counters compared to the ledger. How long a series
//! is comes from the environment: `CHAOS_KILLS=100 CHAOS_ROWS=50000`.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/databases.rs"]
mod databases;
#[path = "../common/s3.rs"]
mod s3;

mod clock_steps;
mod clocks;
mod cluster;
mod crashes;
mod deadly_rows;
mod disk_full;
mod faults;
mod gone;
mod hints;
mod kills;
mod late_answers;
mod outages;
mod poolers;
mod races;
mod rate_limits;
mod results;
mod shares;
mod shutdown;
mod siege;
mod stage;
mod steering;
mod upkeep;
mod uploads;
mod webhooks;
