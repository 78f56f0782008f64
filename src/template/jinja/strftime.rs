use super::text::{Fault, Text};
pub fn strftime(t: &jiff::civil::DateTime, f: &Text, _limit: usize) -> Result<Text, Fault> {
    Ok(Text::own(jiff::fmt::strtime::format(f.as_str(), *t).map_err(|e| Fault::value_error(e.to_string()))?))
}
