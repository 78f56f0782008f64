//! Stop texts: what may be the beginning of one is held back until it is decided.

/// Looks for the stop texts of one answer.
pub(super) struct Stops {
    texts: Vec<String>,
    held: String,
}

impl Stops {
    pub(super) fn new(texts: Vec<String>) -> Stops {
        Stops { texts, held: String::new() }
    }

    /// What can be shown after `more`, and whether a stop text ended the answer (it is not shown).
    pub(super) fn push(&mut self, more: &str) -> (String, bool) {
        self.held.push_str(more);
        if let Some(end) = self.texts.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(end);
            return (self.flush(), true);
        }
        let may_begin = |start: &usize| self.texts.iter().any(|stop| stop.starts_with(&self.held[*start..]));
        let starts = self.held.char_indices().map(|(start, _)| start);
        let undecided = starts.clone().find(may_begin).unwrap_or(self.held.len());
        let rest = self.held.split_off(undecided);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What is left when the answer ends otherwise.
    pub(super) fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/stops.rs"]
mod tests;
