use super::*;
use crate::template::{ChatTurn, Role};
use serde_json::json;

const TOOLS: &str = r#"[{"type": "function", "function": {"name": "weather", "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]"#;
/// The end of Qwen 2.5's template: arguments are an object.
const QWEN: &str = "{% if tools %}<tools>{{ tools | tojson }}</tools>\n{% endif %}{% for m in messages %}\
    {% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n\
    {% else %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for call in m.tool_calls %}\n<tool_call>\n{\"name\": \"\
    {{ call.function.name }}\", \"arguments\": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}\
    <|im_end|>\n{% endif %}{% endfor %}";
/// As in Qwen 3.5: a loop over the arguments.
const ITEMS: &str = "{% for m in messages %}{{ tools }}{% for call in m.tool_calls %}\
    {% for name, value in call.function.arguments | items %}{{ name }}={{ value }};{% endfor %}{% endfor %}{% endfor %}";
/// As in DeepSeek's: arguments are a text, which is joined to others.
const JOINED: &str = "{% for m in messages %}{{ tools }}{% for call in m['tool_calls'] %}\
    {{ '```json\n' + call['function']['arguments'] + '\n```' }}{% endfor %}{% endfor %}";
/// As above, printed.
const PRINTED: &str = "{% for m in messages %}{% if tools %}{% endif %}{% for call in m.tool_calls %}\
    {{ call.function.arguments }}{% endfor %}{% endfor %}";
/// Knows nothing of tools.
const PLAIN: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
/// As in Gemma's: no system prompt, user and assistant in turn.
const STRICT: &str = "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) or m.role == 'system' %}\
    {{ raise_exception('no') }}{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
/// Drops the system prompt.
const DROPS: &str = "{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}";

fn tools() -> Json {
    serde_json::from_str(TOOLS).expect("JSON")
}

fn conversation(messages: Json) -> Conversation {
    Conversation { messages, tools: tools(), add_generation_prompt: false, ..Conversation::from_turns(&[], None) }
}

fn template(source: &str) -> Template {
    Template::from_jinja(source, None, None).expect("a template")
}

fn rendered(source: &str, conversation: &Conversation) -> Result<String> {
    let template = template(source);
    let conversation = template.prepared(conversation, &mut || false)?;
    template.render_conversation(&conversation, &mut || false)
}

/// A question, two calls in the answer as OpenAI has them, and their results.
fn history() -> Json {
    let call = |id: &str, city: &str| {
        let arguments = json!({ "city": city }).to_string();
        json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}})
    };
    json!([
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": null, "tool_calls": [call("1", "Paris"), call("2", "Rome")]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "2", "content": "rain"},
    ])
}

#[test]
fn arguments_are_what_the_template_expects() {
    let history = conversation(history());
    let qwen = rendered(QWEN, &history).expect("rendered");
    assert!(
        qwen.contains("<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>"),
        "{qwen}"
    );
    assert!(qwen.contains("assistant\n<tool_call>"), "no content is an empty one: {qwen}");
    assert!(rendered(ITEMS, &history).expect("rendered").ends_with("city=Paris;city=Rome;[{'type': 'function', 'function': {'name': 'weather', 'description': 'The weather of a city', 'parameters': {'type': 'object', 'properties': {'city': {'type': 'string'}}, 'required': ['city']}}}][{'type': 'function', 'function': {'name': 'weather', 'description': 'The weather of a city', 'parameters': {'type': 'object', 'properties': {'city': {'type': 'string'}}, 'required': ['city']}}}]"));
    let joined = rendered(JOINED, &history).expect("rendered");
    assert!(joined.contains("```json\n{\"city\": \"Paris\"}\n```"), "{joined}");
    assert_eq!(rendered(PRINTED, &history).expect("rendered"), "{\"city\": \"Paris\"}{\"city\": \"Rome\"}");
}

#[test]
fn a_template_that_drops_calls_gets_them_as_text() {
    let source = "{{ tools | length }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    let text = rendered(source, &conversation(history())).expect("rendered");
    assert!(text.contains("assistant: {\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n{"), "{text}");
    assert!(text.ends_with("tool: sunny\ntool: rain\n"), "{text}");
}

#[test]
fn arguments_that_are_no_object_are_an_error() {
    let mut messages = history();
    messages[1]["tool_calls"][1]["function"]["arguments"] = "[1]".into();
    let error = rendered(QWEN, &conversation(messages.clone())).expect_err("a list").to_string();
    assert!(error.contains("messages[1]['tool_calls'][1]['function']['arguments'] is \"[1]\""), "{error}");
    messages[1]["tool_calls"][1]["function"]["arguments"] = "".into();
    assert!(rendered(QWEN, &conversation(messages.clone())).expect("no arguments").contains("\"arguments\": {}"));
    messages[1]["tool_calls"] = json!([5]);
    assert!(rendered(QWEN, &conversation(messages)).expect_err("no call").to_string().contains("no function"));
}

#[test]
fn a_list_without_calls_is_left_out() {
    let asks = "{{ tools | length }}{% for m in messages %}{% if 'tool_calls' in m %}calls{% endif %}{% endfor %}";
    for none in [json!([]), Json::Null] {
        let messages = json!([{"role": "assistant", "content": "Four.", "tool_calls": none}]);
        assert_eq!(rendered(asks, &conversation(messages)).expect("rendered"), "1");
    }
}

#[test]
fn a_template_without_tools_finds_them_in_the_system_prompt() {
    let ask = json!([{"role": "user", "content": "Weather?"}]);
    let schema = json::text(&tools()[0]["function"]);
    let plain = rendered(PLAIN, &conversation(ask.clone())).expect("rendered");
    assert!(plain.starts_with("system: You can call functions."), "{plain}");
    assert!(plain.contains(&schema) && plain.ends_with("answer in plain text.\nuser: Weather?\n"), "{plain}");
    let system = json!([{"role": "system", "content": "Be brief."}, ask[0]]);
    let added = rendered(PLAIN, &conversation(system.clone())).expect("rendered");
    assert!(added.starts_with("system: Be brief.\n\nYou can call functions."), "{added}");
    for source in [STRICT, DROPS] {
        let first = rendered(source, &conversation(ask.clone())).expect("rendered");
        assert!(first.starts_with("user: You can call functions."), "{first}");
        assert!(first.contains(&schema) && first.ends_with("answer in plain text.\n\nWeather?\n"), "{first}");
    }
    assert!(rendered(DROPS, &conversation(system)).expect("rendered").starts_with("user: You can call"));
    let error = rendered("Hello", &conversation(ask)).expect_err("shows nothing").to_string();
    assert!(error.contains("leave tools out"), "{error}");
}

#[test]
fn a_template_without_tools_gets_calls_and_results_as_texts() {
    let mut messages = history();
    messages.as_array_mut().expect("a list").push(json!({"role": "assistant", "content": "Sun and rain."}));
    let expected = "assistant: {\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n\
                    {\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n\
                    user: Result of weather:\nsunny\n\nResult of weather:\nrain\nassistant: Sun and rain.\n";
    for source in [PLAIN, STRICT] {
        let text = rendered(source, &conversation(messages.clone())).expect("rendered");
        assert!(text.ends_with(expected), "{text}");
        let without = Conversation { tools: Json::Null, ..conversation(messages.clone()) };
        let text = rendered(source, &without).expect("rendered");
        assert_eq!(text, format!("user: Weather?\n{expected}"));
    }
}

#[test]
fn no_call_means_no_tools() {
    let mut asked = conversation(json!([{"role": "user", "content": "Weather?"}]));
    asked.calls.choice = ToolChoice::None;
    for source in [PLAIN, "{% if tools %}tools{% endif %}user: {{ messages[0].content }}\n"] {
        assert_eq!(rendered(source, &asked).expect("rendered").trim_end(), "user: Weather?");
    }
}

#[test]
fn other_conversations_stay_as_they_are() {
    let plain = Conversation::from_turns(&[ChatTurn::new(Role::User, "x")], Some("y"));
    let template = template(QWEN);
    let prepared = template.prepared(&plain, &mut || false).expect("prepared");
    assert!(matches!(prepared, std::borrow::Cow::Borrowed(_)));
}

#[test]
fn a_tool_has_a_name() {
    for wrong in [json!([{"type": "function", "function": {}}]), json!([{"name": ""}]), json!([5])] {
        assert!(Tool::all(&wrong).expect_err("no name").to_string().contains("tools[0] has no name"));
    }
    assert_eq!(Tool::all(&Json::Null).expect("none"), []);
}

#[test]
fn a_grammar_describes_calls_and_nothing_else() {
    let reader = |format, parallel| CallReader { format, tools: Tool::all(&tools()).expect("tools"), parallel };
    let none = |_: &str| None;
    let schema = r#"args_0: %json {"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false,"x-guidance":{"whitespace_flexible":false,"item_separator":", ","key_separator":": "}}"#;
    let head = |start: &str| format!("start: {start}\ncall: call_0\n");
    let hermes =
        r#"call_0: "<tool_call>" "\n" "{\"name\": \"weather\", \"arguments\": " args_0 "}" "\n" "</tool_call>""#;
    assert_eq!(
        reader(CallFormat::Hermes, true).grammar(None, none).expect("a grammar"),
        format!("{}{schema}\n{hermes}\n", head(r#"call ("\n" call)*"#))
    );
    let control = |text: &str| [BEGIN, END].iter().position(|mark| *mark == text).map(|at| 7 + at as u32);
    let hermes = hermes.replace("\"<tool_call>\"", "<[7]>").replace("\"</tool_call>\"", "<[8]>");
    assert_eq!(
        reader(CallFormat::Hermes, false).grammar(None, control).expect("a grammar"),
        format!("{}{schema}\n{hermes}\n", head("call"))
    );
    let llama = r#"call_0: "{\"name\": \"weather\", \"parameters\": " args_0 "}""#;
    assert_eq!(
        reader(CallFormat::Llama, true).grammar(None, none).expect("a grammar"),
        format!("{}{schema}\n{llama}\n", head(r#"call ("; " call)*"#))
    );
    let xml = reader(CallFormat::Xml, false).grammar(None, none).expect("a grammar");
    let value = r#"value_0_0[suffix="\n</parameter>\n"]: /(?s:.*)/"#;
    let call = r#""<function=weather>\n" "<parameter=city>\n" value_0_0 "</function>""#;
    assert_eq!(
        xml,
        format!("{}{value}\ncall_0: \"<tool_call>\" \"\\n\" {call} \"\\n\" \"</tool_call>\"\n", head("call"))
    );
}
