//! The limits of a rendering: whatever a template does, it ends soon and takes little memory.

use bitnet::template::Template;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

fn render(source: &str, messages: &Value) -> Result<String, String> {
    let template = Template::from_jinja(source, None, None).map_err(|error| error.to_string())?;
    template.render(messages, None, true, &Map::new()).map_err(|error| error.to_string())
}

/// The peak memory of this process in MB, where the system tells it.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

/// A macro that passes itself a value that holds its last one twice, and at the end does something with it.
fn shared(start: &str, twice: &str, last: &str) -> String {
    let recursion = format!("{{% if n %}}{{{{ f({twice}, n - 1) }}}}{{% else %}}{{{{ {last} }}}}{{% endif %}}");
    format!("{{% macro f(x, n) %}}{recursion}{{% endmacro %}}{{{{ f({start}, 40) }}}}")
}

fn attacks() -> Vec<String> {
    let lists = "x == [x[0] + [], x[1]]|x in [x + []]|[x, x + [1]]|sort|x|join|x|x|string|x|tojson|'%s'|format(x)\
        |'{}'.format(x)|'%r' % x|'a'|replace('a', x)|x ~ x|[x]|map('string')|list|{'a': x}|tojson|[x + [1], x]|min\
        |[x]|groupby(0)|x|urlencode|x|wordcount|x|trim|x|upper|x|escape|raise_exception(x)|namespace(a=x)\
        |x|sum(start=[])|string|dict(a=x)|dictsort|string|x|batch(2)|list|string|x|slice(2)|list|string\
        |x|reverse|list|string|x * 3|x|center|x|striptags|x|title|'x'|default(x)|x|length|'x'.join([x|string])\
        |x[::-1]|string";
    let parts: Vec<&str> = lists.split('|').collect();
    let spans = (0..parts.len()).flat_map(|start| (1..=3).map(move |count| (start, count)));
    let spans = spans.filter_map(|(start, count)| parts.get(start..start + count)).map(|parts| parts.join("|"));
    let mut attacks: Vec<String> = spans.map(|last| shared("[1]", "[x, x]", &last)).collect();
    for last in ["{x: 1}", "[x, x]|unique|list", "x in {1: 2}", "{x: 1}[x]", "x|tojson", "'%s%s' % x", "x"] {
        attacks.push(shared("(1,)", "(x, x)", last));
    }
    for last in [
        "x",
        "x|tojson",
        "x|tojson(indent=8)",
        "x|tojson(sort_keys=true)",
        "x|dictsort|string",
        "x.items()|list|string",
    ] {
        attacks.push(shared("{'a': 1}", "{'a': x, 'b': x}", last));
    }
    for last in ["a", "a|tojson", "a|join", "a == a[0] + a[1]"] {
        let opened = "{% with a = [a, a] %}".repeat(60);
        attacks.push(format!("{{% set a = [1] %}}{opened}{{{{ {last} }}}}{}", "{% endwith %}".repeat(60)));
    }
    for body in ["", "{{ i }}", "{% set y = [1, 2] %}", "{{ messages[0].content }}", "{% if i %}{% endif %}"] {
        let inner = format!("{{% for j in range(99999) %}}{body}{{% endfor %}}");
        attacks.push(format!("{{% for i in range(99999) %}}{inner}{{% endfor %}}"));
    }
    for text in ["'a'", "'é'", "' '"] {
        for last in [
            "'b' in s",
            "s[-1]",
            "s.count('b')",
            "s.islower()",
            "s.strip('x ')",
            "s.title()",
            "s|e",
            "s|tojson",
            "s|urlencode",
            "s == s ~ ''",
        ] {
            let body = format!("{{% for i in range(99999) %}}{{{{ {last} }}}}{{% endfor %}}");
            attacks.push(format!("{{% set s = {text} * 1000000 %}}{body}"));
        }
    }
    for (start, step) in [
        ("'x'", "ns.x + ns.x"),
        ("'x'", "ns.x ~ ns.x"),
        ("'x'", "ns.x|tojson"),
        ("'&'", "ns.x|urlencode"),
        ("'a'", "ns.x|replace('a', 'aa')"),
        ("'a'", "ns.x.join('abc')"),
        ("'a'", "'{0}{0}'.format(ns.x)"),
        ("'a'", "'%s%s' % (ns.x, ns.x)"),
        ("[1]", "ns.x + ns.x"),
        ("[1]", "[ns.x]"),
        ("1", "{'a': ns.x}"),
        ("1", "cycler(ns.x)"),
        ("1", "joiner(ns.x)"),
        ("[1]", "ns.x|map('string')"),
        ("[1]", "ns.x|unique"),
        ("[1]", "ns.x|batch(1)"),
        ("[1]", "[ns.x].copy"),
        ("{1: 2}", "{1: ns.x}.items()"),
    ] {
        let start = format!("{{% set ns = namespace(x={start}) %}}");
        attacks
            .push(format!("{start}{{% for i in range(99999) %}}{{% set ns.x = {step} %}}{{% endfor %}}{{{{ ns.x }}}}"));
    }
    let singles = [
        "10**10**10",
        "2**100000",
        "'a' * 10**9",
        "[1] * 10**9",
        "range(10**9)",
        "range(99999)|list * 99999",
        "'a'.center(10**9)",
        "'a'|center(10**9)",
        "'7'.zfill(10**9)",
        "'\t'.expandtabs(10**9)",
        "'%1000000000d' % 1",
        "'%*d' % (10**9, 1)",
        "'%.1000000000f' % 1.5",
        "'{:1000000000}'.format(1)",
        "'{:.1000000000f}'.format(1.5)",
        "('a' * 1000000)|replace('a', 'b' * 1000000)",
        "('a' * 1000000).replace('', 'b' * 1000)",
        "'b'.join('a' * 10000000)",
        "('a' * 10000000)|list",
        "('a' * 10000000).split('a')",
        "('\n' * 10000000).splitlines()",
        "('a\n' * 1000000)|indent(10000)",
        "range(99999)|batch(10**9, 'x')|list",
        "range(5)|slice(10**9)|list",
        "range(99999)|list|tojson(indent=99999)",
        "[1]|tojson(indent=10**9)",
        "'x'|indent(10**9)",
        "('9' * 50000000)|int",
        "('\"' * 1000000)|tojson|tojson|tojson|tojson|tojson|tojson|tojson|tojson",
    ];
    attacks.extend(singles.map(|single| format!("{{{{ {single} }}}}")));
    attacks.extend(
        [
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(99) }}",
            "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
            "{% for x in [1, 2] recursive %}{{ loop([1, 2]) if loop.depth < 90 }}{% endfor %}",
            "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
            "{% set l = range(99999)|list %}{% for i in l %}{{ i in l }}{% endfor %}",
            "{% set l = range(99999)|list %}{% for i in l %}{{ l|sort|length }}{% endfor %}",
        ]
        .map(str::to_string),
    );
    attacks.extend(kept_and_copied());
    attacks.push(format!("{}x{}", "{% for a in [1, 2] %}".repeat(90), "{% endfor %}".repeat(90)));
    for [open, close] in [["(", ")"], ["[", "]"], ["{1:", "}"], ["f(", ")"], ["x[", "]"]] {
        attacks.push(format!("{{{{ {}1{} }}}}", open.repeat(9000), close.repeat(9000)));
    }
    attacks
}

/// Values that keep or copy a long text, a long path or many arguments, again and again.
fn kept_and_copied() -> Vec<String> {
    let long = "{% set ns = namespace(l=[]) %}{% set s = 'a' * 9000000 %}{% set p = 'a.' * 60000 %}\
        {% set d = {'a' * 2000000: 1} %}{% macro m() %}{{ kwargs|length }}{% endmacro %}";
    let kept = [
        "messages[0]|attr(s)",
        "messages[0][s]",
        "[1]|map(attribute=p)",
        "[1]|selectattr(p)",
        "[1]|map('int', **d)",
        "m(**d)",
        "dict(**d)",
        "namespace(**d)",
        "range(1)",
        "[1]|map('map', 'int')",
        "1.5.is_integer",
        "joiner(s)",
    ];
    let keep = |value| format!("{long}{{% for i in range(900) %}}{{% set ns.l = ns.l + [{value}] %}}{{% endfor %}}");
    let mut attacks: Vec<String> = kept.into_iter().map(keep).collect();
    let repeated = [
        "messages[0]|attr(s)",
        "messages[0][s]",
        "1.1e300|round(300)",
        "s.startswith(('b', 'c', 'd'), 9)",
        "'x'.strip(s)",
    ];
    let rounds = "{% for i in range(1000) %}{% for j in range(1000) %}";
    attacks.extend(repeated.map(|value| format!("{long}{rounds}{{% set a = {value} %}}{{% endfor %}}{{% endfor %}}")));
    attacks.extend(
        [
            "{% set s='a,'*6000000 %}{{ []|sort(attribute=s) }}",
            "{% set s='a.'*6000000 %}{{ [1]|map(attribute=s)|list }}",
            "{{ range(99999)|map('map', 'int')|list|length }}",
            "{{ range(99999)|map('map', 'default', *range(99999))|list|length }}",
            "{% set l = range(99999)|list %}{% set k = l + [] %}{% for i in l %}{{ l == k }}{% endfor %}",
            "{{ ('{0' ~ '.real' * 1000000 ~ '}').format(5) }}",
        ]
        .map(str::to_string),
    );
    let names = |count: usize| (0..count).map(|i| format!("v{i}")).collect::<Vec<_>>();
    let set: String = names(3000).iter().map(|name| format!("{{% set {name} = 1 %}}")).collect();
    attacks.push(format!("{set}{rounds}{{{{ v2999 }}}}{{% endfor %}}{{% endfor %}}"));
    attacks.push(format!("{rounds}{{% if false %}}{set}{{% endif %}}{{% endfor %}}{{% endfor %}}"));
    attacks.push(format!("{rounds}{set}{{% macro q() %}}{{% endmacro %}}{{% endfor %}}{{% endfor %}}"));
    let parameters = names(9000).join(", ");
    let call = "{% set l = range(9000)|list %}{% for i in range(99999) %}{{ p(*l) }}{% endfor %}";
    attacks.push(format!("{{% macro p({parameters}) %}}{{% endmacro %}}{call}"));
    attacks.push(format!(
        "{{% macro p({parameters}) %}}{{% endmacro %}}{{% for i in range(99999) %}}{{{{ p() }}}}{{% endfor %}}"
    ));
    attacks
}

/// A message that is repeated, searched and converted takes about as long as its size allows.
#[test]
fn work_on_a_long_message_ends_soon() {
    for (content, last) in [
        ("1".repeat(32_000), "c|int"),
        ("1".repeat(32_000), "c|float"),
        ("a ".repeat(16_000), "c|title"),
        ("a".repeat(32_000), "c.strip('a')"),
        ("a".repeat(32_000), "'a'.strip(c)"),
        ("a".repeat(32_000), "messages[0]|attr(c)"),
        ("\u{1}".repeat(32_000), "c|tojson"),
    ] {
        let rounds = "{% for i in range(1000) %}{% for j in range(1000) %}";
        let source =
            format!("{{% set c = messages[0].content %}}{rounds}{{% set a = {last} %}}{{% endfor %}}{{% endfor %}}");
        let start = Instant::now();
        render(&source, &json!([{"role": "user", "content": content}])).map(drop).unwrap_or_default();
        assert!(start.elapsed() < Duration::from_secs(10), "{last} took {:?}", start.elapsed());
    }
}

/// Some attacks are harmless, because a comparison ends early or a filter refuses a list. All end soon.
#[test]
fn attacks_end_soon_and_take_little_memory() {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let (mut refused, mut longest) = (0, Duration::ZERO);
    let all = attacks();
    for source in &all {
        let start = Instant::now();
        refused += usize::from(render(source, &messages).is_err());
        longest = longest.max(start.elapsed());
        // It takes about half a second, and longer on a busy machine.
        assert!(start.elapsed() < Duration::from_secs(10), "{source} took {:?}", start.elapsed());
        if let Some(peak) = peak() {
            assert!(peak < 256, "{source}: {peak} MB");
        }
    }
    assert!(refused > all.len() / 2, "{refused} of {} are refused", all.len());
}

/// Values that hold one another in a circle or a long chain are freed without recursion.
#[test]
fn circles_and_chains_are_freed() {
    let messages = json!([{"role": "user", "content": "hi"}]);
    for source in [
        "{% set ns = namespace(x=1) %}{% for i in range(30000) %}{% set ns.x = namespace(x=ns.x) %}{% endfor %}",
        "{% set ns = namespace() %}{% set ns.x = [ns] %}{% set ns.y = {'a': ns} %}",
        "{% set ns = namespace(c=none) %}{% macro f() %}{% set ns.c = caller %}{% endmacro %}{% for i in range(9999) \
        %}{% set p = ns.c %}\
         {% call f() %}{{ p }}{% endcall %}{% endfor %}",
        "{% set ns = namespace(l=none) %}{% for i in range(9999) %}{% for x in [ns.l] %}{% set ns.l = loop %}{% \
        endfor %}{% endfor %}",
        "{% set ns = namespace(l=none) %}{% for i in range(9999) %}{% for x in [1] %}{% if loop.changed(ns.l) %}{% \
        set ns.l = loop %}{% endif %}\
         {% endfor %}{% endfor %}",
        "{% set ns = namespace(m=none) %}{% for i in range(9999) %}{% set p = ns.m %}{% macro g() %}{{ p }}{% \
        endmacro %}{% set ns.m = g %}{% endfor %}",
        "{% set ns = namespace(l=[], p=none) %}{% for i in range(900) %}{% set ns.l = ns.l + [namespace()] %}{% \
        endfor %}{% for n in ns.l %}\
         {% set n.p = ns.p %}{% set ns.p = n %}{% endfor %}",
    ] {
        assert_eq!(render(source, &messages).as_deref(), Ok(""), "{source}");
    }
}

/// The limits grow with the conversation.
#[test]
fn a_long_conversation_renders() {
    let content = |i: usize| format!("Message {i}: {}", "Nobody limits the length of a conversation. ".repeat(9));
    let role = |i: usize| ["user", "assistant"][i % 2];
    let messages: Value = (0..1001).map(|i| json!({"role": role(i), "content": content(i)})).collect();
    assert!(messages.to_string().len() > 424_000);
    for source in [
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}",
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'].strip().replace('\r', '') + '<|end|>' \
        }}{% endfor %}",
        "{% set ns = namespace(last=0) %}{% for m in messages[::-1] %}{% if m.role == 'user' %}{% set ns.last = \
        loop.index0 %}{% endif %}{% endfor %}\
         {% for m in messages %}{{ m.content.split('</think>')[-1].lstrip('\n') | tojson }}{% endfor %}",
        "{% set ns = namespace(all=[]) %}{% for m in messages %}{% set ns.all = ns.all + [m] %}{% endfor %}{{ ns.all \
        | map(attribute='content') | join }}",
        "{% for m in messages %}{% for n in messages %}{% if n is sameas m %}{{ n.content }}{% endif %}{% endfor \
        %}{% endfor %}",
    ] {
        let rendered = render(source, &messages).expect(source);
        assert!(rendered.len() > 380_000, "{source}");
    }
}
