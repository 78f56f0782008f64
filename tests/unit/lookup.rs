use super::*;

#[test]
fn the_longest_match_is_followed_and_of_equal_ones_the_latest() {
    assert_eq!(after_last_match(&[1, 2, 3, 9, 1, 2]), [3, 9, 1, 2]);
    assert_eq!(after_last_match(&[7, 1, 2, 3, 8, 1, 2, 4, 7, 1, 2])[..2], [3, 8], "three ids match there");
    assert_eq!(after_last_match(&[8, 1, 2, 3, 9, 1, 2, 4, 7, 1, 2])[..1], [4], "two ids match at both");
    assert_eq!(after_last_match(&[5, 5, 5, 5]), [5]);
    for nothing in [&[][..], &[1], &[1, 2, 3], &[2, 1, 3, 1]] {
        assert!(after_last_match(nothing).is_empty(), "{nothing:?}");
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
