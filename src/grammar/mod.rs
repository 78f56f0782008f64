//! Grammars: which tokens may come next in an answer that has to have a form.
//!
//! The parser is that of the crate llguidance: JSON Schema, regular expressions and Lark grammars become one automaton
//! over bytes, and a walk over the vocabulary as a tree of bytes (toktrie) gives the tokens that it can read. Which
//! tokens these are follows from the grammar, the vocabulary and the ids so far alone, so an answer can be replayed.

mod constraint;
mod vocabulary;

pub use constraint::Constraint;

use crate::error::{Error, Result};
use crate::sampler::{GrammarKind, GrammarSource};
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value as Json, json};
use std::sync::{Arc, Mutex, PoisonError};
use vocabulary::Vocabulary;

/// What reads grammars, as receipts name it: another version could read one differently.
pub const ENGINE: &str = "llguidance 1.9.1";

/// How many compiled grammars are kept.
const KEPT: usize = 16;
/// The most states of the automaton of multiples of a number.
const MAX_STATES: u64 = 20_000;
/// The largest text of a grammar, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// The compiler of grammars for one vocabulary. Making it takes some tenths of a second for 128,000 tokens.
pub struct Grammars {
    factory: ParserFactory,
    n_vocab: usize,
    /// Those that were used last, the latest first.
    compiled: Mutex<Vec<(GrammarSource, Matcher)>>,
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
        Ok(Grammars { factory, n_vocab, compiled: Mutex::default() })
    }

    /// A grammar at the beginning of an answer that `stop_ids` end.
    pub fn start(&self, source: &GrammarSource, stop_ids: Vec<TokenId>) -> Result<Constraint> {
        Ok(Constraint::new(self.matcher(source)?, source.clone(), self.n_vocab, stop_ids))
    }

    /// A matcher that has read nothing.
    fn matcher(&self, source: &GrammarSource) -> Result<Matcher> {
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
        let parser = grammar_of(source).map_err(refused)?;
        let matcher = Matcher::new(self.factory.create_parser(parser));
        if let Some(error) = matcher.get_error() {
            return Err(refused(error));
        }
        kept = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        kept.insert(0, (source.clone(), matcher.clone()));
        Ok(matcher)
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
        None => first.to_string(),
    }
}

/// The grammar in the form that llguidance takes.
fn grammar_of(source: &GrammarSource) -> std::result::Result<TopLevelGrammar, String> {
    let text = &source.text;
    let grammar = match source.kind {
        GrammarKind::JsonSchema => {
            let schema = parse(text)?;
            check_multiples(&schema)?;
            GrammarWithLexer::from_json_schema(with_layout(schema)?)
        }
        GrammarKind::Regex => GrammarWithLexer::from_regex(text),
        GrammarKind::Choice => GrammarWithLexer::from_lark(one_of(&parse(text)?)),
        GrammarKind::Lark => GrammarWithLexer::from_lark(text.clone()),
    };
    Ok(TopLevelGrammar::from_grammar(grammar))
}

/// Refuses a `multipleOf` that would take seconds to compile: its automaton has a state for each remainder. Factors of 2
/// and 5 cost nothing.
fn check_multiples(schema: &Json) -> std::result::Result<(), String> {
    let members = match schema {
        Json::Object(fields) => {
            let data = ["const", "enum", "default", "examples"];
            if let Some(number) = fields.get("multipleOf").and_then(Json::as_f64) {
                let digits = number.to_string().replace('.', "");
                let mut states: u64 = digits.parse().unwrap_or(0);
                while states > 0 && (states % 2 == 0 || states % 5 == 0) {
                    states /= if states % 2 == 0 { 2 } else { 5 };
                }
                if states > MAX_STATES {
                    return Err(format!(
                        "multipleOf is {number}, expected at most {MAX_STATES}, apart from factors of 2 and 5"
                    ));
                }
            }
            fields.iter().filter(|(key, _)| !data.contains(&key.as_str())).map(|(_, value)| value).collect()
        }
        Json::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    members.into_iter().try_for_each(check_multiples)
}

fn parse(text: &str) -> std::result::Result<Json, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))
}

/// The schema with the layout of JSON that answers have: that of Python's `json.dumps`, on one line. White space that the
/// model could choose would have to be computed token by token. `x-guidance` in the schema overrides it.
fn with_layout(schema: Json) -> std::result::Result<Json, String> {
    let mut schema = match schema {
        Json::Bool(true) => json!({}),
        schema => schema,
    };
    let fields = schema.as_object_mut().ok_or("expected a JSON object, the schema")?;
    let layout = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    fields.entry("x-guidance").or_insert(layout);
    Ok(schema)
}

/// A Lark grammar of one of these texts. Lark's strings are those of JSON.
fn one_of(texts: &Json) -> String {
    let texts: Vec<String> = texts.as_array().into_iter().flatten().map(Json::to_string).collect();
    format!("start: CHOICE\nCHOICE: {}\n", texts.join(" | "))
}
