//! Grammars of calls, in the Lark syntax of the crate `llguidance`.

use super::{ARGS, BEGIN, CallFormat, CallReader, END, TOOL_CALLS, Tool, is_text};
use crate::error::{Error, Result};
use serde_json::{Map, Value as Json, json};

/// Keywords of a schema under which others are found by reference.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

impl CallReader {
    /// The grammar of answers that are calls and nothing else: at least one, and exactly one unless the reader takes
    /// several; or, with a schema `or_json`, that are JSON of this schema. `id` gives the id of a control token by its
    /// text.
    ///
    /// A control token is written as its id, everything else as text. Arguments follow the schemas of the tools; those
    /// that a schema does not name are left out.
    pub fn grammar(&self, or_json: Option<String>, id: impl Fn(&str) -> Option<u32>) -> Result<String> {
        let mark = |text: &str| id(text).map_or_else(|| literal(text), |id| format!("<[{id}]>"));
        // What is around a call, and between two.
        let (before, after, between) = match self.format {
            CallFormat::Hermes | CallFormat::Xml => {
                (mark(BEGIN) + " \"\\n\"", "\"\\n\" ".to_string() + &mark(END), "\"\\n\"")
            }
            CallFormat::Mistral => (String::new(), String::new(), "\", \""),
            CallFormat::MistralArgs => (mark(TOOL_CALLS), String::new(), ""),
            CallFormat::Llama => (String::new(), String::new(), "\"; \""),
            CallFormat::Json => (String::new(), String::new(), "\"\\n\""),
        };
        let calls = match (self.parallel, between) {
            (false, _) => "call".to_string(),
            (true, "") => "call+".to_string(),
            (true, between) => format!("call ({between} call)*"),
        };
        let start = match self.format {
            CallFormat::Mistral => format!("{} \"[\" {calls} \"]\"", mark(TOOL_CALLS)),
            _ => calls,
        };
        let names: Vec<String> = (0..self.tools.len()).map(|i| format!("call_{i}")).collect();
        let is_either = or_json.is_some();
        let mut rules = match or_json {
            None => vec![format!("start: {start}")],
            Some(schema) => {
                let read = serde_json::from_str::<Map<String, Json>>(&schema);
                let schema = read.map_err(|error| Error::Argument(format!("json_schema: it is not JSON: {error}")))?;
                let json = format!("json: %json {}", written(schema));
                vec!["start: calls | json".into(), format!("calls: {start}"), json]
            }
        };
        rules.push(format!("call: {}", names.join(" | ")));
        for (i, tool) in self.tools.iter().enumerate() {
            if let (true, Some(key)) = (is_either, self.format.bare_arguments()) {
                rules.push(format!("call_{i}: %json {}", call_schema(tool, key)));
                continue;
            }
            let named = |key: &str| literal(&format!("{{\"name\": {}, \"{key}\": ", Json::from(tool.name.as_str())));
            let body = match self.format {
                CallFormat::Xml => xml(i, tool, &mut rules),
                CallFormat::MistralArgs => format!("{} {} args_{i}", literal(&tool.name), mark(ARGS)),
                CallFormat::Llama => format!("{} args_{i} \"}}\"", named("parameters")),
                CallFormat::Hermes | CallFormat::Mistral | CallFormat::Json => {
                    format!("{} args_{i} \"}}\"", named("arguments"))
                }
            };
            if self.format != CallFormat::Xml {
                rules.push(format!("args_{i}: %json {}", arguments(&tool.parameters)));
            }
            let parts = [&before, &body, &after].into_iter().filter(|part| !part.is_empty());
            rules.push(format!("call_{i}: {}", parts.map(String::as_str).collect::<Vec<_>>().join(" ")));
        }
        Ok(rules.join("\n") + "\n")
    }
}

/// A call that is a JSON object, as a schema. Beside another schema a call has to be JSON, too: of a text and JSON that
/// begin alike, llguidance would read the text alone.
fn call_schema(tool: &Tool, key: &str) -> Json {
    let mut arguments = arguments(&tool.parameters);
    let mut schema = Map::new();
    for name in DEFINITIONS {
        if let Some(definitions) = arguments.as_object_mut().and_then(|arguments| arguments.remove(name)) {
            schema.insert(name.into(), definitions); // references begin at the root
        }
    }
    arguments.as_object_mut().and_then(|arguments| arguments.remove("x-guidance"));
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), json!({"name": {"const": tool.name}, key: arguments}));
    schema.insert("required".into(), json!(["name", key]));
    schema.insert("additionalProperties".into(), false.into());
    written(schema)
}

/// A text in the grammar. It quotes as JSON does.
fn literal(text: &str) -> String {
    Json::from(text).to_string()
}

/// The schema of all arguments: an object with the arguments that it names, written as Python writes JSON.
fn arguments(schema: &Json) -> Json {
    let mut schema = schema.as_object().cloned().unwrap_or_default();
    let combines = ["$ref", "anyOf", "oneOf", "allOf"].iter().any(|key| schema.contains_key(*key));
    if !combines {
        schema.entry("type").or_insert("object".into());
        schema.entry("properties").or_insert_with(|| Map::new().into());
        schema.entry("additionalProperties").or_insert(false.into());
    }
    written(schema)
}

/// A schema whose values are written as Python writes JSON, without further white space.
fn written(mut schema: Map<String, Json>) -> Json {
    let style = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    schema.entry("x-guidance").or_insert(style);
    schema.into()
}

/// What is between the tags of a call in XML. Adds the rules of its values.
fn xml(tool_index: usize, tool: &Tool, rules: &mut Vec<String>) -> String {
    let required = tool.parameters["required"].as_array();
    let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|required| required == name));
    let mut parts = vec![literal(&format!("<function={}>\n", tool.name))];
    for (i, (name, schema)) in tool.parameters["properties"].as_object().into_iter().flatten().enumerate() {
        let rule = format!("value_{tool_index}_{i}");
        let end = "\n</parameter>\n";
        let begin = literal(&format!("<parameter={name}>\n"));
        let part = match &schema["enum"] {
            Json::Array(values) if is_text(schema) => {
                let values = values.iter().map(|value| literal(value.as_str().unwrap_or("null")));
                rules.push(format!("{rule}: {}", values.collect::<Vec<_>>().join(" | ")));
                format!("{begin} {rule} {}", literal(end))
            }
            _ if is_text(schema) => {
                rules.push(format!("{rule}[suffix={}]: /(?s:.*)/", literal(end)));
                format!("{begin} {rule}")
            }
            _ => {
                let mut schema = schema.as_object().cloned().unwrap_or_default();
                for key in DEFINITIONS {
                    if let Some(all) = tool.parameters.get(key) {
                        schema.entry(key).or_insert_with(|| all.clone());
                    }
                }
                rules.push(format!("{rule}: %json {}", written(schema)));
                format!("{begin} {rule} {}", literal(end))
            }
        };
        parts.push(if is_required(name) { part } else { format!("({part})?") });
    }
    parts.push(literal("</function>"));
    parts.join(" ")
}
