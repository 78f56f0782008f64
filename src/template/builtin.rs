//! The built-in templates and their Jinja sources.

use crate::error::{Error, Result};

/// The name and the Jinja source of each built-in template.
const SOURCES: [(&str, &str); 4] = [
    ("raw", "{% for message in messages %}{{ message['content'] }}{% endfor %}"),
    (
        "instruct",
        "{% for message in messages %}{% if message['role'] == 'user' %}### Instruction:\n{{ message['content'] | trim }}\n\n\
         {% elif message['role'] == 'assistant' %}### Response:\n{{ message['content'] | trim }}\n\n\
         {% else %}{{ message['content'] | trim }}\n\n{% endif %}{% endfor %}\
         {% if add_generation_prompt %}### Response:\n{% endif %}",
    ),
    (
        "llama3-chat",
        "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + \
         message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}\
         {% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}\
         {{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    ),
    (
        "bitnet",
        "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = message['role'] | capitalize \
         + ': '+ message['content'] | trim + '<|eot_id|>' %}{{ content }}{% endfor %}{% if add_generation_prompt %}\
         {{ 'Assistant: ' }}{% endif %}",
    ),
];

/// The source of the built-in template of this name.
pub fn source(name: &str) -> Result<&'static str> {
    SOURCES.iter().find(|(known, _)| *known == name).map(|(_, source)| *source).ok_or_else(|| {
        let known = SOURCES.map(|(name, _)| name).join(", ");
        Error::Template(format!("template '{name}' is not known; choose one of {known}, or give a Jinja source"))
    })
}

/// The names of all built-in templates.
pub fn names() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|(name, _)| *name)
}

/// The name of the built-in template that has this source, apart from white space around it.
pub fn name_of(source: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(_, known)| known.trim() == source.trim()).map(|(name, _)| *name)
}
