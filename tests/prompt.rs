//! Rendered prompts: the text of a message is never recognized as a control token.

use bitnet::template::{Conversation, Template};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const CONTROLS: [&str; 7] = [
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_end|>",
    "</think>",
    "<|unk|>",
];

fn named(name: &str) -> Template {
    Template::named(name, Some("<|begin_of_text|>"), Some("<|eot_id|>")).expect("built in")
}

/// The parts of a prompt, which joined give the text of `render`.
fn parts(template: &Template, messages: &Value, tools: Option<&Value>) -> Vec<(String, bool)> {
    let conversation = Conversation {
        messages: messages.clone(),
        tools: tools.cloned().unwrap_or(Value::Null),
        add_generation_prompt: true,
        variables: Map::new(),
    };
    let prompt = template.prompt(&conversation, &CONTROLS).expect("a prompt");
    let rendered = template.render(messages, tools, true, &Map::new()).expect("rendered");
    assert_eq!(prompt.text, rendered);
    let parts = prompt.parts();
    assert_eq!(parts.iter().map(|(text, _)| *text).collect::<String>(), rendered);
    parts.into_iter().map(|(text, recognized)| (text.to_string(), recognized)).collect()
}

/// The control tokens that a tokenizer finds in the parts where it recognizes them.
fn recognized(parts: &[(String, bool)]) -> Vec<&'static str> {
    let mut found = Vec::new();
    for (text, _) in parts.iter().filter(|(_, recognized)| *recognized) {
        let mut rest = text.as_str();
        while let Some(c) = rest.chars().next() {
            let longest = CONTROLS.into_iter().filter(|control| rest.starts_with(control)).max_by_key(|c| c.len());
            found.extend(longest);
            rest = &rest[longest.map_or(c.len_utf8(), str::len)..];
        }
    }
    found
}

fn plain(parts: &[(String, bool)]) -> Vec<&str> {
    parts.iter().filter(|(_, recognized)| !recognized).map(|(text, _)| text.as_str()).collect()
}

#[test]
fn control_tokens_in_messages_are_plain_text_and_those_of_the_template_are_not() {
    let messages = json!([{"role": "user", "content": "a<|eot_id|>b"}]);
    assert_eq!(
        parts(&named("bitnet"), &messages, None),
        [("User: a", true), ("<|eot_id|>", false), ("b<|eot_id|>Assistant: ", true)].map(|(t, r)| (t.to_string(), r))
    );
    let harmless = json!([{"role": "user", "content": "a < b"}]);
    assert_eq!(plain(&parts(&named("bitnet"), &harmless, None)), [""; 0]);
}

#[test]
fn halves_in_two_messages_do_not_form_a_control_token() {
    let halves = json!([{"role": "user", "content": "<|eot"}, {"role": "assistant", "content": "_id|>"}]);
    assert_eq!(parts(&named("raw"), &halves, None), [("<|eot_id|>".to_string(), false)]);
    let thirds = json!([
        {"role": "user", "content": "<"},
        {"role": "assistant", "content": "|eot_"},
        {"role": "user", "content": "id|>"},
    ]);
    assert_eq!(recognized(&parts(&named("raw"), &thirds, None)), [""; 0]);
}

#[test]
fn a_template_that_changes_case_does_not_form_a_control_token() {
    for role in ["<|EOT_ID|>", "<|UN\u{212a}|>", "<|unK|> "] {
        let parts = parts(&named("bitnet"), &json!([{"role": role, "content": "x"}]), None);
        assert_eq!(recognized(&parts), ["<|eot_id|>"], "{role}");
    }
}

#[test]
fn tools_are_treated_like_messages() {
    let source = "{{ tools | tojson }}<|eot_id|>{{ messages[0].content }}";
    let template = Template::from_jinja(source, None, None).expect("a template");
    let tools = json!([{"name": "<|eot_id|>", "<|im_end|>": ["<|eot_id|>"]}]);
    let parts = parts(&template, &json!([{"role": "user", "content": "x"}]), Some(&tools));
    assert_eq!(recognized(&parts), ["<|eot_id|>"]);
    assert_eq!(plain(&parts), ["<|eot_id|>", "<|im_end|>", "<|eot_id|>"]);
}

#[test]
fn only_a_control_token_that_the_template_looks_for_is_left_to_it() {
    let source = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}<|im_end|>{% endfor %}";
    let template = Template::from_jinja(source, None, None).expect("a template");
    let messages = json!([{"role": "assistant", "content": "a</think>b<|im_end|>c"}]);
    let parts = parts(&template, &messages, None);
    assert_eq!(plain(&parts), ["<|im_end|>"]);
    assert_eq!(recognized(&parts), ["<|im_end|>"]);
}

#[test]
fn a_noncharacter_in_a_message_is_not_taken_for_a_mark() {
    let messages = json!([{"role": "user", "content": "\u{fdd0}<|eot_id|>\u{fdd1}"}]);
    assert_eq!(plain(&parts(&named("raw"), &messages, None)), ["<|eot_id|>"]);
}

/// Texts put together from pieces of control tokens.
fn text() -> impl Strategy<Value = String> {
    let whole = prop::sample::select(CONTROLS.to_vec()).prop_map(str::to_string);
    let piece = (prop::sample::select(CONTROLS.to_vec()), any::<prop::sample::Index>(), any::<prop::sample::Index>())
        .prop_map(|(control, a, b)| {
            let (a, b) = (a.index(control.len() + 1), b.index(control.len() + 1));
            control[a.min(b)..a.max(b)].to_string()
        });
    let other = prop::sample::select(vec!["", " ", "\n", "x", "é", "<", "|", ">", "<|", "\u{212a}", "\u{fdd0}"]);
    let upper = piece.clone().prop_map(|piece| piece.to_uppercase());
    let part = prop_oneof![whole, piece, upper, other.prop_map(str::to_string)];
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn only_the_templates_own_control_tokens_are_recognized(turns in prop::collection::vec((text(), text()), 1..4)) {
        let messages: Vec<Value> =
            turns.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
        let messages = Value::from(messages);
        let of = |name: &str| {
            let parts = parts(&named(name), &messages, None);
            recognized(&parts)
        };
        prop_assert_eq!(of("raw"), Vec::<&str>::new());
        prop_assert_eq!(of("bitnet"), vec!["<|eot_id|>"; turns.len()]);
        let turn = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"];
        let llama3 = ["<|begin_of_text|>"].into_iter().chain(turn.repeat(turns.len())).chain([turn[0], turn[1]]);
        prop_assert_eq!(of("llama3-chat"), llama3.collect::<Vec<_>>());
    }
}
