//! Chat templates, compared with results of Jinja2 3.1, and attacks by templates.
//!
//! `fixtures/jinja2.json` holds pairs: a source, and its result in Jinja2's sandbox with the settings of transformers.
//! The result is a text, or null if Jinja2 refused the source. These differences are deliberate:
//!
//! - refused here, rendered by Jinja2: `%` on texts (`|format` works); the string methods `center`, `ljust`, `rjust`,
//!   `zfill`, `swapcase`, `casefold`, `expandtabs` and `encode`, `rsplit` without a separator, `find` and `startswith`
//!   with a start, `split(maxsplit=…)` by name, and `!r` in `format`; `copy`; the filters `center`, `truncate`,
//!   `striptags`, `urlencode`, `forceescape` and `wordcount`, and `int` and `float` of something that is not a number;
//!   `tojson` with positional options; the test `callable`; `cycler`, `joiner` and `lipsum`; `varargs` and `kwargs`;
//!   `{% print %}`; a unary `+`; integers above 2¹²⁸;
//! - rendered here, refused by Jinja2: `<` and `in` between different types (`'a' < 1`, `none in 'abc'`),
//!   `'x'.join([1])`, `tojson` of `d.items()`, a range or a namespace, and a missing attribute in `sum` or `attr`;
//! - rendered differently: Markup after a method call or an index, `{% autoescape true %}`, a printed range or reversed
//!   list, a lone `\r` as the end of a line, and a rare unprintable character in a printed list.

use bitnet::template::Template;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

fn render(source: &str, messages: &Value, variables: &Map<String, Value>) -> Result<String, String> {
    let template = Template::from_jinja(source, None, None).map_err(|error| error.to_string())?;
    template.render(messages, None, true, variables).map_err(|error| error.to_string())
}

fn plain(source: &str) -> Result<String, String> {
    render(source, &json!([{"role": "user", "content": "hi"}]), &Map::new())
}

#[test]
fn jinja2_gave_the_same() {
    let goldens: Value = serde_json::from_str(include_str!("fixtures/jinja2.json")).expect("JSON");
    let variables = goldens["variables"].as_object().expect("variables");
    let cases = goldens["cases"].as_array().expect("cases");
    assert!(cases.len() > 600);
    for case in cases {
        let source = case[0].as_str().expect("a source");
        let got = render(source, &goldens["messages"], variables);
        assert_eq!(got.as_deref().ok(), case[1].as_str(), "{source}: {got:?}");
    }
}

/// Sources that would take forever, fill the memory or overflow the stack.
#[test]
fn an_attack_is_refused_soon() {
    let many = |text: &str, count: usize| text.repeat(count);
    let grow = |start: &str, step: &str| {
        format!(
            "{{% set ns = namespace(x={start}) %}}{{% for i in range(90000) %}}{{% set ns.x = {step} %}}{{% endfor %}}"
        )
    };
    let attacks = [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}".into(),
        "{% for a in range(9999) %}{{ 'x' * 100000 }}{% endfor %}".into(),
        "{% for a in range(9999) %}{% set x = 'x' * 10000000 %}{% endfor %}".into(),
        "{{ 'x' * 10**9 }}".into(),
        "{{ range(10**9) | list }}".into(),
        "{{ 'a\nb' | indent(10**9) }}".into(),
        "{{ range(90000) | list | tojson(indent=9999) }}".into(),
        "{{ '{:>1000000000}'.format(1) }}".into(),
        "{{ '%1000000000d' | format(1) }}".into(),
        "{{ [1] | batch(10**9, 'x') | list }}".into(),
        grow("'x'", "ns.x + ns.x"),
        grow("'x'", "ns.x ~ ns.x"),
        grow("'xx'", "ns.x | replace('x', ns.x)"),
        grow("'x'", "'{}{}'.format(ns.x, ns.x)"),
        grow("[1]", "ns.x + ns.x"),
        grow("[1]", "ns.x * 1000"),
        grow("[1]", "[ns.x, ns.x]"),
        grow("[]", "[ns.x]"),
        grow("{}", "{'a': ns.x}"),
        grow("1", "ns"),
        format!("{{% set x %}}x{{% endset %}}{}{{{{ x }}}}", many("{% set x %}{{ x }}{{ x }}{% endset %}", 60)),
        format!("{{% set x = [1] %}}{}{{{{ x == x }}}}", many("{% set x = [x, x] %}", 60)),
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}".into(),
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(200) }}".into(),
        "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}".into(),
        "{% include '<template>' %}".into(),
        "{% block a %}{{ self.a() }}{% endblock %}".into(),
        format!("{{{{ {}1{} }}}}", many("(", 60000), many(")", 60000)),
        format!("{{{{ {}", many("[", 120_000)),
        format!("{}{}", many("{% if true %}", 4000), many("{% endif %}", 4000)),
        format!("{{{{ {}1 }}}}", many("1 + ", 30000)),
        format!("{{{{ a{} }}}}", many(".a", 60000)),
        many("x", 1 << 20),
    ];
    for source in attacks {
        let start = Instant::now();
        let refused = plain(&source).expect_err(&source[..source.len().min(200)]);
        assert!(refused.starts_with("chat template"), "{refused}");
        // It takes about a second, and longer on a busy machine.
        assert!(start.elapsed() < Duration::from_secs(20), "{} after {:?}", &source[..60], start.elapsed());
    }
}

/// minijinja parses long chains recursively, on a stack that is large enough.
#[test]
fn long_chains_render() {
    for link in ["1 - ", "1 * ", "not ", "-", "1 and ", "1 if 0 else ", "1 < "] {
        let source = format!("{{{{ {}1 }}}}", link.repeat(120_000 / link.len()));
        assert!(plain(&source).is_ok(), "{link}");
    }
}

#[test]
fn errors_while_rendering_name_the_line() {
    let said = |source: &str| plain(source).expect_err(source);
    let lines = [
        ("\n{{ 'a' + 1 }}", "line 2", "'+' cannot add string and number"),
        ("\n\n{% for x in none %}{% endfor %}", "line 3", "None is not iterable"),
        ("{{ messages | map(attribute='role') | tojson }}", "line 1", "add '| list' to it"),
        ("{% set x = 1 %}\n{{ raise_exception('no ' ~ x) }}", "line 2", "no 1"),
        ("a\n{% generation %}\n{{ nope.x }}{% endgeneration %}", "line 3", "undefined"),
        ("a\n{% if %}", "line 2", "unexpected"),
        ("{% set ns = namespace() %}\n{% set ns.x = [ns] %}", "line 2", "a namespace cannot be stored"),
    ];
    for (source, line, what) in lines {
        let refused = said(source);
        assert!(refused.contains(line) && refused.contains(what), "{source}: {refused}");
    }
}

#[test]
fn the_clock_can_be_fixed() {
    // The middle of a month lies in that month in every time zone.
    let source = "{{ strftime_now('%B %Y, %b, %m') }}";
    let template = Template::from_jinja(source, None, None).expect("a template");
    let template = template.at("2024-07-15T12:00:00").expect("a time");
    let messages = json!([{"role": "user", "content": "hi"}]);
    let rendered = template.render(&messages, None, true, &Map::new()).expect("rendered");
    assert_eq!(rendered, "July 2024, Jul, 07");
    assert!(plain("{{ strftime_now('%Y') | int > 2023 }}").is_ok_and(|now| now == "True"));
    assert!(plain("{{ strftime_now('%!') }}").is_err());
}
