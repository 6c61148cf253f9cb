//! Which lane to claim from next. Pure: the claim loop gathers what it decides by.

use std::collections::HashMap;

use crate::domain::ids::BatchId;
use crate::domain::lease::OpenLane;

/// Picks a lane of the batch with the fewest rows in this daemon's hands, and among those the one whose window closes
/// first. So batches share the daemon evenly, and a small batch is not held up by a large one before it.
pub(super) fn pick<'a>(lanes: &'a [OpenLane], in_hand: &HashMap<BatchId, u64>) -> Option<&'a OpenLane> {
    lanes.iter().min_by_key(|lane| {
        let rows = in_hand.get(&lane.batch_id).copied().unwrap_or(0);
        (rows, lane.expires_at, lane.batch_id, lane.no)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    fn lane(batch_id: BatchId, no: u32, expires_at: i64) -> OpenLane {
        OpenLane { batch_id, no, next: 0, last: 10, expires_at: Timestamp(expires_at) }
    }

    #[test]
    fn the_batch_with_the_least_in_hand_is_next_and_then_the_earliest_deadline() {
        let (a, b, c) = (BatchId::new(), BatchId::new(), BatchId::new());
        let lanes = [lane(a, 0, 1), lane(b, 0, 3), lane(c, 0, 2), lane(c, 1, 2)];

        let picked = |in_hand: &[(BatchId, u64)]| {
            let lane = pick(&lanes, &in_hand.iter().copied().collect()).expect("a lane");
            (lane.batch_id, lane.no)
        };

        assert_eq!(picked(&[]), (a, 0));
        assert_eq!(picked(&[(a, 5)]), (c, 0));
        assert_eq!(picked(&[(a, 5), (b, 4), (c, 4)]), (c, 0));
        assert_eq!(picked(&[(a, 5), (b, 4), (c, 6)]), (b, 0));
        assert_eq!(pick(&[], &HashMap::new()), None);
    }
}
