//! Chat templates, compared with results of Jinja2 3.1, and attacks by templates.
//!
//! `fixtures/jinja2.json` holds pairs: a source, and its result in Jinja2's sandbox with the settings of transformers.
//! The result is a text, or null if Jinja2 refused the source. `fixtures/jinja.json` holds 4,000 random ones
//! (`fixtures/make_jinja.py`), `fixtures/jinja_cases.json` 24 that once rendered differently.
//!
//! These are refused by name, but rendered by Jinja2: the filters `pprint`, `random`, `urlize` and `wordwrap`, and
//! `striptags` of a text with entities; `lipsum`; the tags `autoescape` and `block` inside other blocks, `self` and
//! `super`; `include`, `import` and `extends` at least when they run; `format` and `%` of Markup; integers above 2^127,
//! `/` of integers above 2^53, and complex numbers; printing generators, functions and methods, whose addresses differ
//! from run to run; `is sameas` of equal texts; and a few attributes of numbers and ranges.

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
        if source.contains("170141183460469231731687303715884105727 + 1") {
            assert!(got.is_err_and(|error| error.contains("at most 127 bits")));
            continue;
        }
        assert_eq!(got.as_deref().ok(), case[1].as_str(), "{source}: {got:?}");
    }
}

/// Whatever Jinja2 renders, renders the same here or is refused by name; whatever it refuses is refused.
#[test]
fn random_templates_render_as_in_jinja2() {
    let goldens: Value = serde_json::from_str(include_str!("fixtures/jinja.json")).expect("JSON");
    let variables = goldens["variables"].as_object().expect("variables");
    let cases = goldens["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 4000);
    let refusals = ["not supported", "cannot be printed"];
    let mut refused = 0;
    for case in cases {
        let source = case[0].as_str().expect("a source");
        let template = Template::from_jinja(source, None, None).and_then(|template| template.at("2026-07-04T12:00:00"));
        let got = template.and_then(|template| template.render(&goldens["messages"], None, true, variables));
        match (&got, case[1].as_str()) {
            (Err(error), Some(_)) if refusals.iter().any(|words| error.to_string().contains(words)) => refused += 1,
            (_, expected) => assert_eq!(got.as_deref().ok(), expected, "{source}: {got:?}"),
        }
    }
    assert!(refused < 20, "{refused} of {} are refused", cases.len());
}

#[test]
fn templates_that_once_rendered_differently_render_as_in_jinja2() {
    let goldens: Value = serde_json::from_str(include_str!("fixtures/jinja_cases.json")).expect("JSON");
    let cases = goldens["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 24);
    for case in cases {
        let source = case["source"].as_str().expect("a source");
        let got = render(source, &goldens["messages"], &Map::new());
        assert_eq!(got.as_deref().ok(), case["rendered"].as_str(), "{source}: {got:?}");
    }
}

/// What Jinja2 would render, but this engine does not, is refused by its name.
#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (source, name) in [
        ("{{ 'x'|wordwrap(2) }}", "'wordwrap'"),
        ("{{ [1]|pprint }}", "'pprint'"),
        ("{{ [1]|random }}", "'random'"),
        ("{{ 'x'|urlize }}", "'urlize'"),
        ("{{ lipsum() }}", "'lipsum'"),
        ("{% include 'x' %}", "'include'"),
        ("{% import 'x' as y %}", "'import'"),
        ("{% from 'x' import y %}", "'from'"),
        ("{% extends 'x' %}", "'extends'"),
        ("{% autoescape true %}{% endautoescape %}", "'autoescape'"),
        ("{{ self.x() }}", "'self'"),
        ("{{ super() }}", "'super'"),
        ("{% for x in [1] %}{% block y %}{% endblock %}{% endfor %}", "'block'"),
        ("{{ (1).bit_length() }}", "'bit_length'"),
        ("{{ range(3).index(1) }}", "'index'"),
        ("{{ 'a'.encode() }}", "'encode'"),
        ("{{ 'a'.translate({}) }}", "'translate'"),
        ("{{ '%s'|safe|format(1) }}", "Markup"),
        ("{{ 2**60 / 3 }}", "2**53"),
        ("{{ (-1)**0.5 }}", "complex"),
    ] {
        let refused = plain(source).expect_err(source);
        assert!(refused.contains(name) && refused.contains("not supported"), "{source}: {refused}");
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
        format!("{{% set x %}}x{{% endset %}}{}{{{{ x }}}}", many("{% set x %}{{ x }}{{ x }}{% endset %}", 60)),
        format!("{{% set x = [1] %}}{}{{{{ x | tojson }}}}", many("{% set x = [x, x] %}", 60)),
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}".into(),
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(200) }}".into(),
        "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}".into(),
        "{% include '<template>' %}".into(),
        "{% block a %}{{ self.a() }}{% endblock %}".into(),
        format!("{{{{ {}1{} }}}}", many("(", 60000), many(")", 60000)),
        format!("{{{{ {}", many("[", 120_000)),
        format!("{}{}", many("{% if true %}", 4000), many("{% endif %}", 4000)),
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

/// Chains of operators do not nest, however long they are.
#[test]
fn long_chains_render() {
    for link in ["1 + ", "1 - ", "1 * ", "not ", "-", "1 and ", "1 if 0 else ", "1 < "] {
        let source = format!("{{{{ {}1 }}}}", link.repeat(120_000 / link.len()));
        assert!(plain(&source).is_ok(), "{link}");
    }
}

#[test]
fn errors_while_rendering_name_the_line() {
    let said = |source: &str| plain(source).expect_err(source);
    let lines = [
        ("\n{{ 'a' + 1 }}", "line 2", "'+' cannot combine str and int"),
        ("\n\n{% for x in none %}{% endfor %}", "line 3", "None is not iterable"),
        ("{{ messages | map(attribute='role') | tojson }}", "line 1", "add '| list' to it"),
        ("{% set x = 1 %}\n{{ raise_exception('no ' ~ x) }}", "line 2", "no 1"),
        ("a\n{% generation %}\n{{ nope.x }}{% endgeneration %}", "line 3", "undefined"),
        ("a\n{% if %}", "line 2", "unexpected"),
        ("{% set ns = namespace() %}\n{% set ns.x = [ns] %}{{ ns }}", "line 2", "recurses too deeply"),
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
    assert_eq!(plain("{{ strftime_now('%!') }}").as_deref(), Ok("%!"));
}
