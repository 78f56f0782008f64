use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const STATES: [Option<ThoughtState>; 4] =
    [None, Some(ThoughtState::NotBegun), Some(ThoughtState::Begun), Some(ThoughtState::Over)];

/// Thoughts and answer of a text that arrives in pieces.
fn split(state: Option<ThoughtState>, pieces: &[&str]) -> (String, String) {
    let mut splitter = ThoughtSplitter::new(state);
    let (mut reasoning, mut text) = (String::new(), String::new());
    for piece in pieces {
        splitter.push(piece, false).add_to(&mut reasoning, &mut text);
    }
    splitter.push("", true).add_to(&mut reasoning, &mut text);
    (reasoning, text)
}

/// The same for a whole text, as templates take it apart.
fn expected(state: Option<ThoughtState>, text: &str) -> (String, String) {
    let apart = |text: &str| {
        let (thoughts, answer) = text.split_once(END).unwrap_or((text, ""));
        (thoughts.trim_matches('\n').to_string(), answer.trim_start_matches('\n').to_string())
    };
    match (state, text.trim_start().strip_prefix(BEGIN)) {
        (None, _) => (String::new(), text.to_string()),
        (Some(ThoughtState::Begun), _) => apart(text),
        (Some(_), Some(thoughts)) => apart(thoughts),
        (Some(ThoughtState::NotBegun), None) if text.contains(END) => apart(text),
        (Some(_), None) => (String::new(), text.to_string()),
    }
}

/// Texts in which marks, parts of marks and newlines are frequent.
fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => Just("<think>"), 3 => Just("</think>"), 3 => Just("\n"), 1 => Just(" "), 1 => Just("<thi"),
        1 => Just("</think"), 1 => Just("</"), 1 => Just("<"), 2 => Just("é"), 2 => Just("ab"),
    ];
    prop::collection::vec(part, 0..9).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn a_text_in_any_pieces_is_split_as_the_whole(
        state in prop::sample::select(STATES.to_vec()),
        text in texts(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let cuts: BTreeSet<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        let cuts: Vec<usize> = cuts.into_iter().filter(|cut| text.is_char_boundary(*cut)).collect();
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([text.len()]);
        let pieces: Vec<&str> = starts.zip(ends).map(|(start, end)| &text[start..end]).collect();
        let each: Vec<String> = text.chars().map(String::from).collect();
        let each: Vec<&str> = each.iter().map(String::as_str).collect();
        let whole = expected(state, &text);
        prop_assert_eq!(split(state, &pieces), whole.clone(), "{:?}", pieces);
        prop_assert_eq!(split(state, &each), whole);
    }
}

#[test]
fn thoughts_leave_the_answer() {
    let pieces = ["<th", "ink>\n", "Let me", " see.\n", "\n</thi", "nk>", "\n\nFour", ".\n"];
    let both = ("Let me see.".to_string(), "Four.\n".to_string());
    assert_eq!(split(Some(ThoughtState::NotBegun), &pieces), both);
    assert_eq!(split(Some(ThoughtState::Over), &pieces), both);
    assert_eq!(split(Some(ThoughtState::Begun), &["Let me see.\n</think>\nFour.\n"]), both);
    assert_eq!(split(Some(ThoughtState::NotBegun), &["Let me see.", "</think>\nFour.\n"]), both);
    assert_eq!(split(None, &["<think>a</think>b"]), (String::new(), "<think>a</think>b".into()));
}

#[test]
fn what_is_certain_is_given_at_once() {
    let mut splitter = ThoughtSplitter::new(Some(ThoughtState::NotBegun));
    let mut pushed = |text: &str| {
        let split = splitter.push(text, false);
        (split.reasoning, split.text)
    };
    let thought = |text: &str| (text.to_string(), String::new());
    assert_eq!(pushed("<think>"), thought(""));
    assert_eq!(pushed("\na"), thought("a"));
    assert_eq!(pushed("\n"), thought(""));
    assert_eq!(pushed("b</x"), thought("\nb</x"));
    assert_eq!(pushed("</think>\n"), thought(""));
    assert_eq!(pushed("c</"), (String::new(), "c</".into()), "after the thoughts nothing is held back");
}

#[test]
fn an_answer_that_turns_out_to_be_thought_says_so() {
    let mut splitter = ThoughtSplitter::new(Some(ThoughtState::NotBegun));
    assert_eq!(splitter.push("a", false), Split { text: "a".into(), ..Split::default() });
    let split = splitter.push("b</think>c", false);
    assert_eq!(split, Split { reasoning: "b".into(), text: "c".into(), all_thought: true });
}
