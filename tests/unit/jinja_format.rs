use super::*;
use crate::template::jinja::format_spec::Formatted;
use crate::template::jinja::numbers::float_repr;
use crate::template::jinja::percent::{self, Operand};
use serde_json::{Value as Json, json};

const ENOUGH: usize = 1 << 20;

/// A value as the fixtures write it: JSON, and floats as `{"float": repr}`.
#[derive(Clone, Debug)]
struct Sample(Json);

impl Sample {
    fn text(&self) -> Text {
        Text::data(self.0.as_str().expect("a text"))
    }

    fn float(&self) -> Option<f64> {
        let fraction = self.0.as_f64().filter(|_| self.0.is_f64());
        fraction.or_else(|| self.0.get("float")?.as_str()?.parse().ok())
    }
}

impl FormatValue for Sample {
    fn formatted(&self) -> Formatted {
        match &self.0 {
            Json::Null => Formatted::Other("NoneType"),
            Json::Bool(yes) => Formatted::Bool(*yes),
            Json::Number(_) if self.0.is_f64() => Formatted::Float(self.float().expect("a float")),
            Json::Number(number) => Formatted::Int(number.as_i64().expect("an integer").into()),
            Json::String(_) => Formatted::Text(self.text()),
            Json::Array(_) => Formatted::Other("list"),
            Json::Object(_) => self.float().map_or(Formatted::Other("dict"), Formatted::Float),
        }
    }

    fn to_str(&self, limit: usize) -> Result<Text, Fault> {
        if self.0.is_string() { Ok(self.text()) } else { self.to_repr(limit) }
    }

    fn to_repr(&self, limit: usize) -> Result<Text, Fault> {
        let repr = |json: &Json| Sample(json.clone()).to_repr(limit).map(|text| text.as_str().to_string());
        let text = match &self.0 {
            Json::Null => "None".into(),
            Json::Bool(yes) => if *yes { "True" } else { "False" }.into(),
            Json::Number(number) => self.float().map_or(number.to_string(), float_repr),
            Json::String(_) => return self.text().to_repr(limit),
            Json::Array(items) => format!("[{}]", items.iter().map(repr).collect::<Result<Vec<_>, _>>()?.join(", ")),
            Json::Object(items) => match self.float() {
                Some(x) => float_repr(x),
                None => {
                    let item = |(key, item): (&String, &Json)| Ok(format!("'{key}': {}", repr(item)?));
                    format!("{{{}}}", items.iter().map(item).collect::<Result<Vec<_>, Fault>>()?.join(", "))
                }
            },
        };
        Ok(Text::own(text))
    }
}

impl FieldValue for Sample {
    fn attribute(&self, name: &Text) -> Result<Sample, Fault> {
        self.item(Key::Name(name.clone()))
    }

    fn item(&self, key: Key) -> Result<Sample, Fault> {
        let wrong = || Fault::Raised("TypeError", "no such item".into());
        let Key::Name(name) = key else { return Err(wrong()) };
        let items = self.0.as_object().filter(|_| self.float().is_none()).ok_or_else(wrong)?;
        let item = items.get(name.as_str()).cloned().map(Sample);
        item.ok_or_else(|| Fault::Raised("KeyError", format!("'{}'", name.as_str())))
    }
}

fn fixture() -> Json {
    serde_json::from_str(include_str!("../fixtures/python_format.json")).expect("JSON")
}

/// Asserts that a result is Python's. The values of the tests word their own TypeErrors.
fn assert_is(result: Result<Text, Fault>, expected: &Json, case: &Json) {
    let ours = match result {
        Ok(text) => json!({"is": text.as_str()}),
        Err(Fault::Raised(class, message)) if message == "no such item" => {
            json!({"raises": [class, expected["raises"][1]]})
        }
        Err(Fault::Raised(class, message)) => json!({"raises": [class, message]}),
        Err(other) => panic!("{other:?} of {case}"),
    };
    assert_eq!(&ours, expected, "{case}");
}

#[test]
fn format_specifications_do_what_python_does() {
    for case in fixture()["specs"].as_array().expect("cases") {
        let spec = Text::own(case[1].as_str().expect("a specification"));
        assert_is(format_value(&Sample(case[0].clone()), &spec, ENOUGH), &case[2], case);
    }
}

#[test]
fn str_format_fills_its_fields_as_python_does() {
    let named = json!({"a": "A", "b": {"key": "vß", "n": [1, null]}, "c": 6});
    for case in fixture()["fields"].as_array().expect("cases") {
        let template = Text::own(case[0].as_str().expect("a template"));
        let args: Vec<Sample> = case[1].as_array().expect("arguments").iter().cloned().map(Sample).collect();
        let result = format(&template, &args, &|name| named.get(name).cloned().map(Sample), ENOUGH);
        assert_is(result, &case[2], case);
    }
}

#[test]
fn percent_formats_what_python_formats() {
    for case in fixture()["percents"].as_array().expect("cases") {
        let template = Text::own(case[0].as_str().expect("a template"));
        let value = Sample(case[1].clone());
        let tuple: Option<Vec<Sample>> =
            value.0.get("tuple").and_then(Json::as_array).map(|items| items.iter().cloned().map(Sample).collect());
        let operand = match (&tuple, &value.0) {
            (Some(items), _) => Operand::Tuple(items),
            (None, Json::Array(_)) => Operand::Mapping(&value),
            (None, Json::Object(_)) if value.float().is_none() => Operand::Mapping(&value),
            _ => Operand::Single(&value),
        };
        assert_is(percent::format(&template, operand, ENOUGH), &case[2], case);
    }
}

fn show(text: &Text) -> String {
    text.runs(0..text.len()).map(|(run, is_data)| if is_data { format!("[{run}]") } else { run.into() }).collect()
}

#[test]
fn formatted_texts_keep_their_origins_and_numbers_are_data() {
    let data = [Sample("ab\n".into()), Sample(7.into())];
    let none = |_: &str| None;
    let formatted = |template: Text| show(&format(&template, &data, &none, ENOUGH).expect("a text"));
    assert_eq!(formatted(Text::own("<{0:>4.2}|{0!r}|{1:*>3}>")), "<  [ab]|['ab\\n']|**[7]>");
    assert_eq!(formatted(Text::data("<{0:x>4.2}|{1:x>3}>")), "[<xxab|xx7>]");
    let percent = |template: Text| show(&percent::format(&template, Operand::Tuple(&data), ENOUGH).expect("a text"));
    assert_eq!(percent(Text::own("%5s%%%03d")), "  [ab\n]%00[7]");
    assert_eq!(percent(Text::data("%.1r<%d%%")), "['<7%]");
    let char = percent::format(&Text::own("%c"), Operand::Single(&data[1]), ENOUGH).expect("a text");
    assert_eq!(show(&char), "[\u{7}]", "a computed character counts as data");
}

#[test]
fn widths_and_precisions_are_limited() {
    let value = [Sample(json!({"float": "1.5"})), Sample("a".into())];
    let none = |_: &str| None;
    for spec in ["{0:900000000}", "{0:.900000000f}", "{1:900000000}", "{0:0900000000}", "{0:_>9000000000000.3f}"] {
        assert_eq!(format(&Text::own(spec), &value, &none, ENOUGH), Err(Fault::TooLong), "{spec}");
    }
    for spec in
        ["%900000000f%s", "%.900000000f%s", "%.900000000e%s", "%0900000000d%s", "%d%900000000s", "%.90000000d%s"]
    {
        let result = percent::format(&Text::own(spec), Operand::Tuple(&value), ENOUGH);
        assert_eq!(result, Err(Fault::TooLong), "{spec}");
    }
    let digits = format(&Text::own("{0:.100000f}"), &value, &none, ENOUGH).expect("short");
    assert_eq!(digits.len(), 100_002);
}
