use super::*;
use proptest::prelude::*;

/// The text that is shown of an answer that arrives in pieces.
fn shown(stops: &[String], pieces: &[String]) -> String {
    let mut stop_strings = StopStrings::new(stops.to_vec());
    let mut text = String::new();
    for piece in pieces {
        let (more, ended) = stop_strings.push(piece);
        text += &more;
        if ended {
            return text;
        }
    }
    text + &stop_strings.flush()
}

proptest! {
    #[test]
    fn an_answer_in_any_pieces_ends_before_its_first_stop_string(
        stops in prop::collection::vec("[abé]{1,4}", 0..3),
        pieces in prop::collection::vec("[abcé]{0,5}", 0..12),
    ) {
        let whole = pieces.concat();
        let shown = shown(&stops, &pieces);
        // The stop string that is completed first ends the answer, where the string starts.
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
fn text_that_cannot_start_a_stop_string_is_shown_at_once() {
    let mut stops = StopStrings::new(vec!["END".into()]);
    assert_eq!(stops.push("the E"), ("the ".into(), false));
    assert_eq!(stops.push("N"), (String::new(), false));
    assert_eq!(stops.push("T"), ("ENT".into(), false));
    assert_eq!(stops.push("xEND and more"), ("x".into(), true));
}
