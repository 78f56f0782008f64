use super::*;
use crate::template::jinja::str_methods::{Slice, char_at, repeat, slice};
use crate::template::jinja::unicode::{escape_non_ascii, repr};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

const ENOUGH: usize = 1 << 20;

fn fixture() -> Json {
    serde_json::from_str(include_str!("../fixtures/python_str.json")).expect("JSON")
}

fn arg(json: &Json) -> Arg {
    let all = |items: &Json| items.as_array().expect("a list").iter().map(arg).collect();
    match json {
        Json::Null => Arg::None,
        Json::Bool(yes) => Arg::Bool(*yes),
        Json::Number(number) => number.as_i64().map_or(Arg::Other("float"), |number| Arg::Int(number.into())),
        Json::String(text) => Arg::Text(Text::own(text)),
        Json::Array(_) => Arg::Items(all(json)),
        Json::Object(tuple) => Arg::Tuple(all(&tuple["tuple"])),
    }
}

fn answer(answer: Answer) -> Json {
    match answer {
        Answer::Text(text) => text.as_str().into(),
        Answer::Int(number) => (number as i64).into(),
        Answer::Bool(yes) => yes.into(),
        Answer::Parts(parts) => parts.iter().map(Text::as_str).collect(),
        Answer::Items(items) => items.map(|item| item.as_str().to_string()).collect(),
        Answer::ItemsFromRight(items) => {
            let mut items: Vec<Text> = items.collect();
            items.reverse();
            items.iter().map(Text::as_str).collect()
        }
    }
}

/// A result as the fixtures have it. Python words its TypeErrors differently from one method to the next; only their
/// class is compared.
fn outcome(result: Result<Json, Fault>, expected: &Json) -> Json {
    match result {
        Ok(value) => json!({"is": value}),
        Err(Fault::Raised(class, _)) if class == "TypeError" && expected["raises"][0] == class => expected.clone(),
        Err(Fault::Raised(class, message)) => json!({"raises": [class, message]}),
        Err(other) => panic!("{other:?}"),
    }
}

fn int(json: &Json) -> Option<i128> {
    json.as_i64().or(json.as_bool().map(i64::from)).map(i128::from)
}

#[test]
fn methods_return_what_python_returns() {
    let mut count = 0;
    for (method, calls) in fixture()["calls"].as_object().expect("methods") {
        for case in calls.as_array().expect("calls") {
            let [text, args, named, expected] = &case.as_array().expect("a call")[..] else { panic!("{case}") };
            let args: Vec<Arg> = args.as_array().expect("arguments").iter().map(arg).collect();
            let named = named.as_object().expect("named arguments").iter();
            let named: Vec<(&str, Arg)> = named.map(|(name, value)| (name.as_str(), arg(value))).collect();
            let text = Text::data(text.as_str().expect("a text"));
            let ours = outcome(call(&text, method, &args, &named, ENOUGH).map(answer), expected);
            assert_eq!(&ours, expected, "{text:?}.{method} of {case}");
            count += 1;
        }
    }
    assert!(count > 4000);
}

#[test]
fn slices_and_items_are_those_of_python() {
    for case in fixture()["slices"].as_array().expect("slices") {
        let case = case.as_array().expect("a slice");
        let text = Text::data(case[0].as_str().expect("a text"));
        let expected = &case[case.len() - 1];
        let result = match &case[..] {
            [_, start, stop, step, _] => slice(&text, int(start), int(stop), int(step)),
            [_, index, _] => char_at(&text, int(index).expect("an index"))
                .ok_or_else(|| Fault::Raised("IndexError", "string index out of range".into())),
            _ => panic!("{case:?}"),
        };
        let ours = outcome(result.map(|text| text.as_str().into()), expected);
        assert_eq!(&ours, expected, "{case:?}");
        if let ([_, start, stop, step, _], Some(expected)) = (&case[..], expected["is"].as_str()) {
            let chars: Vec<char> = text.as_str().chars().collect();
            let items = Slice::new(chars.len(), int(start), int(stop), int(step)).expect("a slice").items();
            assert_eq!(items.map(|item| chars[item]).collect::<String>(), expected);
        }
    }
}

#[test]
fn repr_and_ascii_are_those_of_python() {
    for case in fixture()["reprs"].as_array().expect("texts") {
        let [text, plain, ascii] = [0, 1, 2].map(|n| case[n].as_str().expect("a text"));
        let shown = repr(&Text::data(text), ENOUGH).expect("short");
        let escaped = escape_non_ascii(&shown, ENOUGH).expect("short");
        assert_eq!((shown.as_str(), escaped.as_str()), (plain, ascii));
    }
}

#[test]
fn every_method_of_python_is_known() {
    let methods = fixture();
    let methods: Vec<&str> = methods["methods"].as_array().expect("names").iter().filter_map(Json::as_str).collect();
    assert!(methods.iter().all(|method| is_method(method)), "{methods:?}");
    assert_eq!(methods.len(), METHODS.len() + 2);
    assert!(!is_method("append"));
    for method in ["encode", "translate", "maketrans"] {
        let refused = call(&Text::own("a"), method, &[Arg::Text(Text::own("a"))], &[], ENOUGH);
        assert!(matches!(refused, Err(Fault::Unsupported(why)) if why.contains(method)));
    }
}

/// A text in which the marked parts are data: `a[b]c`.
fn marked(text: &str) -> Text {
    let mut out = crate::template::jinja::text::TextBuilder::default();
    let mut is_data = false;
    for c in text.chars() {
        match c {
            '[' | ']' => is_data = c == '[',
            c => out.push_char(c, is_data),
        }
    }
    out.finish()
}

/// The opposite of [`marked`].
fn show(text: &Text) -> String {
    text.runs(0..text.len()).map(|(run, is_data)| if is_data { format!("[{run}]") } else { run.into() }).collect()
}

#[test]
fn origins_follow_the_characters() {
    let cases: [(&str, &str, &[&str], &str); 22] = [
        ("a[b]c", "upper", &[], "A[B]C"),
        ("s[ß]s", "upper", &[], "S[SS]S"),
        ("a[B]", "swapcase", &[], "A[b]"),
        ("a[b b]", "title", &[], "A[b B]"),
        ("[ a] ", "strip", &[], "[a]"),
        ("x[xay]y", "strip", &["xy"], "[a]"),
        ("a[bc]d", "removeprefix", &["ab"], "[c]d"),
        ("a[bc]d", "removesuffix", &["cd"], "a[b]"),
        ("[a/thinkb]", "replace", &["/think", ""], "[ab]"),
        ("[abc]", "replace", &["b", "X"], "[a]X[c]"),
        ("abc", "replace", &["b", "[X]"], "a[X]c"),
        ("[abc]", "replace", &["", "-"], "-[a]-[b]-[c]-"),
        ("a[b]", "partition", &["b"], "a|[b]|"),
        ("a,[b]c,[d,]e", "split", &[","], "a|[b]c|[d]|e"),
        ("a[ b]c", "rsplit", &[], "a|[b]c"),
        ("a[\nb]\n", "splitlines", &[], "a|[b]"),
        ("[,]", "join", &["a[b]"], "a[,b]"),
        ("[\t]a\t", "expandtabs", &[], "[        ]a       "),
        ("[-1]", "zfill", &["5"], "[-]000[1]"),
        ("a[b]", "center", &["6", "[*]"], "[**]a[b**]"),
        ("a[b]", "ljust", &["4"], "a[b]  "),
        ("[a]b", "casefold", &[], "[a]b"),
    ];
    for (text, method, args, expected) in cases {
        let arg = |text: &&str| text.parse().map_or_else(|_| Arg::Text(marked(text)), Arg::Int);
        let args: Vec<Arg> = args.iter().map(arg).collect();
        let result = match call(&marked(text), method, &args, &[], ENOUGH).expect("a result") {
            Answer::Text(text) => show(&text),
            Answer::Parts(parts) => parts.each_ref().map(show).join("|"),
            Answer::Items(items) => items.map(|item| show(&item)).collect::<Vec<_>>().join("|"),
            Answer::ItemsFromRight(items) => {
                let items: Vec<String> = items.map(|item| show(&item)).collect();
                items.into_iter().rev().collect::<Vec<_>>().join("|")
            }
            Answer::Int(_) | Answer::Bool(_) => panic!("no text"),
        };
        assert_eq!(result, expected, "{text}.{method}");
    }
    assert_eq!(show(&slice(&marked("a[bc]d"), None, None, Some(-1)).expect("a slice")), "d[cb]a");
    assert_eq!(show(&char_at(&marked("a[ß]"), -1).expect("a character")), "[ß]");
    assert_eq!(show(&repeat(&marked("a[b]"), 2, ENOUGH).expect("short")), "a[b]a[b]");
    assert_eq!(show(&repr(&marked("a[\n]'"), ENOUGH).expect("short")), "[\"]a[\\n]'[\"]");
}

#[test]
fn results_longer_than_the_limit_are_never_built() {
    let huge = i128::from(i64::MAX);
    let [text, tab] = [Text::data("ab"), Text::own("\ta")];
    let long = Text::own("a".repeat(1000));
    let int = Arg::Int(huge);
    let calls: [(&Text, &str, Vec<Arg>); 7] = [
        (&text, "ljust", vec![int.clone()]),
        (&text, "rjust", vec![int.clone()]),
        (&text, "center", vec![int.clone(), Arg::Text(Text::own("漢"))]),
        (&text, "zfill", vec![int.clone()]),
        (&tab, "expandtabs", vec![Arg::Int(i32::MAX.into())]),
        (&long, "replace", vec![Arg::Text(Text::own("a")), Arg::Text(long.clone())]),
        (&long, "join", vec![Arg::Text(long.clone())]),
    ];
    for (text, method, args) in calls {
        assert!(matches!(call(text, method, &args, &[], 100_000), Err(Fault::TooLong)), "{method}");
    }
    assert_eq!(repeat(&text, i128::MAX, 100_000), Err(Fault::TooLong));
    assert_eq!(repeat(&text, -5, 0), Ok(Text::default()));
}

#[test]
fn long_texts_take_linear_time() {
    let text = Text::data("aΣ".repeat(100_000) + &"'".repeat(100_000));
    let part = Text::own("aΣ".repeat(1000) + "b");
    let start = std::time::Instant::now();
    for method in ["lower", "title", "find", "rfind", "count", "split", "rsplit", "strip", "partition", "replace"] {
        let args = match method {
            "lower" | "title" => vec![],
            "replace" => vec![Arg::Text(part.clone()), Arg::Text(part.clone())],
            _ => vec![Arg::Text(part.clone())],
        };
        let result = call(&text, method, &args, &[], ENOUGH).expect("short");
        drop(answer(result));
    }
    assert!(start.elapsed().as_secs() < 5);
}

proptest! {
    #[test]
    fn no_character_of_data_becomes_the_templates_own(text in "[a-cA ß\n\t]{0,12}", sub in "[a-c ]{0,2}") {
        let [text, sub] = [text, sub].map(Text::data);
        for (method, _, most, _) in &METHODS {
            let args = [Arg::Text(sub.clone()), Arg::Text(sub.clone())];
            let args = &args[..if *method == "replace" { 2 } else { 1.min(*most) }];
            let texts: Vec<Text> = match call(&text, method, args, &[], ENOUGH) {
                Ok(Answer::Text(text)) => vec![text],
                Ok(Answer::Parts(parts)) => parts.to_vec(),
                Ok(Answer::Items(items) | Answer::ItemsFromRight(items)) => items.collect(),
                _ => vec![],
            };
            for (_, is_data) in texts.iter().flat_map(Text::chars) {
                prop_assert!(is_data, "{method}");
            }
        }
    }
}
