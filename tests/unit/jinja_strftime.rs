use super::*;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value as Json;

const ENOUGH: usize = 1 << 20;

fn moment(text: &str) -> Zoned {
    let time: DateTime = text.parse().expect("a time");
    time.to_zoned(TimeZone::UTC).expect("a time")
}

#[test]
fn every_directive_prints_what_python_prints() {
    let cases: Json = serde_json::from_str(include_str!("../fixtures/python_strftime.json")).expect("JSON");
    for case in cases.as_array().expect("cases") {
        let [time, format, expected] = [0, 1, 2].map(|n| case[n].as_str().expect("a text"));
        let ours = strftime(&Text::own(format), &moment(time), ENOUGH).expect("short");
        assert_eq!(ours.as_str(), expected, "{case}");
    }
}

#[test]
fn a_format_of_a_message_prints_data() {
    let time = moment("2024-02-29T23:59:59.000007");
    let show = |format: &Text| {
        let shown = strftime(format, &time, ENOUGH).expect("short");
        shown.chars().map(|(_, is_data)| if is_data { 'd' } else { 'o' }).collect::<String>()
    };
    assert_eq!(show(&Text::own("<%d %5p%f>")), "o".repeat(16));
    assert_eq!(show(&Text::data("<%d %5p%f>")), "d".repeat(16));
    assert_eq!(show(&Text::concat([&Text::own("a%"), &Text::data("qb")].into_iter())), "oddd");
}

#[test]
fn a_long_result_is_refused() {
    let time = moment("2024-02-29T23:59:59");
    let format = Text::own("%1000d".repeat(1000));
    assert_eq!(strftime(&format, &time, 100_000), Err(Fault::TooLong));
    assert_eq!(strftime(&format, &time, ENOUGH).expect("a megabyte").len(), 1_000_000);
}
