//! What a sampling parameter's declaration says, and what its type can do.

use super::grammar::{Choices, SchemaText};
use crate::error::{Error, Result};
use crate::token::TokenId;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};
use std::fmt::Display;

/// The declaration of one sampling parameter.
#[derive(Debug)]
pub struct Parameter {
    /// The name of the field, of the Python keyword, and of the field in claims and files.
    pub name: &'static str,
    /// One line for help texts and the JSON Schema.
    pub(super) help: &'static str,
    /// The default, as Python writes it.
    pub default: &'static str,
    /// Which values are allowed, and where they are written.
    pub rules: Rules,
}

impl Parameter {
    /// The documentation as one line.
    pub fn help(&self) -> &'static str {
        self.help.trim_start()
    }

    fn refuse(&self, found: impl Display, expected: impl Display) -> Error {
        Error::Argument(format!("{} is {found}, expected {expected}", self.name))
    }
}

/// Which values a parameter may have, and where they are written. For parameters that are not numbers only `claimed`
/// and `since` apply.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// The least value, allowed unless `excludes_least`.
    pub least: f64,
    /// Whether values have to be above `least`.
    pub excludes_least: bool,
    /// The largest value. Numbers are always finite.
    pub most: f64,
    /// Whether receipts claim the value: it decides the answer.
    pub claimed: bool,
    /// The version that brought the parameter; none for those of 0.1.0, which are always written.
    pub since: Option<&'static str>,
}

impl Rules {
    /// Any finite number.
    pub const fn any() -> Rules {
        Rules { least: f64::NEG_INFINITY, excludes_least: false, most: f64::INFINITY, claimed: true, since: None }
    }

    /// Numbers from `least` up.
    pub const fn at_least(least: f64) -> Rules {
        Rules { least, ..Rules::any() }
    }

    /// Numbers greater than `least`.
    pub const fn above(least: f64) -> Rules {
        Rules { least, excludes_least: true, ..Rules::any() }
    }

    /// The same with an upper limit.
    pub const fn at_most(self, most: f64) -> Rules {
        Rules { most, ..self }
    }

    /// The same for a parameter that receipts don't claim.
    pub const fn not_claimed(self) -> Rules {
        Rules { claimed: false, ..self }
    }

    /// The same for a parameter that came with this version: claims and files leave it out at its default.
    pub const fn since(self, version: &'static str) -> Rules {
        Rules { since: Some(version), ..self }
    }

    fn allows(&self, x: f64) -> bool {
        let from_below = if self.excludes_least { x > self.least } else { x >= self.least };
        x.is_finite() && from_below && x <= self.most
    }

    /// The numbers that are allowed, in words.
    fn expected(&self) -> String {
        let Rules { least, most, .. } = *self;
        match (least.is_finite(), self.excludes_least, most.is_finite()) {
            (false, _, _) => "a finite number".into(),
            (true, false, false) => format!("a finite number from {least} up"),
            (true, true, false) => format!("a finite number above {least}"),
            (true, false, true) => format!("a number from {least} to {most}"),
            (true, true, true) => format!("a number above {least}, up to {most}"),
        }
    }

    /// The counts that are allowed, in words.
    fn expected_count(&self) -> String {
        let Rules { least, most, .. } = *self;
        match (self.excludes_least, most.is_finite()) {
            (false, false) => format!("at least {least}"),
            (true, false) => format!("more than {least}"),
            (false, true) => format!("{} to {most}", least.max(0.0)),
            (true, true) => format!("more than {least}, at most {most}"),
        }
    }

    /// The JSON Schema of a number of this `kind`.
    fn schema(&self, kind: Json) -> Json {
        let mut schema = Map::from_iter([("type".to_string(), kind)]);
        if self.least.is_finite() {
            schema.insert(if self.excludes_least { "exclusiveMinimum" } else { "minimum" }.into(), number(self.least));
        }
        if self.most.is_finite() {
            schema.insert("maximum".into(), number(self.most));
        }
        schema.into()
    }
}

/// A whole number without a fraction, as people write it.
fn number(x: f64) -> Json {
    if x.fract() == 0.0 { json!(x as i64) } else { json!(x) }
}

/// The decimal number that stands for an f32: the one with the fewest digits.
pub fn decimal(x: f32) -> f64 {
    x.to_string().parse().expect("Rust reads the numbers that it writes")
}

/// A type that sampling parameters have.
pub(super) trait Value {
    /// The value as claims and files hold it.
    fn to_json(&self) -> Json;
    /// Takes the value that a claim or a file holds. Ranges are not checked.
    fn read_json(&mut self, json: &Json) -> std::result::Result<(), String>;
    /// Refuses a value outside the parameter's range.
    fn check(&self, parameter: &Parameter) -> Result<()>;
    /// The JSON Schema of the value in a claim.
    fn schema(&self, parameter: &Parameter) -> Json;
}

fn read<T: DeserializeOwned>(json: &Json) -> std::result::Result<T, String> {
    T::deserialize(json).map_err(|error| error.to_string())
}

impl Value for f32 {
    fn to_json(&self) -> Json {
        decimal(*self).into()
    }

    fn read_json(&mut self, json: &Json) -> std::result::Result<(), String> {
        read::<f64>(json).map(|x| *self = x as f32)
    }

    fn check(&self, parameter: &Parameter) -> Result<()> {
        let rules = &parameter.rules;
        if rules.allows((*self).into()) { Ok(()) } else { Err(parameter.refuse(self, rules.expected())) }
    }

    fn schema(&self, parameter: &Parameter) -> Json {
        parameter.rules.schema(json!("number"))
    }
}

fn check_count(n: u64, parameter: &Parameter) -> Result<()> {
    let rules = &parameter.rules;
    if rules.allows(n as f64) { Ok(()) } else { Err(parameter.refuse(n, rules.expected_count())) }
}

impl Value for usize {
    fn to_json(&self) -> Json {
        (*self).into()
    }

    fn read_json(&mut self, json: &Json) -> std::result::Result<(), String> {
        read(json).map(|n| *self = n)
    }

    fn check(&self, parameter: &Parameter) -> Result<()> {
        check_count(*self as u64, parameter)
    }

    fn schema(&self, parameter: &Parameter) -> Json {
        parameter.rules.schema(json!("integer"))
    }
}

macro_rules! optional_count {
    ($Number:ty) => {
        impl Value for Option<$Number> {
            fn to_json(&self) -> Json {
                (*self).into()
            }

            fn read_json(&mut self, json: &Json) -> std::result::Result<(), String> {
                read(json).map(|n| *self = n)
            }

            fn check(&self, parameter: &Parameter) -> Result<()> {
                self.map_or(Ok(()), |n| check_count(n as u64, parameter))
            }

            fn schema(&self, parameter: &Parameter) -> Json {
                parameter.rules.schema(json!(["integer", "null"]))
            }
        }
    };
}
optional_count!(usize);
optional_count!(u64);

named! {
    /// How ids are guessed before they are computed.
    pub enum Speculate {
        /// By what followed the last ids earlier in the text.
        Lookup = "lookup",
    }
}

impl Value for Option<Speculate> {
    fn to_json(&self) -> Json {
        self.map(Speculate::name).into()
    }

    fn read_json(&mut self, json: &Json) -> std::result::Result<(), String> {
        let name: Option<String> = read(json)?;
        let known = |name: String| {
            let found = Speculate::ALL.into_iter().find(|kind| kind.name() == name);
            found.ok_or_else(|| format!("it is {name:?}, expected {}", Speculate::Lookup.name()))
        };
        name.map(known).transpose().map(|kind| *self = kind)
    }

    fn check(&self, _: &Parameter) -> Result<()> {
        Ok(())
    }

    fn schema(&self, _: &Parameter) -> Json {
        let names = Speculate::ALL.iter().map(|kind| json!(kind.name())).chain([Json::Null]);
        json!({"enum": names.collect::<Vec<Json>>()})
    }
}

impl Value for Option<SchemaText> {
    fn to_json(&self) -> Json {
        self.as_ref().map(|schema| schema.0.clone()).into()
    }

    fn read_json(&mut self, json: &Json) -> std::result::Result<(), String> {
        read::<Option<String>>(json).map(|text| *self = text.map(SchemaText))
    }

    fn check(&self, _: &Parameter) -> Result<()> {
        Ok(())
    }

    fn schema(&self, _: &Parameter) -> Json {
        json!({"type": ["string", "null"]})
    }
}

impl Value for Option<Choices> {
    fn to_json(&self) -> Json {
        self.as_ref().map(|choices| choices.0.clone()).into()
    }

    fn read_json(&mut self, json: &Json) -> std::result::Result<(), String> {
        read::<Option<Vec<String>>>(json).map(|texts| *self = texts.map(Choices))
    }

    fn check(&self, parameter: &Parameter) -> Result<()> {
        match self {
            Some(Choices(texts)) if texts.is_empty() => Err(parameter.refuse("an empty list", "at least one text")),
            Some(Choices(texts)) => texts.check(parameter),
            None => Ok(()),
        }
    }

    fn schema(&self, _: &Parameter) -> Json {
        json!({"type": ["array", "null"], "items": {"type": "string"}})
    }
}

impl Value for Option<String> {
    fn to_json(&self) -> Json {
        self.clone().into()
    }

    fn read_json(&mut self, json: &Json) -> std::result::Result<(), String> {
        read(json).map(|text| *self = text)
    }

    fn check(&self, parameter: &Parameter) -> Result<()> {
        if self.as_ref().is_some_and(String::is_empty) { Err(parameter.refuse("empty", "a text")) } else { Ok(()) }
    }

    fn schema(&self, _: &Parameter) -> Json {
        json!({"type": ["string", "null"]})
    }
}

impl Value for bool {
    fn to_json(&self) -> Json {
        (*self).into()
    }

    fn read_json(&mut self, json: &Json) -> std::result::Result<(), String> {
        read(json).map(|flag| *self = flag)
    }

    fn check(&self, _: &Parameter) -> Result<()> {
        Ok(())
    }

    fn schema(&self, _: &Parameter) -> Json {
        json!({"type": "boolean"})
    }
}

impl Value for Vec<TokenId> {
    fn to_json(&self) -> Json {
        self.clone().into()
    }

    fn read_json(&mut self, json: &Json) -> std::result::Result<(), String> {
        read(json).map(|ids| *self = ids)
    }

    fn check(&self, _: &Parameter) -> Result<()> {
        Ok(())
    }

    fn schema(&self, parameter: &Parameter) -> Json {
        json!({"type": "array", "items": parameter.rules.schema(json!("integer"))})
    }
}

impl Value for Vec<String> {
    fn to_json(&self) -> Json {
        self.clone().into()
    }

    fn read_json(&mut self, json: &Json) -> std::result::Result<(), String> {
        read(json).map(|texts| *self = texts)
    }

    fn check(&self, parameter: &Parameter) -> Result<()> {
        if self.iter().any(String::is_empty) {
            Err(parameter.refuse("an empty text", "texts of at least one character"))
        } else {
            Ok(())
        }
    }

    fn schema(&self, _: &Parameter) -> Json {
        json!({"type": "array", "items": {"type": "string"}})
    }
}

/// Ids and numbers as JSON, which has no infinite numbers: they are texts.
fn bias_to_json(bias: &[(TokenId, f32)], number: impl Fn(f32) -> Json) -> Vec<(TokenId, Json)> {
    bias.iter().map(|(id, x)| (*id, if x.is_finite() { number(*x) } else { x.to_string().into() })).collect()
}

/// Ids and numbers as saved conversations hold them: with all digits of the float. Claims have the shortest decimal
/// number instead.
pub fn bias_to_json_exact(bias: &[(TokenId, f32)]) -> Vec<(TokenId, Json)> {
    bias_to_json(bias, Json::from)
}

/// Reads the ids and numbers that a claim or a saved conversation holds.
pub fn bias_from_json(bias: &[(TokenId, Json)]) -> std::result::Result<Vec<(TokenId, f32)>, String> {
    let entry = |(id, x): &(TokenId, Json)| {
        let number = x.as_f64().map(|x| x as f32).or(x.as_str().and_then(|text| text.parse().ok()));
        number.map(|number| (*id, number)).ok_or_else(|| format!("it is {x} for id {id}, expected a number"))
    };
    bias.iter().map(entry).collect()
}

impl Value for Vec<(TokenId, f32)> {
    fn to_json(&self) -> Json {
        json!(bias_to_json(self, |x| decimal(x).into()))
    }

    fn read_json(&mut self, json: &Json) -> std::result::Result<(), String> {
        *self = bias_from_json(&read::<Vec<(TokenId, Json)>>(json)?)?;
        Ok(())
    }

    fn check(&self, parameter: &Parameter) -> Result<()> {
        if let Some((id, _)) = self.iter().find(|(_, x)| x.is_nan()) {
            return Err(Error::Argument(format!("{} of id {id} is NaN, expected a number", parameter.name)));
        }
        let mut ids: Vec<TokenId> = self.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(parameter.refuse(format!("given twice for id {}", pair[0]), "one number for each id")),
            None => Ok(()),
        }
    }

    fn schema(&self, _: &Parameter) -> Json {
        let id = json!({"type": "integer", "minimum": 0});
        let number = json!({"oneOf": [{"type": "number"}, {"enum": ["inf", "-inf"]}]});
        let entry = json!({"type": "array", "prefixItems": [id, number], "minItems": 2, "maxItems": 2});
        json!({"type": "array", "items": entry})
    }
}
