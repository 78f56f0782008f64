use super::*;
use proptest::prelude::*;

/// What is shown of an answer that arrives in pieces.
fn shown(stops: &[String], pieces: &[String]) -> String {
    let mut state = Stops::new(stops.to_vec());
    let mut text = String::new();
    for piece in pieces {
        let (more, ended) = state.push(piece);
        text += &more;
        if ended {
            return text;
        }
    }
    text + &state.flush()
}

proptest! {
    #[test]
    fn however_the_answer_is_cut_it_ends_before_the_first_stop(
        stops in prop::collection::vec("[abé]{1,4}", 0..3),
        pieces in prop::collection::vec("[abcé]{0,5}", 0..12),
    ) {
        let whole = pieces.concat();
        let shown = shown(&stops, &pieces);
        // A stop that is complete first ends the answer, before its own beginning.
        let ends = stops.iter().filter_map(|stop| whole.find(stop.as_str()).map(|at| at + stop.len()));
        match ends.min() {
            None => prop_assert_eq!(shown, whole),
            Some(end) => {
                prop_assert!(whole.starts_with(&shown) && shown.len() < end);
                prop_assert!(stops.iter().all(|stop| !shown.contains(stop.as_str())));
            }
        }
    }
}

#[test]
fn what_cannot_be_a_stop_is_shown_at_once() {
    let mut stops = Stops::new(vec!["END".into()]);
    assert_eq!(stops.push("the E"), ("the ".into(), false));
    assert_eq!(stops.push("N"), (String::new(), false));
    assert_eq!(stops.push("T"), ("ENT".into(), false));
    assert_eq!(stops.push("xEND and more"), ("x".into(), true));
}
