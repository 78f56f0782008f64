//! Chat templates as Jinja2 renders them: expressions and statements whose results Jinja2 3.1 gave, and attacks.
//!
//! `fixtures/jinja2.json` holds pairs of a source and what Jinja2's sandbox, set up as transformers does, made of it:
//! a text, or null where it refused. What still differs, by choice:
//!
//! - refused here, rendered there: `%` on texts (`|format` works), string methods `center`, `ljust`, `rjust`, `zfill`,
//!   `swapcase`, `casefold`, `expandtabs`, `encode`, `rsplit` by blanks, `find` and `startswith` from a place,
//!   `split(maxsplit=…)` by name, `!r` in `format`, `copy`; filters `center`, `truncate`, `striptags`, `urlencode`,
//!   `forceescape`, `wordcount`, `int` and `float` of what is no number; `tojson` with options by place; the test
//!   `callable`; `cycler`, `joiner`, `lipsum`; `varargs` and `kwargs`; `{% print %}`; a unary `+`; integers above 2¹²⁸;
//! - rendered here, refused there: `<` and `in` between kinds (`'a' < 1`, `none in 'abc'`), `'x'.join([1])`, `tojson` of
//!   `d.items()`, a range or a namespace, a missing attribute under `sum` or in `attr`;
//! - rendered otherwise: Markup that went through a method or an index, `{% autoescape true %}`, a range or a reversed
//!   list that is printed, a lone `\r` as the end of a line, a rare unprintable character within a printed list.

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

/// Sources that would take for ever, fill the memory or overflow the stack.
#[test]
fn an_attack_ends_soon_and_refused() {
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
        // About a second where nothing else runs; a busy machine has more.
        assert!(start.elapsed() < Duration::from_secs(20), "{} after {:?}", &source[..60], start.elapsed());
    }
}

/// Long chains are left to recurse on a stack that holds them.
#[test]
fn a_long_chain_has_room() {
    for link in ["1 - ", "1 * ", "not ", "-", "1 and ", "1 if 0 else ", "1 < "] {
        let source = format!("{{{{ {}1 }}}}", link.repeat(120_000 / link.len()));
        assert!(plain(&source).is_ok(), "{link}");
    }
}

#[test]
fn what_a_template_refuses_is_said_with_its_line() {
    let said = |source: &str| plain(source).expect_err(source);
    let lines = [
        ("\n{{ 'a' + 1 }}", "line 2", "+ cannot add string and number"),
        ("\n\n{% for x in none %}{% endfor %}", "line 3", "None cannot be walked over"),
        ("{{ messages | map(attribute='role') | tojson }}", "line 1", "add '| list' to it"),
        ("{% set x = 1 %}\n{{ raise_exception('no ' ~ x) }}", "line 2", "no 1"),
        ("a\n{% generation %}\n{{ nope.x }}{% endgeneration %}", "line 3", "undefined"),
        ("a\n{% if %}", "line 2", "unexpected"),
        ("{% set ns = namespace() %}\n{% set ns.x = [ns] %}", "line 2", "cannot hold a namespace"),
    ];
    for (source, line, what) in lines {
        let refused = said(source);
        assert!(refused.contains(line) && refused.contains(what), "{source}: {refused}");
    }
}

#[test]
fn the_clock_can_be_stopped() {
    // The middle of a month is that month in every zone.
    let source = "{{ strftime_now('%B %Y, %b, %m') }}";
    let template = Template::from_jinja(source, None, None).expect("a template");
    let template = template.at("2024-07-15T12:00:00").expect("a time");
    let messages = json!([{"role": "user", "content": "hi"}]);
    let rendered = template.render(&messages, None, true, &Map::new()).expect("rendered");
    assert_eq!(rendered, "July 2024, Jul, 07");
    assert!(plain("{{ strftime_now('%Y') | int > 2023 }}").is_ok_and(|now| now == "True"));
    assert!(plain("{{ strftime_now('%!') }}").is_err());
}
