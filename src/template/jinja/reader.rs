//! Reads the tokens of a template: what the parsers of expressions and statements share.

use super::ast::Symbol;
use super::lexer::{Kind, Token};
use super::limits::{MAX_NESTING, Res, fail};
use std::collections::HashMap;

/// Reads the tokens of a template.
pub struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// All names of variables, and the number of each.
    pub symbols: HashMap<String, Symbol>,
    /// For each open loop body, whether it names `loop`.
    pub loops: Vec<bool>,
    /// The open loop bodies that `{% break %}` can leave: none inside a macro.
    pub breakable: usize,
    /// The open statements that have variables of their own.
    pub scopes: usize,
    /// The names of the blocks.
    pub blocks: Vec<String>,
    /// For each open macro, which of `caller`, `kwargs` and `varargs` its body names.
    pub specials: Vec<[bool; 3]>,
    /// Whether a filter or test that is not known is only an error when it runs, as inside `{% if %}`.
    pub lenient: bool,
    /// Whether a filter or a test has this name.
    pub known: fn(name: &str, is_filter: bool) -> bool,
}

impl Parser {
    /// A parser at the first token.
    pub fn new(tokens: Vec<Token>, known: fn(&str, bool) -> bool) -> Parser {
        let (symbols, loops, specials, blocks) = Default::default();
        Parser {
            tokens,
            at: 0,
            depth: 0,
            symbols,
            loops,
            breakable: 0,
            scopes: 0,
            blocks,
            specials,
            lenient: false,
            known,
        }
    }

    /// The current token.
    pub fn current(&self) -> &Kind {
        &self.tokens[self.at].kind
    }

    /// The line of the current token.
    pub fn line(&self) -> u32 {
        self.tokens[self.at].line
    }

    /// Takes the current token.
    pub fn next(&mut self) -> Kind {
        let kind = self.tokens[self.at].kind.clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        kind
    }

    /// The token after the current one.
    pub fn look(&self) -> &Kind {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].kind
    }

    /// Whether the current token is this sign.
    pub fn is_sign(&self, sign: &str) -> bool {
        matches!(self.current(), Kind::Sign(found) if *found == sign)
    }

    /// Whether the current token is this name.
    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.current(), Kind::Name(found) if found == name)
    }

    /// Takes the current token if it is this sign.
    pub fn skip_sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    /// Takes the current token if it is this name.
    pub fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    /// An error that names the current token.
    pub fn unexpected<T>(&self, expected: &str) -> Res<T> {
        fail(format!("unexpected {}, expected {expected}", self.current().describe()))
    }

    /// Takes this sign.
    pub fn expect_sign(&mut self, sign: &str) -> Res<()> {
        if self.skip_sign(sign) { Ok(()) } else { self.unexpected(&format!("'{sign}'")) }
    }

    /// Takes a token of this kind.
    pub fn expect(&mut self, kind: &Kind) -> Res<()> {
        if self.current() != kind {
            return self.unexpected(&kind.describe());
        }
        self.next();
        Ok(())
    }

    /// Takes a name.
    pub fn expect_name(&mut self) -> Res<String> {
        match self.current() {
            Kind::Name(_) => match self.next() {
                Kind::Name(name) => Ok(name),
                _ => self.unexpected("a name"),
            },
            _ => self.unexpected("a name"),
        }
    }

    /// Parses something inside brackets or a block.
    pub fn nested<T>(&mut self, parse: impl FnOnce(&mut Parser) -> Res<T>) -> Res<T> {
        if self.depth >= MAX_NESTING {
            return fail(format!("the template nests more than {MAX_NESTING} brackets and blocks"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// The number of a variable's name.
    pub fn symbol(&mut self, name: &str) -> Symbol {
        if let Some(symbol) = self.symbols.get(name) {
            return *symbol;
        }
        let symbol = self.symbols.len() as Symbol;
        self.symbols.insert(name.into(), symbol);
        symbol
    }
}
