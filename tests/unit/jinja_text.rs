use super::*;
use proptest::prelude::*;

/// A text as a list of characters with their origins, and the same as a `Text`.
fn texts() -> impl Strategy<Value = (Vec<(char, bool)>, Text)> {
    let chars = prop::collection::vec((prop::sample::select(vec!['a', 'ß', '\n', '漢', '😀']), any::<bool>()), 0..12);
    chars.prop_map(|chars| (chars.clone(), build(&chars)))
}

fn build(chars: &[(char, bool)]) -> Text {
    let mut text = TextBuilder::default();
    chars.iter().for_each(|&(c, is_data)| text.push_char(c, is_data));
    text.finish()
}

/// Asserts that a text has these characters and origins, and that its ranges are as short as they can be.
fn assert_is(text: &Text, chars: &[(char, bool)]) {
    assert_eq!(text.chars().collect::<Vec<_>>(), chars);
    let ranges = text.data_ranges();
    assert!(ranges.iter().all(|range| range.start < range.end && range.end <= text.len()));
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
    assert_eq!(text.count_chars(), chars.len());
}

proptest! {
    #[test]
    fn origins_follow_their_characters(
        (a, left) in texts(), (b, right) in texts(), cut in 0usize..13, end in 0usize..13, count in 0usize..4,
    ) {
        assert_is(&left, &a);
        assert_is(&Text::concat([&left, &right].into_iter()), &[&a[..], &b].concat());
        let (cut, end) = (cut.min(a.len()), end.min(a.len()));
        let (cut, end) = (cut.min(end), cut.max(end));
        let byte = |n: usize| left.as_str().char_indices().nth(n).map_or(left.len(), |(at, _)| at);
        assert_is(&left.slice(byte(cut)..byte(end)), &a[cut..end]);
        let runs: Vec<_> = left.runs(byte(cut)..byte(end)).collect();
        assert!(runs.windows(2).all(|pair| pair[0].1 != pair[1].1));
        let of_runs = runs.iter().flat_map(|&(run, is_data)| run.chars().map(move |c| (c, is_data)));
        assert_eq!(of_runs.collect::<Vec<_>>(), &a[cut..end]);
        for (n, &(_, is_data)) in a.iter().enumerate() {
            assert_eq!(left.is_data_at(byte(n)), is_data);
        }
        let mut repeated = TextBuilder::default();
        repeated.push(&right);
        repeated.push_repeated(&left, count);
        assert_is(&repeated.finish(), &[b, a.repeat(count)].concat());
    }

    #[test]
    fn a_limit_is_the_size_of_the_largest_text((_, left) in texts(), (_, right) in texts(), count in 0usize..4) {
        let whole = |limit| {
            let mut whole = TextBuilder::limited(limit);
            whole.push(&left);
            whole.push_repeated(&right, count);
            whole.finish_within()
        };
        let unlimited = whole(usize::MAX).expect("no limit");
        prop_assert_eq!(whole(unlimited.size()), Ok(unlimited.clone()));
        if unlimited.size() > 0 {
            prop_assert_eq!(whole(unlimited.size() - 1), Err(Fault::TooLong));
        }
    }
}

#[test]
fn a_full_builder_takes_no_memory() {
    let mut text = TextBuilder::limited(100);
    text.push_repeated(&Text::data("0123456789"), usize::MAX);
    text.push_own("more");
    assert!(text.is_empty());
    assert_eq!(text.finish_within(), Err(Fault::TooLong));
}

#[test]
fn texts_are_equal_by_their_characters() {
    let [own, data] = [Text::own("a"), Text::data("a")];
    assert_eq!(own, data);
    assert_eq!(std::collections::HashSet::from([own.clone()]).get("a").map(Text::has_data), Some(false));
    assert!(std::collections::HashSet::from([data]).contains(&own));
    assert!(Text::own("\u{ffff}") < Text::own("\u{10000}"));
    assert!(!Text::data("").has_data());
}
