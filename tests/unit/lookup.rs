use super::*;

#[test]
fn the_longest_match_is_followed_and_of_equal_ones_the_latest() {
    assert_eq!(after_last_match(&[1, 2, 3, 9, 1, 2], 4), [3, 9, 1, 2]);
    assert_eq!(after_last_match(&[7, 1, 2, 3, 8, 1, 2, 4, 7, 1, 2], 2), [3, 8], "three ids match there");
    assert_eq!(after_last_match(&[8, 1, 2, 3, 9, 1, 2, 4, 7, 1, 2], 1), [4], "two ids match at both");
    assert_eq!(after_last_match(&[5, 5, 5, 5], 3), [5, 5, 5]);
    assert_eq!(after_last_match(&[1, 2, 1, 2], 5), [1, 2, 1, 2, 1]);
    for nothing in [&[][..], &[1], &[1, 2, 3], &[2, 1, 3, 1]] {
        assert!(after_last_match(nothing, 9).is_empty(), "{nothing:?}");
    }
}

/// A text as ids: one for each distinct word, space or sign.
fn as_ids(text: &str, known: &mut Vec<String>) -> Vec<TokenId> {
    let kind = |c: char| if c.is_alphanumeric() { 0 } else { c as u32 };
    let mut pieces: Vec<String> = Vec::new();
    for c in text.chars() {
        match pieces.last_mut().filter(|piece| piece.chars().last().map(kind) == Some(kind(c))) {
            Some(piece) => piece.push(c),
            None => pieces.push(c.to_string()),
        }
    }
    let mut id = |piece: String| {
        let at = known.iter().position(|other| *other == piece).unwrap_or(known.len());
        if at == known.len() {
            known.push(piece);
        }
        at as TokenId
    };
    pieces.into_iter().map(&mut id).collect()
}

/// How many times faster an answer is than in plain decoding, if the model answers exactly this.
fn gain(prompt: &[TokenId], answer: &[TokenId], row: f64) -> f64 {
    let (mut lookup, mut ids, mut done, mut time) = (Lookup::default(), prompt.to_vec(), 0, 0.0);
    while done < answer.len() {
        let guesses = lookup.guess(&ids, answer.len() - done - 1, row);
        let right = guesses.iter().zip(&answer[done..]).take_while(|(a, b)| a == b).count();
        lookup.learn(guesses.len(), right);
        time += 1.0 + guesses.len() as f64 * row;
        ids.extend(&answer[done..][..right + 1]);
        done += right + 1;
    }
    answer.len() as f64 / time
}

#[test]
fn an_edit_and_a_quotation_gain_and_other_texts_lose_little() {
    let source = include_str!("../../src/decode/lookup.rs");
    let edited = source.replace("guesses", "candidates").replace("steps: u64", "steps: usize").replace("// ", "// So ");
    let mut known = Vec::new();
    let [source, edited] = [source, &edited].map(|text| as_ids(text, &mut known));
    let quotation = &source[source.len() / 3..source.len() / 2];
    let mut state = 1u32;
    let noise: Vec<TokenId> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 24
    })
    .take(800)
    .collect();
    // What a row costs: on processors whose decoding waits for memory, and where it waits for arithmetic.
    for (row, edit, quote) in [(0.25, 1.9, 1.9), (0.6, 1.2, 1.2)] {
        let gains = [gain(&source, &edited, row), gain(&source, quotation, row), gain(&source, &noise, row)];
        println!("a row costs {row}: edit {:.2}, quotation {:.2}, noise {:.3}", gains[0], gains[1], gains[2]);
        assert!(gains[0] > edit && gains[1] > quote && gains[2] > 0.97, "{row}: {gains:?}");
    }
}

#[test]
fn wrong_guesses_cost_little_in_all() {
    let ids = [1, 2, 3, 1, 2];
    for row in [0.05, 0.25, 0.6, 0.9] {
        let mut lookup = Lookup::default();
        let steps = 400;
        let cost: f64 = (0..steps)
            .map(|_| {
                let guesses = lookup.guess(&ids, 8, row).len();
                lookup.learn(guesses, 0);
                guesses as f64 * row
            })
            .sum();
        assert!(cost <= ALLOWANCE.0 + ALLOWANCE.1 * steps as f64, "{row}: {cost}");
        assert!(cost > 0.0 || row > FIRST_CHANCE);
    }
}

#[test]
fn right_guesses_are_used_to_the_full() {
    let ids: Vec<TokenId> = (0..40).chain(0..20).collect();
    let mut lookup = Lookup::default();
    for _ in 0..20 {
        let guesses = lookup.guess(&ids, 8, 0.25).len();
        lookup.learn(guesses, guesses);
    }
    assert_eq!(lookup.guess(&ids, 8, 0.25), [20, 21, 22, 23, 24, 25, 26, 27]);
    assert_eq!(lookup.guess(&ids, 3, 0.25), [20, 21, 22], "no more than there is room for");
}
