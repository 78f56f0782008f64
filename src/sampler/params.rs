//! The sampling parameters: each is declared once, in the list below.
//!
//! An entry of the list gives the field of [`SamplingParams`] with its default and range, the keyword, the getter and
//! the place in `repr` of Python's `SamplingParams`, and the field in receipts, their JSON Schema and saved
//! conversations.

use super::grammar::{Choices, GrammarKind, GrammarSource, SchemaText};
use super::parameter::{Parameter, Rules, Speculate, Value};
use crate::error::{Error, Result};
use crate::token::TokenId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value as Json};

/// Calls the macro `$then` with the list of all sampling parameters.
///
/// An entry is the documentation, `name: type = default, rules;`. The default is written as Python writes it. Entries
/// that come after version 0.1.0 need `.since(VERSION)`. Claims, `repr` and files list the parameters in this order.
macro_rules! sampling_parameters {
    ($then:ident) => {
        $then! {
            /// Divides the logits; 0 takes the most likely id each time.
            temperature: f32 = 0.0, Rules::at_least(0.0);
            /// Keeps this many of the most likely ids; 0 keeps all.
            top_k: usize = 0, Rules::at_least(0.0);
            /// Nucleus sampling: keeps the most likely ids whose probabilities add up to this; 1 keeps all.
            top_p: f32 = 1.0, Rules::above(0.0).at_most(1.0);
            /// Keeps ids with at least this fraction of the most likely id's probability; 0 keeps all.
            min_p: f32 = 0.0, Rules::at_least(0.0).at_most(1.0);
            /// Divides positive and multiplies negative logits of recent ids (arXiv 1909.05858); 1 changes nothing.
            repetition_penalty: f32 = 1.0, Rules::above(0.0);
            /// How many ids at the end of the sequence, prompt included, the repetition penalty affects.
            repeat_last_n: usize = 64, Rules::at_least(0.0);
            /// Subtracted once from the logit of each id that the answer contains.
            presence_penalty: f32 = 0.0, Rules::any();
            /// Subtracted from an id's logit for each time that the answer contains it.
            frequency_penalty: f32 = 0.0, Rules::any();
            /// Ids, in ascending order, and what is added to their logits. Infinity forces an id, minus infinity bans
            /// it.
            logit_bias: Vec<(TokenId, f32)> = {}, Rules::any();
            /// Seed of the random draws. Without one the engine chooses a new seed for each answer and records it.
            seed: Option<u64> = None, Rules::at_least(0.0);
            /// The answer ends after this many ids. Without it, it ends at a stop or when the context is full.
            max_tokens: Option<usize> = None, Rules::at_least(1.0);
            /// Stop strings: the answer ends before the first of them.
            stop: Vec<String> = (), Rules::any();
            /// Ids that end the answer, in addition to the model's own. A claim lists the model's own, too.
            stop_token_ids: Vec<TokenId> = (), Rules::at_least(0.0);
            /// Whether the answer continues past the model's own stop ids. A claim says it by `stop_token_ids`.
            ignore_eos: bool = False, Rules::any().not_claimed();
            /// How many of the most likely ids to report with each token. It doesn't change the answer.
            logprobs: Option<usize> = None, Rules::at_least(0.0).not_claimed();
            /// "lookup" guesses ids that stood in the text before, and computes several in one pass where they are
            /// likely. It doesn't change the answer.
            speculate: Option<Speculate> = None, Rules::any().not_claimed().since("0.2.0");
            /// The answer is JSON of this schema (JSON Schema, draft 2020-12). A claim has it in `grammar`.
            json_schema: Option<SchemaText> = None, Rules::any().not_claimed().since("0.2.0");
            /// The whole answer matches this regular expression. A claim has it in `grammar`.
            regex: Option<String> = None, Rules::any().not_claimed().since("0.2.0");
            /// The answer is one of these texts. A claim has them in `grammar`.
            choice: Option<Choices> = None, Rules::any().not_claimed().since("0.2.0");
            /// The answer follows this grammar in Lark's notation. A claim has it in `grammar`.
            grammar: Option<String> = None, Rules::any().not_claimed().since("0.2.0");
        }
    };
}
#[cfg(feature = "python")]
pub(crate) use sampling_parameters;

/// A default as Rust writes it.
macro_rules! rust_default {
    (False) => {
        false
    };
    ({}) => {
        Vec::new()
    };
    (()) => {
        Vec::new()
    };
    ($value:tt) => {
        $value
    };
}

macro_rules! declare {
    ($($(#[doc = $help:literal])+ $name:ident: $Type:ty = $default:tt, $rules:expr;)+) => {
        /// How to choose the next id. Not yet checked: see [`SamplingParams::validate`].
        #[derive(Clone, Debug, PartialEq)]
        pub struct SamplingParams {
            $($(#[doc = $help])+ pub $name: $Type,)+
        }

        impl Default for SamplingParams {
            fn default() -> Self {
                SamplingParams { $($name: rust_default!($default),)+ }
            }
        }

        /// What is declared about each field of [`SamplingParams`], in order.
        pub static PARAMETERS: &[Parameter] = &[$(Parameter {
            name: stringify!($name),
            help: concat!($($help),+),
            default: stringify!($default),
            rules: $rules,
        },)+];

        impl SamplingParams {
            /// The values, in the order of [`PARAMETERS`].
            fn values(&self) -> Vec<&dyn Value> {
                vec![$(&self.$name,)+]
            }

            fn values_mut(&mut self) -> Vec<&mut dyn Value> {
                vec![$(&mut self.$name,)+]
            }
        }
    };
}
sampling_parameters!(declare);

/// The values that a file or a receipt needs, by name: later parameters are left out at their default, so that what is
/// written without them stays the same, byte for byte, when a parameter is added.
fn written<'a>(
    parameters: &'a [Parameter],
    values: &[&dyn Value],
    defaults: &[&dyn Value],
) -> Vec<(&'a Parameter, Json)> {
    let all = parameters.iter().zip(values).zip(defaults);
    let pairs = all.map(|((parameter, value), default)| (parameter, value.to_json(), default.to_json()));
    let needed = pairs.filter(|(parameter, value, default)| parameter.rules.since.is_none() || value != default);
    needed.map(|(parameter, value, _)| (parameter, value)).collect()
}

impl SamplingParams {
    /// Checks that every value is in its range.
    pub fn validate(&self) -> Result<()> {
        PARAMETERS.iter().zip(self.values()).try_for_each(|(parameter, value)| value.check(parameter))?;
        match &self.grammars()[..] {
            [one, other, ..] => Err(Error::Argument(format!(
                "{} and {} are both set, but an answer has one form; give one of json_schema, regex, choice and grammar",
                one.kind.name(),
                other.kind.name()
            ))),
            _ => Ok(()),
        }
    }

    /// The form that the answer has to have, if one is asked for.
    pub fn grammar_source(&self) -> Option<GrammarSource> {
        self.grammars().into_iter().next()
    }

    fn grammars(&self) -> Vec<GrammarSource> {
        let choice = self.choice.as_ref().map(|choices| Json::from(choices.0.clone()).to_string());
        let schema = self.json_schema.as_ref().map(|schema| schema.0.clone());
        let texts = [schema, self.regex.clone(), choice, self.grammar.clone()];
        let all = GrammarKind::ALL.into_iter().zip(texts);
        all.filter_map(|(kind, text)| Some(GrammarSource { kind, text: text? })).collect()
    }

    /// The same parameters with the form of an answer that a claim holds, or what is wrong with it.
    pub fn with_grammar(mut self, source: &GrammarSource) -> std::result::Result<SamplingParams, String> {
        let text = Some(source.text.clone());
        match source.kind {
            GrammarKind::JsonSchema => self.json_schema = text.map(SchemaText),
            GrammarKind::Regex => self.regex = text,
            GrammarKind::Choice => {
                self.choice = Some(Choices(serde_json::from_str(&source.text).map_err(|error| error.to_string())?))
            }
            GrammarKind::Lark => self.grammar = text,
        }
        Ok(self)
    }

    /// The parameters that files, receipts and `repr` show, with their values.
    pub fn written(&self) -> Vec<(&'static Parameter, Json)> {
        written(PARAMETERS, &self.values(), &SamplingParams::default().values())
    }

    /// Sets the parameter of this name, or says what is wrong with the value.
    fn read(&mut self, parameter: &Parameter, json: &Json) -> std::result::Result<(), String> {
        let mut values = PARAMETERS.iter().zip(self.values_mut());
        let (_, value) = values.find(|(other, _)| other.name == parameter.name).expect("a declared parameter");
        value.read_json(json).map_err(|error| format!("{}: {error}", parameter.name))
    }

    /// The fields of a claim: every parameter that decides the answer.
    pub fn to_claim(&self) -> Map<String, Json> {
        let claimed = self.written().into_iter().filter(|(parameter, _)| parameter.rules.claimed);
        claimed.map(|(parameter, value)| (parameter.name.into(), value)).collect()
    }

    /// Reads the fields of a claim. A missing field means the default; unknown fields are the caller's business.
    pub fn from_claim(fields: &Map<String, Json>) -> std::result::Result<SamplingParams, String> {
        let mut params = SamplingParams::default();
        for parameter in PARAMETERS.iter().filter(|parameter| parameter.rules.claimed) {
            if let Some(value) = fields.get(parameter.name) {
                params.read(parameter, value)?;
            }
        }
        Ok(params)
    }

    /// The JSON Schema of each field of a claim.
    pub fn claim_schema() -> Vec<(&'static Parameter, Json)> {
        let defaults = SamplingParams::default();
        let all = PARAMETERS.iter().zip(defaults.values());
        let claimed = all.filter(|(parameter, _)| parameter.rules.claimed);
        claimed.map(|(parameter, value)| (parameter, value.schema(parameter))).collect()
    }
}

/// Saved conversations hold `logit_bias` beside the other parameters.
fn stands_apart(parameter: &Parameter) -> bool {
    parameter.name == "logit_bias"
}

impl Serialize for SamplingParams {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let fields = self.written().into_iter().filter(|(parameter, _)| !stands_apart(parameter));
        serializer.collect_map(fields.map(|(parameter, value)| (parameter.name, value)))
    }
}

impl<'de> Deserialize<'de> for SamplingParams {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<SamplingParams, D::Error> {
        let mut params = SamplingParams::default();
        for (name, value) in Map::<String, Json>::deserialize(deserializer)? {
            let parameter = PARAMETERS.iter().find(|parameter| parameter.name == name && !stands_apart(parameter));
            let parameter =
                parameter.ok_or_else(|| serde::de::Error::custom(format!("{name} is not a sampling parameter")))?;
            params.read(parameter, &value).map_err(serde::de::Error::custom)?;
        }
        Ok(params)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/params.rs"]
mod tests;
