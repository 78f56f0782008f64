//! Parses statements, as Jinja2's parser does it with the extensions that transformers adds.

use super::ast::{After, Block, Expr, For, Frame, Macro, Parameter, Postfix, Statement, Target};
use super::expression::SPECIALS;
use super::lexer::Kind;
use super::limits::{Fault, Res, fail};
use super::reader::Parser;
use super::text::Text;
use std::sync::Arc;

/// The statements of a whole template, or an error and its line.
pub fn parse(parser: &mut Parser) -> Result<Block, (u32, Fault)> {
    let parsed = block(parser, &[]).and_then(|body| match parser.current() {
        Kind::End => Ok(body),
        _ => parser.unexpected("the end of the template"),
    });
    parsed.map_err(|fault| (parser.line(), fault))
}

/// Statements up to a tag with one of these names, which stays the current token. Without names, up to the end.
fn block(parser: &mut Parser, ends: &[&str]) -> Res<Block> {
    let mut body = Block::new();
    loop {
        match parser.current() {
            Kind::Text(_) => {
                if let Kind::Text(text) = parser.next() {
                    body.push(Statement::Text(Text::own(text)));
                }
            }
            Kind::PrintStart => {
                let line = parser.line();
                parser.next();
                body.push(Statement::Print { line, value: parser.tuple(false, true, &[])? });
                parser.expect(&Kind::PrintEnd)?;
            }
            Kind::BlockStart => {
                parser.next();
                if ends.iter().any(|end| parser.is_name(end)) {
                    return Ok(body);
                }
                parser.nested(|parser| statement(parser, &mut body))?;
                parser.expect(&Kind::BlockEnd)?;
            }
            Kind::End if ends.is_empty() => return Ok(body),
            _ => return parser.unexpected(&format!("the tag {}", ends.join(" or "))),
        }
    }
}

/// The end of a tag, and the statements up to a tag with one of these names.
fn body(parser: &mut Parser, ends: &[&str]) -> Res<Block> {
    parser.skip_sign(":");
    parser.expect(&Kind::BlockEnd)?;
    block(parser, ends)
}

/// The same up to one name, which is taken.
fn body_to(parser: &mut Parser, end: &str) -> Res<Block> {
    let parsed = body(parser, &[end])?;
    parser.next();
    Ok(parsed)
}

/// The same for a statement with variables of its own. In it, an unknown filter is an error at once.
fn strict_body_to(parser: &mut Parser, end: &str) -> Res<Frame> {
    let was_lenient = std::mem::replace(&mut parser.lenient, false);
    parser.scopes += 1;
    let parsed = body_to(parser, end)?;
    parser.scopes -= 1;
    parser.lenient = was_lenient;
    Ok(Frame { statements: parsed, unset: Vec::new() })
}

fn statement(parser: &mut Parser, out: &mut Block) -> Res<()> {
    let line = parser.line();
    let name = match parser.current() {
        Kind::Name(_) => parser.expect_name()?,
        _ => return parser.unexpected("the name of a tag"),
    };
    out.push(match name.as_str() {
        "print" => {
            let mut is_first = true;
            while *parser.current() != Kind::BlockEnd {
                if !is_first {
                    parser.expect_sign(",")?;
                }
                is_first = false;
                out.push(Statement::Print { line, value: parser.expression()? });
            }
            return Ok(());
        }
        "set" => set(parser)?,
        "for" => for_loop(parser, line)?,
        "if" => condition(parser)?,
        "with" => with(parser)?,
        "macro" => {
            let name = parser.expect_name()?;
            let symbol = parser.symbol(&name);
            let parameters = parameters(parser)?;
            Statement::Macro(Arc::new(macro_body(parser, Some(name.into()), symbol, parameters, "endmacro")?))
        }
        "call" => {
            let parameters = if parser.is_sign("(") { parameters(parser)? } else { Vec::new() };
            let call = parser.expression()?;
            let is_call = |rest: &[Postfix]| matches!(rest.last(), Some(Postfix { what: After::Call(_), .. }));
            if !matches!(&call, Expr::Postfix { rest, .. } if is_call(rest)) {
                return fail("unexpected expression in a call block, expected a call");
            }
            Statement::Call { body: Arc::new(macro_body(parser, None, 0, parameters, "endcall")?), call }
        }
        "filter" => {
            let filters = strict_filters(parser, true)?;
            Statement::Filter { filters, body: strict_body_to(parser, "endfilter")? }
        }
        "generation" => {
            // transformers calls the body as a macro.
            let body = macro_body(parser, None, 0, Vec::new(), "endgeneration")?;
            Statement::Scope(body.body)
        }
        "block" => {
            let name = parser.expect_name()?;
            if parser.scopes > 0 {
                return fail("the tag 'block' inside a loop, a macro or another block is not supported");
            }
            if parser.blocks.contains(&name) {
                return fail(format!("the block '{name}' is defined twice"));
            }
            parser.blocks.push(name.clone());
            if parser.skip_name("scoped") || parser.is_name("required") {
                return fail("the options of the tag 'block' are not supported");
            }
            let parsed = strict_body_to(parser, "endblock")?;
            parser.skip_name(&name);
            Statement::Block(parsed)
        }
        "break" | "continue" if parser.breakable == 0 => {
            return fail(format!("unexpected '{name}' outside of a loop"));
        }
        "break" => Statement::Break,
        "continue" => Statement::Continue,
        "include" | "import" | "from" | "extends" => {
            while *parser.current() != Kind::BlockEnd && *parser.current() != Kind::End {
                parser.next();
            }
            let why = format!("the tag '{name}' is not supported, because a chat template has no other files");
            Statement::Refused { line, why }
        }
        "autoescape" | "trans" | "pluralize" | "do" | "debug" => {
            return fail(format!("the tag '{name}' is not supported"));
        }
        _ => return fail(format!("unexpected tag '{name}'")),
    });
    Ok(())
}

fn set(parser: &mut Parser) -> Res<Statement> {
    let target = parser.target(true, &[])?;
    check_loop_name(parser, &target)?;
    if parser.skip_sign("=") {
        return Ok(Statement::Set { target, value: parser.tuple(false, true, &[])? });
    }
    let filters = strict_filters(parser, false)?;
    Ok(Statement::Capture { target, filters, body: strict_body_to(parser, "endset")? })
}

/// The filters of a block. One that is not known is an error at once.
fn strict_filters(parser: &mut Parser, begins: bool) -> Res<Vec<Postfix>> {
    let was_lenient = std::mem::replace(&mut parser.lenient, false);
    let mut filters = if begins { vec![parser.filter()?] } else { Vec::new() };
    parser.filters(&mut filters)?;
    parser.lenient = was_lenient;
    Ok(filters)
}

/// An error if a loop assigns to its variable `loop`.
fn check_loop_name(parser: &mut Parser, target: &Target) -> Res<()> {
    let special = parser.symbol("loop");
    let is_loop = match target {
        Target::Name(symbol) => *symbol == special,
        Target::Tuple { targets, .. } => return targets.iter().try_for_each(|target| check_loop_name(parser, target)),
        Target::Attribute { .. } => false,
    };
    if is_loop && !parser.loops.is_empty() { fail("cannot assign to the special variable 'loop'") } else { Ok(()) }
}

fn for_loop(parser: &mut Parser, line: u32) -> Res<Statement> {
    let target = parser.target(false, &["in"])?;
    parser.loops.push(false);
    check_loop_name(parser, &target)?;
    parser.loops.pop();
    if !parser.skip_name("in") {
        return parser.unexpected("'in'");
    }
    let items = parser.tuple(false, false, &["recursive"])?;
    let was_lenient = std::mem::replace(&mut parser.lenient, false);
    let test = if parser.skip_name("if") { Some(parser.expression()?) } else { None };
    let recursive = parser.skip_name("recursive");
    parser.loops.push(recursive);
    parser.breakable += 1;
    parser.scopes += 1;
    let parsed = body(parser, &["endfor", "else"])?;
    parser.breakable -= 1;
    let uses_loop = parser.loops.pop().unwrap_or(false);
    let otherwise = if parser.skip_name("else") {
        body_to(parser, "endfor")?
    } else {
        parser.next();
        Block::new()
    };
    parser.scopes -= 1;
    parser.lenient = was_lenient;
    let symbol = parser.symbol("loop");
    let [body, otherwise] = [parsed, otherwise].map(|statements| Frame { statements, unset: Vec::new() });
    Ok(Statement::For(Arc::new(For { line, target, items, test, recursive, uses_loop, symbol, body, otherwise })))
}

fn condition(parser: &mut Parser) -> Res<Statement> {
    let was_lenient = std::mem::replace(&mut parser.lenient, true);
    let (mut branches, mut otherwise) = (Vec::new(), Block::new());
    loop {
        let test = parser.tuple(false, false, &[])?;
        branches.push((test, body(parser, &["elif", "else", "endif"])?));
        if parser.skip_name("elif") {
            continue;
        }
        if parser.skip_name("else") {
            otherwise = body_to(parser, "endif")?;
        } else {
            parser.next();
        }
        parser.lenient = was_lenient;
        return Ok(Statement::If { branches, otherwise });
    }
}

fn with(parser: &mut Parser) -> Res<Statement> {
    let (mut targets, mut values) = (Vec::new(), Vec::new());
    while *parser.current() != Kind::BlockEnd {
        if !targets.is_empty() {
            parser.expect_sign(",")?;
        }
        targets.push(parser.target(false, &[])?);
        parser.expect_sign("=")?;
        values.push(parser.expression()?);
    }
    Ok(Statement::With { targets, values, body: strict_body_to(parser, "endwith")? })
}

fn parameters(parser: &mut Parser) -> Res<Vec<Parameter>> {
    let mut parameters: Vec<Parameter> = Vec::new();
    parser.expect_sign("(")?;
    while !parser.is_sign(")") {
        if !parameters.is_empty() {
            parser.expect_sign(",")?;
        }
        let name = parser.expect_name()?;
        let symbol = parser.symbol(&name);
        if parameters.iter().any(|known| known.symbol == symbol) {
            return fail(format!("the parameter '{name}' is given twice"));
        }
        let default = if parser.skip_sign("=") { Some(parser.expression()?) } else { None };
        if default.is_none() && parameters.last().is_some_and(|last| last.default.is_some()) {
            return fail(format!("the parameter '{name}' needs a default, because one before it has one"));
        }
        parameters.push(Parameter { name: name.into(), symbol, default });
    }
    parser.expect_sign(")")?;
    Ok(parameters)
}

fn macro_body(
    parser: &mut Parser,
    name: Option<Arc<str>>,
    symbol: u32,
    parameters: Vec<Parameter>,
    end: &str,
) -> Res<Macro> {
    parser.specials.push([false; 3]);
    let breakable = std::mem::take(&mut parser.breakable);
    let body = strict_body_to(parser, end)?;
    parser.breakable = breakable;
    let used = parser.specials.pop().unwrap_or_default();
    let is_parameter = |name: &str| parameters.iter().find(|parameter| *parameter.name == *name);
    if used[0] && is_parameter("caller").is_some_and(|caller| caller.default.is_none()) {
        return fail("the parameter 'caller' of a macro must be omitted or have a default");
    }
    let mut special = |i: usize| {
        let is_special = used[i] && is_parameter(SPECIALS[i]).is_none();
        is_special.then(|| parser.symbol(SPECIALS[i]))
    };
    let [caller, kwargs, varargs] = [special(0), special(1), special(2)];
    Ok(Macro { name, symbol, parameters, body, caller, kwargs, varargs })
}
