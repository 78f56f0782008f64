//! Finds the variables that a block sets after it could have read them.
//!
//! Jinja2 decides before it runs a template which block a variable belongs to. A variable that a block sets, but does
//! not read before in the same block, belongs to that block from its start: until it is set, it is undefined, even if
//! the conversation has a variable of this name. Blocks inside, which may run earlier, see it so as well.

use super::ast::{After, Arguments, Block, Expr, Frame, Macro, Postfix, Statement, Symbol, Target};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Notes in each frame of a template which variables are not set at its start.
pub fn resolve(root: &mut Frame) {
    frame(root, None, |_| {});
}

/// The variables of a block.
struct Names<'a> {
    around: Option<&'a Names<'a>>,
    /// All that it names itself.
    known: BTreeSet<Symbol>,
    /// Those that it sets first.
    unset: BTreeSet<Symbol>,
}

/// Analyzes a block with its own variables, after `start` has named some, and then the blocks inside it.
fn frame(frame: &mut Frame, around: Option<&Names>, start: impl FnOnce(&mut Names)) {
    let mut names = Names { around, known: BTreeSet::new(), unset: BTreeSet::new() };
    start(&mut names);
    names.block(&frame.statements);
    frame.unset = names.unset.iter().copied().collect();
    inside(&mut frame.statements, &names);
}

/// Analyzes the blocks inside statements.
fn inside(statements: &mut Block, names: &Names) {
    for statement in statements {
        match statement {
            Statement::Capture { body, .. } | Statement::Filter { body, .. } | Statement::Scope(body) => {
                frame(body, Some(names), |_| {});
            }
            Statement::Block(body) => frame(body, None, |_| {}),
            Statement::With { targets, body, .. } => {
                frame(body, Some(names), |names| targets.iter().for_each(|target| names.parameters(target)));
            }
            Statement::If { branches, otherwise } => {
                branches.iter_mut().for_each(|(_, body)| inside(body, names));
                inside(otherwise, names);
            }
            Statement::For(looped) => {
                // Nothing else has the tree yet.
                let Some(looped) = Arc::get_mut(looped) else { continue };
                let (target, symbol) = (&looped.target, looped.symbol);
                frame(&mut looped.body, Some(names), |names| {
                    names.parameters(target);
                    names.known.insert(symbol);
                });
                frame(&mut looped.otherwise, Some(names), |_| {});
            }
            Statement::Macro(body) | Statement::Call { body, .. } => {
                let Some(Macro { parameters, caller, kwargs, varargs, body, .. }) = Arc::get_mut(body) else {
                    continue;
                };
                frame(body, Some(names), |names| {
                    names.known.extend(parameters.iter().map(|parameter| parameter.symbol));
                    names.known.extend([*caller, *kwargs, *varargs].into_iter().flatten());
                    let defaults = parameters.iter().filter_map(|parameter| parameter.default.as_ref());
                    defaults.for_each(|default| names.expr(default));
                });
            }
            _ => {}
        }
    }
}

impl Names<'_> {
    fn is_known_around(&self, symbol: Symbol) -> bool {
        self.around.is_some_and(|around| around.known.contains(&symbol) || around.is_known_around(symbol))
    }

    fn load(&mut self, symbol: Symbol) {
        if !self.is_known_around(symbol) {
            self.known.insert(symbol);
        }
    }

    fn store(&mut self, symbol: Symbol) {
        if self.known.insert(symbol) && !self.is_known_around(symbol) {
            self.unset.insert(symbol);
        }
    }

    fn parameters(&mut self, target: &Target) {
        match target {
            Target::Name(symbol) => {
                self.known.insert(*symbol);
            }
            Target::Attribute { namespace, .. } => self.load(*namespace),
            Target::Tuple { targets, .. } => targets.iter().for_each(|target| self.parameters(target)),
        }
    }

    fn target(&mut self, target: &Target) {
        match target {
            Target::Name(symbol) => self.store(*symbol),
            Target::Attribute { namespace, .. } => self.load(*namespace),
            Target::Tuple { targets, .. } => targets.iter().for_each(|target| self.target(target)),
        }
    }

    /// The names of statements, without those of blocks inside them.
    fn block(&mut self, statements: &Block) {
        for statement in statements {
            match statement {
                Statement::Print { value, .. } => self.expr(value),
                Statement::Set { target, value } => {
                    self.expr(value);
                    self.target(target);
                }
                Statement::Capture { target, .. } => self.target(target),
                Statement::For(looped) => self.expr(&looped.items),
                Statement::If { branches, otherwise } => {
                    // What only some branches set is not unset at the start: it may come from the conversation.
                    let unset = self.unset.clone();
                    for (test, body) in branches {
                        self.expr(test);
                        self.block(body);
                    }
                    self.block(otherwise);
                    self.unset = unset;
                }
                Statement::With { values, .. } => values.iter().for_each(|value| self.expr(value)),
                Statement::Macro(definition) => self.store(definition.symbol),
                Statement::Call { call, .. } => self.expr(call),
                Statement::Filter { filters, .. } => self.postfixes(filters),
                _ => {}
            }
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Const(_) => {}
            Expr::Name(symbol) => self.load(*symbol),
            Expr::List(items) | Expr::Tuple(items) | Expr::And(items) | Expr::Or(items) => self.exprs(items),
            Expr::Concat { parts, .. } => self.exprs(parts),
            Expr::Dict(items) => items.iter().for_each(|(key, value)| {
                self.expr(key);
                self.expr(value);
            }),
            Expr::Binary { first, rest, .. } => {
                self.expr(first);
                rest.iter().for_each(|(_, operand)| self.expr(operand));
            }
            Expr::Compare { first, rest, .. } => {
                self.expr(first);
                rest.iter().for_each(|(_, operand)| self.expr(operand));
            }
            Expr::Not { value, .. } | Expr::Signs { value, .. } => self.expr(value),
            Expr::If { arms, otherwise, .. } => {
                for (value, test) in arms {
                    self.expr(test);
                    self.expr(value);
                }
                otherwise.iter().for_each(|value| self.expr(value));
            }
            Expr::Postfix { value, rest } => {
                self.expr(value);
                self.postfixes(rest);
            }
        }
    }

    fn exprs(&mut self, items: &[Expr]) {
        items.iter().for_each(|item| self.expr(item));
    }

    fn postfixes(&mut self, rest: &[Postfix]) {
        for after in rest {
            match &after.what {
                After::Attribute(_) => {}
                After::Item(key) => self.expr(key),
                After::Slice(bounds) => bounds.iter().flatten().for_each(|bound| self.expr(bound)),
                After::Call(arguments) | After::Filter(_, arguments) | After::Test { arguments, .. } => {
                    self.arguments(arguments);
                }
            }
        }
    }

    fn arguments(&mut self, arguments: &Arguments) {
        self.exprs(&arguments.positional);
        arguments.named.iter().for_each(|(_, value)| self.expr(value));
        arguments.all_positional.iter().for_each(|value| self.expr(value));
        arguments.all_named.iter().for_each(|value| self.expr(value));
    }
}
