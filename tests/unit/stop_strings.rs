use super::*;
use proptest::prelude::*;

/// The text that is shown of an answer that arrives in pieces.
fn shown(stops: &[String], pieces: &[String]) -> String {
    let mut stop_strings = StopStrings::new(stops.to_vec(), std::iter::empty());
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
    let mut stops = StopStrings::new(vec!["END".into()], std::iter::empty());
    assert_eq!(stops.push("the E"), ("the ".into(), false));
    assert_eq!(stops.push("N"), (String::new(), false));
    assert_eq!(stops.push("T"), ("ENT".into(), false));
    assert_eq!(stops.push("xEND and more"), ("x".into(), true));
}

/// What is shown of an answer of texts and control tokens, the latter in angle brackets.
fn shown_with_controls(stops: &[String], pieces: &[String]) -> (String, bool) {
    let mut stop_strings = StopStrings::new(stops.to_vec(), ["<c>", "<d>"].into_iter());
    let mut text = String::new();
    for piece in pieces {
        let is_control = piece.starts_with('<');
        let (more, ended) = if is_control { stop_strings.push_control(piece) } else { stop_strings.push(piece) };
        text += &more;
        if ended {
            return (text, true);
        }
    }
    (text + &stop_strings.flush(), false)
}

#[test]
fn a_stop_string_with_a_control_token_inside_ends_the_answer() {
    let shown = |stops: &[&str], pieces: &[&str]| {
        let strings = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        shown_with_controls(&strings(stops), &strings(pieces))
    };
    let ended = |text: &str| (text.to_string(), true);
    let open = |text: &str| (text.to_string(), false);
    assert_eq!(shown(&["<c>\nUser:"], &["Hi", "<c>", "\nUs", "er: x"]), ended("Hi"));
    assert_eq!(shown(&["<c>\nUser:"], &["Hi", "<c>", "\nUs", "ing"]), open("Hi\nUsing"));
    assert_eq!(shown(&["<c>\nUser:"], &["Hi", "<d>", "\nUser:"]), open("Hi\nUser:"));
    assert_eq!(shown(&["b<c>", "xx"], &["ab", "<c>", "c"]), ended("a"));
    assert_eq!(shown(&["b<c>", "xx"], &["ax", "<c>", "<d>", "x"]), ended("a"), "text is seen without control tokens");
    assert_eq!(shown(&["a<c>", "b"], &["a", "<d>", "<c>", "b"]), ended("a"));
}

proptest! {
    #[test]
    fn the_first_of_both_kinds_of_stop_strings_counts(
        stops in prop::collection::vec("(<c>|<d>|a|b){1,4}", 1..4),
        pieces in prop::collection::vec("<c>|<d>|[abx]{0,4}", 0..12),
    ) {
        // A text that is a control token's alone is an id, and no stop string.
        let stops: Vec<String> = stops.into_iter().filter(|stop| stop != "<c>" && stop != "<d>").collect();
        let (shown, ended) = shown_with_controls(&stops, &pieces);
        let whole = pieces.concat();
        let visible = |text: &str| text.replace("<c>", "").replace("<d>", "");
        let (with, without): (Vec<&String>, Vec<&String>) = stops.iter().partition(|stop| stop.contains('<'));
        let seen = with.iter().any(|stop| whole.contains(stop.as_str()))
            || without.iter().any(|stop| visible(&whole).contains(stop.as_str()));
        prop_assert_eq!(ended, seen);
        prop_assert!(visible(&whole).starts_with(&shown));
        prop_assert!(ended || shown == visible(&whole));
        prop_assert!(!without.iter().any(|stop| shown.contains(stop.as_str())));
    }
}
