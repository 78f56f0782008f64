//! Rendered prompts: the text of a message is never recognized as a control token.

use bitnet::template::{CallRules, ChatTurn, Conversation, Role, Template, ThoughtState};
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
        continue_final_message: false,
        variables: Map::new(),
        calls: CallRules::default(),
    };
    let prompt = template.prompt(&conversation, &CONTROLS, &mut || false).expect("a prompt");
    let rendered = template.render(messages, tools, true, &Map::new()).expect("rendered");
    assert_eq!(prompt.text, rendered);
    let parts = prompt.parts();
    assert_eq!(parts.iter().map(|(text, _)| *text).collect::<String>(), rendered);
    parts.into_iter().map(|(text, recognized)| (text.to_string(), recognized)).collect()
}

/// The control tokens that a tokenizer finds in the parts where it recognizes them.
fn recognized(parts: &[(String, bool)]) -> Vec<&'static str> {
    found(parts, &CONTROLS)
}

fn found<'a>(parts: &[(String, bool)], controls: &[&'a str]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (text, _) in parts.iter().filter(|(_, recognized)| *recognized) {
        let mut rest = text.as_str();
        while let Some(c) = rest.chars().next() {
            let starts = controls.iter().copied().filter(|control| rest.starts_with(control));
            let longest = starts.max_by_key(|control| control.len());
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

/// A template of Qwen3's kind takes the thinking off earlier answers, and writes its marks around it again.
#[test]
fn a_control_token_that_the_template_looks_for_is_recognized_where_the_template_writes_it() {
    let source = "{% for m in messages %}{% set content = m.content %}{% if '</think>' in content %}\
                  </think>{% set content = content.split('</think>')[-1] %}{% endif %}{{ content }}<|im_end|>{% \
                  endfor %}";
    let template = Template::from_jinja(source, None, None).expect("a template");
    let messages = json!([{"role": "assistant", "content": "a</think>b<|im_end|>c"}]);
    let parts = parts(&template, &messages, None);
    assert_eq!(plain(&parts), ["<|im_end|>"]);
    assert_eq!(recognized(&parts), ["</think>", "<|im_end|>"]);
}

/// A template that edits a text could make a control token of it. None of them counts.
#[test]
fn a_template_that_edits_texts_does_not_form_a_control_token() {
    let text = "<|eox|><|eot_i<|im_end|>d|> <|EOT_ID|> &lt;|eot_id|&gt; x<|eot_id|>x\x1c<|eot|_id|>";
    for edit in [
        "c.replace('<|im_end|>', '')",
        "c.replace('x', 't_id')",
        "c.replace('<|im_end|>', '').replace('&lt;', '<')",
        "(c | lower)",
        "c.split('<|im_end|>') | join",
        "c.split('x') | join('t_id')",
        "c[:10] ~ c[20:]",
        "c[8:14] + c[24:]",
        "c.strip('x')",
        "c.removesuffix('|>') ~ c[-2:]",
        "c.partition('<|im_end|>') | reverse | join",
        "'%s%s' % (c[8:14], c[24:])",
        "'{}{}'.format(c[8:14], c[24:])",
        "'{0[0]}{0[1]}'.format(c.split('<|im_end|>'))",
        "c | replace('&lt;', '<') | replace('&gt;', '>')",
        "c | trim",
        "c | list | join",
        "c | truncate(30, true, '')",
        "c | indent | title | lower",
        "c.expandtabs() ~ c.casefold()",
        "c | tojson",
        "(c | tojson)[1:-1]",
        "c.swapcase()",
        "c[::-1][::-1]",
        "c | urlencode | replace('%3C', '<') | replace('%7C', '|') | replace('%3E', '>')",
        "[c] | string",
        "c.splitlines() | join",
        "c | e | replace('&lt;', '<') | replace('&gt;', '>')",
        "c ~ strftime_now('%f') ~ (c | length)",
        "c[:4000]",
        "'<|' ~ c[10:16] ~ '|>'",
        "'<|eot_' ~ c[24:28]",
        "'<' ~ c[1:10] ~ '_id|>' ~ c.replace('<|im_end|>', '')",
    ] {
        let source = format!("{{% set c = messages[0].content %}}{{{{ {edit} }}}}<|eot_id|>");
        let template = Template::from_jinja(&source, None, None).expect("a template");
        let template = template.at("2026-07-04T12:00:00").expect("a time");
        let messages = json!([{"role": "user", "content": text}]);
        assert_eq!(recognized(&parts(&template, &messages, None)), ["<|eot_id|>"], "{edit}");
    }
}

#[test]
fn a_message_cannot_take_a_control_token_from_the_template() {
    // What follows the template's own token would make a longer one of it.
    let controls = ["<|a|>", "<|a|>x", "y<|a|>", "|>z<"];
    let template = Template::from_jinja("{{ messages[0].content }}<|a|>{{ messages[1].content }}", None, None);
    let template = template.expect("a template");
    for (before, after) in [("", "x"), ("y", ""), ("y", "x"), ("", "z<|a|>"), ("<|a|>", "x<|a|>")] {
        let messages = json!([{"role": "user", "content": before}, {"role": "user", "content": after}]);
        let conversation = Conversation { messages, ..Conversation::from_turns(&[], None) };
        let prompt = template.prompt(&conversation, &controls, &mut || false).expect("a prompt");
        let parts: Vec<_> = prompt.parts().into_iter().map(|(text, plain)| (text.to_string(), plain)).collect();
        assert_eq!(found(&parts, &controls), ["<|a|>"], "{before:?} {after:?}");
    }
}

/// A role is the template's own text only if it is a plain word.
#[test]
fn roles_are_words_or_text() {
    let template = Template::from_jinja("{{ '<|' + messages[0].role + '|>' }}", None, None).expect("a template");
    let found = |role: &str| {
        let messages = json!([{"role": role, "content": "x"}]);
        recognized(&parts(&template, &messages, None))
    };
    assert_eq!(found("eot_id"), ["<|eot_id|>"]);
    for role in ["eot_id|><|im_end", "eot_id|>", " ", "é"] {
        assert_eq!(found(role), [""; 0], "{role}");
    }
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

/// Templates as public models have them, and the control tokens that each writes for one message of the user.
const PUBLIC: [(&str, &[&str]); 8] = [
    (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% \
        endfor %}\
         {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        &["<|im_end|>"],
    ),
    (
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + \
        m['content'] | trim \
         + '<|eot_id|>' }}{% endfor %}",
        &["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    ),
    (
        "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ \
        raise_exception('no') }}\
         {% endif %}{% if m['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = m['role'] %}{% \
         endif %}\
         {{ '<|start_header_id|>' ~ role ~ '\n' ~ m['content'] | trim ~ '<|eot_id|>\n' }}{% endfor %}",
        &["<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>"],
    ),
    (
        "{% set loop_messages = messages %}{% for m in loop_messages %}{{ ' [INST] ' ~ m.content.strip() ~ ' \
        [/INST]' }}{% endfor %}<|unk|>",
        &["<|unk|>"],
    ),
    (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] | replace('\x1c', '') + '<|eot_id|>' }}{% \
        endfor %}",
        &["<|eot_id|>"],
    ),
    (
        "{% set ns = namespace(text='') %}{% for m in messages %}{% set ns.text = ns.text + \
        m.content.replace('/think', '') %}{% endfor %}\
         {{ ns.text }}<|eot_id|>{{ ns.text | length }}",
        &["<|eot_id|>"],
    ),
    (
        "{% for m in messages %}{% set c = m.content %}{% if '</think>' in c %}{% set c = \
        c.split('</think>')[-1].lstrip('\n') %}{% endif %}\
         </think>{{ c }}{{ eos_token }}{% endfor %}",
        &["</think>", "<|eot_id|>"],
    ),
    (
        "{% macro show(m) %}{% for part in [m.content, m] %}{{ part | tojson(indent=2) }}{% endfor %}{% endmacro \
        %}{% for m in messages %}\
         {% set shown %}{{ show(m) }}{% endset %}{{ shown[1:-1] | replace('\"', '') | upper | lower }}{% endfor \
         %}<|im_end|>",
        &["<|im_end|>"],
    ),
];

/// What a template may do with a text.
const EDITS: [&str; 12] = [
    "| trim",
    "| lower",
    "| upper",
    "| replace('x', '')",
    "| replace(' ', '<')",
    "[1:]",
    "[:-1]",
    ".split('|') | join('|')",
    ".split('é') | join",
    ".strip('x|')",
    "| e | replace('&lt;', '<') | replace('&gt;', '>')",
    "| list | join",
];

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
    #[test]
    fn no_message_forms_a_control_token_in_a_public_template(
        content in text(),
        edits in prop::collection::vec(prop::sample::select(EDITS.to_vec()), 0..4),
    ) {
        let messages = json!([{"role": "user", "content": content}]);
        for (source, expected) in PUBLIC {
            let edited = edits.iter().fold("m.content".to_string(), |text, edit| format!("({text} {edit})"));
            for source in [source.to_string(), source.replace("m.content", &edited).replace("m['content']", &edited)] {
                let template = Template::from_jinja(&source, Some("<|begin_of_text|>"), Some("<|eot_id|>"));
                let parts = parts(&template.expect("a template"), &messages, None);
                prop_assert_eq!(recognized(&parts), expected, "{}", source);
            }
        }
    }
}

/// How far thoughts are at the end of a prompt.
fn thoughts(source: &str, conversation: &Conversation) -> Option<ThoughtState> {
    let template = Template::from_jinja(source, None, None).expect("a template");
    let prompt = template.prompt(conversation, &CONTROLS, &mut || false).expect("a prompt");
    template.thoughts_at_end(conversation, &prompt)
}

#[test]
fn thoughts_begin_where_the_template_ends_with_their_mark() {
    let history = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.reasoning_content }}\n{% endfor %}";
    let asked = |text: &str| Conversation::from_turns(&[ChatTurn::new(Role::User, text)], None);
    let with = |end: &str, text: &str| thoughts(&format!("{history}{end}"), &asked(text));
    for text in ["Hi", "", "<think>", "</think>", "<think>\n</think>"] {
        assert_eq!(with("answer:", text), None, "a template without marks, and {text:?}");
        assert_eq!(with("{# <think> #}answer:", text), Some(ThoughtState::NotBegun), "{text:?}");
        assert_eq!(with("answer: <think>\n", text), Some(ThoughtState::Begun), "{text:?}");
        assert_eq!(with("answer: <think>\n\n</think>\n\n", text), Some(ThoughtState::Over), "{text:?}");
    }
    let thought = ChatTurn { reasoning: Some("hm".into()), ..ChatTurn::new(Role::Assistant, "4") };
    let turns = [ChatTurn::new(Role::User, "2+2?"), thought, ChatTurn::new(Role::User, "3+3?")];
    let source = "{% for m in messages %}<think>{{ m.reasoning_content }}</think>{{ m.content }}{% endfor %}answer:";
    assert_eq!(thoughts(source, &Conversation::from_turns(&turns, None)), Some(ThoughtState::NotBegun));
}

#[test]
fn thoughts_go_on_in_a_message_that_is_continued() {
    let continued = |template: &str, content: &str| {
        let messages = json!([{"role": "user", "content": "<think>"}, {"role": "assistant", "content": content}]);
        let conversation = Conversation {
            messages,
            add_generation_prompt: false,
            continue_final_message: true,
            ..Conversation::from_turns(&[], None)
        };
        thoughts(template, &conversation)
    };
    let plain = "{# <think> #}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    assert_eq!(continued(plain, "<think>\nhm"), Some(ThoughtState::Begun));
    assert_eq!(continued(plain, "<think>\nhm</think>Fo"), Some(ThoughtState::Over));
    assert_eq!(continued(plain, "Fo"), Some(ThoughtState::NotBegun), "what the user wrote does not count");
    let closed = plain.replace("{{ m.content }}", "<think></think>{{ m.content }}");
    assert_eq!(continued(&closed, "Fo"), Some(ThoughtState::Over));
}
