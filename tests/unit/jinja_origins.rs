//! Every character that is computed from a message's values counts as the message's, so that none of them makes a
//! control token.

use super::*;
use serde_json::json;

fn render(source: &str) -> Text {
    let program = Program::parse(source).unwrap_or_else(|(_, fault)| panic!("{source}: {}", fault.0));
    let m = json!({"role": "user", "n": 60, "x": 1.5, "yes": true, "none": null, "c": "<a&b/ é", "f": "%d %5Y", "l": [1, "a"], "d": {"k": 2}});
    let messages = json!([m]);
    let (tools, variables) = (Json::Null, Map::new());
    let context = Context {
        messages: &messages,
        tools: &tools,
        add_generation_prompt: true,
        variables: &variables,
        own: &[],
        clock: None,
    };
    program.render(&context, &Arc::default()).unwrap_or_else(|(_, fault)| panic!("{source}: {}", fault.0))
}

#[test]
fn what_is_computed_from_a_message_is_data() {
    for expression in [
        "'%c' % m.n",
        "'%c' % (m.n,)",
        "'%(n)c' % m",
        "'{:c}'.format(m.n)",
        "'%c'|format(m.n)",
        "m.n",
        "m.x",
        "m.yes",
        "m.none",
        "m.n|string",
        "m.n ~ m.x",
        "[m.n, m.x]|join",
        "m.l|join",
        "m.n|tojson",
        "m.l|tojson",
        "m.d|tojson",
        "m.d|tojson(indent=0)|replace('\n', '')",
        "m.c|tojson",
        "'%d' % m.n",
        "'%+d' % m.n",
        "'%x' % m.n",
        "'%s' % m.n",
        "'%r' % m.c",
        "'%f' % m.x",
        "'%s' % [m.l]",
        "'{}'.format(m.n)",
        "'{:+,}'.format(m.n)",
        "'{:.2f}'.format(m.x)",
        "'{!r}'.format(m.c)",
        "'{m.n}'.format(m=m)",
        "m.x|round(1)",
        "m.n|filesizeformat",
        "m.n|int",
        "m.n|float",
        "m.n + 2",
        "m.l",
        "m.d",
        "m.l|string",
        "m.d.items()|list",
        "m.d.items()",
        "m.d|list",
        "(m.l, m.n)",
        "m.c|e",
        "m.c|escape|string",
        "m.c|urlencode",
        "m.c|upper",
        "m.c|title",
        "m.c|forceescape",
        "m.c|length",
        "m.c|wordcount",
        "strftime_now(m.f)",
        "m.n is defined",
        "dict(**m.d)|join",
        "namespace(**m.d)|string",
        "dict(m.d)|list|string",
        "dict(m.d, **m.d)|tojson",
        "k(**m.d)",
        "m.c|list|string",
        "m.d|dictsort|string",
        "m.l|first",
        "m.c|reverse",
    ] {
        let macros = "{%- macro k() %}{{ kwargs|join }}{% endmacro %}{% set m = messages[0] -%}";
        let text = render(&format!("{macros}{{{{ {expression} }}}}"));
        let is_all_data = text.chars().all(|(_, is_data)| is_data);
        assert!(is_all_data && !text.is_empty(), "{expression}: {:?}, data {:?}", text.as_str(), text.data_ranges());
    }
}

#[test]
fn what_the_template_writes_stays_its_own() {
    for source in [
        "<|a|>",
        "{{ '<' ~ '|a|>' }}",
        "{{ '%s|>' % '<|a' }}",
        "{{ ['<|', 'a|>']|join }}",
        "{{ '<|{}|>'.format(messages[0].role) }}",
    ] {
        assert!(!render(source).has_data(), "{source}");
    }
}
