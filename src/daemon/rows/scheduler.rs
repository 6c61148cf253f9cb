//! Which lane to claim from next: a pure decision over what the claim loop has gathered.

use super::backlog::Survey;
use crate::domain::lease::OpenLane;

/// Picks one of the lanes that want rows, and says how many rows to claim: a lane of the model with the fewest rows
/// waiting here, of these the lane with the fewest, and of these the one whose window closes first.
pub(super) fn pick<'a>(lanes: &'a [OpenLane], survey: &Survey) -> Option<(&'a OpenLane, u32)> {
    let wanting = lanes.iter().filter_map(|lane| Some((lane, survey.wanted(lane)?)));
    wanting.min_by_key(|(lane, _)| (survey.waiting(lane), lane.expires_at, lane.batch_id, lane.no))
}

#[cfg(test)]
mod tests {
    use super::super::backlog::Backlogs;
    use super::*;
    use crate::domain::ids::BatchId;
    use crate::domain::time::Timestamp;

    fn lane(batch_id: BatchId, model: &str, expires_at: i64) -> OpenLane {
        OpenLane { batch_id, no: 0, model: model.into(), next: 0, last: 10, expires_at: Timestamp(expires_at) }
    }

    #[test]
    fn the_model_with_the_fewest_rows_waiting_is_next_then_the_batch_then_the_earliest_deadline() {
        let (a, b, c) = (BatchId::new(), BatchId::new(), BatchId::new());
        let lanes = [lane(a, "x", 1), lane(b, "y", 3), lane(c, "x", 2)];
        let backlogs = Backlogs::default();
        let picked = |backlogs: &Backlogs| {
            let survey = backlogs.survey(100);
            pick(&lanes, &survey).map(|(lane, rows)| (lane.batch_id, rows))
        };

        assert_eq!(picked(&backlogs), Some((a, 10)));
        let _of_a = backlogs.add(a, "x", 5);
        assert_eq!(picked(&backlogs), Some((b, 10)));
        let _of_b = backlogs.add(b, "y", 6);
        assert_eq!(picked(&backlogs), Some((c, 10)));
        let _enough = [backlogs.add(a, "x", 900), backlogs.add(b, "y", 900), backlogs.add(c, "x", 900)];
        assert_eq!(picked(&backlogs), None);
        assert!(pick(&[], &backlogs.survey(100)).is_none());
    }
}
