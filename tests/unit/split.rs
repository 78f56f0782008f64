use super::*;

fn pieces(pattern: &'static str, text: &'static str) -> Vec<&'static str> {
    split(&[Split::new(pattern).expect("a pattern")], text)
}

#[test]
fn the_last_space_goes_to_the_word() {
    for pattern in [r" ?\w+|\s+(?!\S)|\s+", r" ?\w+|\s+(?!\S)"] {
        assert_eq!(pieces(pattern, "a   b"), ["a", "  ", " b"]);
        assert_eq!(pieces(pattern, "a\t\tb"), ["a", "\t", "\t", "b"]);
        assert_eq!(pieces(pattern, " \u{3000}"), [" \u{3000}"]);
        assert_eq!(pieces(pattern, "\u{3000}\u{3000}b "), ["\u{3000}", "\u{3000}", "b", " "]);
        assert_eq!(pieces(pattern, "\t!a"), ["\t", "!", "a"]);
    }
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
