//! Calls a method of `str` by its name, with the arguments that Python takes.

use super::limits::brief;
use super::str_methods::{self as methods, Align, Bounds, Side};
use super::text::{Fault, Text};
use super::unicode::{Case, change_case};

/// An argument.
#[derive(Clone, Debug)]
pub enum Arg {
    None,
    Bool(bool),
    Int(i128),
    Text(Text),
    Tuple(Vec<Arg>),
    /// The items of any other sequence or iterator; only `join` asks for them.
    Items(Vec<Arg>),
    /// Any other value, by the name of its type.
    Other(&'static str),
}

/// What a method returns.
pub enum Answer {
    Text(Text),
    Int(i128),
    Bool(bool),
    /// A tuple.
    Parts([Text; 3]),
    /// A list, made item by item.
    Items(Box<dyn Iterator<Item = Text>>),
    /// A list, whose last item is made first.
    ItemsFromRight(Box<dyn Iterator<Item = Text>>),
}

/// A method: its name, the fewest and the most arguments, and the arguments that may be given by name.
type Method = (&'static str, usize, usize, &'static [&'static str]);

/// The methods of `str`, except `format` and `format_map`.
const METHODS: [Method; 45] = [
    ("capitalize", 0, 0, &[]),
    ("casefold", 0, 0, &[]),
    ("center", 1, 2, &[]),
    ("count", 1, 3, &[]),
    ("encode", 0, 2, &["encoding", "errors"]),
    ("endswith", 1, 3, &[]),
    ("expandtabs", 0, 1, &["tabsize"]),
    ("find", 1, 3, &[]),
    ("index", 1, 3, &[]),
    ("isalnum", 0, 0, &[]),
    ("isalpha", 0, 0, &[]),
    ("isascii", 0, 0, &[]),
    ("isdecimal", 0, 0, &[]),
    ("isdigit", 0, 0, &[]),
    ("isidentifier", 0, 0, &[]),
    ("islower", 0, 0, &[]),
    ("isnumeric", 0, 0, &[]),
    ("isprintable", 0, 0, &[]),
    ("isspace", 0, 0, &[]),
    ("istitle", 0, 0, &[]),
    ("isupper", 0, 0, &[]),
    ("join", 1, 1, &[]),
    ("ljust", 1, 2, &[]),
    ("lower", 0, 0, &[]),
    ("lstrip", 0, 1, &[]),
    ("maketrans", 1, 3, &[]),
    ("partition", 1, 1, &[]),
    ("removeprefix", 1, 1, &[]),
    ("removesuffix", 1, 1, &[]),
    ("replace", 2, 3, &[]),
    ("rfind", 1, 3, &[]),
    ("rindex", 1, 3, &[]),
    ("rjust", 1, 2, &[]),
    ("rpartition", 1, 1, &[]),
    ("rsplit", 0, 2, &["sep", "maxsplit"]),
    ("rstrip", 0, 1, &[]),
    ("split", 0, 2, &["sep", "maxsplit"]),
    ("splitlines", 0, 1, &["keepends"]),
    ("startswith", 1, 3, &[]),
    ("strip", 0, 1, &[]),
    ("swapcase", 0, 0, &[]),
    ("title", 0, 0, &[]),
    ("translate", 1, 1, &[]),
    ("upper", 0, 0, &[]),
    ("zfill", 1, 1, &[]),
];

/// Whether `str` has a method of this name.
pub fn is_method(name: &str) -> bool {
    matches!(name, "format" | "format_map") || METHODS.iter().any(|method| method.0 == name)
}

/// Calls a method of [`is_method`], except `format` and `format_map`. Results are at most `limit` bytes large.
pub fn call(text: &Text, method: &str, args: &[Arg], named: &[(&str, Arg)], limit: usize) -> Result<Answer, Fault> {
    let args = Args::new(method, args, named)?;
    let cased = |case| change_case(text, case, limit).map(Answer::Text);
    let stripped = |sides| Ok(Answer::Text(methods::strip(text, args.optional_text(0)?, sides)));
    let padded = |align| {
        let fill = if args.has(1) { args.fill(1)? } else { Text::own(" ") };
        methods::pad(text, args.size(0, 0)?, &fill, align, limit).map(Answer::Text)
    };
    let found = |side| Ok(methods::find(text, args.text(0)?, args.bounds()?, side));
    let at = |found: Option<usize>| found.map(|at| Answer::Int(at as i128));
    let not_found = || Fault::value_error("substring not found");
    let unaffixed = |side| Ok(Answer::Text(methods::remove_affix(text, args.text(0)?, side)));
    let pieces = |side| methods::split(text, args.optional_text(0)?, args.size(1, -1)?, side);
    match method {
        "lower" => cased(Case::Lower),
        "upper" => cased(Case::Upper),
        "title" => cased(Case::Title),
        "capitalize" => cased(Case::Capitalize),
        "swapcase" => cased(Case::Swap),
        "casefold" => cased(Case::Fold),
        "strip" => stripped(&[Side::Left, Side::Right]),
        "lstrip" => stripped(&[Side::Left]),
        "rstrip" => stripped(&[Side::Right]),
        "ljust" => padded(Align::Left),
        "rjust" => padded(Align::Right),
        "center" => padded(Align::Center),
        "zfill" => methods::zero_fill(text, args.size(0, 0)?, limit).map(Answer::Text),
        "expandtabs" => methods::expand_tabs(text, args.short(0, 8)?, limit).map(Answer::Text),
        "find" => Ok(at(found(Side::Left)?).unwrap_or(Answer::Int(-1))),
        "rfind" => Ok(at(found(Side::Right)?).unwrap_or(Answer::Int(-1))),
        "index" => at(found(Side::Left)?).ok_or_else(not_found),
        "rindex" => at(found(Side::Right)?).ok_or_else(not_found),
        "count" => Ok(Answer::Int(methods::count(text, args.text(0)?, args.bounds()?) as i128)),
        "startswith" => args.has_affix(text, Side::Left),
        "endswith" => args.has_affix(text, Side::Right),
        "removeprefix" => unaffixed(Side::Left),
        "removesuffix" => unaffixed(Side::Right),
        "partition" => methods::partition(text, args.text(0)?, Side::Left).map(Answer::Parts),
        "rpartition" => methods::partition(text, args.text(0)?, Side::Right).map(Answer::Parts),
        "split" => Ok(Answer::Items(Box::new(pieces(Side::Left)?))),
        "rsplit" => Ok(Answer::ItemsFromRight(Box::new(pieces(Side::Right)?))),
        "splitlines" => Ok(Answer::Items(Box::new(methods::split_lines(text, args.short(0, 0)? != 0)))),
        "replace" => methods::replace(text, args.text(0)?, args.text(1)?, args.size(2, -1)?, limit).map(Answer::Text),
        "join" => args.join(text, limit).map(Answer::Text),
        _ => match methods::is_of_kind(text, method) {
            Some(answer) => Ok(Answer::Bool(answer)),
            None => Err(Fault::Unsupported(format!("the method '{method}' of strings is not supported in templates"))),
        },
    }
}

/// The arguments of a call in the order of the method's parameters.
struct Args<'a> {
    method: &'a str,
    args: [Option<&'a Arg>; 3],
}

impl<'a> Args<'a> {
    fn new(method: &'a str, args: &'a [Arg], named: &'a [(&str, Arg)]) -> Result<Args<'a>, Fault> {
        let Some(&(_, fewest, most, names)) = METHODS.iter().find(|known| known.0 == method) else {
            return Err(Fault::Raised("AttributeError", format!("'str' object has no attribute '{method}'")));
        };
        let given = args.len() + named.len();
        if names.is_empty() && !named.is_empty() {
            return Err(Fault::type_error(format!("str.{method}() takes no keyword arguments")));
        }
        if given < fewest || given > most {
            let bound = match (given < fewest, fewest == most) {
                (_, true) => "exactly",
                (true, false) => "at least",
                (false, false) => "at most",
            };
            let count = if given < fewest { fewest } else { most };
            return Err(Fault::type_error(format!("str.{method}() takes {bound} {count} arguments ({given} given)")));
        }
        let mut bound = [None; 3];
        bound.iter_mut().zip(args).for_each(|(place, arg)| *place = Some(arg));
        for (name, arg) in named {
            let place = names.iter().position(|known| known == name);
            match place.and_then(|place| bound.get_mut(place)) {
                Some(place @ None) => *place = Some(arg),
                Some(_) => return Err(Fault::type_error(format!("str.{method}() got '{name}' twice"))),
                None => {
                    let message = format!("'{}' is an invalid keyword argument for str.{method}()", brief(name));
                    return Err(Fault::type_error(message));
                }
            }
        }
        Ok(Args { method, args: bound })
    }

    fn has(&self, n: usize) -> bool {
        self.args[n].is_some()
    }

    fn wrong(&self, n: usize, expected: &str) -> Fault {
        let found = self.args[n].map_or("nothing", type_name);
        Fault::type_error(format!("{}() argument {} must be {expected}, not {found}", self.method, n + 1))
    }

    fn text(&self, n: usize) -> Result<&'a Text, Fault> {
        match self.args[n] {
            Some(Arg::Text(text)) => Ok(text),
            _ => Err(self.wrong(n, "str")),
        }
    }

    fn optional_text(&self, n: usize) -> Result<Option<&'a Text>, Fault> {
        match self.args[n] {
            None | Some(Arg::None) => Ok(None),
            Some(Arg::Text(text)) => Ok(Some(text)),
            _ => Err(self.wrong(n, "str or None")),
        }
    }

    /// An argument that Python keeps in 64 bits.
    fn size(&self, n: usize, default: i128) -> Result<i128, Fault> {
        let size = self.int(n, default)?;
        if i64::try_from(size).is_ok() { Ok(size) } else { Err(too_large("ssize_t")) }
    }

    /// An argument that Python keeps in 32 bits.
    fn short(&self, n: usize, default: i128) -> Result<i128, Fault> {
        let number = self.int(n, default)?;
        if i32::try_from(number).is_ok() { Ok(number) } else { Err(too_large("int")) }
    }

    fn int(&self, n: usize, default: i128) -> Result<i128, Fault> {
        self.args[n].map_or(Ok(default), |arg| as_int(arg).ok_or_else(|| self.wrong(n, "an integer")))
    }

    fn fill(&self, n: usize) -> Result<Text, Fault> {
        let fill = self.text(n)?;
        let message = "The fill character must be exactly one character long";
        if fill.count_chars() == 1 { Ok(fill.clone()) } else { Err(Fault::type_error(message)) }
    }

    /// The second and the third argument as bounds.
    fn bounds(&self) -> Result<Bounds, Fault> {
        let bound = |n: usize| match self.args[n] {
            None | Some(Arg::None) => Ok(None),
            Some(arg) => as_int(arg)
                .map(Some)
                .ok_or_else(|| Fault::type_error("slice indices must be integers or None or have an __index__ method")),
        };
        Ok(Bounds { start: bound(1)?, end: bound(2)? })
    }

    fn has_affix(&self, text: &Text, side: Side) -> Result<Answer, Fault> {
        let bounds = self.bounds()?;
        let affixes = match self.args[0] {
            Some(Arg::Tuple(affixes)) => affixes,
            Some(arg) => std::slice::from_ref(arg),
            None => &[],
        };
        // As in Python, what follows the first one that is there may be anything.
        let texts = affixes.iter().map_while(|affix| if let Arg::Text(affix) = affix { Some(affix) } else { None });
        match methods::has_affix(text, texts.clone(), bounds, side) {
            false if texts.count() < affixes.len() => Err(self.wrong(0, "str or a tuple of str")),
            found => Ok(Answer::Bool(found)),
        }
    }

    fn join(&self, separator: &Text, limit: usize) -> Result<Text, Fault> {
        let items = match self.args[0] {
            Some(Arg::Tuple(items) | Arg::Items(items)) => items,
            Some(Arg::Text(text)) => {
                let chars = text.chars().map(|(c, is_data)| if is_data { Text::data(c) } else { Text::own(c) });
                return methods::join(separator, chars, limit);
            }
            _ => return Err(Fault::type_error("can only join an iterable")),
        };
        if let Some((n, other)) = items.iter().enumerate().find(|(_, item)| !matches!(item, Arg::Text(_))) {
            let found = type_name(other);
            return Err(Fault::type_error(format!("sequence item {n}: expected str instance, {found} found")));
        }
        let texts = items.iter().filter_map(|item| if let Arg::Text(text) = item { Some(text.clone()) } else { None });
        methods::join(separator, texts, limit)
    }
}

fn too_large(what: &str) -> Fault {
    Fault::Raised("OverflowError", format!("Python int too large to convert to C {what}"))
}

/// An argument as an integer, which booleans are too.
fn as_int(arg: &Arg) -> Option<i128> {
    match arg {
        Arg::Int(number) => Some(*number),
        Arg::Bool(yes) => Some((*yes).into()),
        _ => None,
    }
}

fn type_name(arg: &Arg) -> &'static str {
    match arg {
        Arg::None => "NoneType",
        Arg::Bool(_) => "bool",
        Arg::Int(_) => "int",
        Arg::Text(_) => "str",
        Arg::Tuple(_) => "tuple",
        Arg::Items(_) => "list",
        Arg::Other(name) => name,
    }
}

#[cfg(test)]
#[path = "../../../tests/unit/jinja_str.rs"]
mod tests;
