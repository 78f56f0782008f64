//! Parses expressions, as Jinja2's parser does it.

use super::ast::{After, Arguments, Comparison, Const, Expr, Operator, Postfix, Target};
use super::lexer::Kind;
use super::limits::{Fault, Res, fail};
use super::reader::Parser;
use super::text::Text;
use std::sync::Arc;

/// The variables that a macro gets if it names them.
pub const SPECIALS: [&str; 3] = ["caller", "kwargs", "varargs"];

impl Parser {
    /// A variable that is read.
    fn variable(&mut self, name: &str) -> Res<Expr> {
        if let "self" | "super" = name {
            return fail(format!("the variable '{name}' of template inheritance is not supported"));
        }
        if let Some(used) = self.loops.last_mut() {
            *used |= name == "loop";
        }
        if let Some(special) = SPECIALS.iter().position(|special| *special == name) {
            self.specials.iter_mut().for_each(|used| used[special] = true);
        }
        Ok(Expr::Name(self.symbol(name)))
    }

    /// An expression.
    pub fn expression(&mut self) -> Res<Expr> {
        self.nested(Parser::conditional)
    }

    fn conditional(&mut self) -> Res<Expr> {
        let was_lenient = self.lenient;
        let (mut arms, mut value) = (Vec::new(), self.or()?);
        let line = self.line();
        while self.skip_name("if") {
            self.lenient = true;
            let test = self.or()?;
            arms.push((value, test));
            if self.skip_name("else") {
                value = self.or()?;
            } else {
                // Without an `else`, a further `if` tests the whole.
                value = Expr::If { line, arms: std::mem::take(&mut arms), otherwise: None };
            }
        }
        self.lenient = was_lenient;
        if arms.is_empty() {
            return Ok(value);
        }
        Ok(Expr::If { line, arms, otherwise: Some(Box::new(value)) })
    }

    /// An expression without `if`.
    pub fn or(&mut self) -> Res<Expr> {
        let mut all = vec![self.and()?];
        while self.skip_name("or") {
            all.push(self.and()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expr::Or(all) })
    }

    fn and(&mut self) -> Res<Expr> {
        let mut all = vec![self.not()?];
        while self.skip_name("and") {
            all.push(self.not()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expr::And(all) })
    }

    fn not(&mut self) -> Res<Expr> {
        let mut times = 0;
        while self.skip_name("not") {
            times += 1;
        }
        let value = self.compare()?;
        Ok(if times == 0 { value } else { Expr::Not { times, value: Box::new(value) } })
    }

    fn compare(&mut self) -> Res<Expr> {
        let (first, line) = (self.sum()?, self.line());
        let mut rest = Vec::new();
        loop {
            let comparison = match self.current() {
                Kind::Sign("==") => Comparison::Eq,
                Kind::Sign("!=") => Comparison::Ne,
                Kind::Sign("<") => Comparison::Lt,
                Kind::Sign("<=") => Comparison::Le,
                Kind::Sign(">") => Comparison::Gt,
                Kind::Sign(">=") => Comparison::Ge,
                Kind::Name(name) if name == "in" => Comparison::In,
                Kind::Name(name) if name == "not" && matches!(self.look(), Kind::Name(next) if next == "in") => {
                    self.next();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.next();
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare { line, first: Box::new(first), rest } })
    }

    fn sum(&mut self) -> Res<Expr> {
        self.binary(&[("+", Operator::Add), ("-", Operator::Sub)], Parser::concat)
    }

    fn concat(&mut self) -> Res<Expr> {
        let line = self.line();
        let mut parts = vec![self.product()?];
        while self.skip_sign("~") {
            parts.push(self.product()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Concat { line, parts } })
    }

    fn product(&mut self) -> Res<Expr> {
        let operators = [("*", Operator::Mul), ("/", Operator::Div), ("//", Operator::FloorDiv), ("%", Operator::Mod)];
        self.binary(&operators, Parser::power)
    }

    fn power(&mut self) -> Res<Expr> {
        self.binary(&[("**", Operator::Pow)], Parser::unary)
    }

    fn binary(&mut self, operators: &[(&str, Operator)], operand: impl Fn(&mut Parser) -> Res<Expr>) -> Res<Expr> {
        let (first, line) = (operand(self)?, self.line());
        let mut rest = Vec::new();
        while let Some((_, operator)) = operators.iter().find(|(sign, _)| self.is_sign(sign)) {
            self.next();
            rest.push((*operator, operand(self)?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Binary { line, first: Box::new(first), rest } })
    }

    /// A value with its signs, and what follows it. Signs bind more tightly than filters and tests.
    fn unary(&mut self) -> Res<Expr> {
        let line = self.line();
        let mut signs = Vec::new();
        while self.is_sign("-") || self.is_sign("+") {
            signs.push(self.is_sign("-"));
            self.next();
        }
        let value = self.primary()?;
        let mut rest = Vec::new();
        self.postfix(&mut rest)?;
        let mut value = with(value, rest);
        if !signs.is_empty() {
            value = Expr::Signs { line, signs, value: Box::new(value) };
        }
        let mut rest = Vec::new();
        loop {
            if self.is_sign("|") {
                self.filters(&mut rest)?;
            } else if self.is_name("is") {
                rest.push(self.test()?);
            } else if self.is_sign("(") {
                rest.push(self.call()?);
            } else {
                return Ok(with(value, rest));
            }
        }
    }

    /// A name, a literal, or an expression in brackets.
    fn primary(&mut self) -> Res<Expr> {
        match self.current() {
            Kind::Name(_) => match self.expect_name()?.as_str() {
                "true" | "True" => Ok(Expr::Const(Const::Bool(true))),
                "false" | "False" => Ok(Expr::Const(Const::Bool(false))),
                "none" | "None" => Ok(Expr::Const(Const::None)),
                name => self.variable(name),
            },
            Kind::Literal(Const::Text(_)) => {
                let mut texts = Vec::new();
                while let Kind::Literal(Const::Text(text)) = self.current() {
                    texts.push(text.clone());
                    self.next();
                }
                Ok(Expr::Const(Const::Text(Text::concat(texts.iter()))))
            }
            Kind::Literal(value) => {
                let value = Expr::Const(value.clone());
                self.next();
                Ok(value)
            }
            Kind::Sign("(") => {
                self.next();
                let value = self.nested(|parser| parser.tuple(true, true, &[]))?;
                self.expect_sign(")")?;
                Ok(value)
            }
            Kind::Sign("[") => {
                self.next();
                Ok(Expr::List(self.until("]", Parser::expression)?))
            }
            Kind::Sign("{") => {
                self.next();
                Ok(Expr::Dict(self.until("}", |parser| {
                    let key = parser.expression()?;
                    parser.expect_sign(":")?;
                    Ok((key, parser.expression()?))
                })?))
            }
            _ => self.unexpected("an expression"),
        }
    }

    /// Items with commas between them, up to a closing bracket.
    fn until<T>(&mut self, close: &str, item: impl Fn(&mut Parser) -> Res<T>) -> Res<Vec<T>> {
        let mut items = Vec::new();
        while !self.is_sign(close) {
            if !items.is_empty() {
                self.expect_sign(",")?;
                if self.is_sign(close) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        self.expect_sign(close)?;
        Ok(items)
    }

    /// An expression, or several with commas between them, which are a tuple. One of the names `ends` ends it.
    pub fn tuple(&mut self, may_be_empty: bool, with_if: bool, ends: &[&str]) -> Res<Expr> {
        let (mut items, mut is_tuple) = (Vec::new(), false);
        loop {
            let closes = matches!(self.current(), Kind::PrintEnd | Kind::BlockEnd | Kind::Sign(")"));
            if closes || ends.iter().any(|end| self.is_name(end)) {
                break;
            }
            items.push(if with_if { self.expression()? } else { self.nested(Parser::or)? });
            if !self.skip_sign(",") {
                break;
            }
            is_tuple = true;
        }
        match items.len() {
            1 if !is_tuple => Ok(items.remove(0)),
            0 if !may_be_empty && !is_tuple => self.unexpected("an expression"),
            _ => Ok(Expr::Tuple(items)),
        }
    }

    /// What `{% set %}`, `{% for %}` and `{% with %}` assign to. One of the names `ends` ends it.
    pub fn target(&mut self, with_namespace: bool, ends: &[&str]) -> Res<Target> {
        let (line, mut targets, mut is_tuple) = (self.line(), Vec::new(), false);
        loop {
            let closes = matches!(self.current(), Kind::BlockEnd | Kind::Sign(")"));
            if closes || ends.iter().any(|end| self.is_name(end)) {
                break;
            }
            targets.push(self.single_target(with_namespace)?);
            if !self.skip_sign(",") {
                break;
            }
            is_tuple = true;
        }
        match targets.len() {
            1 if !is_tuple => Ok(targets.remove(0)),
            0 => self.unexpected("a variable to assign to"),
            _ => Ok(Target::Tuple { line, targets }),
        }
    }

    fn single_target(&mut self, with_namespace: bool) -> Res<Target> {
        let line = self.line();
        if self.skip_sign("(") {
            let target = self.nested(|parser| parser.target(false, &[]))?;
            self.expect_sign(")")?;
            return Ok(target);
        }
        let name = self.expect_name()?;
        if with_namespace && self.skip_sign(".") {
            let namespace = self.symbol(&name);
            return Ok(Target::Attribute { line, namespace, name: self.expect_name()?.into() });
        }
        match name.as_str() {
            "true" | "True" | "false" | "False" | "none" | "None" => fail(format!("cannot assign to '{name}'")),
            name => Ok(Target::Name(self.symbol(name))),
        }
    }

    /// Attributes, indices and calls.
    fn postfix(&mut self, rest: &mut Vec<Postfix>) -> Res<()> {
        loop {
            let line = self.line();
            if self.skip_sign(".") {
                let what = match self.next() {
                    Kind::Name(name) => After::Attribute(Text::own(name)),
                    Kind::Literal(value @ Const::Int(_)) => After::Item(Expr::Const(value)),
                    other => return fail(format!("unexpected {}, expected a name or a number", other.describe())),
                };
                rest.push(Postfix { line, what });
            } else if self.skip_sign("[") {
                let what = self.nested(Parser::subscript)?;
                rest.push(Postfix { line, what });
            } else if self.is_sign("(") {
                rest.push(self.call()?);
            } else {
                return Ok(());
            }
        }
    }

    fn subscript(&mut self) -> Res<After> {
        let mut items = Vec::new();
        loop {
            if let Some(slice) = self.item_or_slice(&mut items)? {
                return match (self.skip_sign("]"), items.is_empty()) {
                    (true, true) => Ok(After::Slice(Box::new(slice))),
                    _ => fail("a slice inside an index with commas is not supported"),
                };
            }
            let more = self.skip_sign(",");
            if self.skip_sign("]") {
                // `x[1,]` is `x[1]` in Jinja2.
                let single = items.len() == 1;
                return Ok(After::Item(if single { items.remove(0) } else { Expr::Tuple(items) }));
            }
            if !more {
                return self.unexpected("']'");
            }
        }
    }

    /// Reads an index into `items`, or returns a slice.
    fn item_or_slice(&mut self, items: &mut Vec<Expr>) -> Res<Option<[Option<Expr>; 3]>> {
        if self.is_sign("]") && items.is_empty() {
            return Ok(None);
        }
        let start = if self.is_sign(":") { None } else { Some(self.expression()?) };
        if !self.is_sign(":") {
            items.extend(start);
            return Ok(None);
        }
        let mut slice = [start, None, None];
        for part in &mut slice[1..] {
            if !self.skip_sign(":") {
                break;
            }
            if !self.is_sign(":") && !self.is_sign("]") && !self.is_sign(",") {
                *part = Some(self.expression()?);
            }
        }
        Ok(Some(slice))
    }

    fn call(&mut self) -> Res<Postfix> {
        let line = self.line();
        Ok(Postfix { line, what: After::Call(self.arguments()?) })
    }

    fn arguments(&mut self) -> Res<Arguments> {
        self.expect_sign("(")?;
        let mut arguments = Arguments::default();
        let mut is_first = true;
        while !self.is_sign(")") {
            if !is_first {
                self.expect_sign(",")?;
                if self.is_sign(")") {
                    break;
                }
            }
            is_first = false;
            let Arguments { positional, named, all_positional, all_named } = &mut arguments;
            let order = "unexpected order of arguments: positional ones come first, then named ones, then * and **";
            if self.skip_sign("*") {
                if all_positional.is_some() || all_named.is_some() {
                    return fail(order);
                }
                *all_positional = Some(self.expression()?);
            } else if self.skip_sign("**") {
                if all_named.is_some() {
                    return fail(order);
                }
                *all_named = Some(self.expression()?);
            } else if matches!((self.current(), self.look()), (Kind::Name(_), Kind::Sign("="))) {
                if all_named.is_some() {
                    return fail(order);
                }
                let name = self.expect_name()?;
                self.next();
                if named.iter().any(|(known, _)| known.as_str() == name) {
                    return fail(format!("the argument '{name}' is given twice"));
                }
                named.push((Text::own(name), self.expression()?));
            } else {
                if all_positional.is_some() || all_named.is_some() || !named.is_empty() {
                    return fail(order);
                }
                positional.push(self.expression()?);
            }
        }
        self.expect_sign(")")?;
        Ok(arguments)
    }

    fn dotted_name(&mut self) -> Res<Arc<str>> {
        let mut name = self.expect_name()?;
        while self.skip_sign(".") {
            name = name + "." + &self.expect_name()?;
        }
        Ok(name.into())
    }

    /// `| filter | filter`
    pub fn filters(&mut self, rest: &mut Vec<Postfix>) -> Res<()> {
        while self.skip_sign("|") {
            rest.push(self.filter()?);
        }
        Ok(())
    }

    /// A filter after its `|`.
    pub fn filter(&mut self) -> Res<Postfix> {
        let line = self.line();
        let name = self.dotted_name()?;
        self.check_known(&name, true)?;
        let arguments = if self.is_sign("(") { self.arguments()? } else { Arguments::default() };
        Ok(Postfix { line, what: After::Filter(name, arguments) })
    }

    fn test(&mut self) -> Res<Postfix> {
        let line = self.line();
        self.next();
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        self.check_known(&name, false)?;
        let ends = ["else", "or", "and"].iter().any(|end| self.is_name(end));
        let arguments = match self.current() {
            Kind::Sign("(") => self.arguments()?,
            Kind::Name(next) if next == "is" => return fail("tests with 'is' cannot be chained"),
            Kind::Name(_) | Kind::Literal(_) | Kind::Sign("[" | "{") if !ends => {
                let value = self.nested(Parser::primary)?;
                let mut rest = Vec::new();
                self.postfix(&mut rest)?;
                Arguments { positional: vec![with(value, rest)], ..Arguments::default() }
            }
            _ => Arguments::default(),
        };
        Ok(Postfix { line, what: After::Test { name, arguments, negated } })
    }

    fn check_known(&self, name: &str, is_filter: bool) -> Res<()> {
        if self.lenient || (self.known)(name, is_filter) {
            return Ok(());
        }
        Err(unknown(name, is_filter))
    }
}

/// The error for a filter or test that Jinja2 does not have.
pub fn unknown(name: &str, is_filter: bool) -> Fault {
    Fault(format!("the {} '{name}' is not known", if is_filter { "filter" } else { "test" }))
}

fn with(value: Expr, rest: Vec<Postfix>) -> Expr {
    if rest.is_empty() { value } else { Expr::Postfix { value: Box::new(value), rest } }
}
