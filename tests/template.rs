//! Chat templates, compared with the results of transformers.

use bitnet::template::Template;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// The folder of expected results from transformers, if it is at hand.
fn parity() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/parity");
    let folder = std::env::var_os("BITNET_PARITY").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

fn read(path: PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("a golden")).expect("JSON")
}

/// Renders a case and says how the result differs from the expected one, if it does.
fn difference(template: &Result<Template, bitnet::error::Error>, case: &Value) -> Option<String> {
    let tools = Some(&case["tools"]).filter(|tools| !tools.is_null());
    let generation = case["add_generation_prompt"].as_bool().expect("a bool");
    let render = |t: &Template| t.render(&case["messages"], tools, generation, &Map::new()).map_err(|e| e.to_string());
    let rendered = template.as_ref().map_err(|e| e.to_string()).and_then(render);
    match (case["rendered"].as_str(), rendered) {
        (Some(want), Ok(got)) if want == got => None,
        (None, Err(_)) => None,
        (want, got) => Some(format!("{}: want {want:?}\n got {got:?}", case["conversation"])),
    }
}

#[test]
fn made_up_templates_render_as_with_transformers() {
    let Some(folder) = parity() else { return };
    let goldens = read(folder.join("templates.json"));
    for case in goldens["cases"].as_array().expect("cases") {
        let source = goldens["sources"][case["template"].as_str().expect("a name")].as_str().expect("a source");
        let template = Template::from_jinja(source, case["bos_token"].as_str(), case["eos_token"].as_str());
        assert_eq!(difference(&template, case), None, "{}", case["template"]);
    }
}

#[test]
fn real_templates_render_as_with_transformers() {
    let Some(folder) = parity() else { return };
    let (mut templates, mut differences) = (0, Vec::new());
    for entry in std::fs::read_dir(folder.join("templates")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "jinja") {
            templates += 1;
            let goldens = read(path.with_extension("json"));
            let source = std::fs::read_to_string(&path).expect("a source");
            let template = Template::from_jinja(&source, goldens["bos_token"].as_str(), goldens["eos_token"].as_str());
            for case in goldens["cases"].as_array().expect("cases") {
                differences.extend(difference(&template, case).map(|d| format!("{}: {d}", path.display())));
            }
        }
    }
    assert_eq!(templates, 32);
    assert!(differences.is_empty(), "{} differ, among them\n{:#?}", differences.len(), differences.first());
}

fn conversation() -> Value {
    json!([{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hi <|eot_id|>"}])
}

#[test]
fn built_in_templates_render_as_documented() {
    let render = |name: &str| {
        let template = Template::named(name, Some("<s>"), Some("</s>")).expect("built in");
        assert_eq!(template.name(), name);
        template.render(&conversation(), None, true, &Map::new()).expect("rendered")
    };
    assert_eq!(render("raw"), " Be brief. Hi <|eot_id|>");
    assert_eq!(render("bitnet"), "System: Be brief.<|eot_id|>User: Hi <|eot_id|><|eot_id|>Assistant: ");
    assert_eq!(
        render("llama3-chat"),
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n\
         Hi <|eot_id|><|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    assert_eq!(render("instruct"), "Be brief.\n\n### Instruction:\nHi <|eot_id|>\n\n### Response:\n");
}

fn refusal(source: &str) -> String {
    let rendered = Template::from_jinja(source, None, None)
        .and_then(|template| template.render(&conversation(), None, true, &Map::new()));
    rendered.expect_err("refused").to_string()
}

#[test]
fn errors_of_a_template_name_its_line() {
    let unknown = Template::named("llama9", None, None).expect_err("refused").to_string();
    assert!(unknown.contains("llama9") && unknown.contains("llama3-chat"), "{unknown}");
    assert!(refusal("ok\n{% if %}").contains("line 2"));
    let raised = refusal("\n\n{{ raise_exception('roles must alternate') }}");
    assert!(raised.contains("line 3") && raised.contains("roles must alternate"), "{raised}");
    assert!(refusal("{{ messages[0].no.such }}").contains("line 1"));
}
