use super::*;
use serde_json::Value as Json;
use std::collections::HashMap;

fn characters() -> Json {
    serde_json::from_str(include_str!("../fixtures/python_characters.json")).expect("JSON")
}

/// All characters as Python has them in a class.
fn flat(ranges: &Json) -> Vec<u32> {
    let ends: Vec<u32> =
        ranges.as_array().expect("a list").iter().map(|end| end.as_u64().expect("a code") as u32).collect();
    ends.chunks(2).flat_map(|pair| pair[0]..=pair[1]).filter(|code| char::from_u32(*code).is_some()).collect()
}

fn all() -> impl Iterator<Item = char> {
    '\0'..=char::MAX
}

#[test]
fn every_character_is_in_the_classes_of_python() {
    let classes: [(&str, &dyn Fn(char) -> bool); 14] = [
        ("isalpha", &|c| ALPHABETIC.contains(c)),
        ("isdecimal", &|c| DECIMAL.contains(c)),
        ("isdigit", &|c| DIGIT.contains(c)),
        ("isnumeric", &|c| NUMERIC.contains(c)),
        ("isspace", &is_space),
        ("islower", &|c| LOWER.contains(c)),
        ("isupper", &|c| UPPER.contains(c)),
        ("istitle", &|c| TITLE.contains(c) || UPPER.contains(c)),
        ("isprintable", &|c| PRINTABLE.contains(c)),
        ("isidentifier", &|c| IDENTIFIER_START.contains(c)),
        ("continues_identifier", &|c| IDENTIFIER.contains(c)),
        ("ends_word", &|c| ends_word(&format!("{c}Σ"), c.len_utf8(), c.len_utf8() + 2)),
        ("is_skipped", &|c| ends_word(&format!("a{c}Σ"), c.len_utf8() + 1, c.len_utf8() + 3)),
        ("splits_lines", &is_line_break),
    ];
    let expected = characters();
    assert_eq!(expected["classes"].as_object().map(|classes| classes.len()), Some(classes.len()));
    for (name, class) in classes {
        let ours: Vec<u32> = all().filter(|&c| class(c)).map(u32::from).collect();
        let python = flat(&expected["classes"][name]);
        let missing =
            |a: &[u32], b: &[u32]| -> Vec<u32> { a.iter().filter(|c| b.binary_search(c).is_err()).copied().collect() };
        let differences = (missing(&ours, &python), missing(&python, &ours));
        assert_eq!(differences, (vec![], vec![]), "only ours, and only Python's: {name}");
    }
}

#[test]
fn every_character_changes_its_case_as_in_python() {
    let expected = characters();
    let cases = [
        ("lower", Case::Lower),
        ("upper", Case::Upper),
        ("title", Case::Title),
        ("casefold", Case::Fold),
        ("swapcase", Case::Swap),
        ("capitalize", Case::Capitalize),
    ];
    for (name, case) in cases {
        let lines = expected["cases"][name].as_str().expect("a text").lines();
        let mapped: HashMap<char, &str> = lines.filter_map(|line| Some((line.chars().next()?, line))).collect();
        assert!(mapped.len() > 1000);
        for c in all() {
            let python = mapped.get(&c).map_or(c.to_string(), |line| line[c.len_utf8()..].to_string());
            let ours = change_case(&Text::own(c), case, usize::MAX).expect("short");
            assert_eq!(ours.as_str(), python, "{name} of U+{:04X}", u32::from(c));
        }
    }
}

#[test]
fn every_decimal_digit_has_its_value() {
    let expected = characters();
    let zeros = expected["zeros"].as_array().expect("a list");
    let zeros: Vec<u32> = zeros.iter().map(|zero| zero.as_u64().expect("a code") as u32).collect();
    assert!(zeros.len() > 60);
    for zero in zeros {
        for digit in 0..10 {
            assert_eq!(char::from_u32(zero + digit).and_then(decimal_value), Some(digit));
        }
    }
    assert_eq!(decimal_value('²'), None);
}
