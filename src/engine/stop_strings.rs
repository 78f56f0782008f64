//! Stop strings: holds back text that might be the start of one.

/// Looks for the stop strings of one answer.
pub(super) struct StopStrings {
    strings: Vec<String>,
    held: String,
}

impl StopStrings {
    pub(super) fn new(strings: Vec<String>) -> StopStrings {
        StopStrings { strings, held: String::new() }
    }

    /// Adds text. Returns the text that can be shown now, and whether a stop string, which is not shown, ended the
    /// answer.
    pub(super) fn push(&mut self, more: &str) -> (String, bool) {
        self.held.push_str(more);
        if let Some(end) = self.strings.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(end);
            return (self.flush(), true);
        }
        let may_begin = |start: &usize| self.strings.iter().any(|stop| stop.starts_with(&self.held[*start..]));
        let starts = self.held.char_indices().map(|(start, _)| start);
        let undecided = starts.clone().find(may_begin).unwrap_or(self.held.len());
        let rest = self.held.split_off(undecided);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text still held back, once the answer has ended for another reason.
    pub(super) fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/stop_strings.rs"]
mod tests;
