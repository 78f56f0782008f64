//! The form that an answer has to have, as the sampling parameters ask for it.

named! {
    /// The kinds of forms, named as the parameters that ask for them.
    pub enum GrammarKind {
        /// JSON of a schema. The text is the schema.
        JsonSchema = "json_schema",
        /// A regular expression that the whole answer matches.
        Regex = "regex",
        /// One of some texts. The text is a JSON array of them.
        Choice = "choice",
        /// A grammar in Lark's notation, as the crate llguidance reads it.
        Lark = "grammar",
    }
}

/// A form that an answer has to have.
#[derive(Clone, Debug, PartialEq)]
pub struct GrammarSource {
    /// How the text is to be read.
    pub kind: GrammarKind,
    /// The schema, expression, texts or grammar.
    pub text: String,
}

/// A JSON schema, as JSON text.
#[derive(Clone, Debug, PartialEq)]
pub struct SchemaText(pub String);

/// Texts of which an answer is one: at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Choices(pub Vec<String>);
