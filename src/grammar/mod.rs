//! Grammars: which tokens may come next in an answer that has to have a form.
//!
//! The parser is that of the crate llguidance: JSON Schema, regular expressions and Lark grammars become one automaton
//! over bytes, and a walk over the vocabulary as a tree of bytes (toktrie) gives the tokens that it can read. Which
//! tokens these are follows from the grammar, the vocabulary and the ids so far alone, so an answer can be replayed.

mod constraint;
mod schema;
mod vocabulary;
mod watched;

use constraint::Compiled;
pub use constraint::Constraint;

use crate::error::{Error, Result};
use crate::sampler::{GrammarKind, GrammarSource};
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Matcher, ParserFactory};
use serde_json::Value as Json;
use std::sync::{Arc, Mutex, PoisonError};
use vocabulary::Vocabulary;

/// What reads grammars, as receipts name it: another version could read one differently.
pub const ENGINE: &str = "llguidance 1.9.1";

/// How many compiled grammars are kept.
const KEPT: usize = 16;
/// The largest text of a grammar, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// The compiler of grammars for one vocabulary. Making it takes some tenths of a second for 128,000 tokens.
pub struct Grammars {
    factory: ParserFactory,
    n_vocab: usize,
    /// Those that were used last, the latest first.
    compiled: Mutex<Vec<(GrammarSource, Arc<Compiled>)>>,
}

impl Grammars {
    /// The compiler for a model with logits of `n_vocab` tokens.
    pub fn new(tokenizer: Arc<Tokenizer>, n_vocab: usize) -> Result<Grammars> {
        let vocabulary: llguidance::toktrie::TokEnv = Arc::new(Vocabulary::new(tokenizer, n_vocab));
        let capabilities = InferenceCapabilities { ff_tokens: true, ..InferenceCapabilities::default() };
        let factory = ParserFactory::new(&vocabulary, capabilities, &SlicedBiasComputer::general_slices());
        let mut factory =
            factory.map_err(|error| Error::Model(format!("the vocabulary takes no grammars: {error}")))?;
        let limits = factory.quiet().limits_mut();
        limits.verbose_errors = false;
        // It would run some expressions, such as that of multiples of a large prime, over the whole vocabulary: 16 s.
        limits.precompute_large_lexemes = false;
        // Forced text counts as one step, and may be long. It takes at most about 0.1 s.
        limits.step_lexer_fuel = 2_000_000;
        Ok(Grammars { factory, n_vocab, compiled: Mutex::default() })
    }

    /// A grammar at the beginning of an answer that `stop_ids` end.
    pub fn start(&self, source: &GrammarSource, stop_ids: Vec<TokenId>) -> Result<Constraint> {
        Ok(Constraint::new(self.compiled(source)?, source.clone(), self.n_vocab, stop_ids))
    }

    /// A grammar, compiled now or before.
    fn compiled(&self, source: &GrammarSource) -> Result<Arc<Compiled>> {
        let mut kept = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|(known, _)| known == source) {
            kept[..=at].rotate_right(1);
            return Ok(kept[0].1.clone());
        }
        drop(kept);
        let refused = |why: String| Error::Argument(format!("{}: {}", source.kind.name(), reason(source, &why)));
        if source.text.len() > MAX_BYTES {
            return Err(refused(format!("it has {} bytes, expected at most {MAX_BYTES}", source.text.len())));
        }
        let mut parser = self.factory.create_parser(grammar_of(source).map_err(refused)?);
        if let Ok(parser) = &mut parser {
            // A lexer gets its limits with its first mask. Without them, an expression that forces a billion bytes, such
            // as `((a{1000}){1000}){1000}`, would take all memory.
            parser.parser.compute_bias(&*parser.bias_computer, &[]);
        }
        let matcher = Matcher::new(parser);
        if let Some(error) = matcher.get_error() {
            return Err(refused(error));
        }
        kept = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        let compiled = Arc::new(Compiled::new(matcher));
        kept.insert(0, (source.clone(), compiled.clone()));
        Ok(compiled)
    }
}

/// What llguidance says of a grammar, on one line: without the lines that show the place and what is around it.
fn reason(source: &GrammarSource, why: &str) -> String {
    let mut lines = why.lines().map(str::trim);
    let first = lines.next().unwrap_or_default().trim_end_matches("regex parse error:");
    match lines.find_map(|line| line.strip_prefix("error: ")) {
        // The place is one in the grammar that llguidance has made of the expression.
        Some(error) if source.kind == GrammarKind::Regex => error.to_string(),
        Some(error) => format!("{first}{error}"),
        None if source.kind == GrammarKind::Regex => first.rsplit(": ").next().unwrap_or(first).to_string(),
        None => in_our_words(first),
    }
}

/// What llguidance says of a schema, for a user who does not know llguidance.
fn in_our_words(why: &str) -> String {
    if let Some(keys) = why.strip_prefix("Unimplemented keys: ") {
        return format!("the keywords {keys} are not supported; express it by others, or check the answer afterwards");
    }
    if why.contains("coerce_one_of") {
        return "more than one alternative of a oneOf may fit a value; use anyOf, or make them exclude each other"
            .into();
    }
    if let Some((_, reference)) = why.split_once("without 'referencing' feature; ref ") {
        return format!(
            "the reference {reference} leads out of the schema; only those that begin with #/ are supported"
        );
    }
    if why.starts_with("panic") {
        return "it cannot be read".into();
    }
    why.to_string()
}

/// The grammar in the form that llguidance takes.
fn grammar_of(source: &GrammarSource) -> std::result::Result<TopLevelGrammar, String> {
    let text = &source.text;
    let grammar = match source.kind {
        GrammarKind::JsonSchema => GrammarWithLexer::from_json_schema(schema::prepared(parse(text)?)?),
        GrammarKind::Regex => GrammarWithLexer::from_regex(text),
        GrammarKind::Choice => GrammarWithLexer::from_lark(one_of(&parse(text)?)),
        GrammarKind::Lark => GrammarWithLexer::from_lark(schema::prepared_in(text)?),
    };
    Ok(TopLevelGrammar::from_grammar(grammar))
}

fn parse(text: &str) -> std::result::Result<Json, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))
}

/// A Lark grammar of one of these texts. Lark's strings are those of JSON.
fn one_of(texts: &Json) -> String {
    let texts: Vec<String> = texts.as_array().into_iter().flatten().map(Json::to_string).collect();
    format!("start: CHOICE\nCHOICE: {}\n", texts.join(" | "))
}
