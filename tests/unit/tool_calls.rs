use super::*;
use crate::template::{Template, Tool};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;

const FORMATS: [CallFormat; 6] = [
    CallFormat::Hermes,
    CallFormat::Xml,
    CallFormat::Llama,
    CallFormat::Mistral,
    CallFormat::MistralArgs,
    CallFormat::Json,
];

fn reader(format: CallFormat) -> CallReader {
    let parameters = json!({"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"type": ["string", "null"]}, "any": {},
    }});
    let tools = json!([
        {"type": "function", "function": {"name": "weather", "parameters": parameters}},
        {"name": "now"},
    ]);
    CallReader { format, tools: Tool::all(&tools).expect("tools"), parallel: true }
}

/// Text and calls of an answer that arrives in pieces.
fn split_by(reader: CallReader, pieces: &[&str]) -> (String, Vec<(String, Json)>) {
    let mut splitter = CallSplitter::new(Some(reader));
    let (mut text, mut calls) = (String::new(), Vec::new());
    for (i, piece) in pieces.iter().chain(&[""]).enumerate() {
        let split = splitter.push(piece, i == pieces.len());
        text += &split.text;
        calls.extend(split.calls);
    }
    let parsed = |call: FoundCall| (call.name, serde_json::from_str(&call.arguments).expect("JSON"));
    (text, calls.into_iter().map(parsed).collect())
}

fn split(format: CallFormat, answer: &str) -> (String, Vec<(String, Json)>) {
    split_by(reader(format), &[answer])
}

fn paris() -> (String, Json) {
    ("weather".into(), json!({"city": "Paris"}))
}

fn now() -> (String, Json) {
    ("now".into(), json!({}))
}

/// Answers made of calls, of what looks like calls, and of parts of both.
fn answers() -> impl Strategy<Value = String> {
    let parts = vec![
        "<tool_call>",
        "</tool_call>",
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
        "<tool_call>{\"name\": \"now\"}</tool_call>",
        "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>",
        "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        "<function=now>",
        "</function>",
        "<parameter=city>",
        "</parameter>",
        "{\"name\": \"weather\", \"parameters\": {\"city\": \"Paris\"}}",
        "{\"name\": \"now\", \"arguments\": {}}",
        "{\"name\": \"now\"",
        "{\"a\": \"}\\\"\"}",
        "[TOOL_CALLS]",
        "[TOOL_CALLS][{\"name\": \"now\"}]",
        "[TOOL_CALLS]now[ARGS]{}",
        "[ARGS]",
        "<|python_tag|>",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "\\",
        ";",
        "\n",
        " ",
        "<tool",
        "</",
        "é",
        "ab",
    ];
    prop::collection::vec(prop::sample::select(parts), 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn an_answer_in_any_pieces_is_split_as_the_whole(
        format in prop::sample::select(FORMATS.to_vec()),
        answer in answers(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        parallel in any::<bool>(),
    ) {
        let cuts: BTreeSet<usize> = cuts.iter().map(|cut| cut.index(answer.len() + 1)).collect();
        let cuts: Vec<usize> = cuts.into_iter().filter(|cut| answer.is_char_boundary(*cut)).collect();
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([answer.len()]);
        let pieces: Vec<&str> = starts.zip(ends).map(|(start, end)| &answer[start..end]).collect();
        let each: Vec<String> = answer.chars().map(String::from).collect();
        let each: Vec<&str> = each.iter().map(String::as_str).collect();
        let reader = CallReader { parallel, ..reader(format) };
        let whole = split_by(reader.clone(), &[&answer]);
        prop_assert_eq!(split_by(reader.clone(), &pieces), whole.clone(), "{:?}", pieces);
        prop_assert_eq!(split_by(reader, &each), whole);
    }

    #[test]
    fn text_between_calls_is_kept(
        format in prop::sample::select(vec![CallFormat::Hermes, CallFormat::Xml]),
        texts in prop::collection::vec("[a-c<{\\[;\"]{0,5}", 1..5),
    ) {
        let call = "<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>";
        let (text, calls) = split(format, &texts.join(call));
        prop_assert_eq!(text, texts.concat());
        prop_assert_eq!(calls, vec![now(); texts.len() - 1]);
    }

    #[test]
    fn without_a_call_an_answer_is_its_text(format in prop::sample::select(FORMATS.to_vec()), answer in answers()) {
        let none = CallReader { tools: Vec::new(), ..reader(format) };
        prop_assert_eq!(split_by(none, &[&answer]), (answer.clone(), Vec::new()));
        prop_assert_eq!(CallSplitter::new(None).push(&answer, false).text, answer);
    }
}

#[test]
fn each_format_has_its_calls() {
    let hermes = "I look.\n\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n\
                  <tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n";
    assert_eq!(split(CallFormat::Hermes, hermes), ("I look.".into(), vec![paris(), now()]));
    let xml = "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>\n\
               <tool_call>\n<function=now>\n</function>\n</tool_call>";
    assert_eq!(split(CallFormat::Xml, xml), (String::new(), vec![paris(), now()]));
    let llama =
        "{\"name\": \"weather\", \"parameters\": {\"city\": \"Paris\"}}; {\"name\": \"now\", \"parameters\": {}}";
    assert_eq!(split(CallFormat::Llama, llama), (String::new(), vec![paris(), now()]));
    let tagged = format!("<|python_tag|>{llama}");
    assert_eq!(split(CallFormat::Llama, &tagged), (String::new(), vec![paris(), now()]));
    let mistral = "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}, {\"name\": \"now\"}]";
    assert_eq!(split(CallFormat::Mistral, mistral), (String::new(), vec![paris(), now()]));
    let later = "Well[TOOL_CALLS]weather[ARGS]{\"city\": \"Paris\"}[TOOL_CALLS]now[ARGS]{}";
    assert_eq!(split(CallFormat::MistralArgs, later), ("Well".into(), vec![paris(), now()]));
    let json = "{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n{\"name\": \"now\", \"arguments\": {}}";
    assert_eq!(split(CallFormat::Json, json), (String::new(), vec![paris(), now()]));
}

#[test]
fn arguments_may_be_written_in_several_ways() {
    for call in [
        r#"{"name": "weather", "arguments": "{\"city\": \"Paris\"}"}"#,
        r#"{"type": "function", "name": "weather", "parameters": {"city": "Paris"}}"#,
        r#"{"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}"#,
        r#"[{"name": "weather", "arguments": {"city": "Paris"}}]"#,
    ] {
        assert_eq!(
            split(CallFormat::Hermes, &format!("<tool_call>{call}</tool_call>")),
            (String::new(), vec![paris()])
        );
    }
    let odd = r#"<tool_call>{"name": "weather", "arguments": {"city": "</tool_call> {\" \\"}}</tool_call>"#;
    let city = json!({"city": "</tool_call> {\" \\"});
    assert_eq!(split(CallFormat::Hermes, odd), (String::new(), vec![("weather".into(), city)]));
}

#[test]
fn values_between_tags_have_the_type_of_the_schema() {
    let call = |values: &[(&str, &str)]| {
        let value = |(name, value): &(&str, &str)| format!("<parameter={name}>\n{value}\n</parameter>\n");
        let values: String = values.iter().map(value).collect();
        split(CallFormat::Xml, &format!("<tool_call>\n<function=weather>\n{values}</function>\n</tool_call>"))
    };
    let weather = |arguments: Json| (String::new(), vec![("weather".to_string(), arguments)]);
    assert_eq!(call(&[("city", "12"), ("days", "12")]), weather(json!({"city": "12", "days": 12})));
    assert_eq!(call(&[("unit", "null"), ("city", "null")]), weather(json!({"unit": null, "city": "null"})));
    assert_eq!(call(&[("any", "[1]"), ("days", "two")]), weather(json!({"any": [1], "days": "two"})));
    assert_eq!(call(&[("any", "True"), ("days", "None")]), weather(json!({"any": true, "days": null})));
    let code = "a </parameter> b\n</function> c\n";
    assert_eq!(call(&[("city", code)]), weather(json!({ "city": code })));
}

#[test]
fn what_is_no_call_stays_text() {
    for (format, answer) in [
        (CallFormat::Hermes, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": Paris}}\n</tool_call>"),
        (CallFormat::Hermes, " <tool_call>{\"name\": \"fly\", \"arguments\": {}}</tool_call> "),
        (CallFormat::Hermes, "<tool_call>{\"name\": \"now\", \"arguments\": 5}</tool_call>"),
        (CallFormat::Hermes, "<tool_call>{\"name\": \"now\"} and"),
        (CallFormat::Hermes, "The mark is <tool_call>.\n"),
        (CallFormat::Xml, "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n"),
        (CallFormat::Xml, "<tool_call><function=fly></function></tool_call>"),
        (CallFormat::Llama, "{\"name\": \"fly\", \"parameters\": {}}"),
        (CallFormat::Llama, "It is {\"name\": \"now\", \"parameters\": {}}"),
        (CallFormat::Llama, "<|python_tag|>print(1)"),
        (CallFormat::Json, "{\"a\": 1} "),
        (CallFormat::Mistral, "[TOOL_CALLS] none"),
    ] {
        assert_eq!(split(format, answer), (answer.to_string(), Vec::new()));
    }
}

#[test]
fn a_broken_call_does_not_hide_the_next_one() {
    let broken = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}\n</tool_call>";
    let answer = format!("{broken}\n<tool_call>\n{{\"name\": \"now\"}}\n</tool_call>");
    assert_eq!(split(CallFormat::Hermes, &answer), (broken.into(), vec![now()]));
}

#[test]
fn an_answer_may_end_without_the_end_tag() {
    assert_eq!(split(CallFormat::Hermes, "<tool_call>\n{\"name\": \"now\"}\n"), (String::new(), vec![now()]));
    let xml = "<tool_call>\n<function=now>\n</function>";
    assert_eq!(split(CallFormat::Xml, xml), (String::new(), vec![now()]));
    let open = "<tool_call>\n{\"name\": \"now\"}\n</tool";
    assert_eq!(split(CallFormat::Hermes, open), (open.into(), Vec::new()));
}

#[test]
fn without_parallel_calls_only_the_first_one_counts() {
    let call = "<tool_call>{\"name\": \"now\"}</tool_call>";
    let one = CallReader { parallel: false, ..reader(CallFormat::Hermes) };
    assert_eq!(split_by(one, &[call, "\n", call, "end"]), ("end".into(), vec![now()]));
    let one = CallReader { parallel: false, ..reader(CallFormat::Json) };
    assert_eq!(split_by(one, &["[{\"name\": \"now\"}, {\"name\": \"now\"}]"]), (String::new(), vec![now()]));
}

#[test]
fn what_is_certain_is_given_at_once() {
    let mut splitter = CallSplitter::new(Some(reader(CallFormat::Hermes)));
    let mut pushed = |text: &str| {
        let split = splitter.push(text, false);
        (split.text, split.calls.len())
    };
    assert_eq!(pushed("a b"), ("a b".into(), 0));
    assert_eq!(pushed(" \n<tool"), (String::new(), 0));
    assert_eq!(pushed("s>"), (" \n<tools>".into(), 0));
    assert_eq!(pushed("\n<tool_call>x"), ("\n<tool_call>x".into(), 0));
    assert_eq!(pushed("<tool_call>{\"name\": \"now\"}"), (String::new(), 0));
    assert_eq!(pushed("</tool_call>"), (String::new(), 1));
    assert_eq!(pushed("\n"), (String::new(), 0));
    assert_eq!(pushed("b"), ("\nb".into(), 0));
    let mut bare = CallSplitter::new(Some(reader(CallFormat::Llama)));
    assert_eq!(bare.push("Four {", false).text, "Four {");
}

#[test]
fn ids_are_nine_letters_and_digits_that_differ() {
    let ids: BTreeSet<String> =
        [(1, 5, 0), (1, 5, 1), (1, 6, 0), (2, 5, 0)].map(|(seed, prompt, i)| call_id(seed, prompt, i)).into();
    assert_eq!(ids.len(), 4);
    assert!(ids.iter().all(|id| id.len() == 9 && id.chars().all(|c| c.is_ascii_alphanumeric())));
    assert_eq!(call_id(1, 5, 0), call_id(1, 5, 0));
}

#[test]
fn the_template_tells_the_format() {
    let format = |source: &str| Template::from_jinja(source, None, None).expect("a template").call_format();
    let tools = "{% for tool in tools %}{{ tool | tojson }}{% endfor %}";
    assert_eq!(format(&format!("{tools}<tool_call>\n{{\"name\": ...}}\n</tool_call>")), CallFormat::Hermes);
    assert_eq!(format(&format!("{tools}<tool_call>\n<function=example>")), CallFormat::Xml);
    assert_eq!(format(&format!("{tools}{{{{ '\"parameters\": ' }}}}")), CallFormat::Llama);
    assert_eq!(format(&format!("{tools}[TOOL_CALLS] [")), CallFormat::Mistral);
    assert_eq!(format(&format!("{tools}[TOOL_CALLS]f[ARGS]")), CallFormat::MistralArgs);
    assert_eq!(format(tools), CallFormat::Json);
    assert_eq!(format("<tool_call>{{ custom_tools }}"), CallFormat::Json, "never shows tools");
}
