//! Which of the other daemons are dead: those that were silent for their lifetime while this one listened.
//!
//! This daemon measures silence on its own monotonic clock, so that neither a step of a wall clock nor clocks that
//! differ declare a daemon dead. Silence counts only while this daemon hears from the database itself: after an outage
//! of the database, or after its own process stood still, every daemon first gets the time for a heartbeat.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::heartbeat;
use crate::domain::ids::DaemonId;
use crate::domain::lease::DaemonPulse;

/// Most of the time between two observations that counts as silence. A living daemon beats at least as often.
const MOST_BETWEEN: Duration = heartbeat::EVERY.saturating_mul(2);

/// The pulses of the other daemons, as this daemon has seen them. Only its heartbeat uses it.
#[derive(Default)]
pub(super) struct Peers {
    observed: Option<Instant>,
    silences: HashMap<DaemonId, Silence>,
}

struct Silence {
    pulse: DaemonPulse,
    lasted: Duration,
}

impl Peers {
    /// Takes in the pulses that the database has of all daemons, and returns those of daemons that were silent for
    /// their lifetime. A dead daemon is returned each time until the database has it no more.
    pub(super) fn observe(&mut self, me: DaemonId, pulses: &[DaemonPulse], now: Instant) -> Vec<DaemonPulse> {
        let heard_for = self.observed.map_or(Duration::ZERO, |before| now.duration_since(before)).min(MOST_BETWEEN);
        self.observed = Some(now);
        self.silences.retain(|id, _| pulses.iter().any(|pulse| pulse.id == *id));
        let mut silent = Vec::new();
        for &pulse in pulses.iter().filter(|pulse| pulse.id != me) {
            let known = self.silences.entry(pulse.id).or_insert(Silence { pulse, lasted: Duration::ZERO });
            if known.pulse == pulse {
                known.lasted += heard_for;
            } else {
                *known = Silence { pulse, lasted: Duration::ZERO };
            }
            if known.lasted >= pulse.lifetime {
                silent.push(pulse);
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(4);

    fn pulse(id: DaemonId, beats: i64) -> DaemonPulse {
        DaemonPulse { id, lifetime: LIFETIME, beats }
    }

    #[test]
    fn a_daemon_is_dead_once_it_was_silent_for_its_lifetime() {
        let (me, other) = (DaemonId::new(), DaemonId::new());
        let mut peers = Peers::default();
        let start = Instant::now();
        let mut at = |seconds, beats| {
            let pulses = [pulse(me, 1), pulse(other, beats)];
            !peers.observe(me, &pulses, start + Duration::from_secs(seconds)).is_empty()
        };

        assert_eq!([at(0, 1), at(1, 1), at(2, 1), at(3, 1)], [false; 4]);
        assert!(!at(4, 2), "it has beaten");
        assert_eq!([at(5, 2), at(6, 2), at(7, 2)], [false; 3]);
        assert!(at(8, 2));
        assert!(at(9, 2), "until somebody declares it dead");
        assert!(!at(10, 1), "it lives again");
    }

    #[test]
    fn silence_counts_only_while_this_daemon_listens() {
        let (me, other) = (DaemonId::new(), DaemonId::new());
        let mut peers = Peers::default();
        let start = Instant::now();

        assert_eq!(peers.observe(me, &[pulse(other, 1)], start), []);
        let after_an_outage = start + Duration::from_secs(3600);
        assert_eq!(peers.observe(me, &[pulse(other, 1)], after_an_outage), [], "it could not beat either");
        let beat_by_beat = (1..=5).map(|beat| after_an_outage + heartbeat::EVERY * beat);
        let silent: Vec<_> = beat_by_beat.map(|at| peers.observe(me, &[pulse(other, 1)], at)).collect();
        assert_eq!(silent, [vec![], vec![], vec![pulse(other, 1)], vec![pulse(other, 1)], vec![pulse(other, 1)]]);
    }
}
