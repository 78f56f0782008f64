//! The values of templates, which behave like Python's, and the state of a rendering.
//!
//! Values that contain others know how deeply they nest, and their depth is bounded. Only a namespace, a loop and the
//! variables of a macro can come to contain themselves. The machine keeps those until the end and then empties them.

use super::ast::{For, Macro, Symbol};
use super::limits::{Budget, ITEM, MAX_CALLS, MAX_DEPTH, Res, brief, fail};
use super::text::{Text, TextBuilder};
use jiff::civil::DateTime;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// A value of a template.
#[derive(Clone)]
pub enum Value {
    Undefined(Rc<Missing>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Text),
    /// A text that is marked as safe HTML.
    Markup(Text),
    List(Rc<List>),
    Tuple(Rc<List>),
    Dict(Rc<Dict>),
    /// `keys()`, `values()` or `items()` of a dict.
    View(View, Rc<Dict>),
    /// Start, stop and step.
    Range(Rc<[i128; 3]>),
    Lazy(Rc<Lazy>),
    Namespace(Rc<Namespace>),
    Macro(Rc<Closure>),
    Loop(Rc<Loop>),
    Cycler(Rc<Cycler>),
    /// A separator, and whether it was used.
    Joiner(Rc<(Value, Cell<bool>)>),
    /// A method of a value, not called yet.
    Method(Rc<(Value, Arc<str>)>),
    /// A function that every template has.
    Function(&'static str),
}

const _: () = assert!(size_of::<Value>() <= ITEM);

/// What an undefined value stands for.
pub enum Missing {
    Variable(Arc<str>),
    /// A type, and the attribute that it does not have.
    Attribute(&'static str, Text),
    Other(&'static str),
}

impl Missing {
    /// The error for a use of the undefined value.
    pub fn message(&self) -> String {
        match self {
            Missing::Variable(name) => format!("'{name}' is undefined"),
            Missing::Attribute(kind, name) => {
                format!("'{kind}' has no attribute '{}', so it is undefined", brief(name.as_str()))
            }
            Missing::Other(why) => format!("undefined value: {why}"),
        }
    }
}

/// The items of a list or tuple.
pub struct List {
    pub items: Vec<Value>,
    pub depth: u32,
    /// Whether this is a group of the filter `groupby`, whose items have names.
    pub is_group: bool,
}

/// A dict. `compare` finds its items.
pub struct Dict {
    pub entries: Vec<(Value, Value)>,
    /// The places of the entries with each hash, if there are many.
    pub index: Option<HashMap<u64, Vec<u32>>>,
    pub depth: u32,
}

/// What a view of a dict shows.
#[derive(Clone, Copy, PartialEq)]
pub enum View {
    Keys,
    Values,
    Items,
}

/// A generator: its items are computed when they are asked for, once.
pub struct Lazy {
    pub source: RefCell<Box<dyn Source>>,
    pub depth: u32,
}

/// Where a generator takes its items from.
pub trait Source {
    /// The next item.
    fn next(&mut self, machine: &Machine) -> Res<Option<Value>>;
}

/// A namespace: variables that blocks inside it can set.
pub struct Namespace {
    pub attributes: RefCell<Dict>,
}

/// A macro and the variables around it.
pub struct Closure {
    pub definition: Arc<Macro>,
    pub scope: Rc<Scope>,
}

/// The variable `loop`.
pub struct Loop {
    pub definition: Arc<For>,
    /// The variables around the loop, for recursion.
    pub scope: Rc<Scope>,
    pub depth0: i128,
    pub state: RefCell<LoopState>,
}

/// How far a loop is.
#[derive(Default)]
pub struct LoopState {
    /// The items that follow; none at the end of the rendering.
    pub items: Option<Box<dyn Source>>,
    /// The number of items, if it is known.
    pub length: Option<i128>,
    /// Items that were asked for before their turn.
    pub ahead: std::collections::VecDeque<Value>,
    pub index0: i128,
    pub before: Option<Value>,
    pub current: Option<Value>,
    pub last_changed: Option<Vec<Value>>,
}

/// `cycler(…)`
pub struct Cycler {
    pub items: Rc<List>,
    pub position: Cell<usize>,
}

/// The variables of a block. None is a variable that is not set yet.
pub struct Scope {
    pub variables: RefCell<Vec<(Symbol, Option<Value>)>>,
    pub parent: Option<Rc<Scope>>,
    /// Whether the machine keeps it until the end.
    pub is_kept: Cell<bool>,
}

impl Scope {
    /// A scope inside another.
    pub fn inside(parent: Option<Rc<Scope>>) -> Rc<Scope> {
        Rc::new(Scope { variables: RefCell::default(), parent, is_kept: Cell::new(false) })
    }

    /// Makes variables undefined that this scope does not have yet.
    pub fn declare(&self, budget: &Budget, symbols: &[Symbol]) -> Res<()> {
        self.pay(budget, symbols.len())?;
        let mut variables = self.variables.borrow_mut();
        variables.extend(symbols.iter().map(|symbol| (*symbol, None)));
        Ok(())
    }

    /// Adds a variable that this scope does not have yet.
    pub fn add(&self, budget: &Budget, symbol: Symbol, value: Option<Value>) -> Res<()> {
        self.pay(budget, 1)?;
        self.variables.borrow_mut().push((symbol, value));
        Ok(())
    }

    /// Sets a variable of this scope.
    pub fn set(&self, budget: &Budget, symbol: Symbol, value: Option<Value>) -> Res<()> {
        budget.variables(self.variables.borrow().len())?;
        if let Some((_, old)) = self.variables.borrow_mut().iter_mut().find(|(known, _)| *known == symbol) {
            *old = value;
            return Ok(());
        }
        self.add(budget, symbol, value)
    }

    /// The value of a variable in this scope or those around it. None if no scope has it; in it, None if it is not set.
    pub fn get(&self, budget: &Budget, symbol: Symbol) -> Res<Option<Option<Value>>> {
        let (mut scope, mut before) = (self, 0);
        loop {
            let variables = scope.variables.borrow();
            if let Some(place) = variables.iter().position(|(known, _)| *known == symbol) {
                budget.variables(before + place)?;
                return Ok(Some(variables[place].1.clone()));
            }
            before += variables.len();
            match scope.parent.as_deref() {
                Some(parent) => scope = parent,
                None => return budget.variables(before).map(|()| None),
            }
        }
    }

    /// Pays for more variables. A few in a scope that does not stay are paid for by their statements.
    fn pay(&self, budget: &Budget, more: usize) -> Res<()> {
        const FEW: usize = 8;
        let is_cheap = !self.is_kept.get() && self.variables.borrow().len() + more <= FEW;
        if is_cheap { Ok(()) } else { budget.items(2 * more) }
    }
}

/// The arguments of a call.
#[derive(Default)]
pub struct Args {
    pub positional: Vec<Value>,
    /// Names that come from a dict keep the origins of its keys.
    pub named: Vec<(Text, Value)>,
}

impl Args {
    /// Positional arguments.
    pub fn of(positional: Vec<Value>) -> Args {
        Args { positional, named: Vec::new() }
    }

    /// The arguments for these parameters, in their order. Some parameters may stay without one.
    pub fn bind<const N: usize>(self, function: &str, parameters: [&str; N]) -> Res<[Option<Value>; N]> {
        let mut bound = [const { None }; N];
        if self.positional.len() > N {
            return fail(format!("{function} takes at most {N} arguments, found {}", self.positional.len()));
        }
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            let Some(place) = parameters.iter().position(|parameter| *parameter == name.as_str()) else {
                return fail(format!("{function} has no parameter '{}'", brief(name.as_str())));
            };
            if bound[place].replace(value).is_some() {
                return fail(format!("{function} got two values for '{}'", name.as_str()));
            }
        }
        Ok(bound)
    }
}

/// An error for a parameter without an argument.
pub fn required(value: Option<Value>, function: &str, parameter: &str) -> Res<Value> {
    value.ok_or_else(|| format!("{function} needs the argument '{parameter}'").into())
}

/// What must live until the end of a rendering, because it can contain itself.
pub enum Kept {
    Namespace(Rc<Namespace>),
    Scope(Rc<Scope>),
    Loop(Rc<Loop>),
}

/// Functions of the evaluator that values call.
pub struct Hooks {
    pub call: fn(&Machine, &Value, Args) -> Res<Value>,
    pub filter: fn(&Machine, &str, Value, Args) -> Res<Value>,
    pub test: fn(&Machine, &str, &Value, Args) -> Res<bool>,
}

/// The state of a rendering.
pub struct Machine {
    pub budget: Budget,
    /// The line that runs.
    pub line: Cell<u32>,
    /// The names of all variables.
    pub names: Vec<Arc<str>>,
    /// The value that each variable has outside of the template.
    pub globals: Vec<Option<Value>>,
    /// The text so far of the template, or of the block whose text is captured.
    pub out: RefCell<TextBuilder>,
    /// The time that `strftime_now` takes for now.
    pub clock: Option<DateTime>,
    pub hooks: Hooks,
    calls: Cell<u32>,
    kept: RefCell<Vec<Kept>>,
}

impl Machine {
    /// The state at the start of a rendering.
    pub fn new(budget: Budget, names: Vec<Arc<str>>, clock: Option<DateTime>, hooks: Hooks) -> Machine {
        let (line, calls, globals) = (Cell::new(1), Cell::new(0), Vec::new());
        Machine { budget, line, names, globals, out: RefCell::default(), clock, hooks, calls, kept: RefCell::default() }
    }

    /// Runs something that may recurse.
    pub fn deeper<T>(&self, work: impl FnOnce() -> Res<T>) -> Res<T> {
        let depth = self.calls.get();
        if depth >= MAX_CALLS {
            return fail("the template recurses too deeply");
        }
        self.calls.set(depth + 1);
        let done = work();
        self.calls.set(depth);
        done
    }

    /// Keeps something until the end.
    pub fn keep(&self, kept: Kept) -> Res<()> {
        self.budget.items(12)?;
        self.kept.borrow_mut().push(kept);
        Ok(())
    }

    /// Keeps the variables of a block until the end, because a macro uses them.
    pub fn keep_scope(&self, scope: &Rc<Scope>) -> Res<()> {
        if scope.is_kept.replace(true) {
            return Ok(());
        }
        self.budget.items(2 * scope.variables.borrow().len())?;
        self.keep(Kept::Scope(scope.clone()))
    }

    /// A list of these items.
    pub fn list(&self, items: Vec<Value>) -> Res<Value> {
        Ok(Value::List(Rc::new(self.sequence(items)?)))
    }

    /// A tuple of these items.
    pub fn tuple(&self, items: Vec<Value>) -> Res<Value> {
        Ok(Value::Tuple(Rc::new(self.sequence(items)?)))
    }

    /// The items of a list or tuple.
    pub fn sequence(&self, items: Vec<Value>) -> Res<List> {
        self.budget.items(items.len())?;
        let depth = nesting(items.iter())?;
        Ok(List { items, depth, is_group: false })
    }

    /// A generator that holds these values.
    pub fn lazy<'a, S: Source + 'static>(&self, holds: impl Iterator<Item = &'a Value>, source: S) -> Res<Value> {
        self.budget.items(2 + size_of::<S>() / ITEM)?;
        let depth = nesting(holds)?;
        Ok(Value::Lazy(Rc::new(Lazy { source: RefCell::new(Box::new(source)), depth })))
    }

    /// A list or tuple of so many items, paid for before they are made.
    pub fn gather(&self, is_tuple: bool, count: usize, items: impl Iterator<Item = Value>) -> Res<Value> {
        self.budget.items(count)?;
        let items: Vec<Value> = items.collect();
        let depth = nesting(items.iter())?;
        let list = Rc::new(List { items, depth, is_group: false });
        Ok(if is_tuple { Value::Tuple(list) } else { Value::List(list) })
    }

    /// Texts in a row, paid for before they are joined.
    pub fn concat(&self, texts: [&Text; 2]) -> Res<Text> {
        self.budget.build(texts[0].size() + texts[1].size() + 64)?;
        Ok(Text::concat(texts.into_iter()))
    }

    /// A text, which is paid for.
    pub fn text(&self, text: Text) -> Res<Value> {
        self.budget.build(text.size() + 64)?;
        Ok(Value::Text(text))
    }

    /// A text that is computed from values, which may come from a message.
    pub fn data(&self, text: impl Into<String>) -> Res<Value> {
        self.text(Text::data(text))
    }

    /// A text of the template's own.
    pub fn own(&self, text: impl Into<String>) -> Res<Value> {
        self.text(Text::own(text))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // First everything is taken out of what is kept, so that nothing is freed through a chain of them.
        let (mut dicts, mut scopes, mut loops) = (Vec::new(), Vec::new(), Vec::new());
        for kept in self.kept.get_mut().iter() {
            match kept {
                Kept::Namespace(namespace) => dicts.push(namespace.attributes.replace(Dict::empty())),
                Kept::Scope(scope) => scopes.push(scope.variables.take()),
                Kept::Loop(looped) => {
                    loops.push(looped.state.replace(LoopState::default()));
                }
            }
        }
    }
}

/// The depth of something that contains these values.
pub fn nesting<'a>(values: impl Iterator<Item = &'a Value>) -> Res<u32> {
    let depth = 1 + values.map(Value::depth).max().unwrap_or(0);
    if depth > MAX_DEPTH {
        return fail(format!("values are nested too deeply, expected at most {MAX_DEPTH} inside one another"));
    }
    Ok(depth)
}

impl Dict {
    /// A dict without entries.
    pub fn empty() -> Dict {
        Dict { entries: Vec::new(), index: None, depth: 1 }
    }
}

impl Value {
    /// How deeply values nest inside this one.
    pub fn depth(&self) -> u32 {
        match self {
            Value::List(list) | Value::Tuple(list) => list.depth,
            Value::Dict(dict) | Value::View(_, dict) => dict.depth,
            Value::Lazy(lazy) => lazy.depth,
            Value::Cycler(cycler) => cycler.items.depth,
            Value::Joiner(joiner) => joiner.0.depth() + 1,
            Value::Method(method) => method.0.depth(),
            _ => 0,
        }
    }

    /// The undefined value of an attribute that a value does not have.
    pub fn no_attribute(&self, name: Text) -> Value {
        Value::Undefined(Rc::new(Missing::Attribute(self.kind(), name)))
    }

    /// An undefined value with a reason.
    pub fn undefined(why: &'static str) -> Value {
        Value::Undefined(Rc::new(Missing::Other(why)))
    }

    /// The name of the value's type in Python.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Text(_) => "str",
            Value::Markup(_) => "Markup",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::View(View::Keys, _) => "dict_keys",
            Value::View(View::Values, _) => "dict_values",
            Value::View(View::Items, _) => "dict_items",
            Value::Range(_) => "range",
            Value::Lazy(_) => "generator",
            Value::Namespace(_) => "Namespace",
            Value::Macro(_) => "Macro",
            Value::Loop(_) => "LoopContext",
            Value::Cycler(_) => "Cycler",
            Value::Joiner(_) => "Joiner",
            Value::Method(_) => "method",
            Value::Function(_) => "function",
        }
    }

    /// Whether Python's `bool` gives true.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(yes) => *yes,
            Value::Int(n) => *n != 0,
            Value::Float(x) => *x != 0.0,
            Value::Text(text) | Value::Markup(text) => !text.is_empty(),
            Value::List(list) | Value::Tuple(list) => !list.items.is_empty(),
            Value::Dict(dict) | Value::View(_, dict) => !dict.entries.is_empty(),
            Value::Range(range) => range_len(range) > 0,
            _ => true,
        }
    }

    /// The text, also of Markup.
    pub fn as_text(&self) -> Option<&Text> {
        match self {
            Value::Text(text) | Value::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// The value as an integer, as far as Python's `__index__` gives one.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(n) => Some(*n),
            Value::Bool(yes) => Some((*yes).into()),
            _ => None,
        }
    }

    /// An error if the value is undefined.
    pub fn defined(&self) -> Res<&Value> {
        match self {
            Value::Undefined(missing) => fail(missing.message()),
            _ => Ok(self),
        }
    }
}

/// The number of items of a range.
pub fn range_len(range: &[i128; 3]) -> i128 {
    let [start, stop, step] = *range;
    let (low, high, step) = if step > 0 { (start, stop, step) } else { (stop, start, step.saturating_neg()) };
    if low >= high { 0 } else { (high.saturating_sub(low) - 1) / step + 1 }
}

/// A function of every rendering: the machine, and what a value is asked for.
pub fn length(machine: &Machine, value: &Value) -> Res<Option<i128>> {
    Ok(Some(match value {
        Value::Undefined(_) => 0,
        Value::Text(text) | Value::Markup(text) => {
            machine.budget.scan(text.len())?;
            text.count_chars() as i128
        }
        Value::List(list) | Value::Tuple(list) => list.items.len() as i128,
        Value::Dict(dict) | Value::View(_, dict) => dict.entries.len() as i128,
        Value::Range(range) => range_len(range),
        _ => return Ok(None),
    }))
}
