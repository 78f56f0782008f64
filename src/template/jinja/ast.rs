//! The syntax tree of a template. Chains of operators are lists, so that a long chain does not nest.

use super::text::Text;
use std::sync::Arc;

/// The number of a variable's name.
pub type Symbol = u32;

/// Statements that run one after the other.
pub type Block = Vec<Statement>;

/// Statements with variables of their own.
#[derive(Debug, Default)]
pub struct Frame {
    pub statements: Block,
    /// The variables that are undefined at the start, whatever the blocks around have.
    pub unset: Vec<Symbol>,
}

/// A statement, or text to print.
#[derive(Debug)]
pub enum Statement {
    Text(Text),
    Print {
        line: u32,
        value: Expr,
    },
    Set {
        target: Target,
        value: Expr,
    },
    /// `{% set x %}…{% endset %}`
    Capture {
        target: Target,
        filters: Vec<Postfix>,
        body: Frame,
    },
    For(Arc<For>),
    If {
        branches: Vec<(Expr, Block)>,
        otherwise: Block,
    },
    With {
        targets: Vec<Target>,
        values: Vec<Expr>,
        body: Frame,
    },
    Macro(Arc<Macro>),
    /// `{% call %}`: a call that gets `body` as its `caller`.
    Call {
        body: Arc<Macro>,
        call: Expr,
    },
    /// `{% filter %}`
    Filter {
        filters: Vec<Postfix>,
        body: Frame,
    },
    /// `{% generation %}`
    Scope(Frame),
    /// `{% block %}`
    Block(Frame),
    Break,
    Continue,
    /// A statement that is an error once it runs.
    Refused {
        line: u32,
        why: String,
    },
}

/// A loop.
#[derive(Debug)]
pub struct For {
    pub line: u32,
    pub target: Target,
    pub items: Expr,
    pub test: Option<Expr>,
    pub recursive: bool,
    /// Whether the body names the variable `loop`.
    pub uses_loop: bool,
    /// The name `loop`.
    pub symbol: Symbol,
    pub body: Frame,
    pub otherwise: Frame,
}

/// A macro, or the body of a call block.
#[derive(Debug)]
pub struct Macro {
    pub name: Option<Arc<str>>,
    pub symbol: Symbol,
    pub parameters: Vec<Parameter>,
    pub body: Frame,
    /// The special variables that the body names, if they are not parameters.
    pub caller: Option<Symbol>,
    pub kwargs: Option<Symbol>,
    pub varargs: Option<Symbol>,
}

/// A parameter of a macro.
#[derive(Debug)]
pub struct Parameter {
    pub name: Arc<str>,
    pub symbol: Symbol,
    pub default: Option<Expr>,
}

/// What can be assigned to.
#[derive(Debug)]
pub enum Target {
    Name(Symbol),
    /// An attribute of a namespace.
    Attribute {
        line: u32,
        namespace: Symbol,
        name: Arc<str>,
    },
    Tuple {
        line: u32,
        targets: Vec<Target>,
    },
}

/// An expression.
#[derive(Debug)]
pub enum Expr {
    Const(Const),
    Name(Symbol),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    /// Operators of one precedence, from left to right.
    Binary {
        line: u32,
        first: Box<Expr>,
        rest: Vec<(Operator, Expr)>,
    },
    /// `a ~ b`
    Concat {
        line: u32,
        parts: Vec<Expr>,
    },
    /// `a < b < c`
    Compare {
        line: u32,
        first: Box<Expr>,
        rest: Vec<(Comparison, Expr)>,
    },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// `not`, `times` times.
    Not {
        times: usize,
        value: Box<Expr>,
    },
    /// Signs, the innermost last. True is minus.
    Signs {
        line: u32,
        signs: Vec<bool>,
        value: Box<Expr>,
    },
    /// `a if b else c if d else e`: pairs of value and test.
    If {
        line: u32,
        arms: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Postfix {
        value: Box<Expr>,
        rest: Vec<Postfix>,
    },
}

/// A literal.
#[derive(Clone, Debug)]
pub enum Const {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Text),
}

/// An operator of two numbers, texts or lists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

/// What follows a value.
#[derive(Debug)]
pub struct Postfix {
    pub line: u32,
    pub what: After,
}

/// What follows a value.
#[derive(Debug)]
pub enum After {
    Attribute(Text),
    Item(Expr),
    Slice(Box<[Option<Expr>; 3]>),
    Call(Arguments),
    Filter(Arc<str>, Arguments),
    Test { name: Arc<str>, arguments: Arguments, negated: bool },
}

/// The arguments of a call.
#[derive(Debug, Default)]
pub struct Arguments {
    pub positional: Vec<Expr>,
    pub named: Vec<(Text, Expr)>,
    /// `*expression`
    pub all_positional: Option<Expr>,
    /// `**expression`
    pub all_named: Option<Expr>,
}
