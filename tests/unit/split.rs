use super::*;

fn pieces<'a>(pattern: &str, text: &'a str) -> Vec<&'a str> {
    let split = Split::new(pattern).expect("a pattern");
    split.pieces(text).into_iter().map(|range| &text[range]).collect()
}

#[test]
fn the_last_space_goes_to_the_word() {
    for pattern in [r" ?\w+|\s+(?!\S)|\s+", r" ?\w+|\s+(?!\S)"] {
        assert_eq!(pieces(pattern, "a   b"), ["a", "  ", " b"]);
        assert_eq!(pieces(pattern, "a\t\tb"), ["a", "\t", "\t", "b"]);
        assert_eq!(pieces(pattern, " \u{3000}"), [" \u{3000}"]);
        assert_eq!(pieces(pattern, "\u{3000}\u{3000}b "), ["\u{3000}", "\u{3000}", "b", " "]);
    }
    // Only the first matches a single space. For the second it belongs to the gap.
    assert_eq!(pieces(r" ?\w+|\s+(?!\S)|\s+", "\t!a"), ["\t", "!", "a"]);
    assert_eq!(pieces(r" ?\w+|\s+(?!\S)", "\t!a"), ["\t!", "a"]);
}

#[test]
fn gaps_are_pieces_and_empty_matches_are_not() {
    assert_eq!(pieces("b", "aabba"), ["aa", "b", "b", "a"]);
    assert_eq!(pieces("b*", "aébba"), ["aé", "bb", "a"]);
    assert_eq!(pieces("b*", "é"), ["é"]);
}

#[test]
fn unsupported_patterns_are_refused() {
    for pattern in [r"a(?=b)", r"(?<!a)b", r"a++b", r"(?>a)", r"(a)\1", "(", r"\p{L}{1,1000}{1,1000}"] {
        let refusal = Split::new(pattern).err().expect(pattern).to_string();
        assert!(refusal.contains(pattern), "{refusal}");
    }
}

/// A regex engine that tries every start anew gives the same pieces, in quadratic time.
#[test]
fn scans_that_look_ahead_in_vain_are_not_repeated() {
    let long = "a".repeat(100_000);
    for pattern in [r"a.*?b|a", r"a.*b|a", r"a+b|a", r"(?:aa)*b|aaa|a", r"a[^b]*b", r"a(?:.{7})*b|a"] {
        let split = Split::new(pattern).expect("a pattern");
        for text in [&long[..300], &format!("{}b{}", &long[..100], &long[..150])] {
            let regex = regex_automata::meta::Regex::new(pattern).expect("a pattern");
            let matches: Vec<Range<usize>> = regex.find_iter(text).map(|found| found.range()).collect();
            let own: Vec<Range<usize>> =
                split.parts(text).into_iter().filter(|part| part.1).map(|part| part.0).collect();
            assert_eq!(own, matches, "{pattern}");
        }
        let mut memo = Memo::default();
        let cache = &mut split.caches.get();
        let (mut at, mut steps) = (0, 0);
        while at < long.len() {
            let end = split.find(&long, at, cache, &mut memo);
            at = end.unwrap_or(at + 1);
            steps += memo.steps;
        }
        assert!(steps < 200 * long.len(), "{pattern}: {steps} steps");
    }
}

#[test]
fn a_pattern_with_too_many_parts_is_refused() {
    let error = |pattern: &str| Split::new(pattern).err().map(|error| error.to_string()).unwrap_or_default();
    for pattern in [r"(a{1,100}){1,100}b|a", r"(?:a{1,40}){1,40}", &"a?".repeat(1001), &r"\p{L}{900}|".repeat(2)] {
        assert!(error(pattern).contains("parts with its repetitions, more than 1000"), "{pattern}: {}", error(pattern));
    }
    for pattern in [r"(a{1,30}){1,30}b|a", r"\p{N}{1,3}|[^\r\n\p{L}\p{N}]?\p{L}+", &"a".repeat(5000)] {
        assert_eq!(error(pattern), "");
    }
}
