//! Every step of a rendering takes about the same time, whatever it works on: what an operation looks at, copies or
//! keeps is paid for. So a budget of steps is one of time.

use super::*;
use std::time::{Duration, Instant};

/// The steps of each rendering here.
const STEPS: u64 = 150_000;
/// A step takes about 0.1 µs of the processor; a busy machine and a build for tests are slower.
const MOST: Duration = Duration::from_nanos(3000);

/// What the expressions work on: a text of n bytes or a list or dict of so many items.
const SETUP: &str = "{% set c = messages[0].content %}{% set n = c|length %}{% set l = range(n // 8)|list %}\
    {% set t = l|map('string')|list %}{% set d = dict(l|batch(2)) %}{% set k = l + [] %}{% set ns = namespace() %}\
    {% set one = {'a' ~ c: 1} %}{% macro m() %}{{ kwargs|length }}{% endmacro %}{% set j = joiner(c) %}\
    {% set y = cycler(c, l) %}{% set w = t[:64]|join(',') %}";

/// Operators, filters, methods, tests and functions, each on something long.
const EXPRESSIONS: &[&str] = &[
    "1",
    "c",
    "l",
    "c ~ c",
    "c + c",
    "c * 2",
    "[c, c]",
    "{c: c}",
    "c == c ~ ''",
    "c < c ~ 'a'",
    "c in c",
    "'q' in c",
    "l == k",
    "l < k",
    "l + k",
    "l * 2",
    "d == dict(d)",
    "5 in l",
    "'x' in d",
    "c in d",
    "(c, c) in {1: 2}",
    "l[5]",
    "c[5]",
    "c[-1]",
    "c[1:-1]",
    "c[::-1]",
    "c[::3]",
    "l[::-1]",
    "c.q",
    "c['q']",
    "c[c]",
    "d[c]",
    "c|attr(c)",
    "messages[0]|attr(c)",
    "messages[0][c]",
    "ns[c]",
    "m(**one)",
    "dict(**one)",
    "namespace(**one)",
    "[1]|map('int', **one)",
    "[1]|map(attribute=c)",
    "[]|sort(attribute=c)",
    "[1]|map(attribute=w)|list",
    "l|sort(attribute='a')",
    "[1]|selectattr(c)",
    "[1]|groupby(c)",
    "[]|sum(attribute=c)",
    "[]|unique(attribute=c)|list",
    "[]|max(attribute=c)",
    "l|map('string')|list",
    "[1, 2]|map('map', 'default', *l)|list",
    "l|select('in', l)|list",
    "c|e",
    "c|string",
    "c|list",
    "c|first",
    "c|last",
    "c|reverse",
    "c|length",
    "c|title",
    "c|upper",
    "c|capitalize",
    "c|trim",
    "c|trim(c)",
    "c|center(9)",
    "c|wordcount",
    "c|striptags",
    "c|urlencode",
    "c|replace('a', 'b')",
    "c|replace('', 'b')",
    "c|indent",
    "c|truncate(9)",
    "c|truncate",
    "c|int",
    "c|int(0, 16)",
    "c|float",
    "c|tojson",
    "c|tojson(ensure_ascii=true)",
    "c|forceescape",
    "c|safe",
    "{c: c}|xmlattr",
    "c|batch(9)|list",
    "c|slice(9)|list",
    "c|unique|list",
    "c|min",
    "c|join",
    "c|join(',')",
    "l|join(',')",
    "l|tojson",
    "d|tojson(sort_keys=true)",
    "l|string",
    "d|string",
    "d|dictsort",
    "d.items()|list",
    "d.keys()|string",
    "l|sort",
    "l|sum",
    "l|max",
    "t|sort",
    "t|unique|list",
    "l|batch(2)|list",
    "l|slice(3)|list",
    "l|reverse|list",
    "l|last",
    "l|first",
    "l is iterable",
    "c is lower",
    "c is string",
    "c is filter",
    "c is test",
    "l.count(5)",
    "l.index(9)",
    "l.copy()",
    "c.count('a')",
    "c.count('')",
    "c.find('q')",
    "c.rfind('q')",
    "c.find('q', 7)",
    "c.index('')",
    "c.startswith(('q', 'r', 's', 't', 'u', 'v', 'w', 'x'), 7)",
    "c.startswith(t[:99] | join(' ') )",
    "c.endswith('q')",
    "c.strip('a')",
    "'x'.strip(c)",
    "c.strip()",
    "c.lstrip(c)",
    "c.split()",
    "c.split('a')",
    "c.rsplit('a', 3)",
    "c.splitlines()",
    "c.partition('q')",
    "c.replace('a', 'bb')",
    "c.join('abc')",
    "'a'.join(t)",
    "''.join(c)",
    "c.lower()",
    "c.title()",
    "c.swapcase()",
    "c.casefold()",
    "c.isalnum()",
    "c.isidentifier()",
    "c.isprintable()",
    "c.islower()",
    "c.istitle()",
    "c.isspace()",
    "c.expandtabs()",
    "c.zfill(99)",
    "c.ljust(99)",
    "c.center(n + 9, 'é')",
    "c.removeprefix('a')",
    "c.encode",
    "'%s' % c",
    "'%r' % c",
    "'%a' % [c]",
    "'%.3s' % c",
    "'{}'.format(c)",
    "'{!r}'.format(c)",
    "'{:>99}'.format(c)",
    "'{0.real.real.real.real}'.format(5)",
    "('{0' ~ '.real' * (n // 8) ~ '}').format(5)",
    "('{0' ~ '[0]' * (n // 8) ~ '}').format('a')",
    "('%d' * 9) % (1, 2, 3, 4, 5, 6, 7, 8, 9)",
    "('%(a)s' * (n // 8)) % {'a': 1}",
    "'%f' % 1.1e300",
    "'%.1000g' % 1.1e-300",
    "'%.300e' % 1.1",
    "'%d' % 1.1e300",
    "'{:f}'.format(1.1e300)",
    "'{:.900g}'.format(1.1e-300)",
    "'{:,}'.format(2**100)",
    "'{:b}'.format(2**100)",
    "1.1e300|round(300)",
    "1.1e300|round(2)",
    "1.15|round(1)",
    "1.1e300|round(-290)",
    "1.1e-300|string",
    "1.7976931348623157e308|string",
    "[1.1e-300]|tojson",
    "1e22|int",
    "1.1e300|filesizeformat",
    "(2**99)|string",
    "7**40",
    "2.5**300",
    "123456789|round(-3)",
    "'123.456e-300'|float",
    "strftime_now('%c')",
    "strftime_now('%Y')",
    "strftime_now(c)",
    "strftime_now('%c' * (n // 8))",
    "range(1, n)",
    "range(n)|list",
    "cycler(*l)",
    "y.next()",
    "j()",
    "namespace(a=c)",
    "raise_exception",
    "m()",
    "m(a=c)",
    "-1",
    "not c",
    "c or l",
    "c if c else l",
    "(c|e) ~ c",
    "(c|e) + c",
    "(c|e)|replace('<', c)",
];

/// Texts that are repeated: letters, words, digits, what is escaped, what is no ASCII, white space, tags.
const TEXTS: &[&str] = &["a", "a ", "1", "<\"", "é", "\u{1}", "\n", "<b>", "aΣ'", ".", "%c"];

/// The time that this thread has computed.
fn processor_time(start: Instant) -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    nanos.map_or_else(|| start.elapsed(), Duration::from_nanos)
}

/// The time of a rendering that repeats something until its steps or its memory are used up, and whether they were.
fn time(source: &str, content: &str) -> (Duration, bool) {
    let source =
        format!("{SETUP}{{% for x in range(1000) %}}{{% for z in range(1000) %}}{source}{{% endfor %}}{{% endfor %}}");
    let program = Program::parse(&source).unwrap_or_else(|(_, fault)| panic!("{source}: {}", fault.0));
    let messages = serde_json::json!([{"role": "user", "content": content}]);
    let (tools, variables) = (Json::Null, Map::new());
    let clock = None;
    let context = Context {
        messages: &messages,
        tools: &tools,
        add_generation_prompt: true,
        variables: &variables,
        own: &[],
        clock,
    };
    let budget = Budget::of(STEPS, 40 << 20, Arc::default());
    let start = Instant::now();
    let before = processor_time(start);
    let rendered = program.render_within(&context, budget);
    let taken = processor_time(start) - before;
    let is_spent =
        rendered.err().is_some_and(|(_, fault)| fault.0.contains("too many steps") || fault.0.contains("too long"));
    (taken, is_spent)
}

#[test]
fn no_step_takes_long() {
    let on_own_stack = std::thread::Builder::new().stack_size(limits::STACK).spawn(|| {
        let mut slow = Vec::new();
        let mut ended = Vec::new();
        let mut slowest = (Duration::ZERO, String::new());
        for expression in EXPRESSIONS {
            let mut was_spent = false;
            for (i, text) in TEXTS.iter().enumerate() {
                // Twice the length shows what is quadratic.
                for len in if i == 0 { vec![2_000, 4_000] } else { vec![2_000] } {
                    let content = text.repeat(len / text.len());
                    let (taken, is_spent) = time(&format!("{{% set a = {expression} %}}"), &content);
                    was_spent |= is_spent;
                    let each = taken / STEPS as u32;
                    slowest = slowest.max((each, format!("{expression} of {text:?}")));
                    if each > MOST {
                        slow.push(format!("{expression} of {len} bytes {text:?}: {each:?}"));
                    }
                }
            }
            if !was_spent {
                ended.push(expression);
            }
        }
        println!("the slowest step: {slowest:?}");
        assert!(slowest.0 > Duration::ZERO, "the clock stands");
        assert!(slow.is_empty(), "{slow:#?}");
        assert!(ended.is_empty(), "these end for another reason: {ended:#?}");
    });
    on_own_stack.expect("a thread").join().expect("no panic");
}
